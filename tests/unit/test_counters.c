/* SPDX-License-Identifier: Apache-2.0 */
/* test_counters.c - nothing that is counted is lost, however many count */
#include "helpers.h"

static void counters_are_apart(void **state)
{
	struct counters *counters = counters_new();
	struct counters *other = counters_new();

	(void)state;
	expect(counters && other);
	for (enum counter_id id = 0; id < COUNTER_COUNT; id++) {
		assert_int_equal(counters_sum(counters, id), 0);
		counters_add(counters, id, (uint64_t)1 << (id + 30));
		counters_add(counters, id, 1);
	}
	for (enum counter_id id = 0; id < COUNTER_COUNT; id++) {
		assert_int_equal(counters_sum(counters, id), ((uint64_t)1 << (id + 30)) + 1);
		assert_int_equal(counters_sum(other, id), 0);
	}
	counters_free(other);
	counters_free(counters);
}

static void count(void *context, unsigned index)
{
	for (unsigned i = 0; i < ROUNDS(80000); i++) {
		counters_add(context, COUNTER_HITS, 1);
		counters_add(context, COUNTER_MISSES, index);
	}
}

static void nothing_is_lost(void **state)
{
	struct counters *counters = counters_new();

	(void)state;
	expect(counters);
	/* More threads in all than there can be places of their own. */
	for (unsigned crew = 0; crew < 5; crew++)
		crew_run(CREW_MAX, count, counters);
	assert_int_equal(counters_sum(counters, COUNTER_HITS), 5ul * CREW_MAX * ROUNDS(80000));
	assert_int_equal(counters_sum(counters, COUNTER_MISSES),
			 5ul * (CREW_MAX * (CREW_MAX - 1) / 2) * ROUNDS(80000));
	counters_free(counters);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counters_are_apart),
		cmocka_unit_test(nothing_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
