/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_request_cost.c - locks that one request takes, and system calls that it makes
 *
 * Counted where the linker sends the library's calls (--wrap), in the thread that makes the
 * request. What threads would wait for on many cores is what grows with the pages of a request.
 */
#include "fixture.h"
#include "poke.h"

#include <malloc.h>
#include <pthread.h>

#define PAGES (FOLD_REQUEST_BYTES / FOLD_PAGE_SIZE)
#define SMALL 15u /* pages of the largest write that is no stream */

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_fstat(int fd, struct stat *st);
int __real_fstat(int fd, struct stat *st);

/* Of the calling thread. */
struct costs {
	unsigned store; /* holds of the pool's lock, for which all wait */
	unsigned map;   /* of the file's map's */
	unsigned file;  /* of the file's own and of its ranges' */
	unsigned fstats;
};

static _Thread_local struct costs costs;
/* Of what is watched; NULL: nothing is. */
static _Atomic(const void *) store_block;
static _Atomic(const void *) file_block;
static _Atomic(const void *) map_block;

static bool is_in(const void *mutex, const void *block)
{
	const char *start = block;
	const char *at = mutex;

	return start && at >= start && at < start + malloc_usable_size((void *)(uintptr_t)block);
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
	costs.store += is_in(mutex, store_block);
	costs.map += is_in(mutex, map_block);
	costs.file += is_in(mutex, file_block);
	return __real_pthread_mutex_lock(mutex);
}

int __wrap_fstat(int fd, struct stat *st)
{
	costs.fstats++;
	return __real_fstat(fd, st);
}

struct costly {
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages;
	uint8_t *buffer;
};

static void costly_open(struct costly *costly)
{
	costly->pages = pages_new(PAGES, 1);
	costly->buffer = malloc(PAGES * FOLD_PAGE_SIZE);
	expect(costly->buffer);
	/* Without the reclaimer: room for every frame that is ever used. */
	fixture_open(&costly->fixture, 8 * MIB, false);
	subject_open(&costly->fixture, &costly->subject, costly->pages, PAGES * FOLD_PAGE_SIZE);
	store_block = costly->fixture.pool.store;
	file_block = costly->subject.file;
	map_block = file_map(costly->subject.file);
}

static void costly_close(struct costly *costly)
{
	store_block = NULL;
	file_block = NULL;
	map_block = NULL;
	subject_close(&costly->subject);
	fixture_close(&costly->fixture);
	free(costly->buffer);
	free(costly->pages);
}

static void begin(void)
{
	costs = (struct costs){0};
}

static void tell(const char *what)
{
	print_message("%s: pool %u, map %u, file %u, fstat %u\n", what, costs.store, costs.map,
		      costs.file, costs.fstats);
}

static void costly_read(struct costly *costly, unsigned pages)
{
	begin();
	expect(read_through(&costly->fixture, &costly->subject, costly->buffer,
			    pages * FOLD_PAGE_SIZE, 0) == (ssize_t)(pages * FOLD_PAGE_SIZE));
}

/* INK makes the bytes differ from those of another write. */
static void costly_write(struct costly *costly, uint8_t ink, unsigned pages,
			 const struct stat *seen)
{
	memset(costly->buffer, ink, pages * FOLD_PAGE_SIZE);
	begin();
	expect(cow_break_write(&costly->fixture.cow, costly->subject.file, costly->subject.source,
			       costly->buffer, pages * FOLD_PAGE_SIZE, 0,
			       seen) == (ssize_t)(pages * FOLD_PAGE_SIZE));
}

/* ---- reads ---- */

static void a_read_takes_the_pool_twice_whatever_it_misses(void **state)
{
	struct costly costly;

	(void)state;
	for (unsigned pages = 1; pages <= PAGES; pages *= 16) {
		costly_open(&costly);
		costly_read(&costly, pages);
		tell("READ that misses");
		assert_in_range(costs.store, 1, 2);
		costly_read(&costly, pages);
		tell("READ that hits");
		assert_int_equal(costs.store + costs.map + costs.file + costs.fstats, 0);
		costly_close(&costly);
	}
}

/* Frames that are not used after all go back with those that are. */
static void what_is_shared_takes_the_pool_no_more_often(void **state)
{
	struct costly costly;
	struct subject twin;

	(void)state;
	costly_open(&costly);
	subject_open(&costly.fixture, &twin, costly.pages, PAGES * FOLD_PAGE_SIZE);
	costly_read(&costly, PAGES);
	begin();
	expect(read_all(&costly.fixture, &twin, costly.buffer, PAGES * FOLD_PAGE_SIZE) ==
	       PAGES * FOLD_PAGE_SIZE);
	tell("READ that shares");
	assert_in_range(costs.store, 1, 2);
	assert_int_equal(pool_usage(&costly.fixture.pool).pages_sharing, PAGES);
	subject_close(&twin);
	costly_close(&costly);
}

