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
#include <stdlib.h>

int fusefs_handle_fd(const struct fuse_file_info *fi)
{
	const struct handle *handle = handle_of(fi);

	return handle ? source_fd(handle->source) : -1;
}

uid_t fusefs_handle_user(uint64_t fh)
{
	const struct fuse_file_info fi = {.fh = fh};
	const struct handle *handle = handle_of(&fi);

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
	handle->magic = 0;
	free(handle);
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
