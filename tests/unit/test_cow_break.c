/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cow_break.c - changes of content: what the source holds, what the map knows, what a reader
 * gets
 *
 * All three are compared after each change, with a model in memory. Changes that race with fills
 * and with each other are in test_cow_break_race.c.
 */
#include "fixture.h"

#include <linux/falloc.h>
#include <signal.h>
#include <sys/resource.h>

#define PAGES 24u
#define BYTES (PAGES * FOLD_PAGE_SIZE)

/* The model holds BYTES; `size` of them are the file's. */
struct model {
	struct fixture fixture;
	struct subject subject;
	uint8_t *bytes;
	size_t size;
};

static void model_open(struct model *model, size_t size)
{
	struct test_page *pages = pages_new(PAGES, 1);

	memset(&pages[5], 0, 3 * sizeof(*pages)); /* zeroes */
	pages[9] = pages[8];                      /* shared within the file */
	fixture_open(&model->fixture, 4 * MIB, true);
	subject_open(&model->fixture, &model->subject, pages, size);
	model->bytes = (uint8_t *)pages;
	memset(model->bytes + size, 0, BYTES - size);
	model->size = size;
}

static void model_close(struct model *model)
{
	subject_close(&model->subject);
	fixture_close(&model->fixture);
	free(model->bytes);
}

static void check_source(struct model *model)
{
	uint8_t *buffer = malloc(BYTES + 1);

	expect(buffer);
	expect(pread(model->subject.fd, buffer, BYTES + 1, 0) == (ssize_t)model->size);
	expect(!memcmp(buffer, model->bytes, model->size));
	free(buffer);
}

static void check_reader(struct model *model)
{
	uint8_t *buffer = malloc(BYTES);

	expect(buffer);
	expect(read_all(&model->fixture, &model->subject, buffer, BYTES) == (ssize_t)model->size);
	expect(!memcmp(buffer, model->bytes, model->size));
	free(buffer);
}

static void check_all(struct model *model)
{
	check_source(model);
	check_known(&model->subject, PAGES);
	expect(file_size(model->subject.file) == model->size);
}

static void model_write(struct model *model, const void *bytes, size_t offset, size_t length)
{
	ssize_t written =
		cow_break_write(&model->fixture.cow, model->subject.file, model->subject.source,
				bytes, length, (off_t)offset, NULL);

	expect(written == (ssize_t)length);
	memcpy(model->bytes + offset, bytes, length);
	if (length && offset + length > model->size)
		model->size = offset + length;
}

static void model_truncate(struct model *model, size_t size)
{
	expect(!cow_break_truncate(&model->fixture.cow, model->subject.file, model->subject.fd,
				   NULL, (off_t)size));
	if (size < model->size)
		memset(model->bytes + size, 0, model->size - size);
	model->size = size;
}

/* Returns whether the source's file system has MODE. The model is changed by the caller. */
static bool model_fallocate(struct model *model, int mode, size_t offset, size_t length)
{
	errint_t error = cow_break_fallocate(&model->fixture.cow, model->subject.file,
					     model->subject.fd, mode, (off_t)offset, (off_t)length);

	expect(!error || error == -EOPNOTSUPP);
	return !error;
}

/* ---- one change at a time ---- */

static void a_resident_page_is_broken_and_stays_known(void **state)
{
	struct model model;
	uint8_t ink[3 * FOLD_PAGE_SIZE];

	(void)state;
	model_open(&model, BYTES);
	check_reader(&model);
	memset(ink, 0xa5, sizeof(ink));
	for (unsigned page = 2; page < 20; page += 3)
		model_write(&model, ink, page * FOLD_PAGE_SIZE + 100, 50);
	check_all(&model);
	assert_int_equal(count_known(&model.subject, 0, PAGES, KNOWS_NOTHING), 0);
	assert_int_equal(pool_usage(&model.fixture.pool).pages_volatile, 6);
	assert_int_equal(counters_sum(model.fixture.pool.counters, COUNTER_BREAKS), 6);
	check_reader(&model);
	/* A whole page as well, and a private one again. */
	model_write(&model, ink, 2 * FOLD_PAGE_SIZE, 3 * FOLD_PAGE_SIZE);
	check_all(&model);
	assert_int_equal(count_known(&model.subject, 0, PAGES, KNOWS_NOTHING), 0);
	check_reader(&model);
	model_close(&model);
}

