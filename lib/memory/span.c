/* SPDX-License-Identifier: MIT */
/*
 * Span spaces.  See span.h for the structure; this is how it can be read while
 * it changes.
 *
 * Lookup.  Start bits of the extents before and after a live span that is not
 * itself changing stay where they are, and no bit is ever set inside it, so
 * relaxed reads of the bitmap find its bounds: whoever asks has learned the
 * address from code or data published after the bits were set.  Then the chain:
 * records enter it at its head, and offset and next are one word, so a reader
 * that stands on a record while it moves elsewhere sees an offset of another
 * chain, and starts again.  It starts again only because a writer got on, so a
 * handler that interrupted the writer itself never spins.
 *
 * A record that changes sides keeps readers from mixing lives:
 *      hole to live    body (an owner), then place with a generation, release
 *      live to hole    place with generation 0, then body (bin links), release
 *      reader          place acquire, body acquire, place again: equal, or again
 * A reader that saw the new place sees at least the new body; one that saw bin
 * links sees generation 0 the second time.
 */
#include <config.h>

#include "memory/span.h"

#include <string.h>

static uint32_t start_of(const struct span_space *space, uint64_t place)
{
    return place_offset(place) >> space->shift;
}

static uint64_t place_of(const struct span_space *space, uint32_t index)
{
    return place_get(&space->extents, index);
}

static void place_to(struct span_space *space, uint32_t index, uint64_t place)
{
    place_set(&space->extents, index, place);
}

static uint64_t body_of(const struct span_space *space, uint32_t index)
{
    return body_get(&space->extents, index);
}

static void body_to(struct span_space *space, uint32_t index, uint64_t body)
{
    body_set(&space->extents, index, body);
}

/* The first start from `unit` on, or the end of the range. */
static uint32_t next_start(const struct span_space *space, uint32_t unit)
{
    return starts_after(&space->starts, unit);
}

/* ---- chains ----------------------------------------------------------- */

static bool chunk_prepare(struct span_space *space, uint32_t unit)
{
    if (unit >= space->starts.units || starts_chunk(&space->starts, unit) != NULL)
        return true;
    struct starts_chunk *chunk = space->memory.alloc(space->memory.context, sizeof *chunk);
    if (chunk == NULL)
        return false;
    atomic_store_explicit(&space->starts.chunks[unit >> STARTS_CHUNK_SHIFT], chunk,
                          memory_order_release);
    return true;
}

static _Atomic uint32_t *chain_head(const struct span_space *space, uint32_t unit)
{
    return &starts_chunk(&space->starts, unit)
                ->heads[(unit & (STARTS_CHUNK_UNITS - 1)) >> STARTS_BUCKET_SHIFT];
}

/* Metadata for so many more records, and for starts at two units.  False: no memory. */
static bool prepare(struct span_space *space, unsigned records, uint32_t one, uint32_t other)
{
    return extents_prepare(&space->extents, records, &space->memory) &&
           chunk_prepare(space, one) && chunk_prepare(space, other);
}

/* The record of the extent that starts at `unit`, or 0.  Safe without the lock. */
static uint32_t chain_find(const struct span_space *space, uint32_t unit)
{
    const _Atomic uint32_t *head = chain_head(space, unit);
    uint32_t index = atomic_load_explicit(head, memory_order_acquire);
    while (index != 0) {
        uint64_t place =
            atomic_load_explicit(&extent_at(&space->extents, index)->place, memory_order_acquire);
        uint32_t start = start_of(space, place);
        if (start == unit)
            return index;
        bool moved = place_offset(place) == NO_OFFSET ||
                     start >> STARTS_BUCKET_SHIFT != unit >> STARTS_BUCKET_SHIFT;
        index = moved ? atomic_load_explicit(head, memory_order_acquire) : place_next(place);
    }
    return 0;
}

/* An extent comes into being: record first, then its bit. */
static void extent_insert(struct span_space *space, uint32_t index, uint32_t unit, uint32_t slack,
                          uint32_t generation)
{
    _Atomic uint32_t *head = chain_head(space, unit);
    uint32_t next = atomic_load_explicit(head, memory_order_relaxed);
    place_to(space, index, place_pack((unit << space->shift) | slack, next, generation));
    atomic_store_explicit(head, index, memory_order_release);
    starts_set(&space->starts, unit);
}

