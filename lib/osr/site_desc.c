/* SPDX-License-Identifier: MIT */
/* What a description of a site may say. */
#include <config.h>

#include "osr/site_desc.h"

#include "error.h"
#include "isa/isa.h"
#include "os/cpu.h"
#include "osr/tier0.h"

#define RECORD_BYTES 16

#if defined __x86_64__
#define RED_ZONE_BYTES 128
#define SITE_FLAGS (PP_SITE_RED_ZONE | PP_SITE_BYTE)
#define LIVE_GPRS 0xf7ffu               /* not r11 */
#define PRESERVED 0xf008u               /* rbx, r12-r15 */
#define LIVE_VECTORS 0xffffu
#else
#define RED_ZONE_BYTES 0
#define SITE_FLAGS PP_SITE_BYTE
#define LIVE_GPRS 0xbffcffffu           /* not x16, x17, x30 */
#define PRESERVED 0x1ff80000u           /* x19-x28 */
#define LIVE_VECTORS 0xffffffffu
#endif

static bool overlaps(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

/* A slot of tier-0's frame, in its own memory and in nobody else's. */
static pp_status check_slot(const pp_site_desc *desc, const pp_tier0_layout *tier0, int32_t offset,
                            int32_t bytes, const char *name)
{
    const pp_save_area *saves = &tier0->saves;
    int64_t low = -(int64_t) tier0->frame_bytes;
    if (desc->flags & PP_SITE_RED_ZONE)
        low -= RED_ZONE_BYTES;
    if (offset % bytes != 0)
        return error_set(desc->error, PP_E_ARG, "%s: not a multiple of %d", name, (int) bytes);
    if (offset < low || (int64_t) offset + bytes > (int64_t) tier0->cfa_offset)
        return error_set(desc->error, PP_E_ARG, "%s: outside the frame", name);
    if (overlaps(offset, bytes, 0, RECORD_BYTES))
        return error_set(desc->error, PP_E_ARG, "%s: in the frame record", name);
    if (saves->slots != 0
        && overlaps(offset, bytes, saves->offset, 8 * __builtin_popcountll(saves->slots)))
        return error_set(desc->error, PP_E_ARG, "%s: in the save area", name);
    return PP_OK;
}

static pp_status check_wide(const pp_site_desc *desc, const char *name, enum cpu_vectors vectors)
{
    const char *lacks = cpu_lacks(vectors);
    return lacks == NULL ? PP_OK
                         : error_set(desc->error, PP_E_UNSUPPORTED, "save: %s: %s", name, lacks);
}

bool site_desc_names(const pp_site_desc *desc)
{
    return desc->save == PP_SAVE_MASK || desc->save == PP_SAVE_MASK256
        || desc->save == PP_SAVE_MASK512;
}

/* The class, and the set that only classes have that name one. */
static pp_status check_save(const pp_site_desc *desc)
{
    const bool names = site_desc_names(desc);
    const uint32_t all = desc->save == PP_SAVE_MASK512 ? UINT32_MAX : LIVE_VECTORS;
    const uint32_t gpr = desc->live_gpr & ~(names ? LIVE_GPRS : 0);
    const uint32_t vector = desc->live_vector & ~(names ? all : 0);
    if (gpr != 0)
        return error_set(desc->error, PP_E_ARG, "live_gpr: %#x not kept", (unsigned) gpr);
    if (vector != 0)
        return error_set(desc->error, PP_E_ARG, "live_vector: %#x not kept", (unsigned) vector);
    switch (desc->save) {
    case PP_SAVE_GPR:
    case PP_SAVE_V128:
    case PP_SAVE_ABI:
    case PP_SAVE_MASK:
        return PP_OK;
    case PP_SAVE_V256:
        return check_wide(desc, "V256", CPU_V256);
    case PP_SAVE_V512:
        return check_wide(desc, "V512", CPU_V512);
    case PP_SAVE_MASK256:
        return check_wide(desc, "MASK256", CPU_V256);
    case PP_SAVE_MASK512:
        return check_wide(desc, "MASK512", CPU_V512);
    }
    return error_set(desc->error, PP_E_ARG, "save: %d", (int) desc->save);
}

/* What only one kind has. */
static pp_status check_kind(const pp_site_desc *desc)
{
    pp_error *error = desc->error;
    const bool polled = desc->kind == PP_SITE_POLLED, forced = desc->kind == PP_SITE_FORCED;
    if (desc->kind != PP_SITE_COUNTED && desc->kind != PP_SITE_ARMED && !polled && !forced)
        return error_set(error, PP_E_ARG, "kind: %d", (int) desc->kind);
    if (desc->kind == PP_SITE_COUNTED
        && (desc->threshold < 1 || desc->threshold > SITE_THRESHOLD_MAX))
        return error_set(error, PP_E_ARG, "threshold: %d", (int) desc->threshold);
    const bool probe = desc->probe != NULL;
    if (probe && !polled && desc->kind != PP_SITE_ARMED)
        return error_set(error, PP_E_ARG, "probe: neither polled nor armed");
    if (probe && desc->save == PP_SAVE_ABI)
        return error_set(error, PP_E_ARG, "save: ABI does not show what a probe may change");
    if (desc->method != NULL && (polled || probe))
        return error_set(error, PP_E_ARG, "method: of sites that lead to entries");
    if ((desc->produce == NULL) != (polled || probe))
        return error_set(error, PP_E_ARG, polled ? "produce: not polled"
                                          : probe ? "produce: a probe" : "produce: missing");
    if (desc->rejected != NULL && desc->produce == NULL)
        return error_set(error, PP_E_ARG, "rejected: nothing is produced");
    if ((desc->poll != NULL) != (polled && !probe))
        return error_set(error, PP_E_ARG, !polled ? "poll: not polled"
                                          : probe ? "poll: a probe" : "poll: missing");
    if ((desc->otherwise != NULL) != forced || (desc->refused != NULL && !forced))
        return error_set(error, PP_E_ARG, forced ? "otherwise: missing" : "otherwise: not forced");
    if ((uintptr_t) desc->otherwise % isa_host.code_align != 0)
        return error_set(error, PP_E_ARG, "otherwise: misaligned");
    if (desc->flags & PP_SITE_BYTE && !polled)
        return error_set(error, PP_E_ARG, "flags: a counter has four bytes");
    return PP_OK;
}

static pp_status check_values(const pp_site_desc *desc)
{
    pp_error *error = desc->error;
    if (desc->flags & ~SITE_FLAGS)
        return error_set(error, PP_E_ARG, "flags: %#x", (unsigned) desc->flags);
    pp_status status = check_kind(desc);
    return status == PP_OK ? check_save(desc) : status;
}

static int32_t word_bytes(const pp_site_desc *desc)
{
    return desc->flags & PP_SITE_BYTE ? 1 : 4;
}

static pp_status check_frame_word(const pp_site_desc *desc, const pp_tier0_layout *tier0)
{
    const int32_t bytes = word_bytes(desc);
    pp_status status = check_slot(desc, tier0, desc->counter_offset, bytes, "counter_offset");
    if (status == PP_OK && desc->thread_offset != 0
        && overlaps(desc->thread_offset, 8, desc->counter_offset, bytes))
        status = error_set(desc->error, PP_E_ARG, "thread_offset: the counter is there");
    return status;
}

/* A word behind the pp_thread: in the host's own struct that begins with one. */
static pp_status check_thread_word(const pp_site_desc *desc)
{
    const int32_t bytes = word_bytes(desc), offset = desc->counter_offset;
    if (desc->thread_offset == 0)
        return error_set(desc->error, PP_E_ARG, "thread_offset: missing");
    if (offset % bytes != 0 || offset < PP_THREAD_SIZE || offset > SITE_THREAD_WORD_MAX)
        return error_set(desc->error, PP_E_ARG, "counter_offset: %d from the thread", (int) offset);
    return PP_OK;
}

/* Where the counter or flag is. */
static pp_status check_word(const pp_site_desc *desc, const pp_tier0_layout *tier0)
{
    pp_error *error = desc->error;
    const bool none = desc->kind == PP_SITE_FORCED || desc->kind == PP_SITE_ARMED;
    const bool data = desc->counter == PP_COUNTER_DATA && !none;
    if ((desc->word != NULL) != data)
        return error_set(error, PP_E_ARG, data ? "word: missing" : "word: the counter is elsewhere");
    if ((uintptr_t) desc->word % (unsigned) word_bytes(desc) != 0)
        return error_set(error, PP_E_ARG, "word: misaligned");
    if (none)
        return desc->counter == 0 && desc->counter_offset == 0
            ? PP_OK : error_set(error, PP_E_ARG, "counter: this kind has none");
    switch (desc->counter) {
    case PP_COUNTER_FRAME:
        return check_frame_word(desc, tier0);
    case PP_COUNTER_THREAD:
        return check_thread_word(desc);
    case PP_COUNTER_SITE:
        if (desc->flags & PP_SITE_BYTE)
            return error_set(error, PP_E_ARG, "flags: the site's flag has four bytes");
        return PP_OK;
    case PP_COUNTER_DATA:
        return PP_OK;
    }
    return error_set(error, PP_E_ARG, "counter: %d", (int) desc->counter);
}

pp_status site_desc_check(const pp_site_desc *desc, pp_tier0_layout *tier0)
{
    pp_status status = check_values(desc);
    if (status == PP_OK)
        status = tier0_from(isa_host.arch, desc->tier0, tier0, desc->error);
    if (status == PP_OK)
        status = check_word(desc, tier0);
    if (status == PP_OK && desc->thread_offset != 0)
        status = check_slot(desc, tier0, desc->thread_offset, 8, "thread_offset");
    return status;
}

uint32_t site_desc_is_edited(const pp_site_desc *desc)
{
    return desc->probe != NULL && (!site_desc_names(desc) || (desc->live_gpr & PRESERVED) != 0);
}
