/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs.h - translates each FUSE request into one call; owns no content
 *
 * The session is fusefs.c; the requests are in src/fuse/, one file for each kind.
 */
#ifndef FOLDFS_FUSEFS_H
#define FOLDFS_FUSEFS_H

#include "foldfs/audit.h"
#include "foldfs/file.h"
#include "foldfs/fill.h"
#include "foldfs/lease.h"
#include "foldfs/options.h"
#include "foldfs/plan.h"
#include "foldfs/serve.h"
#include "foldfs/window.h"

#include <fuse_lowlevel.h>

struct fusefs;
struct session;
struct state;
struct takeover;
struct counters;

/* What a mount is made of, all borrowed. */
struct fusefs_parts {
	const struct options *options;
	int source_fd;
	int view_fd;                     /* passthrough_open_view() of the source, or -1 */
	struct session *records;         /* what a successor of this process will need */
	const struct takeover *takeover; /* what an earlier one left; all zero: nothing */
};

/* Make everything behind a mount. What PARTS.takeover has is taken over, also on failure; then the
 * process has to end, so that another one can try. No thread runs yet. -errno. */
errint_t fusefs_new(const struct fusefs_parts *parts, struct fusefs **ret_fs);
void fusefs_free(struct fusefs *fs);

/* Close everything that is open of the source, so that the source can be unmounted. Nothing is
 * served any more, and no other thread uses FS. Only fusefs_free() or fusefs_finish() may follow.
 * This is separate because taking down the rest takes longer. */
void fusefs_leave_source(struct fusefs *fs);

/* Like fusefs_leave_source(), but the process is about to end. The pool's memory goes back at once;
 * the end of the process frees everything else. FS is of no use afterwards. (Builds that look for
 * errors take it apart completely.) */
void fusefs_finish(struct fusefs *fs);

/* Set the state of earlier mounts that plans may rest on. Borrowed until fusefs_free(). Call it
 * before FS serves. */
void fusefs_use_state(struct fusefs *fs, const struct state *state);

/* From now on follow changes that others make in the source, if they are not followed already.
 * After fusefs_serve() has begun, everything that is known is compared first. Returns what
 * source_watch_new() returns; -ESHUTDOWN: the end has begun. */
errint_t fusefs_watch(struct fusefs *fs);
/* Whether the source open as SOURCE_FD can be followed: what fusefs_watch() would return. */
errint_t fusefs_watch_check(int source_fd);
/* Do not follow them any more. Any thread that no request waits for; waits for the watching
 * thread. */
void fusefs_unwatch(struct fusefs *fs);

/*
 * What may change while FS serves (fusefs_settings.c). One caller at a time, between the start of
 * fusefs_serve() and fusefs_free(), on a thread that no request waits for. Requests go on, and go
 * by the old or the new value.
 */

/* How long the kernel may keep what it is told from now on. */
void fusefs_set_timeouts(struct fusefs *fs, const struct options *options);
/* Which files the kernel serves by itself, among those that are opened from now on. -ENOMEM. */
errint_t fusefs_set_passthrough(struct fusefs *fs, const struct options *options);
/* See page_store_resize(). BYTES: up to fusefs_pool_most(), which is constant. */
errint_t fusefs_set_pool(struct fusefs *fs, uint64_t bytes);
uint64_t fusefs_pool_most(const struct fusefs *fs);
/* See window_set_budget(). */
void fusefs_set_window(struct fusefs *fs, uint64_t bytes);
/* See file_table_set_budget(). */
void fusefs_set_maps(struct fusefs *fs, uint64_t bytes);

/* The operations, for fuse_session_new() with FS as user data. */
extern const struct fuse_lowlevel_ops fusefs_operations;

/* Serve SE, which is mounted, until it is unmounted or told to exit. Call it after any fork: it
 * starts all threads. fusefs_quiesce() and fusefs_free() stop those that are left at the end.
 * READY is called once the first request is read. Returns 0, or the -errno that ended it.
 * After an error the mount may still stand, with reads that
 * nobody answers. The caller then ends the connection before it calls those two. */