/* It is merged into the one before it. */
static void extent_remove(struct span_space *space, uint32_t index, uint32_t unit)
{
    starts_clear(&space->starts, unit);
    _Atomic uint32_t *head = chain_head(space, unit);
    uint32_t next = place_next(place_of(space, index));
    uint32_t at = atomic_load_explicit(head, memory_order_relaxed);
    if (at == index) {
        atomic_store_explicit(head, next, memory_order_release);
    } else {
        uint64_t place = place_of(space, at);
        while (place_next(place) != index) {
            at = place_next(place);
            place = place_of(space, at);
        }
        place_to(space, at, (place & ~((uint64_t) EXTENT_INDEX_MAX << OFFSET_BITS)) |
                                 (uint64_t) next << OFFSET_BITS);
    }
    extents_give(&space->extents, index);
}

/* ---- bins ------------------------------------------------------------- */

static unsigned bin_of(uint32_t units)
{
    if (units < SPAN_EXACT_BINS)
        return units;
    unsigned log = 31 - (unsigned) __builtin_clz(units);
    return SPAN_EXACT_BINS + (log - 10) * 8 + (units >> (log - 3) & 7);
}

static void bin_insert(struct span_space *space, uint32_t index, uint32_t units)
{
    unsigned bin = bin_of(units);
    uint32_t first = space->bins[bin];
    size_classes_add_hole(&space->classes, (size_t) units << space->shift);
    body_to(space, index, links_pack(0, first));
    if (first != 0)
        body_to(space, first, links_pack(index, links_next(body_of(space, first))));
    space->bins[bin] = index;
    space->bin_filled[bin / 64] |= 1ull << bin % 64;
    space->bin_summary |= 1u << bin / 64;
}

static void bin_remove(struct span_space *space, uint32_t index, uint32_t units)
{
    unsigned bin = bin_of(units);
    uint64_t links = body_of(space, index);
    uint32_t previous = links_previous(links), next = links_next(links);
    size_classes_drop_hole(&space->classes, (size_t) units << space->shift);
    if (next != 0)
        body_to(space, next, links_pack(previous, links_next(body_of(space, next))));
    if (previous != 0) {
        body_to(space, previous, links_pack(links_previous(body_of(space, previous)), next));
        return;
    }
    space->bins[bin] = next;
    if (next == 0 && (space->bin_filled[bin / 64] &= ~(1ull << bin % 64)) == 0)
        space->bin_summary &= ~(1u << bin / 64);
}

/* The first bin from `bin` on that has a hole, or SPAN_BINS. */
static unsigned bin_after(const struct span_space *space, unsigned bin)
{
    if (bin >= SPAN_BINS)
        return SPAN_BINS;
    uint64_t word = space->bin_filled[bin / 64] & UINT64_MAX << bin % 64;
    if (word != 0)
        return bin / 64 * 64 + (unsigned) __builtin_ctzll(word);
    uint32_t summary = space->bin_summary & (uint32_t) (UINT64_MAX << (bin / 64 + 1));
    if (summary == 0)
        return SPAN_BINS;
    unsigned index = (unsigned) __builtin_ctz(summary);
    return index * 64 + (unsigned) __builtin_ctzll(space->bin_filled[index]);
}

/* ---- finding ---------------------------------------------------------- */

#define CANDIDATES 16 /* holes of one bin that are compared, before the space counts as full */

struct search {
    uint32_t units, align;    /* wanted, in units */
    uint32_t hole, start;     /* best so far; hole 0: none */
    uint32_t length, address; /* of that hole */
};

static uint32_t round_up(uint32_t value, uint32_t align)
{
    return (value + align - 1) & ~(align - 1);
}

