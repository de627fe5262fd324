/* SPDX-License-Identifier: Apache-2.0 */
/* test_page_map_cost.c - what a page map costs, gives back, and does when there is no memory */
#include "page_map_fixture.h"

static void zero_stretches_cost_nothing(void **state)
{
	const uint64_t base = (uint64_t)1 << 30; /* page: 4 TiB into the file */
	const unsigned pages = ROUNDS(2 * GIB_PAGES);
	struct fixture fixture;
	uint64_t before;

	(void)state;
	fixture_open(&fixture, MIB, (uint64_t)8 << 40);
	before = page_map_memory_bytes(fixture.memory);
	assert_true(before - fixture.empty_bytes < 1024);
	for (uint64_t page = base; page < base + pages; page++)
		assert_true(fill_zero(&fixture, page));
	/* A path of nodes down to the stretch's ends, whatever its length. */
	assert_true(settled_bytes(&fixture) - before < 8 * 1024);
	assert_int_equal(page_map_memory_zero_pages(fixture.memory), pages);
	assert_int_equal(pool_usage(&fixture.pool).frames_used, 0);
	assert_true(is_zero(&fixture, base) && is_zero(&fixture, base + pages - 1));
	assert_true(is_unknown(&fixture, base - 1) && is_unknown(&fixture, base + pages));
	/* In the midst of it a page changes, and is zero again. */
	break_page(&fixture, base + 12345, own_content(&fixture, 1, 1));
	assert_int_equal(page_map_memory_zero_pages(fixture.memory), pages - 1);
	assert_true(is_zero(&fixture, base + 12344) && is_zero(&fixture, base + 12346));
	forget(&fixture, base + 500, 1000);
	assert_int_equal(page_map_memory_zero_pages(fixture.memory), pages - 1001);
	assert_true(is_zero(&fixture, base + 499) && is_unknown(&fixture, base + 500));
	assert_true(is_zero(&fixture, base + 1500) && is_unknown(&fixture, base + 1499));
	break_zero(&fixture, base + 12345);
	forget(&fixture, 0, TO_END);
	assert_int_equal(page_map_memory_zero_pages(fixture.memory), 0);
	fixture_close(&fixture);
}

static void a_page_costs_eight_bytes(void **state)
{
	const unsigned pages = ROUNDS(65536);
	struct fixture fixture;
	uint64_t before;
	uint64_t taken;

	(void)state;
	fixture_open(&fixture, 4 * MIB, (uint64_t)pages << FOLD_PAGE_SHIFT);
	before = page_map_memory_bytes(fixture.memory);
	for (uint64_t page = 0; page < pages; page++)
		assert_true(fill(&fixture, page, mix64(page) % 512, 0));
	taken = settled_bytes(&fixture) - before;
	print_message("%.2f bytes for each page\n", (double)taken / pages);
	assert_true(taken <= pages * 9 + 4096);
	for (uint64_t page = 0; page < pages; page++)
		assert_true(is_content(&fixture, page, mix64(page) % 512, 0));
	fixture_close(&fixture);
}

/* Content that is read in one go lies in neighbouring frames. However it is kept, every slot is
 * still one user, and any of them can change. */
static void pages_in_neighbouring_frames_change_one_by_one(void **state)
{
	enum { PAGES = 512, CHANGED = 256 };
	struct fixture fixture;
	struct frame_ref refs[PAGES];

	(void)state;
	fixture_open(&fixture, 16 * MIB, PAGES * FOLD_PAGE_SIZE);
	for (unsigned page = 0; page < PAGES; page++) {
		refs[page] = content(&fixture, page, 1);
		assert_true(fill(&fixture, page, page, 1));
	}
	for (unsigned page = 0; page < PAGES; page++)
		assert_int_equal(page_store_users(fixture.pool.store, refs[page]), 2);
	for (unsigned page = 5; page < CHANGED; page += 37) {
		if (page % 3 == 0)
			forget(&fixture, page, 1);
		else if (page % 3 == 1)
			break_zero(&fixture, page);
		else
			break_page(&fixture, page, own_content(&fixture, page, 2));
	}
	for (unsigned page = 0; page < PAGES; page++) {
		bool changed = page < CHANGED && page % 37 == 5;

		assert_int_equal(page_store_users(fixture.pool.store, refs[page]), changed ? 1 : 2);
		assert_int_equal(is_content(&fixture, page, page, 1), !changed);
		if (!changed && page < CHANGED + 64 && page % 64 == 9) {
			kill_frame(&fixture, refs[page]);
			assert_true(is_unknown(&fixture, page));
		}
	}
	/* Some are forgotten in a row, the last go with the map. */
	forget(&fixture, CHANGED, 128);
	for (unsigned page = 0; page < PAGES; page++)
		pool_drop(&fixture.pool, refs[page]);
	assert_true(pool_usage(&fixture.pool).frames_used >= PAGES - CHANGED - 128);
	fixture_close(&fixture);
}

/* Writes all over a file that nobody reads: a node for each 16 MiB, and those above them. */
static void what_is_only_written_costs_little(void **state)
{
	const uint64_t pages = (uint64_t)8 * GIB_PAGES;
	struct rng rng = rng_of_test(__func__);
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture, MIB, pages << FOLD_PAGE_SHIFT);
	for (unsigned i = 0; i < 20000; i++)
		forget(&fixture, rng_below(&rng, pages), 1 + rng_below(&rng, 3));
	assert_in_range(settled_bytes(&fixture) - fixture.empty_bytes, 0, 300 * 1024);
	/* And that can be given back. */
	while (shrink(&fixture, UINT64_MAX))
		;
	assert_in_range(settled_bytes(&fixture) - fixture.empty_bytes, 0, 1024);
	fixture_close(&fixture);
}

