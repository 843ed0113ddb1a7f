# SPDX-License-Identifier: MIT
#
# pp-stress and its recordings: a part of Makefile.am.
#
# It uses the installed interface only, so that it tests what a host gets.

# What its tests use, too, is in a library of its own.

bin_PROGRAMS = pp-stress
pp_stress_SOURCES = \
	stress/catalog.c \
	stress/catalog.h \
	stress/faults.c \
	stress/faulty.c \
	stress/faulty.h \
	stress/fork.c \
	stress/live.c \
	stress/live.h \
	stress/memory.c \
	stress/options.c \
	stress/options.h \
	stress/osr.c \
	stress/passages.c \
	stress/passages.h \
	stress/patch.c \
	stress/play.c \
	stress/play.h \
	stress/replay.c \
	stress/report.c \
	stress/report.h \
	stress/resume.c \
	stress/retarget.c \
	stress/run.h \
	stress/samples.c \
	stress/samples.h \
	stress/stress.c \
	stress/stress.h \
	stress/suspend.c \
	stress/suspend.h \
	stress/together.c \
	stress/together.h \
	stress/walk.c
pp_stress_CPPFLAGS = $(stress_cppflags) -DRECORDINGS_DIRECTORY='"$(recordingsdir)"'
pp_stress_CFLAGS = $(AM_CFLAGS) $(LIBUNWIND_CFLAGS)
pp_stress_LDADD = libstress.la libpatchpoint.la $(LIBUNWIND_LIBS) $(PTHREAD_LIBS)
stress_cppflags = -I$(top_srcdir)/include -I$(top_srcdir)

noinst_LTLIBRARIES += libstress.la
libstress_la_SOURCES = \
	stress/frames.c \
	stress/frames.h \
	stress/instructions.h \
	stress/method.c \
	stress/method.h \
	stress/moves.h \
	stress/pages.c \
	stress/pages.h \
	stress/passage.c \
	stress/passage.h \
	stress/passage_check.c \
	stress/passage_draw.c \
	stress/perform.c \
	stress/perform.h \
	stress/random.h \
	stress/recording.c \
	stress/recording.h \
	stress/registers.c \
	stress/registers.h \
	stress/synth.c \
	stress/synth.h \
	stress/tally.c \
	stress/tally.h \
	stress/targets.c \
	stress/targets.h \
	stress/template.h
if ARCH_X86_64
libstress_la_SOURCES += stress/instructions_x86_64.c stress/moves_x86_64.c \
	stress/x86_64/frames.S stress/x86_64/template.S
endif
if ARCH_AARCH64
libstress_la_SOURCES += stress/instructions_aarch64.c stress/moves_aarch64.c \
	stress/aarch64/frames.S stress/aarch64/template.S
endif
libstress_la_CPPFLAGS = $(stress_cppflags) -I$(top_srcdir)/asm

# The link that configure made to the recordings, in a build tree elsewhere.
distclean-local:
	test ! -h stress/recordings || rm -f stress/recordings

recordingsdir = $(pkgdatadir)/recordings
dist_recordings_DATA = \
	stress/recordings/README.md \
	stress/recordings/cpython-aarch64-fannkuch.rec \
	stress/recordings/cpython-aarch64-loops.rec \
	stress/recordings/cpython-aarch64-nbody.rec \
	stress/recordings/cpython-aarch64-richards.rec \
	stress/recordings/cpython-x86_64-fannkuch.rec \
	stress/recordings/cpython-x86_64-loops.rec \
	stress/recordings/cpython-x86_64-mixed.rec \
	stress/recordings/cpython-x86_64-nbody.rec \
	stress/recordings/cpython-x86_64-richards.rec \
	stress/recordings/cpython-x86_64-tests.rec
