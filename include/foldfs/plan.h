/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.h - how an open file is served; the only place that knows FUSE's open flags
 *
 *   window  the kernel caches what the pool answers, within the window's budget (cached mode; with
 *           window=0 direct I/O)
 *   own     kernel passthrough to the file itself: for files that share next to nothing
 *   shared  kernel passthrough to one backing file for all files with the same bytes: for
 *           whole-equal files that nobody writes
 *
 * The kernel fails an open with EIO if it does not fit those that the inode has already. So an
 * inode's plan is chosen at its first open and held until its last release: a struct plan_hold in
 * the inode, under inode_lock(), counts the opens. What a client maps of a `window` keeps its file
 * open, so the release comes after munmap. In passthrough it keeps the backing file open and not
 * ours: the release comes with the last close, and stores go on behind it. So what was open for
 * writing in `own` stays in it until the kernel says that nobody has the source file so any more.
 *
 * The two sides see an open end at different moments: the kernel first. Between the two the daemon
 * still holds a plan that the kernel does not, which is harmless: to the kernel any plan is right
 * for the first open.
 */
#ifndef FOLDFS_PLAN_H
#define FOLDFS_PLAN_H

#include "foldfs/options.h"
#include "foldfs/passthrough.h"
#include "foldfs/source.h"

#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include <urcu/list.h>

struct catalogue_object;
struct file;
struct lease_table;
struct plan;
struct state;

enum plan_kind {
	PLAN_WINDOW,
	PLAN_OWN,
	PLAN_SHARED,
};

/* Why an inode has its plan: X(name, sentence). */
#define PLAN_REASONS(X)                                                                            \
	X(UNKNOWN, "not enough of it was known to tell what it shares")                            \
	X(SHARES, "it shares pages with other files, or with itself")                              \
	X(LARGE, "it shares next to nothing, but is larger than passthrough_max")                  \
	X(UNIQUE, "it shares next to nothing")                                                     \
	X(ASKED, "the option passthrough names it")                                                \
	X(MAPPED, "it may still be mapped by who wrote to it in passthrough")                      \
	X(EQUAL, "it is equal to other files, and nobody can write to it here")                    \
	X(SET_ID, "it has set-id bits, which a write by way of the daemon takes from it")          \
	X(APPEND, "it may only be appended to")                                                    \
	X(AWAITED, "somebody is about to change it, whom its readers' inode did not take")         \
	X(EMPTY, "it is empty")                                                                    \
	X(UNABLE, "the kernel or the daemon's rights do not allow passthrough")

enum plan_reason {
#define PLAN_REASON_ENUM(name, sentence) PLAN_##name,
	PLAN_REASONS(PLAN_REASON_ENUM)
#undef PLAN_REASON_ENUM
};

/* An inode's file in `shared`, and what backs it. */
struct plan_shared {
	struct source_stamp stamp;   /* the file's, as of which it is true */
	struct source_stamp backing; /* that file's */
	uint64_t backing_writers;    /* who may write to it */
};

/* One inode's hold of `shared`. */
struct plan_sharer {
	struct cds_list_head link; /* of plan.c */
	struct plan_shared shared; /* constant */
};

/* An inode's plan. All zero: not open, nothing remembered. Under inode_lock(). */
struct plan_hold {
	uint32_t opens;
	int32_t backing_id; /* of `own` and `shared` while open */
	uint8_t kind;       /* enum plan_kind; while open */
	uint8_t reason;     /* enum plan_reason; while open */
	uint16_t granting;  /* chmods under way that may give set-id bits */
	bool written;       /* was opened for writing while the daemon is out of the way */
	bool mapped;        /* may be mapped by who wrote to it in `own`, though it is not open */
	atomic_bool stores; /* plan_moves_times(); read without the lock */
	pid_t alone;        /* the thread that has the only open, for writing; 0: nobody */
	struct plan_sharer *sharer; /* of `shared` while open */
};

/* An open that is to be served. */
struct plan_open {
	int fd;                /* the source's descriptor */
	const struct stat *st; /* of it */
	struct file *file;     /* what is known of its content; NULL: nothing */
	int flags;             /* the client's */
	pid_t pid;             /* the thread that opens it */
	bool asks;             /* nobody opens it: nothing is begun */
};

/* For the source open as SOURCE_FD. OPTIONS, BACKING and LEASES, which the daemon holds, are
 * borrowed. -ENOMEM. */
errint_t plan_new(const struct options *options, int source_fd, struct passthrough *passthrough,
		  struct lease_table *leases, struct plan **ret_plan);
void plan_free(struct plan *plan);

/* What is known from earlier mounts (borrowed), before the first request. Without a catalogue only
 * what this mount reads is known; without objects nothing is shared in a read-write mount. */
void plan_use_state(struct plan *plan, const struct state *state);

/* Ask the kernel for what plans need. In FUSE's init. */
void plan_init(struct plan *plan, struct fuse_conn_info *conn);

