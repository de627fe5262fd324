/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_write.c - changes of content: WRITE, truncate, fallocate, copy_file_range
 *
 * No lock is held while replying.
 */
#include "foldfs/proc_fd.h"
#include "fusefs_again.h"
#include "fusefs_handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long a write waits at most until pages that were found untrue are dropped: see drop_wait(). A
 * drop takes 0.1 ms. */
#define DROP_WAIT_US      999999u
#define RING_DROP_WAIT_US 20000u
#define MAYBE_WAIT_US     2000u

/* ---- WRITE ---- */

/* FLAGS tell whether a write is to be durable (RWF_DSYNC, RWF_SYNC). With cached I/O the kernel
 * sends an fsync after the write; with direct I/O it sends nothing. If the file was opened with
 * such a flag, its source has the flag too. */
static errint_t make_durable(const struct fusefs *fs, struct handle *handle, int flags)
{
	int wanted = flags & O_SYNC;
	int opened;

	if (!wanted || !plan_is_direct(fs->plan))
		return 0;
	opened = fcntl(source_fd(handle->source), F_GETFL);
	if (opened >= 0 && (opened & wanted) == wanted)
		return 0;
	return source_flush(handle->source, wanted == O_DSYNC, &handle->flush_errors);
}

/* The pages that WRITTEN bytes at OFFSET went to. Only a request of direct I/O says whose it is
 * (lock_owner). Write-back by the kernel does not. Nor does an O_DIRECT write that goes through the
 * kernel's cache, because the kernel could not drop its pages or because it was cut short. */
static struct window_span span_of(const struct fusefs *fs, const struct fuse_file_info *fi,
				  off_t offset, size_t written)
{
	return (struct window_span){
		.first = fold_page_of((uint64_t)offset),
		.pages = (unsigned)fold_pages_in((uint64_t)offset, written),
		.direct = (fi->flags & O_DIRECT || plan_is_direct(fs->plan)) && fi->lock_owner,
	};
}

/* Note that the kernel has cached what was written, unless the write was direct I/O. Returns
 * whether the kernel may meanwhile have cached untrue pages, which are about to be dropped. */
static bool note_written(const struct handle *handle, struct window_span span, bool writeback)
{
	bool untrue = !writeback && window_written(handle->window, span);

	if (!span.direct)
		window_note(handle->window, span.first, span.pages);
	return untrue;
}

struct write_answer {
	struct window_answer answer;
	fuse_req_t req;
	size_t written;
};

static void give_write_answer(struct window_answer *answer)
{
	struct write_answer *write = caa_container_of(answer, struct write_answer, answer);

	fusefs_reply_write(write->req, write->written);
	free(write);
}

/*
 * How long a write of LENGTH bytes may wait for untrue pages to be dropped.
 *
 * The drop itself may wait for the write's answer. Until the answer the kernel keeps a page locked
 * that it did not have and that the write fills only in part. This can be the last page of a
 * request, or the only one. Such a write may wait in vain once the drop has begun, so from then on
 * it does not wait for long. A direct write locks nothing.
 *
 * A ring's thread that waits delays other requests. The drop, or whatever comes before it, may be
 * waiting for one of those.
 */
static struct window_patience drop_wait(off_t offset, size_t length, struct window_span span)
{
	bool ends_within = ((uint64_t)offset + length) & FOLD_PAGE_MASK;
	bool begins_within = (uint64_t)offset & FOLD_PAGE_MASK;
	bool one_page = fold_pages_in((uint64_t)offset, length) == 1;
	unsigned most = fusefs_on_ring ? RING_DROP_WAIT_US : DROP_WAIT_US;

	if (span.direct && !fusefs_on_ring)
		return (struct window_patience){0};
	if (!span.direct && (ends_within || (begins_within && one_page)))
		return (struct window_patience){.begin_us = most, .drop_us = MAYBE_WAIT_US};
	return (struct window_patience){.begin_us = most, .drop_us = most};
}

/*
 * A write of WRITTEN bytes has met untrue pages. Answer it once they are dropped, or when PATIENCE
 * is at its end.
 *
 * On a ring no other thread may give the answer. Linux hands the ring's next request over in the
 * context of the thread that gave the last answer. If that thread waits in the kernel for this very
 * request, as the trimmer does, both wait forever (seen as an unkillable process, on 6.18). So a
 * ring's thread waits itself.
 */
static void answer_when_dropped(fuse_req_t req, const struct handle *handle, size_t written,
				struct window_span span, struct window_patience patience)
{
	struct write_answer *write = fusefs_on_ring ? NULL : malloc(sizeof(*write));

