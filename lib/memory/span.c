/* SPDX-License-Identifier: MIT */
/* Span spaces. */
#include <config.h>

#include "memory/span.h"

#include "memory/span_unit.h"

#include <string.h>

/* ---- holes ------------------------------------------------------------ */

static void file_hole(struct span_space *space, uint32_t start, uint32_t end)
{
    if (!is_used_up(space, start, end)) {
        size_classes_add_hole(&space->classes, bytes_of(space, end - start));
        holes_insert(&space->holes, &space->extents, start, end - start);
    }
    space->latest = start;
    space->latest_end = end;
}

static inline void drop_hole(struct span_space *space, const struct extent *hole)
{
    size_classes_drop_hole(&space->classes, bytes_of(space, hole->end - hole->start));
    holes_remove(&space->holes, &space->extents, hole);
}

static void unfile_hole(struct span_space *space, const struct extent *hole)
{
    if (!is_used_up(space, hole->start, hole->end))
        drop_hole(space, hole);
    if (hole->start == space->latest)
        space->latest_end = space->latest;
}

/* The last bucket of [start, end) leads to its first. */
static void cover_end(struct span_space *space, uint32_t start, uint32_t end)
{
    uint32_t last = unit_bucket(end - 1);
    if (end < space->extents.units && last != unit_bucket(start))
        extents_cover(&space->extents, start, last, last);
}

/* ---- finding ---------------------------------------------------------- */

#define CANDIDATES 16u /* holes that are compared, if one that suits in any case exists */
#define CANDIDATES_LAST 256u /* and if none does */

/* Where in a hole the span can begin. */
static bool suits(const struct span_space *space, const struct extent *hole, uint32_t units,
                  uint32_t align, uint32_t *start)
{
    *start = open_from(space, hole->start, align);
    return *start < hole->end && units <= hole->end - *start;
}

/*
 * Best fit.  With an alignment, or where buckets are closed: the first of a few holes,
 * in the order of their length, that happens to suit; or the first that is long enough
 * wherever it begins.
 */
static bool search(const struct span_space *space, uint32_t units, uint32_t align,
                   struct extent *hole, uint32_t *start)
{
    if (!holes_find(&space->holes, &space->extents, units, hole))
        return false;
    *start = hole->start;
    if (align == 1 && space->closed == 0)
        return true;
    struct extent roomy;
    uint64_t each = align > BLOCK_KEYS ? align : BLOCK_KEYS;
    uint64_t enough = units + align - 1 + space->closed * each;
    bool sure = enough <= space->extents.units &&
                holes_find(&space->holes, &space->extents, (uint32_t) enough, &roomy);
    for (unsigned i = sure ? CANDIDATES : CANDIDATES_LAST; i > 0; i--) {
        if (suits(space, hole, units, align, start))
            return true;
        if (!holes_find_next(&space->holes, &space->extents, hole))
            break;
    }
    if (!sure)
        return false;
    *hole = roomy;
    return suits(space, hole, units, align, start);
}

/* Memory for what take and hold add. */
static inline bool prepare(struct span_space *space, const struct span_slot *slot)
{
    struct extents *extents = &space->extents;
    uint32_t first = slot->hole.start, end = slot->hole.end;
    uint32_t start = slot->start, after = start + slot->units;
    /* What is in front and behind remain holes. */
    unsigned added = start > first, rest = after < end;
    bool together = rest && unit_bucket(after) == unit_bucket(start);
    uint32_t last = end < extents->units ? end - 1 : after - 1;
    return extents_prepare_slots(extents, start > first ? start - 1 : start, after - 1 + rest,
                                 &space->memory) &&
           extents_prepare_slots(extents, last, last, &space->memory) &&
           extents_prepare(extents, start, added + together, after, rest && !together,
                           &space->memory);
}

enum span_find span_space_find(struct span_space *space, size_t size, size_t align,
                               struct span_slot *slot)
{
    if (size == 0 || size > SPAN_SPACE_MAX || align > SPAN_SPACE_MAX)
        return SPAN_FULL;
    uint32_t units = units_of(space, size);
    uint32_t step = align <= bytes_of(space, 1) ? 1 : (uint32_t) (align >> space->shift);
    if (units > space->extents.units || !search(space, units, step, &slot->hole, &slot->start))
        return SPAN_FULL;
    slot->units = units;
    slot->size = size;
    slot->owner = NULL;
    return prepare(space, slot) ? SPAN_FOUND : SPAN_NO_MEMORY;
}

