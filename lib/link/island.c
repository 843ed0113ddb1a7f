/* SPDX-License-Identifier: MIT */
/* Slots of an island: taken and dropped with their traces, code written page by page. */
#include <config.h>

#include "link/island.h"

#include "error.h"
#include "isa/isa.h"
#include "link/retarget.h"
#include "os/map.h"

#include <string.h>

enum {
    FIRST_ROOM = 32,
    CACHE_LINE = 128 /* or two, which some cores fetch together */
};

/* ---- opening ---------------------------------------------------------- */

static struct reach reach_of(const struct region *region, uint64_t range)
{
    struct reach reach = { 0, UINTPTR_MAX };

    /* |address - byte| < range for the first byte, and for the one behind the last. */
    if (region->code_hi >= range)
        reach.lo = region->code_hi - range + 1;
    if (region->code_lo <= UINTPTR_MAX - (range - 1))
        reach.hi = region->code_lo + (range - 1);
    return reach;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool is_reachable(const struct region *region)
{
    uintptr_t up = region->island_hi - region->code_lo;
    uintptr_t down = region->code_hi - region->island_lo;

    return up < isa_host.branch_range && down < isa_host.branch_range;
}

pp_status island_open(struct region *region, pp_error *error)
{
    pp_pool *pool = region->pool;
    struct island *island = pool_meta_alloc(pool, sizeof *island);

    if (island == NULL)
        return error_set(error, PP_E_NOMEM, "no memory for an island");
    island->branch = reach_of(region, smaller(isa_host.branch_range, pool_branch_range(pool)));
    island->got = reach_of(region, smaller(isa_host.got_range,
                                           pool_branch_range(pool) < isa_host.branch_range
                                               ? pool_branch_range(pool) : UINT64_MAX));
    island->slot_bytes = isa_host.trampoline_size(TRAMPOLINE_ISLAND, pool_landing_pads(pool));
    island->capacity =
        (uint32_t) smaller((region->island_hi - region->island_lo) / island->slot_bytes,
                           (region->literal_hi - region->literal_lo) / sizeof(uint64_t));
    island->reachable = is_reachable(region);
    island->page_bytes = map_page_size();
    island->page_shift = (unsigned) __builtin_ctzl(island->page_bytes);
    island->page_count =
        (region->island_hi - region->island_lo + island->page_bytes - 1) / island->page_bytes;
    island->pages = pool_meta_alloc(pool, island->page_count);
    if (island->pages == NULL || pthread_mutex_init(&island->page_lock, NULL) != 0) {
        if (island->pages != NULL)
            pool_meta_free(pool, island->pages, island->page_count);
        pool_meta_free(pool, island, sizeof *island);
        return error_set(error, PP_E_NOMEM, "no memory for an island");
    }
    region->link = island;
    return PP_OK;
}

void island_close(struct region *region)
{
    struct island *island = island_of(region);
    pp_pool *pool = region->pool;

    if (island == NULL)
        return;
    if (island->room != 0) {
        pool_meta_free(pool, island->slots, island->room * sizeof *island->slots);
        pool_meta_free(pool, island->buckets, island->room * sizeof *island->buckets);
    }
    pool_meta_free(pool, island->pages, island->page_count);
    pthread_mutex_destroy(&island->page_lock);
    pool_meta_free(pool, island, sizeof *island);
    region->link = NULL;
}

/* ---- places ----------------------------------------------------------- */

uintptr_t island_trampoline(const struct region *region, uint32_t slot)
{
    return region->island_lo + slot * island_of(region)->slot_bytes;
}

uintptr_t island_literal(const struct region *region, uint32_t slot)
{
    return region->literal_lo + slot * sizeof(uint64_t);
}

/* A reader that was sent here goes to the old or to the new address, never to a mixture. */
static void set_literal(const struct region *region, uint32_t slot, uintptr_t address)
{
    _Atomic uint64_t *literal = (_Atomic uint64_t *) island_literal(region, slot);

    atomic_store_explicit(literal, address, memory_order_release);
}

/* ---- code ------------------------------------------------------------- */

/* Encode all slots that lie in this page as a whole or in part. */
static pp_status write_page(struct region *region, size_t page, pp_error *error)
{
    struct island *island = island_of(region);
    uintptr_t lo = region->island_lo + page * island->page_bytes;
    uintptr_t hi = lo + island->page_bytes;
    bool pads = pool_landing_pads(region->pool);
    uint8_t *write, code[32];

    if (hi > region->island_hi)
        hi = region->island_hi;
    pp_status status = region_write_begin(region, lo, hi - lo, &write, error);
    if (status != PP_OK)
        return status;
    for (size_t at = 0; at < hi - lo; at += isa_host.trap_size)
        memcpy(write + at, &isa_host.trap, isa_host.trap_size);
    uint32_t slot = (uint32_t) (page * island->page_bytes / island->slot_bytes);
    for (; slot < island->capacity && island_trampoline(region, slot) < hi; slot++) {
        uintptr_t place = island_trampoline(region, slot);
        if (isa_host.trampoline_encode(TRAMPOLINE_ISLAND, pads, code, place,
                                       island_literal(region, slot)) == 0) {
            status = error_set(error, PP_E_FAULT, "island and literals are too far apart");
            break;
        }
        /* A slot may straddle pages: each of them gets its part. */
        uintptr_t from = place < lo ? lo : place;
        uintptr_t to = place + island->slot_bytes > hi ? hi : place + island->slot_bytes;
        memcpy(write + (from - lo), code + (from - place), to - from);
    }
    pp_status ended = region_write_end(region, lo, hi - lo, error);
    return status != PP_OK ? status : ended;
}

/* Acquire order, with the release store behind the writing. */
static bool page_is_written(const struct island *island, size_t page)
{
    return atomic_load_explicit(&island->pages[page], memory_order_acquire);
}

/*
 * The pages of a slot.  Nobody runs a slot before this has returned for it: the traces that
 * branch there are published later, with a barrier, which serves the slot and its literal.
 */
static pp_status write_slot(struct region *region, uint32_t slot, pp_error *error)
{
    struct island *island = island_of(region);
    size_t first = slot * island->slot_bytes >> island->page_shift;
    size_t last = ((slot + 1) * island->slot_bytes - 1) >> island->page_shift;
    pp_status status = PP_OK;

    while (first <= last && page_is_written(island, first))
        first++;
    if (first > last)
        return PP_OK;
    pthread_mutex_lock(&island->page_lock);
    for (size_t page = first; page <= last && status == PP_OK; page++) {
        if (page_is_written(island, page))
            continue;
        status = write_page(region, page, error);
        if (status == PP_OK)
            atomic_store_explicit(&island->pages[page], true, memory_order_release);
    }
    pthread_mutex_unlock(&island->page_lock);
    return status;
}

/* ---- slots, under the region's lock -------------------------------------- */

static uint32_t *bucket_of(const struct island *island, pp_symbol symbol)
{
    return &island->buckets[(symbol * UINT32_C(0x9e3779b1)) >> 8 & (island->room - 1)];
}

/* The link that leads to the symbol's slot: 0 there if it has none. */
static uint32_t *find_locked(const struct island *island, pp_symbol symbol)
{
    uint32_t *link = bucket_of(island, symbol);

    while (*link != 0 && island->slots[*link - 1].symbol != symbol)
        link = &island->slots[*link - 1].next;
    return link;
}

static void enter_locked(struct island *island, uint32_t slot, pp_symbol symbol)
{
    uint32_t *bucket = bucket_of(island, symbol);

    island->slots[slot] = (struct island_slot) { .symbol = symbol, .next = *bucket };
    *bucket = slot + 1;
}

/* Double the room.  Only when no slot is free. */
static pp_status grow_locked(struct region *region)
{
    struct island *island = island_of(region);
    pp_pool *pool = region->pool;
    uint32_t room = island->room != 0 ? island->room * 2 : FIRST_ROOM, old = island->room;
    struct island_slot *slots = pool_meta_alloc(pool, room * sizeof *slots);
    uint32_t *buckets = pool_meta_alloc(pool, room * sizeof *buckets);

    if (slots == NULL || buckets == NULL) {
        if (slots != NULL)
            pool_meta_free(pool, slots, room * sizeof *slots);
        if (buckets != NULL)
            pool_meta_free(pool, buckets, room * sizeof *buckets);
        return PP_E_NOMEM;
    }
    if (old != 0) {
        memcpy(slots, island->slots, island->used * sizeof *slots);
        pool_meta_free(pool, island->slots, old * sizeof *slots);
        pool_meta_free(pool, island->buckets, old * sizeof *buckets);
    }
    island->slots = slots;
    island->buckets = buckets;
    island->room = room;
    for (uint32_t slot = 0; slot < island->used; slot++) {
        uint32_t *bucket = bucket_of(island, slots[slot].symbol);
        slots[slot].next = *bucket;
        *bucket = slot + 1;
    }
    return PP_OK;
}

/* The literal of a slot for its new symbol, whose address it holds from here on. */
static pp_status bind_locked(struct region *region, struct link *link, uint32_t slot,
                             const struct island_need *need)
{
    const struct symbol *symbol = symbol_find(&link->symbols, need->symbol);

    if (symbol->retarget != NULL)
        return retarget_enter(link, region->pool, symbol, island_literal(region, slot));
    set_literal(region, slot, need->address);
    return PP_OK;
}

/* A slot without a user, its literal 0. */
static void unbind_locked(struct region *region, struct link *link, uint32_t slot)
{
    const struct symbol *symbol =
        symbol_find(&link->symbols, island_of(region)->slots[slot].symbol);

    if (symbol->retarget != NULL)
        retarget_leave(link, region->pool, symbol, island_literal(region, slot));
    set_literal(region, slot, 0);
}

static pp_status find_or_make_locked(struct region *region, struct link *link,
                                     const struct island_need *need, uint32_t *slot)
{
    struct island *island = island_of(region);
    uint32_t found = island->room != 0 ? *find_locked(island, need->symbol) : 0;

    if (found != 0) {
        *slot = found - 1;
        return PP_OK;
    }
    bool again = island->free_slots != 0;
    if (!again && island->used == island->capacity)
        return PP_E_RANGE;
    if (!again && island->used == island->room && grow_locked(region) != PP_OK)
        return PP_E_NOMEM;
    *slot = again ? island->free_slots - 1 : island->used;
    pp_status status = bind_locked(region, link, *slot, need);
    if (status != PP_OK)
        return status;
    if (again)
        island->free_slots = island->slots[*slot].next;
    else
        island->used++;
    enter_locked(island, *slot, need->symbol);
    island->live++;
    return PP_OK;
}

/* What a slot counts as: its literal is the trampoline's if it has one. */
static void count_slot(struct island *island, const struct island_slot *entry, size_t sign)
{
    if (entry->trampoline_refs != 0)
        count_add(&island->counts.trampolines, sign);
    else if (entry->literal_refs != 0)
        count_add(&island->counts.literals, sign);
}

/* One reference more; returns how many new things there are: 0, 1. */
static unsigned acquire_locked(struct island *island, uint32_t slot, uint32_t uses)
{
    struct island_slot *entry = &island->slots[slot];
    bool had_trampoline = entry->trampoline_refs != 0;
    bool had_any = had_trampoline || entry->literal_refs != 0;

    count_slot(island, entry, (size_t) -1);
    entry->trampoline_refs += (uses & ISLAND_TRAMPOLINE) != 0;
    entry->literal_refs += (uses & ISLAND_LITERAL) != 0;
    count_slot(island, entry, 1);
    return !had_any || (!had_trampoline && entry->trampoline_refs != 0);
}

static void release_locked(struct region *region, struct link *link, uint32_t slot, uint32_t uses)
{
    struct island *island = island_of(region);
    struct island_slot *entry = &island->slots[slot];

    count_slot(island, entry, (size_t) -1);
    entry->trampoline_refs -= (uses & ISLAND_TRAMPOLINE) != 0;
    entry->literal_refs -= (uses & ISLAND_LITERAL) != 0;
    count_slot(island, entry, 1);
    bool is_free = entry->trampoline_refs == 0 && entry->literal_refs == 0;
    if (!is_free)
        return;
    unbind_locked(region, link, slot);
    uint32_t *chain = find_locked(island, entry->symbol);
    *chain = entry->next;
    *entry = (struct island_slot) { .next = island->free_slots };
    island->free_slots = slot + 1;
    island->live--;
}

static void drop_locked(struct region *region, struct link *link, struct island_user *user)
{
    size_t uses = 0;

    for (uint32_t i = 0; i < user->count; i++) {
        release_locked(region, link, user->refs[i] >> 2, user->refs[i] & 3);
        uses += (user->refs[i] & ISLAND_TRAMPOLINE) != 0;
    }
    count_add(&island_of(region)->counts.uses, -uses);
    user->count = 0;
    *user->previous = user->next;
    if (user->next != NULL)
        user->next->previous = user->previous;
}

/* ---- taking and dropping --------------------------------------------------- */

static size_t user_bytes(uint32_t room)
{
    return sizeof(struct island_user) + room * sizeof(uint32_t);
}

struct island_user *island_user_new(pp_pool *pool, uint32_t room)
{
    struct island_user *user = pool_meta_alloc(pool, user_bytes(room));

