# SPDX-License-Identifier: MIT
#
# Tests, one program per noun, and examples: a part of Makefile.am.

TEST_EXTENSIONS = .sh
LOG_COMPILER = $(LIBTOOL) --mode=execute $(TEST_EMULATOR)
SH_LOG_COMPILER = $(SHELL)
# With this much static thread-local storage, Debian's jemalloc can be loaded late.
AM_TESTS_ENVIRONMENT = \
	CK_TIMEOUT_MULTIPLIER=$${CK_TIMEOUT_MULTIPLIER:-4}; export CK_TIMEOUT_MULTIPLIER; \
	pp_arch='$(pp_arch)' NM='$(NM)' READELF='$(READELF)' MAKE='$(MAKE)' \
	emulator='$(TEST_EMULATOR)' sanitize='$(PP_SANITIZE)' \
	have_jemalloc='$(have_jemalloc)' have_cxx='$(have_cxx)'; \
	export pp_arch NM READELF MAKE emulator sanitize have_jemalloc have_cxx; \
	GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384; export GLIBC_TUNABLES;

if SANITIZED
# Tests that raise SIGSEGV and SIGABRT on purpose handle them themselves.
AM_TESTS_ENVIRONMENT += \
	ASAN_OPTIONS=handle_segv=0:handle_abort=0:$$ASAN_OPTIONS; export ASAN_OPTIONS; \
	TSAN_OPTIONS=handle_segv=0:$$TSAN_OPTIONS; export TSAN_OPTIONS;
endif

# What a program links unless it has an _LDADD of its own.
LDADD = libpatchpoint-core.la $(CHECK_LIBS) $(PTHREAD_LIBS)

# With tests/unlock.c: a mutex that is unlocked has to be locked.
wrap_unlock = -Wl,--wrap=pthread_mutex_unlock
check_cflags = $(AM_CFLAGS)
check_ldadd = $(LDADD)
check_PROGRAMS = examples/osr examples/span
examples_osr_SOURCES = examples/osr.c
examples_osr_LDADD = libpatchpoint.la
examples_span_SOURCES = examples/span.c
examples_span_LDADD = libpatchpoint.la

if HAVE_CHECK
check_PROGRAMS += \
	check_armed \
	check_balance \
	check_barrier \
	check_batch \
	check_buffer \
	check_buffered \
	check_clobber \
	check_code_span \
	check_compiled \
	check_dynamic \
	check_eh_frame \
	check_emit \
	check_entry \
	check_environment \
	check_fault \
	check_force \
	check_fork \
	check_frame \
	check_guard \
	check_handle \
	check_index \
	check_isa \
	check_kinds \
	check_large \
	check_lookup \
	check_osr \
	check_passage \
	check_method \
	check_patch \
	check_patch_bytes \
	check_patch_live \
	check_placement \
	check_policy \
	check_pool \
	check_probe \
	check_reason \
	check_record \
	check_recording \
	check_refusals \
	check_region \
	check_reloc \
	check_replace \
	check_reserve \
	check_retarget \
	check_retire \
	check_rule \
	check_save \
	check_shelf \
	check_site \
	check_span \
	check_stats \
	check_status \
	check_stubs \
	check_sweep \
	check_symbol \
	check_synth \
	check_tiers \
	check_token \
	check_trace \
	check_trace_refusals \
	check_trace_threads \
	check_unwind \
	check_unwinders \
	check_verify \
	check_verify_live \
	check_walk \
	check_watch
if HAVE_CXX
check_PROGRAMS += check_throw check_throw_libunwind
endif
endif

check_SCRIPTS = \
	tests/check_elf.sh \
	tests/check_exports.sh \
	tests/check_install.sh \
	tests/check_man.sh \
	tests/check_stress.sh

check_armed_SOURCES = tests/check_armed.c tests/loop.h tests/snippet.h
check_balance_SOURCES = tests/balance.h tests/check_balance.c tests/step.c tests/step.h \
	stress/suspend.c stress/suspend.h
