/* SPDX-License-Identifier: MIT */
/*
 * Registration of regions, for pools that ask for it.  What is registered never changes
 * while the region lives, and is a handful of rows for the whole region.
 *
 * libunwind's readers take no lock, and _U_dyn_cancel clears the `next` of the
 * node that a reader may stand on: its walk is then cut short, or faults once
 * the node is freed.  So a node is never cancelled and never freed.  A region
 * that closes leaves its node in the list with an empty range, and the next
 * region to open takes it over; there are as many nodes as there ever were
 * regions at a time.
 */
#include <config.h>

#include "walk/unwind.h"

#include "error.h"
#include "isa/isa.h"
#include "memory/state.h"
#include "os/map.h"
#include "walk/eh_frame.h"
#include "walk/libgcc.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <dlfcn.h>
#include <stdatomic.h>

#define TEXT_OF(macro) #macro
#define NAME_OF(macro) TEXT_OF(macro) /* of the function that a macro of libunwind stands for */

/* Code below the islands, the islands, code above them. */
#define PARTS_MAX 3

#define NODES 24 /* that are mapped together: 64 KiB */

/* A row of libunwind's binary search table, sorted by `ip`. */
struct table_row {
    int32_t ip;         /* from the start of the code */
    int32_t fde;        /* from the start of eh_frame */
};

/* A registration.  Its owner, who set `taken`, writes the fields. */
struct unwind_node {
    struct unwind_node *next;   /* written once, before the node is published in `nodes` */
    atomic_bool taken;
    bool in_libunwind;          /* `info` is in libunwind's list, for good */
    bool in_libgcc;             /* eh_frame is registered with `object` */
    unw_dyn_info_t info;
    struct table_row table[PARTS_MAX];
    struct libgcc_object object;
    _Alignas(8) uint8_t eh_frame[EH_FRAME_CAPACITY(PARTS_MAX)];
};

/* All nodes.  Only grows; no lock, so that a fork cannot leave one behind held. */
static _Atomic(struct unwind_node *) nodes;

/* ---- the other unwinders ---------------------------------------------- */

#pragma weak _U_dyn_register
#pragma weak _U_dyn_info_list_addr
extern unw_word_t _U_dyn_info_list_addr(void);
extern __typeof__(unw_flush_cache) unw_flush_cache __attribute__((weak));
extern unw_addr_space_t unw_local_addr_space __attribute__((weak));

typedef void register_fn(unw_dyn_info_t *info);
typedef unw_word_t list_fn(void);
typedef void flush_fn(unw_addr_space_t space, unw_word_t lo, unw_word_t hi);

/* Threads that look at the same time find the same, and may all write it. */
static struct {
    _Atomic(register_fn *) dyn_register;
    _Atomic(list_fn *) dyn_list;
    _Atomic(flush_fn *) flush_cache;
    _Atomic(unw_addr_space_t *) space; /* the variable that has it */
} libunwind;

/*
 * Linked with the program, or loaded by somebody: it is never loaded here.  The handle is
 * kept, because nothing that holds one of our nodes may be unloaded.
 */
static bool find_libunwind(void)
{
    register_fn *dyn_register = _U_dyn_register;
    list_fn *dyn_list = _U_dyn_info_list_addr;
    flush_fn *flush_cache = unw_flush_cache;
    unw_addr_space_t *space = &unw_local_addr_space;
    if (dyn_register == NULL || dyn_list == NULL || flush_cache == NULL || space == NULL) {
        void *library = RTLD_DEFAULT; /* a null pointer, in glibc */
        if (dlsym(library, "_U_dyn_register") == NULL) {
            library = dlopen("libunwind.so.8", RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
            if (library == NULL)
                return false;
        }
        *(void **) &dyn_register = dlsym(library, "_U_dyn_register");
        *(void **) &dyn_list = dlsym(library, "_U_dyn_info_list_addr");
        *(void **) &flush_cache = dlsym(library, NAME_OF(unw_flush_cache));
        space = dlsym(library, NAME_OF(unw_local_addr_space));
    }
    if (dyn_register == NULL || dyn_list == NULL || flush_cache == NULL || space == NULL)
        return false;
    atomic_store(&libunwind.dyn_register, dyn_register);
    atomic_store(&libunwind.dyn_list, dyn_list);
    atomic_store(&libunwind.flush_cache, flush_cache);
    atomic_store(&libunwind.space, space);
    return true;
}

/* ---- nodes ------------------------------------------------------------ */

static void node_push(struct unwind_node *node)
{
    node->next = atomic_load_explicit(&nodes, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&nodes, &node->next, node,
                                                  memory_order_release, memory_order_relaxed))
        continue;
}

