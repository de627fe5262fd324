/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_window_write.c - what a write leaves untrue in the kernel's cache, and when it is answered
 */
#include "window_fixture.h"

static const struct window_patience FOR_EVER = {0};
static const struct window_patience PATIENT = {.begin_us = 999999999, .drop_us = 999999999};
/* Once the drop has begun. */
static const struct window_patience BRIEFLY = {.begin_us = 999999999, .drop_us = 1000};

/* The first drop of a node, in the kernel, until it is told to go on. */
struct meeting {
	uint64_t node;
	pthread_barrier_t inside;
	pthread_barrier_t go_on;
	atomic_bool met;
};

static void meet(void *context, uint64_t node, off_t offset, off_t length)
{
	struct meeting *meeting = context;

	(void)offset;
	(void)length;
	if (node != meeting->node || atomic_exchange(&meeting->met, true))
		return;
	pthread_barrier_wait(&meeting->inside);
	pthread_barrier_wait(&meeting->go_on);
}

static void hold_up(struct fixture *fixture, struct meeting *meeting)
{
	pthread_barrier_init(&meeting->inside, NULL, 2);
	pthread_barrier_init(&meeting->go_on, NULL, 2);
	fixture->kernel.context = meeting;
	fixture->kernel.during = meet;
}

static void let_go(struct meeting *meeting)
{
	pthread_barrier_wait(&meeting->go_on);
}

static void end(struct fixture *fixture, struct meeting *meeting)
{
	fixture_free(fixture);
	pthread_barrier_destroy(&meeting->inside);
	pthread_barrier_destroy(&meeting->go_on);
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

/* The window is within its budget, and the round that saw to it is over: until then a drop counts
 * as one that is under way. */
static bool is_trimmed(struct fixture *fixture)
{
	struct window_count count;

	window_count(fixture->window, &count);
	return count.pages_said <= count.budget && !count.trimming;
}

/* Region 0 of file 0 is trimmed, by what is noted elsewhere. */
static void trim_region(struct fixture *fixture)
{
	cache(fixture, 0, 0, REGION);
	for (uint64_t page = 0; page < 4096; page += REGION)
		cache(fixture, 1, page, REGION);
	wait_for(is_trimmed(fixture));
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
	window_written(fixture->files[0], SPAN(5, 1, false));
	trim_region(fixture);
	cache(fixture, 0, 0, 8);
	window_written(fixture->files[0], SPAN(5, 1, false));
	wait_for(!is_cached(fixture, 0, 5));
	for (unsigned page = 0; page < 8; page++)
		assert_int_equal(is_cached(fixture, 0, page), page != 5);
	/* Not noted since: nothing to drop. Others were not dropped since that write. */
	window_written(fixture->files[0], SPAN(5, 1, false));
	window_written(fixture->files[0], SPAN(3, 1, false));
	/* Read and written once more: the write may have begun before page 5 was dropped. */
	trim_region(fixture);
	cache(fixture, 0, 0, 8);
	window_written(fixture->files[0], SPAN(40, 1, false));
	window_written(fixture->files[0], SPAN(3, 1, false));
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
	window_written(fixture->files[0], SPAN(62, 4, true));
	wait_for(cached_bytes(fixture) == 6 * 4 * KIB);
	wait_for(usage_of(fixture).bytes == 6 * 4 * KIB);
	fixture_free(fixture);
	/* Without a window all of the file goes, if anything of it was ever cached. */
	fixture = fixture_new(0);
	start(fixture);
	window_written(fixture->files[0], SPAN(62, 4, true));
	window_invalidate_soon(fixture->files[1]);
	wait_for(atomic_load(&fixture->kernel.calls_for_all) == 1);
	cache(fixture, 0, 60, 10);
	window_written(fixture->files[0], SPAN(0, 1, true));
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

static void a_direct_write_is_answered_when_untrue_pages_are_gone(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);
	struct counted_answer wait = {.answer.give = count_given, .fixture = fixture, .page = 62};
	struct counted_answer other = {.answer.give = count_given, .fixture = fixture, .page = 70};
	struct meeting meeting = {.node = 0};

	(void)state;
	hold_up(fixture, &meeting);
	/* Nothing untrue: nothing to wait for. */
	cache(fixture, 0, 200, 1);
	assert_false(window_written(fixture->files[0], SPAN(62, 4, true)));
	assert_false(
		window_answer_later(fixture->files[0], SPAN(62, 4, true), FOR_EVER, &wait.answer));
	cache(fixture, 0, 60, 20);
	assert_true(window_written(fixture->files[0], SPAN(62, 4, true)));
	assert_true(
		window_answer_later(fixture->files[0], SPAN(62, 4, true), FOR_EVER, &wait.answer));
	start(fixture);
	pthread_barrier_wait(&meeting.inside);
	/* Found untrue while another drop is under way: that one is not theirs. */
	assert_true(window_written(fixture->files[0], SPAN(70, 1, true)));
	assert_true(
		window_answer_later(fixture->files[0], SPAN(70, 1, true), FOR_EVER, &other.answer));
	assert_int_equal(atomic_load(&wait.given), 0);
	let_go(&meeting);
	wait_for(atomic_load(&wait.given) && atomic_load(&other.given));
	assert_false(atomic_load(&wait.too_early) || atomic_load(&other.too_early));
	end(fixture, &meeting);
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
	assert_true(window_written(fixture->files[0], SPAN(5, 1, true)));
	/* Its region is closed before it is dropped as a suspect. */
	window_close_from(fixture->files[0], 0);
	assert_true(
		window_answer_later(fixture->files[0], SPAN(5, 1, true), FOR_EVER, &wait.answer));
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
	struct meeting meeting = {.node = 0};

	(void)state;
	hold_up(fixture, &meeting);
	cache(fixture, 0, 60, 20);
	assert_true(window_written(fixture->files[0], SPAN(62, 4, true)));
	assert_true(
		window_answer_later(fixture->files[0], SPAN(62, 4, true), BRIEFLY, &wait.answer));
	start(fixture);
	pthread_barrier_wait(&meeting.inside);
	wait_for(atomic_load(&wait.given));
	let_go(&meeting);
	end(fixture, &meeting);
	assert_int_equal(atomic_load(&wait.given), 1);
}

/* Who waits itself finds them gone too; and does not wait for ever. */
static void waiting_for_a_drop(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);
	struct meeting meeting = {.node = 0};

	(void)state;
	cache(fixture, 0, 60, 20);
	start(fixture);
	assert_true(window_written(fixture->files[0], SPAN(62, 4, true)));
	window_wait_for_drop(fixture->files[0], SPAN(62, 4, true), PATIENT);
	assert_false(is_cached(fixture, 0, 62));
	hold_up(fixture, &meeting);
	assert_true(window_written(fixture->files[0], SPAN(70, 1, true)));
	window_wait_for_drop(fixture->files[0], SPAN(70, 1, true), BRIEFLY);
	pthread_barrier_wait(&meeting.inside);
	assert_true(is_cached(fixture, 0, 70));
	let_go(&meeting);
	end(fixture, &meeting);
}

