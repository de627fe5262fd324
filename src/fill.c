/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fill.c - hits from the pool, misses from the source into it
 *
 * The order of a read, and why it is right: the look notes each page's ticket; the source is read;
 * the reply goes out; only then is the page hashed and published, by compare-and-swap against the
 * ticket. A change that came in between has moved the ticket's version on, so old bytes cannot be
 * published after it (page_map, B.2). The reply itself may carry the bytes of either side of such a
 * change, as with any read that runs beside a write.
 *
 * Between fetch and publication a frame belongs to this read alone. Bytes found in the pool are
 * good until the read side is left, whatever happens to their frames (page_store, A.2), and the
 * reply is made within it.
 *
 * The pool is never a reason to fail (DESIGN, invariant 5). Pages that get no frame are read into a
 * bounce buffer. If there is no memory for that either, they are read into the filler's spare one.
 */
#include "foldfs/fill.h"

#include "foldfs/counters.h"
#include "foldfs/fill_family.h"
#include "foldfs/rcu.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

errint_t filler_init(struct filler *filler, struct page_store *store, struct file_table *files,
		     struct counters *counters)
{
	filler->store = store;
	filler->files = files;
	filler->counters = counters;
	atomic_init(&filler->at_work, 0);
	filler->spare = aligned_alloc(FOLD_PAGE_SIZE, FOLD_REQUEST_PAGES * FOLD_PAGE_SIZE);
	if (!filler->spare)
		return -ENOMEM;
	pthread_mutex_init(&filler->spare_lock, NULL);
	return 0;
}

void filler_destroy(struct filler *filler)
{
	if (!filler->spare)
		return;
	pthread_mutex_destroy(&filler->spare_lock);
	free(filler->spare);
	filler->spare = NULL;
}

void page_read_init(struct page_read *read, struct filler *filler, struct file *file,
		    struct source *source, off_t offset, size_t length)
{
	uint64_t size = file_size(file);
	bool unchanged;

	/* A read past the known end is where a source that grew or shrank behind the mount shows.
	 * An error of fstat will come again with the read. */
	if ((uint64_t)offset + length > size) {
		(void)file_validate(file, source_fd(source), &unchanged);
		size = file_size(file);
	}
	if ((uint64_t)offset >= size)
		length = 0;
	else if (length > size - (uint64_t)offset)
		length = size - (uint64_t)offset;
	read->filler = filler;
	read->file = file;
	read->source = source;
	read->first = fold_page_of((uint64_t)offset);
	read->pages = (unsigned)fold_pages_in((uint64_t)offset, length);
	read->skip = (size_t)((uint64_t)offset & FOLD_PAGE_MASK);
	read->length = length;
	read->error = 0;
	read->error_page = read->pages;
	read->missing = 0;
	read->hits = 0;
	read->looked = false;
	read->at_work = false;
	read->ahead = false;
	read->asked_kin = false;
	read->kin = NULL;
	read->claim.family = NULL;
	read->bounce = NULL;
	read->run = 0;
	read->run_end = 0;
}

void page_read_move(struct page_read *to, const struct page_read *from)
{
	memcpy(to, from, offsetof(struct page_read, looks));
	memcpy(to->looks, from->looks, from->pages * sizeof(from->looks[0]));
	memcpy(to->hand, from->hand, from->pages * sizeof(from->hand[0]));
}

/* Whether page I needs no look any more. */
static bool is_settled(const struct page_read *read, unsigned i)
{
	return read->hand[i].bytes || i >= read->error_page;
}

bool page_read_look(struct page_read *read)
{
	struct page_map *map = file_map(read->file);
	unsigned i;
	unsigned end;

	if (!read->looked)
		for (i = 0; i < read->pages; i++)
			read->hand[i].bytes = NULL;
	read->missing = 0;
	/* A page in hand keeps the ticket under which it was read. */
	for (i = 0; i < read->pages; i = end) {
		bool settled = is_settled(read, i);

		for (end = i + 1; end < read->pages && is_settled(read, end) == settled; end++)
			;
		if (!settled && read->looked)
			page_map_look_again(map, read->first + i, end - i, &read->looks[i]);
		else if (!settled)
			page_map_look(map, read->first + i, end - i, &read->looks[i]);
		for (; !settled && i < end; i++)
			read->missing += !read->looks[i].data;
	}
	if (!read->looked)
		read->hits = read->pages - read->missing;
	read->looked = true;
	return !read->missing;
}

