/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_fill.c - the way of a read: right bytes whatever happens, and frames where they can be had
 *
 * Reads that race with changes are in test_cow_break.c.
 */
#include "fixture.h"

/* Counts the reads of one descriptor; fails those that begin in [bad_from, bad_to). */
struct source_watch {
	int fd;
	atomic_uint calls;
	atomic_ulong bytes;
	off_t bad_from;
	off_t bad_to;
	int error;
};

static ssize_t watch_read(void *context, const struct io_call *call)
{
	struct source_watch *watch = context;

	if (call->fd != watch->fd || call->write)
		return IO_AS_ASKED;
	atomic_fetch_add(&watch->calls, 1);
	atomic_fetch_add(&watch->bytes, call->length);
	if (call->offset >= watch->bad_to || call->offset + (off_t)call->length <= watch->bad_from)
		return IO_AS_ASKED;
	if (call->offset >= watch->bad_from)
		return watch->error;
	return watch->bad_from - call->offset;
}

static void watch_begin(struct source_watch *watch, const struct subject *subject)
{
	*watch = (struct source_watch){.fd = source_fd(subject->source)};
	faults_hook_io(watch_read, watch);
}

static void watch_end(void)
{
	faults_hook_io(NULL, NULL);
}

static void reads_return_the_files_bytes(void **state)
{
	const size_t length = 3 * MIB + 1234;
	struct rng rng = rng_of_test(__func__);
	struct fixture fixture;
	struct subject subject;
	uint8_t *model = malloc(length);
	uint8_t *buffer = malloc(FOLD_REQUEST_BYTES);

	(void)state;
	expect(model && buffer);
	for (size_t i = 0; i < length; i++)
		model[i] = (uint8_t)(i >> 12 & 16 ? 0 : mix64(i / 7));
	fixture_open(&fixture, 16 * MIB, true);
	subject_open(&fixture, &subject, model, length);
	for (unsigned round = 0; round < ROUNDS(3000); round++) {
		size_t offset = rng_below(&rng, length + 10000);
		size_t want = 1 + rng_below(&rng, rng_below(&rng, 4) ? 9000 : FOLD_REQUEST_BYTES);
		size_t left = offset < length ? length - offset : 0;
		size_t right = want < left ? want : left;

		assert_int_equal(read_through(&fixture, &subject, buffer, want, (off_t)offset),
				 right);
		assert_memory_equal(buffer, model + (right ? offset : 0), right);
	}
	check_known(&subject, fold_pages_in(0, length));
	subject_close(&subject);
	fixture_close(&fixture);
	free(buffer);
	free(model);
}

static void the_longest_request_is_served_unaligned(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(300, 1);
	uint8_t *buffer = malloc(FOLD_REQUEST_BYTES);

	(void)state;
	expect(buffer);
	fixture_open(&fixture, 4 * MIB, true);
	subject_open(&fixture, &subject, pages, 300 * sizeof(*pages));
	for (unsigned twice = 0; twice < 2; twice++) {
		assert_int_equal(read_through(&fixture, &subject, buffer, FOLD_REQUEST_BYTES, 4095),
				 FOLD_REQUEST_BYTES);
		assert_memory_equal(buffer, (uint8_t *)pages + 4095, FOLD_REQUEST_BYTES);
	}
	assert_int_equal(counters_sum(fixture.pool.counters, COUNTER_MISSES), FOLD_REQUEST_PAGES);
	assert_int_equal(counters_sum(fixture.pool.counters, COUNTER_HITS), FOLD_REQUEST_PAGES);
	subject_close(&subject);
	fixture_close(&fixture);
	free(buffer);
	free(pages);
}

static void a_hit_does_not_touch_the_source(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct source_watch watch;
	struct test_page *pages = pages_new(64, 1);
	struct test_page *buffer = pages_new(64, 1000);

	(void)state;
	fixture_open(&fixture, 4 * MIB, true);
	subject_open(&fixture, &subject, pages, 64 * sizeof(*pages));
	assert_int_equal(read_all(&fixture, &subject, buffer, 64 * sizeof(*pages)),
			 64 * sizeof(*pages));
	watch_begin(&watch, &subject);
	memset(buffer, 0, 64 * sizeof(*buffer));
	assert_int_equal(read_all(&fixture, &subject, buffer, 64 * sizeof(*pages)),
			 64 * sizeof(*pages));
	watch_end();
	assert_memory_equal(buffer, pages, 64 * sizeof(*pages));
	assert_int_equal(atomic_load(&watch.calls), 0);
	subject_close(&subject);
	fixture_close(&fixture);
	free(buffer);
	free(pages);
}