static void search_bin(const struct span_space *space, unsigned bin, uint32_t limit,
                       struct search *search)
{
    uint32_t index = space->bins[bin];
    for (uint32_t i = 0; i < limit && index != 0; i++) {
        uint32_t start = start_of(space, place_of(space, index));
        uint32_t length = bin < SPAN_EXACT_BINS ? bin : next_start(space, start + 1) - start;
        uint32_t at = round_up(start, search->align);
        if (at - start + search->units <= length &&
            (search->hole == 0 || length < search->length ||
             (length == search->length && start < search->address))) {
            search->hole = index;
            search->start = at;
            search->length = length;
            search->address = start;
        }
        if (bin < SPAN_EXACT_BINS && search->align == 1)
            return; /* all fit alike */
        index = links_next(body_of(space, index));
    }
}

/*
 * Best fit: the shortest hole that is long enough, the lowest of its bin's
 * first ones if they are equally long.  An aligned span looks at a few bins for
 * a hole that happens to suit, then takes one that suits in any case.
 */
static bool search_run(const struct span_space *space, struct search *search)
{
    unsigned first = bin_of(search->units);
    unsigned bin = bin_after(space, first);
    for (unsigned tries = 8; bin < SPAN_BINS && tries > 0; tries--) {
        search_bin(space, bin, CANDIDATES, search);
        if (search->hole != 0)
            return true;
        bin = bin_after(space, bin + 1);
    }
    /* Every hole of a bin above that of the padded length is long enough. */
    bin = bin_after(space, bin_of(search->units + search->align - 1) + 1);
    if (bin < SPAN_BINS)
        search_bin(space, bin, CANDIDATES, search);
    /* Only a space that is about to be called full is searched to the end. */
    for (bin = first; search->hole == 0 && bin < SPAN_BINS; bin = bin_after(space, bin + 1))
        search_bin(space, bin, UINT32_MAX, search);
    return search->hole != 0;
}

enum span_find span_space_find(struct span_space *space, size_t size, size_t align,
                               struct span_slot *slot)
{
    size_t unit = (size_t) 1 << space->shift;
    if (size == 0 || size > SPAN_SPACE_MAX || align > SPAN_SPACE_MAX)
        return SPAN_FULL;
    struct search search = {
        .units = (uint32_t) ((size + unit - 1) >> space->shift),
        .align = align <= unit ? 1 : (uint32_t) (align >> space->shift),
    };
    if (search.units > space->starts.units || !search_run(space, &search))
        return SPAN_FULL;
    if (!prepare(space, 2, search.start, search.start + search.units))
        return SPAN_NO_MEMORY;
    *slot = (struct span_slot){ search.start, search.units, search.hole, size, NULL };
    return SPAN_FOUND;
}

static uint32_t generation_next(struct span_space *space)
{
    space->generation = (space->generation + 1) & ((1u << SPAN_GENERATION_BITS) - 1);
    if ((space->generation & GENERATION_LOW) == 0)
        space->generation++;
    return space->generation;
}

size_t span_space_take(struct span_space *space, const struct span_slot *slot)
{
    uint32_t first = start_of(space, place_of(space, slot->hole));
    uint32_t end = next_start(space, first + 1);
    uint32_t after = slot->start + slot->units;
    uint32_t slack = (uint32_t) (((size_t) slot->units << space->shift) - slot->size);
    uint32_t generation = generation_next(space);

    bin_remove(space, slot->hole, end - first);
    if (after < end) {
        uint32_t rest = extents_take(&space->extents);
        extent_insert(space, rest, after, 0, 0);
        bin_insert(space, rest, end - after);
    }
    if (slot->start == first) {
        uint64_t place = place_of(space, slot->hole);
        body_to(space, slot->hole, body_pack(slot->owner, generation));
        place_to(space, slot->hole,
                  place_pack((first << space->shift) | slack, place_next(place), generation));
    } else {
        uint32_t index = extents_take(&space->extents);
        body_to(space, index, body_pack(slot->owner, generation));
        extent_insert(space, index, slot->start, slack, generation);
        bin_insert(space, slot->hole, slot->start - first);
    }
    space->spans++;
    space->used += (size_t) slot->units << space->shift;
    space->requested += slot->size;
    size_classes_add_span(&space->classes, slot->size, (size_t) slot->units << space->shift);
    return (size_t) slot->start << space->shift;
}

