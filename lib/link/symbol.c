/* SPDX-License-Identifier: MIT */
/* The symbol table: numbers, names and addresses, each found in constant time. */
#include <config.h>

#include "link/symbol.h"

#include "isa/isa.h"
#include "link/link.h"
#include "link/retarget.h"
#include "stub.h"

#include <patchpoint/activation.h>

#include <string.h>

enum { FIRST_BUCKETS = 64 };

/* ---- by number -------------------------------------------------------- */

/* Block k begins at number (64 << k) - 64. */
static unsigned block_of(uint32_t symbol, uint32_t *index)
{
    uint32_t shifted = symbol + (1u << SYMBOL_BLOCK_BITS);
    unsigned block = 31u - (unsigned) __builtin_clz(shifted) - SYMBOL_BLOCK_BITS;

    *index = shifted - (1u << (SYMBOL_BLOCK_BITS + block));
    return block;
}

static size_t block_bytes(unsigned block)
{
    return sizeof(struct symbol) << (SYMBOL_BLOCK_BITS + block);
}

static struct symbol *entry_of(const struct symbol_table *table, uint32_t symbol)
{
    uint32_t index;
    unsigned block = block_of(symbol, &index);

    return &atomic_load_explicit(&table->blocks[block], memory_order_relaxed)[index];
}

uint32_t symbol_count(const struct symbol_table *table)
{
    return atomic_load_explicit(&table->count, memory_order_acquire);
}

struct symbol *symbol_find(const struct symbol_table *table, pp_symbol symbol)
{
    /* The acquire load of the count makes the block's pointer and the entry visible. */
    if (symbol == PP_SYMBOL_NONE || symbol >= symbol_count(table))
        return NULL;
    return entry_of(table, symbol);
}

/* ---- by name and by address ---------------------------------------------- */