static bool is_missing(const struct page_read *read, unsigned i)
{
	return !is_settled(read, i) && !read->looks[i].data;
}

/* Room for every page of the read; used for pages that got no frame. If no memory is left, it is
 * the filler's spare buffer, which one read at a time can have until it is finished. */
static uint8_t *bounce_memory(struct page_read *read)
{
	if (!read->bounce)
		read->bounce = aligned_alloc(FOLD_PAGE_SIZE, (size_t)read->pages * FOLD_PAGE_SIZE);
	if (!read->bounce) {
		pthread_mutex_lock(&read->filler->spare_lock);
		read->bounce = read->filler->spare;
	}
	return read->bounce;
}

static void free_bounce_memory(struct page_read *read)
{
	if (read->bounce == read->filler->spare)
		pthread_mutex_unlock(&read->filler->spare_lock);
	else
		free(read->bounce);
}

/* Give each missing page a place to be read to. */
static void provide(struct page_read *read)
{
	struct page_store *store = read->filler->store;
	uint32_t frames[FOLD_REQUEST_PAGES];
	unsigned used = 0;
	unsigned got;
	unsigned i;

	if (!read->at_work)
		atomic_fetch_add_explicit(&read->filler->at_work, 1, memory_order_relaxed);
	read->at_work = true;
	got = page_store_take(store, frames, read->missing);
	/* A page that gets no frame is told to nobody, so nobody must wait for it. */
	if (got < read->missing)
		family_unclaim(&read->claim);
	for (i = 0; i < read->pages; i++) {
		struct page_in_hand *hand = &read->hand[i];

		if (!is_missing(read, i))
			continue;
		hand->fetched = false;
		if (used < got) {
			hand->frame = frames[used++];
			hand->bytes = page_store_bytes(store, hand->frame);
		} else {
			hand->frame = FILL_NO_FRAME;
			hand->bytes = bounce_memory(read) + (size_t)i * FOLD_PAGE_SIZE;
		}
	}
}

/* Pages I..END lie side by side: put them into IOV, joining neighbours in memory. */
static int build_iov(struct page_read *read, unsigned i, unsigned end, struct iovec iov[])
{
	int count = 0;

	for (; i < end; i++) {
		char *bytes = read->hand[i].bytes;

		if (count && (char *)iov[count - 1].iov_base + iov[count - 1].iov_len == bytes) {
			iov[count - 1].iov_len += FOLD_PAGE_SIZE;
			continue;
		}
		iov[count++] = (struct iovec){.iov_base = bytes, .iov_len = FOLD_PAGE_SIZE};
	}
	return count;
}

/* The source ended GOT bytes into the pages from I on: fill the rest of its last page with zeroes,
 * and shorten what was asked for. Returns the page behind the last. */
static unsigned end_of_file(struct page_read *read, unsigned i, size_t got)
{
	uint64_t have = (uint64_t)i * FOLD_PAGE_SIZE + got;
	unsigned end = i + (unsigned)(got / FOLD_PAGE_SIZE);
	size_t kept = got % FOLD_PAGE_SIZE;
	bool unchanged;

	if (kept)
		memset((char *)read->hand[end++].bytes + kept, 0, FOLD_PAGE_SIZE - kept);
	/* The file ends before its known end: it shrank behind the mount, and all is to be
	 * forgotten. */
	if ((read->first << FOLD_PAGE_SHIFT) + have < file_size(read->file))
		(void)file_validate(read->file, source_fd(read->source), &unchanged);
	have = have > read->skip ? have - read->skip : 0;
	if (have < read->length)
		read->length = (size_t)have;
	return end;
}

/* Bytes to ask for: whole pages, but not past the last byte that a file can have. */
static size_t wanted_bytes(uint64_t offset, unsigned pages)
{
	uint64_t bytes = (uint64_t)pages * FOLD_PAGE_SIZE;

	return (size_t)(bytes < INT64_MAX - offset ? bytes : INT64_MAX - offset);
}

