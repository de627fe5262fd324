/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_window.c - the kernel's cache is counted, held to its budget, and invalidated by one thread
 *
 * What is dropped for other reasons than the budget is in test_window_drop.c.
 */
#include "touched.h"
#include "window/window_internal.h"
#include "window_fixture.h"

#include <semaphore.h>

/* Run in invalidate(), until `go` is posted. */
static void wait_during(void *context, uint64_t node, off_t offset, off_t length)
{
	(void)node;
	(void)offset;
	(void)length;
	while (sem_wait(context))
		;
	sem_post(context);
}

/* The trimmer's next invalidation waits for GO. */
static void hold_trimmer(struct fixture *fixture, sem_t *go)
{
	sem_init(go, 0, 0);
	fixture->kernel.during = wait_during;
	fixture->kernel.context = go;
}

static uint64_t microseconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* The trimmer may wait for the very request that waits here: so that ends, but not at once. */
static void reads_wait_for_a_trimmer_that_is_behind(void **state)
{
	struct fixture *fixture = fixture_new(1u << 20);
	uint64_t before = microseconds_now();
	sem_t go;

	(void)state;
	hold_trimmer(fixture, &go);
	start(fixture);
	cache(fixture, 0, 0, 1024);
	window_wait_for_room(fixture->files[1], 0, 1, 20000);
	cache(fixture, 0, 1024, 1024);
	window_wait_for_room(fixture->files[1], 0, 1, 20000);
	assert_true(microseconds_now() - before >= 200);
	assert_true(usage_of(fixture).bytes > 5u << 20);
	sem_post(&go);
	while (usage_of(fixture).bytes > 5u << 20)
		window_wait_for_room(fixture->files[1], 0, 1, 999999);
	fixture_free(fixture);
	sem_destroy(&go);
}

#define HASHED  4096u
#define BUCKETS 4096u

/* How many regions share the fullest of BUCKETS buckets, which the table takes the low bits for. */
static unsigned longest_chain(uint64_t index_step, uintptr_t file_step)
{
	static unsigned chains[BUCKETS];
	unsigned longest = 0;

	memset(chains, 0, sizeof(chains));
	for (uint64_t i = 0; i < HASHED; i++) {
		/* Addresses as malloc gives them; nobody looks behind them. */
		uintptr_t file = UINT64_C(0x7f1234500010) + i * file_step;
		unsigned *chain =
			&chains[window_hash_of((struct window_file *)file, i * index_step) %
				BUCKETS];

		if (++*chain > longest)
			longest = *chain;
	}
	return longest;
}

/* As many regions as buckets: at random 6 to 9 of them meet in one. */
static void regions_spread_over_the_table(void **state)
{
	(void)state;
	for (unsigned shift = 0; shift < 24; shift++)
		assert_in_range(longest_chain(UINT64_C(1) << shift, 0), 1, 16);
	for (uintptr_t file_step = 16; file_step < 1u << 20; file_step *= 2) {
		assert_in_range(longest_chain(0, file_step), 1, 16);
		assert_in_range(longest_chain(1, file_step), 1, 16);
	}
}

static void pages_are_counted_once(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);

	(void)state;
	assert_int_equal(usage_of(fixture).budget_bytes, 1u << 30);
	assert_int_equal(usage_of(fixture).bytes, 0);
	window_note(fixture->files[0], 0, 1);
	assert_int_equal(usage_of(fixture).bytes, 4 * KIB);
	window_note(fixture->files[0], 0, 1);
	assert_int_equal(usage_of(fixture).bytes, 4 * KIB);
	window_note(fixture->files[1], 0, 1);
	assert_int_equal(usage_of(fixture).bytes, 8 * KIB);
	window_note(fixture->files[0], 60, 10); /* over the end of a region */
	assert_int_equal(usage_of(fixture).bytes, 48 * KIB);
	window_note(fixture->files[0], 50, 257); /* 60 … 69 are counted already */
	assert_int_equal(usage_of(fixture).bytes, (1 + 1 + 257) * 4 * KIB);
	window_note(fixture->files[0], 50, 0);
	window_note(fixture->files[2], ((uint64_t)1 << 51) - 1, 1);
	assert_int_equal(usage_of(fixture).bytes, (1 + 1 + 257 + 1) * 4 * KIB);
	assert_int_equal(usage_of(fixture).trimmed_bytes, 0);
	fixture_free(fixture);
}

