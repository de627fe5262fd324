/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_read.c - READ, and lseek
 *
 * fill.h describes how a read proceeds. Two things are decided here.
 *
 * The transport. On io_uring the pages are copied into the request's payload. On /dev/fuse they are
 * passed to writev(2) where they are. Both happen within the read side that keeps them valid.
 *
 * Where a read waits for the source. It waits in its thread as long as few reads do: that is
 * fastest for a single read. Beyond that the fetcher reads for it, and answers from a thread of its
 * own. So when many clients miss, each does not take a thread, and the disk gets many reads in one
 * call. With libfuse before 3.19 a request that came by io_uring must be answered on the thread it
 * came on (later commit "fuse_uring: serialise all ring submission under ring_lock"). So such a
 * request waits in that thread, and the read-ahead keeps misses rare.
 *
 * No lock is held while replying.
 */
#include "fusefs_handle.h"

#include "foldfs/counters.h"
#include "foldfs/rcu.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long a READ waits for the window's trimmer, if the trimmer is behind but makes progress. A
 * ring's thread has other requests to answer. With 20 ms for it, a storm of booting clones takes a
 * tenth longer than with 1 ms, and the window grows to the same size. */
#define WORKER_WAIT_US 100000u
#define RING_WAIT_US   1000u
#define CACHE_LINE     64u
#define PREFETCH_BYTES 1024u
/* This many reads wait for the source in their threads. Further reads are left to the fetcher. */
#define WAIT_IN_THREADS 4u

/* A READ. It is on its thread's stack until the fetcher takes it. */
struct reading {
	fuse_req_t req;
	struct handle *handle;
	off_t offset;
	size_t size;
	bool fetches; /* something is fetched, and is published after the reply; the handle has a
		       * reference for that */
	struct window_read cached;
	struct fetch fetch;
	struct page_io io;
	struct page_read read;
};

/* ---- the answer ---- */

/* Prefetch the first bytes of PART, which is copied next. Frames lie where they were free, and the
 * processor's own prefetching stops at the end of each page. This makes copying the random frames
 * of a 128 KiB read take two thirds of the time. */
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

/* Answer READING; everything that it needs is at hand. Within a read side. */
static void reply(struct reading *reading)
{
	struct iovec iov[FOLD_REQUEST_PAGES];
	struct page_read *read = &reading->read;
	ssize_t bytes;
	int count;

	handle_follow_change(reading->handle);
	bytes = page_read_iov(read, iov, &count);
	/* After an error, do not send a short answer: to the page cache it would look like the end
	 * of the file. The kernel asks again page by page, and gets what can be read. */
	if (read->error && bytes >= 0 && !plan_is_direct(reading->handle->fs->plan))
		bytes = read->error;
	if (bytes < 0)
		fusefs_reply_err(reading->req, (int)-bytes);
	else
		reply_pages(reading->req, iov, count, (size_t)bytes);
}

/* If nothing was fetched, this only counts, and touches neither file nor source: the kernel may
 * have closed the handle. */
static void finish(struct reading *reading)
{
	window_read_end(&reading->cached);
	(void)page_read_finish(&reading->read);
	if (!reading->fetches)
		return;
	handle_drop_if_due(reading->handle);
	handle_put(reading->handle);
}

/* ---- what the fetcher reads ---- */

static void hand_over(struct reading *reading)
{
	struct fetch *fetch = &reading->fetch;

	fetch->iov = reading->io.iov;
	fetch->count = reading->io.count;
	fetch->offset = reading->io.offset;
	fetcher_read(fetch);
}

/* Answer READING, which was moved, or have the fetcher read the pages that it misses. */
static void go_on(struct reading *reading)
{
	struct fetcher *fetcher = reading->handle->fs->fetcher;

	fold_rcu_read_lock();
	while (!page_read_look(&reading->read)) {
		fold_rcu_read_unlock();
		page_read_begin_fetch(&reading->read);
		if (page_read_next(&reading->read, &reading->io)) {
			hand_over(reading);
			return;
		}
		fold_rcu_read_lock();
	}
	reply(reading);
	fold_rcu_read_unlock();
	finish(reading);
	fetcher_give(fetcher, &reading->fetch);
	free(reading);
}

