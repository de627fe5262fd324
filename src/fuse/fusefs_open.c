/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_open.c - open and release of files
 *
 * No lock is held while replying.
 */
#include "fusefs_handle.h"

#include "foldfs/kin_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Whether the kernel may keep what it caches of HANDLE's file. It may not if this open or another
 * request found a change behind the mount. Then the answer to the open makes the kernel drop the
 * pages before its reader looks at any. That answer may come late, so the trimmer drops them too.
 * Until it has, no other open is told to keep them either. */
static bool may_keep_cache(const struct handle *handle)
{
	uint64_t edition;

	/* In passthrough the kernel caches nothing of the inode, so there is nothing to keep. */
	if (!atomic_load_explicit(&handle->ready, memory_order_relaxed))
		return false;
	edition = file_edition(handle->file);
	window_follow(handle->window, edition);
	return window_shows(handle->window, edition);
}

/* ---- proven kins ---- */

/* HANDLE is about to be closed. If it is the last one, keep what its file is known to have in
 * common with others. Without a lock. Waits for the disk if the file was changed. */
static void keep_kin(struct handle *handle)
{
	bool last;

	if (!handle_has_kin(handle))
		return;
	inode_lock(handle->inode);
	last = inode_plan(handle->inode)->opens == 1;
	inode_unlock(handle->inode);
	if (!last)
		return;
	identity_make_own();
	kin_keep(handle->fs->catalogue, handle->file, source_fd(handle->source));
}

/* ---- clones ---- */

/* A description by which a client has FILE, the content of INODE, open. Preferably one that is open
 * for writing. NULL: none. */
static struct source *find_source(struct inode *inode, const struct file *file)
{
	struct source *found = NULL;
	struct handle *handle;

	inode_lock(inode);
	cds_hlist_for_each_entry_2 (handle, inode_handles(inode), of_inode)
		if (atomic_load_explicit(&handle->ready, memory_order_acquire) &&
		    handle->file == file && (!found || (handle->flags & O_ACCMODE) != O_RDONLY))
			found = handle->source;
	if (found)
		source_get(found);
	inode_unlock(inode);
	return found;
}

struct source *fusefs_open_known(void *context, const struct file *file, dev_t device, ino_t number)
{
	struct fusefs *fs = context;
	struct inode *inode = inode_find(fs->inodes, device, number, S_IFREG);
	struct source *source;
	int fd;

	if (!inode)
		return NULL;
	source = find_source(inode, file);
	inode_put(fs->inodes, inode);
	if (source)
		return source;
	fd = fusefs_open_source(fs, device, number);
	return fd < 0 || source_new(fd, &source) ? NULL : source;
}

void fusefs_kin_found(void *context, dev_t device, ino_t number)
{
	struct fusefs *fs = context;
	struct inode *inode = inode_find(fs->inodes, device, number, S_IFREG);

	if (!inode)
		return;
	fusefs_prove(inode);
	inode_put(fs->inodes, inode);
}

/* After HANDLE was opened: find out what its file has in common with others by their places on the
 * disk. Files that the kernel serves itself need no kin. */
static void learn_clones(const struct handle *handle)
{
	if (!atomic_load_explicit(&handle->ready, memory_order_relaxed) ||
	    file_size(handle->file) < CLONES_LEAST)
		return;
	/* A lease on another user's file takes CAP_LEASE. */
	identity_make_own();
	clones_learn(handle->fs->clones, handle->file, handle->source);
}

/* Choose or join the plan of INODE for HANDLE, whose source was found as ST. Set FI's flags
 * accordingly. */
static errint_t enter_plan_locked(struct fusefs *fs, struct inode *inode, struct handle *handle,
				  const struct stat *st, pid_t pid, struct fuse_file_info *fi)
{
	struct plan_hold *hold = inode_plan(inode);
	const struct plan_open open = {
		.fd = source_fd(handle->source),
		.st = st,
		.file = handle->file,
		.flags = fi->flags,
		.pid = pid,
	};
	errint_t error;

	/* For a while the kernel may still use an inode whose name now belongs to another inode. */
	error = inode_is_detached(inode) ? -ESTALE : plan_enter(fs->plan, hold, &open);
	if (error)
		return error;
	if (hold->kind == PLAN_WINDOW) {
		error = handle_content_locked(fs, inode, handle, st);
		if (error) {
			plan_leave(fs->plan, hold, handle->file);
			return error;
		}
	}
	if (hold->kind == PLAN_WINDOW && hold->opens == 1)
		handle_prove_locked(handle);
	if (!plan_answer(fs->plan, hold, may_keep_cache(handle), fi) && *inode_window_file(inode))
		window_close_from(*inode_window_file(inode), 0);
	return 0;
}

