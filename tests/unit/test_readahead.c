/* SPDX-License-Identifier: Apache-2.0 */
/* test_readahead.c - who reads in sequence finds frames filled; nobody else costs anything */
#include "fixture.h"

#include "foldfs/readahead.h"

#include <semaphore.h>

#define PAGES 4096u
#define BYTES (PAGES * FOLD_PAGE_SIZE)
#define STEP  (128u << 10)

/* Every page of a file carries its number; the pool can hold them all. */
struct ahead {
	struct fixture fixture;
	struct subject subject;
	struct workers *workers;
	struct stream *stream;
	/* What the hook does to reads of the source. */
	atomic_ulong bytes;
	atomic_bool hold; /* let reads by workers wait for `go` */
	pthread_t reader; /* is no worker */
	sem_t held;
	sem_t go;
	errint_t error;
};

static ssize_t watch_source(void *context, const struct io_call *call)
{
	struct ahead *ahead = context;

	if (call->write || call->fd != source_fd(ahead->subject.source))
		return IO_AS_ASKED;
	atomic_fetch_add(&ahead->bytes, call->length);
	if (atomic_load(&ahead->hold) && !pthread_equal(pthread_self(), ahead->reader)) {
		sem_post(&ahead->held);
		while (sem_wait(&ahead->go) && errno == EINTR)
			;
	}
	return ahead->error ? ahead->error : IO_AS_ASKED;
}

static struct ahead *ahead_new(size_t length, unsigned workers)
{
	struct ahead *ahead = calloc(1, sizeof(*ahead));
	struct test_page *pages = pages_new((unsigned)(length / FOLD_PAGE_SIZE), 0);

	expect(ahead);
	ahead->reader = pthread_self();
	sem_init(&ahead->held, 0, 0);
	sem_init(&ahead->go, 0, 0);
	fixture_open(&ahead->fixture, 2 * (uint64_t)BYTES, true);
	subject_open(&ahead->fixture, &ahead->subject, pages, length);
	expect(!workers_new(workers, &ahead->workers));
	expect(!workers_start(ahead->workers));
	expect(!stream_new(&ahead->fixture.filler, ahead->workers, ahead->subject.file,
			   ahead->subject.source, &ahead->stream));
	faults_hook_io(watch_source, ahead);
	free(pages);
	return ahead;
}

static void ahead_free(struct ahead *ahead)
{
	if (ahead->stream)
		stream_free(ahead->stream);
	workers_free(ahead->workers);
	faults_hook_io(NULL, NULL);
	subject_close(&ahead->subject);
	fixture_close(&ahead->fixture);
	sem_destroy(&ahead->held);
	sem_destroy(&ahead->go);
	free(ahead);
}

/* A request, as the handler makes it: look, note, wait, read. */
static void request(struct ahead *ahead, off_t offset, size_t length)
{
	static struct test_page buffer[FOLD_REQUEST_PAGES];
	uint64_t first = (uint64_t)offset >> FOLD_PAGE_SHIFT;
	uint64_t pages = length >> FOLD_PAGE_SHIFT;
	bool missed = count_known(&ahead->subject, first, first + pages, KNOWS_NOTHING) > 0;

	stream_note(ahead->stream, offset, length, missed);
	if (missed)
		stream_wait(ahead->stream, offset, length);
	expect(read_through(&ahead->fixture, &ahead->subject, buffer, length, offset) ==
	       (ssize_t)length);
	for (uint64_t i = 0; i < pages; i++)
		expect(page_is(&buffer[i], first + i, 0));
}

static uint64_t filled_ahead(struct ahead *ahead)
{
	return counters_sum(ahead->fixture.pool.counters, COUNTER_READAHEAD);
}

/* Give the workers a moment to be ahead of the reader; that they are is not needed. */
static void linger(struct ahead *ahead, off_t offset)
{
	uint64_t first = (uint64_t)offset >> FOLD_PAGE_SHIFT;

	for (unsigned i = 0;
	     i < 50 && count_known(&ahead->subject, first, first + 1, KNOWS_NOTHING); i++)
		test_nap();
}

