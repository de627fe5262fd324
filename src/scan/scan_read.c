/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_read.c - a worker of the first step: takes one file after the other and tells its digests
 *
 * A file that the catalogue knows under its present stamp is not opened: its digests come from the
 * catalogue. Any other file is read, except for its holes. Its stamp is compared before and after:
 * what changed meanwhile is left out. If the file has more than CATALOGUE_PART pages, its earlier
 * parts have been reported by then. They stay counted as pages, but the file gets no record.
 *
 * Who may write to the file is reported for the same stamp. Whether everybody may get to the file
 * does not depend on its stamp, so that is reported of a known file too.
 */
#include "foldfs/content.h"
#include "scan_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Linux 6.5; the same number on all architectures. */
#define CACHESTAT_CALL 451

struct cached_range {
	uint64_t offset;
	uint64_t length;
};

struct cached_pages {
	uint64_t cached;
	uint64_t dirty;
	uint64_t writeback;
	uint64_t evicted;
	uint64_t recently_evicted;
};

struct reader {
	struct scan *scan;
	struct catalogue_member *known; /* for look-ups */
	struct content_digest *digest;
	uint8_t *buffer;   /* of SCAN_CHUNK */
	uint64_t *digests; /* of CATALOGUE_PART */

	/* The file that is being read. */
	const struct scan_file *file;
	struct source *source;
	struct source_stamp stamp;
	uint64_t writers;
	bool readable;
	bool record;
	size_t count; /* of digests */
	uint64_t part;
	uint64_t pages;
	uint64_t counted_bytes; /* already reported as done */
	struct scan_sketch sketch;
};

/* ---- telling ---- */

/* Progress counts the data that a file takes. At the end of the file all of it counts as done. */
static void count_bytes(struct reader *reader, uint64_t bytes)
{
	uint64_t left = reader->file->data_bytes - reader->counted_bytes;

	if (bytes > left)
		bytes = left;
	reader->counted_bytes += bytes;
	atomic_fetch_add_explicit(&reader->scan->done_bytes, bytes, memory_order_relaxed);
}

static struct scan_note *note_of(const struct reader *reader, enum scan_note_kind kind)
{
	struct scan_note *note = scan_note_new(kind);

	if (!note)
		return NULL;
	note->stamp = reader->stamp;
	note->record = reader->record;
	if (kind == SCAN_NOTE_PART)
		return note;
	note->path = strdup(reader->file->path);
	if (note->path)
		return note;
	scan_note_free(note);
	return NULL;
}

/* Move the digests gathered so far into NOTE. They get memory of their own size, because many notes
 * of small files wait at a time. -ENOMEM. */
static errint_t give_digests(struct reader *reader, struct scan_note *note)
{
	if (reader->count) {
		note->digests = malloc(reader->count * sizeof(*note->digests));
		if (!note->digests)
			return -ENOMEM;
		memcpy(note->digests, reader->digests, reader->count * sizeof(*note->digests));
	}
	note->count = reader->count;
	note->part = reader->part++;
	reader->count = 0;
	return 0;
}

/* Without memory for its sketch the file is in no family until it is read again. */
static void give_sketch(const struct reader *reader, struct scan_note *note)
{
	if (!reader->record || reader->pages < SCAN_FAMILY_PAGES)
		return;
	note->sketch = malloc(sizeof(*note->sketch));
	if (note->sketch)
		*note->sketch = reader->sketch;
}

static errint_t tell_part(struct reader *reader)
{
	struct scan_note *note = note_of(reader, SCAN_NOTE_PART);

	if (!note)
		return -ENOMEM;
	if (give_digests(reader, note)) {
		scan_note_free(note);
		return -ENOMEM;
	}
	scan_note_push(reader->scan, note);
	return scan_is_cancelled(reader->scan) ? -ECANCELED : 0;
}

static errint_t tell_end(struct reader *reader, enum scan_note_kind kind, errint_t error)
{
	struct scan_note *note = note_of(reader, kind);

	if (!note)
		return -ENOMEM;
	note->error = error;
	if (kind == SCAN_NOTE_FILE) {
		content_digest_end(reader->digest, (uint64_t)reader->stamp.size, &note->content);
		note->pages = reader->pages;
		note->writers = reader->writers;
		note->readable = reader->readable;
		note->reachable = reader->file->reachable;
		note->too_young = !reader->record && reader->scan->options.catalogue;
		if (give_digests(reader, note)) {
			scan_note_free(note);
			return -ENOMEM;
		}
		give_sketch(reader, note);
	}
	scan_note_push(reader->scan, note);
	return 0;
}

/* ---- reading ---- */