static void a_page_that_is_not_resident_becomes_unknown(void **state)
{
	struct model model;
	uint8_t ink[100] = {1, 2, 3};

	(void)state;
	model_open(&model, BYTES);
	model_write(&model, ink, 4000, sizeof(ink));
	assert_int_equal(count_known(&model.subject, 0, PAGES, KNOWS_NOTHING), PAGES);
	assert_int_equal(counters_sum(model.fixture.pool.counters, COUNTER_BREAKS), 0);
	check_all(&model);
	check_reader(&model);
	model_close(&model);
}

/* A large write is taken for a stream: nothing of it is kept. */
static void a_stream_is_forgotten(void **state)
{
	const size_t length = 64 * 1024;
	struct model model;
	uint8_t *ink = malloc(length);

	(void)state;
	expect(ink);
	for (unsigned aligned = 0; aligned < 2; aligned++) {
		size_t offset = aligned ? 4 * FOLD_PAGE_SIZE : 4 * FOLD_PAGE_SIZE + 5;

		model_open(&model, BYTES);
		check_reader(&model);
		memset(ink, 0x77, length);
		model_write(&model, ink, offset, length);
		check_all(&model);
		assert_int_equal(count_known(&model.subject, 4, 20, KNOWS_NOTHING), 16);
		assert_int_equal(count_known(&model.subject, 0, 4, KNOWS_NOTHING), 0);
		assert_int_equal(pool_usage(&model.fixture.pool).pages_volatile, 0);
		assert_in_range(counters_sum(model.fixture.pool.counters, COUNTER_BREAKS), 16, 17);
		check_reader(&model);
		model_close(&model);
	}
	free(ink);
}

/* The other file's page keeps its content: frames are immutable (DESIGN, invariant 3). */
static void a_shared_page_is_broken_for_its_writer_alone(void **state)
{
	struct model model;
	struct subject other;
	uint8_t *before = malloc(BYTES);
	uint8_t *buffer = malloc(BYTES);
	uint8_t ink[9000];

	(void)state;
	expect(before && buffer);
	model_open(&model, BYTES);
	memcpy(before, model.bytes, BYTES);
	subject_open(&model.fixture, &other, before, BYTES);
	check_reader(&model);
	assert_int_equal(read_all(&model.fixture, &other, buffer, BYTES), BYTES);
	assert_true(pool_usage(&model.fixture.pool).pages_sharing >= PAGES - 4);
	memset(ink, 7, sizeof(ink));
	for (size_t offset = 0; offset + sizeof(ink) < BYTES; offset += 5 * FOLD_PAGE_SIZE + 1)
		model_write(&model, ink, offset, sizeof(ink));
	check_all(&model);
	check_reader(&model);
	check_known(&other, PAGES);
	assert_int_equal(count_known(&other, 0, PAGES, KNOWS_NOTHING), 0);
	assert_int_equal(read_all(&model.fixture, &other, buffer, BYTES), BYTES);
	assert_memory_equal(buffer, before, BYTES);
	subject_close(&other);
	model_close(&model);
	free(buffer);
	free(before);
}

static void a_page_written_with_zeroes_takes_no_frame(void **state)
{
	struct model model;
	uint8_t zeroes[4 * FOLD_PAGE_SIZE] = {0};
	uint64_t used;

	(void)state;
	model_open(&model, BYTES);
	check_reader(&model);
	used = pool_usage(&model.fixture.pool).frames_used;
	model_write(&model, zeroes, 15 * FOLD_PAGE_SIZE, sizeof(zeroes));
	check_all(&model);
	assert_int_equal(count_known(&model.subject, 15, 19, KNOWS_FRAME), 0);
	assert_int_equal(pool_usage(&model.fixture.pool).frames_used, used - 4);
	check_reader(&model);
	model_close(&model);
}

static void nothing_written_changes_nothing(void **state)
{
	struct model model;

	(void)state;
	model_open(&model, BYTES);
	check_reader(&model);
	model_write(&model, "", 5000, 0);
	check_all(&model);
	assert_int_equal(count_known(&model.subject, 0, PAGES, KNOWS_NOTHING), 0);
	model_close(&model);
}

/* A write behind the end leaves a hole, and the old last page is not short any more. */
static void extending_shows_zeroes_in_between(void **state)
{
	struct model model;

	(void)state;
	for (unsigned known = 0; known < 2; known++) {
		model_open(&model, 2 * FOLD_PAGE_SIZE + 77);
		if (known)
			check_reader(&model);
		model_write(&model, "x", 9 * FOLD_PAGE_SIZE + 9, 1);
		check_all(&model);
		check_reader(&model);
		model_truncate(&model, 12 * FOLD_PAGE_SIZE + 1);
		check_all(&model);
		check_reader(&model);
		model_close(&model);
	}
}