	if (write) {
		write->answer.give = give_write_answer;
		write->req = req;
		write->written = written;
		if (window_answer_later(handle->window, span, patience, &write->answer))
			return;
		free(write);
	} else {
		if (!patience.begin_us)
			patience.begin_us = patience.drop_us = DROP_WAIT_US;
		window_wait_for_drop(handle->window, span, patience);
	}
	fusefs_reply_write(req, written);
}

/* What fstat said during this request, if it was called. */
struct seen {
	bool looked;
	struct stat st;
};

/*
 * Take on the identity of the writer to HANDLE, so that the source takes care of reserved blocks,
 * quotas and set-id bits. A page that the kernel writes back was stored by somebody who had the
 * file open; that clears no set-id bits. KILL_SET_ID: the kernel says that the caller lacks
 * CAP_FSETID. *RET_SEEN: the stat of the source, if one was needed for that.
 */
static errint_t lend_to_writer(fuse_req_t req, const struct handle *handle, bool writeback,
			       bool kill_set_id, struct identity *ret_identity,
			       struct seen *ret_seen)
{
	const struct fuse_ctx *caller = fuse_req_ctx(req);
	int fd = source_fd(handle->source);

	ret_seen->looked = false;
	if (writeback)
		return identity_lend(handle->user, handle->group, true, ret_identity);
	if (caller->uid && fstat(fd, &ret_seen->st))
		return -errno;
	ret_seen->looked = caller->uid;
	/* A set-gid bit may stay if the caller is a member of the file's group. */
	if (caller->uid && ret_seen->st.st_mode & S_ISGID)
		return identity_assume(req, fd, true, ret_identity);
	return identity_lend(caller->uid, caller->gid, !caller->uid && !kill_set_id, ret_identity);
}

/* pwrite(2) as IDENTITY. If only the rest of the write needs further rights that IDENTITY has, only
 * the rest is written with them. Returns the bytes written. */
static ssize_t write_as(struct identity *identity, const struct handle *handle, const char *buf,
			size_t size, off_t off, const struct seen *seen)
{
	size_t done = 0;
	ssize_t written;

	/* The request may come once more, and have appended some of its bytes before. */
	if (handle->appends)
		done = fusefs_again_appended(handle->fd, size);
	if (done == size)
		return (ssize_t)size;
	do {
		written = cow_break_write(&handle->fs->cow, handle->file, handle->source,
					  buf + done, size - done, off + (off_t)done,
					  seen->looked ? &seen->st : NULL);
		if (written > 0)
			done += (size_t)written;
	} while (done < size && (written > 0 || identity_insist(identity, written)));
	return done ? (ssize_t)done : written;
}

/* Whether a write that ends at END went where it should. In a file that is only appended to it did
 * not if another process had appended meanwhile, or if the write was meant for a place within the
 * file. */
static bool is_in_place(const struct handle *handle, off_t end)
{
	struct stat st;

	return !handle->appends || (!fstat(source_fd(handle->source), &st) && st.st_size == end);
}

void fusefs_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		  struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct handle *handle = handle_of(fs, fi);
	struct identity identity;
	struct seen seen;
	struct window_span span = {0};
	bool untrue = false;
	ssize_t written;

	(void)ino;
	written = handle ? handle_content(handle) : -EBADF;
	/* What was stored through a mapping must go to its own place, and cannot be appended. */
	if (!written && fi->writepage && handle->appends)
		written = -EPERM;
	if (!written)
		written = lend_to_writer(req, handle, fi->writepage, fi->kill_suidgid, &identity,
					 &seen);
	if (written < 0) {
		fusefs_reply_err(req, (int)-written);
		return;
	}
	written = write_as(&identity, handle, buf, size, off, &seen);
	handle_drop_if_due(handle);
	if (written > 0 && !is_in_place(handle, off + written))
		file_distrust(handle->file);
	handle_follow_change(handle);
	if (written > 0) {
		errint_t error;

		span = span_of(fs, fi, off, (size_t)written);
		untrue = note_written(handle, span, fi->writepage);
		error = make_durable(fs, handle, fi->flags);
		written = error ? error : written;
	}
	if (written < 0)
		fusefs_reply_err(req, (int)-written);
	else if (untrue)
		answer_when_dropped(req, handle, (size_t)written, span, drop_wait(off, size, span));
	else
		fusefs_reply_write(req, (size_t)written);
}

/* Truncate a file that is open as FD; if PATH is not NULL, by PATH. */
static errint_t truncate_file(struct fusefs *fs, struct inode *inode, int fd, const char *path,
			      off_t size)
{
	struct window_file *window;
	struct file *file;
	struct stat st;
	errint_t error;

	if (fstat(fd, &st))
		return -errno;
	error = fusefs_file_get(fs, inode, &st, &file);
	if (error)
		return error;
	error = cow_break_truncate(&fs->cow, file, fd, path, size);
	file_put(file);
	file_table_trim(fs->files);
	inode_lock(inode);
	window = *inode_window_file(inode);
	inode_unlock(inode);
	if (!error && window)
		window_close_from(window, fold_pages_in(0, (uint64_t)size));
	return error;
}