static errint_t add_page(struct reader *reader, const uint8_t *page, uint64_t number)
{
	uint64_t digest;
	errint_t error;

	if (fold_page_is_zero(page))
		return 0;
	if (reader->count == CATALOGUE_PART) {
		error = tell_part(reader);
		if (error)
			return error;
	}
	digest = content_digest_add(reader->digest, page, number);
	reader->digests[reader->count++] = digest;
	scan_sketch_add(&reader->sketch, number, digest);
	reader->pages++;
	return 0;
}

/* Read and digest the pages from OFFSET, which is a page's start, to END. -ESTALE: the file has
 * become shorter. */
static errint_t read_range(struct reader *reader, uint64_t offset, uint64_t end)
{
	errint_t error = 0;

	while (offset < end && !error) {
		size_t want = end - offset < SCAN_CHUNK ? (size_t)(end - offset) : SCAN_CHUNK;
		struct iovec iov = {.iov_base = reader->buffer, .iov_len = want};
		ssize_t got;

		error = scan_rate_take(reader->scan, want);
		if (error)
			return error;
		got = source_read(reader->source, &iov, 1, (off_t)offset);
		source_drop_cache_if_due(reader->source);
		if (got < 0)
			return (errint_t)got;
		if ((size_t)got < want)
			return -ESTALE;
		memset(reader->buffer + want, 0, -want & FOLD_PAGE_MASK);
		for (size_t at = 0; at < want && !error; at += FOLD_PAGE_SIZE)
			error = add_page(reader, reader->buffer + at, fold_page_of(offset + at));
		atomic_fetch_add_explicit(&reader->scan->read_bytes, want, memory_order_relaxed);
		count_bytes(reader, want);
		offset += want;
	}
	return error;
}

/* The next range of data at or after OFFSET, by whole pages; *ret_start == SIZE: there is none. */
static errint_t next_data(int fd, uint64_t offset, uint64_t size, uint64_t *ret_start,
			  uint64_t *ret_end)
{
	off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
	off_t hole;

	*ret_start = offset;
	*ret_end = size;
	if (data < 0 && errno == ENXIO) {
		*ret_start = size;
		return 0;
	}
	/* If the file system does not know, the file is read as a whole. */
	if (data < 0)
		return errno == EINVAL || errno == EOPNOTSUPP ? 0 : -errno;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return errno == ENXIO ? -ESTALE : -errno;
	data -= data & (off_t)FOLD_PAGE_MASK;
	*ret_start = (uint64_t)data < offset ? offset : (uint64_t)data;
	hole += -hole & (off_t)FOLD_PAGE_MASK;
	*ret_end = (uint64_t)hole < size ? (uint64_t)hole : size;
	if (*ret_start > size)
		*ret_start = size;
	return 0;
}

static errint_t read_content(struct reader *reader)
{
	uint64_t size = (uint64_t)reader->stamp.size;
	uint64_t start;
	uint64_t end = 0;
	errint_t error = 0;

	while (end < size && !error) {
		error = next_data(source_fd(reader->source), end, size, &start, &end);
		if (!error && start == size)
			break;
		if (!error)
			error = read_range(reader, start, end);
	}
	return error;
}

static errint_t take_stamp(int fd, struct stat *ret_st, struct source_stamp *ret_stamp)
{
	if (fstat(fd, ret_st))
		return -errno;
	if (!S_ISREG(ret_st->st_mode))
		return -ESTALE;
	source_stamp_of(ret_st, ret_stamp);
	return 0;
}

/* If others have pages of the file in the kernel's cache, they keep them: then nothing is dropped
 * at the end, and reading leaves little behind. */
static void keep_what_is_cached(struct source *source)
{
	struct cached_range all = {0};
	struct cached_pages pages = {0};

	if (!syscall(CACHESTAT_CALL, source_fd(source), &all, &pages, 0) && pages.cached)
		source_keep_cache(source);
}

/* Attributes that are true of the file as long as it keeps its present stamp. */
static errint_t take_attributes(struct reader *reader)
{
	int fd = source_fd(reader->source);
	struct stat st;
	errint_t error = take_stamp(fd, &st, &reader->stamp);

	if (error)
		return error;
	reader->writers = writers_of(&reader->scan->view, fd, &st);
	reader->readable = writers_all_may_read(fd, &st);
	return 0;
}

static errint_t read_opened(struct reader *reader)
{
	struct source_stamp after;
	struct stat st;
	errint_t error = take_attributes(reader);

	if (error)
		return error;
	keep_what_is_cached(reader->source);
	reader->record = reader->scan->options.catalogue &&
			 scan_stamp_is_old_enough(reader->scan, &reader->stamp);
	content_digest_begin(reader->digest, reader->scan->secret);
	error = read_content(reader);
	if (!error)
		error = take_stamp(source_fd(reader->source), &st, &after);
	if (!error && !source_stamp_equal(&reader->stamp, &after))
		error = -ESTALE;
	return error;
}

