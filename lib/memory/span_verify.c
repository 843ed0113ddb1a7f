/* SPDX-License-Identifier: MIT */
/* Verification of a span space: every invariant of its extents, holes and counts. */
#include <config.h>

#include "memory/span.h"

#include "memory/span_unit.h"

#include <string.h>

/* A lookup of any unit of a span finds the span, and the extent before it ends at its start. */
static const char *verify_extent(const struct span_space *space, const struct extent *at)
{
    const struct extents *extents = &space->extents;
    struct extent_view view;
    struct extent before;
    uint32_t info = extent_info(at);
    uint32_t latest = latest_in(space, extent_bucket(at));
    if (at->end <= at->start || at->end > extents->units)
        return "an extent ends before it begins, or behind the range";
    if (at->start != 0 && (!extents_previous(extents, at, &before) || before.end != at->start))
        return "an extent does not begin where the one before ends";
    if (at->start != 0 && is_hole(&before) && is_hole(at))
        return "two holes are neighbours";
    if (!info_is_live(info))
        return info > INFO_HELD ? "an extent is neither live, a hole nor held" : NULL;
    if (info_generation(info) <= space->floor || info_generation(info) > latest)
        return "a live span has a generation that its bucket never gave";
    for (uint32_t bucket = extent_bucket(at); bucket <= unit_bucket(at->end - 1); bucket++) {
        uint32_t last = (bucket + 1) << EXTENT_BUCKET_SHIFT;
        uint32_t probe = (last < at->end ? last : at->end) - 1;
        if (!extents_look(extents, probe, &view) || view.start != at->start ||
            view.end != at->end)
            return "a live span is not found from inside";
    }
    return NULL;
}

static const char *verify_closed(const struct span_space *space)
{
    uint32_t closed = 0;
    for (uint32_t i = 0; i <= unit_bucket(space->extents.units - 1); i++) {
        if (latest_in(space, i) > SPAN_GENERATION_MAX)
            return "a bucket has had more spans than there are generations";
        closed += latest_in(space, i) == SPAN_GENERATION_MAX;
    }
    return closed == space->closed ? NULL : "closed buckets are counted wrongly";
}

const char *span_space_verify(const struct span_space *space)
{
    size_t spans = 0, used = 0, requested = 0;
    struct size_classes classes = { .of[0].spans = 0 };
    uint32_t holes = 0, filed = 0;
    struct extent at, next;
    const char *broken = extents_verify(&space->extents);
    bool more = extents_find(&space->extents, 0, &at);
    if (!more)
        return "no extent begins at the start of the range";
    for (; more && broken == NULL; at = next) {
        broken = verify_extent(space, &at);
        size_t bytes = bytes_of(space, at.end - at.start);
        if (info_is_live(extent_info(&at))) {
            size_t slack = slack_of(&at);
            spans++;
            used += bytes;
            requested += bytes - slack;
            size_classes_add_span(&classes, bytes - slack, bytes);
            if (slack >= bytes_of(space, 1))
                broken = "more than a unit of a span is unused";
        } else if (is_hole(&at) && !is_used_up(space, at.start, at.end)) {
            size_classes_add_hole(&classes, bytes);
            holes++;
        }
        more = extents_next(&space->extents, &at, &next);
        if (more && (next.start != at.end || next.block == NULL))
            broken = "no extent begins where one ends";
    }
    if (broken == NULL)
        broken = verify_closed(space);
    if (broken != NULL)
        return broken;
    if (spans != space->spans || used != space->used || requested != space->requested)
        return "the totals of live spans are wrong";
    if (memcmp(&classes, &space->classes, sizeof classes) != 0)
        return "a size class is counted wrongly";
    broken = holes_verify(&space->holes, &space->extents, &filed);
    return broken == NULL && filed != holes ? "a hole is not filed" : broken;
}