/* Without a window the whole file goes. What is left when trimming stops is answered then; and the
 * file of an answer stays until it is given. */
static void every_answer_is_given(void **state)
{
	struct fixture *fixture = fixture_new(0);
	struct counted_answer wait = {.answer.give = count_given, .fixture = fixture, .page = 7};

	(void)state;
	cache(fixture, 0, 0, 10);
	assert_true(window_written(fixture->files[0], SPAN(0, 1, true)));
	assert_true(
		window_answer_later(fixture->files[0], SPAN(0, 1, true), FOR_EVER, &wait.answer));
	start(fixture);
	wait_for(atomic_load(&wait.given));
	assert_false(atomic_load(&wait.too_early));
	fixture_free(fixture);

	fixture = fixture_new(1u << 30);
	wait = (struct counted_answer){.answer.give = count_given, .fixture = fixture};
	cache(fixture, 0, 0, 10);
	assert_true(window_written(fixture->files[0], SPAN(0, 1, true)));
	assert_true(
		window_answer_later(fixture->files[0], SPAN(0, 1, true), FOR_EVER, &wait.answer));
	window_file_forget(fixture->files[0]);
	fixture->files[0] = NULL;
	stop(fixture);
	assert_int_equal(atomic_load(&wait.given), 1);
	/* From then on nobody waits. */
	cache(fixture, 1, 0, 10);
	(void)window_written(fixture->files[1], SPAN(0, 1, true));
	assert_false(
		window_answer_later(fixture->files[1], SPAN(0, 1, true), FOR_EVER, &wait.answer));
	fixture_free(fixture);
}

/* What came back is suspect also if its region is on its way out, but still waits for the trimmer;
 * and an answer waits for its own pages alone, whatever the trimmer waits for. */
