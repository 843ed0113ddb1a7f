/* SPDX-License-Identifier: MIT */
/*
 * Hostile environments: kernels that refuse, limits, a host that closes everything.
 *
 * Each case is a child.  Whatever is refused there: a status with a reason, never a
 * signal; a pool works or is not there; it verifies; and when it is destroyed, no mapping
 * of it is left.
 */
#include <config.h>

#include "sanitized.h"
#include "snippet.h"

#include <patchpoint.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FINE = 0, BROKEN = 1, SKIPPED = 77 };

/* What a child has to say; its descriptors may be closed. */
static struct {
    char text[512];
    unsigned worked, refused; /* pools */
    char reason[160];         /* of the latest refusal, or of a mode that was passed over */
} *report;

static __attribute__((noreturn, format(printf, 1, 2))) void broken(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->text, sizeof report->text, format, arguments);
    va_end(arguments);
    _exit(BROKEN);
}

#define require(condition) \
    do { \
        if (!(condition)) \
            broken("line %d: %s", __LINE__, #condition); \
    } while (0)

/* ---- mappings ----------------------------------------------------------- */

/* Of code, views and reservations; the heaps of others come and go. */
static char before[65536], after[65536];
static bool maps_known;

static bool read_maps(char *text, size_t size)
{
    static char all[262144];
    size_t fill = 0, kept = 0;
    ssize_t count;
    int fd = open("/proc/self/maps", O_RDONLY);
    if (fd < 0)
        return false;
    while ((count = read(fd, all + fill, sizeof all - 1 - fill)) > 0)
        fill += (size_t) count;
    close(fd);
    all[fill] = '\0';
    text[0] = '\0';
    for (char *line = all, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        char *rights = strchr(line, ' ');
        *end = '\0';
        if (rights == NULL || rights > end || (rights[3] != 'x' && rights[4] != 's'))
            continue;
        kept += (size_t) snprintf(text + kept, kept < size ? size - kept : 0, "%s\n", line);
    }
    return kept < size;
}

static void note_maps(void)
{
    maps_known = read_maps(before, sizeof before);
}

static void compare_maps(void)
{
    if (!maps_known || !read_maps(after, sizeof after))
        return;
    if (strcmp(before, after) != 0)
        broken("mappings are left:\n%.200s", after);
}

/* ---- use ---------------------------------------------------------------- */

static pp_error error = { .size = sizeof error };

static void note_refusal(pp_status status)
{
    require(status == PP_E_NOMEM || status == PP_E_SYSTEM || status == PP_E_UNSUPPORTED);
    require(error.status == status);
    require(error.text[0] != '\0');
    snprintf(report->reason, sizeof report->reason, "%s", error.text);
}

static void verify(pp_pool *pool)
{
    pp_status status = pp_pool_verify(pool, &error);
    if (status != PP_OK)
        broken("%s", error.text);
}

static void encode_return(void *write, unsigned value)
{
#if defined __x86_64__
    const uint8_t code[] = { 0xb8, value & 0xff, value >> 8 & 0xff, 0, 0, 0xc3 };
#else
    const uint32_t code[] = { 0x52800000 | (uint32_t) (value & 0xffff) << 5, 0xd65f03c0 };
#endif
    memcpy(write, code, sizeof code);
}

#define COUNT 40

/* True: all of them were had. */
static bool use_spans(pp_pool *pool)
{
    pp_span *spans[COUNT];
    pp_span_place places[COUNT];
    bool all = true;
    for (unsigned i = 0; i < COUNT; i++) {
        pp_span_desc desc = { .size = sizeof desc, .bytes = 16 + i * i * 37, .error = &error };
        spans[i] = NULL;
        places[i].size = sizeof places[i];
        error.status = PP_OK;
        pp_status status = pp_span_alloc(pool, &desc, &spans[i], &places[i]);
        if (status == PP_OK) {
            encode_return(places[i].write, i);
            status = pp_span_publish(pool, &spans[i], 1, &error);
            if (status == PP_OK)
                require(((unsigned (*)(void)) places[i].execute)() == i);
        }
        if (status != PP_OK) {
            note_refusal(status);
            all = false;
        }
    }
    verify(pool);
    for (unsigned i = 0; i < COUNT; i++) {
        pp_status status = spans[i] == NULL ? PP_OK : pp_span_free(pool, spans[i]);
        /* It stays, and can be given back when the kernel lets it. */
        if (status != PP_OK)
            require(status == PP_E_NOMEM || status == PP_E_SYSTEM);
    }
    verify(pool);
    return all;
}

static unsigned called;
static void count_call(void) { called++; }

static bool use_traces(pp_pool *pool)
{
    pp_symbol symbol = pp_symbol_define(pool, "count_call", (const void *) count_call);
    pp_trace *traces[COUNT];
    bool all = true;
    require(symbol != PP_SYMBOL_NONE);
    for (unsigned i = 0; i < COUNT; i++) {
        struct snippet code = { 0 };
        snippet_begin(&code);
        snippet_call(&code, symbol);
        snippet_end(&code);
        pp_trace_desc desc = { .size = sizeof desc, .code = code.code, .code_size = code.size,
                               .relocs = code.relocs, .reloc_count = code.reloc_count,
                               .flags = i % 2 == 0 ? PP_TRACE_OWN_TRAMPOLINES : 0,
                               .error = &error };
        traces[i] = NULL;
        error.status = PP_OK;
        pp_status status = pp_trace_link(pool, &desc, &traces[i]);
        snippet_free(&code);
        if (status != PP_OK) {
            note_refusal(status);
            traces[i] = NULL;
            all = false;
            continue;
        }
        unsigned was = called;
        ((void (*)(void)) pp_trace_entry(traces[i]))();
        require(called == was + 1);
    }
    verify(pool);
    for (unsigned i = 0; i < COUNT; i++) {
        if (traces[i] != NULL && pp_trace_free(pool, traces[i]) != PP_OK)
            all = false;
    }
    verify(pool);
    return all;
}

static pp_pool *create(pp_wx wx)
{
    pp_pool_options options = { .size = sizeof options, .wx = wx, .branch_range = 1,
                                .idle_bytes = 8192, .error = &error };
    pp_pool *pool = NULL;
    error.status = PP_OK;
    pp_status status = pp_pool_create(&options, &pool);
    if (status != PP_OK) {
        require(pool == NULL);
        note_refusal(status);
        report->refused++;
        return NULL;
    }
    pp_pool_stats stats = { .size = sizeof stats };
    require(pp_pool_get_stats(pool, &stats) == PP_OK);
    if (wx == PP_WX_AUTO && stats.wx != PP_WX_DUAL)
        require(stats.wx_reason[0] != '\0');
    else
        require(stats.wx_reason[0] == '\0' && (wx == PP_WX_AUTO || stats.wx == wx));
    if (stats.wx_reason[0] != '\0')
        snprintf(report->reason, sizeof report->reason, "%s", stats.wx_reason);
    return pool;
}

/* A pool's life; true if it was there and did all that it was asked for. */
static bool lives(pp_wx wx)
{
    pp_pool *pool = create(wx);
    bool all = pool != NULL;
    if (pool != NULL) {
        all = use_spans(pool);
        all = use_traces(pool) && all;
        all = use_spans(pool) && all;
        pp_pool_destroy(pool);
        report->worked += all;
    }
    return all;
}

/* And nothing is left of it. */
static bool live(pp_wx wx)
{
    note_maps();
    bool all = lives(wx);
    compare_maps();
    return all;
}

/* What a process does once (libraries that are loaded, arenas) is done before. */
static void warm_up(void)
{
    maps_known = false;
    if (!lives(PP_WX_AUTO) || !live(PP_WX_AUTO))
        broken("not even before: %s", report->reason);
    report->worked = report->refused = 0;
    report->reason[0] = '\0';
}

/* ---- children ----------------------------------------------------------- */

struct environment {
    const char *name;
    int (*run)(pp_wx wx, uint64_t value); /* FINE, SKIPPED */
    uint64_t value;
    const char *works;   /* a digit for each mode that must work, by enum pp_wx */
    const char *refuses; /* and for each that must be refused */
};

static const char *const modes[] = { "auto", "dual", "remap", "flip", "rwx" };

static bool has_mode(const char *list, unsigned wx)
{
    return list != NULL && strchr(list, (int) ('0' + wx)) != NULL;
}

static void check(const struct environment *environment, unsigned wx)
{
    int status;
    memset(report, 0, sizeof *report);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        alarm(60);
        warm_up();
        _exit(environment->run((pp_wx) wx, environment->value));
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "%s, %s: signal %d", environment->name, modes[wx],
                  WTERMSIG(status));
    ck_assert_msg(WEXITSTATUS(status) != BROKEN, "%s, %s: %s", environment->name, modes[wx],
                  report->text);
    printf("%-36s %-5s %s%s%s\n", environment->name, modes[wx],
           WEXITSTATUS(status) == SKIPPED ? "skipped" : report->worked > 0 ? "works" : "refused",
           report->reason[0] != '\0' ? ": " : "", report->reason);
    if (WEXITSTATUS(status) == SKIPPED)
        return;
    ck_assert_msg(!has_mode(environment->works, wx) || report->worked > 0,
                  "%s, %s does not work: %s", environment->name, modes[wx], report->reason);
    ck_assert_msg(!has_mode(environment->refuses, wx) || report->refused > 0,
                  "%s, %s is not refused", environment->name, modes[wx]);
}

