/* SPDX-License-Identifier: MIT */
/* Random shapes of passages: frames, sites, value maps. */
#include <config.h>

#include "stress/passage.h"

#include <string.h>

#define RECORD 16

/* The 4-byte words of a frame that belong to somebody, from its lowest address on. */
struct area {
    uint8_t taken[(PASSAGE_BELOW_MAX + PASSAGE_ABOVE_MAX) / 4];
    int32_t low, high;      /* offsets from FP */
};

static void area_take(struct area *area, int32_t offset, uint32_t bytes)
{
    memset(area->taken + (offset - area->low) / 4, 1, bytes / 4);
}

static bool area_is_free(const struct area *area, int32_t offset, uint32_t bytes)
{
    if (offset < area->low || offset + (int32_t) bytes > area->high)
        return false;
    for (uint32_t i = 0; i < bytes / 4; i++)
        if (area->taken[(offset - area->low) / 4 + (int32_t) i])
            return false;
    return true;
}

static void area_begin(struct area *area, const pp_tier0_layout *frame)
{
    area->low = -(int32_t) frame->frame_bytes;
    area->high = (int32_t) frame->cfa_offset;
    memset(area->taken, 0, (size_t) (area->high - area->low) / 4);
    area_take(area, 0, RECORD);
}

/* Any offset: often near FP, or near one of the ends. */
static int32_t draw_offset(struct random *random, const struct area *area, uint32_t align)
{
    uint64_t range = (uint64_t) (area->high - area->low);
    uint64_t near = range < 256 ? range : 256;
    int64_t offset;
    switch (random_below(random, 4)) {
    case 0:
        offset = area->low + (int64_t) random_below(random, range);
        break;
    case 1:
        offset = area->low + (int64_t) random_below(random, near);
        break;
    case 2:
        offset = area->high - 1 - (int64_t) random_below(random, near);
        break;
    default:
        offset = 64 - (int64_t) random_below(random, near);
    }
    return (int32_t) (offset & -(int64_t) align);
}

/* A free place that is taken then; INT32_MAX: there is none. */
static int32_t draw_place(struct random *random, struct area *area, uint32_t bytes, uint32_t align)
{
    for (unsigned i = 0; i < 20; i++) {
        int32_t offset = draw_offset(random, area, align);
        if (area_is_free(area, offset, bytes)) {
            area_take(area, offset, bytes);
            return offset;
        }
    }
    int32_t low = (area->low + (int32_t) align - 1) & -(int32_t) align;
    for (int32_t offset = low; offset < area->high; offset += (int32_t) align) {
        if (area_is_free(area, offset, bytes)) {
            area_take(area, offset, bytes);
            return offset;
        }
    }
    return INT32_MAX;
}

static uint64_t draw_subset(struct random *random, uint64_t of)
{
    switch (random_below(random, 4)) {
    case 0:
        return of;
    case 1:
        return 0;
    default:
        return of & random_next(random);
    }
}

/* ---- frames ---------------------------------------------------------------------- */

static uint32_t draw_bytes(struct random *random, uint32_t most)
{
    static const uint32_t edges[] = { 248, 256, 504, 512, 4080, 4096, 4112, 8192, 32760, 32768,
                                      65536, 131072 };
    uint64_t choice = random_below(random, 100);
    uint32_t bytes = 8 * (uint32_t) random_below(random, 40);
    if (choice >= 97)
        bytes = 8 * (uint32_t) random_below(random, most / 8);
    else if (choice >= 85)
        bytes = edges[random_below(random, sizeof edges / sizeof edges[0])] + bytes % 32;
    return bytes < most ? bytes : most - 64;
}

/* Its saves and, in them, what it has saved. */
static void draw_frame(struct random *random, pp_tier0_layout *frame, uint32_t cfa_offset,
                       bool has_slots, struct area *area)
{
    uint64_t slots = has_slots ? draw_subset(random, MOVE_CALLEE_SAVED) : 0;
    uint32_t save_bytes = 8 * (uint32_t) __builtin_popcountll(slots);
    *frame = (pp_tier0_layout) {
        .size = sizeof *frame, .cfa_offset = cfa_offset,
        .frame_bytes = (save_bytes + 96 + draw_bytes(random, PASSAGE_BELOW_MAX - 512)) & ~15u,
    };
    frame->frame_bytes += cfa_offset % 16; /* SP is aligned, FP need not be */
    area_begin(area, frame);
    if (slots != 0) {
        frame->saves.slots = slots;
        frame->saves.saved = draw_subset(random, slots);
        frame->saves.offset = draw_place(random, area, save_bytes, 8);
    }
}

static uint32_t draw_cfa_offset(struct random *random)
{
#if defined __x86_64__
    (void) random;
    return RECORD;
#else
    return RECORD + (random_below(random, 2) ? draw_bytes(random, PASSAGE_ABOVE_MAX - 512) : 0);
#endif
}