/* How often eviction takes each of the first PAGES pages to have been used. */
static void expect_uses(struct costly *costly, unsigned pages, uint8_t uses)
{
	struct page_stretch stretches[PAGES];
	struct page_walk walk = {.end = pages};
	unsigned count = page_map_walk(file_map(costly->subject.file), &walk, PAGES, stretches);
	unsigned seen = 0;

	for (unsigned i = 0; i < count; i++)
		for (uint32_t at = 0; at < stretches[i].pages; at++, seen++)
			assert_int_equal(
				poke_hot(costly->fixture.pool.store, stretches[i].ref.frame + at),
				uses);
	assert_int_equal(seen, pages);
}

/* A request that misses looks again once it has fetched. Eviction would promote, for what was read
 * once, all that it hit. */
static void a_request_that_misses_is_one_use_of_what_it_hits(void **state)
{
	struct costly costly;

	(void)state;
	costly_open(&costly);
	costly_read(&costly, 31);
	expect_uses(&costly, 31, 0);
	costly_read(&costly, 32);
	expect_uses(&costly, 31, 1);
	costly_read(&costly, 31);
	expect_uses(&costly, 31, 2);
	costly_close(&costly);
}

/* ---- changes ---- */

static void a_write_takes_the_pool_twice_whatever_it_breaks(void **state)
{
	struct costly costly;

	(void)state;
	costly_open(&costly);
	costly_read(&costly, PAGES);
	for (unsigned pages = 1; pages <= SMALL; pages += SMALL - 1) {
		costly_write(&costly, 0xa5, pages, NULL);
		tell("WRITE over shared pages");
		assert_in_range(costs.store, 1, 2);
		costly_write(&costly, 0x5a, pages, NULL);
		tell("WRITE over private pages");
		assert_in_range(costs.store, 1, 2);
		costly_write(&costly, 0, pages, NULL);
		tell("WRITE of zeroes");
		assert_in_range(costs.store, 1, 2);
		assert_int_equal(count_known(&costly.subject, 0, pages, KNOWS_ZERO), pages);
	}
	costly_close(&costly);
}

/* What the same request has asked the source before is not asked again: only the end is. */
static void a_write_looks_at_the_source_once_after_its_caller_did(void **state)
{
	struct costly costly;
	struct stat seen;

	(void)state;
	costly_open(&costly);
	costly_read(&costly, PAGES);
	costly_write(&costly, 0xa5, 1, NULL);
	assert_int_equal(costs.fstats, 2);
	expect(!fstat(costly.subject.fd, &seen));
	costly_write(&costly, 0x5a, 1, &seen);
	tell("WRITE by who has looked");
	assert_int_equal(costs.fstats, 1);
	/* It is as of before that write. */
	costly_write(&costly, 0xa5, 1, &seen);
	assert_int_equal(costs.fstats, 2);
	assert_int_equal(count_known(&costly.subject, 0, PAGES, KNOWS_FRAME), PAGES);
	costly_close(&costly);
}

static void a_stream_gives_its_frames_up_together(void **state)
{
	struct costly costly;

	(void)state;
	costly_open(&costly);
	costly_read(&costly, PAGES);
	costly_write(&costly, 0xa5, PAGES, NULL);
	tell("WRITE of 1 MiB");
	assert_in_range(costs.store, 1, 2);
	assert_int_equal(pool_usage(&costly.fixture.pool).frames_used, 0);
	costly_close(&costly);
}

/* The pages of a large map lie apart, each in its own frame. */
static void a_map_that_is_forgotten_gives_its_frames_up_together(void **state)
{
	struct costly costly;

	(void)state;
	costly_open(&costly);
	/* Backwards: so frames do not lie as the pages do. */
	for (unsigned page = PAGES; page--;)
		expect(read_through(&costly.fixture, &costly.subject, costly.buffer, FOLD_PAGE_SIZE,
				    (off_t)page * FOLD_PAGE_SIZE) == FOLD_PAGE_SIZE);
	assert_int_equal(pool_usage(&costly.fixture.pool).frames_used, PAGES);
	begin();
	file_forget(costly.subject.file);
	page_map_memory_settle(costly.fixture.memory);
	tell("forgetting 256 pages");
	/* A node for each 64 pages. */
	assert_in_range(costs.store, 0, PAGES / 64);
	assert_int_equal(pool_usage(&costly.fixture.pool).frames_used, 0);
	costly_close(&costly);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_takes_the_pool_twice_whatever_it_misses),
		cmocka_unit_test(what_is_shared_takes_the_pool_no_more_often),
		cmocka_unit_test(a_request_that_misses_is_one_use_of_what_it_hits),
		cmocka_unit_test(a_write_takes_the_pool_twice_whatever_it_breaks),
		cmocka_unit_test(a_write_looks_at_the_source_once_after_its_caller_did),
		cmocka_unit_test(a_stream_gives_its_frames_up_together),
		cmocka_unit_test(a_map_that_is_forgotten_gives_its_frames_up_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