static void any_set_of_notes_is_counted_exactly(void **state)
{
	struct rng rng = rng_of_test(__func__);
	struct fixture *fixture = fixture_new(1u << 30);

	(void)state;
	for (unsigned round = 0; round < ROUNDS(8000); round++) {
		unsigned node = (unsigned)rng_below(&rng, NODES);
		unsigned pages = 1 + (unsigned)rng_below(&rng, rng_below(&rng, 2) ? 3 : 257);
		uint64_t first = rng_below(&rng, NODE_PAGES - pages);

		cache(fixture, node, first, pages);
		if (round % 16 == 0)
			assert_int_equal(usage_of(fixture).bytes, cached_bytes(fixture));
	}
	assert_int_equal(usage_of(fixture).bytes, cached_bytes(fixture));
	fixture_free(fixture);
}

/* The count is an upper bound: a region that is uncounted in part may keep its bits. */
static void uncount_keeps_what_is_before(void **state)
{
	static const uint64_t at[] = {500, 300, 129, 128, 127, 64, 63, 1, 0};
	struct fixture *fixture = fixture_new(1u << 30);

	(void)state;
	start(fixture);
	window_note(fixture->files[0], 0, 257);
	window_note(fixture->files[0], 257, 243);
	window_note(fixture->files[1], 0, 10);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		uint64_t left = (at[i] + 10) * 4 * KIB;

		window_close_from(fixture->files[0], at[i]);
		wait_for(usage_of(fixture).bytes < left + REGION * 4 * KIB);
		assert_true(usage_of(fixture).bytes >= left);
	}
	wait_for(usage_of(fixture).bytes == 10 * 4 * KIB);
	window_note(fixture->files[0], 3, 1);
	assert_int_equal(usage_of(fixture).bytes, 11 * 4 * KIB);
	fixture_free(fixture);
}

static void forget_gives_memory_back(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);
	uint64_t before = usage_of(fixture).memory_bytes;

	(void)state;
	start(fixture);
	for (uint64_t page = 0; page < NODE_PAGES; page += REGION)
		window_note(fixture->files[0], page, 1);
	assert_true(usage_of(fixture).memory_bytes > before);
	assert_true(usage_of(fixture).memory_bytes < before + NODE_PAGES / REGION * 256);
	window_file_forget(fixture->files[0]);
	fixture->files[0] = NULL;
	wait_for(!usage_of(fixture).bytes);
	wait_for(usage_of(fixture).memory_bytes <= before);
	fixture_free(fixture);
}

static void without_a_window_notes_are_ignored(void **state)
{
	struct fixture *fixture = fixture_new(0);

	(void)state;
	start(fixture);
	window_note(fixture->files[0], 0, 257);
	window_close_from(fixture->files[0], 3);
	assert_int_equal(usage_of(fixture).bytes, 0);
	assert_int_equal(usage_of(fixture).budget_bytes, 0);
	stop(fixture);
	assert_int_equal(atomic_load(&fixture->kernel.calls), 0);
	fixture_free(fixture);
}

static bool is_cached(struct fixture *fixture, unsigned node, uint64_t page)
{
	bool cached;

	pthread_mutex_lock(&fixture->kernel.locks[node]);
	cached = fixture->kernel.cached[node][page];
	pthread_mutex_unlock(&fixture->kernel.locks[node]);
	return cached;
}

