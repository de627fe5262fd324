/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_handle.h - a client's open file, for the requests that use one
 *
 * A handle owns a reference to its file and source. The kernel sends its number (slab.h) back with
 * every request until it sends the release. The kernel may give up the handle once it has the last reply.
 * So code that still uses the handle after a reply takes a reference before the reply.
 */
#ifndef FOLDFS_FUSEFS_HANDLE_H
#define FOLDFS_FUSEFS_HANDLE_H

#include "fusefs_internal.h"

#include <urcu/compiler.h>
#include <urcu/hlist.h>

/* The first fields outlive the process: see takeover.h. */
struct handle {
	struct slab_slot slot; /* in fs->files_open; published while the kernel has the handle */
	uint64_t number;       /* constant, like the next six fields */
	uint64_t node;         /* of its inode */
	int fd;                /* of SOURCE */
	int flags;             /* the client's at its open */
	uid_t user; /* opened it: the handle counts to his share of fs->open_handles, and pages that
		     * the kernel writes back are his */
	gid_t group;  /* the user's group */
	bool appends; /* every write goes to the end of the source's file */

	_Atomic unsigned
		references;         /* the kernel's, and of requests that go on after their reply */
	atomic_bool ready;          /* the next three fields are set, and then constant */
	struct file *file;          /* until then: set at the open if anything was known of it */
	struct window_file *window; /* the inode's window_file */
	struct stream *stream;      /* NULL: the handle cannot be read from */
	struct fusefs *fs;
	uint64_t bytes;        /* beside the slab's, counted in fs->handles_bytes; under the inode's
			 * lock */
	struct source *source; /* shared with other handles of a proven kin (kin.h) */
	_Atomic unsigned flush_errors;  /* how many errors of SOURCE its client was told of */
	atomic_bool locked;             /* a lock was asked for by this handle */
	bool silent;                    /* constant: the kernel sends no FLUSH of it */
	struct inode *inode;            /* one look-up is counted while it is open */
	struct cds_list_head link;      /* in fs->handles, under fs->handles_lock */
	struct cds_hlist_node of_inode; /* in inode_handles(), under the inode's lock; not in the
					 * list: its release has begun */
	struct worker_job ending;       /* the end of its release, once it is off of_inode's list */
};

/* The handle with NUMBER. NULL: there is none. */
static inline struct handle *handle_find(const struct fusefs *fs, uint64_t number)
{
	struct slab_slot *slot = slab_get(fs->files_open, number);

	FUSEFS_TSAN_REQUEST();
	return slot ? caa_container_of(slot, struct handle, slot) : NULL;
}

static inline struct handle *handle_of(const struct fusefs *fs, const struct fuse_file_info *fi)
{
	return handle_find(fs, fi->fh);
}

/* Create what serves HANDLE's content, if that was not done yet. Call it before the daemon touches
 * that content. -errno. */
errint_t handle_content(struct handle *handle);
/* handle_content() for a HANDLE of INODE, found as ST. Under the inode's lock. */
errint_t handle_content_locked(struct fusefs *fs, struct inode *inode, struct handle *handle,
			       const struct stat *st);
/* Count BYTES more memory for HANDLE. */
void handle_count_bytes(struct handle *handle, uint64_t bytes);

/* Give a reference back. Any thread: if ending the handle may take long, another thread does it. */
void handle_put(struct handle *handle);
/* Give a reference back. The calling thread ends the handle, however long that takes. */
void handle_put_here(struct handle *handle);
/* Have the closer run JOB, which ends HANDLE. Waiting jobs are bounded by the number of handles
 * that may be open: each counts as open until its job has run. */
void handle_end_soon(struct handle *handle, worker_fn job);

/* OWNER, who is who the kernel says, has closed a descriptor of HANDLE: his locks on the file end.
 * fusefs_locks_released(): it was the last descriptor, and all locks that came by HANDLE end. Both
 * give waiting clients their locks. Without a lock. */
void fusefs_locks_closed(struct handle *handle, uint64_t owner);
void fusefs_locks_released(struct handle *handle);

/* Whether HANDLE's file is known to have pages in common with other files. */
bool handle_has_kin(const struct handle *handle);
/* HANDLE is the only one of its inode. The caller holds the inode's lock, so no other open comes in
 * between. Prove its kin, if possible (kin.h). */
void handle_prove_locked(struct handle *handle);

/* Drop the kernel's cache of HANDLE's source if enough may have gone through it. */
static inline void handle_drop_if_due(const struct handle *handle)
{
	if (source_wants_drop(handle->source))
		source_drop_cache_soon(handle->source, handle->fs->closers);
}

/* Have the kernel's cache of the file dropped if what the daemon knew was found to be untrue. */
static inline void handle_follow_change(const struct handle *handle)
{
	window_follow(handle->window, file_edition(handle->file));
}

#endif
