/* SPDX-License-Identifier: MIT */
/*
 * Regions as the kernel has them.  A region is five mappings, and the write view:
 *
 *      guard | code | guard | literals | guard
 *
 * Each part is mapped from end to end with the rights that it has to have, a view
 * from the file and from the place in it that it shows; so the kernel has one mapping
 * for it.  They are not counted: guards of neighbours may be one mapping, emulators
 * list what was ever protected by itself, and FLIP's code is cut into pages that are
 * being written and the others.
 */
#include <config.h>

#include "memory/verify.h"

#include "error.h"
#include "os/maps.h"

#include <string.h>
#include <time.h>

enum { READ = 1, WRITE = 2, EXECUTE = 4 };
enum { PARTS = 6, BATCH = 8, TRIES = 20, PAUSE = 1000000 /* ns */ };

struct part {
    uintptr_t lo, hi;
    unsigned rights, other;   /* enum above; either is right */
    bool shared;
    uintptr_t seen;           /* up to here */
    uint64_t inode;           /* of the first mapping; 0: no file */
    bool wrong;
};

struct check {
    struct part parts[BATCH][PARTS];
    const struct region *regions[BATCH];
    unsigned count;           /* regions */
};

static unsigned rights_of(const struct maps_line *line)
{
    return (line->read ? READ : 0) | (line->write ? WRITE : 0) | (line->execute ? EXECUTE : 0);
}

static void see_part(struct part *part, const struct maps_line *line)
{
    if (line->hi <= part->seen || line->lo >= part->hi)
        return;
    uintptr_t from = line->lo > part->lo ? line->lo : part->lo;
    unsigned rights = rights_of(line);
    if (part->seen == part->lo)
        part->inode = line->inode;
    part->wrong |= from > part->seen || (rights != part->rights && rights != part->other) ||
                   line->shared != part->shared || line->inode != part->inode ||
                   (line->inode != 0) != part->shared ||
                   (part->shared && line->offset + (from - line->lo) != from - part->lo);
    part->seen = line->hi < part->hi ? line->hi : part->hi;
}

static void see_line(const struct maps_line *line, void *context)
{
    struct check *check = context;
    for (unsigned i = 0; i < check->count; i++) {
        for (unsigned j = 0; j < PARTS; j++)
            see_part(&check->parts[i][j], line);
    }
}

static struct part part_of(uintptr_t lo, uintptr_t hi, unsigned rights)
{
    return (struct part){ .lo = lo, .hi = hi, .rights = rights, .other = rights, .seen = lo };
}

static void expect(const struct region *region, struct part parts[PARTS])
{
    memset(parts, 0, PARTS * sizeof *parts);
    parts[0] = part_of(region->base, region->code_lo, 0);
    parts[1] = part_of(region->code_lo, region->code_hi,
                       region->wx == PP_WX_RWX ? READ | WRITE | EXECUTE : READ | EXECUTE);
    parts[2] = part_of(region->code_hi, region->literal_lo, 0);
    parts[3] = part_of(region->literal_lo, region->literal_hi, READ | WRITE);
    parts[4] = part_of(region->literal_hi, region->limit, 0);
    parts[1].shared = region_has_memfd(region);
    if (region->wx == PP_WX_FLIP)
        parts[1].other = READ | WRITE;
    if (!region_has_memfd(region) || region->inherited)
        return; /* and the last part is empty */
    parts[5] = part_of(region->code_lo + (uintptr_t) region->write_delta,
                       region->code_hi + (uintptr_t) region->write_delta, READ | WRITE);
    parts[5].shared = true;
}

static const char *judge(const struct part parts[PARTS])
{
    static const char *const names[PARTS] = {
        "the guard below the code is not as it was mapped", "the code is not as it was mapped",
        "the guard behind the code is not as it was mapped", "the literals are not as they were mapped",
        "the guard behind the literals is not as it was mapped",
        "the write view is not as it was mapped"
    };
    for (unsigned i = 0; i < PARTS; i++) {
        const struct part *part = &parts[i];
        if (part->lo < part->hi && (part->wrong || part->seen != part->hi))
            return names[i];
    }
    if (parts[5].lo < parts[5].hi && parts[5].inode != parts[1].inode)
        return "the two views are not of one file";
    return NULL;
}

/* What is wrong in the list as it is now, and where; NULL: nothing, or there is no list. */
static const char *find_broken(struct check *check, const struct region **where)
{
    const char *broken = NULL;
    for (unsigned i = 0; i < check->count; i++)
        expect(check->regions[i], check->parts[i]);
    if (check->count == 0 || maps_read(see_line, check) != 0)
        return NULL;
    for (unsigned i = 0; i < check->count && broken == NULL; i++) {
        broken = judge(check->parts[i]);
        *where = check->regions[i];
    }
    return broken;
}

/*
 * The kernel gives the list in pieces, and other threads map and unmap between them, so that
 * one reading may show a state that never existed.  Broken is only what every reading shows, with
 * pauses in which the others come to an end.
 */
static pp_status check_batch(struct check *check, pp_error *error)
{
    const struct region *where = NULL, *first_where = NULL;
    const char *first = find_broken(check, &first_where);
    if (first == NULL)
        return PP_OK;
    for (unsigned tries = 1; tries < TRIES; tries++) {
        nanosleep(&(struct timespec){ .tv_nsec = PAUSE }, NULL);
        if (find_broken(check, &where) != first || where != first_where)
            return PP_OK;
    }
    return error_set(error, PP_E_FAULT, "region 0x%zx: %s", (size_t) first_where->base, first);
}

static pp_status add(struct check *check, const struct region *region, pp_error *error)
{
    check->regions[check->count++] = region;
    if (check->count < BATCH)
        return PP_OK;
    pp_status status = check_batch(check, error);
    check->count = 0;
    return status;
}

pp_status verify_mappings_locked(pp_pool *pool, pp_error *error)
{
    struct check check = { .count = 0 };
    pp_status status = PP_OK;
    if (pool->spare != NULL)
        status = add(&check, pool->spare, error);
    for (const struct region *region = atomic_load(&pool->regions);
         region != NULL && status == PP_OK; region = region->next)
        status = add(&check, region, error);
    return status == PP_OK ? check_batch(&check, error) : status;
}