static errint_t read_file(struct reader *reader)
{
	const struct source_stamp *stamp = &reader->file->stamp;
	int fd = scan_open_file(reader->scan, reader->file->path, stamp->inode,
				(uint64_t)stamp->size);
	errint_t error = fd < 0 ? fd : source_new(fd, &reader->source);

	if (!error) {
		error = read_opened(reader);
		source_put(reader->source);
	}
	if (!error)
		error = tell_end(reader, SCAN_NOTE_FILE, 0);
	else if (error == -ESTALE || error == -ENOENT || error == -ELOOP || error == -EBUSY)
		error = tell_end(reader, SCAN_NOTE_CHANGED, error);
	else if (error != -ECANCELED && error != -ENOMEM)
		error = tell_end(reader, SCAN_NOTE_UNREADABLE, error);
	return error;
}

/* ---- files that are known ---- */

/* Report everything that the catalogue has of the file. -ENOENT: not all of it is there. */
static errint_t tell_known(struct reader *reader, const struct catalogue_record *record)
{
	struct catalogue *catalogue = reader->scan->options.catalogue;
	bool moved = strcmp(reader->known->path, reader->file->path) != 0 ||
		     record->reachable != reader->file->reachable;
	uint64_t parts = (record->pages + CATALOGUE_PART - 1) / CATALOGUE_PART;
	struct scan_note *note;
	errint_t error = 0;

	reader->record = false;
	for (uint64_t part = 0; part < parts && !error; part++) {
		note = note_of(reader, SCAN_NOTE_PART);
		if (!note)
			return -ENOMEM;
		error = catalogue_digests(catalogue, &reader->stamp, part, &note->digests,
					  &note->count);
		if (error) {
			scan_note_free(note);
			/* Parts already reported stay counted as pages. This happens only if
			 * somebody else has changed the catalogue just now. */
			return error;
		}
		note->part = part;
		scan_note_push(reader->scan, note);
	}
	note = note_of(reader, SCAN_NOTE_FILE);
	if (!note)
		return -ENOMEM;
	note->known = true;
	note->record = moved;
	note->reachable = reader->file->reachable;
	note->content = record->content;
	note->pages = record->pages;
	scan_note_push(reader->scan, note);
	return 0;
}

/* -ENOENT: the catalogue does not know the file as it is now. */
static errint_t look_up(struct reader *reader)
{
	struct catalogue *catalogue = reader->scan->options.catalogue;
	const struct source_stamp *stamp = &reader->file->stamp;
	struct catalogue_record record;
	errint_t error;

	if (!catalogue)
		return -ENOENT;
	error = catalogue_get(catalogue, stamp->device, stamp->inode, reader->known, &record);
	if (error)
		return error;
	if (!source_stamp_equal(&reader->known->stamp, stamp))
		return -ENOENT;
	reader->stamp = *stamp;
	return tell_known(reader, &record);
}

static void take_file(struct reader *reader, const struct scan_file *file)
{
	errint_t error;

	reader->file = file;
	reader->stamp = file->stamp;
	reader->record = false;
	reader->count = 0;
	reader->part = 0;
	reader->pages = 0;
	reader->counted_bytes = 0;
	reader->sketch.count = 0;
	error = look_up(reader);
	/* A catalogue that cannot be read is treated as if there were none. */
	if (error && error != -ENOMEM)
		error = read_file(reader);
	count_bytes(reader, UINT64_MAX);
	atomic_fetch_add_explicit(&reader->scan->done_files, 1, memory_order_relaxed);
	if (error)
		scan_note_failure(reader->scan, error);
}

void *scan_read_thread(void *arg)
{
	struct reader reader = {.scan = arg};
	struct scan_file *file;

	scan_lower_priority();
	reader.known = malloc(sizeof(*reader.known));
	reader.digest = content_digest_new();
	reader.buffer = aligned_alloc(FOLD_PAGE_SIZE, SCAN_CHUNK);
	reader.digests = malloc(CATALOGUE_PART * sizeof(*reader.digests));
	if (!reader.known || !reader.digest || !reader.buffer || !reader.digests)
		scan_note_failure(reader.scan, -ENOMEM);
	else
		while ((file = scan_file_pop(reader.scan))) {
			take_file(&reader, file);
			free(file);
		}
	free(reader.digests);
	free(reader.buffer);
	content_digest_free(reader.digest);
	free(reader.known);
	scan_worker_end(reader.scan);
	return NULL;
}