static void a_sequential_reader_finds_frames_filled(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 2);

	(void)state;
	for (off_t offset = 0; offset < (off_t)BYTES; offset += STEP) {
		request(ahead, offset, STEP);
		if (offset + (off_t)STEP < (off_t)BYTES)
			linger(ahead, offset + STEP);
	}
	assert_true(filled_ahead(ahead) >= PAGES / 2);
	assert_int_equal(count_known(&ahead->subject, 0, PAGES, KNOWS_NOTHING), 0);
	check_known(&ahead->subject, PAGES);
	ahead_free(ahead);
}

static void small_sequential_reads_count_too(void **state)
{
	struct ahead *ahead = ahead_new(BYTES / 4, 1);

	(void)state;
	for (off_t offset = 0; offset < (off_t)(BYTES / 4); offset += FOLD_PAGE_SIZE) {
		request(ahead, offset, FOLD_PAGE_SIZE);
		if (offset % (off_t)STEP == 0 && offset)
			linger(ahead, offset + FOLD_PAGE_SIZE);
	}
	assert_true(filled_ahead(ahead) > 0);
	check_known(&ahead->subject, PAGES / 4);
	ahead_free(ahead);
}

/* Far jumps: no worker reads anything for them. One worker serves a sequential reader afterwards,
 * in order, so by then it would have. */
static void a_jumping_reader_causes_nothing(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 1);
	struct stream *jumping;
	struct stream *sequential = ahead->stream;

	(void)state;
	expect(!stream_new(&ahead->fixture.filler, ahead->workers, ahead->subject.file,
			   ahead->subject.source, &jumping));
	ahead->stream = jumping;
	for (unsigned i = 0; i < 200; i++)
		request(ahead, i * 517 % (PAGES / 2) * FOLD_PAGE_SIZE, FOLD_PAGE_SIZE);
	ahead->stream = sequential;
	for (off_t offset = BYTES / 2; offset < (off_t)BYTES; offset += STEP) {
		request(ahead, offset, STEP);
		linger(ahead, offset + STEP < (off_t)BYTES ? offset + (off_t)STEP : 0);
	}
	assert_true(filled_ahead(ahead) > 0);
	assert_int_equal(count_known(&ahead->subject, 0, PAGES / 2, KNOWS_FRAME), 200);
	stream_free(jumping);
	ahead_free(ahead);
}

/* Short hops forward: what is skipped was not read. */
static void what_is_skipped_proves_nothing(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 1);

	(void)state;
	for (unsigned i = 0; i < 20; i++)
		request(ahead, i * 100 * FOLD_PAGE_SIZE, FOLD_PAGE_SIZE);
	stream_free(ahead->stream);
	ahead->stream = NULL;
	workers_free(ahead->workers);
	assert_int_equal(atomic_load(&ahead->bytes), 20 * FOLD_PAGE_SIZE);
	expect(!workers_new(1, &ahead->workers));
	ahead_free(ahead);
}

/* Larger reads with gaps, as a machine that boots makes them: they are near each other, and no
 * sequence. */
static void reads_with_gaps_prove_nothing(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 1);
	unsigned reads = (unsigned)(BYTES / (3 * STEP));

	(void)state;
	assert_true(reads * STEP > (256u << 10));
	for (unsigned i = 0; i < reads; i++)
		request(ahead, (off_t)(i * 3 * STEP), STEP);
	stream_free(ahead->stream);
	ahead->stream = NULL;
	workers_free(ahead->workers);
	assert_int_equal(atomic_load(&ahead->bytes), reads * STEP);
	expect(!workers_new(1, &ahead->workers));
	ahead_free(ahead);
}