static void what_is_on_its_way_out_goes_before_the_answer(void **state)
{
	struct fixture *fixture = fixture_new(1024 * KIB);
	struct counted_answer wait = {.answer.give = count_given, .fixture = fixture, .page = 5};
	struct meeting meeting = {.node = 2};

	(void)state;
	fixture->window->trimmers_most = 1;
	start(fixture);
	trim_region(fixture);
	cache(fixture, 0, 0, 8);
	hold_up(fixture, &meeting);
	window_invalidate_soon(fixture->files[2]);
	pthread_barrier_wait(&meeting.inside);
	window_close_from(fixture->files[0], 0);
	assert_true(window_written(fixture->files[0], SPAN(5, 1, false)));
	if (window_answer_later(fixture->files[0], SPAN(5, 1, true), FOR_EVER, &wait.answer))
		wait_for(atomic_load(&wait.given));
	assert_false(atomic_load(&wait.too_early));
	assert_false(is_cached(fixture, 0, 5));
	assert_true(is_cached(fixture, 0, 6));
	let_go(&meeting);
	wait_for(!is_cached(fixture, 0, 6));
	end(fixture, &meeting);
}

/* The end of patience is counted from the beginning of the drop, which may be late. */
static void patience_begins_with_the_drop(void **state)
{
	struct fixture *fixture = fixture_new(1u << 30);
	struct counted_answer first = {.answer.give = count_given, .fixture = fixture, .page = 200};
	struct counted_answer wait = {.answer.give = count_given, .fixture = fixture, .page = 70};
	struct meeting meeting = {.node = 1};

	(void)state;
	cache(fixture, 0, 64, 20);
	cache(fixture, 1, 0, 20);
	hold_up(fixture, &meeting);
	start(fixture);
	assert_true(window_written(fixture->files[1], SPAN(7, 1, true)));
	assert_true(
		window_answer_later(fixture->files[1], SPAN(7, 1, true), BRIEFLY, &first.answer));
	pthread_barrier_wait(&meeting.inside);
	assert_true(window_written(fixture->files[0], SPAN(70, 1, true)));
	assert_true(
		window_answer_later(fixture->files[0], SPAN(70, 1, true), BRIEFLY, &wait.answer));
	/* That one's drop hangs, this one's has not begun. */
	wait_for(atomic_load(&first.given));
	assert_int_equal(atomic_load(&wait.given), 0);
	let_go(&meeting);
	wait_for(atomic_load(&wait.given));
	assert_false(atomic_load(&wait.too_early));
	end(fixture, &meeting);
}

/* A drop that does not even begin is not waited for for ever. */
static void what_cannot_begin_has_an_end_too(void **state)
{
	static const struct window_patience none = {.begin_us = 1000, .drop_us = 1000};
	struct fixture *fixture = fixture_new(1u << 30);
	struct counted_answer wait = {.answer.give = count_given, .fixture = fixture, .page = 200};
	struct window_read read;

	(void)state;
	cache(fixture, 0, 0, 8);
	start(fixture);
	window_read_waits(fixture->files[0], 0, 1, &read);
	assert_true(window_written(fixture->files[0], SPAN(5, 1, true)));
	assert_true(window_answer_later(fixture->files[0], SPAN(5, 1, true), none, &wait.answer));
	wait_for(atomic_load(&wait.given));
	assert_true(is_cached(fixture, 0, 5));
	window_read_goes_on(fixture->window, &read);
	wait_for(!is_cached(fixture, 0, 5));
	fixture_free(fixture);
}

/* Two threads take pages off the count, trimmer and dropper: each page once. */
static void write_and_read(void *context, unsigned index)
{
	struct fixture *fixture = context;

	for (unsigned round = 0; round < ROUNDS(1000000); round++) {
		uint64_t page = (round * 7 + index * 3) % 16 * REGION;

		if (index % 2)
			(void)window_written(fixture->files[0], SPAN(page, 2 * REGION, true));
		else
			cache(fixture, 0, page, 2 * REGION);
	}
}

static bool is_counted(struct fixture *fixture)
{
	struct window_count count;

	window_count(fixture->window, &count);
	return !count.trimming && count.pages == count.pages_said;
}

static void each_page_is_uncounted_once(void **state)
{
	struct fixture *fixture = fixture_new(512 * KIB);

	(void)state;
	start(fixture);
	crew_run(4, write_and_read, fixture);
	wait_for(is_counted(fixture));
	fixture_free(fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_came_back_during_a_write_goes_again),
		cmocka_unit_test(what_is_cached_beside_a_direct_write_goes),
		cmocka_unit_test(a_direct_write_is_answered_when_untrue_pages_are_gone),
		cmocka_unit_test(an_answer_waits_for_what_a_read_holds),
		cmocka_unit_test(a_bounded_answer_does_not_wait_for_a_drop_that_hangs),
		cmocka_unit_test(what_is_on_its_way_out_goes_before_the_answer),
		cmocka_unit_test(patience_begins_with_the_drop),
		cmocka_unit_test(what_cannot_begin_has_an_end_too),
		cmocka_unit_test(waiting_for_a_drop),
		cmocka_unit_test(every_answer_is_given),
		cmocka_unit_test(each_page_is_uncounted_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
