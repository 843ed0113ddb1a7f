/* SPDX-License-Identifier: MIT */
/*
 * libpatchpoint: the runtime parts that every JIT compiler writes by hand.
 *
 * This header includes all the others.  Each part works without the others:
 *
 *   status.h      status codes, and the reason behind one
 *   pool.h        executable memory near the runtime, write-xor-execute kept
 *   span.h        code memory for hosts that link by themselves
 *   trace.h       symbols, relocations, and code that is linked and published
 *   patch.h       published code that is changed while threads run it
 *   watch.h       patches that wait until what code relies on does not hold any more
 *   retire.h      code that is given up while threads may run it
 *   site.h        patchpoints: counters, triggers, one winner that compiles
 *   osr.h         entries of optimized code, frame rules, and resuming
 *   value.h       maps of values, from tier-0's frame to a body's
 *   buffer.h      memory in which bodies find their values
 *   token.h       code addresses that continuations may keep
 *   activation.h  calls from C into compiled code and back, with anchors
 *   walk.h        a cursor over the frames of a thread, every frame validated
 *   emit.h        instruction bytes for hosts, on both architectures
 *   policy.h      when sites trigger, and what failures cost
 *   force.h       triggers where a test wants them
 *   method.h      sites that belong together
 *   fault.h       failures of the system by script, for tests of hosts
 *   frame.h       frame rules: how to unwind a kind of frame
 *   layout.h      offsets and register numbers, for C and for assembler
 *
 * The library never owns a thread, a signal handler or the main loop, and it
 * never exits or aborts on behalf of its host.
 *
 * Unless a function says otherwise it may be called from any thread, is not
 * async-signal-safe, and returns PP_E_ARG for a null or malformed argument
 * with nothing changed.  All sizes and offsets are in bytes.
 */
#ifndef PATCHPOINT_H
#define PATCHPOINT_H

#include <patchpoint/activation.h>
#include <patchpoint/buffer.h>
#include <patchpoint/emit.h>
#include <patchpoint/fault.h>
#include <patchpoint/force.h>
#include <patchpoint/method.h>
#include <patchpoint/frame.h>
#include <patchpoint/layout.h>
#include <patchpoint/osr.h>
#include <patchpoint/patch.h>
#include <patchpoint/policy.h>
#include <patchpoint/pool.h>
#include <patchpoint/retire.h>
#include <patchpoint/site.h>
#include <patchpoint/span.h>
#include <patchpoint/status.h>
#include <patchpoint/token.h>
#include <patchpoint/trace.h>
#include <patchpoint/value.h>
#include <patchpoint/walk.h>
#include <patchpoint/watch.h>

#endif
