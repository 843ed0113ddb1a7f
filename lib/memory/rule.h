/* SPDX-License-Identifier: MIT */
/* A frame rule as the library keeps it: normalized, so that equal rules have equal bytes. */
#ifndef MEMORY_RULE_H
#define MEMORY_RULE_H

#include <patchpoint/frame.h>

#include <stdbool.h>

struct frame_rule {
    pp_frame_kind kind;
    uint32_t cfa_offset;    /* never 0 for a kind with a record */
    pp_save_area saves, own;
    bool untold;            /* no unwinder is told in any pool */
};

/* Validate and normalize; NULL gives PP_FRAME_NONE.  PP_E_ARG with a reason. */
pp_status frame_rule_from(const pp_frame_rule *from, struct frame_rule *rule, pp_error *error);

/* In words, as "record cfa 16 saves 0x8/0x8 at -8", for people. */
void frame_rule_tell(const struct frame_rule *rule, char *text, size_t capacity);

/* What unwinders are told by a rule: rules that tell the same become equal. */
struct frame_rule frame_rule_told(const struct frame_rule *rule);

/*
 * What libunwind keeps of a rule for ever, for addresses that it has seen: where the CFA and
 * the frame record are.
 */
struct frame_rule frame_rule_shape(const struct frame_rule *rule);

bool frame_rule_equal(const struct frame_rule *a, const struct frame_rule *b);
uint64_t frame_rule_hash(const struct frame_rule *rule);

#endif
