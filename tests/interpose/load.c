/* SPDX-License-Identifier: MIT */
/*
 * A process that loads the library with dlopen.
 *
 *      load LIBRARY                              whether that can be loaded at all
 *      load LIBRARY PLUGIN ALLOCATOR [FILLER]
 *
 * With FILLER, all static thread-local storage is used up first, by loading
 * copies of it until one is refused.  Then LIBRARY must load, a pool must work
 * with its metadata in ALLOCATOR (or "any"), the process's own functions must
 * be where they were, and a C++ module that is loaded then must be able to throw.
 */
#include <config.h>

#include "interpose/owner.h"
#include "interpose/pool.h"

#include <unistd.h>

enum { MOST_FILLERS = 4096 };

static int copy(const char *from, const char *to)
{
    char buffer[65536];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    if (in == NULL || out == NULL)
        return 0;
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        fwrite(buffer, 1, n, out);
    fclose(in);
    return fclose(out) == 0;
}

/* Loads fillers until the loader has no room left; returns how many it took, -1 if it never ended. */
static int fill_static_tls(const char *filler)
{
    char directory[] = "/tmp/patchpoint-XXXXXX";
    if (mkdtemp(directory) == NULL)
        return -1;
    int loaded = -1;
    for (int i = 0; i < MOST_FILLERS; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%d.so", directory, i);
        void *handle = copy(filler, path) ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
        unlink(path);
        if (handle == NULL) {
            const char *reason = dlerror();
            printf("after %d fillers: %s\n", i, reason != NULL ? reason : "no copy");
            loaded = reason != NULL && strstr(reason, "static TLS") != NULL ? i : -1;
            break;
        }
    }
    rmdir(directory);
    return loaded;
}

static int find(void *handle, struct library *library)
{
    *(void **) &library->pool_create = dlsym(handle, "pp_pool_create");
    *(void **) &library->pool_destroy = dlsym(handle, "pp_pool_destroy");
    *(void **) &library->pool_get_stats = dlsym(handle, "pp_pool_get_stats");
    *(void **) &library->trace_link = dlsym(handle, "pp_trace_link");
    *(void **) &library->trace_free = dlsym(handle, "pp_trace_free");
    *(void **) &library->trace_entry = dlsym(handle, "pp_trace_entry");
    return library->pool_create != NULL && library->pool_destroy != NULL && library->pool_get_stats != NULL &&
           library->trace_link != NULL && library->trace_free != NULL && library->trace_entry != NULL;
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) == NULL;
    if (argc < 4)
        return 99;
    if (argc > 4)
        expect(fill_static_tls(argv[4]) > 0, "fillers use up the static thread-local storage");

    void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        printf("%s\n", dlerror());
        return 1;
    }
    struct library library;
    expect(find(handle, &library), "the library has its functions");
    expect_allocator(failures == 0 ? use_pool(&library) : NULL, argv[3]);
    expect(dlsym(RTLD_DEFAULT, "mallocx") == NULL, "jemalloc is not in the global search order");
    expect_host_unchanged("libc.so.");
#if HAVE_CXX
    expect_plugin_throws(argv[2]);
#endif
    return failures != 0;
}
