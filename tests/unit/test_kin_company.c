/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_kin_company.c - files of a family in company: several reads, changes and ends at a time
 */
#include "kin_fixture.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>

/* Two reads of a file are at the same pages: of what one of them adopts the other reads nothing. */
static void what_another_read_adopted_is_not_read(void **state)
{
	struct page_read *read = malloc(sizeof(*read));
	struct pair pair;
	struct source_watch watch;

	(void)state;
	pair_open_kin(&pair);
	expect(read);
	expect_content(&pair, &pair.a, pair.pages);
	watch_begin(&watch, &pair.b);
	page_read_init(read, &pair.fixture.filler, pair.b.file, pair.b.source, 0,
		       64 * FOLD_PAGE_SIZE);
	fold_rcu_read_lock();
	assert_false(page_read_look(read));
	fold_rcu_read_unlock();
	expect_content(&pair, &pair.b, pair.pages);
	page_read_fetch(read);
	fold_rcu_read_lock();
	assert_true(page_read_look(read));
	fold_rcu_read_unlock();
	page_read_finish(read);
	watch_end();
	assert_int_equal(atomic_load(&watch.calls), 0);
	assert_int_equal(adopted(&pair), PAGES);
	free(read);
	pair_close(&pair);
}

struct reader {
	struct pair *pair;
	struct subject *subject;
	struct test_page *buffer;
	atomic_int tid;
	ssize_t got;
	pthread_t thread;
};

static void *read_in_thread(void *context)
{
	struct reader *reader = context;

	atomic_store(&reader->tid, (int)syscall(SYS_gettid));
	reader->got = read_all(&reader->pair->fixture, reader->subject, reader->buffer, 64 * 4096);
	return NULL;
}

static char thread_state(int tid)
{
	char path[64];
	char line[256];
	ssize_t length;
	const char *end;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return 'X';
	length = read(fd, line, sizeof(line) - 1);
	close(fd);
	line[length > 0 ? length : 0] = '\0';
	end = strrchr(line, ')');
	return end ? end[2] : 'X';
}

/* The second reader sleeps (or has ended, if it did not wait) before the first one's fetch
 * goes on. */
static void wait_for_the_other(void *context)
{
	struct reader *other = context;
	char is;

	expect(!pthread_create(&other->thread, NULL, read_in_thread, other));
	while (!atomic_load(&other->tid))
		sched_yield();
	do {
		is = thread_state(atomic_load(&other->tid));
		sched_yield();
	} while (is != 'S' && is != 'X' && is != 'Z');
}

static void of_two_at_once_one_reads(void **state)
{
	struct pair pair;
	struct source_watch watch;
	struct reader second;

	(void)state;
	pair_open_kin(&pair);
	second = (struct reader){.pair = &pair, .subject = &pair.b, .buffer = pages_new(64, 30000)};
	watch_begin(&watch, &pair.a);
	watch.first = wait_for_the_other;
	watch.context = &second;
	assert_int_equal(read_all(&pair.fixture, &pair.a, pair.buffer, 64 * FOLD_PAGE_SIZE),
			 64 * FOLD_PAGE_SIZE);
	pthread_join(second.thread, NULL);
	watch_end();
	assert_int_equal(second.got, 64 * FOLD_PAGE_SIZE);
	assert_memory_equal(second.buffer, pair.pages, 64 * FOLD_PAGE_SIZE);
	assert_int_equal(adopted(&pair), 64);
	assert_int_equal(counters_sum(pair.fixture.pool.counters, COUNTER_MISSES), 64);
	free(second.buffer);
	pair_close(&pair);
}

static void read_the_other(void *context)
{
	struct reader *other = context;

	(void)read_in_thread(other);
}

/* Of files that can tell nothing no read waits for another's, and nobody has a claim. */
static void who_tells_nothing_makes_nobody_wait(void **state)
{
	struct pair pair;
	struct source_watch watch;
	struct reader second;

	(void)state;
	pair_open_kin(&pair);
	for (unsigned i = 0; i < 2; i++) {
		struct subject *subject = i ? &pair.b : &pair.a;

		assert_int_equal(cow_break_write(&pair.fixture.cow, subject->file, subject->source,
						 pair.pages + PAGES - 1, FOLD_PAGE_SIZE,
						 (PAGES - 1) * FOLD_PAGE_SIZE, NULL),
				 FOLD_PAGE_SIZE);
	}
	second = (struct reader){.pair = &pair, .subject = &pair.b, .buffer = pages_new(64, 30000)};
	watch_begin(&watch, &pair.a);
	watch.first = read_the_other;
	watch.context = &second;
	assert_int_equal(read_all(&pair.fixture, &pair.a, pair.buffer, 64 * FOLD_PAGE_SIZE),
			 64 * FOLD_PAGE_SIZE);
	watch_end();
	assert_memory_equal(second.buffer, pair.pages, 64 * FOLD_PAGE_SIZE);
	assert_int_equal(counters_sum(pair.fixture.pool.counters, COUNTER_ADOPT_WAITS), 0);
	assert_int_equal(counters_sum(pair.fixture.pool.counters, COUNTER_MISSES), 128);
	free(second.buffer);
	pair_close(&pair);
}