/* Fill in HANDLE, which has its source, for INODE. Fill in FI. */
static errint_t handle_open(struct fusefs *fs, struct inode *inode, struct handle *handle,
			    pid_t pid, struct fuse_file_info *fi)
{
	bool moves_times = plan_moves_times(inode_plan(inode));
	int fd = source_fd(handle->source);
	struct stat st;
	bool unchanged;
	bool detached;
	errint_t error = 0;

	handle->flush_errors = source_flush_errors(handle->source);
	if (fstat(fd, &st))
		return -errno;
	handle->appends = fcntl(fd, F_GETFL) & O_APPEND;
	if (inode_was_parted(inode, &st)) {
		inode_detach(fs->inodes, inode);
		return -ESTALE;
	}
	/* The plan depends on what is known, so check that it is still true. */
	handle->file = fusefs_file_find(fs, inode, &st);
	if (handle->file)
		error = file_validate(handle->file, fd, &unchanged);
	if (error)
		return error;
	inode_lock(inode);
	error = enter_plan_locked(fs, inode, handle, &st, pid, fi);
	if (!error)
		cds_hlist_add_head(&handle->of_inode, inode_handles(inode));
	detached = inode_is_detached(inode);
	/* Still under the lock, so that no later open joins the plan that refused this one. */
	if (error == -ESTALE && !detached) {
		plan_await(fs->plan, &st);
		inode_detach(fs->inodes, inode);
	}
	inode_unlock(inode);
	/* The open came by another of the file's names, for which the kernel still uses an old
	 * inode. */
	if (error == -ESTALE && detached && (fi->flags & O_ACCMODE) != O_RDONLY)
		fusefs_detach_readers(fs, &st);
	if (error)
		return error;
	handle->inode = inode;
	inode_get(fs->inodes, inode);
	if (moves_times != plan_moves_times(inode_plan(inode)))
		fusefs_attr_expire(fs, inode);
	if (fi->backing_id)
		source_keep_cache(handle->source);
	return 0;
}

errint_t fusefs_handle_new(struct fusefs *fs, fuse_req_t req, struct inode *inode, int fd,
			   struct fuse_file_info *fi)
{
	struct source *source;
	errint_t error = source_new(fd, &source);

	if (!error)
		return fusefs_handle_join(fs, req, inode, source, fi);
	fusefs_handle_give(fs, fuse_req_ctx(req)->uid);
	return error;
}

errint_t fusefs_handle_join(struct fusefs *fs, fuse_req_t req, struct inode *inode,
			    struct source *source, struct fuse_file_info *fi)
{
	struct slab_slot *slot;
	struct handle *handle;
	uint64_t number;
	errint_t error = slab_take(fs->files_open, &slot, &number);

	if (error) {
		fusefs_handle_give(fs, fuse_req_ctx(req)->uid);
		source_put(source);
		return error;
	}
	handle = caa_container_of(slot, struct handle, slot);
	handle->number = number;
	atomic_init(&handle->references, 1);
	handle->fs = fs;
	handle->node = inode_node(inode);
	handle->source = source;
	handle->fd = source_fd(source);
	handle->flags = fi->flags;
	handle->user = fuse_req_ctx(req)->uid;
	handle->group = fuse_req_ctx(req)->gid;
	handle_count_bytes(handle, source_bytes());
	error = handle_open(fs, inode, handle, fuse_req_ctx(req)->pid, fi);
	if (error) {
		handle_put(handle);
		return error;
	}
	handle->silent = fi->noflush;
	session_has_made(SESSION_FILES, number);
	slab_publish(slot, number);
	pthread_mutex_lock(&fs->handles_lock);
	cds_list_add(&handle->link, &fs->handles);
	pthread_mutex_unlock(&fs->handles_lock);
	learn_clones(handle);
	fi->fh = number;
	return 0;
}

/* What is known of HANDLE's file by now, whoever learned it. NULL: nothing. */
static struct file *find_file(struct fusefs *fs, struct inode *inode, const struct handle *handle)
{
	struct stat st;

	if (fstat(source_fd(handle->source), &st))
		return NULL;
	return fusefs_file_find(fs, inode, &st);
}

/* Close HANDLE, which has left its inode's plan. If one handle is left open, its description may be
 * the only one from now on. */
static void end_release(struct handle *handle)
{
	struct inode *inode = handle->inode;
	struct fusefs *fs = handle->fs;

	/* If a READ that was answered still has work to do, the end of that work ends HANDLE. */
	handle_put_here(handle);
	fusefs_prove(inode);
	inode_put(fs->inodes, inode);
}

static void end_release_job(struct worker_job *job, bool wanted)
{
	(void)wanted;
	end_release(caa_container_of(job, struct handle, ending));
}

