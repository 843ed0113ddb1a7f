#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The manual pages are right mdoc, and pp-stress(1) has every option and
# scenario that the program itself tells of.
set -u
: "${srcdir:=.}" "${emulator=}"
command -v mandoc >/dev/null || { echo "no mandoc"; exit 77; }
failed=0

for page in "$srcdir"/doc/*.[1-8]; do
    mandoc -Tlint -Wwarning "$page" || failed=1
done

manual=$(mandoc -Tascii "$srcdir/doc/pp-stress.1" | sed "s/.$(printf '\b')//g")
# shellcheck disable=SC2086 # a command with arguments, or nothing
if ! help=$(./libtool --mode=execute $emulator ./pp-stress --help); then
    echo "pp-stress --help fails"
    exit 1
fi
for word in $(echo "$help" | grep -o -e '--[a-z]*' | sort -u) \
    $(echo "$help" | sed -n '/^Scenarios:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    case $manual in
        *"$word"*) ;;
        *) echo "pp-stress(1) does not tell of $word"; failed=1 ;;
    esac
done
exit $failed