check_balance_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
check_balance_LDADD = libstress.la $(LDADD) $(LIBUNWIND_LIBS)
check_barrier_SOURCES = tests/check_barrier.c tests/snippet.h
check_batch_SOURCES = tests/check_batch.c tests/snippet.h
check_buffer_SOURCES = tests/check_buffer.c tests/entered.h tests/snippet.h
check_buffer_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) -I$(srcdir)/tests
check_buffer_LDADD = libstress.la $(LDADD)
check_buffered_SOURCES = tests/check_buffered.c tests/entered.h tests/snippet.h
check_buffered_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) -I$(srcdir)/tests
check_buffered_LDADD = libstress.la $(LDADD)
check_clobber_SOURCES = tests/check_clobber.c tests/probe.c tests/probe.h tests/sanitized.h
check_code_span_SOURCES = tests/check_code_span.c tests/snippet.h tests/spans.h
check_frame_SOURCES = tests/check_frame.c tests/code.h
check_compiled_SOURCES = tests/check_compiled.c tests/shapes.h tests/step.c tests/step.h
check_compiled_LDADD = $(shapes_objects) $(LDADD)
check_compiled_DEPENDENCIES = $(shapes_objects) libpatchpoint-core.la
check_dynamic_SOURCES = tests/check_dynamic.c tests/entered.h tests/snippet.h
check_dynamic_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) -I$(srcdir)/tests
check_dynamic_LDADD = libstress.la $(LDADD)
check_eh_frame_SOURCES = tests/check_eh_frame.c tests/unwind_code.h
check_eh_frame_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
check_eh_frame_LDADD = $(LDADD) $(LIBUNWIND_LIBS)
check_emit_SOURCES = tests/check_emit.c tests/code.h
check_entry_SOURCES = tests/check_entry.c
check_entry_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
check_entry_LDADD = libstress.la $(LDADD)
check_environment_SOURCES = tests/check_environment.c tests/sanitized.h tests/snippet.h
check_fault_SOURCES = tests/check_fault.c
check_force_SOURCES = tests/check_force.c tests/loop.h tests/snippet.h
check_fork_SOURCES = tests/check_fork.c tests/snippet.h tests/spans.h tests/unlock.c
check_fork_LDFLAGS = $(AM_LDFLAGS) $(wrap_unlock)
check_guard_SOURCES = tests/check_guard.c tests/entered.h tests/loop.h tests/snippet.h
check_guard_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
check_handle_SOURCES = tests/check_handle.c tests/spans.h tests/unlock.c
check_handle_LDFLAGS = $(AM_LDFLAGS) $(wrap_unlock)
check_index_SOURCES = tests/check_index.c tests/entered.h tests/snippet.h
check_index_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) -I$(srcdir)/tests
check_index_LDADD = libstress.la $(LDADD)
check_isa_SOURCES = tests/check_isa.c tests/code.h
check_kinds_SOURCES = tests/check_kinds.c tests/loop.h tests/snippet.h
check_large_SOURCES = tests/check_large.c
check_large_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
check_large_LDADD = libstress.la $(LDADD)
check_lookup_SOURCES = tests/check_lookup.c
check_osr_SOURCES = tests/check_osr.c
check_osr_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
check_osr_LDADD = libstress.la $(LDADD)
check_passage_SOURCES = tests/check_passage.c
check_passage_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
check_passage_LDADD = libstress.la $(LDADD)
check_refusals_SOURCES = tests/check_refusals.c
check_refusals_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
check_refusals_LDADD = libstress.la $(LDADD)
check_patch_SOURCES = tests/check_patch.c tests/patching.h tests/snippet.h
check_patch_bytes_SOURCES = tests/check_patch_bytes.c
check_patch_live_SOURCES = tests/check_patch_live.c tests/patching.h tests/snippet.h
check_placement_SOURCES = tests/check_placement.c tests/sanitized.h tests/spans.h
check_method_SOURCES = tests/check_method.c tests/loop.h tests/snippet.h
check_policy_SOURCES = tests/check_policy.c tests/loop.h tests/snippet.h tests/step.c tests/step.h
check_probe_SOURCES = tests/check_probe.c tests/loop.h tests/snippet.h
check_pool_SOURCES = tests/check_pool.c tests/sanitized.h tests/spans.h tests/unlock.c
check_pool_LDFLAGS = $(AM_LDFLAGS) $(wrap_unlock)
check_reason_SOURCES = tests/check_reason.c tests/loop.h tests/snippet.h
check_record_SOURCES = tests/check_record.c tests/loop.h tests/snippet.h tests/spans.h tests/unlock.c
check_record_LDFLAGS = $(AM_LDFLAGS) $(wrap_unlock)
check_recording_SOURCES = tests/check_recording.c
check_recording_CPPFLAGS = $(stress_cppflags)
check_recording_LDADD = libstress.la $(LDADD)
check_region_SOURCES = tests/check_region.c tests/spans.h tests/unlock.c
check_region_LDFLAGS = $(AM_LDFLAGS) $(wrap_unlock)
check_reloc_SOURCES = tests/check_reloc.c tests/code.h
check_replace_SOURCES = tests/check_replace.c tests/loop.h tests/snippet.h
check_reserve_SOURCES = tests/check_reserve.c tests/snippet.h
check_retarget_SOURCES = tests/check_retarget.c tests/snippet.h tests/unlock.c
check_retarget_LDFLAGS = $(AM_LDFLAGS) $(wrap_unlock)
check_retire_SOURCES = tests/check_retire.c tests/sanitized.h tests/snippet.h
check_shelf_SOURCES = tests/check_shelf.c tests/snippet.h
check_site_SOURCES = tests/check_site.c tests/sanitized.h
check_site_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
check_site_LDADD = libstress.la $(LDADD)
check_span_SOURCES = tests/check_span.c
check_stats_SOURCES = tests/check_stats.c tests/sanitized.h tests/spans.h tests/unlock.c
check_stats_LDFLAGS = $(AM_LDFLAGS) $(wrap_unlock)
check_status_SOURCES = tests/check_status.c
check_rule_SOURCES = tests/check_rule.c tests/spans.h
check_save_SOURCES = tests/check_save.c tests/probe.c tests/probe.h
check_stubs_SOURCES = tests/check_stubs.c tests/probe.c tests/probe.h
if ARCH_X86_64
check_buffer_SOURCES += tests/x86_64/entered.S
check_buffered_SOURCES += tests/x86_64/entered.S
check_dynamic_SOURCES += tests/x86_64/entered.S
check_guard_SOURCES += tests/x86_64/entered.S
check_index_SOURCES += tests/x86_64/entered.S
check_clobber_SOURCES += tests/x86_64/probe.S
check_save_SOURCES += tests/x86_64/probe.S
check_stubs_SOURCES += tests/x86_64/probe.S
check_eh_frame_SOURCES += tests/x86_64/unwind_code.S
endif
if ARCH_AARCH64
check_buffer_SOURCES += tests/aarch64/entered.S
check_buffered_SOURCES += tests/aarch64/entered.S
check_dynamic_SOURCES += tests/aarch64/entered.S
check_guard_SOURCES += tests/aarch64/entered.S
check_index_SOURCES += tests/aarch64/entered.S
check_clobber_SOURCES += tests/aarch64/probe.S
check_save_SOURCES += tests/aarch64/probe.S
check_stubs_SOURCES += tests/aarch64/probe.S
check_eh_frame_SOURCES += tests/aarch64/unwind_code.S
endif
check_sweep_SOURCES = tests/check_sweep.c tests/sanitized.h tests/snippet.h tests/sweep.c \
	tests/sweep.h tests/sweep_entry.c tests/sweep_link.c tests/sweep_move.c tests/sweep_patch.c \
	tests/sweep_pool.c tests/sweep_span.c
