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

/* Answers to direct writes. */

struct counted_answer {
	struct window_answer answer;
	struct fixture *fixture;
	uint64_t page; /* that must be gone when it is given */
	atomic_uint given;
	atomic_bool too_early;
};

static void count_given(struct window_answer *answer)
{
	struct counted_answer *counted = caa_container_of(answer, struct counted_answer, answer);

	if (is_cached(counted->fixture, 0, counted->page))
		atomic_store(&counted->too_early, true);
	atomic_fetch_add(&counted->given, 1);
}

/* The trimmer, in the kernel, until it is told to go on. */
static void hold_up(void *context, uint64_t node, off_t offset, off_t length)
{
	struct meeting *meeting = context;

	(void)node;
	(void)offset;
	(void)length;
	if (meeting->met)
		return;
	meeting->met = true;
	pthread_barrier_wait(&meeting->inside);
	pthread_barrier_wait(&meeting->go_on);
}

static void a_direct_write_is_answered_when_untrue_pages_are_gone(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);
	struct counted_answer wait = {.answer.give = count_given, .fixture = fixture, .page = 62};
	struct counted_answer other = {.answer.give = count_given, .fixture = fixture, .page = 70};
	struct meeting meeting = {.fixture = fixture};

	(void)state;
	pthread_barrier_init(&meeting.inside, NULL, 2);
	pthread_barrier_init(&meeting.go_on, NULL, 2);
	fixture->kernel.during = hold_up;
	fixture->kernel.context = &meeting;
	/* Nothing untrue: nothing to wait for. */
	cache(fixture, 0, 200, 1);
	assert_false(window_written(fixture->files[0], 62, 4, true));
	assert_false(window_answer_later(fixture->files[0], 62, 4, 0, &wait.answer));
	cache(fixture, 0, 60, 20);
	assert_true(window_written(fixture->files[0], 62, 4, true));
	assert_true(window_answer_later(fixture->files[0], 62, 4, 0, &wait.answer));
	start(fixture);
	pthread_barrier_wait(&meeting.inside);
	/* Found untrue while another drop is under way: that one is not theirs. */
	assert_true(window_written(fixture->files[0], 70, 1, true));
	assert_true(window_answer_later(fixture->files[0], 70, 1, 0, &other.answer));
	assert_int_equal(atomic_load(&wait.given), 0);
	pthread_barrier_wait(&meeting.go_on);
	wait_for(atomic_load(&wait.given) && atomic_load(&other.given));
	assert_false(atomic_load(&wait.too_early) || atomic_load(&other.too_early));
	fixture_free(fixture);
	pthread_barrier_destroy(&meeting.inside);
	pthread_barrier_destroy(&meeting.go_on);
}

/* What a READ that waits has locked is dropped later; an answer that needs it waits that long. */
static void an_answer_waits_for_what_a_read_holds(void **state)
{
	struct fixture *fixture = fixture_new(256 * KIB);
	struct counted_answer wait = {.answer.give = count_given, .fixture = fixture, .page = 5};
	struct window_read read;

	(void)state;
	cache(fixture, 0, 0, REGION);
	window_read_waits(fixture->files[0], 0, 1, &read);
	assert_true(window_written(fixture->files[0], 5, 1, true));
	/* Its region is closed before it is dropped as a suspect. */
	window_uncount(fixture->files[0], 0);
	assert_true(window_answer_later(fixture->files[0], 5, 1, 0, &wait.answer));
	start(fixture);
	for (uint64_t page = 0; page < 1024; page += REGION)
		cache(fixture, 1, page, REGION);
	wait_for(usage_of(fixture).bytes <= 512 * KIB);
	assert_int_equal(atomic_load(&wait.given), 0);
	assert_true(is_cached(fixture, 0, 5));
	window_read_goes_on(fixture->window, &read);
	wait_for(atomic_load(&wait.given));
	assert_false(atomic_load(&wait.too_early));
	fixture_free(fixture);
}

