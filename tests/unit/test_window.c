/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_window.c - the kernel's cache is counted, held to its budget, and invalidated by one thread
 *
 * The kernel is played by a bitmap for each node. As the real one, it holds a page locked from the
 * read to its reply, and an invalidation waits for it.
 */
#include "helpers.h"

#include "foldfs/window.h"

#include <semaphore.h>

#define NODES      4u
#define NODE_PAGES 8192u
#define REGION     64u
#define KIB        1024u

struct kernel {
	pthread_mutex_t locks[NODES]; /* of the pages of a node */
	bool cached[NODES][NODE_PAGES];
	atomic_ulong calls;
	atomic_ulong calls_for_all; /* length 0 */
	errint_t answer;
	pthread_t trimmer;
	atomic_bool trimmer_known;
	/* Run before the pages are dropped. */
	void (*during)(void *context, uint64_t node, off_t offset, off_t length);
	void *context;
};

/* All calls come from one thread. */
static void check_thread(struct kernel *kernel)
{
	if (!atomic_exchange(&kernel->trimmer_known, true))
		kernel->trimmer = pthread_self();
	expect(pthread_equal(kernel->trimmer, pthread_self()));
}

static errint_t invalidate(void *context, uint64_t node, off_t offset, off_t length)
{
	struct kernel *kernel = context;
	uint64_t first = (uint64_t)offset >> FOLD_PAGE_SHIFT;
	uint64_t end = length ? first + ((uint64_t)length >> FOLD_PAGE_SHIFT) : NODE_PAGES;

	check_thread(kernel);
	expect(node < NODES);
	expect(offset % FOLD_PAGE_SIZE == 0 && length % FOLD_PAGE_SIZE == 0 && length >= 0);
	atomic_fetch_add(length ? &kernel->calls : &kernel->calls_for_all, 1);
	if (kernel->during)
		kernel->during(kernel->context, node, offset, length);
	pthread_mutex_lock(&kernel->locks[node]);
	for (uint64_t page = first; page < end && page < NODE_PAGES; page++)
		kernel->cached[node][page] = false;
	pthread_mutex_unlock(&kernel->locks[node]);
	return kernel->answer;
}

struct fixture {
	struct kernel kernel;
	struct window *window;
	bool running;
	struct window_file *files[NODES];
};

static struct fixture *fixture_new(uint64_t budget)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	expect(fixture);
	for (unsigned node = 0; node < NODES; node++)
		pthread_mutex_init(&fixture->kernel.locks[node], NULL);
	expect(!window_new(budget, invalidate, &fixture->kernel, &fixture->window));
	for (uint64_t node = 0; node < NODES; node++)
		expect(!window_file_new(fixture->window, node, 0, &fixture->files[node]));
	return fixture;
}

static struct window_usage usage_of(struct fixture *fixture)
{
	struct window_usage usage;

	window_usage(fixture->window, &usage);
	return usage;
}

static void start(struct fixture *fixture)
{
	expect(!window_start(fixture->window));
	fixture->running = true;
}

static void stop(struct fixture *fixture)
{
	window_stop(fixture->window);
	fixture->running = false;
}

/* What is uncounted or forgotten is so in the trimmer's own time. */
static void fixture_free(struct fixture *fixture)
{
	for (unsigned node = 0; node < NODES; node++)
		if (fixture->files[node])
			window_file_forget(fixture->files[node]);
	if (fixture->running)
		wait_for(!usage_of(fixture).bytes);
	stop(fixture);
	window_free(fixture->window);
	for (unsigned node = 0; node < NODES; node++)
		pthread_mutex_destroy(&fixture->kernel.locks[node]);
	free(fixture);
}

/* A READ and its reply. */
static void cache(struct fixture *fixture, unsigned node, uint64_t first, unsigned pages)
{
	pthread_mutex_lock(&fixture->kernel.locks[node]);
	window_note(fixture->files[node], first, pages);
	for (unsigned i = 0; i < pages; i++)
		fixture->kernel.cached[node][first + i] = true;
	pthread_mutex_unlock(&fixture->kernel.locks[node]);
}

static uint64_t cached_bytes(struct fixture *fixture)
{
	uint64_t pages = 0;

	for (unsigned node = 0; node < NODES; node++) {
		pthread_mutex_lock(&fixture->kernel.locks[node]);
		for (uint64_t page = 0; page < NODE_PAGES; page++)
			pages += fixture->kernel.cached[node][page];
		pthread_mutex_unlock(&fixture->kernel.locks[node]);
	}
	return pages << FOLD_PAGE_SHIFT;
}

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