check_symbol_SOURCES = tests/check_symbol.c
check_synth_SOURCES = tests/check_synth.c
check_synth_CPPFLAGS = $(stress_cppflags)
check_synth_LDADD = libstress.la $(LDADD)
# The unwinder that comes first serves the exceptions.
check_throw_SOURCES = tests/check_throw.cc
check_throw_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
check_throw_LDFLAGS = $(AM_LDFLAGS) -Wl,--no-as-needed
check_throw_LDADD = libstress.la libpatchpoint-core.la -lgcc_s $(LIBUNWIND_LIBS) $(CHECK_LIBS) \
	$(PTHREAD_LIBS)
check_throw_libunwind_SOURCES = tests/check_throw.cc
check_throw_libunwind_CPPFLAGS = $(check_throw_CPPFLAGS) -DLIBUNWIND_FIRST
check_throw_libunwind_LDFLAGS = $(check_throw_LDFLAGS)
check_throw_libunwind_LDADD = libstress.la libpatchpoint-core.la $(LIBUNWIND_LIBS) -lgcc_s \
	$(CHECK_LIBS) $(PTHREAD_LIBS)
check_tiers_SOURCES = tests/check_tiers.c tests/snippet.h
check_token_SOURCES = tests/check_token.c
check_token_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
check_token_LDADD = libstress.la $(LDADD)
check_trace_SOURCES = tests/check_trace.c tests/linked.h tests/snippet.h
check_trace_refusals_SOURCES = tests/check_trace_refusals.c tests/linked.h tests/sanitized.h tests/snippet.h
check_trace_threads_SOURCES = tests/check_trace_threads.c tests/linked.h tests/snippet.h
check_unwind_SOURCES = tests/balance.h tests/check_unwind.c tests/step.c tests/step.h
check_unwind_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir) -I$(srcdir)/tests
check_unwind_LDADD = libstress.la $(LDADD) $(LIBUNWIND_LIBS)
check_unwinders_SOURCES = tests/check_unwinders.c tests/sanitized.h tests/spans.h
check_unwinders_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
check_verify_SOURCES = tests/check_verify.c tests/sanitized.h tests/spans.h
check_verify_live_SOURCES = tests/check_verify_live.c tests/loop.h tests/sanitized.h tests/snippet.h
check_walk_SOURCES = tests/check_walk.c
check_walk_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)
check_walk_LDADD = libstress.la $(LDADD)
check_watch_SOURCES = tests/check_watch.c tests/snippet.h

