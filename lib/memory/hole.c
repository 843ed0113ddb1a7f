/* SPDX-License-Identifier: MIT */
/* Holes by length. */
#include <config.h>

#include "memory/hole.h"

#define LINK_BITS 26
#define LINK_MASK ((1u << LINK_BITS) - 1)

static inline uint32_t link_left(uint64_t word) { return word & LINK_MASK; }
static inline uint32_t link_right(uint64_t word) { return word >> LINK_BITS & LINK_MASK; }

static inline uint64_t links_pack(uint32_t right, uint32_t left)
{
    return (uint64_t) right << LINK_BITS | left;
}

static inline uint64_t load(const block_word *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void store(block_word *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

/* ---- lists ------------------------------------------------------------ */

static void list_insert(struct holes *holes, const struct extents *extents, uint32_t start,
                        uint32_t units)
{
    uint32_t first = holes->lists[units], link = start + 1;
    holes->filled[units / 64] |= 1ull << units % 64;
    holes->lists[units] = link;
    store(extents_word(extents, start), links_pack(0, first));
    if (first != 0) {
        block_word *after = extents_word(extents, first - 1);
        store(after, links_pack(link, link_left(load(after))));
    }
}

static void list_remove(struct holes *holes, const struct extents *extents,
                        const struct extent *hole)
{
    uint64_t links = extent_word(hole);
    uint32_t previous = link_right(links), next = link_left(links);
    uint32_t units = hole->end - hole->start;
    if (holes->lists[units] == hole->start + 1) {
        holes->lists[units] = next;
        if (next == 0)
            holes->filled[units / 64] &= ~(1ull << units % 64);
        return;
    }
    block_word *before = extents_word(extents, previous - 1);
    store(before, links_pack(link_right(load(before)), next));
    if (next != 0) {
        block_word *after = extents_word(extents, next - 1);
        store(after, links_pack(previous, link_left(load(after))));
    }
}

/* The first list from `units` on that is not empty, or HOLE_LISTS. */
static uint32_t list_from(const struct holes *holes, uint32_t units)
{
    if (units >= HOLE_LISTS)
        return HOLE_LISTS;
    uint32_t index = units / 64;
    uint64_t word = holes->filled[index] & UINT64_MAX << units % 64;
    while (word == 0) {
        if (++index == HOLE_LISTS / 64)
            return HOLE_LISTS;
        word = holes->filled[index];
    }
    return index * 64 + (uint32_t) __builtin_ctzll(word);
}

/* ---- tree ------------------------------------------------------------- */

/* A place where a link is. */
struct place {
    block_word *word;
    bool right;
};

static inline uint32_t place_get(struct place place)
{
    uint64_t word = load(place.word);
    return place.right ? link_right(word) : link_left(word);
}

static inline void place_set(struct place place, uint32_t link)
{
    uint64_t word = load(place.word);
    store(place.word, place.right ? links_pack(link, link_left(word))
                                  : links_pack(link_right(word), link));
}

static inline uint64_t priority(const struct holes *holes, uint32_t link)
{
    uint64_t hash = (link + holes->seed) * 0x9e3779b97f4a7c15u;
    return (hash ^ hash >> 29) * 0xbf58476d1ce4e5b9u;
}

static inline uint64_t key_pack(uint32_t start, uint32_t units)
{
    return (uint64_t) units << 32 | start;
}

static inline uint64_t key_of(const struct extent *hole)
{
    return key_pack(hole->start, hole->end - hole->start);
}

static inline void find_link(const struct extents *extents, uint32_t link, struct extent *hole)
{
    (void) extents_find(extents, link - 1, hole);
}

static inline struct place child(const struct extent *hole, bool right)
{
    return (struct place){ block_record(hole->block, hole->rank), right };
}

static void tree_insert(struct holes *holes, const struct extents *extents, uint32_t start,
                        uint32_t units)
{
    uint64_t key = key_pack(start, units), mine = priority(holes, start + 1);
    block_word *word = extents_word(extents, start);
    struct place at = { &holes->root, false };
    struct extent node;
    uint32_t link;
    while ((link = place_get(at)) != 0 && priority(holes, link) >= mine) {
        find_link(extents, link, &node);
        at = child(&node, key_of(&node) < key);
    }
    /* What was there is split into what is below and what is above. */
    place_set(at, start + 1);
    store(word, 0);
    struct place below = { word, false }, above = { word, true };
    while (link != 0) {
        find_link(extents, link, &node);
        bool lower = key_of(&node) < key;
        place_set(lower ? below : above, link);
        struct place next = child(&node, lower);
        *(lower ? &below : &above) = next;
        link = place_get(next);
    }
    place_set(below, 0);
    place_set(above, 0);
}

static void tree_remove(struct holes *holes, const struct extents *extents,
                        const struct extent *hole)
{
    uint64_t key = key_of(hole), links = extent_word(hole);
    struct place at = { &holes->root, false };
    struct extent node;
    while (place_get(at) != hole->start + 1) {
        find_link(extents, place_get(at), &node);
        at = child(&node, key_of(&node) < key);
    }
    uint32_t left = link_left(links), right = link_right(links);
    while (left != 0 && right != 0) {
        bool take_left = priority(holes, left) > priority(holes, right);
        uint32_t top = take_left ? left : right;
        place_set(at, top);
        at = (struct place){ extents_word(extents, top - 1), take_left };
        *(take_left ? &left : &right) = place_get(at);
    }
    place_set(at, left != 0 ? left : right);
}

/* The hole with the lowest key from `key` on. */
static bool tree_from(const struct holes *holes, const struct extents *extents, uint64_t key,
                      struct extent *hole)
{
    uint32_t link = link_left(load(&holes->root));
    bool found = false;
    while (link != 0) {
        struct extent node;
        find_link(extents, link, &node);
        bool lower = key_of(&node) < key;
        if (!lower) {
            *hole = node;
            found = true;
        }
        link = place_get(child(&node, lower));
    }
    return found;
}

/* ---- both ------------------------------------------------------------- */

static uint32_t longest(const struct holes *holes, const struct extents *extents)
{
    uint32_t link = link_left(load(&holes->root)), units = 0;
    for (unsigned i = HOLE_LISTS / 64; link == 0 && units == 0 && i-- > 0;) {
        if (holes->filled[i] != 0)
            units = i * 64 + 63 - (uint32_t) __builtin_clzll(holes->filled[i]);
    }
    while (link != 0) {
        struct extent node;
        find_link(extents, link, &node);
        units = node.end - node.start;
        link = place_get(child(&node, true));
    }
    return units;
}

void holes_insert(struct holes *holes, const struct extents *extents, uint32_t start,
                  uint32_t units)
{
    if (units > holes->longest)
        holes->longest = units;
    if (units < HOLE_LISTS)
        list_insert(holes, extents, start, units);
    else
        tree_insert(holes, extents, start, units);
}

void holes_remove(struct holes *holes, const struct extents *extents, const struct extent *hole)
{
    uint32_t units = hole->end - hole->start;
    if (units < HOLE_LISTS)
        list_remove(holes, extents, hole);
    else
        tree_remove(holes, extents, hole);
    if (units == holes->longest)
        holes->longest = longest(holes, extents);
}

bool holes_find(const struct holes *holes, const struct extents *extents, uint32_t units,
                struct extent *hole)
{
    uint32_t list = list_from(holes, units);
    if (list == HOLE_LISTS)
        return tree_from(holes, extents, key_pack(0, units), hole);
    find_link(extents, holes->lists[list], hole);
    return true;
}

bool holes_find_next(const struct holes *holes, const struct extents *extents,
                     struct extent *hole)
{
    uint32_t units = hole->end - hole->start;
    if (units >= HOLE_LISTS)
        return tree_from(holes, extents, key_of(hole) + 1, hole);
    uint32_t next = link_left(load(block_record(hole->block, hole->rank)));
    if (next == 0)
        return holes_find(holes, extents, units + 1, hole);
    find_link(extents, next, hole);
    return true;
}

/* ---- invariants ------------------------------------------------------- */

static const char *verify_list(const struct holes *holes, const struct extents *extents,
                               uint32_t units, uint32_t *count)
{
    uint32_t previous = 0;
    struct extent hole;
    if ((holes->filled[units / 64] >> units % 64 & 1) != (holes->lists[units] != 0))
        return "a list's bit does not tell whether it holds a hole";
    for (uint32_t link = holes->lists[units]; link != 0;) {
        if (!extents_find(extents, link - 1, &hole) || extent_info(&hole) != INFO_HOLE)
            return "a list holds something that is not a hole";
        if (hole.end - hole.start != units)
            return "a hole is in the wrong list";
        if (previous != 0 && link_right(extent_word(&hole)) != previous)
            return "a list is broken";
        if (++*count > extents->units)
            return "a list has a loop";
        previous = link;
        link = link_left(extent_word(&hole));
    }
    return NULL;
}

/* What a subtree may hold, exclusive. */
struct bounds {
    uint64_t low, high, priority;
};

#define DEPTH_LIMIT 400u /* far beyond what chance can do */

static const char *verify_tree(const struct holes *holes, const struct extents *extents,
                               uint32_t link, struct bounds bounds, unsigned depth,
                               uint32_t *count)
{
    struct extent node;
    if (link == 0)
        return NULL;
    if (depth == DEPTH_LIMIT || ++*count > extents->units)
        return "the tree of holes is too deep, or has a loop";
    if (!extents_find(extents, link - 1, &node) || extent_info(&node) != INFO_HOLE)
        return "the tree holds something that is not a hole";
    uint64_t key = key_of(&node), links = extent_word(&node);
    if (node.end - node.start < HOLE_LISTS || key <= bounds.low || key >= bounds.high)
        return "a hole is in a wrong place of the tree";
    if (priority(holes, link) > bounds.priority)
        return "the tree of holes is not a heap";
    bounds.priority = priority(holes, link);
    struct bounds lower = { bounds.low, key, bounds.priority };
    struct bounds upper = { key, bounds.high, bounds.priority };
    const char *broken =
        verify_tree(holes, extents, link_left(links), lower, depth + 1, count);
    if (broken == NULL)
        broken = verify_tree(holes, extents, link_right(links), upper, depth + 1, count);
    return broken;
}

const char *holes_verify(const struct holes *holes, const struct extents *extents,
                         uint32_t *count)
{
    const char *broken = NULL;
    for (uint32_t units = 1; broken == NULL && units < HOLE_LISTS; units++)
        broken = verify_list(holes, extents, units, count);
    if (broken != NULL)
        return broken;
    if (longest(holes, extents) != holes->longest)
        return "the longest hole is another one";
    const struct bounds all = { 0, UINT64_MAX, UINT64_MAX };
    return verify_tree(holes, extents, link_left(load(&holes->root)), all, 0, count);
}