/*
 * Truncate a file open as FD for truncate(2), or for O_TRUNC, which comes as a truncate to 0. With
 * size 0 the two look alike. For an empty file it is taken for O_TRUNC, which moves the file's
 * times on every file system. So size 0 is set by descriptor. Other sizes are set by path, unless
 * FD is ALONE: the one description of a proven file (kin.h). A path would count as another
 * description.
 */
static errint_t truncate_open(struct fusefs *fs, struct inode *inode, int fd, bool alone,
			      off_t size)
{
	char path[PROC_FD_BYTES];

	return truncate_file(fs, inode, fd, size && !alone ? proc_fd(path, fd) : NULL, size);
}

/* A caller who is root may lack CAP_FSETID. */
static errint_t truncate_as_caller(struct fusefs *fs, fuse_req_t req, struct inode *inode, int fd,
				   bool alone, off_t size, bool kill_set_id)
{
	const struct fuse_ctx *caller = fuse_req_ctx(req);
	struct identity identity;
	errint_t error;

	if (caller->uid == 0)
		error = identity_lend(0, caller->gid, !kill_set_id, &identity);
	else
		error = identity_assume(req, fd, false, &identity);
	if (error)
		return error;
	do
		error = truncate_open(fs, inode, fd, alone, size);
	while (identity_insist(&identity, error));
	return error;
}

/* Truncate without a handle, for a caller that may write to the file. Truncating by path breaks
 * leases and waits for them. There is no lease while the file is open for writing. */
static errint_t truncate_unopened(struct fusefs *fs, fuse_req_t req, struct inode *inode,
				  off_t size, bool kill_set_id)
{
	struct source *source;
	bool joined;
	errint_t error = fusefs_source_of_caller(fs, req, inode, O_WRONLY, true, &source, &joined);

	if (error)
		return error;
	error = truncate_as_caller(fs, req, inode, source_fd(source), joined, size, kill_set_id);
	identity_make_own();
	source_put(source);
	return error;
}

errint_t fusefs_truncate(fuse_req_t req, struct inode *inode, struct fuse_file_info *fi, off_t size,
			 bool kill_set_id)
{
	struct fusefs *fs = fusefs_of(req);
	struct handle *handle = fi ? handle_of(fs, fi) : NULL;
	struct identity identity;
	struct seen seen;
	errint_t error = fusefs_make_way(fs, inode);

	if (error)
		return error;
	if (!handle)
		return truncate_unopened(fs, req, inode, size, kill_set_id);
	error = lend_to_writer(req, handle, false, kill_set_id, &identity, &seen);
	if (!error) {
		do
			error = truncate_file(fs, inode, source_fd(handle->source), NULL, size);
		while (identity_insist(&identity, error));
	}
	identity_make_own();
	return error;
}

void fusefs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		      struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct handle *handle = handle_of(fs, fi);
	errint_t error = handle ? handle_content(handle) : -EBADF;
	struct identity identity;
	struct seen seen;

	(void)ino;
	/* The kernel does not say whether set-id bits must go. They go for all callers except
	 * root. */
	if (!error)
		error = lend_to_writer(req, handle, false, false, &identity, &seen);
	if (!error) {
		do
			error = cow_break_fallocate(&fs->cow, handle->file,
						    source_fd(handle->source), mode, offset,
						    length);
		while (identity_insist(&identity, error));
		handle_follow_change(handle);
	}
	fusefs_reply_err(req, -error);
}

void fusefs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			    struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			    struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct handle *in = handle_of(fs, fi_in);
	struct handle *out = handle_of(fs, fi_out);
	ssize_t copied = in && out ? handle_content(out) : -EBADF;
	struct identity identity;
	struct seen seen;

	(void)ino_in;
	(void)ino_out;
	if (flags)
		copied = -EINVAL;
	if (!copied)
		copied = lend_to_writer(req, out, false, false, &identity, &seen);
	if (!copied) {
		do
			copied = cow_break_copy(&fs->cow, source_fd(in->source), off_in, out->file,
						source_fd(out->source), off_out, len);
		while (identity_insist(&identity, copied));
		handle_follow_change(out);
	}
	if (copied > 0) {
		source_moved(in->source, (uint64_t)copied);
		source_moved(out->source, (uint64_t)copied);
		handle_drop_if_due(in);
		handle_drop_if_due(out);
	}
	if (copied < 0)
		fusefs_reply_err(req, (int)-copied);
	else
		fusefs_reply_write(req, (size_t)copied);
}