/* Whether the window's plan is direct I/O. Constant. */
bool plan_is_direct(const struct plan *plan);

/*
 * Count one open of the inode that HOLD belongs to: choose its plan if it is the first. At most a
 * look-up and a few system calls on the source. Under the inode's lock. -errno that answers the
 * open; then nothing was counted. -ESTALE: the inode keeps what its readers opened; the open is for
 * another inode of the same file. -ETXTBSY: the file has got set-id bits from who writes it in
 * passthrough, and one more writer would not take them away.
 */
errint_t plan_enter(struct plan *plan, struct plan_hold *hold, const struct plan_open *open);

/* Whether the file of HOLD is to be looked at before it is opened for writing: nobody has it open,
 * but it may be mapped by who wrote to it in `own`. Under the inode's lock. */
bool plan_may_be_mapped(const struct plan_hold *hold);
/* Look at it: it is open as FD for reading alone. Under the same hold of the lock. */
void plan_look_mapped(struct plan_hold *hold, int fd);

/* The end of an open that was counted, of FILE (NULL: nothing is known of it). Under the inode's
 * lock. */
void plan_leave(struct plan *plan, struct plan_hold *hold, struct file *file);

/* Whether times of the inode's file may move and nobody is told, by a store through a mapping that
 * the kernel made of the source file itself: it is open for reading and writing in `own`, or was
 * and may be mapped still. Its attributes must not be kept then, and what is kept expires when this
 * begins and when it ends. Any thread. */
bool plan_moves_times(const struct plan_hold *hold);

/* Whether the content of the inode's file may change under its readers, by way of this inode. Under
 * the inode's lock. */
bool plan_may_change(const struct plan_hold *hold);

/* Somebody's open or truncate of the file found as ST is being answered with ESTALE: he comes
 * again, by another inode. Whoever opens that one before him must not begin what refuses him again,
 * for the kernel asks twice and no more: for some seconds the file's next plan is the window.
 * Before anybody can find the other inode. Any thread. */
void plan_await(struct plan *plan, const struct stat *st);

/* PID is about to give the inode's file a mode with set-id bits. False: he may not, for others
 * could write to it with the daemon out of the way, where nobody would take the bits away again. If
 * he may, nobody gets such a plan until plan_grant_end(). Both under the inode's lock, which is not
 * held for the change itself: that may wait for whoever has the file locked in the source. */
bool plan_grant_begin(struct plan_hold *hold, pid_t pid);
void plan_grant_end(struct plan_hold *hold);

/* Set FI's flags for an open that HOLD has just counted. UNCHANGED: what the kernel may still cache
 * of the inode is true and may stay. Returns whether it stays. Under the inode's lock. */
bool plan_answer(const struct plan *plan, const struct plan_hold *hold, bool unchanged,
		 struct fuse_file_info *fi);

/* What `foldctl explain` says: the plan that HOLD has, or that OPEN would get if it has none. Under
 * the inode's lock. */
void plan_explain(struct plan *plan, const struct plan_hold *hold, const struct plan_open *open,
		  enum plan_kind *ret_kind, enum plan_reason *ret_reason);
const char *plan_kind_name(enum plan_kind kind);
const char *plan_reason_sentence(enum plan_reason reason);

/* What was served since the mount from one file for all that are equal. */
struct plan_equal {
	uint64_t files;
	uint64_t backing_files; /* that they were served from */
	uint64_t saved_bytes;   /* the sizes of the former less those of the latter */
	uint64_t memory_bytes;  /* of what is known of it */
};
/* Any thread. */
void plan_equal(struct plan *plan, struct plan_equal *ret_equal);

/* Why the kernel serves no file by itself (constant text); NULL: it does, where a plan says so. Any
 * thread. */
const char *plan_unable(const struct plan *plan);

/* Inodes that are open in KIND now. Any thread. */
uint64_t plan_inodes(const struct plan *plan, enum plan_kind kind);

/* The open(2) flags for the source's descriptor, from the client's. O_APPEND and O_DIRECT are the
 * kernel's to resolve and must not stay (the kernel's write-back of a mapped page is not aligned).
 * O_APPEND stays only where the source insists on it: such a file is never passed through for
 * writing, for there it could be mapped, and stored into anywhere. */
int plan_source_flags(int client_flags);

/*
 * For the audit.
 */

/* All that are shared now, in an array, the caller's to free; NULL if there is none. -ENOMEM. */
errint_t plan_list_shared(struct plan *plan, struct plan_shared **ret_list, size_t *ret_count);
/* The file that backs SHARED, open for reading. -errno: it is not to be found any more. */
int plan_open_backing(struct plan *plan, const struct plan_shared *shared);
/* The first member of OBJECT's class that still is what it was, and that OBJECT serves: open for
 * reading; *ret_stamp is its stamp. -ENOENT. */
int plan_open_served(struct plan *plan, const struct catalogue_object *object,
		     struct source_stamp *ret_stamp);

#endif
