/* SPDX-License-Identifier: MIT */
/*
 * Whether processes that were forked from this one are still there, and have not
 * executed another program.
 *
 * A file of memory is mapped just before a fork and unmapped in the parent right
 * after it, so that only children (and children of theirs) have it mapped.  The kernel
 * refuses to seal a file against writing as long as anybody has it mapped shared.
 * One descriptor serves for any number of children, and a child that closes all of
 * its descriptors is seen none the less.
 */
#ifndef OS_WITNESS_H
#define OS_WITNESS_H

#include "os/descriptor.h"

#include <stdbool.h>
#include <stdint.h>

struct witness {
    struct descriptor file; /* of the parent alone; its fd is -1 when there is nobody to watch */
    uintptr_t page;         /* mapped while a fork is going on, else 0 */
    bool lost;              /* there may be a child that cannot be seen: it stays for good */
};

#define WITNESS_NONE { { -1, 0, 0 }, 0, false }

/* Around a fork that has a child to be watched. */
void witness_prepare(struct witness *witness);
void witness_parent(struct witness *witness);

/* In the child: its own children are another matter. */
void witness_child(struct witness *witness);

/* Whether some child may be there. */
bool witness_sees(struct witness *witness);

#endif