void page_read_begin_fetch(struct page_read *read)
{
	read->run = 0;
	read->run_end = 0;
	if (fill_family_pages(read))
		provide(read);
}

static bool is_to_be_read(const struct page_read *read, unsigned i)
{
	return i < read->error_page && read->hand[i].bytes && !read->hand[i].fetched;
}

/* The next pages that lie side by side and are in hand but not read yet. False: there are none. */
static bool next_run(struct page_read *read)
{
	unsigned i = read->run_end;

	while (i < read->error_page && !is_to_be_read(read, i))
		i++;
	read->run = i;
	while (is_to_be_read(read, i))
		i++;
	read->run_end = i;
	read->run_got = 0;
	return read->run < read->run_end;
}

static size_t run_wants(const struct page_read *read)
{
	return wanted_bytes((read->first + read->run) << FOLD_PAGE_SHIFT,
			    read->run_end - read->run);
}

bool page_read_next(struct page_read *read, struct page_io *ret_io)
{
	struct iovec *iov = ret_io->iov;
	size_t within;

	if (read->run == read->run_end && !next_run(read))
		return false;
	within = read->run_got % FOLD_PAGE_SIZE;
	ret_io->offset = (off_t)(((read->first + read->run) << FOLD_PAGE_SHIFT) + read->run_got);
	ret_io->count = build_iov(read, read->run + (unsigned)(read->run_got / FOLD_PAGE_SIZE),
				  read->run_end, iov);
	iov[0].iov_base = (char *)iov[0].iov_base + within;
	iov[0].iov_len -= within;
	iov[ret_io->count - 1].iov_len -=
		(size_t)(read->run_end - read->run) * FOLD_PAGE_SIZE - run_wants(read);
	return true;
}

/* The run is over; its pages up to END now hold what the source has. */
static void end_run(struct page_read *read, unsigned end)
{
	for (unsigned i = read->run; i < end; i++)
		read->hand[i].fetched = true;
	read->run = read->run_end;
}

void page_read_got(struct page_read *read, ssize_t got)
{
	unsigned at;

	if (got > 0)
		read->run_got += (size_t)got;
	at = read->run + (unsigned)(read->run_got / FOLD_PAGE_SIZE);
	if (got < 0) {
		read->error = (errint_t)got;
		read->error_page = at;
		end_run(read, at);
	} else if (got == 0 || (read->run_got == run_wants(read) && at < read->run_end)) {
		end_run(read, end_of_file(read, read->run, read->run_got));
	} else if (read->run_got == run_wants(read)) {
		end_run(read, read->run_end);
	}
}

void page_read_fetch(struct page_read *read)
{
	struct page_io io;

	page_read_begin_fetch(read);
	while (page_read_next(read, &io))
		page_read_got(read, source_read(read->source, io.iov, io.count, io.offset));
}

static const void *bytes_of(const struct page_read *read, unsigned i)
{
	return read->hand[i].bytes ? read->hand[i].bytes : read->looks[i].data;
}

ssize_t page_read_iov(struct page_read *read, struct iovec iov[], int *ret_count)
{
	size_t left = read->length;
	size_t skip = read->skip;
	int count = 0;
	unsigned i;

	for (i = 0; i < read->pages && left; i++, skip = 0) {
		const char *bytes = bytes_of(read, i);
		size_t part = FOLD_PAGE_SIZE - skip < left ? FOLD_PAGE_SIZE - skip : left;

		if (i >= read->error_page)
			break;
		bytes += skip;
		left -= part;
		if (count && (char *)iov[count - 1].iov_base + iov[count - 1].iov_len == bytes)
			iov[count - 1].iov_len += part;
		else
			iov[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)bytes,
						      .iov_len = part};
	}
	*ret_count = count;
	if (left && left == read->length && read->error)
		return read->error;
	return (ssize_t)(read->length - left);
}

/* What a page's content is found by. */
struct page_hash {
	struct digest digest; /* unless ZERO */
	bool zero;
};

/* Publish a page that was fetched into a frame; if it is EXACT, tell its family. Read side. Returns
 * whether the slot took it. */
