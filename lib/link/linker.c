/* SPDX-License-Identifier: MIT */
/*
 * Linking: a description is validated and counted, gets a place, a record and its
 * references, is written and relocated there, made executable, and published; one
 * by itself, or many together.  Until it is published nobody knows of it, and it
 * can be undone at every step.
 */
#include <config.h>

#include "link/linker.h"

#include "error.h"
#include "link/trace.h"
#include "memory/fallback.h"

#include <string.h>

enum { NEEDS_INLINE = 32 };

#define SIZE_LIMIT ((size_t) 1 << 30) /* of code, of data: no region is larger */

/* ---- before a place is looked for --------------------------------------- */

static bool is_power_of_two(size_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static pp_status validate(const pp_trace_desc *desc)
{
    pp_error *error = desc->error;

    if (desc->code == NULL || desc->code_size == 0)
        return error_set(error, PP_E_ARG, "a trace has at least one byte of code");
    if (desc->data_size != 0 && desc->data == NULL)
        return error_set(error, PP_E_ARG, "data is null, but data_size is not 0");
    if (desc->code_size > SIZE_LIMIT || desc->data_size > SIZE_LIMIT)
        return error_set(error, PP_E_NOMEM, "a trace of %zu + %zu bytes fits no region",
                         desc->code_size, desc->data_size);
    if (desc->align != 0 && (!is_power_of_two(desc->align) || desc->align < 16 ||
                             desc->align > 65536))
        return error_set(error, PP_E_ARG, "align is not a power of two from 16 to 65536");
    if (desc->data_align != 0 && (!is_power_of_two(desc->data_align) || desc->data_align > 4096))
        return error_set(error, PP_E_ARG, "data_align is not a power of two up to 4096");
    if (desc->reloc_count != 0 && desc->relocs == NULL)
        return error_set(error, PP_E_ARG, "relocs is null, but reloc_count is not 0");
    if (desc->entry >= desc->code_size || !isa_is_aligned(&isa_host, desc->entry))
        return error_set(error, PP_E_ARG, "the entry is not an instruction of the code");
    if ((desc->flags & ~(uint32_t) PP_TRACE_OWN_TRAMPOLINES) != 0)
        return error_set(error, PP_E_ARG, "unknown flags");
    return PP_OK;
}

/* Code that makes a frame record where its rule has none.  Only what is certain: at the entry. */
static pp_status check_rule(const pp_trace_desc *desc, const struct frame_rule *rule)
{
    uint64_t distance;
    const struct frame_code code = { (const uint8_t *) desc->code + desc->entry, desc->entry,
                                     desc->code_size - desc->entry, rule->cfa_offset };
    if (rule->kind != PP_FRAME_RECORD || !frame_made_at_entry(isa_host.frame, &code, &distance)
        || distance == rule->cfa_offset)
        return PP_OK;
    return error_set(desc->error, PP_E_ARG, "frame.cfa_offset: %u, but the code's frame record is "
                     "%u bytes below the caller's SP", (unsigned) rule->cfa_offset,
                     (unsigned) distance);
}

/* All that linking and measuring have in common before a place is looked for. */
static pp_status prepare(pp_pool *pool, const pp_trace_desc *desc, struct plan *plan,
                         const struct frame_rule **rule, struct link **link)
{
    struct frame_rule asked;
    const struct pool_rule *found;
    pp_status status = validate(desc);

    if (status == PP_OK)
        status = frame_rule_from(desc->frame, &asked, desc->error);
    if (status == PP_OK)
        status = check_rule(desc, &asked);
    if (status == PP_OK)
        status = pool_find_rule(pool, &asked, &found, desc->error);
    if (status != PP_OK)
        return status;
    *rule = &found->rule;
    *link = link_of(pool);
    if (*link == NULL)
        return error_set(desc->error, PP_E_NOMEM, "no memory for the pool's symbols");
    return plan_open(plan, pool, *link, desc, desc->code, desc->code_size, false);
}

/* ---- a place ------------------------------------------------------------ */

static size_t span_align(const pp_trace_desc *desc)
{
    size_t align = desc->align != 0 ? desc->align : 16;

    return desc->data_size != 0 && desc->data_align > align ? desc->data_align : align;
}

static struct island_need *needs_alloc(const struct plan *plan, struct island_need *few)
{
    if (plan->shared_count <= NEEDS_INLINE)
        return few;
    return pool_meta_alloc(plan->pool, plan->shared_count * sizeof *few);
}

static void needs_free(const struct plan *plan, struct island_need *needs, struct island_need *few)
{
    if (needs != few)
        pool_meta_free(plan->pool, needs, plan->shared_count * sizeof *needs);
}

/* What the island would have to make, and whether it can. */
static pp_status count_shared(struct plan *plan, struct region *region, bool *fits)
{
    struct island_need few[NEEDS_INLINE], *needs = needs_alloc(plan, few);

    if (needs == NULL)
        return error_set(plan->error, PP_E_NOMEM, "no memory for the symbols of a trace");
    plan_needs(plan, needs);
    plan->bytes.shared_new = island_count_new(region, needs, plan->shared_count, fits);
    needs_free(plan, needs, few);
    return PP_OK;
}

/*
 * What the trace takes in this region.  If it is known that an island is full: with
 * trampolines of its own the trace does not depend on it, unless it has symbols
 * that move; then it belongs in another region.
 */
static pp_status plan_in(struct plan *plan, struct region *region)
{
    bool fits = true;

    plan->own = plan->wants_own;
    pp_status status = plan_place(plan, region);
    if (status != PP_OK || plan->shared_count == 0 || !(plan->careful || plan->own))
        return status;
    status = count_shared(plan, region, &fits);
    if (status == PP_OK && !fits && !plan->own) {
        plan->own = true;
        status = plan_place(plan, region);
        if (status == PP_OK)
            status = count_shared(plan, region, &fits);
    }
    return status == PP_OK && !fits ? REGION_FULL : status;
}

static pp_status measure_span(struct region *region, void *context, size_t *size)
{
    struct plan *plan = context;
    pp_status status = plan_in(plan, region);

    *size = plan->bytes.total;
    return status;
}

pp_status linker_take_shared(struct link *link, struct plan *plan, const struct span *span,
                             struct trace *trace)
{
    struct island_need few[NEEDS_INLINE], *needs = needs_alloc(plan, few);
    pp_status status = PP_OK;

    if (needs == NULL)
        return error_set(plan->error, PP_E_NOMEM, "no memory for the symbols of a trace");
    plan_needs(plan, needs);
    /* A child forked after the next step has to know where the references are. */
    trace->span = *span;
    if (!trace_reserve_refs(plan->pool, trace, plan->shared_count))
        status = error_set(plan->error, PP_E_NOMEM, "no memory for references to an island");
    else if (plan->shared_count != 0)
        status = island_take(span->region, link, needs, plan->shared_count, trace->user,
                             &plan->bytes.shared_new, plan->error);
    if (status == PP_OK)
        plan_locate(plan, span->exec, needs);
    needs_free(plan, needs, few);
    return status;
}

/* A span with all that the plan shares; on failure nothing is left of it. */
static pp_status take_place(struct link *link, struct plan *plan, const struct frame_rule *rule,
                            struct trace *trace, struct span *span)
{
    pp_status status;

    for (;;) {
        status = pool_alloc(plan->pool, rule, span_align(plan->desc), measure_span, plan, span,
                            plan->error);
        if (status != PP_OK)
            return status;
        status = linker_take_shared(link, plan, span, trace);
        if (status == PP_OK)
            break;
        pool_unalloc(span);
        if (status != PP_E_RANGE)
            return status;
        /* The island is full, or became so: look closer. */
        plan->careful = true;
    }
    if (plan->own && !plan->wants_own)
        pool_note_fallback(plan->pool, PP_FALLBACK_ISLAND,
                           "the island of the region at %#zx is full",
                           (size_t) span->region->base);
    return PP_OK;
}

/* ---- writing ------------------------------------------------------------ */

/* Everything but the end of the write. */
static pp_status fill(const struct plan *plan, const struct span *span, uint8_t *write)
{
    const pp_trace_desc *desc = plan->desc;

    memcpy(write, desc->code, desc->code_size);
    /* Padding; trampolines and literals come over it. */
    memset(write + desc->code_size, 0, plan->data_at - desc->code_size);
    if (desc->data_size != 0)
        memcpy(write + plan->data_at, desc->data, desc->data_size);
    pp_status status = plan_write_own(plan, write, span->exec);
    return status == PP_OK ? plan_relocate(plan, write, span->exec) : status;
}

/* Nothing is left of a trace that was made and not published. */
static void unmake(struct link *link, pp_pool *pool, struct trace *trace)
{
    island_drop(trace->span.region, link, trace->user);
    pool_discard(&trace->span);
    shelves_give(pool, trace, false);
}

static pp_status make_in(struct link *link, struct plan *plan, const struct frame_rule *rule,
                         struct trace *trace)
{
    struct span span;
    uint8_t *write;
    pp_status status = take_place(link, plan, rule, trace, &span);

    if (status != PP_OK) {
        shelves_give(plan->pool, trace, false);
        return status;
    }
    status = region_write_begin(span.region, span.exec, span.size, &write, plan->error);
    if (status != PP_OK) {
        island_drop(span.region, link, trace->user);
        pool_unalloc(&span);
        shelves_give(plan->pool, trace, false);
        return status;
    }
    trace_describe(trace, &span, plan, rule);
    status = fill(plan, &span, write);
    if (status != PP_OK)
        unmake(link, plan->pool, trace);
    return status;
}

/* A trace that is complete, but writable and known to nobody. */
static pp_status make(pp_pool *pool, const pp_trace_desc *desc, struct link **link,
                      struct trace **trace)
{
    const struct frame_rule *rule;
    struct plan plan;
    pp_status status = prepare(pool, desc, &plan, &rule, link);

    if (status != PP_OK)
        return status;
    *trace = shelves_take(&(*link)->shelves, pool, desc->name);
    status = *trace != NULL ? make_in(*link, &plan, rule, *trace)
                            : error_set(desc->error, PP_E_NOMEM,
                                        "no memory for the record of a trace");
    plan_close(&plan);
    return status;
}

/* ---- public ------------------------------------------------------------- */

/*
 * Looking for a place finds the region in which a link would end; instead of the
 * trace a single byte is placed there, and given back.
 */
static pp_status measure_byte(struct region *region, void *context, size_t *size)
{
    struct plan *plan = context;
    pp_status status = plan_in(plan, region);

    /* What does not fit is asked for in full, so that the search goes on to the next region. */
    bool fits = plan->bytes.total <= atomic_load_explicit(&region->room, memory_order_relaxed);
    *size = fits ? 1 : plan->bytes.total;
    return status;
}

pp_status pp_trace_measure(pp_pool *pool, const pp_trace_desc *desc, pp_trace_size *size)
{
    const struct frame_rule *rule;
    struct link *link;
    struct plan plan;
    struct span span;

    if (pool == NULL || desc == NULL || desc->size < sizeof *desc || size == NULL ||
        size->size < sizeof *size)
        return PP_E_ARG;
    pp_status status = prepare(pool, desc, &plan, &rule, &link);
    if (status != PP_OK)
        return status;
    plan.careful = true;
    status = pool_alloc(pool, rule, 16, measure_byte, &plan, &span, desc->error);
    if (status == PP_OK)
        pool_unalloc(&span);
    if (status == PP_OK) {
        size_t known = size->size;
        *size = plan.bytes;
        size->size = known;
    }
    plan_close(&plan);
    return status;
}

static bool is_desc(const pp_trace_desc *desc)
{
    return desc != NULL && desc->size >= sizeof *desc;
}

pp_status pp_trace_link(pp_pool *pool, const pp_trace_desc *desc, pp_trace **result)
{
    struct link *link;
    struct trace *trace;

    if (pool == NULL || !is_desc(desc) || result == NULL)
        return PP_E_ARG;
    pp_status status = make(pool, desc, &link, &trace);
    if (status != PP_OK)
        return status;
    status = region_publish(&trace->span, 1, desc->error);
    if (status == PP_OK)
        trace_publish(&trace, 1, result);
    else
        unmake(link, pool, trace);
    return status;
}

/* Those of one batch. */
struct batch {
    struct trace **traces;
    struct span *spans;
    size_t made;
};

static pp_status make_all(pp_pool *pool, const pp_trace_desc *const *descs, size_t count,
                          struct link **link, struct batch *batch)
{
    for (; batch->made < count; batch->made++) {
        struct trace **trace = &batch->traces[batch->made];
        pp_status status = make(pool, descs[batch->made], link, trace);
        if (status != PP_OK)
            return status;
        batch->spans[batch->made] = (*trace)->span;
    }
    return region_publish(batch->spans, count, descs[0]->error);
}

static pp_status link_all(pp_pool *pool, const pp_trace_desc *const *descs, size_t count,
                          pp_trace **results)
{
    struct batch batch = { pool_meta_alloc(pool, count * sizeof *batch.traces),
                           pool_meta_alloc(pool, count * sizeof *batch.spans), 0 };
    struct link *link = NULL;
    pp_status status;

    if (batch.traces == NULL || batch.spans == NULL)
        status = error_set(descs[0]->error, PP_E_NOMEM, "no memory for a batch of traces");
    else
        status = make_all(pool, descs, count, &link, &batch);
    if (status == PP_OK)
        trace_publish(batch.traces, count, results);
    else
        while (batch.made-- > 0)
            unmake(link, pool, batch.traces[batch.made]);
    pool_meta_free(pool, batch.traces, count * sizeof *batch.traces);
    pool_meta_free(pool, batch.spans, count * sizeof *batch.spans);
    return status;
}

pp_status pp_trace_link_batch(pp_pool *pool, const pp_trace_desc *const *descs, size_t count,
                              pp_trace **results)
{
    if (pool == NULL || (count != 0 && (descs == NULL || results == NULL)) ||
        count > SIZE_LIMIT / sizeof(struct span))
        return PP_E_ARG;
    for (size_t i = 0; i < count; i++)
        if (!is_desc(descs[i]))
            return PP_E_ARG;
    for (size_t i = 0; i < count; i++) {
        const struct frame_rule *rule;
        struct link *link;
        struct plan plan;
        pp_status status = prepare(pool, descs[i], &plan, &rule, &link);
        if (status != PP_OK)
            return status;
        plan_close(&plan);
    }
    return count != 0 ? link_all(pool, descs, count, results) : PP_OK;
}
