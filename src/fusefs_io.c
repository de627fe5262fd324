/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_io.c - content: read, write and what goes with them
 *
 * The way of a read is fill.h's. What is decided here is the transport: on io_uring the pages are
 * copied into the request's payload, on /dev/fuse they are handed to writev(2) where they are. Both
 * happen within the read side that keeps them valid. With libfuse before 3.19 a request that came
 * by io_uring must be answered on the thread it came on (later commit "fuse_uring: serialise all
 * ring submission under ring_lock"), so a miss is read there too, on either transport: on /dev/fuse
 * serve.c starts another thread when all are busy, and on io_uring the read-ahead keeps misses
 * rare.
 *
 * No lock is held while replying.
 */
#include "foldfs/fusefs_handle.h"

#include "foldfs/rcu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long a READ waits for the window's trimmer where it is behind and gets on. A thread of a ring
 * has other requests to answer: with 20 ms a storm of booting clones takes a tenth longer than with
 * 1 ms, and the window grows to the same. */
#define WORKER_WAIT_US 100000u
#define RING_WAIT_US   1000u
/* How long a write waits at most for pages that were found untrue to be dropped: drop_wait(). A
 * drop takes 0.1 ms. */
#define DROP_WAIT_US      999999u
#define RING_DROP_WAIT_US 20000u
#define MAYBE_WAIT_US     2000u
#define CACHE_LINE        64u
#define PREFETCH_BYTES    1024u

/* ---- read ---- */

/* The kernel is about to cache these pages, unless its client asked for DIRECT. Before the reply.
 */
static void note_cached(const struct handle *handle, bool direct, uint64_t first, unsigned pages)
{
	if (pages && !direct)
		window_note(handle->window, first, pages);
}

/* The kernel's cache of the file is no more true than what we knew. */
static void follow_foreign_change(const struct handle *handle)
{
	window_follow(handle->window, file_edition(handle->file));
}

/* Everything of READ is at hand afterwards. On return, within a read side. Returns whether
 * something was fetched, which is to be published after the reply; the handle has a reference for
 * that, and the window has WAIT. */
static bool gather(struct handle *handle, struct page_read *read, off_t offset, size_t length,
		   struct window_read *wait)
{
	fold_rcu_read_lock();
	if (page_read_look(read)) {
		stream_note(handle->stream, offset, length, false);
		return false;
	}
	fold_rcu_read_unlock();
	atomic_fetch_add_explicit(&handle->references, 1, memory_order_relaxed);
	window_read_waits(handle->window, read->first, read->pages, wait);
	stream_note(handle->stream, offset, length, true);
	(void)stream_wait(handle->stream, offset, length);
	fold_rcu_read_lock();
	while (!page_read_look(read)) {
		fold_rcu_read_unlock();
		page_read_fetch(read);
		fold_rcu_read_lock();
	}
	return true;
}

/* Ask for the first bytes of PART, which is to be copied next: frames lie where they were free, and
 * the processor's own prefetching ends with each page. Random frames of a 128 KiB read are so
 * copied in two thirds of the time. */
static void prefetch_part(const struct iovec *part)
{
	const char *byte = part->iov_base;
	size_t length = part->iov_len < PREFETCH_BYTES ? part->iov_len : PREFETCH_BYTES;

	for (size_t i = 0; i < length; i += CACHE_LINE)
		__builtin_prefetch(byte + i);
}

/* Answer with BYTES from IOV, whose pages are valid within the caller's read side. */
static void reply_pages(fuse_req_t req, const struct iovec iov[], int count, size_t bytes)
{
	char *payload;
	size_t room;
	int i;

	if (fuse_req_get_payload(req, &payload, &room, NULL) || room < bytes) {
		fusefs_reply_iov(req, iov, count);
		return;
	}
	for (i = 0, room = 0; i < count; room += iov[i++].iov_len) {
		if (i + 1 < count)
			prefetch_part(&iov[i + 1]);
		memcpy(payload + room, iov[i].iov_base, iov[i].iov_len);
	}
	fusefs_reply_buf(req, payload, bytes);
}

/* Much has gone by the kernel's cache of the source. */
static void drop_soon_if_due(struct fusefs *fs, struct source *source)
{
	if (source_wants_drop(source))
		source_drop_cache_soon(source, fs->closers);
}

void fusefs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct handle *handle = handle_of(fi);
	struct iovec iov[FOLD_REQUEST_PAGES];
	struct window_read wait;
	struct page_read read;
	ssize_t bytes;
	bool fetched;
	bool direct;
	int count;

	(void)ino;
	bytes = handle ? handle_content(handle) : -EBADF;
	if (bytes < 0 || !handle->stream || off < 0) {
		fusefs_reply_err(req, bytes < 0 ? (int)-bytes : EINVAL);
		return;
	}
	if (size > FOLD_REQUEST_BYTES)
		size = FOLD_REQUEST_BYTES;
	page_read_init(&read, &fs->filler, handle->file, handle->source, off, size);
	/* A file open for direct I/O may also be mapped, and what a page fault reads is cached.
	 * Only a read system call tells whose it is. */
	direct = (fi->flags & O_DIRECT || plan_is_direct(fs->plan)) && fi->lock_owner;
	if (!direct)
		window_wait_for_room(handle->window, read.first, read.pages,
				     fusefs_on_ring ? RING_WAIT_US : WORKER_WAIT_US);
	note_cached(handle, direct, read.first, read.pages);
	fetched = gather(handle, &read, off, size, &wait);
	follow_foreign_change(handle);
	bytes = page_read_iov(&read, iov, &count);
	/* Short for an error: to the page cache it would look like the end of the file. The kernel
	 * asks again page by page, and gets what can be read. */
	if (read.error && bytes >= 0 && !plan_is_direct(fs->plan))
		bytes = read.error;
	if (bytes < 0)
		fusefs_reply_err(req, (int)-bytes);
	else
		reply_pages(req, iov, count, (size_t)bytes);
	fold_rcu_read_unlock();
	if (fetched)
		window_read_goes_on(fs->window, &wait);
	/* Without anything fetched this only counts, and touches neither file nor source. */
	(void)page_read_finish(&read);
	if (!fetched)
		return;
	drop_soon_if_due(fs, handle->source);
	handle_put(handle);
}