static void neighbouring_misses_are_one_call(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct source_watch watch;
	struct test_page *pages = pages_new(300, 1);
	struct test_page *buffer = pages_new(256, 1000);

	(void)state;
	fixture_open(&fixture, 4 * MIB, true);
	subject_open(&fixture, &subject, pages, 300 * sizeof(*pages));
	read_through(&fixture, &subject, buffer, 4096, 100 * 4096);
	watch_begin(&watch, &subject);
	assert_int_equal(read_through(&fixture, &subject, buffer, MIB, 0), MIB);
	watch_end();
	assert_memory_equal(buffer, pages, MIB);
	/* Before and after the page that was known already. */
	assert_in_range(atomic_load(&watch.calls), 1, 2);
	assert_in_range(atomic_load(&watch.bytes), 255 * 4096, 256 * 4096);
	subject_close(&subject);
	fixture_close(&fixture);
	free(buffer);
	free(pages);
}

static void neighbouring_frames_are_one_part(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(256, 1);
	struct page_read *read = malloc(sizeof(*read));
	struct iovec iov[FOLD_REQUEST_PAGES];
	int count;

	(void)state;
	expect(read);
	fixture_open(&fixture, 4 * MIB, true);
	subject_open(&fixture, &subject, pages, MIB);
	fill_ahead(&fixture.filler, subject.file, subject.source, 0, MIB);
	page_read_init(read, &fixture.filler, subject.file, subject.source, 100, MIB - 200);
	fold_rcu_read_lock();
	expect(page_read_look(read));
	expect(page_read_iov(read, iov, &count) == MIB - 200);
	/* A fresh pool hands out its frames in a row. */
	expect(count < 8);
	fold_rcu_read_unlock();
	page_read_finish(read);
	subject_close(&subject);
	fixture_close(&fixture);
	free(read);
	free(pages);
}

static void the_short_last_page_is_filled_with_zeroes(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(2, 1);
	uint8_t known[FOLD_PAGE_SIZE];
	uint8_t buffer[3 * FOLD_PAGE_SIZE];
	uint32_t frames[4];

	(void)state;
	fixture_open(&fixture, MIB, true);
	/* Frames with something in them, so that zeroes are written and not found. */
	for (unsigned i = 0; i < 4; i++)
		frames[i] = pool_stage(&fixture.pool, &pages[0]);
	pool_give_back(&fixture.pool, frames, 4);
	subject_open(&fixture, &subject, pages, 5000);
	assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 0), 5000);
	assert_int_equal(what_is_known(&subject, 1, known), KNOWS_FRAME);
	assert_memory_equal(known, &pages[1], 904);
	for (size_t i = 904; i < FOLD_PAGE_SIZE; i++)
		assert_int_equal(known[i], 0);
	assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 0), 5000);
	assert_memory_equal(buffer, pages, 5000);
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

static void zeroes_and_holes_take_no_frame(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(200, 1);
	uint8_t *buffer = malloc(200 * FOLD_PAGE_SIZE);

	(void)state;
	expect(buffer);
	fixture_open(&fixture, 4 * MIB, true);
	memset(&pages[1], 0, 150 * sizeof(*pages)); /* zeroes on disk */
	subject_open(&fixture, &subject, pages, 160 * sizeof(*pages));
	expect(!ftruncate(subject.fd, 200 * FOLD_PAGE_SIZE)); /* a hole */
	memset(&pages[160], 0, 40 * sizeof(*pages));
	subject_close(&subject); /* what it knew of the size is old */
	subject_open(&fixture, &subject, pages, 160 * sizeof(*pages));
	expect(!ftruncate(subject.fd, 200 * FOLD_PAGE_SIZE));
	expect(!file_validate(subject.file, subject.fd, &(bool){false}));
	for (unsigned twice = 0; twice < 2; twice++) {
		memset(buffer, 0xff, 200 * FOLD_PAGE_SIZE);
		assert_int_equal(read_all(&fixture, &subject, buffer, 200 * FOLD_PAGE_SIZE),
				 200 * FOLD_PAGE_SIZE);
		assert_memory_equal(buffer, pages, 200 * FOLD_PAGE_SIZE);
		assert_int_equal(pool_usage(&fixture.pool).frames_used, 10);
		assert_int_equal(page_map_memory_zero_pages(fixture.memory), 190);
	}
	subject_close(&subject);
	fixture_close(&fixture);
	free(buffer);
	free(pages);
}