/* A budget that changes: a smaller one is trimmed to at once, a larger one lets more stay. */
static void the_budget_may_change(void **state)
{
	struct fixture *fixture = fixture_new(32 * 1024 * KIB);
	struct window_read read;
	struct window_count count;

	(void)state;
	start(fixture);
	cache(fixture, 0, 0, 4096);
	/* Two regions are held while what is on its way out gets other places. */
	window_read_begin(fixture->files[0], SPAN(REGION - 1, 2, false), 0, &read);
	window_read_misses(&read);
	window_set_budget(fixture->window, 1024 * KIB);
	assert_int_equal(usage_of(fixture).budget_bytes, 1024 * KIB);
	wait_for(usage_of(fixture).bytes <= 1024 * KIB + 2 * REGION * 4 * KIB);
	window_set_budget(fixture->window, 1024 * 1024 * KIB);
	window_count(fixture->window, &count);
	assert_int_equal(count.memory, count.memory_said);
	assert_int_equal(count.misplaced, 0);
	window_read_end(&read);
	wait_for(!is_cached(fixture, 0, REGION));
	cache(fixture, 1, 0, 4096);
	cache(fixture, 2, 0, 4096);
	assert_true(usage_of(fixture).bytes >= 2 * 4096 * 4 * KIB);
	window_set_budget(fixture->window, 2048 * KIB);
	wait_for(usage_of(fixture).bytes <= 2048 * KIB);
	stop(fixture);
	assert_int_equal(usage_of(fixture).bytes, cached_bytes(fixture));
	fixture_free(fixture);
}

static void budget_is_held_and_the_oldest_goes_first(void **state)
{
	struct fixture *fixture = fixture_new(1024 * KIB);

	(void)state;
	start(fixture);
	for (unsigned node = 0; node < NODES; node++)
		for (uint64_t page = 0; page < 2048; page += 32)
			cache(fixture, node, page, 32);
	wait_for(usage_of(fixture).bytes <= 1024 * KIB);
	stop(fixture);
	assert_int_equal(usage_of(fixture).bytes, cached_bytes(fixture));
	assert_int_equal(usage_of(fixture).trimmed_bytes,
			 NODES * 2048 * 4 * KIB - usage_of(fixture).bytes);
	/* Not much more than it has to. What is left is what came last. */
	assert_true(usage_of(fixture).bytes >= 512 * KIB);
	for (uint64_t page = 2048 - 128; page < 2048; page++)
		assert_true(fixture->kernel.cached[NODES - 1][page]);
	fixture_free(fixture);
}

/* The kernel holds its pages: the trimmer would wait with it. It goes on with others. */
static void what_a_waiting_read_holds_is_left_for_later(void **state)
{
	struct fixture *fixture = fixture_new(1024 * KIB);
	struct window_read read;
	struct window_count count;
	uint64_t page;

	(void)state;
	cache(fixture, 0, 0, 8 * REGION);
	window_read_begin(fixture->files[0], SPAN(REGION - 1, 2, false), 0, &read);
	window_read_misses(&read);
	start(fixture);
	/* Five regions went, of which two are held. */
	wait_for(usage_of(fixture).bytes == 5 * REGION * 4 * KIB);
	for (page = 0; page < 8 * REGION; page++)
		assert_int_equal(is_cached(fixture, 0, page),
				 page < 2 * REGION || page >= 5 * REGION);
	window_count(fixture->window, &count);
	assert_int_equal(count.pages, 5 * REGION);
	assert_int_equal(count.closing, 2 * REGION);
	assert_int_equal(count.closing_said, 2 * REGION);
	assert_int_equal(count.misplaced, 0);
	assert_true(count.memory > 8 * sizeof(void *));
	assert_int_equal(count.memory, count.memory_said);
	/* What is read meanwhile is not lost sight of. */
	cache(fixture, 0, 0, 1);
	window_read_end(&read);
	wait_for(usage_of(fixture).bytes == 3 * REGION * 4 * KIB + 4 * KIB);
	for (page = 1; page < 2 * REGION; page++)
		assert_false(is_cached(fixture, 0, page));
	fixture_free(fixture);
}

