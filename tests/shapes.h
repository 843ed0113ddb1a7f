/* SPDX-License-Identifier: MIT */
/* Functions of many shapes, compiled in many ways: see shapes.c. */
#ifndef TESTS_SHAPES_H
#define TESTS_SHAPES_H

/* What they have of the world: C functions, by address. */
struct shapes {
    long (*c)(long);
    void (*leave)(struct shapes *, long) __attribute__((noreturn)); /* back to the test */
    volatile long sink;
    long again;
    long seeds[8];
    void *place[5];     /* of a __builtin_setjmp */
};

typedef long shapes_run(struct shapes *, long n);

/* One object of shapes.c: all of its code, without references to anything outside. */
struct shapes_code {
    const char *name;
    const char *start, *end;
    shapes_run *run;
};

#endif
