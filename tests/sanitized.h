/* SPDX-License-Identifier: MIT */
/* Sanitizers map, unmap and ask the kernel on their own: some tests have to know. */
#ifndef TESTS_SANITIZED_H
#define TESTS_SANITIZED_H

/* gcc has macros, clang has features. */
#if defined __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#elif __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

#endif