/* ---- lookup ----------------------------------------------------------- */

bool span_space_at(const struct span_space *space, size_t offset, struct span_info *info)
{
    if (offset >> space->shift >= space->starts.units)
        return false;
    uint32_t unit = (uint32_t) (offset >> space->shift);
    for (;;) {
        uint32_t start = starts_before(&space->starts, unit);
        uint32_t index = start == STARTS_NONE ? 0 : chain_find(space, start);
        if (index == 0)
            return false;
        const struct extent *record = extent_at(&space->extents, index);
        uint64_t place = atomic_load_explicit(&record->place, memory_order_acquire);
        uint32_t end = next_start(space, start + 1);
        uint64_t body = atomic_load_explicit(&record->body, memory_order_acquire);
        if (atomic_load_explicit(&record->place, memory_order_relaxed) != place ||
            start_of(space, place) != start)
            continue;
        if (!place_is_live(place) || unit >= end)
            return false;
        info->start = (size_t) start << space->shift;
        info->extent = (size_t) (end - start) << space->shift;
        info->size = info->extent - (place_offset(place) & ((1u << space->shift) - 1));
        info->owner = body_owner(body);
        info->generation = generation_from(place, body);
        return true;
    }
}

/* The live span that starts exactly at `offset`, for writers; 0: none. */
static uint32_t live_find(const struct span_space *space, size_t offset)
{
    uint32_t unit = (uint32_t) (offset >> space->shift);
    if (offset >> space->shift >= space->starts.units || (size_t) unit << space->shift != offset)
        return 0;
    if (!starts_test(&space->starts, unit))
        return 0;
    uint32_t index = chain_find(space, unit);
    return index != 0 && place_is_live(place_of(space, index)) ? index : 0;
}

bool span_space_pass(struct span_space *space, size_t offset, uint32_t generation,
                     const void *from, const void *to)
{
    uint32_t index = live_find(space, offset);
    if (index == 0)
        return false;
    uint64_t before = body_pack(from, generation);
    struct extent *record = extent_at(&space->extents, index);
    if (generation_from(place_of(space, index), before) != generation)
        return false;
    return atomic_compare_exchange_strong_explicit(&record->body, &before,
                                                   body_pack(to, generation),
                                                   memory_order_acq_rel, memory_order_relaxed);
}

bool span_space_set_owner(struct span_space *space, size_t offset, const void *owner)
{
    uint32_t index = live_find(space, offset);
    if (index == 0)
        return false;
    body_to(space, index,
            body_pack(owner, generation_from(place_of(space, index), body_of(space, index))));
    return true;
}

/* ---- giving back ------------------------------------------------------ */

static bool is_hole(const struct span_space *space, uint32_t index)
{
    return !place_is_live(place_of(space, index)) && body_of(space, index) != BODY_HELD;
}

/* [unit, end) is an extent of its own and in no bin: join it with the hole after it. */
static uint32_t join_after(struct span_space *space, uint32_t end)
{
    if (end >= space->starts.units)
        return end;
    uint32_t index = chain_find(space, end);
    if (!is_hole(space, index))
        return end;
    uint32_t end_after = next_start(space, end + 1);
    bin_remove(space, index, end_after - end);
    extent_remove(space, index, end);
    return end_after;
}

bool span_space_retire(struct span_space *space, size_t offset)
{
    uint32_t index = live_find(space, offset);
    if (index == 0)
        return false;
    uint32_t start = (uint32_t) (offset >> space->shift);
    uint32_t end = next_start(space, start + 1);
    uint64_t place = place_of(space, index);
    size_t bytes = (size_t) (end - start) << space->shift;
    size_t size = bytes - (place_offset(place) & ((1u << space->shift) - 1));
    space->spans--;
    space->used -= bytes;
    space->requested -= size;
    size_classes_drop_span(&space->classes, size, bytes);
    place_to(space, index, place_pack(start << space->shift, place_next(place), 0));
    body_to(space, index, BODY_HELD);
    return true;
}

