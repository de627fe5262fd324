/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cow_break.c - every change of content
 *
 * Each case has the same frame: change_begin (range lock, stamp), the source, the slots,
 * change_end. What another file shares is never touched: frames are immutable, so "to break" is to
 * give this file's slot another frame.
 *
 * A fill that reads the source while a change is made may have old bytes, new ones or both. If it
 * looked before the slots changed, its ticket is worthless afterwards (page_map, B.2). If it looked
 * after they changed, it read the source after the change, because the source came first.
 *
 * EINTR comes from the source (NFS, FUSE), never from a signal to us: the call is made again.
 */
#include "foldfs/cow_break.h"

#include "foldfs/counters.h"
#include "foldfs/rcu.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* A write of this many bytes is taken for a stream. Its pages become unknown instead of private. A
 * copy of each page in the pool would cost more than the write (measured: a 1 MiB write took 5
 * times as long, most of it for memory to be cleared). It would also push out what is used, and
 * hold what the window has anyway. */
#define STREAM_BYTES (64u << 10)

/* The most of a copy that is done in one call. One call of the source may take many seconds for 2
 * GiB. Meanwhile nothing else changes these pages and the client cannot be killed. The client asks
 * for the rest. Pieces end at multiples of this, so that each can be a reflink if the whole
 * could. */
#define COPY_BYTES ((size_t)16 << 20)

/* A change of FILE's pages FIRST..LAST that is under way. */
struct change {
	struct file *file;
	int fd;
	uint64_t first;
	uint64_t last;
	struct range_hold hold;
};

static errint_t change_begin(struct change *change, struct file *file, int fd, uint64_t first,
			     uint64_t last, const struct stat *seen)
{
	errint_t error;

	change->file = file;
	change->fd = fd;
	change->first = first;
	change->last = last;
	range_lock_lock(file_range_lock(file), &change->hold, first, last);
	error = file_change_begin(file, fd, seen);
	if (error)
		range_lock_unlock(file_range_lock(file), &change->hold);
	else
		file_cut_kin(file, first, last);
	return error;
}

static void change_end(struct change *change)
{
	file_change_end(change->file, change->fd);
	range_lock_unlock(file_range_lock(change->file), &change->hold);
	/* A file that is only written takes memory for its map, too. */
	file_table_trim(file_table_of(change->file));
}

/* Forget the pages of the change: they are what the source says, whatever that is. */
static void forget(const struct change *change)
{
	uint64_t count = change->last == UINT64_MAX ? UINT64_MAX : change->last - change->first + 1;

	fold_rcu_read_lock();
	page_map_forget(file_map(change->file), change->first, count);
	fold_rcu_read_unlock();
}

/* LENGTH bytes were written WITHIN a page that was resident as OLD: put its new content into FRAME.
 * True if FRAME was used. Read side. */
static bool break_page(const struct cow_break *cow, struct page_map *map, uint64_t page,
		       const void *old, const void *bytes, size_t within, size_t length,
		       uint32_t frame, struct frame_batch *batch)
{
	uint8_t *new = page_store_bytes(cow->store, frame);

	if (length < FOLD_PAGE_SIZE)
		memcpy(new, old, FOLD_PAGE_SIZE);
	memcpy(new + within, bytes, length);
	if (fold_page_is_zero(new)) {
		page_map_break_zero(map, page, batch);
		return false;
	}
	page_map_break(map, page, page_store_publish_private(cow->store, frame, batch), batch);
	return true;
}

/* Update the slots of the pages after LENGTH bytes from BUFFER were written at OFFSET. */
static void break_pages(const struct cow_break *cow, struct file *file, const uint8_t *buffer,
			size_t length, uint64_t offset)
{
	struct page_map *map = file_map(file);
	struct page_look looks[STREAM_BYTES / FOLD_PAGE_SIZE + 1];
	uint32_t frames[STREAM_BYTES / FOLD_PAGE_SIZE + 1];
	struct frame_batch batch = {.count = 0};
	uint64_t first = fold_page_of(offset);
	unsigned pages = (unsigned)fold_pages_in(offset, length);
	unsigned resident = 0;
	unsigned got;
	unsigned broken = 0;
	unsigned unknown = 0; /* pages before I that are to be forgotten, side by side */
	unsigned i;

	fold_rcu_read_lock();
	page_map_look(map, first, pages, looks);
	for (i = 0; i < pages; i++)
		resident += looks[i].data != NULL;
	got = resident ? page_store_take(cow->store, frames, resident) : 0;
	for (i = 0; i < pages; i++) {
		size_t within = offset & FOLD_PAGE_MASK;
		size_t part = FOLD_PAGE_SIZE - within < length ? FOLD_PAGE_SIZE - within : length;
		const uint8_t *old = looks[i].data;

		if (!old || (memcmp(old + within, buffer, part) && !got)) {
			unknown++;
		} else {
			page_map_forget(map, first + i - unknown, unknown);
			unknown = 0;
			if (memcmp(old + within, buffer, part)) {
				broken++;
				if (break_page(cow, map, first + i, old, buffer, within, part,
					       frames[got - 1], &batch))
					got--;
			}
		}
		offset += part;
		buffer += part;
		length -= part;
	}
	page_map_forget(map, first + i - unknown, unknown);
	for (i = 0; i < got; i++)
		page_store_give_back(cow->store, frames[i], &batch);
	/* Within the read side in which the frames were taken: by that the audit tells a lost frame
	 * from one in use. */
	page_store_settle(cow->store, &batch);
	fold_rcu_read_unlock();
	if (broken)
		counters_add(cow->counters, COUNTER_BREAKS, broken);
}

