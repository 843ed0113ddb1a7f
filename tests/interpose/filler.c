/* SPDX-License-Identifier: MIT */
/* A module that takes static thread-local storage, of which the loader has little to give. */
static __thread char filler[64] __attribute__((tls_model("initial-exec")));

char *filler_address(void);

char *filler_address(void)
{
    return filler;
}