size_t span_space_extent(const struct span_space *space, size_t offset)
{
    uint32_t unit = (uint32_t) (offset >> space->shift);
    return (size_t) (next_start(space, unit + 1) - unit) << space->shift;
}

void span_space_reclaim(struct span_space *space, size_t offset)
{
    uint32_t start = (uint32_t) (offset >> space->shift);
    uint32_t index = chain_find(space, start);
    uint32_t end = join_after(space, next_start(space, start + 1));
    if (start > 0) {
        uint32_t before = starts_before(&space->starts, start - 1);
        uint32_t other = chain_find(space, before);
        if (is_hole(space, other)) {
            bin_remove(space, other, start - before);
            extent_remove(space, index, start);
            index = other;
            start = before;
        }
    }
    bin_insert(space, index, end - start);
}

bool span_space_free(struct span_space *space, size_t offset)
{
    if (!span_space_retire(space, offset))
        return false;
    span_space_reclaim(space, offset);
    return true;
}

bool span_space_shrink_prepare(struct span_space *space, size_t offset, size_t size)
{
    uint32_t start = (uint32_t) (offset >> space->shift);
    uint32_t cut = start + (uint32_t) ((size + ((size_t) 1 << space->shift) - 1) >> space->shift);
    return cut >= next_start(space, start + 1) || prepare(space, 1, cut, cut);
}

bool span_space_shrink(struct span_space *space, size_t offset, size_t size)
{
    uint32_t index = live_find(space, offset);
    if (index == 0 || size == 0)
        return false;
    uint32_t start = (uint32_t) (offset >> space->shift);
    uint32_t end = next_start(space, start + 1);
    uint64_t place = place_of(space, index);
    size_t unit = (size_t) 1 << space->shift;
    size_t bytes = (size_t) (end - start) << space->shift;
    size_t old = bytes - (place_offset(place) & (unit - 1));
    if (size > old)
        return false;
    uint32_t cut = start + (uint32_t) ((size + unit - 1) >> space->shift);
    if (cut < end && !prepare(space, 1, cut, cut))
        return false;

    uint32_t slack = (uint32_t) (((size_t) (cut - start) << space->shift) - size);
    if (cut < end) {
        uint32_t rest = extents_take(&space->extents);
        extent_insert(space, rest, cut, 0, 0);
        bin_insert(space, rest, join_after(space, end) - cut);
    }
    /* Removing the hole behind may have changed this record's place in its chain. */
    place = place_of(space, index);
    place_to(space, index, place_pack((start << space->shift) | slack, place_next(place),
                                       place_generation(place)));
    space->used -= (size_t) (end - cut) << space->shift;
    space->requested -= old - size;
    size_classes_drop_span(&space->classes, old, bytes);
    size_classes_add_span(&space->classes, size, (size_t) (cut - start) << space->shift);
    return true;
}

/*
 * The second span comes first: whoever looks meanwhile finds bounds that are those of
 * before or of afterwards, and of the first span at most its last bytes too few.
 */
bool span_space_split(struct span_space *space, size_t offset, size_t at)
{
    uint32_t index = live_find(space, offset);
    uint32_t start = (uint32_t) (offset >> space->shift);
    uint32_t cut = start + (uint32_t) (at >> space->shift);
    if (index == 0 || at == 0 || (size_t) (cut - start) << space->shift != at)
        return false;
    size_t bytes = span_space_extent(space, offset);
    uint32_t slack = place_offset(place_of(space, index)) & ((1u << space->shift) - 1);
    if (at >= bytes - slack || !prepare(space, 1, cut, cut))
        return false;
    uint32_t tail = extents_take(&space->extents), generation = generation_next(space);
    body_to(space, tail, body_pack(body_owner(body_of(space, index)), generation));
    extent_insert(space, tail, cut, slack, generation);
    uint64_t place = place_of(space, index);
    place_to(space, index, place_pack((uint32_t) offset, place_next(place),
                                      place_generation(place)));
    space->spans++;
    size_classes_drop_span(&space->classes, bytes - slack, bytes);
    size_classes_add_span(&space->classes, at, at);
    size_classes_add_span(&space->classes, bytes - slack - at, bytes - at);
    return true;
}