    if (user != NULL)
        user->room = room;
    return user;
}

void island_user_free(pp_pool *pool, struct island_user *user)
{
    if (user != NULL)
        pool_meta_free(pool, user, user_bytes(user->room));
}

static pp_status take_locked(struct region *region, struct link *link, struct island_need *needs,
                             uint32_t count, struct island_user *user, unsigned *added)
{
    struct island *island = island_of(region);

    user->next = island->users;
    user->previous = &island->users;
    if (user->next != NULL)
        user->next->previous = &user->next;
    island->users = user;
    *added = 0;
    size_t uses = 0;
    pp_status status = PP_OK;
    for (uint32_t i = 0; i < count && status == PP_OK; i++) {
        status = find_or_make_locked(region, link, &needs[i], &needs[i].slot);
        if (status != PP_OK)
            break;
        *added += acquire_locked(island, needs[i].slot, needs[i].uses);
        user->refs[user->count++] = needs[i].slot << 2 | needs[i].uses;
        uses += (needs[i].uses & ISLAND_TRAMPOLINE) != 0;
    }
    count_add(&island->counts.uses, uses);
    if (status != PP_OK)
        drop_locked(region, link, user);
    return status;
}

pp_status island_take(struct region *region, struct link *link, struct island_need *needs,
                      uint32_t count, struct island_user *user, unsigned *added,
                      pp_error *error)
{
    pthread_mutex_lock(&region->lock);
    pp_status status = take_locked(region, link, needs, count, user, added);
    pthread_mutex_unlock(&region->lock);
    /* A full island is no error yet: the caller may have another place. */
    if (status != PP_OK)
        return status == PP_E_RANGE ? status : error_set(error, status, "no memory for an island");
    for (uint32_t i = 0; i < count && status == PP_OK; i++)
        if ((needs[i].uses & ISLAND_TRAMPOLINE) != 0)
            status = write_slot(region, needs[i].slot, error);
    if (status != PP_OK)
        island_drop(region, link, user);
    return status;
}

void island_drop(struct region *region, struct link *link, struct island_user *user)
{
    if (user == NULL || user->count == 0)
        return;
    pthread_mutex_lock(&region->lock);
    drop_locked(region, link, user);
    pthread_mutex_unlock(&region->lock);
}

unsigned island_count_new(struct region *region, const struct island_need *needs, uint32_t count,
                          bool *fits)
{
    struct island *island = island_of(region);
    uint32_t added = 0, slots = 0;

    pthread_mutex_lock(&region->lock);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t found = island->room != 0 ? *find_locked(island, needs[i].symbol) : 0;
        slots += found == 0;
        added += found == 0 || ((needs[i].uses & ISLAND_TRAMPOLINE) != 0 &&
                                island->slots[found - 1].trampoline_refs == 0);
    }
    *fits = slots <= island->capacity - island->live;
    pthread_mutex_unlock(&region->lock);
    return added;
}