static uint64_t microseconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* The trimmer may wait for the very request that waits here: so that ends, but not before its time.
 */
static void reads_wait_for_a_trimmer_that_is_behind(void **state)
{
	struct fixture *fixture = fixture_new(1u << 20);
	uint64_t before = microseconds_now();
	sem_t go;

	(void)state;
	sem_init(&go, 0, 0);
	fixture->kernel.during = wait_during;
	fixture->kernel.context = &go;
	start(fixture);
	cache(fixture, 0, 0, 1024);
	window_wait_for_room(fixture->window, 20000);
	cache(fixture, 0, 1024, 1024);
	window_wait_for_room(fixture->window, 20000);
	assert_true(microseconds_now() - before >= 20000);
	assert_true(usage_of(fixture).bytes > 5u << 20);
	sem_post(&go);
	while (usage_of(fixture).bytes > 5u << 20)
		window_wait_for_room(fixture->window, 999999);
	fixture_free(fixture);
	sem_destroy(&go);
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

		window_uncount(fixture->files[0], at[i]);
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
	window_uncount(fixture->files[0], 3);
	assert_int_equal(usage_of(fixture).bytes, 0);
	assert_int_equal(usage_of(fixture).budget_bytes, 0);
	stop(fixture);
	assert_int_equal(atomic_load(&fixture->kernel.calls), 0);
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
	window_uncount(fixture->files[0], 5001);
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

/* Forget while the trimmer works on the file. */

struct meeting {
	struct fixture *fixture;
	pthread_barrier_t inside;
	pthread_barrier_t go_on;
	bool met;
	unsigned drops; /* the trimmer's, until it has ended */
};

static void meet_during(void *context, uint64_t node, off_t offset, off_t length)
{
	struct meeting *meeting = context;

	(void)node;
	(void)offset;
	(void)length;
	meeting->drops++;
	if (meeting->met)
		return;
	meeting->met = true;
	pthread_barrier_wait(&meeting->inside);
	pthread_barrier_wait(&meeting->go_on);
}

static void forget_while_trimming(void **state)
{
	(void)state;
	for (unsigned again = 0; again < 2; again++) {
		struct fixture *fixture = fixture_new(256 * KIB);
		struct meeting meeting = {.fixture = fixture};

		pthread_barrier_init(&meeting.inside, NULL, 2);
		pthread_barrier_init(&meeting.go_on, NULL, 2);
		fixture->kernel.during = meet_during;
		fixture->kernel.context = &meeting;
		for (uint64_t page = 0; page < 4096; page += REGION)
			cache(fixture, 0, page, REGION);
		start(fixture);
		pthread_barrier_wait(&meeting.inside);
		if (again)
			window_invalidate_soon(fixture->files[0]);
		window_file_forget(fixture->files[0]); /* never waits for the trimmer */
		expect(!window_file_new(fixture->window, 0, 0, &fixture->files[0]));
		window_note(fixture->files[0], 0, 10);
		pthread_barrier_wait(&meeting.go_on);
		wait_for(usage_of(fixture).bytes == 10 * 4 * KIB);
		fixture_free(fixture);
		pthread_barrier_destroy(&meeting.inside);
		pthread_barrier_destroy(&meeting.go_on);
	}
}

/* An edition shows from the end of its drop on, not from the wish; one that was asked for twice is
 * dropped for once; one that begins within the drop of another is not over with that. */
static void an_edition_shows_when_its_drop_is_over(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);
	struct meeting meeting = {.fixture = fixture};
	struct window_file *file;

	(void)state;
	pthread_barrier_init(&meeting.inside, NULL, 2);
	pthread_barrier_init(&meeting.go_on, NULL, 2);
	fixture->kernel.during = meet_during;
	fixture->kernel.context = &meeting;
	window_file_forget(fixture->files[0]);
	expect(!window_file_new(fixture->window, 0, 7, &fixture->files[0]));
	file = fixture->files[0];
	start(fixture);
	window_follow(file, 7);
	assert_true(window_shows(file, 7));
	assert_int_equal(atomic_load(&fixture->kernel.calls_for_all), 0);

	fixture->kernel.cached[0][77] = true;
	window_follow(file, 9);
	assert_false(window_shows(file, 9));
	pthread_barrier_wait(&meeting.inside);
	window_follow(file, 9);
	assert_false(window_shows(file, 9));
	window_follow(file, 12);
	pthread_barrier_wait(&meeting.go_on);
	wait_for(window_shows(file, 9));
	wait_for(window_shows(file, 12));
	assert_false(window_shows(file, 13));
	assert_false(fixture->kernel.cached[0][77]);
	window_follow(file, 9);
	assert_true(window_shows(file, 12));
	fixture_free(fixture);
	assert_int_equal(meeting.drops, 2);
	pthread_barrier_destroy(&meeting.inside);
	pthread_barrier_destroy(&meeting.go_on);
}

