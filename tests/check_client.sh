#!/bin/sh
# SPDX-License-Identifier: MIT
#
# A client of the installed library, compiled with what pkg-config says and
# nothing else: as C and as C++, against the shared and the static library.
# `make installcheck` runs it; DESTDIR, if any, is where the library was put.
set -eu
# shellcheck disable=SC2154 # make sets them
: "$includedir" "$libdir" "$pkgconfigdir" "${DESTDIR=}" "${PKG_CONFIG:=pkg-config}" "${NM:=nm}"
: "$CC" "$CFLAGS" "$CXX" "$CXXFLAGS" "${sanitize=}" "${emulator=}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PKG_CONFIG_PATH=$DESTDIR$pkgconfigdir
PKG_CONFIG_SYSROOT_DIR=$DESTDIR
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
unset PKG_CONFIG_LIBDIR # of a cross build, for its dependencies

# The run-time dependencies are the C library's alone; none of ours is in the flags.
flags=$($PKG_CONFIG --cflags --libs --static libpatchpoint)
echo "flags: $flags"
for flag in $flags; do
    case $flag in
        -I* | -L* | -lpatchpoint | -pthread | -lpthread | -ldl) ;;
        *) echo "the flag $flag is not expected"; exit 1 ;;
    esac
done

# build_and_run NAME COMPILER...: compiles $client, links it with $link.
build_and_run() {
    name=$1
    shift
    echo "$name: $* $link"
    # shellcheck disable=SC2046,SC2086 # lists
    "$@" -o "$work/client" "$client" -x none $($PKG_CONFIG --cflags libpatchpoint) $link
    # shellcheck disable=SC2086 # a list
    LD_LIBRARY_PATH=$DESTDIR$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} $emulator "$work/client"
}

# Every header can be included alone and first.
for header in "$DESTDIR$includedir"/patchpoint.h "$DESTDIR$includedir"/patchpoint/*.h; do
    printf '#include "%s"\nint complete;\n' "$header" >"$work/header.c"
    # shellcheck disable=SC2086 # lists
    $CC $CFLAGS -std=c11 -Wall -Wextra -Wpedantic -Werror -I"$DESTDIR$includedir" -c -o "$work/header.o" "$work/header.c"
    # shellcheck disable=SC2086
    [ -z "$CXX" ] || $CXX $CXXFLAGS -std=c++17 -Wall -Wextra -Werror -I"$DESTDIR$includedir" \
        -x c++ -c -o "$work/header.o" "$work/header.c"
done

static_archive=$DESTDIR$libdir/libpatchpoint.a
for client in "$@"; do
    for kind in shared archive static; do
        case $kind in
            shared)
                [ -f "$DESTDIR$libdir/libpatchpoint.so" ] || continue
                link=$($PKG_CONFIG --libs libpatchpoint) ;;
            archive)
                [ -f "$static_archive" ] || continue
                link="$static_archive $($PKG_CONFIG --libs-only-l --static libpatchpoint | sed 's/-lpatchpoint//')" ;;
            static)
                if [ ! -f "$static_archive" ] || [ -n "$sanitize" ]; then continue; fi
                link="-static $($PKG_CONFIG --libs --static libpatchpoint)" ;;
        esac
        # shellcheck disable=SC2086 # lists
        build_and_run "C, $kind" $CC $CFLAGS -Wall
        # shellcheck disable=SC2086
        [ -z "$CXX" ] || build_and_run "C++, $kind" $CXX $CXXFLAGS -Wall -x c++
    done
done

# A host with names of its own: nothing but the public ones is in the archive.
if [ -f "$static_archive" ]; then
    foreign=$(LC_ALL=C $NM -g --defined-only "$static_archive" | awk 'NF == 3 && $3 !~ /^pp_/ { print $3 }')
    [ -z "$foreign" ] || { echo "libpatchpoint.a defines $foreign"; exit 1; }
fi