/* Who reads what is pooled already has no use for workers. */
static void a_reader_that_hits_causes_nothing(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 1);

	(void)state;
	for (off_t offset = 0; offset < (off_t)BYTES; offset += MIB)
		fill_ahead(&ahead->fixture.filler, ahead->subject.file, ahead->subject.source,
			   offset, MIB);
	atomic_store(&ahead->bytes, 0);
	for (off_t offset = 0; offset < (off_t)BYTES; offset += STEP)
		request(ahead, offset, STEP);
	stream_free(ahead->stream);
	ahead->stream = NULL;
	workers_free(ahead->workers); /* by now all is done */
	assert_int_equal(atomic_load(&ahead->bytes), 0);
	expect(!workers_new(1, &ahead->workers));
	ahead_free(ahead);
}

/* ---- waiting ---- */

static void *let_go(void *argument)
{
	struct ahead *ahead = argument;

	for (unsigned i = 0; i < 100; i++)
		test_nap();
	atomic_store(&ahead->hold, false);
	for (unsigned i = 0; i < 100; i++)
		sem_post(&ahead->go);
	return NULL;
}

/* Note sequential reads until a worker stands at the source. Returns how far the reader got. */
static off_t hold_a_worker(struct ahead *ahead)
{
	off_t offset = 0;

	atomic_store(&ahead->hold, true);
	while (sem_trywait(&ahead->held)) {
		if (offset < (off_t)(2 * MIB)) {
			stream_note(ahead->stream, offset, STEP, true);
			offset += STEP;
		}
		test_nap();
	}
	return offset;
}

static void a_reader_waits_for_the_worker_at_its_range(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 1);
	pthread_t helper;
	off_t end;
	unsigned known;

	(void)state;
	/* Nobody is at work. */
	assert_false(stream_wait(ahead->stream, 0, BYTES));
	end = hold_a_worker(ahead);
	assert_true(end > 0);
	expect(!pthread_create(&helper, NULL, let_go, ahead));
	assert_true(stream_wait(ahead->stream, 0, BYTES));
	assert_false(atomic_load(&ahead->hold)); /* it was let go before we were */
	pthread_join(helper, NULL);
	known = count_known(&ahead->subject, 0, PAGES, KNOWS_FRAME);
	assert_true(known > 0);
	ahead_free(ahead);
}

/* A reader that is there before the workers takes its own part of a job; the rest is still read. */
static void a_job_that_a_reader_overtakes_keeps_its_tail(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 1);
	uint64_t first;

	(void)state;
	first = (uint64_t)hold_a_worker(ahead) + MIB;
	stream_note(ahead->stream, (off_t)(first - MIB), MIB, true);
	/* In the midst of a job that waits behind the one that is held. */
	assert_false(stream_wait(ahead->stream, (off_t)first, STEP));
	let_go(ahead);
	wait_for(count_known(&ahead->subject, (first + STEP) >> FOLD_PAGE_SHIFT,
			     (first + 3 * STEP) >> FOLD_PAGE_SHIFT, KNOWS_NOTHING) == 0);
	ahead_free(ahead);
}

static void elsewhere_nobody_waits(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 1);
	struct stream *other;

	(void)state;
	hold_a_worker(ahead);
	/* Behind all that could have been handed out, and another handle's. */
	assert_false(stream_wait(ahead->stream, BYTES - STEP, STEP));
	expect(!stream_new(&ahead->fixture.filler, ahead->workers, ahead->subject.file,
			   ahead->subject.source, &other));
	assert_false(stream_wait(other, 0, BYTES));
	stream_free(other);
	let_go(ahead);
	ahead_free(ahead);
}

/* ---- the end ---- */

static void a_stream_ends_while_its_worker_reads(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 1);

	(void)state;
	hold_a_worker(ahead);
	stream_free(ahead->stream); /* does not wait: nothing lets the worker go yet */
	ahead->stream = NULL;
	let_go(ahead);
	ahead_free(ahead);
}

static void readahead_ends_with_ranges_queued(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 1);
	pthread_t helper;

	(void)state;
	hold_a_worker(ahead);
	expect(!pthread_create(&helper, NULL, let_go, ahead));
	ahead_free(ahead);
	pthread_join(helper, NULL);
}