/* What the page map has. The window, which may make any READ wait for a moment, is not asked. */
bool fusefs_read_is_brief(const struct fuse_read_in *in)
{
	const struct fuse_file_info fi = {.fh = in->fh};
	const struct handle *handle = handle_of(&fi);
	uint64_t page = fold_page_of(in->offset);
	size_t size = in->size < FOLD_REQUEST_BYTES ? in->size : FOLD_REQUEST_BYTES;
	uint64_t end = page + fold_pages_in(in->offset, size);
	uint64_t file_end;
	uint32_t users;

	if (!handle || !atomic_load_explicit(&handle->ready, memory_order_acquire))
		return false;
	file_end = fold_pages_in(0, file_size(handle->file));
	if (end > file_end)
		end = file_end;
	fold_rcu_read_lock();
	while (page < end && page_map_users(file_map(handle->file), page, &users))
		page++;
	fold_rcu_read_unlock();
	return page >= end;
}

/* ---- changes of content ---- */

/* A write that is to be durable (RWF_DSYNC, RWF_SYNC) comes with FLAGS that say so. With cached I/O
 * the kernel sends an fsync after it, with direct I/O nothing. A file that was opened so has such a
 * source. */
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

/* Only direct I/O tells whose it is: what the kernel writes back comes without, and so does an
 * O_DIRECT write whose pages it could not drop or that was cut short, which goes by its cache. */
static bool is_direct_write(const struct fusefs *fs, const struct fuse_file_info *fi)
{
	return (fi->flags & O_DIRECT || plan_is_direct(fs->plan)) && fi->lock_owner;
}

/* The kernel has cached what was written, unless it was by direct I/O. Returns whether it may have
 * cached untrue pages meanwhile, which are on their way out. */
