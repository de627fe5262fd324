/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_handle.h - an open file of a client, for the requests that go to one
 *
 * A handle owns a reference to its file and source; the kernel hands its address back with every
 * request until it sends the release. A reply may be the kernel's last use of it: what goes on
 * after the reply takes a reference before.
 */
#ifndef FOLDFS_FUSEFS_HANDLE_H
#define FOLDFS_FUSEFS_HANDLE_H

#include "fusefs_internal.h"

#include <urcu/hlist.h>

#define HANDLE_MAGIC 0x666f6c64u

struct handle {
	uint32_t magic;
	_Atomic unsigned
		references;         /* the kernel's, and of requests that go on after their reply */
	atomic_bool ready;          /* the next three are made; then they are constant */
	struct file *file;          /* before that, set at the open if anything was known of it */
	struct window_file *window; /* the inode's */
	struct stream *stream;      /* NULL: cannot be read from */
	struct fusefs *fs;
	int flags;      /* the client's, of its open */
	bool appends;   /* constant: whatever is written goes to the end of the source's file */
	uint64_t bytes; /* counted in fs->handles_bytes; under the inode's lock */
	uid_t user;     /* who opened it: a handle of his share of fs->open_handles, and whose pages
			 * those are that the kernel writes back */
	gid_t group;    /* his */
	struct source *source;          /* shared with other handles of a proven kin (kin.h) */
	_Atomic unsigned flush_errors;  /* of SOURCE, that its client was told of */
	struct inode *inode;            /* a look-up counted while it is open */
	struct cds_list_head link;      /* in fs->handles, under fs->handles_lock */
	struct cds_hlist_node of_inode; /* in inode_handles(), under the inode's lock; not in it:
					 * its release has begun */
	struct worker_job ending;       /* the end of its release, once it is off that list */
};

static inline struct handle *handle_of(const struct fuse_file_info *fi)
{
	struct handle *handle = (struct handle *)(uintptr_t)fi->fh;

	FUSEFS_TSAN_REQUEST();
	return handle && handle->magic == HANDLE_MAGIC ? handle : NULL;
}

/* Before the daemon touches HANDLE's content: make what serves it, if that was not done yet.
 * -errno: it cannot. */
errint_t handle_content(struct handle *handle);
/* The same for a HANDLE of INODE, found as ST. Under the inode's lock. */
errint_t handle_content_locked(struct fusefs *fs, struct inode *inode, struct handle *handle,
			       const struct stat *st);
/* More memory of HANDLE's. */
void handle_count_bytes(struct handle *handle, uint64_t bytes);

/* Give a reference back. Any thread: where the end may take long, another one makes it. */
void handle_put(struct handle *handle);
/* The same, and the end is made here, however long it takes. */
void handle_put_here(struct handle *handle);
/* Have the closer run JOB, which ends HANDLE. At most as many wait as handles may be open: each is
 * one until then. */
void handle_end_soon(struct handle *handle, worker_fn job);

/* Whether HANDLE's file has something in common with others. */
bool handle_has_kin(const struct handle *handle);
/* HANDLE is the only one of its inode, whose lock is held: nobody else opens it meanwhile. Have its
 * kin proven, if that can be had (kin.h). */
void handle_prove_locked(struct handle *handle);

/* Much may have gone by the kernel's cache of HANDLE's source. */
static inline void handle_drop_if_due(const struct handle *handle)
{
	if (source_wants_drop(handle->source))
		source_drop_cache_soon(handle->source, handle->fs->closers);
}

/* The kernel's cache of the file is no more true than what we knew. */
static inline void handle_follow_change(const struct handle *handle)
{
	window_follow(handle->window, file_edition(handle->file));
}

#endif
