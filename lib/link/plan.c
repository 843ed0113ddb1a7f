/* SPDX-License-Identifier: MIT */
/* Planning a trace: validation, counting, layout; then relocation. */
#include <config.h>

#include "link/plan.h"

#include "error.h"

#include <stdio.h>
#include <string.h>

static const struct isa *const isa = &isa_host;

/* ---- errors that name a relocation --------------------------------------- */

static pp_status refuse(const struct plan *plan, size_t index, pp_status status, const char *why)
{
    const pp_reloc *reloc = &plan->desc->relocs[index];
    const struct reloc_info *info = isa->reloc_info(reloc->type);
    const struct symbol *symbol = symbol_find(&plan->link->symbols, reloc->symbol);
    char type[24], number[24];
    const char *name = symbol != NULL ? symbol->name : NULL;

    snprintf(type, sizeof type, "type %u", reloc->type);
    if (name == NULL) {
        snprintf(number, sizeof number, "symbol %u", reloc->symbol);
        name = reloc->symbol == PP_SYMBOL_CODE ? "own code"
             : reloc->symbol == PP_SYMBOL_DATA ? "own data" : number;
    }
    return error_reloc(plan->error, status, index, "relocation %zu (%s, %.60s) at %s+%#x: %s",
                       index, info != NULL ? info->name : type, name,
                       reloc->section == PP_IN_DATA ? "data" : "code", reloc->offset, why);
}

/* ---- distinct symbols -------------------------------------------------- */

