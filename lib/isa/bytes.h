/* SPDX-License-Identifier: MIT */
/* Little-endian fields at any alignment, the same on every host. */
#ifndef ISA_BYTES_H
#define ISA_BYTES_H

#include <stdbool.h>
#include <stdint.h>

static inline uint32_t get_le32(const uint8_t *bytes)
{
    return (uint32_t) bytes[0] | (uint32_t) bytes[1] << 8 | (uint32_t) bytes[2] << 16 |
           (uint32_t) bytes[3] << 24;
}

static inline void put_le32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t) (value >> (8 * i));
}

static inline void put_le64(uint8_t *bytes, uint64_t value)
{
    put_le32(bytes, (uint32_t) value);
    put_le32(bytes + 4, (uint32_t) (value >> 32));
}

/* A sum of addresses or distances, modulo 2^64 as the machine adds, whatever a host gives. */
static inline int64_t add_wrapping(int64_t a, int64_t b)
{
    return (int64_t) ((uint64_t) a + (uint64_t) b);
}

/* Whether a two's complement field of this many bits (1 to 63) holds the value. */
static inline bool fits_signed(int64_t value, unsigned bits)
{
    int64_t limit = (int64_t) 1 << (bits - 1);
    return value >= -limit && value < limit;
}

#endif
