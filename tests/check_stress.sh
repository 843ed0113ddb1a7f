#!/bin/sh
# SPDX-License-Identifier: MIT
#
# pp-stress as its user meets it: exit statuses, the seed, files that are
# wrong, results as JSON, and the bytes that recorded traces take.
set -u
: "${srcdir:=.}" "${emulator=}"
failed=0
work=$(mktemp -d "${TMPDIR:-/tmp}/check_stress.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
recordings=$srcdir/stress/recordings

# Run pp-stress; its exit status is in $status, what it says in out and err.
stress()
{
    # shellcheck disable=SC2086 # a command with arguments, or nothing
    ./libtool --mode=execute $emulator ./pp-stress "$@" >"$work/out" 2>"$work/err"
    status=$?
}

wrong()
{
    echo "FAILED: $*"
    sed 's/^/    out: /' "$work/out" | tail -n 5
    sed 's/^/    err: /' "$work/err" | head -n 5
    failed=1
}

# expect STATUS FILE PATTERN ARGUMENT...: the status, and a line of out or err.
expect()
{
    wanted=$1 file=$2 pattern=$3
    shift 3
    stress "$@"
    [ "$status" -eq "$wanted" ] || wrong "status $status instead of $wanted: pp-stress $*"
    grep -q -e "$pattern" "$work/$file" || wrong "no '$pattern': pp-stress $*"
}

# ---- options
expect 2 err "no scenario given"
expect 2 err "Try 'pp-stress --help'" nonsense
expect 2 err "'nonsense' is not a scenario" nonsense
expect 2 err "unrecognized option '--nonsense'" --nonsense replay
expect 2 err "option '--seed' requires an argument" replay --seed
for bad in -1 x 1x '' 18446744073709551616; do
    expect 2 err "is not a number from 0 to 18446744073709551615" replay "--seed=$bad"
done
expect 2 err "is not a number from 1 to 1024" --threads 0 replay
expect 2 err "is not a number from 1 to 1024" --threads 1025 replay
expect 2 err "is not a number from 1 to" --iterations 0 replay
for bad in 0 -1 nan inf x 1e9; do
    expect 2 err "'$bad' is not a time" "--seconds=$bad" replay
done
expect 2 err "'x' is none of plt, got" --form x replay
expect 2 err "'x' is none of auto, dual, remap, flip, rwx" --wx x replay
expect 2 err "No such file or directory" --json "$work/none/file" replay
expect 2 err "'mmap:0': expected a number from 1 on" --fault mmap:0 faults
expect 2 err "'x:1': expected a call" --fault mmap:1,x:1 faults
expect 2 err "option '--fault' requires an argument" faults --fault
expect 2 err "know what may be refused then, not for replay" --fault mmap:1 replay
expect 2 err "know what may be refused then, not for all" --fault mmap:1 all
expect 0 out "^Usage: pp-stress" --help
expect 0 out "^pp-stress (libpatchpoint) [0-9]" --version

# ---- the seed, always
small=$recordings/cpython-x86_64-fannkuch.rec
expect 0 out "seed 77" --seed 77 replay "$small"
expect 0 out "seed 0" --seed 0 --quiet replay "$small"
expect 0 out "seed [0-9]" --quiet replay "$small"
[ "$(wc -l <"$work/out")" -eq 1 ] || wrong "--quiet says more than the seed"
expect 1 err "\[seed 78\]" --seed 78 --quiet replay "$work/none"
expect 1 err "$work/none: No such file or directory" replay "$work/none"

# ---- recordings that are wrong do not keep others from being played
head -n 40 "$small" >"$work/short.rec"
line=$(grep -n '^C' "$small" | head -n 1 | cut -d : -f 1)
sed "${line}s/.*/C 99999 0/" "$small" >"$work/offset.rec"
{ sed '$d' "$small"; echo 'free 4294967295'; echo end; } >"$work/free.rec"
printf '' >"$work/empty.rec"
sed 's/$/\r/' "$small" >"$work/crlf.rec"
expect 1 err "short.rec:41: the file ends" replay "$work/short.rec"
expect 1 err "offset.rec:$line: the instruction at byte 99999" replay "$work/offset.rec"
expect 1 err "free.rec:[0-9]*: trace 4294967295 is freed, but not known" replay "$work/free.rec"
expect 1 err "empty.rec:1: the file is empty" replay "$work/empty.rec"
expect 1 err "crlf.rec:1: a carriage return" replay "$work/crlf.rec"
expect 1 err "$work: Is a directory" replay "$work"
expect 1 out "fannkuch.rec (" replay "$work/empty.rec" "$small" "$work"
PP_STRESS_RECORDINGS=$work/none
export PP_STRESS_RECORDINGS
expect 1 err "no recording (\*.rec) in: $work/none" replay
mkdir "$work/one [1]" && cp "$small" "$work/one [1]/"
PP_STRESS_RECORDINGS="$work/one [1]"
expect 0 out "cpython-x86_64-fannkuch.rec (" replay
unset PP_STRESS_RECORDINGS

# ---- a run is repeated from its seed; everything else of replay runs, too
for run in 1 2; do
    stress --seed 5 --churn --json "$work/$run.json" --quiet replay "$small"
    [ "$status" -eq 0 ] || wrong "replay --churn"
    grep -e '"sites performed"' -e '"traces linked and run"' "$work/$run.json" >"$work/$run"
done
cmp -s "$work/1" "$work/2" || wrong "two runs of one seed differ"
stress --seed 6 --churn --json "$work/3.json" --quiet replay "$small"
grep -e '"sites performed"' -e '"traces linked and run"' "$work/3.json" | cmp -s "$work/1" - &&
    wrong "another seed makes no difference"
for arch in x86_64 aarch64; do
    for form in plt got; do
        expect 0 out "passed" --form $form replay "$recordings/cpython-$arch-richards.rec"
    done
done
for mode in flip rwx; do
    expect 0 out "(.*$mode" --wx $mode replay "$small"
done
expect 0 out "passed" --threads 3 --churn replay "$small"
stress --json - replay "$small"
grep -q '^{"program":"pp-stress"' "$work/out" && grep -q '"failures":0}$' "$work/out" ||
    wrong "--json - does not write JSON to standard output"

# ---- faults, drawn and given
expect 0 out "passed" --seed 9 --iterations 4 faults
expect 0 out "of these, refused *[1-9]" --iterations 1 --fault 'metadata:3+*,mprotect:2+2=EACCES' faults
expect 0 out "passed" --iterations 1 --wx flip --fault 'any:1+*' faults

# ---- spans that come and go, and traces that stay
expect 0 out "spans alive at the end *[1-9]" --iterations 2 memory
expect 0 out "passed" --iterations 1 --threads 2 --wx flip memory
expect 0 out "mappings of a region, at most *[1-7]" --live 20000 memory
expect 2 err "--live: '0' is not a number" --live 0 memory

# ---- transitions: with the seed everything comes again; in pages that flip nothing is armed
for run in 1 2; do
    stress --seed 5 --threads 1 --iterations 30 --json "$work/$run.json" --quiet osr
    [ "$status" -eq 0 ] || wrong "osr"
    grep -e '"on top"' -e '"replaced"' -e '"buffer"' -e '"mask"' "$work/$run.json" >"$work/$run"
    [ -s "$work/$run" ] || wrong "osr reports no passages"
done
cmp -s "$work/1" "$work/2" || wrong "two runs of one seed differ in their passages"
expect 0 out "passed" --seconds 2 osr
expect 0 out "passed" --iterations 20 --threads 3 --wx flip osr

# ---- forks in a storm
expect 0 out "forks / second *[1-9]" --iterations 20 --threads 2 fork
expect 0 out "passed" --iterations 6 --threads 2 --wx flip fork

# ---- bytes: near and far, shared trampolines, at most 1.03 of code and data
page=$(getconf PAGESIZE)
for name in tests loops; do
    file=$recordings/cpython-x86_64-$name.rec
    stress --json "$work/bytes.json" --quiet replay "$file"
    [ "$status" -eq 0 ] || wrong "replay of $name"
    [ "$page" -eq 4096 ] || continue
    # near own, near shared, far own, far shared
    sed -n 's/.*"  \/ code and data".*"values":\[\([^]]*\)\].*/\1/p' "$work/bytes.json" |
        awk -F, '{ print "'$name': resident / code and data: near " $2 ", far " $4
                   exit !(NF == 4 && $2 >= 1 && $2 <= 1.03 && $4 >= 1 && $4 <= 1.03) }' ||
        wrong "more than 1.03 times the bytes of $name"
    sed -n 's/.*"  a page per trace \/ code and data".*"values":\[\([^]]*\)\].*/\1/p' \
        "$work/bytes.json" | awk -F, '{ exit !($1 >= 1.23 && $1 <= 1.39) }' ||
        wrong "a page per trace does not take 1.23 to 1.38 times the bytes of $name"
done
exit $failed
