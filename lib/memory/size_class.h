/* SPDX-License-Identifier: MIT */
/*
 * Spans and holes counted by length, as they come and go: statistics of a million
 * spans need no walk.  Guarded by the lock of what they belong to.
 */
#ifndef MEMORY_SIZE_CLASS_H
#define MEMORY_SIZE_CLASS_H

#include <patchpoint/pool.h>

struct size_class {
    size_t spans, requested, used;   /* live spans, by the bytes that were asked for */
    size_t holes, hole_bytes;
};

struct size_classes {
    struct size_class of[PP_SIZE_CLASSES];
};

/* 0: up to 16 bytes, 1: up to 32, ... */
static inline unsigned size_class_of(size_t bytes)
{
    unsigned log = bytes <= 16 ? 4 : 64 - (unsigned) __builtin_clzll(bytes - 1);
    return log - 4 < PP_SIZE_CLASSES ? log - 4 : PP_SIZE_CLASSES - 1;
}

/* The longest of a class. */
static inline size_t size_class_up_to(unsigned index)
{
    return index + 1 < PP_SIZE_CLASSES ? (size_t) 16 << index : SIZE_MAX;
}

static inline void size_classes_add_span(struct size_classes *classes, size_t requested,
                                         size_t used)
{
    struct size_class *class = &classes->of[size_class_of(requested)];
    class->spans++;
    class->requested += requested;
    class->used += used;
}

static inline void size_classes_drop_span(struct size_classes *classes, size_t requested,
                                          size_t used)
{
    struct size_class *class = &classes->of[size_class_of(requested)];
    class->spans--;
    class->requested -= requested;
    class->used -= used;
}

static inline void size_classes_add_hole(struct size_classes *classes, size_t bytes)
{
    struct size_class *class = &classes->of[size_class_of(bytes)];
    class->holes++;
    class->hole_bytes += bytes;
}

static inline void size_classes_drop_hole(struct size_classes *classes, size_t bytes)
{
    struct size_class *class = &classes->of[size_class_of(bytes)];
    class->holes--;
    class->hole_bytes -= bytes;
}

#endif
