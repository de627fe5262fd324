/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_page_map.c - the guarantees B.1 to B.4 of page_map.h
 *
 * What a map costs is in test_page_map_cost.c; the random tests, against a model and with threads,
 * are in test_page_map_model.c.
 */
#include "page_map_fixture.h"

static const uint64_t some_pages[] = {
	0, 1, 63, 64, 4095, 4096, GIB_PAGES - 1, GIB_PAGES, ((uint64_t)1 << 31) + 5, LAST};
#define SOME_PAGES (sizeof(some_pages) / sizeof(some_pages[0]))

static void a_new_map_knows_nothing(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture, MIB, 0);
	for (unsigned i = 0; i < SOME_PAGES; i++)
		assert_true(is_unknown(&fixture, some_pages[i]));
	fixture_close(&fixture);
}

static void pages_of_any_number_are_held(void **state)
{
	static const uint64_t hints[] = {0, 1, 4096, 300000, (uint64_t)8 << 40, INT64_MAX};
	struct fixture fixture;

	(void)state;
	for (unsigned h = 0; h < sizeof(hints) / sizeof(hints[0]); h++) {
		fixture_open(&fixture, MIB, hints[h]);
		for (unsigned i = 0; i < SOME_PAGES; i++)
			assert_true(fill(&fixture, some_pages[i], i, h));
		for (unsigned i = 0; i < SOME_PAGES; i++)
			assert_true(is_content(&fixture, some_pages[i], i, h));
		for (unsigned i = 0; i < SOME_PAGES; i++) {
			forget(&fixture, some_pages[i], 1);
			assert_true(is_unknown(&fixture, some_pages[i]));
			for (unsigned j = i + 1; j < SOME_PAGES; j++)
				assert_true(is_content(&fixture, some_pages[j], j, h));
		}
		fixture_close(&fixture);
	}
}

static void one_look_sees_many_pages(void **state)
{
	struct fixture fixture;
	struct page_look looks[FOLD_REQUEST_PAGES];

	(void)state;
	fixture_open(&fixture, 4 * MIB, 0);
	for (uint64_t page = 4000; page < 4000 + FOLD_REQUEST_PAGES; page++) {
		if (page % 3 == 0)
			assert_true(fill(&fixture, page, page, 0));
		if (page % 3 == 1)
			assert_true(fill_zero(&fixture, page));
	}
	fold_rcu_read_lock();
	page_map_look(fixture.map, 4000, FOLD_REQUEST_PAGES, looks);
	for (uint64_t page = 4000; page < 4000 + FOLD_REQUEST_PAGES; page++) {
		const struct page_look *look = &looks[page - 4000];

		if (page % 3 == 0)
			expect(look->from_pool && page_is(look->data, page, 0));
		if (page % 3 == 1)
			expect(!look->from_pool && fold_page_is_zero(look->data));
		if (page % 3 == 2)
			expect(!look->data);
	}
	fold_rcu_read_unlock();
	fixture_close(&fixture);
}

/* Nothing changed: a request's fills are all published, in whatever order, though each of them
 * shapes the tree that the others were looked up in. */
static void fills_of_one_request_do_not_disturb_each_other(void **state)
{
	struct fixture fixture;
	struct page_look looks[FOLD_REQUEST_PAGES];
	struct rng rng = rng_of_test(__func__);

	(void)state;
	fixture_open(&fixture, 4 * MIB, 0);
	for (unsigned round = 0; round < 20; round++) {
		uint64_t first = 4096 - rng_below(&rng, 4096) + 5000 * round;
		unsigned turn = (unsigned)rng_below(&rng, FOLD_REQUEST_PAGES);

		fold_rcu_read_lock();
		page_map_look(fixture.map, first, FOLD_REQUEST_PAGES, looks);
		fold_rcu_read_unlock();
		for (unsigned i = 0; i < FOLD_REQUEST_PAGES; i++) {
			unsigned n = (i + turn) % FOLD_REQUEST_PAGES;

			assert_true(publish_with(&fixture, first + n, looks[n].ticket,
						 content(&fixture, n % 7, round)));
		}
		for (unsigned n = 0; n < FOLD_REQUEST_PAGES; n++)
			assert_true(is_content(&fixture, first + n, n % 7, round));
	}
	fixture_close(&fixture);
}