/* ---- generations ------------------------------------------------------ */

/* The holes in which no span can begin from now on are filed no more. */
static __attribute__((noinline)) void close_bucket(struct span_space *space, uint32_t bucket)
{
    uint32_t first = bucket << EXTENT_BUCKET_SHIFT, end = first + BLOCK_KEYS;
    struct extent at, next;
    bool more = true;
    space->closed++;
    extents_holding(&space->extents, first, &at);
    for (; more && at.start < end; at = next) {
        if (is_hole(&at) && is_used_up(space, at.start, at.end))
            drop_hole(space, &at);
        more = extents_next(&space->extents, &at, &next);
    }
}

/*
 * A span is going to begin in this bucket, which is open and has its slot; it has begun.
 * In between what the bucket counts is as before: so are the holes that are filed.
 */
static inline uint32_t *birth_begin(struct span_space *space, uint32_t bucket)
{
    uint32_t *births = extents_births(&space->extents, bucket);
    space->generation = space->floor + *births + 1;
    return births;
}

static inline void birth_end(struct span_space *space, uint32_t *births, uint32_t bucket)
{
    ++*births;
    if (__builtin_expect(space->generation == SPAN_GENERATION_MAX, 0))
        close_bucket(space, bucket);
}

uint32_t span_space_latest(const struct span_space *space, size_t offset, size_t size)
{
    uint32_t units = space->extents.units, latest = space->floor;
    if (offset >= bytes_of(space, units) || size == 0)
        return 0;
    size_t behind = bytes_of(space, units) - offset;
    uint32_t bucket = unit_bucket((uint32_t) (offset >> space->shift));
    uint32_t last = unit_bucket(units_of(space, offset + (size < behind ? size : behind)) - 1);
    for (; bucket <= last; bucket++) {
        uint32_t here = latest_in(space, bucket);
        latest = here > latest ? here : latest;
    }
    return latest == space->floor ? 0 : latest;
}

/* ---- taking ----------------------------------------------------------- */

static void count_span(struct span_space *space, size_t size, uint32_t units)
{
    space->spans++;
    space->used += bytes_of(space, units);
    space->requested += size;
    size_classes_add_span(&space->classes, size, bytes_of(space, units));
}

static void uncount_span(struct span_space *space, size_t size, uint32_t units)
{
    space->spans--;
    space->used -= bytes_of(space, units);
    space->requested -= size;
    size_classes_drop_span(&space->classes, size, bytes_of(space, units));
}

/* In a slot comes an extent: its record comes last, when its end and covers are right. */
static inline __attribute__((always_inline)) void
place(struct span_space *space, const struct span_slot *slot, uint32_t info, uint64_t word)
{
    struct extents *extents = &space->extents;
    const struct extent *hole = &slot->hole;
    uint32_t start = slot->start, after = start + slot->units, end = hole->end;
    uint32_t bucket = unit_bucket(start);
    struct extent_record records[2] = { { start, info, word }, { after, INFO_HOLE, 0 } };
    bool rest = after < end, together = rest && unit_bucket(after) == bucket;
    unfile_hole(space, hole);
    if (rest && !together)
        extents_replace(extents, unit_bucket(after), 0, 0, &records[1], 1, end);
    if (rest)
        cover_end(space, after, end);
    extents_cover(extents, start, bucket + 1,
                  unit_bucket(rest && !together ? after : after - 1));
    if (start > hole->start) {
        bool apart = extent_bucket(hole) != bucket;
        extents_replace(extents, bucket, apart ? 0 : hole->rank + 1, 0, records, 1 + together,
                        together ? end : after);
        if (apart) {
            extent_set_end(hole, start);
            cover_end(space, hole->start, start);
        }
        file_hole(space, hole->start, start);
    } else if (together) {
        extents_replace(extents, bucket, hole->rank, 1, records, 2, end);
    } else {
        if (rest && extent_is_last(hole))
            extent_set_end(hole, after);
        extent_set_word(hole, word);
        extent_set_info(hole, info);
    }
    if (rest)
        file_hole(space, after, end);
}

