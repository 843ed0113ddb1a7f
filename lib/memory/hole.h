/* SPDX-License-Identifier: MIT */
/*
 * The holes of a space by length.  Shorter ones are in lists, one for each length in
 * units; the others in a search tree by length, and by address among equals.  All
 * links are in the words of their records:
 *
 *      in a list   previous:26 | next:26       the first one's `previous` means nothing
 *      in the tree right:26 | left:26
 *
 * A link is a unit + 1, and 0 where there is none.  The tree is a heap by a hash of the
 * address (a treap): its depth is logarithmic whatever the history, but for luck that
 * nobody outside can steer.
 */
#ifndef MEMORY_HOLE_H
#define MEMORY_HOLE_H

#include "memory/extent.h"

#define HOLE_LISTS 256u /* lengths from 1 to 255 */

struct holes {
    uint32_t lists[HOLE_LISTS];       /* links; [0] is not used */
    uint64_t filled[HOLE_LISTS / 64]; /* a bit: the list is not empty */
    block_word root;                  /* of the tree: the left link */
    uint64_t seed;                    /* of the hash */
    uint32_t longest;                 /* units; 0: there is no hole */
};

void holes_insert(struct holes *holes, const struct extents *extents, uint32_t start,
                  uint32_t units);
void holes_remove(struct holes *holes, const struct extents *extents, const struct extent *hole);

/* The shortest hole of at least so many units, and its length; false: there is none. */
bool holes_find(const struct holes *holes, const struct extents *extents, uint32_t units,
                struct extent *hole);

/* The one that follows `hole` in the order of search: for spans with an alignment. */
bool holes_find_next(const struct holes *holes, const struct extents *extents,
                     struct extent *hole);

/* NULL, or a sentence; *count receives how many holes are filed. */
const char *holes_verify(const struct holes *holes, const struct extents *extents,
                         uint32_t *count);

#endif