static void fetched(struct fetch *fetch, ssize_t got)
{
	struct reading *reading = caa_container_of(fetch, struct reading, fetch);

	page_read_got(&reading->read, got);
	if (page_read_next(&reading->read, &reading->io))
		hand_over(reading);
	else
		go_on(reading);
}

/* Copy READING to memory of its own, so that the fetcher can read it. NULL: the thread must wait
 * itself. */
static struct reading *move(const struct reading *reading)
{
	struct handle *handle = reading->handle;
	struct fusefs *fs = handle->fs;
	struct fetch fetch = {.source = handle->source, .done = fetched};
	struct reading *moved;

	/* A file that is being changed may be locked for long, and all other reads of the ring
	 * would wait. */
	if (fusefs_on_ring ||
	    atomic_load_explicit(&fs->filler.at_work, memory_order_relaxed) < WAIT_IN_THREADS ||
	    file_is_changing(handle->file) ||
	    !fetcher_take(fs->fetcher, inode_device(handle->inode), handle->user, &fetch))
		return NULL;
	moved = malloc(sizeof(*moved));
	if (!moved) {
		fetcher_give(fs->fetcher, &fetch);
		return NULL;
	}
	memcpy(moved, reading, offsetof(struct reading, fetch));
	page_read_move(&moved->read, &reading->read);
	moved->fetch = fetch;
	counters_add(fs->counters, COUNTER_FETCHED, 1);
	return moved;
}

/* ---- READ ---- */

/* READING has had a miss. */
static void begin_fetch(struct reading *reading)
{
	struct handle *handle = reading->handle;

	reading->fetches = true;
	atomic_fetch_add_explicit(&handle->references, 1, memory_order_relaxed);
	window_read_misses(&reading->cached);
	stream_note(handle->stream, reading->offset, reading->size, true);
	(void)stream_wait(handle->stream, reading->offset, reading->size);
}

/* Perform READING, and answer it. */
static void run(struct reading *reading)
{
	struct page_read *read = &reading->read;
	struct reading *moved;

	fold_rcu_read_lock();
	if (page_read_look(read)) {
		stream_note(reading->handle->stream, reading->offset, reading->size, false);
	} else {
		fold_rcu_read_unlock();
		begin_fetch(reading);
		moved = move(reading);
		if (moved) {
			go_on(moved);
			return;
		}
		fold_rcu_read_lock();
		while (!page_read_look(read)) {
			fold_rcu_read_unlock();
			page_read_fetch(read);
			fold_rcu_read_lock();
		}
	}
	reply(reading);
	fold_rcu_read_unlock();
	finish(reading);
}

void fusefs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct handle *handle = handle_of(fs, fi);
	errint_t error = handle ? handle_content(handle) : -EBADF;
	struct reading reading;
	struct window_span span;

	(void)ino;
	if (error || !handle->stream || off < 0) {
		fusefs_reply_err(req, error ? -error : EINVAL);
		return;
	}
	if (size > FOLD_REQUEST_BYTES)
		size = FOLD_REQUEST_BYTES;
	reading.req = req;
	reading.handle = handle;
	reading.offset = off;
	reading.size = size;
	reading.fetches = false;
	page_read_init(&reading.read, &fs->filler, handle->file, handle->source, off, size);
	/* A file open for direct I/O may also be mapped, and pages read by a page fault are cached.
	 * Only a read system call says whose it is. */
	span = (struct window_span){
		.first = reading.read.first,
		.pages = reading.read.pages,
		.direct = (fi->flags & O_DIRECT || plan_is_direct(fs->plan)) && fi->lock_owner,
	};
	window_read_begin(handle->window, span, fusefs_on_ring ? RING_WAIT_US : WORKER_WAIT_US,
			  &reading.cached);
	run(&reading);
}

/* Only the page map is asked. The window is not, although it may make any READ wait for a
 * moment. */
bool fusefs_read_is_brief(const struct fusefs *fs, const struct fuse_read_in *in)
{
	const struct handle *handle = handle_find(fs, in->fh);
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

uint64_t fusefs_reading_bytes(void)
{
	return sizeof(struct reading);
}

void fusefs_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	off_t at = lseek(fusefs_handle_fd(fuse_req_userdata(req), fi), off, whence);

	(void)ino;
	if (at < 0)
		fusefs_reply_err(req, errno);
	else
		fusefs_reply_lseek(req, at);
}