/* What was cut off does not come back. */
static void truncate_down_and_up_shows_zeroes(void **state)
{
	struct model model;

	(void)state;
	for (unsigned known = 0; known < 2; known++) {
		model_open(&model, BYTES);
		for (unsigned i = 0; i < 10; i++) {
			if (known)
				check_reader(&model);
			model_truncate(&model, (10 - i) * FOLD_PAGE_SIZE - i * 300);
			check_all(&model);
			if (known)
				check_reader(&model);
			model_truncate(&model, 20 * FOLD_PAGE_SIZE + 5);
			check_all(&model);
			check_reader(&model);
		}
		model_truncate(&model, 0);
		check_all(&model);
		check_reader(&model);
		assert_int_equal(pool_usage(&model.fixture.pool).frames_used, 0);
		model_close(&model);
	}
}

static void punched_holes_are_zero(void **state)
{
	struct model model;

	(void)state;
	for (unsigned known = 0; known < 2; known++) {
		model_open(&model, BYTES - 100);
		for (size_t offset = 0; offset < BYTES - 20000; offset += 17000) {
			if (known)
				check_reader(&model);
			if (!model_fallocate(&model, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					     offset + 100, 13000))
				skip();
			memset(model.bytes + offset + 100, 0, 13000);
			check_all(&model);
		}
		check_reader(&model);
		model_close(&model);
	}
}

static void fallocate_in_every_mode(void **state)
{
	const size_t at = 4 * FOLD_PAGE_SIZE;
	const size_t length = 3 * FOLD_PAGE_SIZE;
	struct model model;

	(void)state;
	model_open(&model, BYTES / 2);
	check_reader(&model);
	if (model_fallocate(&model, FALLOC_FL_KEEP_SIZE, BYTES / 2 - 10, 5000))
		check_all(&model);
	if (model_fallocate(&model, 0, BYTES / 2 - 10, 5000))
		model.size += 4990;
	check_all(&model);
	check_reader(&model);
	if (model_fallocate(&model, FALLOC_FL_ZERO_RANGE, 1000, 9000))
		memset(model.bytes + 1000, 0, 9000);
	check_all(&model);
	check_reader(&model);
	if (model_fallocate(&model, FALLOC_FL_ZERO_RANGE, model.size - 5, 50)) {
		memset(model.bytes + model.size - 5, 0, 5);
		model.size += 45;
	}
	check_all(&model);
	check_reader(&model);
	if (model_fallocate(&model, FALLOC_FL_COLLAPSE_RANGE, at, length)) {
		memmove(model.bytes + at, model.bytes + at + length, BYTES - at - length);
		memset(model.bytes + BYTES - length, 0, length);
		model.size -= length;
	}
	check_all(&model);
	check_reader(&model);
	if (model_fallocate(&model, FALLOC_FL_INSERT_RANGE, at, length)) {
		memmove(model.bytes + at + length, model.bytes + at, BYTES - at - length);
		memset(model.bytes + at, 0, length);
		model.size += length;
	}
	check_all(&model);
	check_reader(&model);
	model_close(&model);
}

/* ---- errors ---- */

static void errors_are_the_sources(void **state)
{
	struct model model;
	int read_only;
	struct source *source;

	(void)state;
	model_open(&model, BYTES);
	check_reader(&model);
	read_only = reopen_file(model.subject.fd, O_RDONLY);
	assert_int_equal(
		cow_break_truncate(&model.fixture.cow, model.subject.file, read_only, NULL, 5),
		-EINVAL);
	assert_int_equal(cow_break_truncate(&model.fixture.cow, model.subject.file,
					    model.subject.fd, NULL, -1),
			 -EINVAL);
	assert_int_equal(
		cow_break_fallocate(&model.fixture.cow, model.subject.file, read_only, 0, 0, 4096),
		-EBADF);
	assert_int_equal(cow_break_fallocate(&model.fixture.cow, model.subject.file,
					     model.subject.fd, 0x40000000, 0, 4096),
			 -EOPNOTSUPP);
	assert_int_equal(cow_break_copy(&model.fixture.cow, model.subject.fd, 0, model.subject.file,
					read_only, 0, 10),
			 -EBADF);
	expect(!source_new(read_only, &source));
	assert_int_equal(cow_break_write(&model.fixture.cow, model.subject.file, source, "abc", 3,
					 100, NULL),
			 -EBADF);
	source_put(source);
	check_all(&model);
	check_reader(&model);
	model_close(&model);
}

