/* SPDX-License-Identifier: MIT */
/* The smallest client: the library that runs is the one whose headers were found. */
#include <patchpoint.h>

#include <stdio.h>

int main(void)
{
    if (pp_version() != PP_VERSION_NUMBER) {
        printf("header %d, library %u: %s\n", PP_VERSION_NUMBER, pp_version(), pp_strerror(PP_E_ABI));
        return 1;
    }
    return 0;
}