static bool note_written(const struct fusefs *fs, const struct handle *handle,
			 const struct fuse_file_info *fi, off_t offset, size_t length)
{
	bool direct = is_direct_write(fs, fi);
	uint64_t first = fold_page_of((uint64_t)offset);
	unsigned pages = (unsigned)fold_pages_in((uint64_t)offset, length);

	bool untrue = !fi->writepage && window_written(handle->window, first, pages, direct);

	note_cached(handle, direct, first, pages);
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
 * The drop may be waiting for the write's answer: the kernel holds a page locked until then that it
 * had not and got a part of, which is the last page of a request, or the only one. Such a write may
 * wait in vain once the drop has begun, and so not for long then. A direct write locks nothing. A
 * thread of a ring makes others wait that the drop, or what is before it, may be waiting for.
 */
static struct window_patience drop_wait(off_t offset, size_t length, bool direct)
{
	bool ends_within = ((uint64_t)offset + length) & FOLD_PAGE_MASK;
	bool begins_within = (uint64_t)offset & FOLD_PAGE_MASK;
	bool one_page = fold_pages_in((uint64_t)offset, length) == 1;
	unsigned most = fusefs_on_ring ? RING_DROP_WAIT_US : DROP_WAIT_US;

	if (direct && !fusefs_on_ring)
		return (struct window_patience){0};
	if (!direct && (ends_within || (begins_within && one_page)))
		return (struct window_patience){.begin_us = most, .drop_us = MAYBE_WAIT_US};
	return (struct window_patience){.begin_us = most, .drop_us = most};
}

/*
 * A write of WRITTEN bytes has met untrue pages: answer it once they are gone, or PATIENCE is at
 * its end.
 *
 * What is answered by another thread on a ring is that thread's from then on: Linux hands the
 * ring's next request over in the context of who gave the last answer, and if that one waits in the
 * kernel, as the trimmer does, for this very request, both wait for good (seen as an unkillable
 * process, on 6.18). So a ring's thread waits itself.
 */
static void answer_when_dropped(fuse_req_t req, const struct handle *handle, off_t offset,
				size_t written, struct window_patience patience)
{
	uint64_t first = fold_page_of((uint64_t)offset);
	unsigned pages = (unsigned)fold_pages_in((uint64_t)offset, written);
	struct write_answer *write = fusefs_on_ring ? NULL : malloc(sizeof(*write));

	if (write) {
		write->answer.give = give_write_answer;
		write->req = req;
		write->written = written;
		if (window_answer_later(handle->window, first, pages, patience, &write->answer))
			return;
		free(write);
	} else {
		if (!patience.begin_us)
			patience.begin_us = patience.drop_us = DROP_WAIT_US;
		window_wait_for_drop(handle->window, first, pages, patience);
	}
	fusefs_reply_write(req, written);
}

/* What fstat said to this request, if it was asked. */
struct seen {
	bool looked;
	struct stat st;
};

/*
 * Be who writes to HANDLE: so reserved blocks, quotas and set-id bits are the source's to see to. A
 * page that the kernel writes back was stored by somebody who had the file open, which takes no
 * set-id bits away. KILL_SET_ID: the kernel says that the caller has no CAP_FSETID. *RET_SEEN: the
 * source, where it had to be looked at for that.
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
	/* A set-gid bit may stay for the members of the file's group. */
	if (caller->uid && ret_seen->st.st_mode & S_ISGID)
		return identity_assume(req, fd, true, ret_identity);
	return identity_lend(caller->uid, caller->gid, !caller->uid && !kill_set_id, ret_identity);
}

/* pwrite(2) as IDENTITY, who may have rights that only the rest of it needs: then that is written
 * with them. Bytes written. */
static ssize_t write_as(struct identity *identity, const struct handle *handle, const char *buf,
			size_t size, off_t off, const struct seen *seen)
{
	size_t done = 0;
	ssize_t written;

	do {
		written = cow_break_write(&handle->fs->cow, handle->file, handle->source,
					  buf + done, size - done, off + (off_t)done,
					  seen->looked ? &seen->st : NULL);
		if (written > 0)
			done += (size_t)written;
	} while (done < size && (written > 0 || identity_insist(identity, written)));
	return done ? (ssize_t)done : written;
}

/* Whether what was to be written up to END is where it was to be. In a file that is only appended
 * to it is not, if somebody else had appended, or it was to be somewhere within. */
static bool is_in_place(const struct handle *handle, off_t end)
{
	struct stat st;

	return !handle->appends || (!fstat(source_fd(handle->source), &st) && st.st_size == end);
}

void fusefs_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		  struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct handle *handle = handle_of(fi);
	struct identity identity;
	struct seen seen;
	bool untrue = false;
	ssize_t written;

	(void)ino;
	written = handle ? handle_content(handle) : -EBADF;
	/* What was stored through a mapping can only go where it was. */
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
	drop_soon_if_due(fs, handle->source);
	if (written > 0 && !is_in_place(handle, off + written))
		file_distrust(handle->file);
	follow_foreign_change(handle);
	if (written > 0)
		untrue = note_written(fs, handle, fi, off, (size_t)written);
	if (written > 0) {
		errint_t error = make_durable(fs, handle, fi->flags);

		written = error ? error : written;
	}
	if (written < 0)
		fusefs_reply_err(req, (int)-written);
	else if (untrue)
		answer_when_dropped(req, handle, off, (size_t)written,
				    drop_wait(off, size, is_direct_write(fs, fi)));
	else
		fusefs_reply_write(req, (size_t)written);
}