static uint32_t mix(uint64_t hash, uint32_t buckets)
{
    /* The high bits of the product depend on all bits of the factor. */
    return (uint32_t) ((hash * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (buckets - 1);
}

static uint32_t name_bucket(const struct symbol_table *table, const char *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (; *name != '\0'; name++)
        hash = (hash ^ (unsigned char) *name) * UINT64_C(0x100000001b3);
    return mix(hash, table->buckets);
}

static uint32_t address_bucket(const struct symbol_table *table, uintptr_t address)
{
    return mix(address, table->buckets);
}

static uint32_t find_name(const struct symbol_table *table, const char *name)
{
    uint32_t symbol = table->names[name_bucket(table, name)];

    while (symbol != 0 && strcmp(entry_of(table, symbol)->name, name) != 0)
        symbol = entry_of(table, symbol)->next_name;
    return symbol;
}

/* The address by which a symbol is found: of one that moves, where it was at first. */
static uintptr_t key_of(const struct symbol *entry)
{
    return entry->retarget != NULL ? entry->retarget->home : symbol_address(entry);
}

static uint32_t find_address(const struct symbol_table *table, uintptr_t address, bool moves)
{
    uint32_t symbol = table->addresses[address_bucket(table, address)];

    for (; symbol != 0; symbol = entry_of(table, symbol)->next_address) {
        const struct symbol *entry = entry_of(table, symbol);
        if (key_of(entry) == address && (entry->retarget != NULL) == moves)
            break;
    }
    return symbol;
}

/*
 * Of several symbols with one address the first stays the one that is found.  One
 * that moves is found by its address only if it has no name: who has a name for it
 * means that one and no other.
 */
static void enter(struct symbol_table *table, uint32_t symbol)
{
    struct symbol *entry = entry_of(table, symbol);

    if (entry->name != NULL) {
        uint32_t *head = &table->names[name_bucket(table, entry->name)];
        entry->next_name = *head;
        *head = symbol;
    }
    uintptr_t key = key_of(entry);
    bool moves = entry->retarget != NULL;
    if (key != 0 && !(moves && entry->name != NULL) && find_address(table, key, moves) == 0) {
        uint32_t *head = &table->addresses[address_bucket(table, key)];
        entry->next_address = *head;
        *head = symbol;
    }
}

static size_t bucket_bytes(uint32_t buckets)
{
    return buckets * sizeof(uint32_t);
}

static pp_status set_buckets(struct symbol_table *table, pp_pool *pool, uint32_t buckets)
{
    uint32_t *names = pool_meta_alloc(pool, bucket_bytes(buckets));
    uint32_t *addresses = pool_meta_alloc(pool, bucket_bytes(buckets));

    if (names == NULL || addresses == NULL) {
        if (names != NULL)
            pool_meta_free(pool, names, bucket_bytes(buckets));
        if (addresses != NULL)
            pool_meta_free(pool, addresses, bucket_bytes(buckets));
        return PP_E_NOMEM;
    }
    if (table->names != NULL) {
        pool_meta_free(pool, table->names, bucket_bytes(table->buckets));
        pool_meta_free(pool, table->addresses, bucket_bytes(table->buckets));
    }
    table->names = names;
    table->addresses = addresses;
    table->buckets = buckets;
    uint32_t count = atomic_load_explicit(&table->count, memory_order_relaxed);
    for (uint32_t symbol = 1; symbol < count; symbol++)
        enter(table, symbol);
    return PP_OK;
}

/* ---- defining --------------------------------------------------------- */

static pp_symbol append(struct symbol_table *table, pp_pool *pool, const char *name,
                        uintptr_t address, struct retarget *retarget)
{
    uint32_t symbol = atomic_load_explicit(&table->count, memory_order_relaxed), index;
    unsigned block = block_of(symbol, &index);

    if (block >= SYMBOL_BLOCKS)
        return PP_SYMBOL_NONE;
    if (index == 0) {
        struct symbol *entries = pool_meta_alloc(pool, block_bytes(block));
        if (entries == NULL)
            return PP_SYMBOL_NONE;
        atomic_store_explicit(&table->blocks[block], entries, memory_order_relaxed);
    }
    struct symbol *entry = entry_of(table, symbol);
    atomic_init(&entry->address, address);
    entry->name = name;
    entry->retarget = retarget;
    enter(table, symbol);
    atomic_store_explicit(&table->count, symbol + 1, memory_order_release);
    return symbol;
}

static bool is_same(const struct symbol *entry, uintptr_t address, uint32_t flags)
{
    return (entry->retarget != NULL) == ((flags & PP_SYMBOL_RETARGETABLE) != 0) &&
           (key_of(entry) == address || symbol_address(entry) == address);
}

static void free_copy(pp_pool *pool, char *copy)
{
    if (copy != NULL)
        pool_meta_free(pool, copy, strlen(copy) + 1);
}

/* A symbol that is not there yet. */
static pp_symbol make_locked(struct symbol_table *table, pp_pool *pool, const char *name,
                             uintptr_t address, uint32_t flags)
{
    uint32_t count = atomic_load_explicit(&table->count, memory_order_relaxed);
    if (count >= table->buckets && table->buckets < 1u << 26 &&
        set_buckets(table, pool, table->buckets * 2) != PP_OK)
        return PP_SYMBOL_NONE;
    char *copy = NULL;
    if (name != NULL) {
        size_t length = strlen(name) + 1;
        copy = pool_meta_alloc(pool, length);
        if (copy == NULL)
            return PP_SYMBOL_NONE;
        memcpy(copy, name, length);
    }
    struct retarget *retarget = NULL;
    if ((flags & PP_SYMBOL_RETARGETABLE) != 0) {
        retarget = retarget_new(pool, address);
        if (retarget == NULL) {
            free_copy(pool, copy);
            return PP_SYMBOL_NONE;
        }
    }
    pp_symbol symbol = append(table, pool, copy, address, retarget);
    if (symbol == PP_SYMBOL_NONE) {
        free_copy(pool, copy);
        if (retarget != NULL)
            retarget_free(pool, retarget);
    }
    return symbol;
}

pp_symbol symbol_declare_locked(struct symbol_table *table, pp_pool *pool, const char *name,
                                uintptr_t address, uint32_t flags)
{
    bool moves = (flags & PP_SYMBOL_RETARGETABLE) != 0;

    if (address == 0 || (flags & ~(uint32_t) PP_SYMBOL_RETARGETABLE) != 0 ||
        (moves && !isa_is_aligned(&isa_host, address)))
        return PP_SYMBOL_NONE;
    uint32_t found = name != NULL ? find_name(table, name) : find_address(table, address, moves);
    if (found != 0)
        return is_same(entry_of(table, found), address, flags) ? found : PP_SYMBOL_NONE;
    return make_locked(table, pool, name, address, flags);
}

pp_status symbol_table_open(struct symbol_table *table, pp_pool *pool)
{
    const uintptr_t predefined[SYMBOL_FIRST] = {
        [PP_SYMBOL_PATCHPOINT_GPR] = (uintptr_t) patchpoint_gpr,
        [PP_SYMBOL_PATCHPOINT_V128] = (uintptr_t) patchpoint_v128,
        [PP_SYMBOL_LEAVE] = (uintptr_t) pp_leave,
        [PP_SYMBOL_PATCHPOINT_ABI] = (uintptr_t) patchpoint_abi,
#if defined __x86_64__
        [PP_SYMBOL_PATCHPOINT_V256] = (uintptr_t) patchpoint_v256,
        [PP_SYMBOL_PATCHPOINT_V512] = (uintptr_t) patchpoint_v512,
        [PP_SYMBOL_PATCHPOINT_M256] = (uintptr_t) patchpoint_m256,
        [PP_SYMBOL_PATCHPOINT_M512] = (uintptr_t) patchpoint_m512,
#endif
        [PP_SYMBOL_PATCHPOINT_MASK] = (uintptr_t) patchpoint_mask,
    };

    if (set_buckets(table, pool, FIRST_BUCKETS) != PP_OK)
        return PP_E_NOMEM;
    for (uint32_t symbol = 0; symbol < SYMBOL_FIRST; symbol++) {
        /* The first one is number 0, so its result says nothing; the block stays empty then. */
        append(table, pool, NULL, predefined[symbol], NULL);
        if (symbol_count(table) != symbol + 1) {
            symbol_table_close(table, pool);
            return PP_E_NOMEM;
        }
    }
    return PP_OK;
}

void symbol_table_close(struct symbol_table *table, pp_pool *pool)
{
    uint32_t count = symbol_count(table);

    for (uint32_t symbol = SYMBOL_FIRST; symbol < count; symbol++) {
        struct symbol *entry = entry_of(table, symbol);
        free_copy(pool, (char *) entry->name);
        if (entry->retarget != NULL)
            retarget_free(pool, entry->retarget);
    }
    for (unsigned block = 0; block < SYMBOL_BLOCKS; block++) {
        struct symbol *entries = atomic_load_explicit(&table->blocks[block], memory_order_relaxed);
        if (entries != NULL)
            pool_meta_free(pool, entries, block_bytes(block));
    }
    pool_meta_free(pool, table->names, bucket_bytes(table->buckets));
    pool_meta_free(pool, table->addresses, bucket_bytes(table->buckets));
    memset(table, 0, sizeof *table);
}

/* ---- public ----------------------------------------------------------- */

pp_symbol pp_symbol_declare(pp_pool *pool, const char *name, const void *address, uint32_t flags)
{
    struct link *link = pool != NULL && address != NULL ? link_of(pool) : NULL;

    if (link == NULL)
        return PP_SYMBOL_NONE;
    pool_lock(pool);
    pp_symbol symbol =
        symbol_declare_locked(&link->symbols, pool, name, (uintptr_t) address, flags);
    pool_unlock(pool);
    return symbol;
}

pp_symbol pp_symbol_define(pp_pool *pool, const char *name, const void *address)
{
    return pp_symbol_declare(pool, name, address, 0);
}

const void *pp_symbol_address(pp_pool *pool, pp_symbol symbol)
{
    struct link *link = pool != NULL ? link_of(pool) : NULL;
    const struct symbol *found = link != NULL ? symbol_find(&link->symbols, symbol) : NULL;

    return found != NULL ? (const void *) symbol_address(found) : NULL;
}