/* Found held, but nobody holds it any more when the round is over. */
static void a_read_that_goes_on_during_the_round_leaves_nothing_behind(void **state)
{
	struct fixture *fixture = fixture_new(1024 * KIB);
	struct window_read read;
	sem_t go;

	(void)state;
	hold_trimmer(fixture, &go);
	cache(fixture, 0, 0, 8 * REGION);
	window_read_waits(fixture->files[0], 0, 1, &read);
	start(fixture);
	wait_for(atomic_load(&fixture->kernel.calls));
	window_read_goes_on(fixture->window, &read);
	sem_post(&go);
	wait_for(usage_of(fixture).bytes == 3 * REGION * 4 * KIB);
	assert_false(is_cached(fixture, 0, 0));
	fixture_free(fixture);
	sem_destroy(&go);
}

/* READs of node NODE, while the trimmer's call for a part of node 0 does not end: if they waited
 * for as long as they may, this would take a quarter of an hour. */
static void read_beside_a_trimmer_that_is_held(unsigned node)
{
	struct fixture *fixture = fixture_new(1u << 20);
	sem_t go;

	hold_trimmer(fixture, &go);
	start(fixture);
	cache(fixture, 0, 0, 2048);
	wait_for(atomic_load(&fixture->kernel.calls));
	for (unsigned i = 0; i < ROUNDS(1000); i++)
		window_wait_for_room(fixture->files[node], 0, 1, 999999);
	assert_true(usage_of(fixture).bytes > 5u << 20);
	sem_post(&go);
	fixture_free(fixture);
	sem_destroy(&go);
}

/* The trimmer waits for such a READ. */
static void a_read_of_what_is_being_dropped_does_not_wait(void **state)
{
	(void)state;
	read_beside_a_trimmer_that_is_held(0);
}

/* What the trimmer waits for may be behind such a READ. */
static void nobody_waits_for_a_trimmer_that_does_not_get_on(void **state)
{
	(void)state;
	read_beside_a_trimmer_that_is_held(1);
}

static void nothing_is_trimmed_within_the_budget(void **state)
{
	struct fixture *fixture = fixture_new(1024 * KIB);

	(void)state;
	start(fixture);
	for (unsigned twice = 0; twice < 2; twice++)
		for (uint64_t page = 0; page < 256; page += 16)
			cache(fixture, 0, page, 16);
	stop(fixture);
	assert_int_equal(usage_of(fixture).bytes, 1024 * KIB);
	assert_int_equal(atomic_load(&fixture->kernel.calls), 0);
	fixture_free(fixture);
}

static void neighbours_are_one_invalidation(void **state)
{
	(void)state;
	for (unsigned reverse = 0; reverse < 2; reverse++) {
		struct fixture *fixture = fixture_new(256 * KIB);

		for (uint64_t i = 0; i < 64; i++)
			cache(fixture, 0, (reverse ? 63 - i : i) * REGION, REGION);
		start(fixture);
		wait_for(usage_of(fixture).bytes <= 256 * KIB);
		stop(fixture);
		/* 63 regions or more: 16 MiB in runs of megabytes. */
		assert_in_range(atomic_load(&fixture->kernel.calls), 1, 8);
		assert_int_equal(usage_of(fixture).bytes, cached_bytes(fixture));
		fixture_free(fixture);
	}
}

/* Random single pages cost one call for a region at most, not one each. */
static void single_pages_go_by_region(void **state)
{
	struct rng rng = rng_of_test(__func__);
	struct fixture *fixture = fixture_new(4 * KIB);

	(void)state;
	for (unsigned i = 0; i < 4096; i++)
		cache(fixture, 0, rng_below(&rng, 2048), 1);
	start(fixture);
	wait_for(usage_of(fixture).bytes <= 4 * KIB);
	stop(fixture);
	assert_in_range(atomic_load(&fixture->kernel.calls), 1, 2048 / REGION);
	assert_int_equal(usage_of(fixture).bytes, cached_bytes(fixture));
	fixture_free(fixture);
}