static void equal_pages_of_two_files_share(void **state)
{
	enum { N = 128 };
	struct fixture fixture;
	struct subject subject[3];
	struct test_page *pages = pages_new(N, 1);
	struct test_page *buffer = pages_new(N, 1);

	(void)state;
	fixture_open(&fixture, 4 * MIB, true);
	for (unsigned i = 0; i < 3; i++) {
		subject_open(&fixture, &subject[i], pages, N * sizeof(*pages));
		memset(buffer, 0, N * sizeof(*pages));
		assert_int_equal(read_all(&fixture, &subject[i], buffer, N * sizeof(*pages)),
				 N * sizeof(*pages));
		assert_memory_equal(buffer, pages, N * sizeof(*pages));
		assert_int_equal(pool_usage(&fixture.pool).frames_used, N);
		assert_int_equal(pool_usage(&fixture.pool).pages_sharing, i * N);
	}
	assert_int_equal(counters_sum(fixture.pool.counters, COUNTER_MERGES), 2 * N);
	for (unsigned i = 0; i < 3; i++)
		subject_close(&subject[i]);
	fixture_close(&fixture);
	free(buffer);
	free(pages);
}

static void reading_past_the_end_is_no_error(void **state)
{
	static const off_t lengths[] = {0, 1, 4095, 4096, 4097, 8192};
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(2, 1);
	uint8_t buffer[3 * FOLD_PAGE_SIZE];

	(void)state;
	fixture_open(&fixture, MIB, true);
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		subject_open(&fixture, &subject, pages, (size_t)lengths[i]);
		for (unsigned twice = 0; twice < 2; twice++) {
			assert_int_equal(read_through(&fixture, &subject, buffer, 10, lengths[i]),
					 0);
			assert_int_equal(
				read_through(&fixture, &subject, buffer, 10, lengths[i] + 5000), 0);
			assert_int_equal(
				read_through(&fixture, &subject, buffer, 10, (off_t)1 << 45), 0);
			assert_int_equal(
				read_through(&fixture, &subject, buffer, sizeof(buffer), 0),
				lengths[i]);
			assert_memory_equal(buffer, pages, (size_t)lengths[i]);
			assert_int_equal(read_through(&fixture, &subject, buffer, 0, 0), 0);
		}
		subject_close(&subject);
	}
	fixture_close(&fixture);
	free(pages);
}

static void an_error_is_an_error_for_that_range_alone(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct source_watch watch;
	struct test_page *pages = pages_new(8, 1);
	uint8_t buffer[8 * FOLD_PAGE_SIZE];

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, sizeof(buffer));
	watch_begin(&watch, &subject);
	watch.bad_from = 3 * FOLD_PAGE_SIZE;
	watch.bad_to = 5 * FOLD_PAGE_SIZE;
	watch.error = -EIO;
	for (unsigned twice = 0; twice < 2; twice++) {
		assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 0),
				 3 * FOLD_PAGE_SIZE);
		assert_memory_equal(buffer, pages, 3 * FOLD_PAGE_SIZE);
		assert_int_equal(
			read_through(&fixture, &subject, buffer, 100, 3 * FOLD_PAGE_SIZE + 5),
			-EIO);
		assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer),
					      4 * FOLD_PAGE_SIZE),
				 -EIO);
		assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer),
					      5 * FOLD_PAGE_SIZE),
				 3 * FOLD_PAGE_SIZE);
		assert_memory_equal(buffer, &pages[5], 3 * FOLD_PAGE_SIZE);
	}
	assert_int_equal(count_known(&subject, 3, 5, KNOWS_NOTHING), 2);
	/* It heals. */
	watch.error = -EIO;
	watch.bad_to = watch.bad_from;
	assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 0),
			 sizeof(buffer));
	assert_memory_equal(buffer, pages, sizeof(buffer));
	watch_end();
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