/* The source takes so many bytes of a write at LIMIT_AT, then fails. */
struct shortage {
	int fd;
	off_t end; /* nothing is written from here on */
	int error;
	bool lose; /* say that it failed, when something was written */
};

static ssize_t fail_write(void *context, const struct io_call *call)
{
	struct shortage *shortage = context;

	if (!call->write || call->fd != shortage->fd)
		return IO_AS_ASKED;
	if (call->offset >= shortage->end)
		return shortage->error;
	if (call->offset + (off_t)call->length > shortage->end)
		return shortage->end - call->offset;
	return IO_AS_ASKED;
}

static void a_short_write_is_the_sources(void **state)
{
	uint8_t ink[5 * FOLD_PAGE_SIZE];

	(void)state;
	memset(ink, 0x5a, sizeof(ink));
	for (unsigned known = 0; known < 2; known++)
		for (unsigned end = 0; end < 5 * FOLD_PAGE_SIZE; end += 1500) {
			struct model model;
			struct shortage shortage = {.error = -ENOSPC};
			ssize_t written;

			model_open(&model, BYTES);
			if (known)
				check_reader(&model);
			shortage.fd = source_fd(model.subject.source);
			shortage.end = 3000 + end;
			faults_hook_io(fail_write, &shortage);
			written =
				cow_break_write(&model.fixture.cow, model.subject.file,
						model.subject.source, ink, sizeof(ink), 3000, NULL);
			faults_hook_io(NULL, NULL);
			assert_int_equal(written, end ? (ssize_t)end : -ENOSPC);
			memcpy(model.bytes + 3000, ink, end);
			check_all(&model);
			/* Slots of the whole range are unknown: the next read asks the source. */
			if (end)
				assert_int_equal(count_known(&model.subject, 0, 6, KNOWS_NOTHING),
						 6);
			check_reader(&model);
			model_close(&model);
		}
}

/* A source that says it failed, and took bytes all the same. */
static ssize_t write_and_fail(void *context, const struct io_call *call)
{
	struct model *model = context;

	if (!call->write || call->fd != source_fd(model->subject.source))
		return IO_AS_ASKED;
	memset(model->bytes + call->offset, 0x99, call->length / 2);
	expect(pwrite(model->subject.fd, model->bytes + call->offset, call->length / 2,
		      call->offset) == (ssize_t)(call->length / 2));
	return -EIO;
}

static void a_failed_write_leaves_nothing_known(void **state)
{
	struct model model;
	uint8_t ink[4 * FOLD_PAGE_SIZE] = {1};

	(void)state;
	model_open(&model, BYTES);
	check_reader(&model);
	faults_hook_io(write_and_fail, &model);
	assert_int_equal(cow_break_write(&model.fixture.cow, model.subject.file,
					 model.subject.source, ink, sizeof(ink), 2000, NULL),
			 -EIO);
	faults_hook_io(NULL, NULL);
	check_all(&model);
	assert_int_equal(count_known(&model.subject, 0, 4, KNOWS_NOTHING), 4);
	check_reader(&model);
	model_close(&model);
}

static void a_full_device_says_so(void **state)
{
	struct fixture fixture;
	struct subject subject;
	int fd = open("/dev/full", O_RDWR | O_CLOEXEC);

	(void)state;
	expect(fd >= 0);
	fixture_open(&fixture, MIB, true);
	subject_attach(&fixture, &subject, fd, O_RDWR);
	assert_int_equal(
		cow_break_write(&fixture.cow, subject.file, subject.source, "abc", 3, 0, NULL),
		-ENOSPC);
	subject_close(&subject);
	fixture_close(&fixture);
}

/* The kernel's own short write, at a limit. */
static void a_file_size_limit_cuts_a_write(void **state)
{
	struct rlimit old;
	struct rlimit low = {.rlim_cur = 10 * FOLD_PAGE_SIZE + 50};
	struct model model;
	uint8_t ink[4 * FOLD_PAGE_SIZE];
	ssize_t written;

	(void)state;
	model_open(&model, 9 * FOLD_PAGE_SIZE);
	check_reader(&model);
	memset(ink, 3, sizeof(ink));
	signal(SIGXFSZ, SIG_IGN);
	expect(!getrlimit(RLIMIT_FSIZE, &old));
	low.rlim_max = old.rlim_max;
	expect(!setrlimit(RLIMIT_FSIZE, &low));
	written = cow_break_write(&model.fixture.cow, model.subject.file, model.subject.source, ink,
				  sizeof(ink), 8 * FOLD_PAGE_SIZE + 10, NULL);
	expect(!setrlimit(RLIMIT_FSIZE, &old));
	assert_int_equal(written, 2 * FOLD_PAGE_SIZE + 40);
	memcpy(model.bytes + 8 * FOLD_PAGE_SIZE + 10, ink, 2 * FOLD_PAGE_SIZE + 40);
	model.size = 10 * FOLD_PAGE_SIZE + 50;
	check_all(&model);
	check_reader(&model);
	model_close(&model);
}

