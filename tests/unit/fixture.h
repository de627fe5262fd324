/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fixture.h - the page path put together, over real files: for the tests of file, fill, readahead
 * and cow_break
 */
#ifndef FOLDFS_TEST_FIXTURE_H
#define FOLDFS_TEST_FIXTURE_H

#include "faults.h"
#include "helpers.h"

#include "foldfs/cow_break.h"
#include "foldfs/fill.h"

#define MIB (1u << 20)

struct fixture {
	struct pool pool;
	struct page_map_memory *memory;
	struct file_table *files;
	struct filler filler;
	struct cow_break cow;
};

static inline void fixture_open(struct fixture *fixture, uint64_t pool_bytes, bool start)
{
	int source = temp_file();

	pool_open(&fixture->pool, pool_bytes, start);
	expect(!page_map_memory_new(fixture->pool.store, &fixture->memory));
	expect(!file_table_new(fixture->memory, 64 * MIB, &fixture->files));
	expect(!file_table_source(fixture->files, source));
	close(source);
	expect(!filler_init(&fixture->filler, fixture->pool.store, fixture->files,
			    fixture->pool.counters));
	fixture->cow = (struct cow_break){.store = fixture->pool.store,
					  .counters = fixture->pool.counters};
}

/* With the files goes every use of a frame. */
static inline void fixture_close(struct fixture *fixture)
{
	filler_destroy(&fixture->filler);
	file_table_free(fixture->files);
	assert_int_equal(pool_usage(&fixture->pool).frames_used, 0);
	assert_int_equal(pool_usage(&fixture->pool).pages_sharing, 0);
	page_map_memory_settle(fixture->memory);
	assert_int_equal(page_map_memory_zero_pages(fixture->memory), 0);
	page_map_memory_free(fixture->memory);
	pool_close(&fixture->pool);
}

/* One file of the source: `fd` is the test's, the source has a descriptor of its own. */
struct subject {
	int fd;
	struct source *source;
	struct file *file;
};

static inline void subject_attach(struct fixture *fixture, struct subject *subject, int fd,
				  int flags)
{
	struct stat st;

	subject->fd = fd;
	expect(!fstat(fd, &st));
	expect(!source_new(reopen_file(fd, flags), &subject->source));
	expect(!file_table_get(fixture->files, &st, &subject->file));
}

static inline void subject_open(struct fixture *fixture, struct subject *subject, const void *bytes,
				size_t length)
{
	int fd = temp_file();

	if (length)
		write_whole(fd, bytes, length, 0);
	subject_attach(fixture, subject, fd, O_RDWR);
}

static inline void subject_close(struct subject *subject)
{
	file_put(subject->file);
	source_put(subject->source);
	close(subject->fd);
}

/* COUNT pages that describe themselves: owners OWNER, OWNER + 1, … */
static inline struct test_page *pages_new(unsigned count, uint64_t owner)
{
	struct test_page *pages = aligned_alloc(64, count * sizeof(*pages));

	expect(pages);
	for (unsigned i = 0; i < count; i++)
		page_make(&pages[i], owner + i, 0);
	return pages;
}

/* A read as a request makes it, step by step as fill.h has it; bytes to BUFFER. */
static inline ssize_t read_through(struct fixture *fixture, struct subject *subject, void *buffer,
				   size_t length, off_t offset)
{
	struct page_read *read = malloc(sizeof(*read));
	struct iovec iov[FOLD_REQUEST_PAGES];
	uint8_t *to = buffer;
	ssize_t result;
	int count = 0;

	expect(read);
	page_read_init(read, &fixture->filler, subject->file, subject->source, offset, length);
	fold_rcu_read_lock();
	while (!page_read_look(read)) {
		fold_rcu_read_unlock();
		page_read_fetch(read);
		fold_rcu_read_lock();
	}
	result = page_read_iov(read, iov, &count);
	expect(count <= (int)FOLD_REQUEST_PAGES);
	for (int i = 0; result > 0 && i < count; i++) {
		expect((size_t)(to - (uint8_t *)buffer) + iov[i].iov_len <= length);
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
	fold_rcu_read_unlock();
	page_read_finish(read);
	free(read);
	if (result > 0)
		expect(to - (uint8_t *)buffer == result);
	return result;
}

/* Read all of a file of up to LENGTH bytes, in requests; stops short as read(2) does. */
static inline ssize_t read_all(struct fixture *fixture, struct subject *subject, void *buffer,
			       size_t length)
{
	size_t done = 0;

	while (done < length) {
		size_t want =
			length - done < FOLD_REQUEST_BYTES ? length - done : FOLD_REQUEST_BYTES;
		ssize_t got =
			read_through(fixture, subject, (uint8_t *)buffer + done, want, (off_t)done);

		if (got < 0 && !done)
			return got;
		if (got <= 0)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

enum knows {
	KNOWS_NOTHING,
	KNOWS_ZERO,
	KNOWS_FRAME,
};

/* What the map says of PAGE; its bytes to BYTES unless NULL. */
static inline enum knows what_is_known(struct subject *subject, uint64_t page, void *bytes)
{
	struct page_look look;
	enum knows knows;

	fold_rcu_read_lock();
	page_map_look(file_map(subject->file), page, 1, &look);
	knows = !look.data ? KNOWS_NOTHING : look.from_pool ? KNOWS_FRAME : KNOWS_ZERO;
	if (bytes && look.data)
		memcpy(bytes, look.data, FOLD_PAGE_SIZE);
	fold_rcu_read_unlock();
	return knows;
}

static inline unsigned count_known(struct subject *subject, uint64_t first, uint64_t end,
				   enum knows what)
{
	unsigned count = 0;

	for (uint64_t page = first; page < end; page++)
		count += what_is_known(subject, page, NULL) == what;
	return count;
}

/* What is known of the first PAGES pages must be what the source has, its end filled
 * with zeroes. */
static inline void check_known(struct subject *subject, uint64_t pages)
{
	struct test_page known;
	struct test_page real;

	for (uint64_t page = 0; page < pages; page++) {
		if (what_is_known(subject, page, &known) == KNOWS_NOTHING)
			continue;
		memset(&real, 0, sizeof(real));
		expect(pread(subject->fd, &real, sizeof(real), (off_t)(page << FOLD_PAGE_SHIFT)) >=
		       0);
		expect(!memcmp(&known, &real, sizeof(real)));
	}
}

#endif
