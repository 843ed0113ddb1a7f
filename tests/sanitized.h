/* SPDX-License-Identifier: MIT */
/* Sanitizers map, unmap and ask the kernel on their own: some tests have to know. */
#ifndef TESTS_SANITIZED_H
#define TESTS_SANITIZED_H

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

#endif