static void draw_tier0(struct passage_shape *shape, struct random *random, struct area *area)
{
    draw_frame(random, &shape->tier0, draw_cfa_offset(random), true, area);
    shape->thread_at = draw_place(random, area, 8, 8);
    shape->image_at = draw_place(random, area, 8, 8);
    shape->counter_at = draw_place(random, area, 4, 4);
}

/* ---- sites ----------------------------------------------------------------------- */

static void draw_save(struct passage_shape *shape, struct random *random, unsigned saves)
{
    do {
        shape->save = (pp_save) random_below(random, PP_SAVE_MASK + 1);
    } while (!(saves >> shape->save & 1));
    if (shape->save == PP_SAVE_MASK) {
        shape->live_gpr = (uint32_t) random_next(random) & MOVE_GPRS;
        shape->live_vector = (uint32_t) random_next(random) & (uint32_t) (MOVE_ALL >> 32);
    }
}

static void draw_site(struct passage_shape *shape, struct random *random, unsigned saves)
{
    shape->kind = (pp_site_kind) (PP_SITE_COUNTED + random_below(random, 4));
    if (shape->kind == PP_SITE_POLLED && shape->style != PP_ON_TOP)
        shape->kind = PP_SITE_COUNTED; /* the host hands out code that expects tier-0's frame */
    bool counts = shape->kind == PP_SITE_COUNTED || shape->kind == PP_SITE_POLLED;
    shape->counter = counts ? (pp_counter) random_below(random, 4) : PP_COUNTER_FRAME;
    shape->threshold = shape->kind == PP_SITE_COUNTED ? 1 + (int32_t) random_below(random, 5) : 1;
    /* What has to leave tier-0 triggers at once. */
    shape->hits = shape->kind == PP_SITE_FORCED ? 1 : 1 + (uint32_t) random_below(random, 3);
    shape->by_hand = shape->kind != PP_SITE_POLLED && random_below(random, 3) == 0;
    shape->site_knows_thread = shape->style == PP_BUFFER || shape->counter == PP_COUNTER_THREAD
                               || random_below(random, 2);
    shape->entry_knows_thread = shape->style == PP_BUFFER
                                || (shape->style == PP_REPLACE && random_below(random, 2));
    if (shape->site_knows_thread && shape->kind != PP_SITE_POLLED && random_below(random, 3) == 0)
        shape->entry_flags = PP_ENTRY_CHECK_STACK;
#if defined __x86_64__
    shape->flags = random_below(random, 3) == 0 ? PP_SITE_RED_ZONE : 0;
#endif
    draw_save(shape, random, saves);
}

/* ---- values ---------------------------------------------------------------------- */

static uint64_t pick_bit(struct random *random, uint64_t of)
{
    for (uint64_t skip = random_below(random, (uint64_t) __builtin_popcountll(of)); skip > 0; skip--)
        of &= of - 1;
    return (uint64_t) __builtin_ctzll(of);
}

static bool keeps_vectors(const struct passage_shape *shape)
{
    return shape->save == PP_SAVE_V128 || shape->save == PP_SAVE_V256 || shape->save == PP_SAVE_V512;
}

/* Vector registers whose low half is the caller's: the high one is nobody's. */
static bool is_half(const struct passage_shape *shape, unsigned number)
{
    uint64_t bit = PP_VECTOR_BIT(number);
    return (bit & MOVE_CALLEE_SAVED) && !(bit & shape->tier0.saves.saved);
}

static bool draw_register_source(const struct passage_shape *shape, struct random *random,
                                 pp_value *value)
{
    uint32_t gprs = MOVE_GPRS | 1u << MOVE_SP | 1u << MOVE_FP, vectors = 0;
    if (shape->save == PP_SAVE_MASK) {
        gprs &= shape->live_gpr | (uint32_t) MOVE_CALLEE_SAVED | 1u << MOVE_SP | 1u << MOVE_FP;
        vectors = shape->live_vector;
    } else if (keeps_vectors(shape)) {
        vectors = (uint32_t) (MOVE_ALL >> 32);
    }
    if (vectors == 0 || random_below(random, 2)) {
        value->from = (pp_place) PP_AT_GPR((uint16_t) pick_bit(random, gprs));
        return value->bytes != 16;
    }
    value->from = (pp_place) PP_AT_VECTOR((uint16_t) pick_bit(random, vectors));
    return value->bytes != 16 || !is_half(shape, value->from.number);
}

static bool draw_source(const struct passage_shape *shape, struct random *random,
                        const struct area *tier0, const struct area *body, pp_value *value)
{
    switch (random_below(random, 8)) {
    case 0:
        value->from = (pp_place) PP_AT_CONSTANT;
        value->constant = random_next(random);
        return value->bytes != 16;
    case 1:
        value->from = (pp_place) PP_AT_ADDRESS(
            shape->style == PP_BUFFER ? 4 * (int32_t) random_below(random, PASSAGE_BUFFER_MAX / 4)
                                      : draw_offset(random, body, 4));
        return value->bytes == 8
            && (shape->style == PP_BUFFER || area_is_free(body, value->from.offset, 4));
    case 2:
    case 3:
        return draw_register_source(shape, random, value);
    case 4:
        value->from = (pp_place) PP_AT_NOWHERE;
        return random_below(random, 8) == 0;
    default:
        value->from = (pp_place) PP_AT_SLOT(draw_offset(random, tier0, 4));
        return area_is_free(tier0, value->from.offset, value->bytes);
    }
}