# Functions that a compiler makes in many ways, without what this build makes of its own code.
shapes_objects = \
	shapes-O0_fp.o \
	shapes-O1_fp.o \
	shapes-O2_fp.o \
	shapes-Os_fp.o \
	shapes-O3_fp.o \
	shapes-O2_leaf.o \
	shapes-O2_branch.o \
	shapes-O0_omit.o \
	shapes-O2_omit.o
EXTRA_DIST += tests/shapes.c
CLEANFILES += $(shapes_objects)
$(shapes_objects): tests/shapes.c tests/shapes.h
	$(AM_V_CC)variant=`echo $@ | sed 's/shapes-\(.*\)\.o/\1/'`; \
	case $$variant in \
	*_leaf) how='-fno-omit-frame-pointer -momit-leaf-frame-pointer' ;; \
	*_branch) how='-fno-omit-frame-pointer $(shapes_branch)' ;; \
	*_omit) how=-fomit-frame-pointer ;; \
	*) how='-fno-omit-frame-pointer -mno-omit-leaf-frame-pointer' ;; \
	esac; \
	$(CC) -std=gnu11 -g -fPIC -ffreestanding -fno-stack-protector -fno-jump-tables \
		-fno-asynchronous-unwind-tables -I$(srcdir)/tests -DVARIANT=$$variant \
		-$${variant%_*} $$how -c -o $@ $(srcdir)/tests/shapes.c