/* What was known before the source failed is still served. */
static void known_pages_survive_an_error(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct source_watch watch;
	struct test_page *pages = pages_new(8, 1);
	uint8_t buffer[8 * FOLD_PAGE_SIZE];

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, sizeof(buffer));
	read_through(&fixture, &subject, buffer, 2 * FOLD_PAGE_SIZE, 0);
	read_through(&fixture, &subject, buffer, FOLD_PAGE_SIZE, 5 * FOLD_PAGE_SIZE);
	watch_begin(&watch, &subject);
	watch.bad_to = INT64_MAX;
	watch.error = -EIO;
	assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 0),
			 2 * FOLD_PAGE_SIZE);
	assert_memory_equal(buffer, pages, 2 * FOLD_PAGE_SIZE);
	assert_int_equal(
		read_through(&fixture, &subject, buffer, sizeof(buffer), 5 * FOLD_PAGE_SIZE),
		FOLD_PAGE_SIZE);
	assert_memory_equal(buffer, &pages[5], FOLD_PAGE_SIZE);
	watch_end();
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

static void the_sources_errno_is_passed_on(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct stat st;
	uint8_t buffer[100];
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)state;
	fixture_open(&fixture, MIB, true);
	expect(!fstat(fd, &st));
	st.st_size = MIB;
	subject.fd = temp_file();
	expect(!source_new(fd, &subject.source));
	expect(!file_table_get(fixture.files, &st, &subject.file));
	assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 0), -EISDIR);
	subject_close(&subject);

	subject_open(&fixture, &subject, buffer, sizeof(buffer));
	source_put(subject.source);
	expect(!source_new(reopen_file(subject.fd, O_WRONLY), &subject.source));
	assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 0), -EBADF);
	subject_close(&subject);
	fixture_close(&fixture);
}

/* DESIGN, invariant 5. */
static void without_a_free_frame_reads_bypass_the_pool(void **state)
{
	enum { FRAMES = MIB / FOLD_PAGE_SIZE };
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(100, 1);
	struct test_page *buffer = pages_new(100, 500);
	uint32_t frames[FRAMES];

	(void)state;
	for (unsigned left = 0; left < 60; left += 25) {
		fixture_open(&fixture, MIB, false);
		subject_open(&fixture, &subject, pages, 100 * FOLD_PAGE_SIZE - 50);
		assert_int_equal(page_store_take(fixture.pool.store, frames, FRAMES - left),
				 FRAMES - left);
		for (unsigned twice = 0; twice < 2; twice++) {
			memset(buffer, 0xff, 100 * sizeof(*buffer));
			assert_int_equal(read_all(&fixture, &subject, buffer, 100 * FOLD_PAGE_SIZE),
					 100 * FOLD_PAGE_SIZE - 50);
			assert_memory_equal(buffer, pages, 100 * FOLD_PAGE_SIZE - 50);
		}
		assert_int_equal(counters_sum(fixture.pool.counters, COUNTER_BYPASSED),
				 2 * (100 - left));
		assert_int_equal(count_known(&subject, 0, 100, KNOWS_FRAME), left);
		subject_close(&subject);
		fixture_close(&fixture);
	}
	free(buffer);
	free(pages);
}

/* No memory for the map either: the bytes come all the same. */
static void without_memory_for_the_map_reads_are_right(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(100, 1);
	struct test_page *buffer = pages_new(100, 500);
	struct page_read *read = malloc(sizeof(*read));
	struct iovec iov[FOLD_REQUEST_PAGES];
	ssize_t got;
	int count;

	(void)state;
	expect(read);
	for (long after = 0; after < 4; after++) {
		fixture_open(&fixture, MIB, true);
		subject_open(&fixture, &subject, pages, 100 * FOLD_PAGE_SIZE);
		faults_fail_allocations(after);
		page_read_init(read, &fixture.filler, subject.file, subject.source, 0,
			       100 * FOLD_PAGE_SIZE);
		fold_rcu_read_lock();
		while (!page_read_look(read)) {
			fold_rcu_read_unlock();
			page_read_fetch(read);
			fold_rcu_read_lock();
		}
		got = page_read_iov(read, iov, &count);
		expect(got == 100 * FOLD_PAGE_SIZE);
		expect(page_is(iov[0].iov_base, 1, 0));
		fold_rcu_read_unlock();
		page_read_finish(read);
		faults_fail_allocations(-1);
		assert_int_equal(read_all(&fixture, &subject, buffer, 100 * FOLD_PAGE_SIZE),
				 100 * FOLD_PAGE_SIZE);
		assert_memory_equal(buffer, pages, 100 * FOLD_PAGE_SIZE);
		subject_close(&subject);
		fixture_close(&fixture);
	}
	free(read);
	free(buffer);
	free(pages);
}

