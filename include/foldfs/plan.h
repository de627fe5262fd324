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
 * The kernel fails an open with EIO if it does not fit the opens that the inode already has. So an
 * inode's plan is chosen at its first open and held until its last release. A struct plan_hold in
 * the inode counts the opens, under inode_lock().
 *
 * A client's mapping in `window` keeps our file open, so the release comes after munmap. In
 * passthrough a mapping keeps the backing file open and not ours: the release comes with the last
 * close, and stores may still follow it. So an inode that was open for writing in `own` stays in
 * `own`. That ends when the kernel says that nobody has the source file open for writing any more.
 *
 * The two sides see an open end at different moments: the kernel first. In between the daemon still
 * holds a plan that the kernel does not. That is harmless: to the kernel any plan is right for the
 * first open.
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
	X(MAPPED, "it may still be mapped by a program that wrote to it in passthrough")           \
	X(EQUAL, "it is equal to other files, and nobody can write to it here")                    \
	X(SET_ID, "it has set-id bits, and a write has to go through the daemon to clear them")    \
	X(APPEND, "it is append-only")                                                             \
	X(AWAITED, "a program is about to open it for writing")                                    \
	X(EMPTY, "it is empty")                                                                    \
	X(UNABLE, "the kernel, or the daemon's rights, do not allow passthrough")

enum plan_reason {
#define PLAN_REASON_ENUM(name, sentence) PLAN_##name,
	PLAN_REASONS(PLAN_REASON_ENUM)
#undef PLAN_REASON_ENUM
};

/* The file of an inode in `shared`, and its backing file. */
struct plan_shared {
	struct source_stamp stamp;   /* the file's, for which this is true */
	struct source_stamp backing; /* the backing file's */
	uint64_t backing_writers;    /* who may write to the backing file */
};

/* The entry of one inode that is in `shared`. */
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
	uint16_t granting;  /* chmods in progress that may give set-id bits */
	bool written;       /* was opened for writing in passthrough */
	bool mapped;        /* may still be mapped by a writer in `own`, though it is not open */
	bool locked;        /* a client has locked the file; stays as long as the inode */
	atomic_bool stores; /* plan_moves_times(); read without the lock */
	pid_t alone;        /* the thread that has the only open, for writing; 0: none */
	struct plan_sharer *sharer; /* of `shared` while open */
};

/* An open that has to be served. */
struct plan_open {
	int fd;                /* the source's descriptor */
	const struct stat *st; /* of fd */
	struct file *file;     /* what is known of its content; NULL: nothing */
	int flags;             /* the client's flags */
	pid_t pid;             /* the thread that opens it */
	bool asks;             /* a question only, no open: nothing is begun */
};

/* Make the plan of the source open as SOURCE_FD. Borrows PASSTHROUGH, and LEASES (those that the
 * daemon holds). -ENOMEM. */
errint_t plan_new(const struct options *options, int source_fd, struct passthrough *passthrough,
		  struct lease_table *leases, struct plan **ret_plan);
void plan_free(struct plan *plan);

/* From now on first opens go by GLOBS (-o passthrough=GLOB; NULL at the end, or NULL: none; copied)
 * and MAX_BYTES (passthrough_max). What is open keeps its plan. One caller at a time. Waits for a
 * grace period; not within a read side. -ENOMEM: nothing has changed. */
errint_t plan_set_passthrough(struct plan *plan, char *const *globs, uint64_t max_bytes);

/* Use what is known from earlier mounts (borrowed). To be called before the first request. Without
 * a catalogue, only what this mount reads is known. Without objects, nothing is shared in a
 * read-write mount. */
void plan_use_state(struct plan *plan, const struct state *state);

/* Ask the kernel for the features that plans need. In FUSE's init. */
void plan_init(struct plan *plan, struct fuse_conn_info *conn);

/* Whether the plan `window` is direct I/O. Constant. */
bool plan_is_direct(const struct plan *plan);

/* HOLD is what a process that has ended left of an inode. Nobody has it open yet: each open that
 * goes on is counted by plan_hold_rejoin(). */
void plan_hold_renew(struct plan_hold *hold);
void plan_hold_rejoin(struct plan *plan, struct plan_hold *hold);
/* Give back what HOLD has although nobody has it open: the process ended in between. The session is
 * known by then (passthrough_session()). Under the inode's lock. */
void plan_hold_settle(struct plan *plan, struct plan_hold *hold);

/*
 * Count one open of the inode that HOLD belongs to; the first open chooses the plan. Takes at most
 * a look-up and a few system calls on the source. Under the inode's lock. On -errno the open is
 * answered with it, and nothing was counted. -ESTALE: the inode keeps what its readers opened, and
 * this open needs another inode of the same file. -ETXTBSY: the file got set-id bits from the
 * caller that writes it in passthrough, and one more writer would not take them away.
 */