/* The kernel knows the node no more, or says something else: that is all the same uncounted. */
static void the_kernels_answer_changes_nothing(void **state)
{
	static const errint_t answers[] = {-ENOENT, -EIO, -EINVAL};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct fixture *fixture = fixture_new(256 * KIB);

		fixture->kernel.answer = answers[i];
		for (uint64_t page = 0; page < 4096; page += REGION)
			cache(fixture, 1, page, REGION);
		start(fixture);
		wait_for(usage_of(fixture).bytes <= 256 * KIB);
		fixture_free(fixture);
	}
}

/* With many threads that miss, each would else wait for the others, twice. */
static void a_read_that_misses_takes_no_lock(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);
	struct window_read read;

	(void)state;
	window_note(fixture->files[0], 0, 257);
	pthread_mutex_lock(&fixture->window->lock);
	window_read_waits(fixture->files[0], 0, 257, &read);
	window_read_goes_on(fixture->window, &read);
	pthread_mutex_unlock(&fixture->window->lock);
	fixture_free(fixture);
}

/* A page in each region, far more than are dropped: what is noted has 144 bytes for each. */
#define SCATTERED 100000u

static struct fixture *fixture_scattered(uint64_t budget)
{
	struct fixture *fixture = fixture_new(budget);

	for (uint64_t region = 0; region < SCATTERED; region++)
		window_note(fixture->files[0], region * REGION, 1);
	return fixture;
}

/* Whatever else is noted of its file. */
static void a_drop_looks_at_what_it_drops(void **state)
{
	struct fixture *fixture = fixture_scattered(1u << 30);
	uint64_t all = SCATTERED * sizeof(struct region);

	(void)state;
	start(fixture);
	for (unsigned turn = 1; turn <= 10; turn++) {
		if (turn == 2) /* threads and all have begun */
			touched_clear();
		window_close_from(fixture->files[0], (uint64_t)(SCATTERED - turn) * REGION);
		wait_for(usage_of(fixture).bytes == (SCATTERED - turn) * 4 * KIB);
	}
	assert_int_equal(atomic_load(&fixture->kernel.calls), 10);
	assert_true(touched_bytes() < all / 2);
	fixture_free(fixture);
}

/* Whatever else of its file is on its way out. */
static void a_write_looks_at_what_it_writes(void **state)
{
	struct fixture *fixture = fixture_scattered(1u << 30);
	uint64_t all = SCATTERED * sizeof(struct region);
	sem_t go;

	(void)state;
	hold_trimmer(fixture, &go);
	fixture->window->trimmers_most = 1;
	start(fixture);
	window_invalidate_soon(fixture->files[0]);
	wait_for(atomic_load(&fixture->kernel.calls) + atomic_load(&fixture->kernel.calls_for_all));
	touched_clear();
	for (uint64_t page = 5; page < 10; page++)
		expect(!window_written(fixture->files[0], SPAN(page, 1, false)));
	assert_true(touched_bytes() < all / 2);
	sem_post(&go);
	fixture_free(fixture);
	sem_destroy(&go);
}

/* The rule: the thread that calls the kernel holds no lock. So anything may be called meanwhile, by
 * this thread or by another that it waits for. */

static void use_all(void *context, unsigned index)
{
	struct fixture *fixture = context;
	struct window_usage usage;
	struct window_file *file;

	(void)index;
	window_note(fixture->files[0], 5, 1);
	window_note(fixture->files[0], 5000, 257);
	window_close_from(fixture->files[0], 5001);
	window_invalidate_soon(fixture->files[1]);
	window_usage(fixture->window, &usage);
	expect(!window_file_new(fixture->window, 2, 0, &file));
	window_note(file, 0, 1);
	window_file_forget(file);
}

static void use_all_during(void *context, uint64_t node, off_t offset, off_t length)
{
	struct fixture *fixture = context;

	(void)offset;
	if (node != 0 || !length)
		return;
	use_all(context, 0);
	fixture->kernel.during = NULL;
	crew_run(2, use_all, context);
}

