/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_watch.h - what others change in the source, as the kernel reports it
 *
 * One fanotify mark on the source's whole file system, whatever mount a change comes by; one thread
 * that reads the reports and calls back. What this process does itself is passed over: a report
 * names the process that caused it. Knows no FUSE and no pages.
 *
 * Not reported by the kernel, and so not seen: a store through somebody's mapping, until the file
 * is closed by whoever stored; changes that another machine makes on a network file system, which
 * is why such sources are refused.
 */
#ifndef FOLDFS_SOURCE_WATCH_H
#define FOLDFS_SOURCE_WATCH_H

#include "foldfs/page.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct counters;
struct source_watch;

/* What a report leads to. All are called on the watching thread, which holds no lock; they may
 * block, also on the mount's own requests. Objects outside the source are among them, as long as
 * they are on its file system. */
struct source_watch_calls {
	/* A regular file has another content, or may have. */
	void (*content)(void *context, const struct stat *st);
	/* Something else of an object changed: owner, mode, times, link count, xattrs. */
	void (*attributes)(void *context, const struct stat *st);
	/* NAME in DIRECTORY came, went, or means another object. */
	void (*name)(void *context, const struct stat *directory, const char *name);
	/* A sweep: reports were lost, anything may have changed. What was reported before CALM (of
	 * CLOCK_MONOTONIC, in nanoseconds) was not among them. -errno: it could not be done, and is
	 * to be tried again. Ends early, with any result, once source_watch_is_ending(). */
	errint_t (*everything)(void *context, int64_t calm);
};

/* So long after the last report the thread looks once more, so that CALM is later than that. */
#define SOURCE_WATCH_CALM_NS INT64_C(2100000000)

/*
 * Watch the file system of the directory open as SOURCE_FD (not O_PATH; borrowed). No thread yet;
 * what happens from now on is reported. The calling process is the one that is passed over, so not
 * before a fork. CALLS and STATS are borrowed.
 *
 * -EPERM: without CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH. -EOPNOTSUPP: the file system has no file
 * handles or no identity of its own. -ENOSYS: the kernel has no such fanotify. -ENOMEM, -EMFILE.
 */
errint_t source_watch_new(int source_fd, const struct source_watch_calls *calls, void *context,
			  struct counters *counters, struct source_watch **ret_watch);
errint_t source_watch_start(struct source_watch *watch);
/* Afterwards nothing is called. Idempotent, any thread but the watching one; waits for a call that
 * is under way. */
void source_watch_stop(struct source_watch *watch);
/* Whether source_watch_stop() waits. For the calls. */
bool source_watch_is_ending(const struct source_watch *watch);
/* NULL is fine. */
void source_watch_free(struct source_watch *watch);

#endif
