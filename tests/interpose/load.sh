#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The library loads into a process whose static thread-local storage is used
# up, and into one that has enough of it for jemalloc; the allocator follows.
set -u
library=.libs/libpatchpoint.so filler=tests/interpose/.libs/filler.so
[ -f $library ] || { echo "no shared library in this build"; exit 77; }
[ -z "${sanitize-}" ] || { echo "a sanitizer's runtime cannot be loaded later"; exit 77; }

load() { ${emulator-} tests/interpose/load "$@"; }
much=glibc.rtld.optional_static_tls=16384
failed=0

if [ "${have_jemalloc-}" = yes ] && GLIBC_TUNABLES=$much load libjemalloc.so.2; then
    with_much=jemalloc
else
    with_much=libc
fi
echo "-- no static thread-local storage left"
load $library $filler libc full || failed=1
echo "-- as the loader starts a program by default"
load $library $filler any || failed=1
echo "-- with $much"
GLIBC_TUNABLES=$much load $library $filler $with_much || failed=1
exit $failed
