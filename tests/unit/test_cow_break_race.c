/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cow_break_race.c - changes of content that race with reads, with read-ahead and with each
 * other
 *
 * First one by one, at each step of a read; then in storms, where every page tells its version.
 */
#include "fixture.h"

#include <linux/falloc.h>

#define PAGES 16u
#define BYTES (PAGES * FOLD_PAGE_SIZE)

enum change { WRITE_ALL, WRITE_PART, WRITE_ZEROES, TRUNCATE_AND_BACK, PUNCH, COPY, CHANGES };

/* Change the content of page 4 in one way or other. False: the file system can't. */
static bool change_page(struct fixture *fixture, struct subject *subject, enum change change)
{
	const off_t at = 4 * FOLD_PAGE_SIZE;
	struct test_page ink;
	int other;
	errint_t error = 0;

	page_make(&ink, 99, 99);
	switch (change) {
	case WRITE_ZEROES:
		memset(&ink, 0, sizeof(ink));
		/* fall through */
	case WRITE_ALL:
		expect(cow_break_write(&fixture->cow, subject->file, subject->source, &ink,
				       sizeof(ink), at, NULL) == sizeof(ink));
		break;
	case WRITE_PART:
		expect(cow_break_write(&fixture->cow, subject->file, subject->source, &ink, 7,
				       at + 77, NULL) == 7);
		break;
	case TRUNCATE_AND_BACK:
		expect(!cow_break_truncate(&fixture->cow, subject->file, subject->fd, NULL,
					   at + 5));
		expect(!cow_break_truncate(&fixture->cow, subject->file, subject->fd, NULL, BYTES));
		break;
	case PUNCH:
		error = cow_break_fallocate(&fixture->cow, subject->file, subject->fd,
					    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 4096);
		break;
	case COPY:
		other = temp_file();
		write_whole(other, &ink, sizeof(ink), 0);
		expect(cow_break_copy(&fixture->cow, other, 0, subject->file, subject->fd, at,
				      4096) == 4096);
		close(other);
		break;
	case CHANGES:
		break;
	}
	return !error;
}

/* ---- B.2, from end to end: a fill that looked before a change is not published after it ---- */

/* The change comes after the source was read, before the fill is published. */
static void change_after_fetch(enum change change)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(PAGES, 1);
	struct page_read *read = malloc(sizeof(*read));

	expect(read);
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, BYTES);
	page_read_init(read, &fixture.filler, subject.file, subject.source, 0, BYTES);
	fold_rcu_read_lock();
	expect(!page_read_look(read));
	fold_rcu_read_unlock();
	page_read_fetch(read);
	change_page(&fixture, &subject, change);
	fold_rcu_read_lock();
	expect(page_read_look(read));
	fold_rcu_read_unlock();
	page_read_finish(read);
	check_known(&subject, PAGES);
	assert_true(counters_sum(fixture.pool.counters, COUNTER_FILLS_DISCARDED) > 0);
	assert_int_equal(read_all(&fixture, &subject, pages, BYTES), BYTES);
	check_known(&subject, PAGES);
	subject_close(&subject);
	fixture_close(&fixture);
	free(read);
	free(pages);
}

static void b2_a_change_after_the_fetch_discards_the_fill(void **state)
{
	(void)state;
	for (enum change change = WRITE_ALL; change < CHANGES; change++)
		change_after_fetch(change);
}

/* The change comes while the source is being read. */
struct interrupted {
	struct fixture *fixture;
	struct subject *subject;
	enum change change;
	bool done;
	bool after; /* the read happens first */
};

static ssize_t change_during_read(void *context, const struct io_call *call)
{
	struct interrupted *interrupted = context;

	if (call->write || call->fd != source_fd(interrupted->subject->source) || interrupted->done)
		return IO_AS_ASKED;
	interrupted->done = true;
	change_page(interrupted->fixture, interrupted->subject, interrupted->change);
	return IO_AS_ASKED;
}

static void b2_a_change_during_the_fetch_leaves_the_truth(void **state)
{
	struct test_page *pages = pages_new(PAGES, 1);

	(void)state;
	for (unsigned ahead = 0; ahead < 2; ahead++)
		for (enum change change = WRITE_ALL; change < CHANGES; change++) {
			struct fixture fixture;
			struct subject subject;
			struct interrupted interrupted = {
				.fixture = &fixture, .subject = &subject, .change = change};
			struct test_page *buffer = pages_new(PAGES, 1);

			fixture_open(&fixture, MIB, true);
			subject_open(&fixture, &subject, pages, BYTES);
			faults_hook_io(change_during_read, &interrupted);
			if (ahead)
				fill_ahead(&fixture.filler, subject.file, subject.source, 0, BYTES);
			else
				expect(read_all(&fixture, &subject, buffer, BYTES) == BYTES);
			faults_hook_io(NULL, NULL);
			assert_true(interrupted.done);
			check_known(&subject, PAGES);
			expect(read_all(&fixture, &subject, buffer, BYTES) == BYTES);
			check_known(&subject, PAGES);
			subject_close(&subject);
			fixture_close(&fixture);
			free(buffer);
		}
	free(pages);
}