/* DESIGN, invariant 5: no frame to break into, no memory for a slot. */
static void without_a_frame_a_broken_page_is_unknown(void **state)
{
	enum { FRAMES = 4 * MIB / FOLD_PAGE_SIZE };
	uint32_t *frames = calloc(FRAMES, sizeof(*frames));
	uint8_t ink[3 * FOLD_PAGE_SIZE];
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(PAGES, 1);

	(void)state;
	expect(frames);
	memset(ink, 9, sizeof(ink));
	fixture_open(&fixture, 4 * MIB, false);
	subject_open(&fixture, &subject, pages, BYTES);
	read_all(&fixture, &subject, pages, BYTES);
	page_store_take(fixture.pool.store, frames, FRAMES);
	assert_int_equal(cow_break_write(&fixture.cow, subject.file, subject.source, ink,
					 sizeof(ink), 1000, NULL),
			 sizeof(ink));
	check_known(&subject, PAGES);
	assert_int_equal(count_known(&subject, 0, 4, KNOWS_NOTHING), 4);
	assert_int_equal(count_known(&subject, 4, PAGES, KNOWS_FRAME), PAGES - 4);
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
	free(frames);
}

static void without_memory_changes_are_right(void **state)
{
	struct model model;
	uint8_t ink[3 * FOLD_PAGE_SIZE];

	(void)state;
	memset(ink, 11, sizeof(ink));
	for (long after = 0; after < 5; after++) {
		model_open(&model, BYTES);
		check_reader(&model);
		faults_fail_allocations(after);
		model_write(&model, ink, 3 * FOLD_PAGE_SIZE + 7, sizeof(ink));
		model_truncate(&model, 20 * FOLD_PAGE_SIZE + 1);
		model_write(&model, ink, 6 * FOLD_PAGE_SIZE + 7, 10);
		faults_fail_allocations(-1);
		check_all(&model);
		check_reader(&model);
		model_close(&model);
	}
}

/* ---- copies ---- */

static void copied_ranges_are_right(void **state)
{
	struct rng rng = rng_of_test(__func__);
	struct model model;
	int other = temp_file();
	struct test_page *pages = pages_new(PAGES, 500);

	(void)state;
	write_whole(other, pages, BYTES, 0);
	model_open(&model, BYTES - 1000);
	for (unsigned round = 0; round < ROUNDS(240); round++) {
		size_t from = rng_below(&rng, BYTES);
		size_t to = rng_below(&rng, BYTES);
		size_t most = BYTES - (from > to ? from : to);
		size_t length = 1 + rng_below(&rng, rng_below(&rng, 2) ? most : 1 + most / 50);
		ssize_t copied;

		if (rng_below(&rng, 2)) {
			from &= ~(size_t)4095;
			to &= ~(size_t)4095;
		}
		check_reader(&model);
		copied = cow_break_copy(&model.fixture.cow, other, (off_t)from, model.subject.file,
					model.subject.fd, (off_t)to, length);
		assert_true(copied > 0 && (size_t)copied <= length);
		memcpy(model.bytes + to, (uint8_t *)pages + from, (size_t)copied);
		if (to + (size_t)copied > model.size)
			model.size = to + (size_t)copied;
		check_all(&model);
	}
	check_reader(&model);
	/* From behind the end: nothing. */
	assert_int_equal(cow_break_copy(&model.fixture.cow, other, 2 * BYTES, model.subject.file,
					model.subject.fd, 0, 10),
			 0);
	/* Within one file, without overlap. */
	assert_int_equal(cow_break_copy(&model.fixture.cow, model.subject.fd, 100,
					model.subject.file, model.subject.fd, 50000, 9000),
			 9000);
	memcpy(model.bytes + 50000, model.bytes + 100, 9000);
	check_all(&model);
	check_reader(&model);
	model_close(&model);
	close(other);
	free(pages);
}