static uint32_t table_start(const struct plan *plan, pp_symbol symbol)
{
    return (uint32_t) ((symbol * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (plan->table_size - 1);
}

/* The symbol's place in the table: 0 there if it was not seen. */
static uint32_t *table_find(const struct plan *plan, pp_symbol symbol)
{
    uint32_t at = table_start(plan, symbol);

    while (plan->table[at] != 0 && plan->symbols[plan->table[at] - 1].symbol != symbol)
        at = (at + 1) & (plan->table_size - 1);
    return &plan->table[at];
}

static size_t table_bytes(const struct plan *plan)
{
    return plan->table_size * sizeof *plan->table;
}

static size_t reloc_bytes(const struct plan *plan)
{
    return plan->desc->reloc_count * sizeof *plan->relocs;
}

static void release_symbols(struct plan *plan)
{
    if (plan->symbols != plan->inline_symbols)
        pool_meta_free(plan->pool, plan->symbols, plan->room * sizeof *plan->symbols);
    if (plan->table != plan->inline_table)
        pool_meta_free(plan->pool, plan->table, table_bytes(plan));
}

/* Twice the room.  In total this costs time and memory proportional to the distinct symbols. */
static pp_status grow(struct plan *plan)
{
    uint32_t room = plan->room * 2;
    struct plan_symbol *symbols = pool_meta_alloc(plan->pool, room * sizeof *symbols);
    uint32_t *table = pool_meta_alloc(plan->pool, 2 * room * sizeof *table);

    if (symbols == NULL || table == NULL) {
        if (symbols != NULL)
            pool_meta_free(plan->pool, symbols, room * sizeof *symbols);
        if (table != NULL)
            pool_meta_free(plan->pool, table, 2 * room * sizeof *table);
        return error_set(plan->error, PP_E_NOMEM, "no memory for the symbols of a trace");
    }
    memcpy(symbols, plan->symbols, plan->count * sizeof *symbols);
    release_symbols(plan);
    plan->symbols = symbols;
    plan->room = room;
    plan->table = table;
    plan->table_size = 2 * room;
    for (uint32_t i = 0; i < plan->count; i++)
        *table_find(plan, symbols[i].symbol) = i + 1;
    return PP_OK;
}

/* ---- validation -------------------------------------------------------- */

static bool is_own(pp_symbol symbol)
{
    return symbol == PP_SYMBOL_CODE || symbol == PP_SYMBOL_DATA;
}

static size_t section_size(const struct plan *plan, uint16_t section)
{
    if (section == PP_IN_CODE)
        return plan->code_size;
    return plan->in_place ? 0 : plan->desc->data_size;
}

static pp_status validate_place(const struct plan *plan, size_t index,
                                const struct reloc_info *info)
{
    const pp_reloc *reloc = &plan->desc->relocs[index];

    if (reloc->section != PP_IN_CODE && reloc->section != PP_IN_DATA)
        return refuse(plan, index, PP_E_ARG, "no such section");
    if (reloc->reserved != 0)
        return refuse(plan, index, PP_E_ARG, "reserved field is not 0");
    if (info->instruction && reloc->section == PP_IN_DATA)
        return refuse(plan, index, PP_E_ARG, "patches an instruction, but is in data");
    size_t size = section_size(plan, reloc->section);
    if (size < info->size || reloc->offset > size - info->size)
        return refuse(plan, index, PP_E_ARG, "field reaches beyond its section");
    if (reloc->offset < info->before)
        return refuse(plan, index, PP_E_ARG, "instruction begins before its section");
    if ((reloc->offset & (info->align - 1u)) != 0)
        return refuse(plan, index, PP_E_ARG, "misaligned offset");
    return PP_OK;
}

/* What is the same for every reference to the symbol. */
static pp_status find_symbol(const struct plan *plan, size_t index, struct plan_symbol *found)
{
    pp_symbol number = plan->desc->relocs[index].symbol;

    *found = (struct plan_symbol) { .symbol = number, .own_bytes = is_own(number) };
    if (number == PP_SYMBOL_DATA && (plan->desc->data_size == 0 || plan->in_place))
        return refuse(plan, index, PP_E_ARG, "the trace has no data");
    if (found->own_bytes)
        return PP_OK;
    const struct symbol *symbol = symbol_find(&plan->link->symbols, number);
    if (symbol == NULL)
        return refuse(plan, index, PP_E_ARG, "no such symbol in the pool");
    found->address = symbol_address(symbol);
    found->moves = symbol->retarget != NULL;
    return found->address != 0
               ? PP_OK : refuse(plan, index, PP_E_ARG, "the symbol has no address in this build");
}

static pp_status see(struct plan *plan, size_t index, struct plan_symbol **seen)
{
    uint32_t *entry = table_find(plan, plan->desc->relocs[index].symbol);

    if (*entry == 0) {
        struct plan_symbol found;
        pp_status status = find_symbol(plan, index, &found);
        if (status == PP_OK && plan->count == plan->room) {
            status = grow(plan);
            entry = table_find(plan, found.symbol);
        }
        if (status != PP_OK)
            return status;
        plan->symbols[plan->count] = found;
        *entry = ++plan->count;
    }
    plan->relocs[index].symbol = *entry;
    *seen = &plan->symbols[*entry - 1];
    return PP_OK;
}

static pp_status add_branch(struct plan *plan, size_t index, struct plan_symbol *symbol)
{
    if (!isa_is_aligned(isa, symbol->address))
        return refuse(plan, index, PP_E_ARG, "misaligned branch target");
    /* Own code is always in direct reach, or in none: it never has a trampoline. */
    if (plan->desc->relocs[index].addend == isa->branch_addend)
        symbol->branch |= !symbol->own_bytes;
    else if (symbol->moves)
        return refuse(plan, index, PP_E_ARG, "the symbol may be retargeted, and a trampoline "
                      "leads to no other byte of it");
    return PP_OK;
}

static pp_status add_reloc(struct plan *plan, size_t index)
{
    const pp_reloc *reloc = &plan->desc->relocs[index];
    const struct reloc_info *info = isa->reloc_info(reloc->type);
    struct plan_symbol *symbol;

    if (info == NULL)
        return refuse(plan, index, PP_E_ARG, "unknown type");
    plan->relocs[index] = (struct plan_reloc) { .info = info };
    pp_status status = validate_place(plan, index, info);
    if (status != PP_OK)
        return status;
    if (reloc->symbol == PP_SYMBOL_NONE)
        return info->kind == RELOC_VALUE ? PP_OK
                                         : refuse(plan, index, PP_E_ARG, "needs a symbol");
    status = see(plan, index, &symbol);
    if (status != PP_OK)
        return status;
    switch (info->kind) {
    case RELOC_BRANCH:
        return add_branch(plan, index, symbol);
    case RELOC_GOT:
        if (isa->reloc_can_relax(reloc->type, plan->code + reloc->offset, reloc->addend))
            symbol->load = true;
        else
            symbol->load_fixed = true;
        return PP_OK;
    default:
        return symbol->moves ? refuse(plan, index, PP_E_ARG, "the symbol may be retargeted, its "
                                      "address cannot be part of a trace") : PP_OK;
    }
}

static pp_status open_relocs(struct plan *plan)
{
    size_t count = plan->desc->reloc_count;

    plan->relocs = plan->inline_relocs;
    if (count > PLAN_INLINE_RELOCS)
        plan->relocs = count <= SIZE_MAX / sizeof *plan->relocs
                           ? pool_meta_alloc(plan->pool, reloc_bytes(plan)) : NULL;
    return plan->relocs != NULL ? PP_OK : error_set(plan->error, PP_E_NOMEM,
                                                    "no memory for %zu relocations", count);
}

pp_status plan_open(struct plan *plan, pp_pool *pool, struct link *link,
                    const pp_trace_desc *desc, const uint8_t *code, size_t code_size,
                    bool in_place)
{
    plan->pool = pool;
    plan->link = link;
    plan->desc = desc;
    plan->code = code;
    plan->code_size = code_size;
    plan->data_align = desc->data_align != 0 ? desc->data_align : 8;
    plan->error = desc->error;
    plan->own = plan->wants_own = (desc->flags & PP_TRACE_OWN_TRAMPOLINES) != 0;
    plan->careful = false;
    plan->in_place = in_place;
    plan->symbols = plan->inline_symbols;
    plan->table = plan->inline_table;
    plan->count = 0;
    plan->room = PLAN_INLINE;
    plan->table_size = 2 * PLAN_INLINE;
    plan->region = NULL;
    memset(plan->inline_table, 0, sizeof plan->inline_table);
    pp_status status = open_relocs(plan);
    if (status != PP_OK)
        return status;
    for (size_t i = 0; i < desc->reloc_count && status == PP_OK; i++)
        status = add_reloc(plan, i);
    if (status != PP_OK)
        plan_close(plan);
    return status;
}

void plan_close(struct plan *plan)
{
    if (plan->relocs != plan->inline_relocs)
        pool_meta_free(plan->pool, plan->relocs, reloc_bytes(plan));
    release_symbols(plan);
}

/* ---- counting ---------------------------------------------------------- */

static void decide(const struct plan *plan, struct plan_symbol *symbol, bool share)
{
    const struct island *island = island_of(plan->region);
    bool own_bytes = symbol->own_bytes;

    symbol->trampoline = symbol->branch &&
                         (symbol->moves || !reach_holds(island->branch, symbol->address));
    symbol->literal = symbol->load_fixed ||
                      (symbol->load && !own_bytes &&
                       (symbol->moves || !reach_holds(island->got, symbol->address)));
    /* An island out of reach of some branch leaves its literals within that of every load. */
    symbol->shared = share && !own_bytes && (!symbol->trampoline || island->reachable);
    symbol->shared_literal = symbol->shared || symbol->moves;
}

static bool is_used(const struct plan_symbol *symbol)
{
    return symbol->trampoline || symbol->literal;
}

static enum trampoline_shape own_shape(const struct plan *plan, const struct plan_symbol *symbol)
{
    return symbol->shared_literal ? plan->far_shape : plan->shape;
}

static size_t align_up(size_t value, size_t align)
{
    return (value + align - 1) & ~(align - 1);
}

/* Own trampolines lie in front of their literals: the farthest pair is the whole of both apart. */
static enum trampoline_shape choose_shape(const struct plan *plan, bool pads)
{
    size_t each = isa->trampoline_size(TRAMPOLINE_NEAR, pads) + sizeof(uint64_t);
    uint64_t bytes = (uint64_t) plan->count * each + 2 * sizeof(uint64_t);

    return bytes < isa->literal_range ? TRAMPOLINE_NEAR : TRAMPOLINE_ISLAND;
}

/* From anywhere in the region's code. */
static enum trampoline_shape choose_far_shape(const struct region *region)
{
    return region->literal_hi - region->code_lo < isa->literal_range ? TRAMPOLINE_NEAR
                                                                      : TRAMPOLINE_ISLAND;
}

pp_status plan_place(struct plan *plan, const struct region *region)
{
    bool pads = pool_landing_pads(plan->pool);
    pp_trace_size *bytes = &plan->bytes;

    plan->region = region;
    plan->shape = choose_shape(plan, pads);
    plan->far_shape = choose_far_shape(region);
    plan->shared_count = plan->far_trampolines = 0;
    *bytes = (pp_trace_size) { .size = sizeof *bytes, .code = plan->code_size,
                               .data = plan->in_place ? 0 : plan->desc->data_size };
    for (uint32_t i = 0; i < plan->count; i++) {
        struct plan_symbol *symbol = &plan->symbols[i];
        decide(plan, symbol, !plan->own);
        if (!is_used(symbol))
            continue;
        plan->shared_count += symbol->shared_literal;
        bytes->literals += !symbol->shared_literal;
        if (symbol->trampoline && !symbol->shared) {
            bytes->trampolines++;
            bytes->trampoline_bytes += isa->trampoline_size(own_shape(plan, symbol), pads);
            plan->far_trampolines += symbol->shared_literal;
        }
    }
    bytes->literal_bytes = bytes->literals * sizeof(uint64_t);
    if (plan->in_place && (bytes->literals != 0 || bytes->trampolines != 0))
        return error_set(plan->error, PP_E_RANGE, "the symbols need %u trampolines and %u literals, "
                         "for which a reservation has no room", bytes->trampolines,
                         bytes->literals);

    size_t at = plan->code_size;
    if (bytes->trampolines != 0)
        at = align_up(at, isa->code_align);
    plan->trampolines_at = at;
    at += bytes->trampoline_bytes;
    if (bytes->literals != 0)
        at = align_up(at, sizeof(uint64_t));
    plan->literals_at = at;
    at += bytes->literal_bytes;
    if (bytes->data != 0)
        at = align_up(at, plan->data_align);
    plan->data_at = at;
    bytes->total = at + bytes->data;
    bytes->padding = bytes->total - bytes->code - bytes->trampoline_bytes - bytes->literal_bytes -
                     bytes->data;
    return PP_OK;
}

/* ---- places ----------------------------------------------------------- */

void plan_needs(const struct plan *plan, struct island_need *needs)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < plan->count; i++) {
        const struct plan_symbol *symbol = &plan->symbols[i];
        if (!symbol->shared_literal || !is_used(symbol))
            continue;
        bool shared = symbol->trampoline && symbol->shared;
        bool own = symbol->trampoline && !symbol->shared;
        needs[count++] = (struct island_need) {
            .symbol = symbol->symbol, .address = symbol->address,
            .uses = (shared ? ISLAND_TRAMPOLINE : 0u) |
                    (symbol->literal || own ? ISLAND_LITERAL : 0u)
        };
    }
}