if ARCH_X86_64
shapes_branch = -fcf-protection=full
endif
if ARCH_AARCH64
shapes_branch = -mbranch-protection=standard
endif

# Hosts: what stays theirs when the library is linked or loaded.

if SHARED
interpose = tests/interpose/owner.h tests/interpose/pool.h

noinst_PROGRAMS = \
	tests/interpose/host \
	tests/interpose/load
tests_interpose_host_SOURCES = tests/interpose/host.c $(interpose)
tests_interpose_host_LDADD = libpatchpoint.la
tests_interpose_load_SOURCES = tests/interpose/load.c $(interpose)
tests_interpose_load_LDADD =

check_LTLIBRARIES = tests/interpose/filler.la
interpose_module = -module -avoid-version -shared -rpath /none
tests_interpose_filler_la_SOURCES = tests/interpose/filler.c
tests_interpose_filler_la_CFLAGS = $(AM_CFLAGS) -fvisibility=default
tests_interpose_filler_la_LDFLAGS = $(AM_LDFLAGS) $(interpose_module)

if HAVE_CXX
check_LTLIBRARIES += tests/interpose/plugin.la
tests_interpose_plugin_la_SOURCES = tests/interpose/plugin.cc
tests_interpose_plugin_la_LDFLAGS = $(AM_LDFLAGS) $(interpose_module)

noinst_PROGRAMS += \
	tests/interpose/throw \
	tests/interpose/throw_archive \
	tests/interpose/throw_static
tests_interpose_throw_SOURCES = tests/interpose/throw.cc $(interpose)
tests_interpose_throw_LDADD = libpatchpoint.la
tests_interpose_throw_archive_SOURCES = tests/interpose/throw.cc $(interpose)
tests_interpose_throw_archive_LDADD = libpatchpoint.la
tests_interpose_throw_archive_LDFLAGS = $(AM_LDFLAGS) -static
tests_interpose_throw_static_SOURCES = tests/interpose/throw.cc $(interpose)
tests_interpose_throw_static_CPPFLAGS = $(AM_CPPFLAGS) -DSTATIC_RUNTIME
tests_interpose_throw_static_LDADD = libpatchpoint.la
tests_interpose_throw_static_LDFLAGS = $(AM_LDFLAGS) -static -static-libgcc -static-libstdc++
endif
check_SCRIPTS += tests/interpose/hosts.sh
endif

TESTS = $(check_PROGRAMS) $(check_SCRIPTS)

# What depends on how code memory is mapped: make check TESTS='$(mapping_tests)'
mapping_tests = examples/osr examples/span check_barrier check_batch check_code_span check_fork check_osr \
	check_patch check_patch_live check_pool \
	check_reserve check_retarget check_retire check_site check_trace check_trace_threads check_watch

# Clients of the installed library.
installcheck-local:
	srcdir='$(srcdir)' DESTDIR='$(DESTDIR)' includedir='$(includedir)' libdir='$(libdir)' \
	pkgconfigdir='$(pkgconfigdir)' PKG_CONFIG='$(PKG_CONFIG)' NM='$(NM)' \
	CC='$(CC)' CFLAGS='$(CFLAGS) $(PP_SANITIZE)' CXX='$(installcheck_cxx)' \
	CXXFLAGS='$(CXXFLAGS) $(PP_SANITIZE)' sanitize='$(PP_SANITIZE)' emulator='$(TEST_EMULATOR)' \
	$(SHELL) $(srcdir)/tests/check_client.sh $(installcheck_clients)
installcheck_clients = $(srcdir)/examples/osr.c $(srcdir)/examples/span.c
if HAVE_CXX
installcheck_cxx = $(CXX)
endif
