# SPDX-License-Identifier: MIT
#
# Benchmarks, one program for each question: a part of Makefile.am.
#
# `make bench` builds and runs them; BENCH_FLAGS=--quick for a first look.

bench_programs = \
	bench/closures \
	bench/lookup \
	bench/patchpoint \
	bench/recordings \
	bench/resume \
	bench/retarget \
	bench/scale \
	bench/steady
EXTRA_PROGRAMS = $(bench_programs)
CLEANFILES = $(bench_programs) bench/rows

bench_cppflags = $(stress_cppflags) -DBENCH_RECORDINGS='"$(abs_top_srcdir)/stress/recordings"'
bench_ldadd = libpatchpoint.la $(PTHREAD_LIBS)
bench_harness = bench/harness.c bench/harness.h
bench_contestants = bench/contestant.c bench/contestant.h bench/load.c bench/load.h
bench_peer_libs =

EXTRA_DIST = bench/asmjit.cc bench/llvm.cc bench/table.awk

if HAVE_ASMJIT
bench_cppflags += -DHAVE_ASMJIT=1
bench_contestants += bench/asmjit.cc
bench_peer_libs += -lasmjit
endif
if HAVE_LLVM
bench_cppflags += -DHAVE_LLVM=1
bench_contestants += bench/llvm.cc
bench_peer_libs += $(LLVM_LIBS)
endif
if HAVE_FFI
bench_cppflags += -DHAVE_FFI=1 $(FFI_CFLAGS)
endif
if HAVE_FFCALL
bench_cppflags += -DHAVE_FFCALL=1
bench_ffcall_libs = -lcallback
endif

bench_closures_SOURCES = bench/closures.c $(bench_harness)
bench_closures_CPPFLAGS = $(bench_cppflags)
bench_closures_LDADD = $(bench_ldadd) $(FFI_LIBS) $(bench_ffcall_libs)

bench_lookup_SOURCES = bench/lookup.c $(bench_harness)
bench_lookup_CPPFLAGS = $(bench_cppflags)
bench_lookup_LDADD = $(bench_ldadd)

bench_patchpoint_SOURCES = bench/patchpoint.c $(bench_harness)
bench_patchpoint_CPPFLAGS = $(bench_cppflags)
bench_patchpoint_LDADD = $(bench_ldadd)

bench_recordings_SOURCES = bench/recordings.c $(bench_harness)
bench_recordings_CPPFLAGS = $(bench_cppflags)
bench_recordings_LDADD = libstress.la $(bench_ldadd)

bench_resume_SOURCES = bench/resume.c stress/suspend.c stress/suspend.h $(bench_harness)
bench_resume_CPPFLAGS = $(bench_cppflags)
bench_resume_CFLAGS = $(AM_CFLAGS) $(LIBUNWIND_CFLAGS)
bench_resume_LDADD = libstress.la libpatchpoint.la -lgcc_s $(LIBUNWIND_LIBS) $(PTHREAD_LIBS)

bench_retarget_SOURCES = bench/retarget.c $(bench_harness)
bench_retarget_CPPFLAGS = $(bench_cppflags)
bench_retarget_LDADD = $(bench_ldadd) $(FFI_LIBS)

bench_scale_SOURCES = bench/scale.c $(bench_harness) $(bench_contestants)
bench_scale_CPPFLAGS = $(bench_cppflags)
bench_scale_CXXFLAGS = $(AM_CXXFLAGS) $(LLVM_CXXFLAGS)
bench_scale_LDADD = $(bench_ldadd) $(bench_peer_libs)

bench_steady_SOURCES = bench/steady.c $(bench_harness) $(bench_contestants)
bench_steady_CPPFLAGS = $(bench_cppflags)
bench_steady_CXXFLAGS = $(AM_CXXFLAGS) $(LLVM_CXXFLAGS)
bench_steady_LDADD = $(bench_ldadd) $(bench_peer_libs)

# jemalloc fits into a process late with this much static thread-local storage.
.PHONY: bench
bench: $(bench_programs)
	@test -z "$(PP_NO_PEERS)" || echo "not compared with, because not installed:$(PP_NO_PEERS)"
	@rm -f bench/rows
	@GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384; export GLIBC_TUNABLES; \
	for program in $(bench_programs); do \
	  $(LIBTOOL) --silent --mode=execute $(TEST_EMULATOR) ./$$program --rows bench/rows $(BENCH_FLAGS) || exit 1; \
	done
	@awk -f $(srcdir)/bench/table.awk bench/rows