/* ---- the kernel refuses ------------------------------------------------- */

/* A call is refused if (argument & mask) == value. */
struct refusal {
    int call;
    unsigned argument;
    uint32_t mask, value;
    int error;
};

#define ANY 0, 0, 0
static const struct refusal refusals[] = {
    { SYS_memfd_create, ANY, EPERM },
    { SYS_memfd_create, ANY, ENOSYS },
    { SYS_memfd_create, 1, 0x8, 0, EACCES },     /* vm.memfd_noexec=2: no MFD_NOEXEC_SEAL */
    { SYS_memfd_create, 1, 0x10, 0x10, EACCES }, /* and MFD_EXEC */
    { SYS_mprotect, 2, PROT_EXEC, PROT_EXEC, EACCES },
    { SYS_mmap, 2, PROT_EXEC, PROT_EXEC, EPERM },
    { SYS_mmap, 2, PROT_EXEC | PROT_WRITE, PROT_EXEC | PROT_WRITE, EACCES },
    { SYS_membarrier, ANY, EPERM },
    { SYS_membarrier, ANY, ENOSYS },
    { SYS_prctl, ANY, EPERM },
    { SYS_fallocate, ANY, ENOSYS },
    { SYS_fallocate, ANY, EOPNOTSUPP },
    { SYS_fallocate, ANY, ENOSPC },
    { SYS_madvise, 2, UINT32_MAX, 23, EINVAL },  /* MADV_POPULATE_WRITE: Linux before 5.14 */
    { SYS_madvise, 2, UINT32_MAX, 23, ENOMEM },
    { SYS_madvise, ANY, EPERM },
    { SYS_madvise, ANY, ENOSYS },
    { SYS_fcntl, 1, UINT32_MAX, F_ADD_SEALS, EPERM },
    { SYS_ftruncate, ANY, ENOSPC },
    { SYS_openat, ANY, EACCES },
    { SYS_mincore, ANY, EPERM },
};

