/* SPDX-License-Identifier: Apache-2.0 */
/* fusefs_internal.h - what the fusefs_*.c files share; no other file includes it. */
#ifndef FOLDFS_FUSEFS_INTERNAL_H
#define FOLDFS_FUSEFS_INTERNAL_H

#include "fetcher.h"
#include "foldfs/clones.h"
#include "foldfs/cow_break.h"
#include "foldfs/fusefs.h"
#include "foldfs/lease.h"
#include "foldfs/plan.h"
#include "foldfs/rcu.h"
#include "foldfs/readahead.h"
#include "foldfs/session.h"
#include "foldfs/takeover.h"
#include "foldfs/thread_identity.h"
#include "fusefs_reply.h"
#include "inode.h"
#include "shares.h"
#include "slab.h"
#include "source_watch.h"

#include <pthread.h>
#include <stdatomic.h>

#include <urcu/list.h>

/* All fields are constant after fusefs_new(), except where marked. */
struct fusefs {
	struct passthrough *passthrough;
	struct plan *plan;
	enum transport_choice transport;
	enum locks_choice locks_choice;
	/* Seconds. Any of them may change at any time: an answer goes by what it reads. */
	_Atomic double attr_timeout;
	_Atomic double entry_timeout;
	_Atomic double negative_timeout;
	bool read_only; /* stays so even if a remount changes the mount */
	int source_fd;  /* the source directory, opened before the mount covers anything */

	struct counters *counters;
	struct page_store *store;
	struct page_map_memory *map_memory;
	struct file_table *files;
	struct family_table *families;
	struct clones *clones;
	struct catalogue
		*catalogue; /* borrowed; NULL: there is none. Set before the first thread */
	struct shared_copies *copies; /* the same */
	struct filler filler;
	struct fetcher *fetcher;
	struct cow_break cow;
	struct serve *serve;
	struct session *records;       /* what outlives the process; borrowed */
	struct shares *open_handles;   /* files and directories that clients have open, by user */
	struct slab *files_open;       /* handles of files */
	struct slab *directories_open; /* handles of directories */
	struct workers *workers;       /* for read-ahead */
	struct workers *closers;       /* one, drops caches and closes; ended before workers */
	struct memory_keeper *keeper;
	struct lease_table *leases;
	struct locks *locks;
	struct window *window;
	struct inode_table *inodes;
	pthread_mutex_t watch_lock; /* held while the watching thread is started or ends */
	struct source_watch *watch; /* NULL: there is none; under watch_lock, like the next three */
	bool watch_begun;           /* a watch begins as soon as it is made */
	bool watch_runs;            /* there is a thread */
	bool watch_over;            /* no watch begins any more */

	struct fuse_session *session; /* set in fusefs_serve(), before the first request */
	atomic_bool uses_io_uring;    /* set by the first request that came by io_uring */
	atomic_bool said_opened;      /* opens behind the mount were logged */
	atomic_bool hands_over;       /* fusefs_hand_over() was called */
	atomic_bool begun;            /* set by init(), when the kernel has agreed to something */
	bool agrees;                  /* set by init(); before there are threads */
	_Atomic uint64_t rings_bytes; /* set by init(); 0: there are no rings */
	atomic_bool locks_source;     /* set by init(): clients' locks are taken in the source */

	_Atomic uint64_t handles_bytes;   /* of open files, beside the slab's */
	pthread_mutex_t handles_lock;     /* a leaf */
	struct cds_list_head handles;     /* of open files; under handles_lock */
	struct cds_list_head directories; /* open directories; under handles_lock */
};

/* Called for the first request on this thread that came by io_uring. */
extern __thread bool fusefs_on_ring;
void fusefs_ring_begin(struct fusefs *fs);

/* For requests that run on a thread that may be lent (identity_lend()). Such a request needs no
 * right of the daemon's own, or asks for it where it does (identity_make_own()). */
static inline struct fusefs *fusefs_of_lent(fuse_req_t req)
{
	struct fusefs *fs = fuse_req_userdata(req);

	FUSEFS_TSAN_REQUEST();
	if (!fusefs_on_ring && fuse_req_is_uring(req))
		fusefs_ring_begin(fs);
	return fs;
}

/* For all other requests. */
static inline struct fusefs *fusefs_of(fuse_req_t req)
{
	identity_make_own();
	return fusefs_of_lent(req);
}

/* ---- fusefs_watch.c ---- */

/* The watch, if there is one, begins; a later one begins as soon as it is made. */
errint_t fusefs_watch_start(struct fusefs *fs);
/* The watch ends, if there is one, and none begins any more. While requests are still answered. */
void fusefs_watch_stop(struct fusefs *fs);