size_t span_space_take(struct span_space *space, const struct span_slot *slot)
{
    uint32_t slack = (uint32_t) (bytes_of(space, slot->units) - slot->size);
    uint32_t bucket = unit_bucket(slot->start), *births = birth_begin(space, bucket);
    place(space, slot, info_pack(space->generation), word_pack(slot->owner, slack));
    count_span(space, slot->size, slot->units);
    birth_end(space, births, bucket);
    return bytes_of(space, slot->start);
}

/* ---- lookup ----------------------------------------------------------- */

bool span_space_at(const struct span_space *space, size_t offset, struct span_info *info)
{
    struct extent_view view;
    if (offset >> space->shift >= space->extents.units ||
        !extents_look(&space->extents, (uint32_t) (offset >> space->shift), &view))
        return false;
    info->start = bytes_of(space, view.start);
    info->extent = bytes_of(space, view.end - view.start);
    info->size = info->extent - word_slack(view.word);
    info->owner = word_owner(view.word);
    info->generation = info_generation(view.info);
    return true;
}

/* The live span that starts exactly at `offset`, for writers. */
static bool find_live(const struct span_space *space, size_t offset, struct extent *at)
{
    size_t unit = offset >> space->shift;
    return unit < space->extents.units && unit << space->shift == offset &&
           extents_find(&space->extents, (uint32_t) unit, at) && info_is_live(extent_info(at));
}

bool span_space_starting(const struct span_space *space, size_t offset, struct span_info *info)
{
    if (!find_live(space, offset, &info->at))
        return false;
    uint64_t word = extent_word(&info->at);
    info->start = offset;
    info->extent = bytes_of(space, info->at.end - info->at.start);
    info->size = info->extent - word_slack(word);
    info->owner = word_owner(word);
    info->generation = info_generation(extent_info(&info->at));
    return true;
}

bool span_space_set_owner(struct span_space *space, size_t offset, const void *owner)
{
    struct extent at;
    if (!find_live(space, offset, &at))
        return false;
    extent_set_word(&at, word_pack(owner, slack_of(&at)));
    return true;
}

bool span_space_turn(struct span_space *space, size_t offset, uint32_t generation,
                     span_turn_fn *turn, const void *context, size_t *size)
{
    struct extent at;
    if (!find_live(space, offset, &at) || info_generation(extent_info(&at)) != generation)
        return false;
    uint64_t word = extent_word(&at);
    uint32_t slack = word_slack(word);
    const void *to = turn(word_owner(word), context);
    if (to == NULL)
        return false;
    extent_set_word(&at, word_pack(to, slack));
    if (size != NULL)
        *size = bytes_of(space, at.end - at.start) - slack;
    return true;
}

struct passing {
    const void *from, *to;
};

static const void *pass_owner(const void *owner, const void *context)
{
    const struct passing *passing = context;
    return owner == passing->from ? passing->to : NULL;
}

bool span_space_pass(struct span_space *space, size_t offset, uint32_t generation,
                     const void *from, const void *to, size_t *size)
{
    const struct passing passing = { from, to };
    return span_space_turn(space, offset, generation, pass_owner, &passing, size);
}

/* ---- giving back ------------------------------------------------------ */

bool span_space_retire(struct span_space *space, size_t offset)
{
    struct extent at;
    if (!find_live(space, offset, &at))
        return false;
    uint32_t units = at.end - at.start;
    uncount_span(space, bytes_of(space, units) - slack_of(&at), units);
    extent_set_info(&at, INFO_HELD);
    return true;
}

size_t span_space_extent(const struct span_space *space, size_t offset)
{
    struct extent at;
    if (!extents_find(&space->extents, (uint32_t) (offset >> space->shift), &at))
        return 0;
    return bytes_of(space, at.end - at.start);
}

