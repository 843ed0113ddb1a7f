#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Programs that link the library and programs that load it, C and C++, shared
# and static, with little and with much static thread-local storage: what was
# the host's stays the host's, and the bookkeeping is where README says.
set -u
unset GLIBC_TUNABLES # that the other tests run with
library=.libs/libpatchpoint.so
filler=tests/interpose/.libs/filler.so plugin=tests/interpose/.libs/plugin.so
[ -z "${sanitize-}" ] || { echo "a sanitizer has replaced malloc already"; exit 77; }

# Enough for Debian's jemalloc to be loaded late; glibc's default is not.
much=GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384
failed=0

# run VARIABLE=VALUE PROGRAM ARGUMENT...
run() {
    setting=$1 program=tests/interpose/$2
    shift 2
    echo "-- $setting $program $*"
    # shellcheck disable=SC2086 # a command with arguments, or nothing
    env "$setting" ./libtool --mode=execute ${emulator-} "$program" "$@" || { echo "failed: $?"; failed=1; }
}

late=libc
if [ "${have_jemalloc-}" = yes ] && run $much load libjemalloc.so.2 && [ $failed = 0 ]; then
    late=jemalloc
else
    echo "no jemalloc to load"
    failed=0
fi

programs=host
[ "${have_cxx-}" = no ] || programs='host throw throw_archive throw_static'
for host in $programs; do
    run LC_ALL=C "$host" any libc
    run $much "$host" $late libc
done
run LC_ALL=C load $library $plugin libc $filler
run LC_ALL=C load $library $plugin any
run $much load $library $plugin $late

# A host that has brought jemalloc for itself keeps it, and shares it.
[ $late = libc ] || run LD_PRELOAD=libjemalloc.so.2 host jemalloc libjemalloc
exit $failed