/* ---- life ------------------------------------------------------------- */

bool span_space_init(struct span_space *space, size_t size, unsigned shift,
                     const struct span_memory *memory)
{
    memset(space, 0, sizeof *space);
    space->memory = *memory;
    space->shift = shift;
    struct starts *starts = &space->starts;
    starts->units = (uint32_t) (size >> shift);
    starts->chunk_count = (starts->units + STARTS_CHUNK_UNITS - 1) >> STARTS_CHUNK_SHIFT;
    extents_init(&space->extents);
    starts->chunks = memory->alloc(memory->context, starts->chunk_count * sizeof *starts->chunks);
    if (starts->chunks == NULL || !prepare(space, 1, 0, 0)) {
        span_space_fini(space);
        return false;
    }
    uint32_t index = extents_take(&space->extents);
    extent_insert(space, index, 0, 0, 0);
    bin_insert(space, index, space->starts.units);
    return true;
}

void span_space_fini(struct span_space *space)
{
    struct span_memory *memory = &space->memory;
    struct starts *starts = &space->starts;
    extents_fini(&space->extents, memory);
    for (uint32_t i = 0; starts->chunks != NULL && i < starts->chunk_count; i++) {
        struct starts_chunk *chunk = atomic_load(&starts->chunks[i]);
        if (chunk != NULL)
            memory->free(memory->context, chunk, sizeof *chunk);
    }
    if (starts->chunks != NULL)
        memory->free(memory->context, starts->chunks,
                     starts->chunk_count * sizeof *starts->chunks);
    memset(space, 0, sizeof *space);
}

bool span_space_hold(struct span_space *space, size_t offset, size_t size)
{
    uint32_t start = (uint32_t) (offset >> space->shift);
    uint32_t end = start + (uint32_t) (size >> space->shift);
    uint32_t hole = chain_find(space, 0);
    if (!prepare(space, 2, start, end))
        return false;
    bin_remove(space, hole, space->starts.units);
    if (end < space->starts.units) {
        uint32_t rest = extents_take(&space->extents);
        extent_insert(space, rest, end, 0, 0);
        bin_insert(space, rest, space->starts.units - end);
    }
    if (start > 0) {
        uint32_t index = extents_take(&space->extents);
        extent_insert(space, index, start, 0, 0);
        bin_insert(space, hole, start);
        hole = index;
    }
    body_to(space, hole, BODY_HELD);
    return true;
}

/* ---- looking at the whole --------------------------------------------- */

/* The bin of the longest holes; the space is not full. */
static unsigned bin_last(const struct span_space *space)
{
    unsigned word = 31 - (unsigned) __builtin_clz(space->bin_summary);
    return word * 64 + 63 - (unsigned) __builtin_clzll(space->bin_filled[word]);
}

size_t span_space_bound(const struct span_space *space)
{
    if (space->bin_summary == 0)
        return 0;
    unsigned bin = bin_last(space);
    if (bin < SPAN_EXACT_BINS)
        return (size_t) bin << space->shift;
    unsigned log = 10 + (bin - SPAN_EXACT_BINS) / 8;
    size_t next = (size_t) (9 + (bin - SPAN_EXACT_BINS) % 8) << (log - 3);
    return (next - 1) << space->shift;
}

size_t span_space_largest(const struct span_space *space)
{
    if (space->bin_summary == 0)
        return 0;
    unsigned bin = bin_last(space);
    uint32_t longest = 0;
    if (bin < SPAN_EXACT_BINS)
        return (size_t) bin << space->shift;
    for (uint32_t index = space->bins[bin]; index != 0;
         index = links_next(body_of(space, index))) {
        uint32_t start = start_of(space, place_of(space, index));
        uint32_t length = next_start(space, start + 1) - start;
        if (length > longest)
            longest = length;
    }
    return (size_t) longest << space->shift;
}

