/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_handle.c - a client's open file: its life, and what serves its content
 *
 * To serve content itself, the daemon needs what is known of the file, the window's notes and the
 * reader's stream. A handle has them from its open only if its plan is `window`. In passthrough
 * almost none of that is ever used, and remembering it for a tree of many files would be a waste. A
 * few requests come all the same (fallocate, copy_file_range); they create it first:
 * handle_content().
 */
#include "fusefs_handle.h"

#include "foldfs/kin_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* How many bytes of a handle outlive the process. */
#define HANDLE_KEPT offsetof(struct handle, references)

errint_t fusefs_handles_new(struct fusefs *fs, struct slab *earlier)
{
	fs->files_open = earlier;
	if (earlier)
		return slab_object_bytes(earlier) - sizeof(struct handle) < SLAB_ALIGNMENT
			       ? 0
			       : -EPROTO;
	return slab_new("foldfs-files", sizeof(struct handle), &fs->files_open);
}

/* The description of FD, which another handle of INODE may have as well. */
static errint_t find_source(struct inode *inode, int fd, struct source **ret_source)
{
	struct handle *handle;

	cds_hlist_for_each_entry_2 (handle, inode_handles(inode), of_inode)
		if (source_fd(handle->source) == fd) {
			*ret_source = source_get(handle->source);
			return 0;
		}
	return source_adopt(fd, ret_source);
}

struct revival {
	struct fusefs *fs;
	errint_t error; /* the first one */
};

static void revive(void *context, struct slab_slot *slot)
{
	struct handle *handle = caa_container_of(slot, struct handle, slot);
	struct revival *revival = context;
	struct fusefs *fs = revival->fs;
	struct inode *inode = inode_of(fs->inodes, handle->node);
	errint_t error;

	memset((char *)handle + HANDLE_KEPT, 0, sizeof(*handle) - HANDLE_KEPT);
	error = inode ? shares_force(fs->open_handles, handle->user, 1) : -ENOENT;
	if (!error)
		error = find_source(inode, handle->fd, &handle->source);
	if (!inode)
		slab_give(fs->files_open, slot, handle->number);
	else if (error && !revival->error)
		revival->error = error;
	if (error)
		return;
	/* A lease of the dead worker would make our own opens wait. */
	(void)fcntl(handle->fd, F_SETLEASE, F_UNLCK);
	atomic_init(&handle->references, 1);
	handle->fs = fs;
	handle->inode = inode;
	handle->flush_errors = source_flush_errors(handle->source);
	handle_count_bytes(handle, source_bytes());
	inode_get(fs->inodes, inode);
	plan_hold_rejoin(fs->plan, inode_plan(inode));
	if (inode_plan(inode)->kind != PLAN_WINDOW)
		source_keep_cache(handle->source);
	cds_hlist_add_head(&handle->of_inode, inode_handles(inode));
	cds_list_add(&handle->link, &fs->handles);
}

errint_t fusefs_handles_revive(struct fusefs *fs)
{
	struct revival revival = {.fs = fs};

	slab_each(fs->files_open, revive, &revival);
	return revival.error;
}

int fusefs_handle_fd(const struct fusefs *fs, const struct fuse_file_info *fi)
{
	const struct handle *handle = handle_of(fs, fi);

	return handle ? source_fd(handle->source) : -1;
}

uid_t fusefs_handle_user(const struct fusefs *fs, uint64_t fh)
{
	const struct handle *handle = handle_find(fs, fh);

	return handle ? handle->user : 0;
}

static bool unuse(struct handle *handle)
{
	return atomic_fetch_sub_explicit(&handle->references, 1, memory_order_acq_rel) == 1;
}

/* Free HANDLE, which has no reference left. */
static void handle_end(struct handle *handle)
{
	stream_free(handle->stream);
	if (handle->file && handle->source)
		file_put_or_drop(handle->file, source_fd(handle->source));
	else if (handle->file)
		file_put(handle->file);
	if (handle->source)
		source_put(handle->source);
	file_table_trim(handle->fs->files);
	fusefs_handle_give(handle->fs, handle->user);
	atomic_fetch_sub_explicit(&handle->fs->handles_bytes, handle->bytes, memory_order_relaxed);
	slab_give(handle->fs->files_open, &handle->slot, handle->number);
}

static void end_job(struct worker_job *job, bool wanted)
{
	(void)wanted;
	handle_end(caa_container_of(job, struct handle, ending));
}

void handle_end_soon(struct handle *handle, worker_fn job)
{
	handle->ending.run = job;
	workers_add(handle->fs->closers, &handle->ending);
}

void handle_put_here(struct handle *handle)
{
	if (unuse(handle))
		handle_end(handle);
}

void handle_put(struct handle *handle)
{
	if (!unuse(handle))
		return;
	if (handle->source && source_ends_slowly(handle->source))
		handle_end_soon(handle, end_job);
	else
		handle_end(handle);
}

void handle_count_bytes(struct handle *handle, uint64_t bytes)
{
	handle->bytes += bytes;
	atomic_fetch_add_explicit(&handle->fs->handles_bytes, bytes, memory_order_relaxed);
}

errint_t handle_content_locked(struct fusefs *fs, struct inode *inode, struct handle *handle,
			       const struct stat *st)
{
	struct window_file **window = inode_window_file(inode);
	errint_t error = 0;
	bool unchanged;

	if (!handle->file) {
		error = fusefs_file_get(fs, inode, st, &handle->file);
		if (!error)
			error = file_validate(handle->file, source_fd(handle->source), &unchanged);
	}
	inode_is_cached(inode);
	if (!error && !*window)
		error = window_file_new(fs->window, inode_node(inode), file_edition(handle->file),
					window);
	if (!error && !handle->stream && (handle->flags & O_ACCMODE) != O_WRONLY) {
		error = stream_new(&fs->filler, fs->workers, handle->file, handle->source,
				   &handle->stream);
		if (!error)
			handle_count_bytes(handle, stream_bytes());
	}
	if (error)
		return error;
	kin_learn(fs->catalogue, handle->file, source_fd(handle->source));
	handle->window = *window;
	atomic_store_explicit(&handle->ready, true, memory_order_release);
	return 0;
}

errint_t handle_content(struct handle *handle)
{
	struct stat st;
	errint_t error = 0;

	if (atomic_load_explicit(&handle->ready, memory_order_acquire))
		return 0;
	if (fstat(source_fd(handle->source), &st))
		return -errno;
	inode_lock(handle->inode);
	if (!atomic_load_explicit(&handle->ready, memory_order_relaxed))
		error = handle_content_locked(handle->fs, handle->inode, handle, &st);
	inode_unlock(handle->inode);
	return error;
}

bool handle_has_kin(const struct handle *handle)
{
	bool has;

	if (!atomic_load_explicit(&handle->ready, memory_order_acquire))
		return false;
	fold_rcu_read_lock();
	has = file_kin(handle->file);
	fold_rcu_read_unlock();
	return has;
}

void handle_prove_locked(struct handle *handle)
{
	if ((handle->flags & O_ACCMODE) == O_RDONLY || handle->appends || !handle_has_kin(handle))
		return;
	/* A lease on another user's file takes CAP_LEASE. */
	identity_make_own();
	kin_prove(handle->fs->leases, handle->file, handle->source);
}

void fusefs_prove(struct inode *inode)
{
	inode_lock(inode);
	if (inode_plan(inode)->opens == 1)
		handle_prove_locked(
			caa_container_of(inode_handles(inode)->next, struct handle, of_inode));
	inode_unlock(inode);
}
