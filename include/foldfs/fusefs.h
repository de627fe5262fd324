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
struct state;
struct counters;

/* Everything behind a mount of SOURCE_FD (borrowed), as OPTIONS say; no thread runs yet. -errno. */
errint_t fusefs_new(const struct options *options, int source_fd, struct fusefs **ret_fs);
void fusefs_free(struct fusefs *fs);

/* Nothing is served any more, and nobody asks anything of FS but fusefs_free(): give back all that
 * is open of the source, which can be unmounted from then on. Taking down the rest takes longer. */
void fusefs_leave_source(struct fusefs *fs);

/* The same, and the process ends: the pool's memory goes back at once, and all else with the
 * process. FS is of no use any more. (Builds that look for errors take it apart.) */
void fusefs_finish(struct fusefs *fs);

/* What plans may rest on from earlier mounts; borrowed until fusefs_free(). Before it serves. */
void fusefs_use_state(struct fusefs *fs, const struct state *state);

/* Follow what others change in the source from now on. At most once, between fusefs_new() and
 * fusefs_serve(); no thread runs yet. What source_watch_new() returns. */
errint_t fusefs_watch(struct fusefs *fs);

/* The operations, for fuse_session_new() with FS as user data. */
extern const struct fuse_lowlevel_ops fusefs_operations;

/* Serve SE, which is mounted, until it is unmounted or told to exit; starts all threads, of which
 * fusefs_quiesce() and fusefs_free() stop those that are left. After any fork. 0, or -errno that
 * ended it: then the mount may still stand, with reads that nobody answers, and the caller ends the
 * connection before those two. */
errint_t fusefs_serve(struct fusefs *fs, struct fuse_session *se);

/* Have fusefs_serve() return as soon as the requests in hand are done, also if it has not begun.
 * Any thread but those that handle requests; does not wait. */
void fusefs_end(struct fusefs *fs);

/* Have the kernel write back all that clients stored through mappings, and wait for it. While
 * requests are answered; from a thread that none of them waits for, holding no lock. */
void fusefs_write_back(struct fusefs *fs);

/* The end is near, requests are still answered: stop what waits for the kernel. To be called before
 * fusefs_end() on a session that is still mounted, or when the connection has ended; then again is
 * harmless. Blocks shortly. */
void fusefs_quiesce(struct fusefs *fs);

/* Of the running transport: "io_uring", "dev", or "none" before the first request. Any thread. */
const char *fusefs_transport(const struct fusefs *fs);

/* How the file that clients see under the inode number SHOWN is served, or will be. -ENOENT: the
 * kernel knows no such file now. May block on the source. */
struct fusefs_plan {
	enum plan_kind kind;
	enum plan_reason reason;
	bool open;
	uint64_t known_pages;  /* that a scan has found to be another file's as well */
	uint64_t pool_pages;   /* that are in the pool now */
	uint64_t shared_pages; /* those of them whose frames other pages use, too */
	uint64_t zero_pages;   /* that are known to be all zero, and so are in no frame */
};
errint_t fusefs_explain(struct fusefs *fs, ino_t shown, struct fusefs_plan *ret_plan);

/* What status reports; each a moment's view. Any thread, no lock that a request may hold for long,
 * never touches the mount or the source. */
struct fusefs_usage {
	struct page_store_usage store;
	struct window_usage window;
	uint64_t zero_pages;
	uint64_t maps_bytes;
	uint64_t clones_found;
	uint64_t inodes;
	struct lease_usage leases;
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
/* The sum of what USAGE says of memory. */
static inline uint64_t fusefs_memory(const struct fusefs_usage *usage)
{
	return usage->store.pool_bytes + usage->maps_bytes + usage->store.index_bytes +
	       usage->inodes_bytes + usage->handles_bytes + usage->window.memory_bytes +
	       usage->transport_bytes;
}

const struct counters *fusefs_stats(const struct fusefs *fs);

/* Audit everything behind the mount: see audit.h, also for IDLE and the result.
 * IS_CANCELLED(CONTEXT) tells when to give up. Any thread; one at a time, between fusefs_serve()'s
 * start and fusefs_free(). */
errint_t fusefs_audit(struct fusefs *fs, bool idle, bool (*is_cancelled)(void *context),
		      void *context, struct audit_report *ret_report);

#endif
