/* SPDX-License-Identifier: Apache-2.0 */
/* test_distinct.c - different digests are counted exactly while they fit, and estimated beyond */
#include "scan/distinct.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* As good as random, and each number once: splitmix64 is a permutation. */
static uint64_t digest_of(uint64_t number)
{
	uint64_t z = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* COUNT different ones; every third comes three times, the second and third time with weight 5. */
static struct distinct *filled(uint64_t bytes, uint64_t count)
{
	struct distinct *sample;

	assert_int_equal(distinct_new(bytes, &sample), 0);
	for (uint64_t i = 0; i < count; i++) {
		assert_int_equal(distinct_add(sample, digest_of(i), 1), 0);
		for (int again = 0; again < 2 && i % 3 == 0; again++)
			assert_int_equal(distinct_add(sample, digest_of(i), 5), 0);
	}
	return sample;
}

static void what_fits_is_exact(void **state)
{
	struct distinct *sample = filled(16 << 20, 300000);
	double error;

	(void)state;
	assert_true(distinct_share(sample) == 1);
	assert_true(distinct_count(sample, &error) == 300000);
	assert_true(error == 0);
	assert_true(distinct_repeated(sample) == 100000 * 10);
	assert_int_equal(distinct_find(sample, digest_of(0)), DISTINCT_MANY);
	assert_int_equal(distinct_find(sample, digest_of(1)), DISTINCT_ONCE);
	assert_int_equal(distinct_find(sample, digest_of(300000)), DISTINCT_NONE);
	distinct_free(sample);
}

static void what_does_not_fit_is_within_its_error(void **state)
{
	struct distinct *sample = filled(256 << 10, 400000);
	unsigned found[DISTINCT_LEFT_OUT + 1] = {0};
	double error;
	double distinct = distinct_count(sample, &error);

	(void)state;
	assert_true(distinct_share(sample) <= 1.0 / 16);
	assert_true(error > 0 && error < 400000 / 20);
	assert_true(fabs(distinct - 400000) < 5 * error);
	assert_true(fabs(distinct_repeated(sample) - 400000 / 3.0 * 10) < 5 * 4 * error * 10);
	for (uint64_t i = 0; i < 400000; i++) {
		enum distinct_found is = distinct_find(sample, digest_of(i));

		found[is]++;
		/* What is in the sample is known as it is. */
		assert_true(is == DISTINCT_LEFT_OUT ||
			    is == (i % 3 == 0 ? DISTINCT_MANY : DISTINCT_ONCE));
	}
	assert_true((found[DISTINCT_ONCE] + found[DISTINCT_MANY]) / distinct_share(sample) ==
		    distinct);
	distinct_free(sample);
}

static void a_lower_limit_is_kept_from_the_next_addition_on(void **state)
{
	struct distinct *sample = filled(16 << 20, 300000);
	double error;

	(void)state;
	distinct_limit(sample, 256 << 10);
	/* One that is at any level. */
	assert_int_equal(distinct_add(sample, 7, 1), 0);
	assert_true(distinct_share(sample) <= 1.0 / 16);
	assert_true(fabs(distinct_count(sample, &error) - 300001) < 5 * error);
	assert_true(fabs(distinct_repeated(sample) - 1000000) < 5 * 4 * error * 10);
	distinct_free(sample);
}

static void the_digest_zero_is_one_like_others(void **state)
{
	struct distinct *sample;
	double error;

	(void)state;
	assert_int_equal(distinct_new(0, &sample), 0);
	assert_int_equal(distinct_find(sample, 0), DISTINCT_NONE);
	assert_int_equal(distinct_add(sample, 0, 1), 0);
	assert_int_equal(distinct_find(sample, 0), DISTINCT_ONCE);
	assert_int_equal(distinct_add(sample, 0, 1), 0);
	assert_int_equal(distinct_find(sample, 0), DISTINCT_MANY);
	assert_true(distinct_count(sample, &error) == 1);
	distinct_free(sample);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_fits_is_exact),
		cmocka_unit_test(what_does_not_fit_is_within_its_error),
		cmocka_unit_test(a_lower_limit_is_kept_from_the_next_addition_on),
		cmocka_unit_test(the_digest_zero_is_one_like_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