/* A read that starts while a write is between source and slots: old or new, and known as
 * new after. */
struct midway {
	struct fixture *fixture;
	struct subject *subject;
};

static ssize_t read_during_write(void *context, const struct io_call *call)
{
	struct midway *midway = context;
	struct test_page *buffer;

	if (!call->write || call->fd != source_fd(midway->subject->source))
		return IO_AS_ASKED;
	buffer = pages_new(PAGES, 1);
	expect(read_all(midway->fixture, midway->subject, buffer, BYTES) == BYTES);
	expect(page_is(&buffer[4], 5, 0));
	free(buffer);
	return IO_AS_ASKED;
}

static void a_read_before_the_source_took_a_write_is_not_kept(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct midway midway = {.fixture = &fixture, .subject = &subject};
	struct test_page *pages = pages_new(PAGES, 1);

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, BYTES);
	faults_hook_io(read_during_write, &midway);
	change_page(&fixture, &subject, WRITE_ALL);
	faults_hook_io(NULL, NULL);
	check_known(&subject, PAGES);
	expect(read_all(&fixture, &subject, pages, BYTES) == BYTES);
	assert_true(page_is(&pages[4], 99, 99));
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

/* ---- invariant 1: the source has it before anyone is told ---- */

static void the_source_comes_first(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(PAGES, 1);
	struct test_page ink;
	struct test_page real;

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, BYTES);
	for (unsigned page = 0; page < PAGES; page++) {
		page_make(&ink, 7, page);
		expect(cow_break_write(&fixture.cow, subject.file, subject.source, &ink,
				       sizeof(ink), page * FOLD_PAGE_SIZE, NULL) == sizeof(ink));
		expect(pread(subject.fd, &real, sizeof(real), page * FOLD_PAGE_SIZE) ==
		       sizeof(real));
		assert_true(page_is(&real, 7, page));
	}
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

/* ---- storms ---- */

/*
 * Versions of a page only grow. A writer settles a version once its write has returned; a reader
 * that starts after that must not find an older one, in whatever way it gets its bytes.
 */
#define STORM_PAGES 256u

struct storm {
	struct fixture fixture;
	struct subject subject;
	pthread_mutex_t page_locks[STORM_PAGES]; /* orders the version's growth with its write */
	_Atomic uint64_t settled[STORM_PAGES];
	uint64_t written[STORM_PAGES]; /* under page_locks */
	atomic_uint writers;
	atomic_ulong hits;
};

static void storm_write(struct storm *storm, struct rng *rng)
{
	struct test_page ink[4];
	unsigned first = (unsigned)rng_below(rng, STORM_PAGES - 4);
	unsigned count = 1 + (unsigned)rng_below(rng, 4);

	for (unsigned i = 0; i < count; i++) {
		pthread_mutex_lock(&storm->page_locks[first + i]);
		page_make(&ink[i], first + i, ++storm->written[first + i]);
	}
	expect(cow_break_write(&storm->fixture.cow, storm->subject.file, storm->subject.source, ink,
			       count * FOLD_PAGE_SIZE, first * FOLD_PAGE_SIZE,
			       NULL) == (ssize_t)(count * FOLD_PAGE_SIZE));
	for (unsigned i = count; i-- > 0;) {
		atomic_store(&storm->settled[first + i], storm->written[first + i]);
		pthread_mutex_unlock(&storm->page_locks[first + i]);
	}
}

static void storm_read(struct storm *storm, struct rng *rng, struct test_page *buffer)
{
	uint64_t settled[32];
	unsigned count = 1 + (unsigned)rng_below(rng, 32);
	unsigned first = (unsigned)rng_below(rng, STORM_PAGES - count);

	for (unsigned i = 0; i < count; i++)
		settled[i] = atomic_load(&storm->settled[first + i]);
	if (!rng_below(rng, 8)) {
		fill_ahead(&storm->fixture.filler, storm->subject.file, storm->subject.source,
			   first * FOLD_PAGE_SIZE, count * FOLD_PAGE_SIZE);
		return;
	}
	expect(read_through(&storm->fixture, &storm->subject, buffer, count * FOLD_PAGE_SIZE,
			    first * FOLD_PAGE_SIZE) == (ssize_t)(count * FOLD_PAGE_SIZE));
	for (unsigned i = 0; i < count; i++) {
		uint64_t owner = ((uint64_t *)&buffer[i])[0];
		uint64_t version = ((uint64_t *)&buffer[i])[1];

		/* A read of the source that races with a write of it may see half of it: the
		 * source's own matter. Its words may be mixed, but none is older than settled. */
		expect(owner == first + i);
		expect(version >= settled[i]);
	}
}

