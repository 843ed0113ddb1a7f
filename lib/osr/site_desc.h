/* SPDX-License-Identifier: MIT */
/* What a description of a site may say. */
#ifndef OSR_SITE_DESC_H
#define OSR_SITE_DESC_H

#include <patchpoint/site.h>

#include <stdbool.h>

/* Passes between two slow paths, and the highest count that is not for ever. */
#define SITE_THRESHOLD_MAX (1 << 30)
/* An offset that one instruction holds on AArch64, for words of any size. */
#define SITE_THREAD_WORD_MAX 4092

/* PP_E_ARG, PP_E_UNSUPPORTED, with the reason; `tier0` receives the normalized frame. */
pp_status site_desc_check(const pp_site_desc *desc, pp_tier0_layout *tier0);

/* Whether a probe may change registers that C functions keep: what a record says as `edited`. */
uint32_t site_desc_is_edited(const pp_site_desc *desc);

/* Whether its class keeps only registers that the site names. */
bool site_desc_names(const pp_site_desc *desc);

#endif
