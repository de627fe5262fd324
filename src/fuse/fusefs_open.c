/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_open.c - open and release of files
 *
 * What the daemon needs to serve content itself (what is known of the file, the window's notes, the
 * reader's stream) a handle has from its open only if its plan is `window`. In passthrough nearly
 * nothing of that is ever asked for, and a tree of many files would be remembered for nothing; the
 * few requests that come all the same (fallocate, copy_file_range) make it first: handle_content().
 *
 * No lock is held while replying.
 */
#include "fusefs_handle.h"

#include "foldfs/kin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

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

/* ---- open and release ---- */

static bool unuse(struct handle *handle)
{
	return atomic_fetch_sub_explicit(&handle->references, 1, memory_order_acq_rel) == 1;
}

/* HANDLE is nobody's any more. */
static void handle_end(struct handle *handle)
{
	stream_free(handle->stream);
	if (handle->file && handle->source)
		file_drop_if_gone(handle->file, source_fd(handle->source));
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

/* Have the closer run JOB. At most as many wait as handles may be open: each is one until then. */
static void end_soon(struct handle *handle, worker_fn job)
{
	handle->ending.run = job;
	workers_add(handle->fs->closers, &handle->ending);
}

void handle_put(struct handle *handle)
{
	if (!unuse(handle))
		return;
	if (handle->source && source_ends_slowly(handle->source))
		end_soon(handle, end_job);
	else
		handle_end(handle);
}

/* Whether the kernel may keep what it caches of HANDLE's file. If a change behind the mount was
 * found, by this open or by another request, it may not: the open's answer has its pages dropped
 * before its reader looks at any. That answer may come late, so they are dropped by the trimmer
 * too, and until then no other open is told to keep them either. */
static bool may_keep_cache(const struct handle *handle)
{
	uint64_t edition;

	/* In passthrough the kernel caches nothing of the inode, and keeps nothing. */
	if (!atomic_load_explicit(&handle->ready, memory_order_relaxed))
		return false;
	edition = file_edition(handle->file);
	window_follow(handle->window, edition);
	return window_shows(handle->window, edition);
}

/* More memory of HANDLE's. */
static void count_bytes(struct handle *handle, uint64_t bytes)
{
	handle->bytes += bytes;
	atomic_fetch_add_explicit(&handle->fs->handles_bytes, bytes, memory_order_relaxed);
}

/* Make what HANDLE has not of what serves its content, see the head of this file. */
static errint_t make_content_locked(struct fusefs *fs, struct inode *inode, struct handle *handle,
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
			count_bytes(handle, stream_bytes());
	}
	if (error)
		return error;
	kin_learn(fs->catalogue, handle->file, source_fd(handle->source));
	handle->window = *window;
	atomic_store_explicit(&handle->ready, true, memory_order_release);
	return 0;
}

/* Before the daemon touches HANDLE's content. -errno: it cannot. */
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
		error = make_content_locked(handle->fs, handle->inode, handle, &st);
	inode_unlock(handle->inode);
	return error;
}

/* ---- proven kins ---- */

static bool has_kin(const struct handle *handle)
{
	bool has;

	if (!atomic_load_explicit(&handle->ready, memory_order_acquire))
		return false;
	fold_rcu_read_lock();
	has = file_kin(handle->file);
	fold_rcu_read_unlock();
	return has;
}

/* HANDLE is about to be closed, and it is the last: what its file is known to have in common with
 * others outlives that. Without a lock; the disk is waited for if the file was changed. */
static void keep_kin(struct handle *handle)
{
	bool last;

	if (!has_kin(handle))
		return;
	inode_lock(handle->inode);
	last = inode_plan(handle->inode)->opens == 1;
	inode_unlock(handle->inode);
	if (!last)
		return;
	identity_make_own();
	kin_keep(handle->fs->catalogue, handle->file, source_fd(handle->source));
}

/* HANDLE is the only one of its inode, whose lock is held: nobody else opens it meanwhile. */
static void prove_locked(struct handle *handle)
{
	if ((handle->flags & O_ACCMODE) == O_RDONLY || handle->appends || !has_kin(handle))
		return;
	/* A lease on another user's file takes CAP_LEASE. */
	identity_make_own();
	kin_prove(handle->fs->leases, handle->file, handle->source);
}

void fusefs_prove(struct inode *inode)
{
	inode_lock(inode);
	if (inode_plan(inode)->opens == 1)
		prove_locked(caa_container_of(inode_handles(inode)->next, struct handle, of_inode));
	inode_unlock(inode);
}

/* ---- clones ---- */

/* A description of FILE, of INODE, that a client has it open by, best one that it writes by; NULL:
 * none. */
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
	inode_forget(fs->inodes, inode, 1);
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
	inode_forget(fs->inodes, inode, 1);
}

/* HANDLE is open: what its file has in common with others by their places on the disk. Files that
 * the kernel serves need no kin. */
static void learn_clones(const struct handle *handle)
{
	if (!atomic_load_explicit(&handle->ready, memory_order_relaxed) ||
	    file_size(handle->file) < CLONES_LEAST)
		return;
	/* A lease on another user's file takes CAP_LEASE. */
	identity_make_own();
	clones_learn(handle->fs->clones, handle->file, handle->source);
}