/* `free`: registers that no value has got yet. */
static bool draw_target(const struct passage_shape *shape, struct random *random,
                        struct area *area, uint64_t *free, pp_value *value)
{
    uint64_t choice = random_below(random, 16);
    if (choice == 0) {
        value->to = (pp_place) PP_AT_NOWHERE;
        return true;
    }
    if (choice < 6) {
        uint64_t of = *free & (random_below(random, 2) && value->bytes != 16 ? UINT32_MAX
                                                                            : ~0ull << 32);
        if (of == 0)
            return false;
        unsigned reg = (unsigned) pick_bit(random, of);
        *free &= ~(1ull << reg);
        value->to = (pp_place) { reg < 32 ? PP_PLACE_GPR : PP_PLACE_VECTOR, reg % 32, 0 };
        return true;
    }
    int32_t offset = draw_place(random, area, value->bytes, 4);
    value->to = (pp_place) { shape->style == PP_BUFFER ? PP_PLACE_BUFFER : PP_PLACE_SLOT, 0, offset };
    return offset != INT32_MAX;
}

/* The first value is the image, which the body begins with. */
static void draw_values(struct passage_shape *shape, struct random *random,
                        const struct area *tier0, struct area *body)
{
    uint64_t free = MOVE_ALL & ~(MOVE_CALLEE_SAVED & ~shape->body.saves.saved);
    static const uint64_t most[] = { 4, 12, 40, 40, 40, 300 };
    uint64_t count = random_below(random, 200) == 0 ? PP_VALUES_MAX
                                                    : random_below(random, most[random_below(random, 6)]);
    if (shape->style == PP_BUFFER)
        free &= ~(MOVE_CALLEE_SAVED | 1ull << MOVE_FIRST);
#if defined __aarch64__
    free &= ~(1ull << 18);
#endif
    shape->body_image_at = draw_place(random, body, 8, 8);
    shape->values[0] = (pp_value) {
        PP_AT_SLOT(shape->image_at),
        { shape->style == PP_BUFFER ? PP_PLACE_BUFFER : PP_PLACE_SLOT, 0, shape->body_image_at },
        .bytes = 8,
    };
    shape->value_count = 1;
    for (uint64_t tries = 0; tries < 2 * count && shape->value_count < PP_VALUES_MAX; tries++) {
        pp_value value = { .bytes = 4u << random_below(random, 3) };
        if (draw_source(shape, random, tier0, body, &value)
            && draw_target(shape, random, body, &free, &value))
            shape->values[shape->value_count++] = value;
    }
}

/* Where the body's values go: its frame, or its buffer. */
static void draw_body(struct passage_shape *shape, struct random *random, struct area *area)
{
    if (shape->style == PP_BUFFER) {
        *area = (struct area) { .low = 0, .high = (int32_t) (64 + draw_bytes(random, PASSAGE_BUFFER_MAX - 64)) };
        return;
    }
    draw_frame(random, &shape->body, shape->tier0.cfa_offset, shape->scheme == PP_CSR_RESERVE, area);
    shape->used = shape->scheme == PP_CSR_RESERVE ? shape->body.saves.saved
                                                  : draw_subset(random, MOVE_CALLEE_SAVED);
}

void passage_draw(struct passage_shape *shape, struct random *random, unsigned saves)
{
    struct area tier0 = { .low = 0 }, body;
    memset(shape, 0, sizeof *shape);
    shape->style = (pp_osr_style) (PP_ON_TOP + random_below(random, 3));
    shape->scheme = random_below(random, 2) ? PP_CSR_RELOAD : PP_CSR_RESERVE;
    shape->local_bytes = draw_bytes(random, 65536) & ~15u;
    draw_tier0(shape, random, &tier0);
    shape->body = shape->tier0;
    draw_site(shape, random, saves);
    if (shape->style == PP_ON_TOP) {
        shape->body_image_at = shape->image_at;
        shape->used = draw_subset(random, shape->scheme == PP_CSR_RESERVE ? shape->tier0.saves.slots
                                                                          : MOVE_CALLEE_SAVED);
        return;
    }
    draw_body(shape, random, &body);
    /* What else is in tier-0's frame can be read as well: its saves and record
       cannot. */
    area_begin(&tier0, &shape->tier0);
    if (shape->tier0.saves.slots != 0)
        area_take(&tier0, shape->tier0.saves.offset,
                  8 * (uint32_t) __builtin_popcountll(shape->tier0.saves.slots));
    area_take(&tier0, shape->counter_at, 4); /* which changes on the way */
    draw_values(shape, random, &tier0, &body);
}