void plan_locate(struct plan *plan, uintptr_t exec, const struct island_need *needs)
{
    bool pads = pool_landing_pads(plan->pool);
    uintptr_t trampoline = exec + plan->trampolines_at, literal = exec + plan->literals_at;

    for (uint32_t i = 0; i < plan->count; i++) {
        struct plan_symbol *symbol = &plan->symbols[i];
        if (symbol->own_bytes)
            symbol->address = exec + (symbol->symbol == PP_SYMBOL_DATA ? plan->data_at : 0);
        if (!is_used(symbol))
            continue;
        if (symbol->shared_literal) {
            symbol->trampoline_place = island_trampoline(plan->region, needs->slot);
            symbol->literal_place = island_literal(plan->region, needs->slot);
            needs++;
        } else {
            symbol->literal_place = literal;
            literal += sizeof(uint64_t);
        }
        if (symbol->trampoline && !symbol->shared) {
            symbol->trampoline_place = trampoline;
            trampoline += isa->trampoline_size(own_shape(plan, symbol), pads);
        }
    }
}

pp_status plan_write_own(const struct plan *plan, uint8_t *write, uintptr_t exec)
{
    bool pads = pool_landing_pads(plan->pool);

    for (uint32_t i = 0; i < plan->count; i++) {
        const struct plan_symbol *symbol = &plan->symbols[i];
        if (is_used(symbol) && !symbol->shared_literal) {
            uint64_t value = symbol->address;
            memcpy(write + (symbol->literal_place - exec), &value, sizeof value);
        }
        if (symbol->trampoline && !symbol->shared &&
            isa->trampoline_encode(own_shape(plan, symbol), pads,
                                   write + (symbol->trampoline_place - exec),
                                   symbol->trampoline_place, symbol->literal_place) == 0)
            return error_set(plan->error, PP_E_RANGE,
                             "a trampoline of the trace does not reach its literal");
    }
    return PP_OK;
}

