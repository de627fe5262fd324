/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_family.c - what it costs to find a family, and memory to give back, beside many others
 *
 * The source of the table is in this file, with every step of a walk over its lists counted.
 */
#include "foldfs/writers.h"

#include "helpers.h"

#include <urcu/list.h>

static unsigned long steps;

#undef cds_list_for_each_entry
#define cds_list_for_each_entry(pos, head, member)                                                 \
	for (pos = cds_list_entry((head)->next, __typeof__(*(pos)), member);                       \
	     steps++, &(pos)->member != (head);                                                    \
	     pos = cds_list_entry((pos)->member.next, __typeof__(*(pos)), member))

#include "../../src/family/family.c"

enum { FAMILIES = 20000, PAGES = 2000 };

static struct family *families[FAMILIES];

static void remember(struct family *family, uint64_t page)
{
	fold_rcu_read_lock();
	family_remember(family, page, (struct frame_ref){.frame = 1, .generation = 1});
	fold_rcu_read_unlock();
}

/* One of 20,000 is found in a chain of a thousandth of them, and the two that remember anything at
 * once. */
static void a_family_is_found_beside_many(void **state)
{
	struct family_table *table;
	struct pool pool;

	(void)state;
	pool_open(&pool, 1 << 20, true);
	expect(!family_table_new(pool.store, &table));
	for (unsigned i = 0; i < FAMILIES; i++)
		expect((families[i] = family_get(table, i + 1, WRITERS_TRUSTED, PAGES)));
	steps = 0;
	expect(family_get(table, 7, WRITERS_TRUSTED, PAGES) == families[6]);
	family_put(families[6]);
	assert_in_range(steps, 1, FAMILIES / 500);
	remember(families[100], 0);
	remember(families[100], PAGES - 1);
	remember(families[200], 0);
	steps = 0;
	assert_int_equal(family_table_shrink(table, 1), sizeof(struct family_leaf));
	assert_int_equal(family_table_shrink(table, UINT64_MAX), 2 * sizeof(struct family_leaf));
	assert_int_equal(family_table_shrink(table, UINT64_MAX), 0);
	assert_in_range(steps, 0, 4);
	/* What was given back may be remembered again, and goes with its family. */
	remember(families[100], 0);
	remember(families[200], 0);
	for (unsigned i = 0; i < FAMILIES; i++)
		if (i != 200)
			family_put(families[i]);
	assert_int_equal(family_table_shrink(table, UINT64_MAX), sizeof(struct family_leaf));
	family_put(families[200]);
	fold_rcu_barrier();
	fold_rcu_barrier();
	assert_int_equal(family_table_bytes(table), 0);
	family_table_free(table);
	pool_close(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_family_is_found_beside_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
