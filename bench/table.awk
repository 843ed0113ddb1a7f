# SPDX-License-Identifier: MIT
# The rows that the benchmarks wrote, as a table.  A goal that is missed is no error.
BEGIN {
    FS = "\t"
    format = "%-46s  %-20s  %10s  %10s  %s\n"
    printf "\n" format, "what", "against", "goal", "measured", "reached"
}
{ printf format, $1, $2, $3, $4, $5; if ($5 == "NO") missed++ }
END { printf "\n%d of %d goals reached\n", NR - missed, NR }
