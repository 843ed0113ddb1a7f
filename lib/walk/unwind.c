/* SPDX-License-Identifier: MIT */
/*
 * Registration of regions.  What is registered never changes while the region
 * lives, and is a handful of rows for the whole region: libunwind searches its
 * list of registrations for every frame of the process.
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
#include "os/map.h"
#include "walk/eh_frame.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <dlfcn.h>
#include <stdatomic.h>

/* Code below the islands, the islands, code above them. */
#define PARTS_MAX 3

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
    void (*forget)(void *);     /* libgcc's __deregister_frame if eh_frame is registered */
    unw_dyn_info_t info;
    struct table_row table[PARTS_MAX];
    _Alignas(8) uint8_t eh_frame[EH_FRAME_CAPACITY(PARTS_MAX)];
};

/* All nodes.  Only grows; no lock, so that a fork cannot leave one behind held. */
static _Atomic(struct unwind_node *) nodes;

/* ---- the other unwinders ---------------------------------------------- */

extern void __register_frame(void *) __attribute__((weak));
extern void __deregister_frame(void *) __attribute__((weak));
#pragma weak _U_dyn_register
#pragma weak _U_dyn_info_list_addr
extern unw_word_t _U_dyn_info_list_addr(void);

struct unwinders {
    void (*register_frame)(void *);
    void (*deregister_frame)(void *);
    void (*dyn_register)(unw_dyn_info_t *);
    unw_word_t (*dyn_list)(void);
};

/*
 * Linked with the program, or loaded.  libgcc is loaded if need be: a host that
 * throws may come later than its first region.  libunwind never is, and is
 * looked for again with each region.  The handles are kept: nothing that holds
 * one of our nodes may be unloaded.
 */
static struct unwinders unwinders_find(void)
{
    struct unwinders found = { __register_frame, __deregister_frame, _U_dyn_register,
                               _U_dyn_info_list_addr };
    if (found.register_frame == NULL || found.deregister_frame == NULL) {
        void *libgcc = dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL);
        if (libgcc != NULL) {
            found.register_frame = (void (*)(void *)) dlsym(libgcc, "__register_frame");
            found.deregister_frame = (void (*)(void *)) dlsym(libgcc, "__deregister_frame");
        }
    }
    if (found.dyn_register == NULL || found.dyn_list == NULL) {
        void *libunwind = RTLD_DEFAULT; /* a null pointer, in glibc */
        if (dlsym(libunwind, "_U_dyn_register") == NULL) {
            libunwind = dlopen("libunwind.so.8", RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
            if (libunwind == NULL)
                return found;
        }
        found.dyn_register = (void (*)(unw_dyn_info_t *)) dlsym(libunwind, "_U_dyn_register");
        found.dyn_list = (unw_word_t (*)(void)) dlsym(libunwind, "_U_dyn_info_list_addr");
    }
    return found;
}

/* ---- nodes ------------------------------------------------------------ */

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
    /* It outlives every pool and so every arena; it is mapped, for no heap to be in the host's way. */
    struct unwind_node *node = map_memory(sizeof *node);
    if (node == NULL)
        return NULL;
    atomic_init(&node->taken, true);
    node->next = atomic_load_explicit(&nodes, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&nodes, &node->next, node,
                                                  memory_order_release, memory_order_relaxed))
        continue;
    return node;
}

static void node_release(struct unwind_node *node)
{
    atomic_store_explicit(&node->taken, false, memory_order_release);
}

/* The bytes and rows of a region; false if its rule cannot be said in DWARF. */
static bool node_describe(struct unwind_node *node, const struct region *region)
{
    static const struct frame_rule leaf = { .kind = PP_FRAME_LEAF };
    const struct eh_frame_part candidates[PARTS_MAX] = {
        { region->code_lo, region->island_lo, &region->rule },
        { region->island_lo, region->island_hi, &leaf },
        { region->island_hi, region->code_hi, &region->rule },
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
static void libunwind_publish(struct unwind_node *node, const struct region *region,
                              const struct unwinders *unwinders)
{
    unw_dyn_info_t *info = &node->info;
    __atomic_store_n(&info->start_ip, region->code_lo, __ATOMIC_RELEASE);
    __atomic_store_n(&info->end_ip, region->code_hi, __ATOMIC_RELEASE);
    if (node->in_libunwind || unwinders->dyn_register == NULL || unwinders->dyn_list == NULL)
        return;
    /*
     * _U_dyn_register links without a barrier.  With `next` stored beforehand, a
     * reader that comes upon the node too early still finds the rest of the list.
     */
    info->next = ((unw_dyn_info_list_t *) unwinders->dyn_list())->first;
    atomic_thread_fence(memory_order_seq_cst);
    unwinders->dyn_register(info);
    node->in_libunwind = true;
}

static void libunwind_retract(struct unwind_node *node)
{
    __atomic_store_n(&node->info.end_ip, 0, __ATOMIC_RELEASE);
}

/* ---- room ------------------------------------------------------------- */

static pp_status unwind_open(struct region *region, pp_error *error)
{
    if (region->rule.kind == PP_FRAME_NONE)
        return PP_OK;
    struct unwind_node *node = node_take();
    if (node == NULL)
        return error_set(error, PP_E_NOMEM, "no memory for the unwind information of a region");
    if (!node_describe(node, region)) {
        node_release(node);
        return error_set(error, PP_E_ARG,
                         "frame rule: a save slot is not a multiple of 8 bytes from the CFA");
    }
    struct unwinders unwinders = unwinders_find();
    if (unwinders.register_frame != NULL && unwinders.deregister_frame != NULL) {
        unwinders.register_frame(node->eh_frame);
        node->forget = unwinders.deregister_frame;
    }
    libunwind_publish(node, region, &unwinders);
    region->unwind = node;
    return PP_OK;
}

static void unwind_close(struct region *region)
{
    struct unwind_node *node = region->unwind;
    if (node == NULL)
        return;
    region->unwind = NULL;
    libunwind_retract(node);
    if (node->forget != NULL) {
        node->forget(node->eh_frame);
        node->forget = NULL;
    }
    node_release(node);
}

const struct pool_room walk_room = { .region_open = unwind_open, .region_close = unwind_close };