/* The extent is neither live nor filed: with its neighbours it becomes a hole. */
static void reclaim(struct span_space *space, const struct extent *at)
{
    struct extents *extents = &space->extents;
    struct extent before, after;
    bool joins_before = extents_previous(extents, at, &before) && is_hole(&before);
    bool joins_after = extents_next(extents, at, &after) && is_hole(&after);
    uint32_t start = joins_before ? before.start : at->start;
    uint32_t end = joins_after ? after.end : at->end, bucket = extent_bucket(at);
    bool together = joins_after && extent_bucket(&after) == bucket;
    if (joins_before)
        unfile_hole(space, &before);
    if (joins_after)
        unfile_hole(space, &after);
    else if (!joins_before)
        extent_set_info(at, INFO_HOLE);
    if (joins_after && !together)
        extents_replace(extents, extent_bucket(&after), 0, 1, NULL, 0, end);
    if (joins_before) {
        extents_replace(extents, bucket, at->rank, 1 + together, NULL, 0, end);
        if (extent_bucket(&before) != bucket)
            extent_set_end(&before, end);
    } else if (together) {
        const struct extent_record whole = { start, INFO_HOLE, 0 };
        extents_replace(extents, bucket, at->rank, 2, &whole, 1, end);
    } else if (joins_after) {
        extent_set_end(at, end);
        extent_set_info(at, INFO_HOLE);
    }
    cover_end(space, start, end);
    file_hole(space, start, end);
}

void span_space_reclaim(struct span_space *space, size_t offset)
{
    struct extent at;
    if (extents_find(&space->extents, (uint32_t) (offset >> space->shift), &at))
        reclaim(space, &at);
}

void span_space_free_found(struct span_space *space, const struct span_info *info)
{
    uncount_span(space, info->size, info->at.end - info->at.start);
    extent_set_info(&info->at, INFO_HELD);
    reclaim(space, &info->at);
}

bool span_space_free(struct span_space *space, size_t offset)
{
    struct span_info info;
    if (!span_space_starting(space, offset, &info))
        return false;
    span_space_free_found(space, &info);
    return true;
}

/* ---- cutting ---------------------------------------------------------- */

/*
 * What a live span becomes: [start, cut) with this slack; and `tail` behind it, in place
 * of all that was there up to `end`.  The tail comes first, then what leads to it, then
 * the span, each in one step: who looks meanwhile finds bounds of before or of
 * afterwards.
 */
static void cut_span(struct span_space *space, const struct extent *at,
                     const struct extent_record *tail, bool joins, uint32_t slack, uint32_t end)
{
    struct extents *extents = &space->extents;
    uint32_t bucket = extent_bucket(at), cut = tail->start;
    struct extent_record records[2] = {
        { at->start, extent_info(at), word_pack(word_owner(extent_word(at)), slack) },
        *tail,
    };
    if (joins && unit_bucket(at->end) != unit_bucket(cut))
        extents_replace(extents, unit_bucket(at->end), 0, 1, NULL, 0, end);
    joins = joins && unit_bucket(at->end) == unit_bucket(cut);
    if (unit_bucket(cut) != bucket)
        extents_replace(extents, unit_bucket(cut), 0, joins, tail, 1, end);
    if (info_is_live(tail->info))
        extents_cover(extents, cut, unit_bucket(cut) + 1, unit_bucket(end - 1));
    if (unit_bucket(cut) != bucket)
        extents_replace(extents, bucket, at->rank, 1, records, 1, cut);
    else
        extents_replace(extents, bucket, at->rank, 1 + joins, records, 2, end);
}

/* Records at the new end, and in place of the old one. */
static bool prepare_cut(struct span_space *space, const struct extent *at, uint32_t cut)
{
    bool apart = cut < at->end && unit_bucket(cut) != extent_bucket(at);
    return extents_prepare(&space->extents, at->start, 1, cut, apart, &space->memory);
}

bool span_space_shrink_prepare(struct span_space *space, size_t offset, size_t size)
{
    struct extent at;
    return find_live(space, offset, &at) &&
           prepare_cut(space, &at, at.start + units_of(space, size));
}

/* What is cut off becomes a hole, or keeps its place. */
static void cut_off(struct span_space *space, const struct extent *at, uint32_t cut,
                    uint32_t slack, bool hold)
{
    const struct extent_record tail = { cut, hold ? INFO_HELD : INFO_HOLE, 0 };
    struct extent after;
    bool joins = !hold && extents_next(&space->extents, at, &after) && is_hole(&after);
    if (joins)
        unfile_hole(space, &after);
    uint32_t end = joins ? after.end : at->end;
    cut_span(space, at, &tail, joins, slack, end);
    cover_end(space, cut, end);
    if (!hold)
        file_hole(space, cut, end);
}

