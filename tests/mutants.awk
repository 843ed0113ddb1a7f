# SPDX-License-Identifier: MIT
#
# Mutants of C files, one a line: file, line number, kind, and the line as it becomes, with tabs
# between.  See tests/mutate.  It knows how this tree's C is written, not all of C: one statement
# a line, spaces around operators.

# The line with strings, characters and comments blanked, so that positions stay.
function masked(line,    out, c, i, quote) {
    out = ""
    quote = ""
    for (i = 1; i <= length(line); i++) {
        c = substr(line, i, 1)
        if (in_comment) {
            if (substr(line, i, 2) == "*/") {
                in_comment = 0
                out = out "~"
                i++
            }
            out = out "~"
        } else if (quote != "") {
            if (c == "\\") {
                out = out "~"
                i++
            } else if (c == quote)
                quote = ""
            out = out "~"
        } else if (substr(line, i, 2) == "/*") {
            in_comment = 1
            out = out "~~"
            i++
        } else if (c == "\"" || c == "'") {
            quote = c
            out = out "~"
        } else
            out = out c
    }
    return out
}

function emit(kind, text) {
    if (text != $0)
        printf "%s\t%d\t%s\t%s\n", name, FNR, kind, text
}

# Each occurrence of `from` in the code becomes `to`, one at a time.
function swap(kind, from, to,    start, at) {
    start = 1
    while ((at = index(substr(code, start), from)) > 0) {
        at += start - 1
        # " - 1" is not a part of " - 14".
        if (from !~ /1$/ || substr(code, at + length(from), 1) !~ /[0-9A-Za-z_]/)
            emit(kind, substr($0, 1, at - 1) to substr($0, at + length(from)))
        start = at + length(from)
    }
}

# `if (x)` becomes `if (!(x))`, where the condition ends on the line.
function negate(word,    at, depth, i, c) {
    at = index(code, word " (")
    if (at == 0)
        return
    at += length(word) + 1
    for (i = at; i <= length(code); i++) {
        c = substr(code, i, 1)
        depth += (c == "(") - (c == ")")
        if (depth == 0) {
            emit("negate", substr($0, 1, at) "!(" substr($0, at + 1, i - at - 1) "))" \
                 substr($0, i + 1))
            return
        }
    }
}

function balanced(text,    copy) {
    copy = text
    return gsub(/\(/, "", copy) == gsub(/\)/, "", copy)
}

FNR == 1 {
    name = FILENAME
    sub(root "/", "", name)
    in_comment = 0
    whole = 1
}

{
    code = masked($0)
    begins = whole            # a statement begins on this line
    trimmed = code
    gsub(/[ ~]+$/, "", trimmed)
    # What comes next begins a statement if this line ended one.
    whole = trimmed ~ /[;{}:]$/ || trimmed ~ /^ *(else|do)$/ || trimmed ~ /^ *(if|for|while|switch) \(.*\)$/ ||
            trimmed == ""
}

/^#/ || code !~ /^ / || code ~ /_Static_assert|while \(0\)|^ *(case|default)/ { next }

{
    negate("if")
    negate("while")
    swap("compare", " < ", " <= ")
    swap("compare", " <= ", " < ")
    swap("compare", " > ", " >= ")
    swap("compare", " >= ", " > ")
    swap("compare", " == ", " != ")
    swap("compare", " != ", " == ")
    swap("logic", " && ", " || ")
    swap("logic", " || ", " && ")
    swap("off by one", " + 1", "")
    swap("off by one", " - 1", "")
    swap("arithmetic", " + ", " - ")
    swap("arithmetic", " - ", " + ")
    swap("arithmetic", " += ", " -= ")
    swap("arithmetic", " -= ", " += ")
    swap("arithmetic", " |= ", " &= ~")
    swap("negate", "(!", "(")
    swap("order", "memory_order_acquire", "memory_order_relaxed")
    swap("order", "memory_order_release", "memory_order_relaxed")
    swap("order", "memory_order_acq_rel", "memory_order_relaxed")
    swap("order", "memory_order_seq_cst", "memory_order_relaxed")
    swap("return", "return true;", "return false;")
    swap("return", "return false;", "return true;")
    if (begins && trimmed ~ /;$/ && balanced(trimmed)) {
        indent = $0
        sub(/[^ ].*/, "", indent)
        if (trimmed ~ /^ +return (PP_E_|error_|.*[a-z]_refuse)/)
            emit("return", indent "return PP_OK;")
        # A call; an assignment to what is declared elsewhere; a count.
        else if (trimmed ~ /^ +(\(void\) )?[a-z_][a-z_0-9]*\(.*\);$/ ||
                 trimmed ~ /^ +[*a-z_(][^ ]* [-+|&^]?= .*;$/ || trimmed ~ /^ +[*a-z_(][^ ]*(\+\+|--);$/)
            emit("delete", indent ";")
    }
}
