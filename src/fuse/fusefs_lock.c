/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_lock.c - locks that clients take: fcntl(2) and flock(2)
 *
 * With locks=source the kernel sends each of them here and keeps none by itself, so they have to be
 * told apart here as well (locks.h). They hold among the clients of the mount and in the source.
 *
 * A lock ends when its owner says so, when he closes a descriptor of the file (FLUSH, which names
 * him), or with the last descriptor of the open file that it came by (RELEASE). A FLUSH costs a
 * request. An open for reading alone does without it (plan_answer()), until somebody locks that
 * file: see the `locked` of struct plan_hold.
 *
 * A request that waits for a lock has no thread (locks.h). So as many as there may be hold up no
 * other request of their user's. An interrupt ends the wait.
 *
 * Who gets a lock sees what others wrote in the source before: a lock is there to be sure of that.
 * So the file is compared with its stamp. If it was changed behind the mount, what the kernel
 * caches of it is dropped before the client hears that it has the lock.
 *
 * On io_uring a request has to be answered on the thread that it came on, which cannot wait: there
 * the kernel keeps the locks, and they end at the mount (fusefs.c).
 */
#include "fusefs_handle.h"
#include "locks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

struct asking {
	struct lock_wait wait;
	struct handle *handle; /* its client waits for the answer, and so has it open */
	fuse_req_t req;
	bool armed;       /* interrupts of req come here */
	uint64_t edition; /* the kernel is to show it before the answer; 0: not looked at yet */
};

static void on_interrupt(fuse_req_t req, void *data)
{
	struct asking *asking = data;

	(void)req;
	locks_interrupt(asking->handle->fs->locks, &asking->wait);
}

static void arm(struct lock_wait *wait)
{
	struct asking *asking = caa_container_of(wait, struct asking, wait);

	asking->armed = true;
	fuse_req_interrupt_func(asking->req, on_interrupt, asking);
}

static void reply(struct asking *asking, errint_t result)
{
	if (asking->wait.questions && !result)
		fusefs_reply_lock(asking->req, &asking->wait.found);
	else
		fusefs_reply_err(asking->req, -result);
	free(asking);
}

/* ---- changes behind the mount ---- */

/* Whether the trimmer has dropped what is not true any more. */
static bool is_shown(struct lock_wait *wait)
{
	const struct asking *asking = caa_container_of(wait, struct asking, wait);

	return window_shows(asking->handle->window, asking->edition);
}

/* ASKING has got its lock. Whether the kernel caches what is not true any more, and the answer has
 * to wait. */
static bool must_show(struct asking *asking)
{
	struct handle *handle = asking->handle;
	bool unchanged = true;

	/* Otherwise the kernel reads the source file by itself. */
	if (!atomic_load_explicit(&handle->ready, memory_order_acquire))
		return false;
	if (file_validate(handle->file, source_fd(handle->source), &unchanged))
		return false;
	if (!unchanged)
		fusefs_attr_expire(handle->fs, handle->inode);
	/* Another request may have found the change, and its drop may not be over. */
	asking->edition = file_edition(handle->file);
	window_follow(handle->window, asking->edition);
	return !is_shown(&asking->wait);
}

static void answer(struct lock_wait *wait, errint_t result)
{
	struct asking *asking = caa_container_of(wait, struct asking, wait);
	bool has_lock = !result && !wait->questions && wait->request.type != F_UNLCK;

	/* This waits for an interrupt that is being delivered; none comes afterwards. */
	if (asking->armed)
		fuse_req_interrupt_func(asking->req, NULL, NULL);
	asking->armed = false;
	if (!has_lock || asking->edition || !must_show(asking) ||
	    !locks_delay(asking->handle->fs->locks, wait, is_shown))
		reply(asking, result);
}

/* ---- requests ---- */

/* Opens for reading of HANDLE's file tell of their close from now on. */
static void note_locked(struct handle *handle)
{
	if (atomic_load_explicit(&handle->locked, memory_order_relaxed))
		return;
	inode_lock(handle->inode);
	inode_plan(handle->inode)->locked = true;
	inode_unlock(handle->inode);
	atomic_store_explicit(&handle->locked, true, memory_order_relaxed);
}

/* Handle LIKE, which comes by the handle of FI. */
static void ask(fuse_req_t req, const struct fuse_file_info *fi, const struct lock_wait *like)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct handle *handle = handle_of(fs, fi);
	struct asking *asking = handle ? malloc(sizeof(*asking)) : NULL;
	errint_t error;

	if (!asking) {
		fusefs_reply_err(req, handle ? ENOLCK : EBADF);
		return;
	}
	*asking = (struct asking){.wait = *like, .handle = handle, .req = req};
	asking->wait.arm = arm;
	asking->wait.answer = answer;
	asking->wait.request.owner = fi->lock_owner;
	asking->wait.request.handle = handle->number;
	asking->wait.request.fd = source_fd(handle->source);
	asking->wait.request.user = fuse_req_ctx(req)->uid;
	asking->wait.request.silent = handle->silent;
	if (!like->questions)
		note_locked(handle);
	error = locks_ask(fs->locks, handle->node, &asking->wait);
	if (error != -EINPROGRESS)
		answer(&asking->wait, error);
}

/* The range of LOCK, as libfuse hands it on. */
static struct lock_request range_of(const struct flock *lock)
{
	return (struct lock_request){
		.type = lock->l_type,
		.pid = lock->l_pid,
		.first = lock->l_start,
		.last = lock->l_len ? lock->l_start + lock->l_len - 1 : LOCK_TO_THE_END,
	};
}

void fusefs_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	const struct lock_wait like = {
		.request = range_of(lock),
		.kind = LOCK_RANGE,
		.questions = true,
	};

	(void)ino;
	ask(req, fi, &like);
}

void fusefs_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock,
		  int sleep)
{
	const struct lock_wait like = {
		.request = range_of(lock),
		.kind = LOCK_RANGE,
		.blocks = sleep,
	};

	(void)ino;
	ask(req, fi, &like);
}

void fusefs_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	int kind = op & ~LOCK_NB;
	const struct lock_wait like = {
		.request.type = kind == LOCK_EX   ? F_WRLCK
				: kind == LOCK_SH ? F_RDLCK
						  : F_UNLCK,
		.kind = LOCK_WHOLE,
		.blocks = !(op & LOCK_NB),
	};

	(void)ino;
	ask(req, fi, &like);
}

void fusefs_locks_closed(struct handle *handle, uint64_t owner)
{
	locks_closed(handle->fs->locks, handle->node, handle->number, owner);
}

void fusefs_locks_released(struct handle *handle)
{
	if (atomic_load_explicit(&handle->locked, memory_order_relaxed))
		locks_released(handle->fs->locks, handle->node, handle->number);
}

static bool is_open(void *context, uint64_t handle)
{
	return handle_find(context, handle);
}

errint_t fusefs_locks_revive(struct fusefs *fs)
{
	errint_t error = locks_revive(fs->locks, is_open, fs);
	struct handle *handle;

	cds_list_for_each_entry (handle, &fs->handles, link) {
		if (error || !inode_plan(handle->inode)->locked)
			continue;
		atomic_store_explicit(&handle->locked, true, memory_order_relaxed);
		locks_settle(fs->locks, handle->node, handle->fd);
	}
	return error;
}
