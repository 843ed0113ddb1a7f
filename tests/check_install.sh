#!/bin/sh
# SPDX-License-Identifier: MIT
#
# `make install` into an empty directory gives clients what they need, and
# `make uninstall` leaves nothing behind.
set -eu
stage=$PWD/tests/stage.tmp
rm -rf "$stage"
trap 'rm -rf "$stage"' EXIT

MAKEFLAGS='' && export MAKEFLAGS
"$MAKE" -s install DESTDIR="$stage"
"$MAKE" -s installcheck DESTDIR="$stage"
"$MAKE" -s uninstall DESTDIR="$stage" >/dev/null
left=$(find "$stage" ! -type d)
[ -z "$left" ] || { echo "left behind by uninstall: $left"; exit 1; }