/* Choose or join the plan of INODE for HANDLE, whose source was found as ST, and set FI's flags by
 * it. */
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

	/* The kernel may know an inode by its name for a while that is another's now. */
	error = inode_is_detached(inode) ? -ESTALE : plan_enter(fs->plan, hold, &open);
	if (error)
		return error;
	if (hold->kind == PLAN_WINDOW) {
		error = make_content_locked(fs, inode, handle, st);
		if (error) {
			plan_leave(fs->plan, hold, handle->file);
			return error;
		}
	}
	if (hold->kind == PLAN_WINDOW && hold->opens == 1)
		prove_locked(handle);
	if (!plan_answer(fs->plan, hold, may_keep_cache(handle), fi) && *inode_window_file(inode))
		window_uncount(*inode_window_file(inode), 0);
	return 0;
}

/* Fill in HANDLE, which has its source, for INODE, and FI. */
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
	/* The plan goes by what is known, so that has to be true. */
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
	/* Under the lock: no open that follows joins what this one was refused. */
	if (error == -ESTALE && !detached) {
		plan_await(fs->plan, &st);
		inode_detach(fs->inodes, inode);
	}
	inode_unlock(inode);
	/* By another of the file's names, whose inode is an old one to the kernel. */
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
	struct handle *handle = calloc(1, sizeof(*handle));
	errint_t error;

	if (!handle) {
		fusefs_handle_give(fs, fuse_req_ctx(req)->uid);
		source_put(source);
		return -ENOMEM;
	}
	atomic_init(&handle->references, 1);
	handle->fs = fs;
	handle->source = source;
	handle->flags = fi->flags;
	handle->user = fuse_req_ctx(req)->uid;
	handle->group = fuse_req_ctx(req)->gid;
	count_bytes(handle, sizeof(*handle) + source_bytes());
	error = handle_open(fs, inode, handle, fuse_req_ctx(req)->pid, fi);
	if (error) {
		handle_put(handle);
		return error;
	}
	handle->magic = HANDLE_MAGIC;
	pthread_mutex_lock(&fs->handles_lock);
	cds_list_add(&handle->link, &fs->handles);
	pthread_mutex_unlock(&fs->handles_lock);
	learn_clones(handle);
	fi->fh = (uintptr_t)handle;
	return 0;
}

/* What is known of HANDLE's file by now, through whomever; NULL: nothing. */
static struct file *find_file(struct fusefs *fs, struct inode *inode, const struct handle *handle)
{
	struct stat st;

	if (fstat(source_fd(handle->source), &st))
		return NULL;
	return fusefs_file_find(fs, inode, &st);
}

/* HANDLE, which has left its inode's plan, is closed. What is left open may be alone
 * from now on. */
static void end_release(struct handle *handle)
{
	struct inode *inode = handle->inode;
	struct fusefs *fs = handle->fs;

	/* What is still made of a READ that was answered ends it later. */
	if (unuse(handle))
		handle_end(handle);
	fusefs_prove(inode);
	inode_forget(fs->inodes, inode, 1);
}

static void end_release_job(struct worker_job *job, bool wanted)
{
	(void)wanted;
	end_release(caa_container_of(job, struct handle, ending));
}

/* The kernel has given HANDLE up. ANSWERED: it had been told of it. */
static void handle_release(struct handle *handle, bool answered)
{
	struct inode *inode = handle->inode;
	struct fusefs *fs = handle->fs;
	struct window_file *window;

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
	/* What the kernel was to drop from its cache with this open, it did not. */
	if (!answered && window)
		window_invalidate_soon(window);
	if (source_ends_slowly(handle->source))
		end_soon(handle, end_release_job);
	else
		end_release(handle);
}

void fusefs_handle_undo(struct fuse_file_info *fi)
{
	struct handle *handle = handle_of(fi);

	if (handle)
		handle_release(handle, false);
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

/* The inodes that are open for writing and served from the window: a mapping keeps its file open.
 * The caller's to free; NULL: none, or no memory. */
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

/* To drop a page that was changed through a mapping, the kernel writes it back first, and waits. */
void fusefs_write_back(struct fusefs *fs)
{
	size_t count;
	uint64_t *nodes = nodes_for_writing(fs, &count);

	for (size_t i = 0; i < count; i++)
		(void)fuse_lowlevel_notify_inval_inode(fs->session, nodes[i], 0, 0);
	free(nodes);
}

/* ---- open ---- */

/* While the daemon has it not open for writing, the kernel tells whether somebody else has it so,
 * or mapped. */
void fusefs_look_mapped(struct fusefs *fs, struct inode *inode)
{
	bool moves_times = plan_moves_times(inode_plan(inode));
	int fd = -1;

	inode_lock(inode);
	if (plan_may_be_mapped(inode_plan(inode)))
		fd = inode_open(fs->inodes, inode, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) {
		plan_look_mapped(inode_plan(inode), fd);
		close(fd);
	}
	inode_unlock(inode);
	if (moves_times && !plan_moves_times(inode_plan(inode)))
		fusefs_attr_expire(fs, inode);
}

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
	/* Plans rest on it. The kernel sends this only if it was told to remount. */
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
	/* Its descriptor was there for a while. */
	if (error)
		fusefs_prove(inode);
	return error;
}

void fusefs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	errint_t error = do_open(fusefs_of_lent(req), req, ino, fi);

	if (error)
		fusefs_reply_err(req, -error);
	else if (fusefs_reply_open(req, fi) == -ENOENT)
		fusefs_handle_undo(fi);
}

void fusefs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct handle *handle = handle_of(fi);

	(void)ino;
	if (handle)
		handle_release(handle, true);
	fusefs_reply_err(req, 0);
}