/* A long copy ends after a bounded part of it, which ends where a reflink's next one may begin. */
static void long_copies_are_cut(void **state)
{
	static const off_t most = 16 << 20;
	struct model model;
	int other = temp_file();

	(void)state;
	assert_int_equal(ftruncate(other, 3 * most), 0);
	model_open(&model, 0);
	assert_int_equal(cow_break_copy(&model.fixture.cow, other, 0, model.subject.file,
					model.subject.fd, 5 * 4096 + 1, (size_t)(3 * most)),
			 most - 5 * 4096 - 1);
	assert_int_equal(cow_break_copy(&model.fixture.cow, other, 0, model.subject.file,
					model.subject.fd, most, (size_t)(3 * most)),
			 most);
	assert_int_equal(ftruncate(model.subject.fd, 0), 0);
	model_close(&model);
	close(other);
}

/* ---- all of it, at random ---- */

static void random_change(struct model *model, struct rng *rng)
{
	size_t offset = rng_below(rng, BYTES - 1);
	size_t most = BYTES - offset;
	size_t length = 1 + rng_below(rng, rng_below(rng, 2) ? most : 1 + most / 20);
	uint8_t *ink;

	switch (rng_below(rng, 8)) {
	case 0:
		model_truncate(model, offset);
		return;
	case 1:
		if (model_fallocate(model, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
				    length))
			memset(model->bytes + offset, 0, length);
		return;
	case 2:
		check_reader(model);
		return;
	case 3: /* in part: some pages resident, some not */
		ink = malloc(BYTES);
		expect(ink);
		read_through(&model->fixture, &model->subject, ink, length, (off_t)offset);
		free(ink);
		return;
	default:
		ink = malloc(length);
		expect(ink);
		memset(ink, rng_below(rng, 3) ? (int)rng_below(rng, 256) : 0, length);
		if (rng_below(rng, 2)) {
			offset &= ~(size_t)4095;
			length = length > 4096 ? length & ~(size_t)4095 : length;
		}
		model_write(model, ink, offset, length);
		free(ink);
	}
}

static void any_sequence_of_changes_is_right(void **state)
{
	struct rng rng = rng_of_test(__func__);

	(void)state;
	for (unsigned run = 0; run < 5; run++) {
		struct model model;

		model_open(&model, run ? rng_below(&rng, BYTES) : BYTES);
		for (unsigned round = 0; round < ROUNDS(1200); round++) {
			random_change(&model, &rng);
			check_all(&model);
		}
		check_reader(&model);
		model_close(&model);
	}
}

/* A change that somebody else made to the file: all is forgotten, ours is kept. */
static void a_foreign_change_is_noticed_by_the_next_own_one(void **state)
{
	struct model model;

	(void)state;
	model_open(&model, BYTES);
	check_reader(&model);
	memset(model.bytes + 20000, 0x42, 9000);
	write_whole(model.subject.fd, model.bytes + 20000, 9000, 20000);
	touch_file(model.subject.fd);
	model_write(&model, "own", 50, 3);
	check_all(&model);
	check_reader(&model);
	model_close(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_resident_page_is_broken_and_stays_known),
		cmocka_unit_test(a_page_that_is_not_resident_becomes_unknown),
		cmocka_unit_test(a_stream_is_forgotten),
		cmocka_unit_test(a_shared_page_is_broken_for_its_writer_alone),
		cmocka_unit_test(a_page_written_with_zeroes_takes_no_frame),
		cmocka_unit_test(nothing_written_changes_nothing),
		cmocka_unit_test(extending_shows_zeroes_in_between),
		cmocka_unit_test(truncate_down_and_up_shows_zeroes),
		cmocka_unit_test(punched_holes_are_zero),
		cmocka_unit_test(fallocate_in_every_mode),
		cmocka_unit_test(errors_are_the_sources),
		cmocka_unit_test(a_short_write_is_the_sources),
		cmocka_unit_test(a_failed_write_leaves_nothing_known),
		cmocka_unit_test(a_full_device_says_so),
		cmocka_unit_test(a_file_size_limit_cuts_a_write),
		cmocka_unit_test(without_a_frame_a_broken_page_is_unknown),
		cmocka_unit_test(without_memory_changes_are_right),
		cmocka_unit_test(copied_ranges_are_right),
		cmocka_unit_test(long_copies_are_cut),
		cmocka_unit_test(any_sequence_of_changes_is_right),
		cmocka_unit_test(a_foreign_change_is_noticed_by_the_next_own_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