/* ---- relocation -------------------------------------------------------- */

static pp_status to_status(const struct plan *plan, size_t index, enum reloc_result result)
{
    switch (result) {
    case RELOC_OK: return PP_OK;
    case RELOC_OUT_OF_RANGE: return refuse(plan, index, PP_E_RANGE, "the value does not fit");
    case RELOC_MISALIGNED: return refuse(plan, index, PP_E_ARG, "misaligned value");
    case RELOC_BAD_INSTRUCTION: return refuse(plan, index, PP_E_ARG, "not an instruction for it");
    case RELOC_BAD_ADDEND: return refuse(plan, index, PP_E_ARG, "addend has no meaning here");
    }
    return refuse(plan, index, PP_E_ARG, "unknown result");
}

/* With a fake branch range fields behave as if what is beyond it were really far. */
static bool is_beyond_fake_range(const struct plan *plan, const pp_reloc *reloc,
                                 const struct reloc_info *info, uintptr_t value, uintptr_t place)
{
    uint64_t range = pool_branch_range(plan->pool);

    if (!info->relative || info->size == 8 || range >= isa->branch_range)
        return false;
    uint64_t sum = value + (uint64_t) reloc->addend;
    return (sum > place ? sum - place : place - sum) >= range;
}

/* `symbol` is NULL for none, whose value is 0. */
static pp_status relocate_value(const struct plan *plan, size_t index,
                                const struct plan_symbol *symbol, uint8_t *bytes, uintptr_t place)
{
    const pp_reloc *reloc = &plan->desc->relocs[index];
    uintptr_t value = symbol != NULL ? symbol->address : 0;

    if ((symbol == NULL || !symbol->own_bytes) &&
        is_beyond_fake_range(plan, reloc, plan->relocs[index].info, value, place))
        return refuse(plan, index, PP_E_RANGE, "the symbol is far");
    return to_status(plan, index,
                     isa->reloc_apply(reloc->type, bytes, place, value, reloc->addend));
}