static void a_forgotten_node_is_not_invalidated(void **state)
{
	struct fixture *fixture = fixture_new(256 * KIB);

	(void)state;
	for (uint64_t page = 0; page < 4096; page += REGION)
		cache(fixture, 0, page, REGION);
	window_invalidate_soon(fixture->files[0]);
	window_file_forget(fixture->files[0]);
	fixture->files[0] = NULL;
	start(fixture);
	wait_for(!usage_of(fixture).bytes);
	cache(fixture, 1, 0, REGION);
	cache(fixture, 1, REGION, REGION);
	wait_for(usage_of(fixture).bytes <= 256 * KIB);
	stop(fixture);
	for (uint64_t page = 0; page < 4096; page++)
		assert_true(fixture->kernel.cached[0][page]);
	fixture_free(fixture);
}

static void invalidate_soon_drops_all_of_the_file(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);

	(void)state;
	for (uint64_t page = 0; page < 4096; page += 3)
		cache(fixture, 0, page, 1);
	cache(fixture, 1, 0, 100);
	for (unsigned i = 0; i < 10; i++)
		window_invalidate_soon(fixture->files[0]);
	start(fixture);
	wait_for(cached_bytes(fixture) == 100 * 4 * KIB);
	wait_for(usage_of(fixture).bytes == 100 * 4 * KIB);
	stop(fixture);
	/* Ten wishes before the first was met are one; what was counted may go by runs as well. */
	assert_in_range(atomic_load(&fixture->kernel.calls_for_all), 0, 1);
	assert_in_range(atomic_load(&fixture->kernel.calls), 0, 8);
	fixture_free(fixture);
}

/* What is cached without having been counted (a write-back, a read that was answered before) goes
 * as well. */
static void invalidate_soon_drops_what_was_never_noted(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);

	(void)state;
	start(fixture);
	fixture->kernel.cached[2][77] = true;
	window_invalidate_soon(fixture->files[2]);
	wait_for(!cached_bytes(fixture));
	fixture_free(fixture);
}

static void invalidate_all_drops_every_file_that_is_known(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);

	(void)state;
	for (unsigned file = 0; file < 3; file++)
		cache(fixture, file, 100 * file, 100);
	window_file_forget(fixture->files[1]);
	fixture->files[1] = NULL;
	window_invalidate_all_soon(fixture->window);
	start(fixture);
	wait_for(!usage_of(fixture).bytes);
	/* What is left is of the node that the kernel has forgotten. */
	wait_for(cached_bytes(fixture) == 100 * 4 * KIB);
	stop(fixture);
	for (unsigned page = 100; page < 200; page++)
		assert_true(fixture->kernel.cached[1][page]);
	fixture_free(fixture);
}

/* While the trimmer runs. */
static bool is_cached(struct fixture *fixture, uint64_t node, uint64_t page)
{
	bool cached;

	pthread_mutex_lock(&fixture->kernel.locks[node]);
	cached = fixture->kernel.cached[node][page];
	pthread_mutex_unlock(&fixture->kernel.locks[node]);
	return cached;
}

/* Region 0 of file 0 is trimmed, by what is noted elsewhere. */
static void trim_region(struct fixture *fixture)
{
	cache(fixture, 0, 0, REGION);
	for (uint64_t page = 0; page < 4096; page += REGION)
		cache(fixture, 1, page, REGION);
	wait_for(usage_of(fixture).bytes <= 1024 * KIB);
	expect(!is_cached(fixture, 0, 5));
}

/* The first write after a drop may have begun before it: what a READ brought back since is dropped
 * again, that page alone. The next write of the file began after that drop. */