/* The drop may be waiting for the answer. */
static void a_bounded_answer_does_not_wait_for_a_drop_that_hangs(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);
	struct counted_answer wait = {.answer.give = count_given, .fixture = fixture, .page = 200};
	struct meeting meeting = {.fixture = fixture};

	(void)state;
	pthread_barrier_init(&meeting.inside, NULL, 2);
	pthread_barrier_init(&meeting.go_on, NULL, 2);
	fixture->kernel.during = hold_up;
	fixture->kernel.context = &meeting;
	cache(fixture, 0, 60, 20);
	assert_true(window_written(fixture->files[0], 62, 4, true));
	assert_true(window_answer_later(fixture->files[0], 62, 4, 1000, &wait.answer));
	start(fixture);
	pthread_barrier_wait(&meeting.inside);
	wait_for(atomic_load(&wait.given));
	pthread_barrier_wait(&meeting.go_on);
	fixture_free(fixture);
	assert_int_equal(atomic_load(&wait.given), 1);
	pthread_barrier_destroy(&meeting.inside);
	pthread_barrier_destroy(&meeting.go_on);
}

/* Who waits itself finds them gone too; and does not wait for ever. */
static void waiting_for_a_drop(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);

	(void)state;
	cache(fixture, 0, 60, 20);
	assert_true(window_written(fixture->files[0], 62, 4, true));
	window_wait_for_drop(fixture->files[0], 62, 4, 1000); /* there is no trimmer yet */
	assert_true(is_cached(fixture, 0, 62));
	start(fixture);
	window_wait_for_drop(fixture->files[0], 62, 4, 999999999);
	assert_false(is_cached(fixture, 0, 62));
	fixture_free(fixture);
}

/* Without a window the whole file goes. What is left when trimming stops is answered then; and the
 * file of an answer stays until it is given. */
static void every_answer_is_given(void **state)
{
	struct fixture *fixture = fixture_new(0);
	struct counted_answer wait = {.answer.give = count_given, .fixture = fixture, .page = 7};

	(void)state;
	cache(fixture, 0, 0, 10);
	assert_true(window_written(fixture->files[0], 0, 1, true));
	assert_true(window_answer_later(fixture->files[0], 0, 1, 0, &wait.answer));
	start(fixture);
	wait_for(atomic_load(&wait.given));
	assert_false(atomic_load(&wait.too_early));
	fixture_free(fixture);

	fixture = fixture_new(1u << 30);
	wait = (struct counted_answer){.answer.give = count_given, .fixture = fixture};
	cache(fixture, 0, 0, 10);
	assert_true(window_written(fixture->files[0], 0, 1, true));
	assert_true(window_answer_later(fixture->files[0], 0, 1, 0, &wait.answer));
	window_file_forget(fixture->files[0]);
	fixture->files[0] = NULL;
	stop(fixture);
	assert_int_equal(atomic_load(&wait.given), 1);
	/* From then on nobody waits. */
	cache(fixture, 1, 0, 10);
	(void)window_written(fixture->files[1], 0, 1, true);
	assert_false(window_answer_later(fixture->files[1], 0, 1, 0, &wait.answer));
	fixture_free(fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forget_while_trimming),
		cmocka_unit_test(a_forgotten_node_is_not_invalidated),
		cmocka_unit_test(invalidate_soon_drops_all_of_the_file),
		cmocka_unit_test(invalidate_soon_drops_what_was_never_noted),
		cmocka_unit_test(invalidate_all_drops_every_file_that_is_known),
		cmocka_unit_test(an_edition_shows_when_its_drop_is_over),
		cmocka_unit_test(what_came_back_during_a_write_goes_again),
		cmocka_unit_test(what_is_cached_beside_a_direct_write_goes),
		cmocka_unit_test(a_direct_write_is_answered_when_untrue_pages_are_gone),
		cmocka_unit_test(an_answer_waits_for_what_a_read_holds),
		cmocka_unit_test(a_bounded_answer_does_not_wait_for_a_drop_that_hangs),
		cmocka_unit_test(waiting_for_a_drop),
		cmocka_unit_test(every_answer_is_given),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