bool span_space_hole_at(const struct span_space *space, size_t offset, size_t *start,
                        size_t *size)
{
    uint32_t unit = (uint32_t) (offset >> space->shift);
    if (offset >> space->shift >= space->starts.units)
        return false;
    uint32_t first = starts_before(&space->starts, unit);
    if (!is_hole(space, chain_find(space, first)))
        return false;
    *start = (size_t) first << space->shift;
    *size = (size_t) (next_start(space, unit + 1) - first) << space->shift;
    return true;
}

bool span_space_next_hole(const struct span_space *space, size_t *offset, size_t *size)
{
    uint32_t unit = next_start(space, (uint32_t) (*offset >> space->shift));
    while (unit < space->starts.units) {
        uint32_t end = next_start(space, unit + 1);
        if (is_hole(space, chain_find(space, unit))) {
            *offset = (size_t) unit << space->shift;
            *size = (size_t) (end - unit) << space->shift;
            return true;
        }
        unit = end;
    }
    return false;
}

static const char *verify_bins(const struct span_space *space, uint32_t *holes)
{
    for (unsigned bin = 0; bin < SPAN_BINS; bin++) {
        bool filled = space->bin_filled[bin / 64] >> bin % 64 & 1;
        if (filled != (space->bins[bin] != 0))
            return "a bin's bit does not tell whether it holds a hole";
        uint32_t previous = 0;
        for (uint32_t index = space->bins[bin]; index != 0;) {
            uint64_t place = place_of(space, index), body = body_of(space, index);
            uint32_t start = start_of(space, place);
            if (place_is_live(place) || place_offset(place) == NO_OFFSET)
                return "a bin holds something that is not a hole";
            if (links_previous(body) != previous)
                return "a bin's list is broken";
            if (bin_of(next_start(space, start + 1) - start) != bin)
                return "a hole is in the wrong bin";
            if (++*holes > space->extents.count)
                return "a bin's list has a loop";
            previous = index;
            index = links_next(body);
        }
    }
    for (unsigned word = 0; word < SPAN_BINS / 64; word++) {
        if ((space->bin_summary >> word & 1) != (space->bin_filled[word] != 0))
            return "the summary of the bins is wrong";
    }
    return NULL;
}

const char *span_space_verify(const struct span_space *space)
{
    size_t spans = 0, used = 0, requested = 0;
    struct size_classes classes = { .of[0].spans = 0 };
    uint32_t holes = 0, extents = 0, binned = 0;
    bool after_hole = false;
    if (next_start(space, 0) != 0)
        return "no extent begins at the start of the range";
    for (uint32_t unit = 0, end; unit < space->starts.units; unit = end) {
        end = next_start(space, unit + 1);
        if (starts_before(&space->starts, end - 1) != unit)
            return "the two directions of the bitmap disagree";
        uint32_t index = chain_find(space, unit);
        if (index == 0)
            return "an extent has no record";
        uint64_t place = place_of(space, index);
        uint32_t slack = place_offset(place) & ((1u << space->shift) - 1);
        bool hole = is_hole(space, index);
        if (hole && after_hole)
            return "two holes are neighbours";
        if (slack != 0 && !place_is_live(place))
            return "an extent that is not a span has unused bytes";
        size_t bytes = (size_t) (end - unit) << space->shift;
        if (place_is_live(place)) {
            spans++;
            used += bytes;
            requested += bytes - slack;
            size_classes_add_span(&classes, bytes - slack, bytes);
        } else if (hole) {
            size_classes_add_hole(&classes, bytes);
        }
        holes += hole;
        after_hole = hole;
        extents++;
    }
    if (spans != space->spans || used != space->used || requested != space->requested)
        return "the totals of live spans are wrong";
    if (memcmp(&classes, &space->classes, sizeof classes) != 0)
        return "a size class is counted wrongly";
    if (extents + space->extents.spares + 1 != space->extents.count)
        return "a record is neither in use nor spare";
    const char *broken = verify_bins(space, &binned);
    if (broken == NULL && binned != holes)
        broken = "a hole is in no bin";
    return broken != NULL ? broken : starts_verify(&space->starts);
}