/* ---- fusefs_request.c ---- */

/* Count one more open file or directory for REQ's user. -ENFILE: this exceeds his share of what the
 * daemon may have open. Call it before anything is opened or made; fusefs_handle_give() undoes
 * it. */
errint_t fusefs_handle_take(struct fusefs *fs, fuse_req_t req);
void fusefs_handle_give(struct fusefs *fs, uid_t user);

/* ---- fusefs_entry.c ---- */

/* Fill ENTRY for INODE (whose look-up was counted). */
void fusefs_entry(struct fusefs *fs, struct inode *inode, const struct stat *st,
		  struct fuse_entry_param *ret_entry);

/* How many seconds the kernel may keep the attributes of INODE that it is told. */
double fusefs_attr_timeout(struct fusefs *fs, struct inode *inode);
/* Tell the kernel that the attributes it keeps of INODE are no longer true. Not with a lock
 * held. */
void fusefs_attr_expire(struct fusefs *fs, const struct inode *inode);
/* If no client has INODE open, find out whether a client that wrote to it in passthrough may still
 * have it mapped. */
void fusefs_look_mapped(struct fusefs *fs, struct inode *inode);

/* Adapt ST, a stat of the source object open as FD, for the client: see inode_number_shown().
 * -errno. */
errint_t fusefs_stat_show(const struct fusefs *fs, int fd, struct stat *st);

/* ---- fusefs_own_change.c ---- */

/*
 * Brackets a change of ours that moves the ctime of a file but no content: mode, owner, times,
 * xattrs, names. So it is not taken for a change behind the mount.
 *
 * By descriptor: of any kind, the caller's, and kept open until the end. Never fails: at worst,
 * everything known of the file is forgotten at its next open. Does nothing for files whose content
 * is not known.
 */
struct own_change {
	struct file *file; /* NULL: nothing to do */
	int fd;
};
void fusefs_own_change_begin(struct fusefs *fs, int fd, struct own_change *ret_change);
void fusefs_own_change_end(struct own_change *change);
/* What is known of the content of INODE, found as ST. Like file_table_find() and file_table_get(),
 * with the key from inode_content_key(). */
struct file *fusefs_file_find(struct fusefs *fs, const struct inode *inode, const struct stat *st);
errint_t fusefs_file_get(struct fusefs *fs, const struct inode *inode, const struct stat *st,
			 struct file **ret_file);

/* ---- fusefs_make_way.c ---- */

/* An opener that is going to change the file found as ST gets ESTALE and retries. Make sure that
 * the inode it finds then accepts it. */
void fusefs_detach_readers(struct fusefs *fs, const struct stat *st);
/* Call it before a change by way of INODE. -ESTALE: another inode must take the change (see
 * plan_may_change()); the kernel will find that one. For an open with O_RDONLY and O_TRUNC, the
 * kernel's retry is an open that looks like a reader's. */
errint_t fusefs_make_way(struct fusefs *fs, struct inode *inode);

/* ---- fusefs_handle.c, fusefs_open.c, fusefs_dir.c ---- */

/* Make fs->files_open, fs->directories_open, or have those that EARLIER has. -errno. */
errint_t fusefs_handles_new(struct fusefs *fs, struct slab *earlier);
errint_t fusefs_directories_new(struct fusefs *fs, struct slab *earlier);
/* Make what they name work again, after a takeover; inodes are there. No thread runs yet. -ENOMEM. */
errint_t fusefs_handles_revive(struct fusefs *fs);
errint_t fusefs_directories_revive(struct fusefs *fs);
/* The same for what clients have locked; handles are there. -ENOMEM. */
errint_t fusefs_locks_revive(struct fusefs *fs);
/* In passthrough: give back what the dead worker had begun and not noted. No thread serves yet. */
void fusefs_settle_plans(struct fusefs *fs);
/* How large the handle of a directory is. */
size_t fusefs_directory_bytes(void);
/* The descriptor of the directory whose handle is at SLOT. */
int fusefs_directory_fd(const struct slab_slot *slot);
/* The source descriptor of an open handle. */
int fusefs_handle_fd(const struct fusefs *fs, const struct fuse_file_info *fi);
/* The user who opened the file or directory whose handle the kernel names as FH in its requests. */
uid_t fusefs_handle_user(const struct fusefs *fs, uint64_t fh);
uid_t fusefs_directory_user(const struct fusefs *fs, uint64_t fh);
/* Something has ended that may have kept INODE's kin from being proven. If only one handle is open,
 * its description may be the only one from now on. */
void fusefs_prove(struct inode *inode);