/* Truncate a file that is open as FD; by PATH if it is not NULL. */
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
		window_uncount(window, fold_pages_in(0, (uint64_t)size));
	return error;
}

/*
 * truncate(2), or O_TRUNC, which comes as to 0, of a file open as FD. The two look alike then. The
 * latter is what is done to files that are empty, and moves their times on every file system, so it
 * is by descriptor. The other is by path; but not if FD is ALONE, the one description of a proven
 * file (kin.h), for a path is as good as another.
 */
static errint_t truncate_open(struct fusefs *fs, struct inode *inode, int fd, bool alone,
			      off_t size)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return truncate_file(fs, inode, fd, size && !alone ? path : NULL, size);
}

/* Who is root may lack CAP_FSETID. */
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

/* Without a handle: by who may write to the file. To truncate by path breaks leases and waits for
 * them: there is none while the file is open for writing. */
static errint_t truncate_unopened(struct fusefs *fs, fuse_req_t req, struct inode *inode,
				  off_t size, bool kill_set_id)
{
	struct source *source = fusefs_join_source(fs, req, inode, O_WRONLY);
	int fd = source ? source_fd(source) : fusefs_open_as_caller(fs, req, inode, O_WRONLY, true);
	errint_t error;

	if (fd < 0)
		return fd;
	error = truncate_as_caller(fs, req, inode, fd, source, size, kill_set_id);
	identity_make_own();
	if (source)
		source_put(source);
	else
		close(fd);
	return error;
}

errint_t fusefs_truncate(fuse_req_t req, struct inode *inode, struct fuse_file_info *fi, off_t size,
			 bool kill_set_id)
{
	struct fusefs *fs = fusefs_of(req);
	struct handle *handle = fi ? handle_of(fi) : NULL;
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
	struct handle *handle = handle_of(fi);
	errint_t error = handle ? handle_content(handle) : -EBADF;
	struct identity identity;
	struct seen seen;

	(void)ino;
	/* The kernel does not say whether set-id bits must go: they go for everybody but root. */
	if (!error)
		error = lend_to_writer(req, handle, false, false, &identity, &seen);
	if (!error) {
		do
			error = cow_break_fallocate(&fs->cow, handle->file,
						    source_fd(handle->source), mode, offset,
						    length);
		while (identity_insist(&identity, error));
		follow_foreign_change(handle);
	}
	fusefs_reply_err(req, -error);
}

void fusefs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			    struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			    struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct handle *in = handle_of(fi_in);
	struct handle *out = handle_of(fi_out);
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
		follow_foreign_change(out);
	}
	if (copied > 0) {
		source_moved(in->source, (uint64_t)copied);
		source_moved(out->source, (uint64_t)copied);
		drop_soon_if_due(fs, in->source);
		drop_soon_if_due(fs, out->source);
	}
	if (copied < 0)
		fusefs_reply_err(req, (int)-copied);
	else
		fusefs_reply_write(req, (size_t)copied);
}

/* ---- the rest goes to the source as it is ---- */

/* Closing a duplicate is how a client's close(2) reaches the source. For want of a descriptor close
 * does not fail: a flush has the same to tell. */
static errint_t do_flush(struct handle *handle)
{
	int fd;

	if (!handle)
		return -EBADF;
	fd = dup(source_fd(handle->source));
	if (fd < 0)
		return source_flush(handle->source, true, &handle->flush_errors);
	return close(fd) ? -errno : 0;
}

void fusefs_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fusefs_reply_err(req, -do_flush(handle_of(fi)));
}

void fusefs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct handle *handle = handle_of(fi);
	errint_t error =
		handle ? source_flush(handle->source, datasync, &handle->flush_errors) : -EBADF;

	(void)ino;
	if (!error)
		source_drop_cache_soon(handle->source, handle->fs->closers);
	fusefs_reply_err(req, -error);
}

void fusefs_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	off_t at = lseek(fusefs_handle_fd(fi), off, whence);

	(void)ino;
	if (at < 0)
		fusefs_reply_err(req, errno);
	else
		fusefs_reply_lseek(req, at);
}