errint_t fusefs_serve(struct fusefs *fs, struct fuse_session *se, void (*ready)(void *context),
		      void *context);

/* Make fusefs_serve() return as soon as the requests in hand are done, even if it has not begun
 * yet. Any thread except those that handle requests; does not wait. */
void fusefs_end(struct fusefs *fs);
/* The same for a successor: what waits for a lock stays unanswered, what is open stays open, and
 * what files are known to have in common is kept. */
void fusefs_hand_over(struct fusefs *fs);

/* Have the kernel write back everything that clients stored through mappings, and wait for it. Call
 * it while requests are answered, without a lock, and from a thread that no request waits for. */
void fusefs_write_back(struct fusefs *fs);

/* Stop the threads that wait for the kernel, shortly before the end, while requests are still
 * answered. Call it before fusefs_end() on a session that is still mounted, or once the connection
 * has ended. A second call is harmless. Blocks shortly. */
void fusefs_quiesce(struct fusefs *fs);

/* The transport in use: "io_uring", "dev", or "none" before the first request. Any thread. */
const char *fusefs_transport(const struct fusefs *fs);

/* Where clients' locks hold: "source" (there, and among the clients), "mount" (among the clients), or
 * "none" before the first request. Any thread. */
const char *fusefs_locks(const struct fusefs *fs);

/* How the file that clients see under the inode number SHOWN is served, or would be served.
 * -ENOENT: the kernel knows no such file now. May block on the source. */
struct fusefs_plan {
	enum plan_kind kind;
	enum plan_reason reason;
	bool open;
	uint64_t known_pages;  /* pages that a scan has found to be another file's as well */
	uint64_t pool_pages;   /* pages that are in the pool now */
	uint64_t shared_pages; /* pages of pool_pages whose frames other pages use, too */
	uint64_t zero_pages;   /* pages that are known to be all zero, and so are in no frame */
};
errint_t fusefs_explain(struct fusefs *fs, ino_t shown, struct fusefs_plan *ret_plan);

/* What status reports; each figure is a moment's view. Any thread. Takes no lock that a request may
 * hold for long, and never touches the mount or the source. */
struct fusefs_usage {
	struct page_store_usage store;
	struct window_usage window;
	uint64_t zero_pages;
	uint64_t maps_bytes;
	uint64_t clones_found;
	uint64_t inodes;
	struct lease_usage leases;
	uint64_t locks_held;    /* ranges and files that clients have locked, in the source too */
	uint64_t locks_waiting; /* requests that wait for such a lock */
	uint64_t locks_bytes;
	struct plan_equal equal;
	const char *no_passthrough; /* why (constant text); NULL: there is kernel passthrough */
	uint64_t window_inodes;
	uint64_t own_inodes;
	uint64_t shared_inodes;
	uint64_t inodes_bytes;
	uint64_t open_handles; /* files and directories that clients have open */
	uint64_t handles_bytes;
	struct serve_usage serve;
	uint64_t fetching; /* reads that the fetcher has */
	uint64_t transport_bytes;
};
void fusefs_usage(const struct fusefs *fs, struct fusefs_usage *ret_usage);
/* The sum of all memory figures in USAGE. */
static inline uint64_t fusefs_memory(const struct fusefs_usage *usage)
{
	return usage->store.pool_bytes + usage->maps_bytes + usage->store.index_bytes +
	       usage->inodes_bytes + usage->handles_bytes + usage->window.memory_bytes +
	       usage->locks_bytes + usage->transport_bytes;
}

const struct counters *fusefs_stats(const struct fusefs *fs);

/* Audit everything behind the mount. See audit.h, also for IDLE and the result.
 * IS_CANCELLED(CONTEXT) tells when to give up. Any thread; one audit at a time, between the start
 * of fusefs_serve() and fusefs_free(). */
errint_t fusefs_audit(struct fusefs *fs, bool idle, bool (*is_cancelled)(void *context),
		      void *context, struct audit_report *ret_report);

#endif