static void no_lock_is_held_while_invalidating(void **state)
{
	struct fixture *fixture = fixture_new(256 * KIB);

	(void)state;
	fixture->window->trimmers_most = 1; /* it takes itself out again */
	fixture->kernel.during = use_all_during;
	fixture->kernel.context = fixture;
	for (uint64_t page = 0; page < 4096; page += REGION)
		cache(fixture, 0, page, REGION);
	start(fixture);
	wait_for(usage_of(fixture).bytes <= 256 * KIB);
	wait_for(atomic_load(&fixture->kernel.calls_for_all) +
			 (usage_of(fixture).bytes <= 256 * KIB) >=
		 1);
	stop(fixture);
	assert_null(fixture->kernel.during);
	fixture_free(fixture);
}

/* A page that the kernel reads again while its region is invalidated stays counted. */

static void read_again_during(void *context, uint64_t node, off_t offset, off_t length)
{
	struct fixture *fixture = context;

	(void)offset;
	(void)length;
	if (node != 3)
		return;
	fixture->kernel.during = NULL;
	window_note(fixture->files[3], 7, 1);
}

static void a_note_during_the_invalidation_is_counted(void **state)
{
	struct fixture *fixture = fixture_new(1024 * KIB);

	(void)state;
	fixture->kernel.during = read_again_during;
	fixture->kernel.context = fixture;
	cache(fixture, 3, 0, REGION);
	for (uint64_t page = 0; page < 256; page += REGION)
		cache(fixture, 0, page, REGION);
	start(fixture);
	wait_for(usage_of(fixture).trimmed_bytes >= REGION * 4 * KIB);
	stop(fixture);
	assert_null(fixture->kernel.during);
	/* One page more than the kernel holds in its bitmap: the one that was noted and dropped. */
	assert_int_equal(usage_of(fixture).bytes, cached_bytes(fixture) + 4 * KIB);
	fixture_free(fixture);
}

static void nothing_is_called_after_stop(void **state)
{
	struct fixture *fixture = fixture_new(256 * KIB);
	unsigned long calls;

	(void)state;
	start(fixture);
	for (uint64_t page = 0; page < 4096; page += REGION)
		cache(fixture, 0, page, REGION);
	stop(fixture);
	calls = atomic_load(&fixture->kernel.calls);
	for (uint64_t page = 0; page < 4096; page += REGION)
		cache(fixture, 1, page, REGION);
	window_invalidate_soon(fixture->files[0]);
	stop(fixture);
	assert_int_equal(atomic_load(&fixture->kernel.calls), calls);
	assert_int_equal(atomic_load(&fixture->kernel.calls_for_all), 0);
	fixture_free(fixture);
}

static void a_window_that_never_started_ends_in_order(void **state)
{
	struct fixture *fixture = fixture_new(256 * KIB);

	(void)state;
	window_note(fixture->files[0], 0, 257);
	window_invalidate_soon(fixture->files[1]);
	fixture_free(fixture);
}

/* All at once. */