static bool refuse(const struct refusal *refusal, size_t count)
{
    struct sock_filter filter[128];
    unsigned at = 0;
#define PUT(...) filter[at++] = (struct sock_filter) __VA_ARGS__
    for (size_t i = 0; i < count; i++, refusal++) {
        unsigned low = (unsigned) offsetof(struct seccomp_data, args) + 8 * refusal->argument;
        PUT(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
        PUT(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned) refusal->call, 0, 4));
        PUT(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low));
        PUT(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, refusal->mask));
        PUT(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refusal->value, 0, 1));
        PUT(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned) refusal->error));
    }
    PUT(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    struct sock_fprog program = { (unsigned short) at, filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0)
        return true;
    snprintf(report->reason, sizeof report->reason, "no seccomp here: %s", strerror(errno));
    return false;
}

/* `value`: indices into refusals, plus 1, a byte each. */
static int with_refusals(pp_wx wx, uint64_t value)
{
    struct refusal chosen[8];
    size_t count = 0;
    for (; value != 0; value >>= 8)
        chosen[count++] = refusals[(value & 0xff) - 1];
    if (!refuse(chosen, count))
        return SKIPPED;
    live(wx);
    live(wx);
    return FINE;
}

/* The pool is there when it begins. */
static int with_late_refusals(pp_wx wx, uint64_t value)
{
    struct refusal chosen[8];
    size_t count = 0;
    pp_pool *pool = create(wx);
    if (pool == NULL)
        return SKIPPED;
    use_spans(pool);
    for (; value != 0; value >>= 8)
        chosen[count++] = refusals[(value & 0xff) - 1];
    if (!refuse(chosen, count))
        return SKIPPED;
    bool all = use_spans(pool);
    report->worked = use_traces(pool) && all;
    pp_pool_destroy(pool);
    return FINE;
}

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

