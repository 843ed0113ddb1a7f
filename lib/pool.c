/* SPDX-License-Identifier: MIT */
/* The public face of the pool, and the table of the rooms that keep state in it. */
#include <config.h>

#include "error.h"
#include "link/link.h"
#include "memory/state.h"
#include "osr/room.h"
#include "patch/retire.h"
#include "sized.h"
#include "walk/unwind.h"

#include <stdio.h>
#include <string.h>

const struct pool_room *const pool_rooms[ROOM_COUNT] = {
    [ROOM_LINK] = &link_room,
    [ROOM_PATCH] = &patch_room,
    [ROOM_OSR] = &osr_room,
    [ROOM_WALK] = &walk_room,
};

pp_status pp_pool_create(const pp_pool_options *options, pp_pool **pool)
{
    pp_pool_options copy = { .size = sizeof copy };
    if (pool == NULL)
        return PP_E_ARG;
    if (options != NULL) {
        if (!sized_read(&copy, sizeof copy, offsetof(pp_pool_options, on_limit), options))
            return PP_E_ARG;
    }
    return pool_create(&copy, pool);
}

void pp_pool_destroy(pp_pool *pool)
{
    if (pool != NULL)
        pool_destroy(pool);
}