/* ---- B.2: a fill that looked before a change is not published after it ---- */

enum change {
	FORGET,
	FORGET_AROUND,
	FORGET_ALL,
	BREAK,
	BREAK_ZERO,
	FORGET_TWICE,
	FILL_THEN_FORGET,
	ZERO_THEN_FORGET,
	FORGET_THEN_SHRINK,
	FORGET_ALL_THEN_SHRINK,
	BREAK_THEN_SHRINK,
	CHANGES
};

static void do_change(struct fixture *fixture, enum change change, uint64_t page)
{
	uint64_t before = page < 70 ? page : 70;

	switch (change) {
	case FILL_THEN_FORGET:
		fill(fixture, page, 5, 5);
		forget(fixture, page, 1);
		break;
	case ZERO_THEN_FORGET:
		fill_zero(fixture, page);
		forget(fixture, page, 1);
		break;
	case FORGET_TWICE:
	case FORGET:
		for (unsigned i = 0; i <= (change == FORGET_TWICE); i++)
			forget(fixture, page, 1);
		break;
	case FORGET_AROUND:
		forget(fixture, page - before, 141);
		break;
	case FORGET_ALL:
		forget(fixture, 0, TO_END);
		break;
	case BREAK_THEN_SHRINK:
	case BREAK:
		fill(fixture, page, 5, 5);
		break_page(fixture, page, own_content(fixture, 6, 6));
		break;
	case BREAK_ZERO:
		break_zero(fixture, page);
		break;
	case FORGET_THEN_SHRINK:
		forget(fixture, page, 1);
		break;
	case FORGET_ALL_THEN_SHRINK:
		forget(fixture, 0, TO_END);
		break;
	case CHANGES:
		break;
	}
	if (change == FORGET_THEN_SHRINK || change == FORGET_ALL_THEN_SHRINK ||
	    change == BREAK_THEN_SHRINK)
		while (shrink(fixture, UINT64_MAX))
			;
}

/* Whether other pages are known, so that the slot has a node of its own, or a wide word speaks for
 * it. */
static void b2_case(enum change change, uint64_t page, bool neighbours)
{
	struct fixture fixture;
	uint64_t ticket;

	fixture_open(&fixture, MIB, 0);
	if (neighbours) {
		assert_true(fill(&fixture, page ^ 1, 1, 1));
		assert_true(fill_zero(&fixture, page ^ 64));
	}
	ticket = look_at(&fixture, page).ticket;
	do_change(&fixture, change, page);
	assert_false(publish_with(&fixture, page, ticket, content(&fixture, 9, 9)));
	fold_rcu_read_lock();
	expect(!page_map_publish_zero(fixture.map, page, ticket));
	fold_rcu_read_unlock();
	assert_false(is_content(&fixture, page, 9, 9));
	if (change == BREAK)
		assert_true(is_content(&fixture, page, 6, 6));
	if (change == BREAK_ZERO)
		assert_true(is_zero(&fixture, page));
	/* A fill that looks now is published. */
	forget(&fixture, page, 1);
	assert_true(fill(&fixture, page, 9, 9));
	assert_true(is_content(&fixture, page, 9, 9));
	fixture_close(&fixture);
}

static void b2_a_fill_from_before_a_change_is_refused(void **state)
{
	(void)state;
	for (enum change change = FORGET; change < CHANGES; change++)
		for (unsigned i = 0; i < SOME_PAGES; i++) {
			b2_case(change, some_pages[i], false);
			b2_case(change, some_pages[i], true);
		}
}

