/* SPDX-License-Identifier: MIT */
/* Names of what a walk reports. */
#include <config.h>

#include <patchpoint/walk.h>

const char *pp_walk_kind_name(pp_walk_kind kind)
{
    switch (kind) {
    case PP_WALK_TRACE: return "trace";
    case PP_WALK_OSR: return "osr";
    case PP_WALK_TRAMPOLINE: return "trampoline";
    case PP_WALK_STUB: return "stub";
    case PP_WALK_ENTRY: return "entry";
    }
    return "unknown";
}

const char *pp_verdict_name(pp_verdict verdict)
{
    switch (verdict) {
    case PP_VERDICT_VALID: return "valid";
    case PP_VERDICT_UNSURE: return "unsure";
    case PP_VERDICT_GAP: return "gap";
    case PP_VERDICT_BROKEN: return "broken";
    }
    return "unknown";
}

const char *pp_check_name(pp_check check)
{
    switch (check) {
    case PP_CHECK_NONE: return "none";
    case PP_CHECK_ALIGN: return "align";
    case PP_CHECK_BOUNDS: return "bounds";
    case PP_CHECK_GROWTH: return "growth";
    case PP_CHECK_CANONICAL: return "canonical";
    case PP_CHECK_CLASS: return "class";
    case PP_CHECK_CALL: return "call";
    case PP_CHECK_COOKIE: return "cookie";
    case PP_CHECK_ANCHOR: return "anchor";
    }
    return "unknown";
}

const char *pp_walk_end_name(pp_walk_end end)
{
    switch (end) {
    case PP_END_RUNNING: return "running";
    case PP_END_ROOT: return "root";
    case PP_END_UNKNOWN: return "unknown frame";
    case PP_END_BROKEN: return "broken";
    case PP_END_LIMIT: return "limit";
    }
    return "unknown";
}