/* A stream was written: count how many of its pages were resident, and forget them all. */
static void break_stream(const struct cow_break *cow, const struct change *change)
{
	struct page_map *map = file_map(change->file);
	struct page_look looks[FOLD_REQUEST_PAGES];
	uint64_t page = change->first;
	uint64_t broken = 0;

	fold_rcu_read_lock();
	while (page <= change->last) {
		uint64_t left = change->last - page + 1;
		unsigned count = left < FOLD_REQUEST_PAGES ? (unsigned)left : FOLD_REQUEST_PAGES;
		unsigned i;

		page_map_look(map, page, count, looks);
		for (i = 0; i < count; i++)
			broken += looks[i].data != NULL;
		page += count;
	}
	fold_rcu_read_unlock();
	forget(change);
	counters_add(cow->counters, COUNTER_BREAKS, broken);
}

ssize_t cow_break_write(const struct cow_break *cow, struct file *file, struct source *source,
			const void *buffer, size_t length, off_t offset, const struct stat *seen)
{
	uint64_t from = (uint64_t)offset;
	struct change change;
	ssize_t written;
	errint_t error;

	if (!length)
		return 0;
	error = change_begin(&change, file, source_fd(source), fold_page_of(from),
			     fold_page_of(from + length - 1), seen);
	if (error)
		return error;
	written = source_write(source, buffer, length, offset);
	if (written != (ssize_t)length)
		forget(&change);
	else if (length >= STREAM_BYTES)
		break_stream(cow, &change);
	else
		break_pages(cow, file, buffer, length, from);
	change_end(&change);
	return written;
}

errint_t cow_break_truncate(const struct cow_break *cow, struct file *file, int fd,
			    const char *path, off_t size)
{
	uint64_t old = file_size(file);
	uint64_t from = old < (uint64_t)size ? old : (uint64_t)size;
	struct change change;
	errint_t error;

	(void)cow;
	error = change_begin(&change, file, fd, fold_page_of(from), UINT64_MAX, NULL);
	if (error)
		return error;
	if (TEMP_FAILURE_RETRY(path ? truncate(path, size) : ftruncate(fd, size)))
		error = -errno;
	/* Forgets also the page that is cut: behind the end it reads as zeroes from now on. */
	forget(&change);
	change_end(&change);
	return error;
}

/* The last page that fallocate's MODE may change, of a range that ends at END. */
static uint64_t last_changed_page(int mode, uint64_t end)
{
	const int in_place = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE |
			     FALLOC_FL_UNSHARE_RANGE;

	/* Collapse and insert move all that follows; so may a mode that we do not know yet. */
	return mode & ~in_place ? UINT64_MAX : fold_page_of(end - 1);
}

errint_t cow_break_fallocate(const struct cow_break *cow, struct file *file, int fd, int mode,
			     off_t offset, off_t length)
{
	struct change change;
	errint_t error;

	(void)cow;
	if (offset < 0 || length <= 0 || offset > INT64_MAX - length)
		return -EINVAL;
	error = change_begin(&change, file, fd, fold_page_of((uint64_t)offset),
			     last_changed_page(mode, (uint64_t)(offset + length)), NULL);
	if (error)
		return error;
	if (TEMP_FAILURE_RETRY(fallocate(fd, mode, offset, length)))
		error = -errno;
	/* Reserving room changes no byte. */
	if (mode & ~FALLOC_FL_KEEP_SIZE)
		forget(&change);
	change_end(&change);
	return error;
}

/* How much of LENGTH, to be copied to OFFSET, is done in this call. */
static size_t copy_piece(off_t offset, size_t length)
{
	size_t piece = COPY_BYTES - (size_t)offset % COPY_BYTES;

	return length < piece ? length : piece;
}

ssize_t cow_break_copy(const struct cow_break *cow, int fd_in, off_t offset_in, struct file *file,
		       int fd_out, off_t offset_out, size_t length)
{
	struct change change;
	ssize_t copied;
	errint_t error;

	(void)cow;
	if (!length)
		return 0;
	if (offset_out < 0 || length > (uint64_t)(INT64_MAX - offset_out))
		return -EINVAL;
	length = copy_piece(offset_out, length);
	error = change_begin(&change, file, fd_out, fold_page_of((uint64_t)offset_out),
			     fold_page_of((uint64_t)offset_out + length - 1), NULL);
	if (error)
		return error;
	copied = TEMP_FAILURE_RETRY(
		copy_file_range(fd_in, &offset_in, fd_out, &offset_out, length, 0));
	if (copied < 0)
		copied = -errno;
	forget(&change);
	change_end(&change);
	return copied;
}
