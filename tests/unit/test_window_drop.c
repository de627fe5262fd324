/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_window_drop.c - what the kernel caches is dropped because it may not be true any more
 */
#include "window_fixture.h"

/* Forget while the trimmer works on the file. */

struct meeting {
	struct fixture *fixture;
	pthread_barrier_t inside;
	pthread_barrier_t go_on;
	atomic_bool met;
	atomic_uint drops;
};

static void meet_during(void *context, uint64_t node, off_t offset, off_t length)
{
	struct meeting *meeting = context;

	(void)node;
	(void)offset;
	(void)length;
	atomic_fetch_add(&meeting->drops, 1);
	if (atomic_exchange(&meeting->met, true))
		return;
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
	fixture->window->trimmers_most = 1;
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
	assert_int_equal(atomic_load(&meeting.drops), 2);
	pthread_barrier_destroy(&meeting.inside);
	pthread_barrier_destroy(&meeting.go_on);
}

/* Who counts what is past the budget meanwhile is told that the trimmer has not seen it yet. */
static void a_trimmer_that_drops_a_file_is_at_work(void **state)
{
	struct fixture *fixture = fixture_new(256 * KIB);
	struct meeting meeting = {.fixture = fixture};
	struct window_count count;

	(void)state;
	pthread_barrier_init(&meeting.inside, NULL, 2);
	pthread_barrier_init(&meeting.go_on, NULL, 2);
	fixture->kernel.during = meet_during;
	fixture->kernel.context = &meeting;
	fixture->window->trimmers_most = 1;
	start(fixture);
	window_invalidate_soon(fixture->files[0]);
	pthread_barrier_wait(&meeting.inside);
	cache(fixture, 1, 0, 2 * REGION);
	window_count(fixture->window, &count);
	assert_int_equal(count.pages_said, 2 * REGION);
	assert_true(count.trimming);
	pthread_barrier_wait(&meeting.go_on);
	wait_for(usage_of(fixture).bytes <= 256 * KIB);
	fixture_free(fixture);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forget_while_trimming),
		cmocka_unit_test(a_trimmer_that_drops_a_file_is_at_work),
		cmocka_unit_test(a_forgotten_node_is_not_invalidated),
		cmocka_unit_test(invalidate_soon_drops_all_of_the_file),
		cmocka_unit_test(invalidate_soon_drops_what_was_never_noted),
		cmocka_unit_test(an_edition_shows_when_its_drop_is_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