errint_t plan_enter(struct plan *plan, struct plan_hold *hold, const struct plan_open *open);

/* Whether the file of HOLD has to be looked at before it is opened for writing. True if nobody has
 * it open, but a writer in `own` may still have it mapped. Under the inode's lock. */
bool plan_may_be_mapped(const struct plan_hold *hold);
/* Look at the file, which is open as FD for reading alone. Under the same hold of the inode's
 * lock. */
void plan_look_mapped(struct plan_hold *hold, int fd);

/* End an open that was counted, of FILE (NULL: nothing is known of it). Under the inode's lock. */
void plan_leave(struct plan *plan, struct plan_hold *hold, struct file *file);

/* Whether the times of the inode's file may move without a message to anybody. A store does that
 * through a mapping that the kernel made of the source file itself. So this is true if the file is
 * open for reading and writing in `own`, or was and may still be mapped. Its attributes must not be
 * kept then. Kept attributes expire when this becomes true and when it ends. Any thread. */
bool plan_moves_times(const struct plan_hold *hold);

/* Whether the content of the inode's file may change under its readers, by way of this inode. Under
 * the inode's lock. */
bool plan_may_change(const struct plan_hold *hold);

/* An open or truncate of the file found as ST is about to be answered with ESTALE. The caller
 * retries with another inode. A faster opener of that inode must not begin a plan that refuses the
 * retry, because the kernel retries only once. So for some seconds the file's next plan is
 * `window`. To be called before anybody can find the other inode. Any thread. */
void plan_await(struct plan *plan, const struct stat *st);

/* PID is about to give the inode's file a mode with set-id bits. False: it may not, because others
 * could write to the file in passthrough, where nobody would take the bits away again. True: nobody
 * gets such a plan until plan_grant_end(). Both calls need the inode's lock. It is not held for the
 * change itself, which may wait for whoever has the file locked in the source. */
bool plan_grant_begin(struct plan_hold *hold, pid_t pid);
void plan_grant_end(struct plan_hold *hold);

/* Set FI's flags for an open that HOLD has just counted. UNCHANGED: what the kernel may still cache
 * of the inode is true and may stay. Returns whether it stays. Under the inode's lock. */
bool plan_answer(const struct plan *plan, const struct plan_hold *hold, bool unchanged,
		 struct fuse_file_info *fi);

/* The answer to `foldctl explain`: the plan that HOLD has, or the plan that OPEN would get if HOLD
 * has none. Under the inode's lock. */
void plan_explain(struct plan *plan, const struct plan_hold *hold, const struct plan_open *open,
		  enum plan_kind *ret_kind, enum plan_reason *ret_reason);
const char *plan_kind_name(enum plan_kind kind);
const char *plan_reason_sentence(enum plan_reason reason);

/* What was served since the mount from one file for all that are equal to it. */
struct plan_equal {
	uint64_t files;
	uint64_t backing_files; /* the files that they were served from */
	uint64_t saved_bytes;   /* the sizes of `files` less those of `backing_files` */
	uint64_t memory_bytes;  /* memory used to know this */
};
/* Any thread. */
void plan_equal(struct plan *plan, struct plan_equal *ret_equal);

/* Why kernel passthrough is not possible for any file (constant text). NULL: it is, where a plan
 * uses it. Any thread. */
const char *plan_unable(const struct plan *plan);

/* The number of inodes that are open in KIND now. Any thread. */
uint64_t plan_inodes(const struct plan *plan, enum plan_kind kind);

/* The open(2) flags for the source's descriptor, made of the client's flags. The kernel handles
 * O_APPEND and O_DIRECT for the client, so they must not stay (the kernel's write-back of a mapped
 * page is not aligned). O_APPEND stays only where the source insists on it. Such a file is never
 * passed through for writing, because it could be mapped there, and stored into at any place. */
int plan_source_flags(int client_flags);

/*
 * For the audit.
 */

/* All files that are shared now, in an array, the caller's to free; NULL if there is none.
 * -ENOMEM. */
errint_t plan_list_shared(struct plan *plan, struct plan_shared **ret_list, size_t *ret_count);
/* The file that backs SHARED, open for reading. -errno: it cannot be found any more. */
int plan_open_backing(struct plan *plan, const struct plan_shared *shared);
/* The first member of OBJECT's class that still has its stamp, and that OBJECT serves. Open for
 * reading; *ret_stamp is its stamp. -ENOENT. */
int plan_open_served(struct plan *plan, const struct catalogue_object *object,
		     struct source_stamp *ret_stamp);

#endif