static void what_came_back_during_a_write_goes_again(void **state)
{
	struct fixture *fixture = fixture_new(1024 * KIB);

	(void)state;
	start(fixture);
	/* Never dropped: no suspicion. */
	cache(fixture, 0, 0, 8);
	window_written(fixture->files[0], 5, 1, false);
	trim_region(fixture);
	cache(fixture, 0, 0, 8);
	window_written(fixture->files[0], 5, 1, false);
	wait_for(!is_cached(fixture, 0, 5));
	for (unsigned page = 0; page < 8; page++)
		assert_int_equal(is_cached(fixture, 0, page), page != 5);
	/* Not noted since: nothing to drop. Others were not dropped since that write. */
	window_written(fixture->files[0], 5, 1, false);
	window_written(fixture->files[0], 3, 1, false);
	/* Read and written once more: the write may have begun before page 5 was dropped. */
	trim_region(fixture);
	cache(fixture, 0, 0, 8);
	window_written(fixture->files[0], 40, 1, false);
	window_written(fixture->files[0], 3, 1, false);
	/* A round later than any that could have dropped it. */
	window_invalidate_soon(fixture->files[2]);
	wait_for(atomic_load(&fixture->kernel.calls_for_all));
	stop(fixture);
	assert_true(fixture->kernel.cached[0][3]);
	fixture_free(fixture);
}

static void what_is_cached_beside_a_direct_write_goes(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);

	(void)state;
	start(fixture);
	cache(fixture, 0, 60, 10);
	window_written(fixture->files[0], 62, 4, true);
	wait_for(cached_bytes(fixture) == 6 * 4 * KIB);
	wait_for(usage_of(fixture).bytes == 6 * 4 * KIB);
	fixture_free(fixture);
	/* Without a window all of the file goes, if anything of it was ever cached. */
	fixture = fixture_new(0);
	start(fixture);
	window_written(fixture->files[0], 62, 4, true);
	window_invalidate_soon(fixture->files[1]);
	wait_for(atomic_load(&fixture->kernel.calls_for_all) == 1);
	cache(fixture, 0, 60, 10);
	window_written(fixture->files[0], 0, 1, true);
	wait_for(!cached_bytes(fixture));
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
			window_uncount(fixture->files[node], first);
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
		} else {
			cache(fixture, index ? node : NODES - 1, first, pages);
		}
	}
}

static void a_storm_stays_counted_and_bounded(void **state)
{
	struct fixture *fixture = fixture_new(2048 * KIB);

	(void)state;
	start(fixture);
	crew_run(4, storm, fixture);
	wait_for(usage_of(fixture).bytes <= 2048 * KIB);
	stop(fixture);
	/* The count is an upper bound of what the kernel holds. */
	assert_true(cached_bytes(fixture) <= usage_of(fixture).bytes);
	assert_true(usage_of(fixture).trimmed_bytes > 0);
	fixture_free(fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_are_counted_once),
		cmocka_unit_test(reads_wait_for_a_trimmer_that_is_behind),
		cmocka_unit_test(any_set_of_notes_is_counted_exactly),
		cmocka_unit_test(uncount_keeps_what_is_before),
		cmocka_unit_test(forget_gives_memory_back),
		cmocka_unit_test(without_a_window_notes_are_ignored),
		cmocka_unit_test(budget_is_held_and_the_oldest_goes_first),
		cmocka_unit_test(nothing_is_trimmed_within_the_budget),
		cmocka_unit_test(neighbours_are_one_invalidation),
		cmocka_unit_test(single_pages_go_by_region),
		cmocka_unit_test(the_kernels_answer_changes_nothing),
		cmocka_unit_test(no_lock_is_held_while_invalidating),
		cmocka_unit_test(a_note_during_the_invalidation_is_counted),
		cmocka_unit_test(forget_while_trimming),
		cmocka_unit_test(a_forgotten_node_is_not_invalidated),
		cmocka_unit_test(invalidate_soon_drops_all_of_the_file),
		cmocka_unit_test(invalidate_soon_drops_what_was_never_noted),
		cmocka_unit_test(invalidate_all_drops_every_file_that_is_known),
		cmocka_unit_test(an_edition_shows_when_its_drop_is_over),
		cmocka_unit_test(what_came_back_during_a_write_goes_again),
		cmocka_unit_test(what_is_cached_beside_a_direct_write_goes),
		cmocka_unit_test(nothing_is_called_after_stop),
		cmocka_unit_test(a_window_that_never_started_ends_in_order),
		cmocka_unit_test(a_storm_stays_counted_and_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