/* A read that found no frame makes nobody wait either: it will tell nothing. */
static void who_has_no_frame_makes_nobody_wait(void **state)
{
	struct pair pair;
	struct source_watch watch;
	struct reader second;
	uint32_t *frames = malloc(PAGES * sizeof(*frames));
	unsigned taken = 0;
	unsigned got;

	(void)state;
	pair_open_kin(&pair);
	do {
		frames = realloc(frames, (taken + PAGES) * sizeof(*frames));
		got = page_store_take(pair.fixture.pool.store, frames + taken, PAGES);
		taken += got;
	} while (got);
	second = (struct reader){.pair = &pair, .subject = &pair.b, .buffer = pages_new(64, 30000)};
	watch_begin(&watch, &pair.a);
	watch.first = read_the_other;
	watch.context = &second;
	assert_int_equal(read_all(&pair.fixture, &pair.a, pair.buffer, 64 * FOLD_PAGE_SIZE),
			 64 * FOLD_PAGE_SIZE);
	watch_end();
	assert_memory_equal(second.buffer, pair.pages, 64 * FOLD_PAGE_SIZE);
	assert_int_equal(counters_sum(pair.fixture.pool.counters, COUNTER_ADOPT_WAITS), 0);
	pool_give_back(&pair.fixture.pool, frames, taken);
	free(frames);
	free(second.buffer);
	pair_close(&pair);
}

/* Whoever has a claim and does not come to an end holds a reader up for a time, not for ever. */
static void nobody_waits_for_ever(void **state)
{
	struct pair pair;
	struct family_claim claim;
	struct family *family;

	(void)state;
	pair_open_kin(&pair);
	family = family_get(pair.families, 7, WRITERS_TRUSTED, PAGES);
	assert_true(family_claim(family, 10, 20, &claim));
	assert_int_equal(read_all(&pair.fixture, &pair.b, pair.buffer, 64 * FOLD_PAGE_SIZE),
			 64 * FOLD_PAGE_SIZE);
	assert_int_equal(counters_sum(pair.fixture.pool.counters, COUNTER_ADOPT_WAITS), 1);
	family_unclaim(&claim);
	family_put(family);
	pair_close(&pair);
}

/* Read-ahead leaves to another what that one is at. */
static void nobody_reads_ahead_what_is_being_fetched(void **state)
{
	struct pair pair;
	struct family *family;
	struct family_claim claim;

	(void)state;
	pair_open_kin(&pair);
	family = family_get(pair.families, 7, WRITERS_TRUSTED, PAGES);
	assert_true(family_claim(family, 10, 20, &claim));
	/* That is not there yet, so read-ahead has its reason still. */
	assert_true(fill_ahead(&pair.fixture.filler, pair.b.file, pair.b.source, 0, MIB) > 0);
	assert_int_equal(counters_sum(pair.fixture.pool.counters, COUNTER_READAHEAD), 0);
	assert_int_equal(fill_ahead(&pair.fixture.filler, pair.b.file, pair.b.source,
				    21 * FOLD_PAGE_SIZE, 10 * FOLD_PAGE_SIZE),
			 10);
	family_unclaim(&claim);
	assert_int_equal(fill_ahead(&pair.fixture.filler, pair.b.file, pair.b.source, 0,
				    21 * FOLD_PAGE_SIZE),
			 21);
	family_put(family);
	pair_close(&pair);
}

/* ---- everything at once ---- */

#define STORM_FILES 4u

struct storm {
	struct pair *pair;
	struct subject files[STORM_FILES];
	atomic_bool stop;
};

struct storm_writer {
	struct storm *storm;
	unsigned number;
	uint64_t seed;
	pthread_t thread;
	bool wrong;
};