/* Pages far behind all that the map was made for, and holds. */
static void b2_the_same_behind_the_end_of_the_tree(void **state)
{
	static const uint64_t far[] = {64, 5000, GIB_PAGES * 3, LAST};

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		for (unsigned way = 0; way < 4; way++) {
			struct fixture fixture;
			uint64_t ticket;

			fixture_open(&fixture, MIB, FOLD_PAGE_SIZE);
			assert_true(fill(&fixture, 0, 1, 1));
			ticket = look_at(&fixture, far[i]).ticket;
			if (way == 0)
				forget(&fixture, far[i], 1);
			else if (way == 1)
				forget(&fixture, far[i] / 2, far[i]);
			else
				forget(&fixture, way == 2 ? far[i] : 1, TO_END);
			assert_false(
				publish_with(&fixture, far[i], ticket, content(&fixture, 9, 9)));
			assert_true(is_unknown(&fixture, far[i]));
			assert_true(is_content(&fixture, 0, 1, 1));
			assert_true(fill(&fixture, far[i], 9, 9));
			fixture_close(&fixture);
		}
}

/* The page was known when the fill looked: what it knew was zero, or a frame. */
static void b2_a_ticket_of_a_known_page_dies_with_it(void **state)
{
	struct fixture fixture;

	(void)state;
	for (unsigned kind = 0; kind < 3; kind++) {
		uint64_t ticket;

		fixture_open(&fixture, MIB, 0);
		if (kind == 0)
			assert_true(fill_zero(&fixture, 7));
		else
			assert_true(fill(&fixture, 7, 1, 1));
		if (kind == 2)
			break_page(&fixture, 7, own_content(&fixture, 2, 2));
		ticket = look_at(&fixture, 7).ticket;
		forget(&fixture, 7, 1);
		assert_false(publish_with(&fixture, 7, ticket, content(&fixture, 9, 9)));
		assert_true(is_unknown(&fixture, 7));
		fixture_close(&fixture);
	}
}

/* Two fills looked at the same time: the first is published. */
static void the_second_of_two_fills_is_refused(void **state)
{
	struct fixture fixture;
	uint64_t ticket;

	(void)state;
	fixture_open(&fixture, MIB, 0);
	ticket = look_at(&fixture, 7).ticket;
	assert_true(publish_with(&fixture, 7, ticket, content(&fixture, 1, 1)));
	assert_false(publish_with(&fixture, 7, ticket, content(&fixture, 1, 1)));
	assert_true(is_content(&fixture, 7, 1, 1));
	fixture_close(&fixture);
}

/* No version comes back, however often one page changes. */
static void b2_no_version_is_used_twice(void **state)
{
	enum { N = 5000 };
	struct fixture fixture;
	uint64_t *tickets = calloc(N, sizeof(*tickets));
	struct rng rng = rng_of_test(__func__);

	(void)state;
	expect(tickets);
	fixture_open(&fixture, MIB, 0);
	for (unsigned i = 0; i < N; i++) {
		tickets[i] = look_at(&fixture, 77).ticket;
		for (unsigned j = i > 20 ? i - 20 : 0; j < i; j++)
			assert_int_not_equal(tickets[i], tickets[j]);
		switch (rng_below(&rng, 4)) {
		case 0:
			if (is_unknown(&fixture, 77 ^ 1))
				fill(&fixture, 77 ^ 1, 1, 1);
			break;
		case 1:
			shrink(&fixture, UINT64_MAX);
			break;
		case 2:
			forget(&fixture, 0, TO_END);
			break;
		}
		forget(&fixture, 70 + rng_below(&rng, 8), 8 + rng_below(&rng, 100));
	}
	for (unsigned i = 0; i < N; i++) {
		fold_rcu_read_lock();
		expect(!page_map_publish_zero(fixture.map, 77, tickets[i]));
		fold_rcu_read_unlock();
	}
	free(tickets);
	fixture_close(&fixture);
}

/* R.4: a change discards the fills of its pages, and none elsewhere, whatever is known of
 * the map. */