static bool publish_page(struct page_read *read, unsigned i, bool exact,
			 const struct page_hash *hash, struct frame_batch *batch)
{
	struct page_store *store = read->filler->store;
	struct page_map *map = file_map(read->file);
	const struct page_in_hand *hand = &read->hand[i];
	uint64_t page = read->first + i;
	struct frame_ref ref;
	bool published;

	if (hash->zero) {
		page_store_give_back(store, hand->frame, batch);
		return page_map_publish_zero(map, page, read->looks[i].ticket);
	}
	page_store_publish(store, hand->frame, &hash->digest, batch, &ref);
	published = page_map_publish(map, page, read->looks[i].ticket, ref);
	if (exact)
		fill_family_tell(read, i, ref);
	if (!published)
		page_store_drop(store, ref, batch);
	return published;
}

static bool has_frame(const struct page_read *read, unsigned i)
{
	return read->hand[i].bytes && read->hand[i].frame != FILL_NO_FRAME;
}

/* Hash each page that was fetched into a frame. */
static void hash_pages(const struct page_read *read, struct page_hash hashes[])
{
	for (unsigned i = 0; i < read->pages; i++) {
		const struct page_in_hand *hand = &read->hand[i];

		if (!has_frame(read, i) || !hand->fetched)
			continue;
		hashes[i].zero = fold_page_is_zero(hand->bytes);
		if (!hashes[i].zero)
			page_store_digest(read->filler->store, hand->bytes, &hashes[i].digest);
	}
}

/* Publish what was fetched, and give back the frames that are not used. All in one read side,
 * because until the batch is settled the frames are in no list. */
static void publish_pages(struct page_read *read)
{
	struct page_hash hashes[FOLD_REQUEST_PAGES];
	struct frame_batch batch = {.count = 0};
	bool exact = fill_family_is_exact(read);
	unsigned discarded = 0;
	unsigned i;

	hash_pages(read, hashes);
	fold_rcu_read_lock();
	for (i = 0; i < read->pages; i++) {
		if (!has_frame(read, i))
			continue;
		if (read->hand[i].fetched)
			discarded += !publish_page(read, i, exact, &hashes[i], &batch);
		else
			page_store_give_back(read->filler->store, read->hand[i].frame, &batch);
	}
	page_store_settle(read->filler->store, &batch);
	fold_rcu_read_unlock();
	if (discarded)
		counters_add(read->filler->counters, COUNTER_FILLS_DISCARDED, discarded);
}

static void count(const struct page_read *read, unsigned hits, unsigned fetched, unsigned bypassed)
{
	struct counters *counters = read->filler->counters;

	if (read->ahead) {
		counters_add(counters, COUNTER_READAHEAD, fetched);
		return;
	}
	counters_add(counters, COUNTER_HITS, hits);
	if (fetched)
		counters_add(counters, COUNTER_MISSES, fetched);
	if (bypassed)
		counters_add(counters, COUNTER_BYPASSED, bypassed);
}

unsigned page_read_finish(struct page_read *read)
{
	unsigned hits = 0;
	unsigned fetched = 0;
	unsigned bypassed = 0;
	unsigned i;

	if (!read->looked || read->hits == read->pages) {
		count(read, read->hits, 0, 0);
		return 0;
	}
	for (i = 0; i < read->pages; i++) {
		const struct page_in_hand *hand = &read->hand[i];

		if (!hand->bytes)
			hits += i < read->error_page;
		fetched += hand->bytes && hand->fetched;
		bypassed += hand->bytes && hand->fetched && hand->frame == FILL_NO_FRAME;
	}
	publish_pages(read);
	fill_family_end(read);
	if (read->bounce)
		free_bounce_memory(read);
	if (read->at_work)
		atomic_fetch_sub_explicit(&read->filler->at_work, 1, memory_order_relaxed);
	count(read, hits, fetched, bypassed);
	file_table_trim(read->filler->files);
	return fetched;
}

unsigned fill_ahead(struct filler *filler, struct file *file, struct source *source, off_t offset,
		    size_t length)
{
	struct page_read read;
	unsigned missing;
	bool all;

	page_read_init(&read, filler, file, source, offset, length);
	read.ahead = true;
	fold_rcu_read_lock();
	all = page_read_look(&read);
	fold_rcu_read_unlock();
	missing = read.missing;
	if (!all)
		page_read_fetch(&read);
	(void)page_read_finish(&read);
	source_drop_cache_if_due(source);
	return missing;
}