/* ---- checking --------------------------------------------------------- */

static pp_status broken(pp_error *error, uint32_t slot, const char *what)
{
    return error_set(error, PP_E_FAULT, "island slot %u: %s", slot, what);
}

/* `refs` counts, per slot, what the traces hold: trampolines at 2 i, literals at 2 i + 1. */
static pp_status verify_slot_locked(const struct region *region, struct link *link,
                                    const uint32_t *refs, uint32_t slot, pp_error *error)
{
    const struct island *island = island_of(region);
    const struct island_slot *entry = &island->slots[slot];
    /* One that moves may do so now. */
    uint64_t literal = atomic_load_explicit((_Atomic uint64_t *) island_literal(region, slot),
                                            memory_order_relaxed);

    if (refs[2 * slot] != entry->trampoline_refs || refs[2 * slot + 1] != entry->literal_refs)
        return broken(error, slot, "references do not add up");
    if (entry->symbol == PP_SYMBOL_NONE) {
        if (refs[2 * slot] != 0 || refs[2 * slot + 1] != 0 || literal != 0)
            return broken(error, slot, "free, but in use");
        return PP_OK;
    }
    if (*find_locked(island, entry->symbol) != slot + 1)
        return broken(error, slot, "not found by its symbol");
    const struct symbol *symbol = symbol_find(&link->symbols, entry->symbol);
    if (symbol == NULL ||
        (symbol->retarget != NULL
             ? !retarget_verify(link, symbol, island_literal(region, slot))
             : literal != symbol_address(symbol)))
        return broken(error, slot, "the literal is not the symbol's address");
    if (entry->trampoline_refs == 0 && entry->literal_refs == 0)
        return broken(error, slot, "in use, but without references");
    return PP_OK;
}