static void a_change_leaves_fills_elsewhere_alone(void **state)
{
	static const uint64_t hints[] = {0, MIB, (uint64_t)8 << 30};
	const uint64_t page = GIB_PAGES;

	(void)state;
	for (unsigned way = 0; way < 6; way++)
		for (unsigned h = 0; h < sizeof(hints) / sizeof(hints[0]); h++) {
			const uint64_t elsewhere[] = {page - 1, page + 64, page + 3 * GIB_PAGES, 5};
			uint64_t tickets[4];
			struct fixture fixture;

			fixture_open(&fixture, MIB, hints[h]);
			if (way % 2)
				assert_true(fill(&fixture, 0, 1, 1));
			for (unsigned i = 0; i < 4; i++)
				tickets[i] = look_at(&fixture, elsewhere[i]).ticket;
			forget(&fixture, page, way / 2 == 1 ? 64 : 1);
			if (way / 2 == 2)
				forget(&fixture, page + 4 * GIB_PAGES, TO_END);
			for (unsigned i = 0; i < 4; i++)
				assert_true(publish_with(&fixture, elsewhere[i], tickets[i],
							 content(&fixture, i, 9)));
			fixture_close(&fixture);
		}
}

/* ---- B.3 ---- */

static void b3_a_slot_is_one_user_and_drops_it_once(void **state)
{
	struct fixture fixture;
	struct frame_ref ref;

	(void)state;
	fixture_open(&fixture, MIB, 0);
	ref = content(&fixture, 1, 1); /* one user: this test */
	for (uint64_t page = 0; page < 200; page++)
		assert_true(fill(&fixture, page, 1, 1));
	assert_int_equal(page_store_users(fixture.pool.store, ref), 201);
	for (unsigned twice = 0; twice < 2; twice++)
		forget(&fixture, 10, 5);
	assert_int_equal(page_store_users(fixture.pool.store, ref), 196);
	break_zero(&fixture, 20);
	break_zero(&fixture, 20);
	assert_int_equal(page_store_users(fixture.pool.store, ref), 195);
	break_page(&fixture, 21, own_content(&fixture, 2, 2));
	break_page(&fixture, 21, own_content(&fixture, 2, 3));
	assert_int_equal(page_store_users(fixture.pool.store, ref), 194);
	assert_int_equal(pool_usage(&fixture.pool).pages_volatile, 1);
	forget(&fixture, 0, 64);
	assert_int_equal(pool_usage(&fixture.pool).pages_volatile, 0);
	assert_int_equal(page_store_users(fixture.pool.store, ref), 201 - 64);
	while (shrink(&fixture, UINT64_MAX))
		;
	assert_int_equal(page_store_users(fixture.pool.store, ref), 1);
	forget(&fixture, 0, TO_END);
	assert_int_equal(page_store_users(fixture.pool.store, ref), 1);
	pool_drop(&fixture.pool, ref);
	fixture_close(&fixture);
}

/* A ticket of a page that is known and lives: published or refused, its user is accounted for. */
static void b3_publishing_over_a_live_page_drops_it(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture, MIB, 0);
	assert_true(fill(&fixture, 5, 1, 1));
	fill(&fixture, 5, 1, 1);
	fill(&fixture, 5, 2, 2);
	fill_zero(&fixture, 5);
	break_page(&fixture, 6, own_content(&fixture, 1, 1));
	fill(&fixture, 6, 2, 2);
	fixture_close(&fixture);
}

/* ---- B.4 ---- */

static void b4_a_dead_frame_reads_as_unknown(void **state)
{
	struct fixture fixture;
	struct frame_ref ref;

	(void)state;
	fixture_open(&fixture, MIB, 0);
	ref = content(&fixture, 1, 1);
	for (uint64_t page = 0; page < 130; page++)
		assert_true(fill(&fixture, page, 1, 1));
	kill_frame(&fixture, ref);
	for (uint64_t page = 0; page < 130; page++)
		assert_true(is_unknown(&fixture, page));
	for (uint64_t page = 0; page < 130; page++)
		assert_true(page % 2 ? fill(&fixture, page, page, 2) : fill_zero(&fixture, page));
	for (uint64_t page = 0; page < 130; page++)
		assert_true(page % 2 ? is_content(&fixture, page, page, 2)
				     : is_zero(&fixture, page));
	fixture_close(&fixture);
}

