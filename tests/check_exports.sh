#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The shared library exports exactly what the public headers declare PP_API.
set -u
: "${srcdir:=.}" "${NM:=nm}"
library=.libs/libpatchpoint.so
[ -f $library ] || { echo "no shared library in this build"; exit 77; }

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT

# A declaration may span lines; its name is the first pp_ word before a parenthesis.
cat "$srcdir"/include/patchpoint/*.h | grep -v '^#' | tr '\n' ' ' | tr ';' '\n' |
    sed -n 's/.*PP_API //p' | sed 's/^[^(]*\(pp_[a-z0-9_]*\)(.*/\1/' | sort >"$work/declared"
LC_ALL=C $NM -D --defined-only $library | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$work/exported"

[ "$(wc -l <"$work/declared")" -gt 2 ] || { echo "no declarations found in the headers"; exit 1; }
diff "$work/declared" "$work/exported" >"$work/difference" && exit 0
sed -n 's/^< /declared but not exported: /p; s/^> /exported but not declared: /p' "$work/difference"
exit 1
