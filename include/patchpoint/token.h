/* SPDX-License-Identifier: MIT */
/*
 * Tokens: code addresses that may be kept for longer than the code.
 *
 * A continuation that only has an address jumps into the void when its code is gone,
 * or into other code that took its place.  A token is an address and the handle of
 * the trace that it lies in: 16 bytes of plain data, copied and dropped freely.
 *
 * A token may be kept as long as the process lives, also for longer than its pool.  Once
 * it is stale it stays stale: no other code, in this pool or in one that comes to the
 * same addresses, ever makes it good again.  It is good in the process that made it, and in
 * children that are forked later.
 *
 *      suspend     pp_token_make(resume_address, &continuation->token)
 *      resume      code = pp_token_code(&continuation->token);
 *                  code != NULL ? jump there : begin again in tier-0
 *
 * Hosts that never free what a continuation may hold store the address alone and
 * jump by pp_emit_resume.  Others either pin the token, or check it and jump before
 * their thread's next quiescent point (retire.h): a trace that is retired meanwhile
 * stays until then.
 */
#ifndef PATCHPOINT_TOKEN_H
#define PATCHPOINT_TOKEN_H

#include <patchpoint/osr.h>
#include <patchpoint/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pp_token {
    uintptr_t code;  /* the address; 0: no token */
    uintptr_t trace; /* the trace's handle */
} pp_token;

/*
 * The token of an address in the code of a live trace.  PP_E_FAULT for any other: no
 * code, misaligned, a trampoline, data, retired.  Lock-free and async-signal-safe.
 */
PP_API pp_status pp_token_make(const void *code, pp_token *token) PP_MUST_CHECK;

/*
 * Whether the code is still live.  PP_E_STALE: the trace was freed or retired, or its pool
 * is gone, whatever has its place.  A token that was stale once stays so, also while another
 * thread reclaims the trace.  PP_E_FAULT: the two words are no token.  Any words may be
 * passed.  Lock-free and async-signal-safe.
 */
PP_API pp_status pp_token_check(const pp_token *token) PP_MUST_CHECK;

/* The address, if pp_token_check finds it good, or NULL.  Also for compiled code to call. */
PP_API const void *pp_token_code(const pp_token *token);

/*
 * A reference that keeps the token's code: pp_trace_free and pp_trace_retire answer
 * PP_E_BUSY until it is given back.  A handle of its own, as site.h has them, so that one
 * that is given back twice is PP_E_STALE.  Both take a lock; pinning may take memory.  PP_E_STALE,
 * PP_E_FAULT as pp_token_check, or the pool is another one; PP_E_NOMEM.
 */
typedef struct pp_pin pp_pin;

PP_API pp_status pp_token_pin(pp_pool *pool, const pp_token *token, pp_pin **pin) PP_MUST_CHECK;
PP_API pp_status pp_token_unpin(pp_pool *pool, pp_pin *pin) PP_MUST_CHECK;

/*
 * pp_resume at the token's address, which point->pc need not be set to.  Does not
 * return when it succeeds.  PP_E_STALE, PP_E_FAULT, or what pp_resume says; nothing moved.
 */
PP_API pp_status pp_token_resume(pp_thread *thread, const pp_token *token,
                                 const pp_resume_point *point);

#ifdef __cplusplus
}
#endif
#endif