static void storm(void *context, unsigned index)
{
	struct fixture *fixture = context;
	struct rng rng = {.state = mix64(index)};

	for (unsigned round = 0; round < ROUNDS(24000); round++) {
		/* A node's notes come from any thread; it is forgotten by the one that owns it. */
		unsigned node = (unsigned)rng_below(&rng, NODES - 1);
		unsigned pages = 1 + (unsigned)rng_below(&rng, rng_below(&rng, 4) ? 4 : 257);
		uint64_t first = rng_below(&rng, NODE_PAGES - pages);
		uint64_t dice = rng_below(&rng, 200);

		if (dice == 0) {
			pthread_mutex_lock(&fixture->kernel.locks[node]);
			memset(&fixture->kernel.cached[node][first], 0, NODE_PAGES - first);
			window_close_from(fixture->files[node], first);
			pthread_mutex_unlock(&fixture->kernel.locks[node]);
		} else if (dice == 1) {
			window_invalidate_soon(fixture->files[node]);
		} else if (dice < 4 && index == 0) {
			pthread_mutex_lock(&fixture->kernel.locks[NODES - 1]);
			memset(fixture->kernel.cached[NODES - 1], 0, NODE_PAGES);
			window_file_forget(fixture->files[NODES - 1]);
			expect(!window_file_new(fixture->window, NODES - 1, 0,
						&fixture->files[NODES - 1]));
			pthread_mutex_unlock(&fixture->kernel.locks[NODES - 1]);
		} else if (dice < 40) {
			struct window_read read;

			window_wait_for_room(fixture->files[node], first, pages, 1000);
			window_read_waits(fixture->files[node], first, pages, &read);
			cache(fixture, node, first, pages);
			window_read_goes_on(fixture->window, &read);
		} else if (dice < 100) {
			static const struct window_patience patience = {.begin_us = 1000,
									.drop_us = 1000};

			if (window_written(fixture->files[node], SPAN(first, pages, dice % 2)))
				window_wait_for_drop(fixture->files[node], SPAN(first, pages, true),
						     patience);
		} else {
			cache(fixture, index ? node : NODES - 1, first, pages);
		}
	}
}

/* What was said is what there is, once nobody is at work. */
static bool all_is_counted(struct fixture *fixture)
{
	struct window_count count;

	window_count(fixture->window, &count);
	return !count.trimming && count.pages == count.pages_said &&
	       count.closing == count.closing_said && count.memory == count.memory_said &&
	       !count.misplaced;
}

static void a_storm_stays_counted_and_bounded(void **state)
{
	struct fixture *fixture = fixture_new(2048 * KIB);

	(void)state;
	start(fixture);
	crew_run(4, storm, fixture);
	wait_for(usage_of(fixture).bytes <= 2048 * KIB);
	wait_for(all_is_counted(fixture));
	stop(fixture);
	/* The count is an upper bound of what the kernel holds. */
	assert_true(cached_bytes(fixture) <= usage_of(fixture).bytes);
	assert_true(usage_of(fixture).trimmed_bytes > 0);
	fixture_free(fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(regions_spread_over_the_table),
		cmocka_unit_test(pages_are_counted_once),
		cmocka_unit_test(reads_wait_for_a_trimmer_that_is_behind),
		cmocka_unit_test(any_set_of_notes_is_counted_exactly),
		cmocka_unit_test(uncount_keeps_what_is_before),
		cmocka_unit_test(forget_gives_memory_back),
		cmocka_unit_test(without_a_window_notes_are_ignored),
		cmocka_unit_test(budget_is_held_and_the_oldest_goes_first),
		cmocka_unit_test(the_budget_may_change),
		cmocka_unit_test(what_a_waiting_read_holds_is_left_for_later),
		cmocka_unit_test(a_read_that_goes_on_during_the_round_leaves_nothing_behind),
		cmocka_unit_test(a_read_of_what_is_being_dropped_does_not_wait),
		cmocka_unit_test(nobody_waits_for_a_trimmer_that_does_not_get_on),
		cmocka_unit_test(nothing_is_trimmed_within_the_budget),
		cmocka_unit_test(neighbours_are_one_invalidation),
		cmocka_unit_test(single_pages_go_by_region),
		cmocka_unit_test(the_kernels_answer_changes_nothing),
		cmocka_unit_test(a_read_that_misses_takes_no_lock),
		cmocka_unit_test(a_drop_looks_at_what_it_drops),
		cmocka_unit_test(a_write_looks_at_what_it_writes),
		cmocka_unit_test(no_lock_is_held_while_invalidating),
		cmocka_unit_test(a_note_during_the_invalidation_is_counted),
		cmocka_unit_test(nothing_is_called_after_stop),
		cmocka_unit_test(a_window_that_never_started_ends_in_order),
		cmocka_unit_test(a_storm_stays_counted_and_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