static int with_mdwe(pp_wx wx, uint64_t value)
{
    (void) value;
    if (prctl(PR_SET_MDWE, 1, 0, 0, 0) != 0) {
        snprintf(report->reason, sizeof report->reason, "PR_SET_MDWE: %s", strerror(errno));
        return SKIPPED;
    }
    live(wx);
    return FINE;
}

/* ---- limits ------------------------------------------------------------- */

static bool limit(int resource, rlim_t value)
{
    struct rlimit limits;
    if (getrlimit(resource, &limits) != 0)
        return false;
    limits.rlim_cur = value;
    return setrlimit(resource, &limits) == 0;
}

static int with_file_size(pp_wx wx, uint64_t value)
{
    if (!limit(RLIMIT_FSIZE, value))
        return SKIPPED;
    live(wx);
    return FINE;
}

static int with_descriptors(pp_wx wx, uint64_t value)
{
    if (!limit(RLIMIT_NOFILE, value))
        return SKIPPED;
    live(wx);
    return FINE;
}

static int with_data(pp_wx wx, uint64_t value)
{
    if (!limit(RLIMIT_DATA, value))
        return SKIPPED;
    live(wx);
    return FINE;
}

static size_t address_space(void)
{
    char text[64] = "";
    int fd = open("/proc/self/statm", O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return 0;
    close(fd);
    return strtoul(text, NULL, 10) * (size_t) sysconf(_SC_PAGESIZE);
}

/* From none to more than enough, in steps of `value`. */
static int with_address_space(pp_wx wx, uint64_t value)
{
    size_t used = address_space();
    if (used == 0)
        return SKIPPED;
    for (size_t more = 0; more < (size_t) 280 << 20; more += value) {
        if (!limit(RLIMIT_AS, used + more))
            return SKIPPED;
        live(wx);
    }
    return FINE;
}

/* ---- the number of mappings --------------------------------------------- */

/* Alternate pages of one mapping, until `spare` mappings are left. */
static size_t use_up_mappings(size_t spare)
{
    size_t page = (size_t) sysconf(_SC_PAGESIZE), pages = 1 << 20, at = 1;
    char *base = mmap(NULL, pages * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                      -1, 0);
    if (base == MAP_FAILED)
        return 0;
    while (at < pages && mprotect(base + at * page, page, PROT_READ) == 0)
        at += 2;
    if (at >= pages)
        return 0;
    for (size_t i = 0; i < (spare + 1) / 2; i++) { /* two each */
        at -= 2;
        mprotect(base + at * page, page, PROT_NONE);
    }
    return at;
}

static int without_mappings(pp_wx wx, uint64_t value)
{
    maps_known = false;
    if (use_up_mappings(value) == 0)
        return SKIPPED;
    pp_pool *pool = create(wx);
    if (pool != NULL) {
        bool all = use_spans(pool);
        report->worked += use_traces(pool) && all;
        pp_pool_destroy(pool);
    }
    return FINE;
}

static int without_mappings_later(pp_wx wx, uint64_t value)
{
    pp_pool *pool = create(wx);
    if (pool == NULL)
        return SKIPPED;
    use_spans(pool);
    if (use_up_mappings(value) == 0)
        return SKIPPED;
    bool all = use_spans(pool);
    report->worked += use_traces(pool) && all;
    pp_pool_destroy(pool);
    return FINE;
}

/* ---- a host that closes everything -------------------------------------- */

static int with_closed_descriptors(pp_wx wx, uint64_t value)
{
    (void) value;
    note_maps();
    pp_pool *pool = create(wx);
    if (pool == NULL)
        return SKIPPED;
    use_spans(pool);
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    /* REMAP finds out when it has to map a page again; then it has another region. */
    if (!use_spans(pool))
        require(wx == PP_WX_REMAP);
    bool all = use_traces(pool);
    report->worked = use_spans(pool) && all;
    pp_pool_destroy(pool);
    compare_maps();
    return FINE;
}

static int without_standard_descriptors(pp_wx wx, uint64_t value)
{
    (void) value;
    for (int fd = 0; fd < 64; fd++)
        close(fd);
    live(wx);
    return FINE;
}

/* ---- all ---------------------------------------------------------------- */

static const struct environment environments[] = {
    { "memfd_create: EPERM", with_refusals, 1, "034", "12" },
    { "memfd_create: ENOSYS", with_refusals, 2, "034", "12" },
    { "vm.memfd_noexec=2", with_refusals, 0x0403, "01234", NULL },
    { "mprotect to execute: EACCES", with_refusals, 5, "0124", "3" },
    { "mmap to execute: EPERM", with_refusals, 6, "03", "124" },
    { "execute in no way", with_refusals, 0x0605, NULL, "01234" },
    { "mmap to write and execute: EACCES", with_refusals, 7, "0123", "4" },
    { "membarrier: EPERM", with_refusals, 8, "01234", NULL },
    { "membarrier: ENOSYS", with_refusals, 9, "01234", NULL },
    { "prctl: EPERM", with_refusals, 10, "01234", NULL },
    { "fallocate: ENOSYS", with_refusals, 11, "01234", NULL },
    { "fallocate: EOPNOTSUPP", with_refusals, 12, "01234", NULL },
    { "fallocate: ENOSPC", with_refusals, 13, "01234", NULL },
    { "no MADV_POPULATE_WRITE", with_refusals, 14, "01234", NULL },
    { "MADV_POPULATE_WRITE: ENOMEM", with_refusals, 15, "012", "34" },
    { "no MADV_POPULATE_WRITE, no fallocate", with_refusals, 0x0b0e, "034", "12" },
    { "no memory in any way", with_refusals, 0x0d0f, NULL, "01234" },
    { "madvise: EPERM", with_refusals, 16, "034", "12" },
    { "madvise: ENOSYS", with_refusals, 17, "034", "12" },
    { "fcntl(F_ADD_SEALS): EPERM", with_refusals, 18, "034", "12" },
    { "ftruncate: ENOSPC", with_refusals, 19, "034", "12" },
    { "open: EACCES", with_refusals, 20, "01234", NULL },
    { "mincore: EPERM", with_refusals, 21, "01234", NULL },
    { "fallocate: ENOSYS from then on", with_late_refusals, 11, "01234", NULL },
    { "madvise: EPERM from then on", with_late_refusals, 16, "01234", NULL },
    { "no memory from then on", with_late_refusals, 0x0d0f, NULL, NULL },
    { "madvise, fallocate: none from then on", with_late_refusals, 0x0b11, NULL, NULL },
    { "mprotect: EACCES from then on", with_late_refusals, 5, "0124", NULL },
    { "mmap to execute: EPERM from then on", with_late_refusals, 6, "0134", NULL },
    { "PR_SET_MDWE", with_mdwe, 0, "012", "34" },
    { "RLIMIT_FSIZE 0", with_file_size, 0, "034", "12" },
    { "RLIMIT_FSIZE 4096", with_file_size, 4096, "034", "12" },
    { "RLIMIT_FSIZE 63 MiB", with_file_size, 63u << 20, "034", NULL },
    { "RLIMIT_NOFILE 0", with_descriptors, 0, "034", "12" },
    { "RLIMIT_NOFILE 3", with_descriptors, 3, "034", "12" },
    { "RLIMIT_DATA 0", with_data, 0, NULL, NULL },
    { "RLIMIT_DATA 16 MiB", with_data, 16u << 20, NULL, NULL },
    { "RLIMIT_AS", with_address_space, (7u << 20) + 4096, "01234", NULL },
    { "mappings: none", without_mappings, 0, NULL, NULL },
    { "mappings: 2", without_mappings, 2, NULL, NULL },
    { "mappings: 4", without_mappings, 4, NULL, NULL },
    { "mappings: 6", without_mappings, 6, NULL, NULL },
    { "mappings: 8", without_mappings, 8, NULL, NULL },
    { "mappings: 10", without_mappings, 10, NULL, NULL },
    { "mappings: 40", without_mappings, 40, "0124", NULL },
    { "mappings: none from then on", without_mappings_later, 0, "014", NULL },
    { "mappings: 4 from then on", without_mappings_later, 4, "0124", NULL },
    { "descriptors are closed", with_closed_descriptors, 0, "01234", NULL },
    { "no standard descriptors", without_standard_descriptors, 0, "01234", NULL },
};

START_TEST(the_environment_is_hostile)
{
    bool emulated = getenv("emulator") != NULL && *getenv("emulator") != '\0';
    if (emulated || SANITIZED) {
        /* Its filters, limits and mappings are not the kernel's. */
        printf("%s: skipped: an emulator or a sanitizer runs this\n", environments[_i].name);
        return;
    }
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(report != MAP_FAILED);
    for (unsigned wx = PP_WX_AUTO; wx <= PP_WX_RWX; wx++)
        check(&environments[_i], wx);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("environment");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_loop_test(all, the_environment_is_hostile, 0,
                        (int) (sizeof environments / sizeof *environments));
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