/* Neither a frame nor memory for a bounce buffer: the bytes come all the same. */
static void without_any_memory_reads_are_right(void **state)
{
	enum { FRAMES = MIB / FOLD_PAGE_SIZE };
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(10, 1);
	struct page_read *read = malloc(sizeof(*read));
	struct iovec iov[FOLD_REQUEST_PAGES];
	uint32_t frames[FRAMES];
	ssize_t got;
	int count;

	(void)state;
	expect(read);
	fixture_open(&fixture, MIB, false);
	subject_open(&fixture, &subject, pages, 10 * FOLD_PAGE_SIZE);
	page_store_take(fixture.pool.store, frames, FRAMES);
	faults_fail_allocations(0);
	page_read_init(read, &fixture.filler, subject.file, subject.source, 0, 4096);
	fold_rcu_read_lock();
	for (unsigned rounds = 0; !page_read_look(read); rounds++) {
		expect(rounds < 1000);
		fold_rcu_read_unlock();
		page_read_fetch(read);
		fold_rcu_read_lock();
	}
	got = page_read_iov(read, iov, &count);
	expect(got == 4096 && page_is(iov[0].iov_base, 1, 0));
	fold_rcu_read_unlock();
	page_read_finish(read);
	faults_fail_allocations(-1);
	assert_int_equal(read_through(&fixture, &subject, pages, 4096, 0), 4096);
	assert_true(page_is(&pages[0], 1, 0));
	subject_close(&subject);
	fixture_close(&fixture);
	free(read);
	free(pages);
}

/* Behind the mount, which thinks the file longer than it is. */
static void a_file_that_shrinks_under_the_reader(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(16, 1);
	uint8_t buffer[16 * FOLD_PAGE_SIZE];

	(void)state;
	for (unsigned behind = 0; behind < 2; behind++) {
		fixture_open(&fixture, MIB, true);
		subject_open(&fixture, &subject, pages, sizeof(buffer));
		assert_int_equal(read_through(&fixture, &subject, buffer, 4096, 2 * 4096), 4096);
		expect(!ftruncate(subject.fd, 5 * FOLD_PAGE_SIZE + 100));
		touch_file(subject.fd);
		/* There is nothing behind the end, and no zero page either. */
		if (behind)
			for (unsigned twice = 0; twice < 2; twice++)
				assert_int_equal(
					read_through(&fixture, &subject, buffer, 4096, 9 * 4096),
					0);
		for (unsigned twice = 0; twice < 2; twice++) {
			assert_int_equal(
				read_through(&fixture, &subject, buffer, sizeof(buffer), 0),
				5 * FOLD_PAGE_SIZE + 100);
			assert_memory_equal(buffer, pages, 5 * FOLD_PAGE_SIZE + 100);
		}
		assert_int_equal(file_size(subject.file), 5 * FOLD_PAGE_SIZE + 100);
		check_known(&subject, 6);
		assert_int_equal(count_known(&subject, 6, 16, KNOWS_FRAME), 0);
		subject_close(&subject);
		fixture_close(&fixture);
	}
	free(pages);
}

/* It shrinks while the read is at the source: what was read is handed on, what is gone is not
 * known. */
static ssize_t shrink_before_read(void *context, const struct io_call *call)
{
	struct subject *subject = context;

	if (!call->write && call->fd == source_fd(subject->source)) {
		expect(!ftruncate(subject->fd, 5 * FOLD_PAGE_SIZE + 100));
		touch_file(subject->fd);
	}
	return IO_AS_ASKED;
}

static void a_file_that_shrinks_during_the_read(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(16, 1);
	uint8_t buffer[16 * FOLD_PAGE_SIZE];

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, sizeof(buffer));
	faults_hook_io(shrink_before_read, &subject);
	assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 4096),
			 4 * FOLD_PAGE_SIZE + 100);
	faults_hook_io(NULL, NULL);
	assert_memory_equal(buffer, &pages[1], 4 * FOLD_PAGE_SIZE + 100);
	check_known(&subject, 6);
	assert_int_equal(count_known(&subject, 6, 16, KNOWS_FRAME), 0);
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