/*
 * One thread for each file: nobody else changes it, so it knows what every read must give. Only the
 * second half of a file is ever changed, so there is always something to adopt. Where a busy machine
 * runs one thread after the other, nothing may be adopted for a while: then they go on.
 */
static void *storm_run(void *context)
{
	struct storm_writer *writer = context;
	struct pair *pair = writer->storm->pair;
	struct subject *subject = &writer->storm->files[writer->number];
	struct rng rng = {.state = writer->seed};
	struct test_page *model = pages_new(PAGES, 1);
	struct test_page *buffer = pages_new(64, 1);

	for (unsigned round = 0; (round < ROUNDS(3000) || !adopted(pair)) && !writer->wrong;
	     round++) {
		uint64_t first = rng_below(&rng, PAGES);
		uint64_t count = 1 + rng_below(&rng, 63);

		if (count > PAGES - first)
			count = PAGES - first;
		if (!rng_below(&rng, 16)) {
			uint64_t page = PAGES / 2 + first / 2;

			page_make(&model[page], 100000 + rng_below(&rng, 1000), writer->number);
			expect(cow_break_write(&pair->fixture.cow, subject->file, subject->source,
					       &model[page], FOLD_PAGE_SIZE,
					       (off_t)(page * FOLD_PAGE_SIZE),
					       NULL) == FOLD_PAGE_SIZE);
		}
		expect(read_through(&pair->fixture, subject, buffer, count * FOLD_PAGE_SIZE,
				    (off_t)(first * FOLD_PAGE_SIZE)) ==
		       (ssize_t)(count * FOLD_PAGE_SIZE));
		writer->wrong = memcmp(buffer, model + first, count * FOLD_PAGE_SIZE);
		if (!rng_below(&rng, 64))
			evict(subject);
	}
	free(buffer);
	free(model);
	return NULL;
}

static void changed_and_read_by_all_at_once(void **state)
{
	const struct catalogue_run all = {.first = 0, .pages = PAGES};
	struct storm_writer writers[STORM_FILES];
	struct pair pair;
	struct storm storm = {.pair = &pair};
	struct rng rng = rng_of_test(__func__);

	(void)state;
	pair_open(&pair, 2 * MIB);
	for (unsigned i = 0; i < STORM_FILES; i++) {
		subject_open(&pair.fixture, &storm.files[i], pair.pages, BYTES);
		make_kin(&pair, &storm.files[i], &all, 1);
		writers[i] =
			(struct storm_writer){.storm = &storm, .number = i, .seed = rng_next(&rng)};
	}
	for (unsigned i = 0; i < STORM_FILES; i++)
		expect(!pthread_create(&writers[i].thread, NULL, storm_run, &writers[i]));
	for (unsigned i = 0; i < STORM_FILES; i++) {
		pthread_join(writers[i].thread, NULL);
		assert_false(writers[i].wrong);
		check_known(&storm.files[i], PAGES);
		subject_close(&storm.files[i]);
	}
	assert_true(adopted(&pair) > 0);
	pair_close(&pair);
}

/* A kin may be given up, and is freed, while a change cuts it: the cut is in a read side. */

struct giving_up {
	struct pair pair;
	atomic_bool done;
};

static void cut_or_give_up(void *context, unsigned index)
{
	const struct catalogue_run all = {.first = 0, .pages = PAGES};
	struct giving_up *giving_up = context;
	struct subject *subject = &giving_up->pair.a;

	if (index) {
		while (!atomic_load(&giving_up->done))
			file_cut_kin(subject->file, 5, 7);
		return;
	}
	for (unsigned round = 0; round < ROUNDS(20000); round++) {
		make_kin(&giving_up->pair, subject, &all, 1);
		file_forget(subject->file);
	}
	atomic_store(&giving_up->done, true);
}

static void a_kin_is_given_up_while_it_is_cut(void **state)
{
	struct giving_up giving_up = {0};

	(void)state;
	pair_open(&giving_up.pair, 16 * MIB);
	crew_run(2, cut_or_give_up, &giving_up);
	pair_close(&giving_up.pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_another_read_adopted_is_not_read),
		cmocka_unit_test(of_two_at_once_one_reads),
		cmocka_unit_test(who_tells_nothing_makes_nobody_wait),
		cmocka_unit_test(who_has_no_frame_makes_nobody_wait),
		cmocka_unit_test(nobody_waits_for_ever),
		cmocka_unit_test(nobody_reads_ahead_what_is_being_fetched),
		cmocka_unit_test(changed_and_read_by_all_at_once),
		cmocka_unit_test(a_kin_is_given_up_while_it_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