/* The kernel has given HANDLE up. ANSWERED: the kernel got the answer to the open. */
static void handle_release(struct handle *handle, bool answered)
{
	struct inode *inode = handle->inode;
	struct fusefs *fs = handle->fs;
	struct window_file *window;

	slab_withdraw(&handle->slot);
	/* Before anything that may wait for the disk. */
	fusefs_locks_released(handle);
	pthread_mutex_lock(&fs->handles_lock);
	cds_list_del(&handle->link);
	pthread_mutex_unlock(&fs->handles_lock);
	keep_kin(handle);
	inode_lock(inode);
	cds_hlist_del(&handle->of_inode);
	if (!handle->file && inode_plan(inode)->written)
		handle->file = find_file(fs, inode, handle);
	plan_leave(fs->plan, inode_plan(inode), handle->file);
	if (!inode_plan(inode)->opens && handle->file)
		kin_end_proof(handle->file);
	window = *inode_window_file(inode);
	inode_unlock(inode);
	/* The kernel did not drop from its cache what this open should have made it drop. */
	if (!answered && window)
		window_invalidate_soon(window);
	if (source_ends_slowly(handle->source))
		handle_end_soon(handle, end_release_job);
	else
		end_release(handle);
}

void fusefs_handle_undo(struct fusefs *fs, uint64_t number)
{
	struct handle *handle = handle_find(fs, number);

	if (handle)
		handle_release(handle, false);
}

void fusefs_handles_keep_kin(struct fusefs *fs)
{
	struct handle *handle;

	cds_list_for_each_entry (handle, &fs->handles, link)
		if (handle->file)
			kin_keep(fs->catalogue, handle->file, source_fd(handle->source));
}

void fusefs_handles_free(struct fusefs *fs)
{
	struct handle *handle;
	struct handle *next;

	cds_list_for_each_entry_safe (handle, next, &fs->handles, link) {
		if (handle->file) {
			kin_keep(fs->catalogue, handle->file, source_fd(handle->source));
			kin_end_proof(handle->file);
		}
		handle_put(handle);
	}
	CDS_INIT_LIST_HEAD(&fs->handles);
}

/* ---- what clients stored through mappings ---- */

/* The inodes that are open for writing and served from the window. That includes all that are
 * mapped, because a mapping keeps its file open. The caller frees the array. NULL: none, or no
 * memory. */
static uint64_t *nodes_for_writing(struct fusefs *fs, size_t *ret_count)
{
	struct handle *handle;
	uint64_t *nodes;
	size_t count = 0;

	pthread_mutex_lock(&fs->handles_lock);
	cds_list_for_each_entry (handle, &fs->handles, link)
		count++;
	nodes = calloc(count, sizeof(*nodes));
	count = 0;
	if (nodes)
		cds_list_for_each_entry (handle, &fs->handles, link)
			if ((handle->flags & O_ACCMODE) == O_RDWR &&
			    atomic_load_explicit(&handle->ready, memory_order_relaxed))
				nodes[count++] = inode_node(handle->inode);
	pthread_mutex_unlock(&fs->handles_lock);
	*ret_count = count;
	return nodes;
}

/* Before the kernel drops a page that was changed through a mapping, it writes the page back, and
 * waits. */
void fusefs_write_back(struct fusefs *fs)
{
	size_t count;
	uint64_t *nodes = nodes_for_writing(fs, &count);

	for (size_t i = 0; i < count; i++)
		(void)fuse_lowlevel_notify_inval_inode(fs->session, nodes[i], 0, 0);
	free(nodes);
}

/* ---- open ---- */

static errint_t do_open(struct fusefs *fs, fuse_req_t req, fuse_ino_t ino,
			struct fuse_file_info *fi)
{
	struct inode *inode = inode_of(fs->inodes, ino);
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY;
	struct source *source;
	errint_t error;
	bool joined;

	if (!inode)
		return -ESTALE;
	/* Plans rely on a read-only mount. The kernel sends such an open only if it was told to
	 * remount. */
	if (writes && fs->read_only)
		return -EROFS;
	error = fusefs_handle_take(fs, req);
	if (error)
		return error;
	if (writes)
		fusefs_look_mapped(fs, inode);
	error = fusefs_source_of_caller(fs, req, inode, fi->flags, !(fi->flags & O_NONBLOCK),
					&source, &joined);
	if (error) {
		fusefs_handle_give(fs, fuse_req_ctx(req)->uid);
		return error;
	}
	error = fusefs_handle_join(fs, req, inode, source, fi);
	/* The descriptor existed for a while, and may have kept the kin from being proven. */
	if (error)
		fusefs_prove(inode);
	return error;
}

void fusefs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of_lent(req);
	errint_t error = do_open(fs, req, ino, fi);

	if (error)
		fusefs_reply_err(req, -error);
	else if (fusefs_reply_open(req, fi) == -ENOENT)
		fusefs_handle_undo(fs, fi->fh);
}

void fusefs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct handle *handle = handle_of(fuse_req_userdata(req), fi);

	(void)ino;
	if (handle)
		handle_release(handle, true);
	fusefs_reply_err(req, 0);
}