/*
 * One for the caller, and others.  They outlive every pool and so every arena; they are
 * mapped, for no heap to be in the host's way, and many together, because libunwind
 * walks over them.
 */
static struct unwind_node *nodes_add(void)
{
    struct unwind_node *block = map_memory(NODES * sizeof *block);
    for (unsigned i = 0; block != NULL && i < NODES; i++) {
        atomic_init(&block[i].taken, i == 0);
        node_push(&block[i]);
    }
    return block;
}

/* A node for the caller alone, its libunwind range empty; NULL: no memory. */
static struct unwind_node *node_take(void)
{
    for (struct unwind_node *node = atomic_load_explicit(&nodes, memory_order_acquire);
         node != NULL; node = node->next) {
        bool taken = false;
        /* Pairs with node_release: what the last owner wrote is seen. */
        if (atomic_compare_exchange_strong_explicit(&node->taken, &taken, true,
                                                    memory_order_acquire, memory_order_relaxed))
            return node;
    }
    return nodes_add();
}

static void node_release(struct unwind_node *node)
{
    atomic_store_explicit(&node->taken, false, memory_order_release);
}

/* The bytes and rows of a region; false if the rule cannot be said in DWARF. */
static bool node_describe(struct unwind_node *node, const struct region *region,
                          const struct frame_rule *rule)
{
    static const struct frame_rule leaf = { .kind = PP_FRAME_LEAF };
    const struct eh_frame_part candidates[PARTS_MAX] = {
        { region->code_lo, region->island_lo, rule },
        { region->island_lo, region->island_hi, &leaf },
        { region->island_hi, region->code_hi, rule },
    };
    struct eh_frame_part parts[PARTS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < PARTS_MAX; i++)
        if (candidates[i].start < candidates[i].end)
            parts[count++] = candidates[i];

    uint32_t fdes[PARTS_MAX];
    if (region->code_hi - region->code_lo > INT32_MAX
        || eh_frame_encode(isa_host.arch, parts, count, node->eh_frame, sizeof node->eh_frame,
                           fdes) == 0)
        return false;
    for (unsigned i = 0; i < count; i++) {
        node->table[i].ip = (int32_t) (parts[i].start - region->code_lo);
        node->table[i].fde = (int32_t) fdes[i];
    }
    /* IP_OFFSET: rows count from start_ip, and the FDEs from segbase, wherever that is. */
    node->info.format = UNW_INFO_FORMAT_IP_OFFSET;
    node->info.u.rti.segbase = (uintptr_t) node->eh_frame;
    node->info.u.rti.table_data = (uintptr_t) node->table;
    node->info.u.rti.table_len = count * sizeof(struct table_row) / sizeof(unw_word_t);
    return true;
}

/* ---- libunwind -------------------------------------------------------- */

/*
 * The range is what readers look at first, so it comes last: an empty one until
 * everything else is written, and `end_ip` after `start_ip`.
 */
static void libunwind_publish(struct unwind_node *node, const struct region *region)
{
    unw_dyn_info_t *info = &node->info;
    __atomic_store_n(&info->start_ip, region->code_lo, __ATOMIC_RELEASE);
    __atomic_store_n(&info->end_ip, region->code_hi, __ATOMIC_RELEASE);
    if (node->in_libunwind)
        return;
    /*
     * _U_dyn_register links without a barrier.  With `next` stored beforehand, a
     * reader that comes upon the node too early still finds the rest of the list.
     */
    info->next = ((unw_dyn_info_list_t *) libunwind.dyn_list())->first;
    atomic_thread_fence(memory_order_seq_cst);
    libunwind.dyn_register(info);
    node->in_libunwind = true;
}