static void a_file_that_grows_behind_the_mount(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(16, 1);
	uint8_t buffer[16 * FOLD_PAGE_SIZE];
	bool unchanged = true;

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, 3 * FOLD_PAGE_SIZE + 5);
	assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 0),
			 3 * FOLD_PAGE_SIZE + 5);
	write_whole(subject.fd, pages, sizeof(buffer), 0);
	touch_file(subject.fd);
	expect(!file_validate(subject.file, subject.fd, &unchanged));
	assert_false(unchanged);
	assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 0),
			 sizeof(buffer));
	assert_memory_equal(buffer, pages, sizeof(buffer));
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

static void fill_ahead_makes_pages_known(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct source_watch watch;
	struct test_page *pages = pages_new(64, 1);
	struct test_page buffer;

	(void)state;
	fixture_open(&fixture, 4 * MIB, true);
	subject_open(&fixture, &subject, pages, 64 * FOLD_PAGE_SIZE - 7);
	read_through(&fixture, &subject, &buffer, 4096, 10 * 4096);
	watch_begin(&watch, &subject);
	fill_ahead(&fixture.filler, subject.file, subject.source, 0, 32 * FOLD_PAGE_SIZE);
	assert_in_range(atomic_load(&watch.bytes), 31 * FOLD_PAGE_SIZE, 32 * FOLD_PAGE_SIZE);
	assert_int_equal(count_known(&subject, 0, 64, KNOWS_FRAME), 32);
	atomic_store(&watch.bytes, 0);
	fill_ahead(&fixture.filler, subject.file, subject.source, 0, 32 * FOLD_PAGE_SIZE);
	assert_int_equal(atomic_load(&watch.bytes), 0);
	/* Over the end, and all behind it. */
	fill_ahead(&fixture.filler, subject.file, subject.source, 32 * FOLD_PAGE_SIZE, MIB);
	fill_ahead(&fixture.filler, subject.file, subject.source, 2 * MIB, MIB);
	watch_end();
	assert_int_equal(count_known(&subject, 0, 64, KNOWS_FRAME), 64);
	assert_int_equal(counters_sum(fixture.pool.counters, COUNTER_READAHEAD), 63);
	check_known(&subject, 64);
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

static void fill_ahead_leaves_errors_to_the_reader(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct source_watch watch;
	struct test_page *pages = pages_new(8, 1);
	uint8_t buffer[8 * FOLD_PAGE_SIZE];
	uint32_t frames[MIB / FOLD_PAGE_SIZE];

	(void)state;
	fixture_open(&fixture, MIB, false);
	subject_open(&fixture, &subject, pages, sizeof(buffer));
	watch_begin(&watch, &subject);
	watch.bad_to = INT64_MAX;
	watch.error = -EIO;
	fill_ahead(&fixture.filler, subject.file, subject.source, 0, sizeof(buffer));
	watch_end();
	assert_int_equal(count_known(&subject, 0, 8, KNOWS_NOTHING), 8);
	/* Nor does a pool without frames matter. All its frames are still there. */
	assert_int_equal(page_store_take(fixture.pool.store, frames, MIB / FOLD_PAGE_SIZE),
			 MIB / FOLD_PAGE_SIZE);
	fill_ahead(&fixture.filler, subject.file, subject.source, 0, sizeof(buffer));
	assert_int_equal(count_known(&subject, 0, 8, KNOWS_NOTHING), 8);
	assert_int_equal(read_through(&fixture, &subject, buffer, sizeof(buffer), 0),
			 sizeof(buffer));
	assert_memory_equal(buffer, pages, sizeof(buffer));
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

/* A read that is given up after any step leaves no frame behind. */
static void every_frame_comes_back(void **state)
{
	enum { FRAMES = MIB / FOLD_PAGE_SIZE };
	struct fixture fixture;
	struct subject subject;
	struct source_watch watch;
	struct test_page *pages = pages_new(100, 1);
	uint32_t frames[FRAMES];

	(void)state;
	fixture_open(&fixture, MIB, false);
	memset(&pages[3], 0, sizeof(*pages));
	pages[8] = pages[7];
	subject_open(&fixture, &subject, pages, 20 * FOLD_PAGE_SIZE + 1);
	watch_begin(&watch, &subject);
	watch.error = -EIO;
	watch.bad_from = 10 * FOLD_PAGE_SIZE;
	watch.bad_to = 12 * FOLD_PAGE_SIZE;
	for (unsigned round = 0; round < 20; round++) {
		read_through(&fixture, &subject, pages, 100 * FOLD_PAGE_SIZE, round * 5000);
		fill_ahead(&fixture.filler, subject.file, subject.source, round * 5000,
			   30 * FOLD_PAGE_SIZE);
	}
	watch_end();
	/* 21 pages; two failed, one is zero, two are equal. */
	assert_int_equal(pool_usage(&fixture.pool).frames_used, 17);
	assert_int_equal(page_store_take(fixture.pool.store, frames, FRAMES), FRAMES - 17);
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

/* Files much larger than the pool, read by many: every page whole, every time. */

struct crowd {
	struct fixture fixture;
	struct subject subject[2];
	unsigned pages;
};

static void crowd_read(void *context, unsigned index)
{
	struct crowd *crowd = context;
	struct rng rng = {.state = mix64(index)};
	struct test_page *buffer = pages_new(256, 0);

	for (unsigned round = 0; round < ROUNDS(2400); round++) {
		unsigned count = 1 + (unsigned)rng_below(&rng, rng_below(&rng, 4) ? 8 : 256);
		uint64_t first = rng_below(&rng, crowd->pages - count);
		struct subject *subject = &crowd->subject[rng_below(&rng, 2)];

		if (!rng_below(&rng, 10)) {
			fill_ahead(&crowd->fixture.filler, subject->file, subject->source,
				   (off_t)(first * FOLD_PAGE_SIZE), count * FOLD_PAGE_SIZE);
			continue;
		}
		expect(read_through(&crowd->fixture, subject, buffer, count * FOLD_PAGE_SIZE,
				    (off_t)(first * FOLD_PAGE_SIZE)) == count * FOLD_PAGE_SIZE);
		for (unsigned i = 0; i < count; i++)
			if ((first + i) % 16 == 5)
				expect(fold_page_is_zero(&buffer[i]));
			else
				expect(page_is(&buffer[i], first + i, 0));
	}
	free(buffer);
}

static void readers_verify_while_frames_are_evicted(void **state)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));
	struct test_page *pages;

	(void)state;
	expect(crowd);
	crowd->pages = 4096;
	pages = pages_new(crowd->pages, 0);
	for (unsigned page = 5; page < crowd->pages; page += 16)
		memset(&pages[page], 0, sizeof(*pages));
	fixture_open(&crowd->fixture, 2 * MIB, true);
	for (unsigned i = 0; i < 2; i++)
		subject_open(&crowd->fixture, &crowd->subject[i], pages,
			     crowd->pages * sizeof(*pages));
	crew_run(4, crowd_read, crowd);
	assert_true(counters_sum(crowd->fixture.pool.counters, COUNTER_EVICTIONS) > 0);
	assert_true(counters_sum(crowd->fixture.pool.counters, COUNTER_MERGES) > 0);
	for (unsigned i = 0; i < 2; i++)
		subject_close(&crowd->subject[i]);
	fixture_close(&crowd->fixture);
	free(pages);
	free(crowd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_return_the_files_bytes),
		cmocka_unit_test(the_longest_request_is_served_unaligned),
		cmocka_unit_test(a_hit_does_not_touch_the_source),
		cmocka_unit_test(neighbouring_misses_are_one_call),
		cmocka_unit_test(neighbouring_frames_are_one_part),
		cmocka_unit_test(the_short_last_page_is_filled_with_zeroes),
		cmocka_unit_test(zeroes_and_holes_take_no_frame),
		cmocka_unit_test(equal_pages_of_two_files_share),
		cmocka_unit_test(reading_past_the_end_is_no_error),
		cmocka_unit_test(an_error_is_an_error_for_that_range_alone),
		cmocka_unit_test(known_pages_survive_an_error),
		cmocka_unit_test(the_sources_errno_is_passed_on),
		cmocka_unit_test(without_a_free_frame_reads_bypass_the_pool),
		cmocka_unit_test(without_memory_for_the_map_reads_are_right),
		cmocka_unit_test(without_any_memory_reads_are_right),
		cmocka_unit_test(a_file_that_shrinks_under_the_reader),
		cmocka_unit_test(a_file_that_shrinks_during_the_read),
		cmocka_unit_test(a_file_that_grows_behind_the_mount),
		cmocka_unit_test(fill_ahead_makes_pages_known),
		cmocka_unit_test(fill_ahead_leaves_errors_to_the_reader),
		cmocka_unit_test(every_frame_comes_back),
		cmocka_unit_test(readers_verify_while_frames_are_evicted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