static pp_status verify_locked(struct region *region, struct link *link, uint32_t *refs,
                               pp_error *error)
{
    struct island *island = island_of(region);
    uint32_t live = 0, chained = 0;

    if (region->literal_lo < region->code_hi + CACHE_LINE &&
        region->code_lo < region->literal_hi + CACHE_LINE)
        return error_set(error, PP_E_FAULT, "literals share cache lines with code");

    for (const struct island_user *user = island->users; user != NULL; user = user->next) {
        if (*user->previous != user)
            return error_set(error, PP_E_FAULT, "the list of an island's users is broken");
        for (uint32_t i = 0; i < user->count; i++) {
            uint32_t slot = user->refs[i] >> 2;
            if (slot >= island->used)
                return broken(error, slot, "referenced, but never used");
            refs[2 * slot] += (user->refs[i] & ISLAND_TRAMPOLINE) != 0;
            refs[2 * slot + 1] += (user->refs[i] & ISLAND_LITERAL) != 0;
        }
    }
    for (uint32_t slot = 0; slot < island->used; slot++) {
        pp_status status = verify_slot_locked(region, link, refs, slot, error);
        if (status != PP_OK)
            return status;
        live += island->slots[slot].symbol != PP_SYMBOL_NONE;
    }
    for (uint32_t slot = island->free_slots; slot != 0; slot = island->slots[slot - 1].next)
        if (++chained > island->used || island->slots[slot - 1].symbol != PP_SYMBOL_NONE)
            return broken(error, slot - 1, "wrongly in the chain of free slots");
    if (live != island->live || live + chained != island->used)
        return error_set(error, PP_E_FAULT, "an island lost %u slots",
                         island->used - live - chained);
    return PP_OK;
}

pp_status island_verify(struct region *region, struct link *link, pp_error *error)
{
    struct island *island = island_of(region);
    pp_status status = PP_OK;

    pthread_mutex_lock(&region->lock);
    size_t bytes = 2 * island->used * sizeof(uint32_t);
    uint32_t *refs = bytes != 0 ? pool_meta_alloc(region->pool, bytes) : NULL;
    if (refs != NULL) {
        status = verify_locked(region, link, refs, error);
        pool_meta_free(region->pool, refs, bytes);
    } else if (bytes != 0) {
        status = error_set(error, PP_E_NOMEM, "no memory to verify an island");
    }
    pthread_mutex_unlock(&region->lock);
    return status;
}