static void storm_work(void *context, unsigned index)
{
	struct storm *storm = context;
	struct rng rng = {.state = mix64(index)};
	struct test_page *buffer = pages_new(32, 0);

	if (index < 2) {
		for (unsigned round = 0; round < ROUNDS(6000); round++)
			storm_write(storm, &rng);
		atomic_fetch_sub(&storm->writers, 1);
	} else {
		while (atomic_load(&storm->writers))
			storm_read(storm, &rng, buffer);
	}
	free(buffer);
}

static void run_storm(uint64_t pool_bytes)
{
	struct storm *storm = calloc(1, sizeof(*storm));
	struct test_page *pages = pages_new(STORM_PAGES, 0);

	expect(storm);
	for (unsigned i = 0; i < STORM_PAGES; i++)
		pthread_mutex_init(&storm->page_locks[i], NULL);
	atomic_store(&storm->writers, 2);
	fixture_open(&storm->fixture, pool_bytes, true);
	subject_open(&storm->fixture, &storm->subject, pages, STORM_PAGES * sizeof(*pages));
	/* Resident to begin with, so that there is something to break however the threads
	 * are run. */
	expect(read_all(&storm->fixture, &storm->subject, pages, STORM_PAGES * sizeof(*pages)) ==
	       STORM_PAGES * sizeof(*pages));
	crew_run(4, storm_work, storm);
	check_known(&storm->subject, STORM_PAGES);
	expect(read_all(&storm->fixture, &storm->subject, pages, STORM_PAGES * sizeof(*pages)) ==
	       STORM_PAGES * sizeof(*pages));
	for (unsigned i = 0; i < STORM_PAGES; i++)
		assert_true(page_is(&pages[i], i, storm->written[i]));
	assert_true(counters_sum(storm->fixture.pool.counters, COUNTER_BREAKS) > 0);
	subject_close(&storm->subject);
	fixture_close(&storm->fixture);
	for (unsigned i = 0; i < STORM_PAGES; i++)
		pthread_mutex_destroy(&storm->page_locks[i]);
	free(pages);
	free(storm);
}

static void readers_never_find_what_was_before_a_finished_write(void **state)
{
	(void)state;
	run_storm(16 * MIB);
}

static void the_same_while_frames_are_evicted(void **state)
{
	(void)state;
	run_storm(MIB);
}

/*
 * Writers of the same pages without any lock of their own: in the end the map must know what the
 * source has. If source and slot were not changed in one order, they would differ.
 */
#define CONTESTED 8u

struct contest {
	struct fixture fixture;
	struct subject subject;
	unsigned round;
};

static void contest_write(void *context, unsigned index)
{
	struct contest *contest = context;
	struct rng rng = {.state = mix64(contest->round * 16 + index)};

	for (unsigned i = 0; i < 12; i++) {
		struct test_page ink[2];
		size_t offset = rng_below(&rng, (CONTESTED - 2) * FOLD_PAGE_SIZE);

		page_make(&ink[0], index, contest->round);
		page_make(&ink[1], index, i);
		if (rng_below(&rng, 2))
			offset &= ~(size_t)(FOLD_PAGE_SIZE - 1);
		expect(cow_break_write(&contest->fixture.cow, contest->subject.file,
				       contest->subject.source, ink, sizeof(ink), (off_t)offset,
				       NULL) == sizeof(ink));
	}
}

static void writers_of_one_page_have_one_order(void **state)
{
	struct contest *contest = calloc(1, sizeof(*contest));
	struct test_page *pages = pages_new(CONTESTED, 0);

	(void)state;
	expect(contest);
	fixture_open(&contest->fixture, 4 * MIB, true);
	subject_open(&contest->fixture, &contest->subject, pages, CONTESTED * sizeof(*pages));
	for (contest->round = 0; contest->round < ROUNDS(480); contest->round++) {
		/* Frames that the last round gave up come back in their own time. */
		wait_for(read_all(&contest->fixture, &contest->subject, pages,
				  CONTESTED * sizeof(*pages)) == CONTESTED * sizeof(*pages) &&
			 count_known(&contest->subject, 0, CONTESTED, KNOWS_FRAME) == CONTESTED);
		crew_run(4, contest_write, contest);
		check_known(&contest->subject, CONTESTED);
	}
	assert_true(counters_sum(contest->fixture.pool.counters, COUNTER_BREAKS) > 0);
	subject_close(&contest->subject);
	fixture_close(&contest->fixture);
	free(pages);
	free(contest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(b2_a_change_after_the_fetch_discards_the_fill),
		cmocka_unit_test(b2_a_change_during_the_fetch_leaves_the_truth),
		cmocka_unit_test(a_read_before_the_source_took_a_write_is_not_kept),
		cmocka_unit_test(the_source_comes_first),
		cmocka_unit_test(readers_never_find_what_was_before_a_finished_write),
		cmocka_unit_test(the_same_while_frames_are_evicted),
		cmocka_unit_test(writers_of_one_page_have_one_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
