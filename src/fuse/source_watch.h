/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_watch.h - changes that others make in the source, as the kernel reports them
 *
 * One fanotify mark covers the source's whole file system, whatever mount a change comes by. One
 * thread reads the reports and makes the calls. Each report names the process that caused it, and
 * reports of this process are skipped. The watch knows neither FUSE nor pages.
 *
 * The kernel does not report, so the watch does not see:
 *  - a store through another process's mapping, until the process that stored closes the file;
 *  - changes that another machine makes on a network file system; such sources are refused for that
 *    reason.
 */
#ifndef FOLDFS_SOURCE_WATCH_H
#define FOLDFS_SOURCE_WATCH_H

#include "foldfs/page.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct counters;
struct source_watch;

/* The calls that a report leads to. All are made on the watching thread, which holds no lock. They
 * may block, also on the mount's own requests. Objects outside the source are reported too, as long
 * as they are on its file system. */
struct source_watch_calls {
	/* The content of a regular file has changed, or may have. */
	void (*content)(void *context, const struct stat *st);
	/* Something else of an object changed: owner, mode, times, link count, xattrs. */
	void (*attributes)(void *context, const struct stat *st);
	/* NAME in DIRECTORY appeared, vanished, or means another object. */
	void (*name)(void *context, const struct stat *directory, const char *name);
	/* A sweep: reports were lost, so anything may have changed. Reports from before CALM (of
	 * CLOCK_MONOTONIC, in nanoseconds) were not lost. -errno: the sweep failed, and must be
	 * repeated. Returns early, with any result, once source_watch_is_ending(). */
	errint_t (*everything)(void *context, int64_t calm);
};

/* This long after the last report the thread looks once more, so that CALM is later than the
 * report. */
#define SOURCE_WATCH_CALM_NS INT64_C(2100000000)

/*
 * Watch the file system of the directory open as SOURCE_FD (not O_PATH; borrowed). No thread runs
 * yet; changes are reported from now on. The calling process is the one whose reports are skipped,
 * so do not call it before a fork. CALLS and COUNTERS are borrowed.
 *
 * -EPERM: CAP_SYS_ADMIN or CAP_DAC_READ_SEARCH is missing. -EOPNOTSUPP: the file system has no file
 * handles or no identity of its own. -ENOSYS: the kernel has no such fanotify. -ENOMEM, -EMFILE.
 */
errint_t source_watch_new(int source_fd, const struct source_watch_calls *calls, void *context,
			  struct counters *counters, struct source_watch **ret_watch);
/* KNOWN: files are known already, from before the watch, so a sweep comes first. */
errint_t source_watch_start(struct source_watch *watch, bool known);
/* No call is made afterwards. Idempotent. Any thread except the watching one; waits for a call that
 * is under way. */
void source_watch_stop(struct source_watch *watch);
/* Whether source_watch_stop() is waiting. For use within the calls. */
bool source_watch_is_ending(const struct source_watch *watch);
/* NULL is fine. */
void source_watch_free(struct source_watch *watch);

#endif