/* Make a handle for REQ's caller and INODE, and set fh and flags in FI. Takes over FD, open on the
 * source, and what fusefs_handle_take() took, both also on failure. -errno. Used by open, create
 * and tmpfile. */
errint_t fusefs_handle_new(struct fusefs *fs, fuse_req_t req, struct inode *inode, int fd,
			   struct fuse_file_info *fi);
/* The same with SOURCE instead of FD; takes over one reference. */
errint_t fusefs_handle_join(struct fusefs *fs, fuse_req_t req, struct inode *inode,
			    struct source *source, struct fuse_file_info *fi);
/* Undo an open whose reply did not reach the kernel: that of the handle with NUMBER, if there is
 * one. */
void fusefs_handle_undo(struct fusefs *fs, uint64_t number);
void fusefs_directory_undo(struct fusefs *fs, uint64_t number);
/* Free all handles of files, and all of directories, after the connection has ended. */
void fusefs_handles_free(struct fusefs *fs);
/* Keep what the files of open handles are known to have in common with others. Nobody serves. */
void fusefs_handles_keep_kin(struct fusefs *fs);
void fusefs_directories_free(struct fusefs *fs);
/* Callbacks for clones.h. */
clones_open_fn fusefs_open_known;
clones_found_fn fusefs_kin_found;

/* ---- fusefs_source.c ---- */

/* Open INODE (a regular file or a directory) in the source as REQ's caller would with CLIENT_FLAGS.
 * Returns a new descriptor, without O_NONBLOCK. Never waits in the kernel for another process's
 * lease. WAIT: the client waits until the lease is given back or taken away, or until it is
 * interrupted (-EINTR). -EAGAIN: there is a lease, and WAIT is not set or the lease does not end.
 * Without a lock. */
int fusefs_open_as_caller(struct fusefs *fs, fuse_req_t req, struct inode *inode, int client_flags,
			  bool wait);

/* Get a description of INODE's file for an open by REQ's caller with CLIENT_FLAGS; the caller gets
 * a reference. If its kin is proven (kin.h), the file has one description. That one is returned
 * (JOINED) if it suits the open and the caller has the right. Else the file is opened as by
 * fusefs_open_as_caller(), which ends a proof. -errno. */
errint_t fusefs_source_of_caller(struct fusefs *fs, fuse_req_t req, struct inode *inode,
				 int client_flags, bool wait, struct source **ret_source,
				 bool *ret_joined);

/* A descriptor of INODE's file for the daemon's own reads, opened with FLAGS. If the file's kin is
 * proven, it is a duplicate of the file's one description. -errno. Without a lock. */
int fusefs_open_own(struct fusefs *fs, struct inode *inode, int flags);
/* For the audit: open the source file with these numbers for reading. The caller closes it. -errno:
 * the file cannot be found by its numbers. */
int fusefs_open_source(struct fusefs *fs, dev_t device, ino_t number);

/* ---- fusefs_write.c ---- */

/* Truncate by handle (FI not NULL) or by inode, as REQ's caller. KILL_SET_ID: the kernel says that
 * the caller lacks CAP_FSETID. -errno. */
errint_t fusefs_truncate(fuse_req_t req, struct inode *inode, struct fuse_file_info *fi, off_t size,
			 bool kill_set_id);

/* ---- the operations, by file; each replies exactly once ---- */

void fusefs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fusefs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void fusefs_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void fusefs_readlink(fuse_req_t req, fuse_ino_t ino);
void fusefs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void fusefs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void fusefs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void fusefs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void fusefs_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void fusefs_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		   const char *newname, unsigned int flags);
void fusefs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void fusefs_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		   struct fuse_file_info *fi);
void fusefs_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi);

void fusefs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fusefs_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi);
void fusefs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		    struct fuse_file_info *fi);
void fusefs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		     size_t size, int flags);
void fusefs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void fusefs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fusefs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void fusefs_statfs(fuse_req_t req, fuse_ino_t ino);

void fusefs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fusefs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi);
void fusefs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			struct fuse_file_info *fi);
void fusefs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fusefs_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

void fusefs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
/* Whether everything that IN asks for was in the pool a moment ago. Does not wait. */
bool fusefs_read_is_brief(const struct fusefs *fs, const struct fuse_read_in *in);
/* Memory of one READ that the fetcher has. */
uint64_t fusefs_reading_bytes(void);
void fusefs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fusefs_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		  struct fuse_file_info *fi);
void fusefs_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fusefs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fusefs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void fusefs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		      struct fuse_file_info *fi);
void fusefs_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void fusefs_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
void fusefs_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock,
		  int sleep);
void fusefs_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);
void fusefs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			    struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			    struct fuse_file_info *fi_out, size_t len, int flags);

#endif
