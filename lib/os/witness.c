/* SPDX-License-Identifier: MIT */
/* Witnesses of forked processes. */
#include <config.h>

#include "os/witness.h"

#include "os/fault.h"
#include "os/map.h"
#include "os/memfd.h"

#include <errno.h>
#include <fcntl.h>

void witness_prepare(struct witness *witness)
{
    uintptr_t page = 0;
    if (witness->file.fd < 0 && memfd_open_unsealed(&witness->file, "patchpoint:children") != 0)
        return;
    if (descriptor_check(&witness->file) == 0 &&
        map_shared(witness->file.fd, 0, &page, map_page_size(), MAP_NOTHING) == 0)
        witness->page = page;
}

void witness_parent(struct witness *witness)
{
    if (witness->page == 0 || map_unmap(witness->page, map_page_size()) != 0)
        witness->lost = true;
    witness->page = 0;
}

/* The mapping stays: it is what the parent looks for. */
void witness_child(struct witness *witness)
{
    descriptor_close(&witness->file);
    witness->page = 0;
    witness->lost = false;
}

/* A file that was sealed has done its service. */
bool witness_sees(struct witness *witness)
{
    if (witness->lost || witness->file.fd < 0)
        return witness->lost;
    int saved = errno;
    if (descriptor_check(&witness->file) != 0) {
        witness->lost = true; /* the host closed it */
    } else if (!fault_fires_errno(PP_FAULT_FCNTL) &&
               fcntl(witness->file.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0) {
        descriptor_close(&witness->file);
    }
    errno = saved;
    return witness->lost || witness->file.fd >= 0;
}