/* R.5: who forgets a large map does a little of it, and has its memory out of the account at once;
 * the rest is done in the background. */
static void a_large_map_is_forgotten_by_and_by(void **state)
{
	const unsigned pages = ROUNDS(65536);
	struct fixture fixture;
	struct frame_ref ref;

	(void)state;
	for (unsigned way = 0; way < 3; way++) {
		fixture_open(&fixture, MIB, (uint64_t)pages << FOLD_PAGE_SHIFT);
		ref = content(&fixture, 1, 1);
		for (uint64_t page = 0; page < pages; page++)
			assert_true(fill(&fixture, page, 1, 1));
		assert_true(page_map_bytes(fixture.map) > pages * 8);
		fold_rcu_read_lock();
		if (way < 2)
			page_map_forget(fixture.map, way, UINT64_MAX - way);
		else
			page_map_shrink(fixture.map, UINT64_MAX);
		/* Grace periods, and so the background, wait for this read side. */
		expect(page_store_users(fixture.pool.store, ref) > pages - 4096);
		expect(page_map_memory_in_use(fixture.memory) - fixture.empty_bytes < 4096);
		expect(page_map_bytes(fixture.map) < 4096);
		fold_rcu_read_unlock();
		for (uint64_t page = 1; page < pages; page += 777)
			assert_true(is_unknown(&fixture, page));
		wait_for(page_store_users(fixture.pool.store, ref) <= 2);
		forget(&fixture, 0, TO_END);
		pool_drop(&fixture.pool, ref);
		fixture_close(&fixture);
	}
}

static void shrink_gives_back_what_it_says(void **state)
{
	enum { PAGES = 8192 };
	struct fixture fixture;
	uint64_t freed;
	uint64_t bytes;

	(void)state;
	fixture_open(&fixture, MIB, PAGES * FOLD_PAGE_SIZE);
	assert_int_equal(shrink(&fixture, 1), 0);
	for (uint64_t page = 0; page < PAGES; page++)
		if (page % 64 == 3)
			assert_true(fill_zero(&fixture, page));
		else
			assert_true(fill(&fixture, page, page * 7 % 50, 0));
	bytes = settled_bytes(&fixture);
	while (bytes > fixture.empty_bytes + 2048) {
		freed = shrink(&fixture, 4096);
		assert_true(freed > 0);
		assert_int_equal(bytes - settled_bytes(&fixture), freed);
		bytes -= freed;
		/* "At least", but not all at once: a little is asked, a little goes. */
		assert_true(freed >= 4096 || bytes < 8192);
		assert_true(freed <= 16 * 1024);
	}
	for (uint64_t page = 0; page < PAGES; page++)
		assert_true(is_unknown(&fixture, page) || is_zero(&fixture, page) ||
			    is_content(&fixture, page, page * 7 % 50, 0));
	fixture_close(&fixture);
}

/* ---- no memory ---- */

/* Never wrong: refused, or unknown. */
static void without_memory_pages_become_unknown(void **state)
{
	struct fixture fixture;

	(void)state;
	for (long after = 0; after < 6; after++) {
		struct frame_ref ref;
		uint64_t ticket;

		fixture_open(&fixture, MIB, 0);
		for (uint64_t page = 0; page < 64 * 64; page++)
			assert_true(fill_zero(&fixture, page));
		ticket = look_at(&fixture, 100000).ticket;
		ref = content(&fixture, 1, 1);
		faults_fail_allocations(after);
		if (publish_with(&fixture, 100000, ticket, ref))
			expect(is_content(&fixture, 100000, 1, 1));
		faults_fail_allocations(-1);
		ref = own_content(&fixture, 2, 2);
		faults_fail_allocations(after);
		break_page(&fixture, 70, ref);
		forget(&fixture, 2000, 10);
		break_zero(&fixture, 3000);
		faults_fail_allocations(-1);
		assert_true(is_unknown(&fixture, 70) || is_content(&fixture, 70, 2, 2));
		for (uint64_t page = 2000; page < 2010; page++)
			assert_true(is_unknown(&fixture, page));
		assert_true(is_unknown(&fixture, 3000) || is_zero(&fixture, 3000));
		assert_true(is_unknown(&fixture, 1) || is_zero(&fixture, 1));
		forget(&fixture, 100000, 1);
		faults_fail_allocations(after);
		assert_false(publish_with(&fixture, 100000, ticket, (struct frame_ref){0, 99}));
		faults_fail_allocations(-1);
		fixture_close(&fixture);
	}
}

static void a_new_map_may_fail(void **state)
{
	struct fixture fixture;
	struct page_map *map = NULL;

	(void)state;
	fixture_open(&fixture, MIB, 0);
	faults_fail_allocations(0);
	expect(page_map_new(fixture.memory, 4096, &map) == -ENOMEM);
	faults_fail_allocations(-1);
	assert_null(map);
	fixture_close(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zero_stretches_cost_nothing),
		cmocka_unit_test(a_page_costs_eight_bytes),
		cmocka_unit_test(pages_in_neighbouring_frames_change_one_by_one),
		cmocka_unit_test(what_is_only_written_costs_little),
		cmocka_unit_test(a_large_map_is_forgotten_by_and_by),
		cmocka_unit_test(shrink_gives_back_what_it_says),
		cmocka_unit_test(without_memory_pages_become_unknown),
		cmocka_unit_test(a_new_map_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