static pp_status relocate_branch(const struct plan *plan, size_t index,
                                 const struct plan_symbol *symbol, uint8_t *bytes, uintptr_t place)
{
    const pp_reloc *reloc = &plan->desc->relocs[index];
    uintptr_t value = symbol->address;

    if (symbol->trampoline && reloc->addend == isa->branch_addend)
        value = symbol->trampoline_place;
    else if (!symbol->own_bytes && !reach_holds(island_of(plan->region)->branch, value))
        return refuse(plan, index, PP_E_RANGE,
                      "the symbol is far, and a trampoline leads to no other byte of it");
    return to_status(plan, index,
                     isa->reloc_apply(reloc->type, bytes, place, value, reloc->addend));
}

static pp_status relocate_load(const struct plan *plan, size_t index,
                               const struct plan_symbol *symbol, uint8_t *bytes, uintptr_t place)
{
    const pp_reloc *reloc = &plan->desc->relocs[index];
    enum reloc_result result = RELOC_BAD_INSTRUCTION;

    if (symbol->own_bytes ||
        (!symbol->moves && reach_holds(island_of(plan->region)->got, symbol->address)))
        result = isa->reloc_relax(reloc->type, bytes, place, symbol->address, reloc->addend);
    if (result == RELOC_BAD_INSTRUCTION) {
        if (!symbol->literal)
            return refuse(plan, index, PP_E_ARG, "another relocation overlaps it");
        result = isa->reloc_apply(reloc->type, bytes, place, symbol->literal_place, reloc->addend);
    }
    return to_status(plan, index, result);
}

pp_status plan_relocate(const struct plan *plan, uint8_t *write, uintptr_t exec)
{
    pp_status status = PP_OK;

    for (size_t i = 0; i < plan->desc->reloc_count && status == PP_OK; i++) {
        const pp_reloc *reloc = &plan->desc->relocs[i];
        const struct plan_reloc *seen = &plan->relocs[i];
        const struct plan_symbol *symbol =
            seen->symbol != 0 ? &plan->symbols[seen->symbol - 1] : NULL;
        size_t at = reloc->offset + (reloc->section == PP_IN_DATA ? plan->data_at : 0);

        switch (seen->info->kind) {
        case RELOC_VALUE:
            status = relocate_value(plan, i, symbol, write + at, exec + at);
            break;
        case RELOC_BRANCH:
            status = relocate_branch(plan, i, symbol, write + at, exec + at);
            break;
        case RELOC_GOT:
            status = relocate_load(plan, i, symbol, write + at, exec + at);
            break;
        case RELOC_UNKNOWN:
            break;
        }
    }
    return status;
}