/*
 * Nothing runs in the region any more.  What libunwind has cached of its callee-saved
 * registers goes; where the CFA is stays in the caches of threads (claim.h).
 */
static void libunwind_retract(struct unwind_node *node)
{
    if (node->info.end_ip == 0)
        return;
    __atomic_store_n(&node->info.end_ip, 0, __ATOMIC_RELEASE);
    libunwind.flush_cache(*libunwind.space, 0, 0);
}

/* ---- room ------------------------------------------------------------- */

/* Tell those that the pool asks for; on failure nobody knows of the region. */
static pp_status tell(struct unwind_node *node, const struct region *region, pp_error *error)
{
    uint32_t unwinders = pool_unwinders(region->pool);
    if (unwinders & PP_UNWIND_LIBGCC) {
        pp_status status = libgcc_register(node->eh_frame, sizeof node->eh_frame, &node->object,
                                           region->code_lo, error);
        if (status != PP_OK)
            return status;
        node->in_libgcc = true;
    }
    if (unwinders & PP_UNWIND_LIBUNWIND)
        libunwind_publish(node, region);
    return PP_OK;
}

static pp_status unwind_open_as(struct region *region, const struct frame_rule *rule,
                                pp_error *error)
{
    struct unwind_node *node = node_take();
    if (node == NULL)
        return error_set(error, PP_E_NOMEM, "no memory for the unwind information of a region");
    pp_status status = PP_OK;
    if (!node_describe(node, region, rule))
        status = error_set(error, PP_E_ARG,
                           "frame rule: a save slot is not a multiple of 8 bytes from the CFA");
    if (status == PP_OK)
        status = tell(node, region, error);
    if (status != PP_OK) {
        node_release(node);
        return status;
    }
    region->unwind = node;
    return PP_OK;
}

static pp_status unwind_open(struct region *region, pp_error *error)
{
    return region->told == NULL ? PP_OK : unwind_open_as(region, region->told, error);
}

static void unwind_close(struct region *region)
{
    struct unwind_node *node = region->unwind;
    if (node == NULL)
        return;
    region->unwind = NULL;
    libunwind_retract(node);
    if (node->in_libgcc)
        libgcc_deregister(node->eh_frame);
    node->in_libgcc = false;
    node_release(node);
}

/* libgcc answers: the region that waits for its first code is registered, and forgotten. */
static pp_status libgcc_try(const struct region *region, pp_error *error)
{
    static const struct frame_rule leaf = { .kind = PP_FRAME_LEAF };
    struct unwind_node *node = node_take();
    if (node == NULL)
        return error_set(error, PP_E_NOMEM, "no memory for the unwind information of a region");
    (void) node_describe(node, region, &leaf);
    pp_status status = libgcc_register(node->eh_frame, sizeof node->eh_frame, &node->object,
                                       region->code_lo, error);
    if (status == PP_OK)
        libgcc_deregister(node->eh_frame);
    node_release(node);
    return status;
}

/* What is asked for has to be there. */
static pp_status unwind_begin(pp_pool *pool, pp_error *error)
{
    uint32_t unwinders = pool_unwinders(pool);
    if ((unwinders & PP_UNWIND_LIBGCC) && !libgcc_find())
        return error_set(error, PP_E_UNSUPPORTED, "libgcc's unwinder is not in the process, and "
                         "libgcc_s.so.1 cannot be loaded");
    if ((unwinders & PP_UNWIND_LIBUNWIND) && !find_libunwind())
        return error_set(error, PP_E_UNSUPPORTED, "libunwind is not in the process");
    if ((unwinders & PP_UNWIND_LIBGCC) && pool->spare != NULL)
        return libgcc_try(pool->spare, error);
    return PP_OK;
}

const struct pool_room walk_room = { .begin = unwind_begin, .region_open = unwind_open,
                                     .region_close = unwind_close };