static bool shrink(struct span_space *space, size_t offset, size_t size, bool hold)
{
    struct extent at;
    if (size == 0 || size > SPAN_SPACE_MAX || !find_live(space, offset, &at))
        return false;
    uint32_t units = at.end - at.start, kept = units_of(space, size), cut = at.start + kept;
    size_t old = bytes_of(space, units) - slack_of(&at);
    if (size > old || (cut < at.end && !prepare_cut(space, &at, cut)))
        return false;
    uint32_t slack = (uint32_t) (bytes_of(space, kept) - size);
    if (cut < at.end)
        cut_off(space, &at, cut, slack, hold);
    else
        extent_set_word(&at, word_pack(word_owner(extent_word(&at)), slack));
    uncount_span(space, old, units);
    count_span(space, size, kept);
    return true;
}

bool span_space_shrink(struct span_space *space, size_t offset, size_t size)
{
    return shrink(space, offset, size, false);
}

bool span_space_shrink_hold(struct span_space *space, size_t offset, size_t size)
{
    return shrink(space, offset, size, true);
}

bool span_space_split(struct span_space *space, size_t offset, size_t where)
{
    struct extent at;
    if (where == 0 || (where & (bytes_of(space, 1) - 1)) != 0 || !find_live(space, offset, &at))
        return false;
    uint32_t units = at.end - at.start, slack = slack_of(&at);
    size_t size = bytes_of(space, units) - slack;
    if (where >= size)
        return false;
    uint32_t cut = at.start + (uint32_t) (where >> space->shift), bucket = unit_bucket(cut);
    if (is_closed(space, bucket) || !prepare_cut(space, &at, cut))
        return false;
    uint32_t *births = birth_begin(space, bucket);
    const struct extent_record tail = { cut, info_pack(space->generation),
                                        word_pack(word_owner(extent_word(&at)), slack) };
    cut_span(space, &at, &tail, false, 0, at.end);
    uncount_span(space, size, units);
    count_span(space, where, cut - at.start);
    count_span(space, size - where, at.end - cut);
    birth_end(space, births, bucket);
    return true;
}

/* ---- life ------------------------------------------------------------- */

bool span_space_init(struct span_space *space, size_t size, unsigned shift, uint32_t floor,
                     const struct span_memory *memory)
{
    memset(space, 0, sizeof *space);
    space->memory = *memory;
    space->shift = shift;
    space->floor = floor;
    space->holes.seed = (uintptr_t) space;
    if (!extents_init(&space->extents, (uint32_t) (size >> shift), memory)) {
        span_space_fini(space);
        return false;
    }
    file_hole(space, 0, space->extents.units);
    return true;
}

void span_space_fini(struct span_space *space)
{
    struct span_memory memory = space->memory;
    extents_fini(&space->extents, &memory);
    memset(space, 0, sizeof *space);
}

bool span_space_hold(struct span_space *space, size_t offset, size_t size)
{
    struct span_slot slot = { .start = (uint32_t) (offset >> space->shift),
                              .units = units_of(space, size) };
    if (!extents_find(&space->extents, 0, &slot.hole) || !prepare(space, &slot))
        return false;
    place(space, &slot, INFO_HELD, 0);
    return true;
}

/* ---- looking at the whole --------------------------------------------- */

size_t span_space_largest(const struct span_space *space)
{
    return bytes_of(space, space->holes.longest);
}

bool span_space_hole_at(const struct span_space *space, size_t offset, size_t *start,
                        size_t *size)
{
    size_t unit = offset >> space->shift;
    struct extent at = { .start = space->latest, .end = space->latest_end };
    bool holds = unit >= at.start && unit < at.end;
    if (!holds) {
        if (unit >= space->extents.units)
            return false;
        extents_holding(&space->extents, (uint32_t) unit, &at);
        holds = is_hole(&at);
    }
    *start = bytes_of(space, at.start);
    *size = bytes_of(space, at.end - at.start);
    return holds;
}

bool span_space_next_hole(const struct span_space *space, size_t *offset, size_t *size)
{
    struct extent at;
    size_t unit = (*offset + bytes_of(space, 1) - 1) >> space->shift;
    if (unit >= space->extents.units || !extents_from(&space->extents, (uint32_t) unit, &at))
        return false;
    while (!is_hole(&at)) {
        struct extent next;
        if (!extents_next(&space->extents, &at, &next))
            return false;
        at = next;
    }
    *offset = bytes_of(space, at.start);
    *size = bytes_of(space, at.end - at.start);
    return true;
}