static void errors_are_left_to_the_reader(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 2);
	struct test_page buffer;

	(void)state;
	ahead->error = -EIO;
	for (off_t offset = 0; offset < (off_t)(2 * MIB); offset += STEP) {
		stream_note(ahead->stream, offset, STEP, true);
		stream_wait(ahead->stream, offset, STEP);
		expect(read_through(&ahead->fixture, &ahead->subject, &buffer, 4096, offset) ==
		       -EIO);
	}
	while (stream_wait(ahead->stream, 0, BYTES))
		;
	assert_int_equal(count_known(&ahead->subject, 0, PAGES, KNOWS_NOTHING), PAGES);
	ahead_free(ahead);
}

/* Nothing is read twice: what the source gave is what the file has. */
static void a_range_is_read_once(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 2);

	(void)state;
	for (off_t offset = 0; offset < (off_t)BYTES; offset += STEP) {
		linger(ahead, offset);
		request(ahead, offset, STEP);
	}
	stream_free(ahead->stream);
	ahead->stream = NULL;
	workers_free(ahead->workers);
	print_message("%lu bytes read of %u\n", atomic_load(&ahead->bytes), BYTES);
	assert_in_range(atomic_load(&ahead->bytes), BYTES, BYTES + BYTES / 8);
	assert_int_equal(filled_ahead(ahead) +
				 counters_sum(ahead->fixture.pool.counters, COUNTER_MISSES),
			 atomic_load(&ahead->bytes) / FOLD_PAGE_SIZE);
	expect(!workers_new(1, &ahead->workers));
	ahead_free(ahead);
}

/* ---- all at once ---- */

static void read_with_a_stream_of_ones_own(void *context, unsigned index)
{
	struct ahead *ahead = context;
	struct rng rng = {.state = mix64(index)};
	struct test_page *buffer = pages_new(32, 0);

	for (unsigned round = 0; round < ROUNDS(80); round++) {
		uint64_t start = rng_below(&rng, PAGES - 512);
		struct stream *stream;

		expect(!stream_new(&ahead->fixture.filler, ahead->workers, ahead->subject.file,
				   ahead->subject.source, &stream));
		for (uint64_t page = start; page < start + 480; page += 32) {
			off_t offset = (off_t)(page << FOLD_PAGE_SHIFT);

			stream_note(stream, offset, STEP, true);
			if (index % 2)
				stream_wait(stream, offset, STEP);
			expect(read_through(&ahead->fixture, &ahead->subject, buffer, STEP,
					    offset) == STEP);
			for (unsigned i = 0; i < 32; i++)
				expect(page_is(&buffer[i], page + i, 0));
		}
		if (!rng_below(&rng, 8))
			file_forget(ahead->subject.file);
		stream_free(stream);
	}
	free(buffer);
}

static void streams_come_and_go_under_many_hands(void **state)
{
	struct ahead *ahead = ahead_new(BYTES, 3);

	(void)state;
	crew_run(4, read_with_a_stream_of_ones_own, ahead);
	check_known(&ahead->subject, PAGES);
	ahead_free(ahead);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sequential_reader_finds_frames_filled),
		cmocka_unit_test(small_sequential_reads_count_too),
		cmocka_unit_test(a_jumping_reader_causes_nothing),
		cmocka_unit_test(what_is_skipped_proves_nothing),
		cmocka_unit_test(reads_with_gaps_prove_nothing),
		cmocka_unit_test(a_reader_that_hits_causes_nothing),
		cmocka_unit_test(a_reader_waits_for_the_worker_at_its_range),
		cmocka_unit_test(a_job_that_a_reader_overtakes_keeps_its_tail),
		cmocka_unit_test(elsewhere_nobody_waits),
		cmocka_unit_test(a_stream_ends_while_its_worker_reads),
		cmocka_unit_test(readahead_ends_with_ranges_queued),
		cmocka_unit_test(errors_are_left_to_the_reader),
		cmocka_unit_test(a_range_is_read_once),
		cmocka_unit_test(streams_come_and_go_under_many_hands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
