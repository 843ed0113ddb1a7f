/* SPDX-License-Identifier: MIT */
/*
 * The start-up self-test.  Emulators keep translations of code that ran, and
 * some of them look for writes only at the address that ran: they run the first
 * function twice.  This thread alone runs the functions, so no barrier is needed.
 */
#include <config.h>

#include "memory/probe.h"

#include "error.h"

#include <string.h>

#define PROBE_BYTES 64

/* int f(void) { return value; }, with a landing pad; its length. */
static size_t encode_return(uint8_t *bytes, uint16_t value)
{
#if defined __x86_64__
    const uint8_t code[] = { 0xf3, 0x0f, 0x1e, 0xfa,              /* endbr64 */
                             0xb8, value & 0xff, value >> 8, 0, 0, /* mov $value, %eax */
                             0xc3 };                              /* ret */
#else
    const uint32_t code[] = { 0xd503245f,                         /* bti c */
                              0x52800000 | (uint32_t) value << 5, /* mov w0, #value */
                              0xd65f03c0 };                       /* ret */
#endif
    memcpy(bytes, code, sizeof code);
    return sizeof code;
}

static pp_status write_and_run(struct region *region, uintptr_t exec, uint16_t value,
                               pp_error *error)
{
    uint8_t *write;
    pp_status status = region_write_begin(region, exec, PROBE_BYTES, &write, error);
    if (status != PP_OK)
        return status;
    encode_return(write, value);
    status = region_write_end(region, exec, PROBE_BYTES, error);
    if (status != PP_OK)
        return status;
    int got = ((int (*)(void)) exec)();
    if (got != value)
        return error_set(error, PP_E_UNSUPPORTED, "code that was rewritten did not run");
    return PP_OK;
}

pp_status probe_region(struct region *region, pp_error *error)
{
    uintptr_t exec;
    size_t bytes;
    uint32_t generation;
    pp_status status =
        region_alloc(region, true, PROBE_BYTES, SPAN_GRANULE, NULL, &exec, &generation, error);
    for (uint16_t value = 0x1234; status == PP_OK && value < 0x1237; value++)
        status = write_and_run(region, exec, value, error);
    if (status != PP_OK)
        return status;
    status = region_free(region, exec, generation, NULL, &bytes, error);
    region_trim(region, SIZE_MAX);
    return status;
}