static void b4_a_fill_of_a_dead_slot_from_before_a_change_is_refused(void **state)
{
	struct fixture fixture;
	struct frame_ref ref;
	uint64_t ticket;

	(void)state;
	fixture_open(&fixture, MIB, 0);
	ref = content(&fixture, 1, 1);
	assert_true(fill(&fixture, 5, 1, 1));
	kill_frame(&fixture, ref);
	ticket = look_at(&fixture, 5).ticket;
	forget(&fixture, 5, 1);
	assert_false(publish_with(&fixture, 5, ticket, content(&fixture, 2, 2)));
	fixture_close(&fixture);
}

/* The frame of a dead slot is in its next life: the slot neither reads it nor drops it. */
static void b4_a_stale_slot_leaves_the_next_life_alone(void **state)
{
	struct fixture fixture;
	struct frame_ref first;
	struct frame_ref next;

	(void)state;
	fixture_open(&fixture, MIB, 0);
	first = content(&fixture, 1, 1);
	for (uint64_t page = 0; page < 5; page++)
		assert_true(fill(&fixture, page, 1, 1));
	kill_frame(&fixture, first);
	do
		next = content(&fixture, 2, mix64(test_now_ms()) % 1000);
	while (next.frame != first.frame && (pool_drop(&fixture.pool, next), true));
	for (uint64_t page = 0; page < 5; page++)
		assert_true(is_unknown(&fixture, page));
	forget(&fixture, 0, 1);
	break_zero(&fixture, 1);
	fill(&fixture, 2, 3, 3);
	shrink(&fixture, UINT64_MAX);
	forget(&fixture, 0, TO_END);
	assert_int_equal(page_store_users(fixture.pool.store, next), 1);
	pool_drop(&fixture.pool, next);
	fixture_close(&fixture);
}

static void forget_to_the_end_keeps_what_is_before(void **state)
{
	struct fixture fixture;

	(void)state;
	for (unsigned i = 1; i < SOME_PAGES; i++) {
		fixture_open(&fixture, MIB, 0);
		for (unsigned j = 0; j < SOME_PAGES; j++)
			assert_true(fill(&fixture, some_pages[j], j, 0));
		forget(&fixture, some_pages[i], TO_END);
		for (unsigned j = 0; j < SOME_PAGES; j++)
			assert_true(j < i ? is_content(&fixture, some_pages[j], j, 0)
					  : is_unknown(&fixture, some_pages[j]));
		fixture_close(&fixture);
	}
}

static void forget_of_nothing_changes_nothing(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture, MIB, 0);
	assert_true(fill(&fixture, 5, 1, 1));
	forget(&fixture, 5, 0);
	assert_true(is_content(&fixture, 5, 1, 1));
	fixture_close(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_map_knows_nothing),
		cmocka_unit_test(pages_of_any_number_are_held),
		cmocka_unit_test(one_look_sees_many_pages),
		cmocka_unit_test(fills_of_one_request_do_not_disturb_each_other),
		cmocka_unit_test(b2_a_fill_from_before_a_change_is_refused),
		cmocka_unit_test(b2_the_same_behind_the_end_of_the_tree),
		cmocka_unit_test(b2_a_ticket_of_a_known_page_dies_with_it),
		cmocka_unit_test(the_second_of_two_fills_is_refused),
		cmocka_unit_test(b2_no_version_is_used_twice),
		cmocka_unit_test(a_change_leaves_fills_elsewhere_alone),
		cmocka_unit_test(b3_a_slot_is_one_user_and_drops_it_once),
		cmocka_unit_test(b3_publishing_over_a_live_page_drops_it),
		cmocka_unit_test(b4_a_dead_frame_reads_as_unknown),
		cmocka_unit_test(b4_a_fill_of_a_dead_slot_from_before_a_change_is_refused),
		cmocka_unit_test(b4_a_stale_slot_leaves_the_next_life_alone),
		cmocka_unit_test(forget_to_the_end_keeps_what_is_before),
		cmocka_unit_test(forget_of_nothing_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
