/* SPDX-License-Identifier: Apache-2.0 */
/* test_stats.c - nothing that is counted is lost, however many count */
#include "helpers.h"

static void counters_are_apart(void **state)
{
	struct stats *stats = stats_new();
	struct stats *other = stats_new();

	(void)state;
	expect(stats && other);
	for (enum stat_id id = 0; id < STAT_COUNT; id++) {
		assert_int_equal(stats_sum(stats, id), 0);
		stats_add(stats, id, (uint64_t)1 << (id + 30));
		stats_add(stats, id, 1);
	}
	for (enum stat_id id = 0; id < STAT_COUNT; id++) {
		assert_int_equal(stats_sum(stats, id), ((uint64_t)1 << (id + 30)) + 1);
		assert_int_equal(stats_sum(other, id), 0);
	}
	stats_free(other);
	stats_free(stats);
}

static void count(void *context, unsigned index)
{
	for (unsigned i = 0; i < ROUNDS(80000); i++) {
		stats_add(context, STAT_HITS, 1);
		stats_add(context, STAT_MISSES, index);
	}
}

static void nothing_is_lost(void **state)
{
	struct stats *stats = stats_new();

	(void)state;
	expect(stats);
	/* More threads in all than there can be places of their own. */
	for (unsigned crew = 0; crew < 5; crew++)
		crew_run(CREW_MAX, count, stats);
	assert_int_equal(stats_sum(stats, STAT_HITS), 5ul * CREW_MAX * ROUNDS(80000));
	assert_int_equal(stats_sum(stats, STAT_MISSES),
			 5ul * (CREW_MAX * (CREW_MAX - 1) / 2) * ROUNDS(80000));
	stats_free(stats);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counters_are_apart),
		cmocka_unit_test(nothing_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
