#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What the linker, the loader and the kernel read in our ELF files.  Every
# object is looked at, because one that lacks a note takes it from the whole
# program.
set -u
: "${READELF:=readelf}" "${pp_arch:=x86_64}"
failed=0

fail() {
    echo "$*"
    failed=1
}

case $pp_arch in
    x86_64) landing_pads=IBT ;;
    aarch64) landing_pads=BTI ;;
esac

# Prints the members of archive $1 that have no line matching $3 in readelf's output for $2.
members_without() {
    LC_ALL=C $READELF "$2" "$1" | awk -v wanted="$3" '
        /^File: / { if (member != "" && !found) print member; member = $2; found = 0 }
        $0 ~ wanted { found = 1 }
        END { if (member != "" && !found) print member }'
}

check_objects() {
    archive=$1
    count=$($READELF -h "$archive" | grep -c '^File: ')
    [ "$count" -gt 1 ] || fail "$archive: no objects"
    for member in $(members_without "$archive" -WS '\.note\.GNU-stack +PROGBITS +[0-9a-f]+ [0-9a-f]+ [0-9a-f]+ [0-9a-f]+ +0 +0'); do
        fail "$member: no note that its stack is not executable"
    done
    for member in $(members_without "$archive" -Wn "feature:.*$landing_pads"); do
        fail "$member: no $landing_pads note"
    done
}

check_library() {
    library=$1
    headers=$(LC_ALL=C $READELF -Wl "$library") dynamic=$(LC_ALL=C $READELF -Wd "$library")
    echo "$headers" | grep -q 'GNU_STACK.* RW ' || fail "$library: executable stack"
    echo "$headers" | grep -q 'LOAD.* RWE ' && fail "$library: a segment is writable and executable"
    echo "$headers" | grep -q GNU_RELRO || fail "$library: no RELRO"
    echo "$headers" | grep -q '^ *TLS ' && fail "$library: thread-local storage"
    echo "$dynamic" | grep -q 'FLAGS.*NOW' || fail "$library: lazily bound"
    echo "$dynamic" | grep -q TEXTREL && fail "$library: relocations in code"
    echo "$dynamic" | grep -q 'SONAME.*\[libpatchpoint\.so\.0\]' || fail "$library: soname"
    for needed in $(echo "$dynamic" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        case $needed in
            libc.so.6 | ld-linux-*.so.* | libgcc_s.so.1) ;;
            *) [ -n "${sanitize-}" ] || fail "$library: needs $needed" ;;
        esac
    done
}

check_objects .libs/libpatchpoint-core.a
if [ -f .libs/libpatchpoint.so ]; then
    check_library .libs/libpatchpoint.so
fi
exit $failed
