/* SPDX-License-Identifier: Apache-2.0 */
/* test_shares.c - what one user may have of something scarce */
#include "fuse/shares.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define OWN 500u

static struct shares *make(uint64_t budget, uint64_t reserve)
{
	struct shares *shares = NULL;

	assert_int_equal(shares_new(budget, reserve, OWN, &shares), 0);
	return shares;
}

/* As many single units as UID gets. */
static unsigned take_all(struct shares *shares, uid_t uid)
{
	unsigned count = 0;

	while (!shares_take(shares, uid, 1))
		count++;
	return count;
}

static void one_user_gets_half(void **state)
{
	struct shares *shares = make(110, 10);

	(void)state;
	assert_int_equal(take_all(shares, 1001), 50);
	assert_int_equal(shares_taken(shares), 50);
	shares_free(shares);
}

static void newcomers_find_something(void **state)
{
	struct shares *shares = make(1034, 10);
	unsigned last = 1024;

	(void)state;
	for (uid_t uid = 1001; uid < 1011; uid++) {
		unsigned got = take_all(shares, uid);

		assert_true(got >= 1 && got < last);
		last = got;
	}
	shares_free(shares);
}

/* Taking in turns, N users end at 1/(N+1) each. */
static void users_get_equal_shares(void **state)
{
	struct shares *shares = make(400, 0);
	unsigned got[3] = {0};

	(void)state;
	for (unsigned turn = 0; turn < 400; turn++)
		got[turn % 3] += !shares_take(shares, 1001 + turn % 3, 1);
	for (unsigned user = 0; user < 3; user++)
		assert_in_range(got[user], 99, 100);
	shares_free(shares);
}

static void reserve_is_for_the_privileged(void **state)
{
	struct shares *shares = make(100, 20);
	unsigned others = 0;

	(void)state;
	for (uid_t uid = 1001; uid < 1200; uid++)
		others += take_all(shares, uid);
	assert_int_equal(others, 80);
	assert_int_equal(take_all(shares, OWN), 20);
	assert_int_equal(shares_take(shares, 0, 1), -EAGAIN);
	shares_give(shares, 1001, 10);
	assert_int_equal(take_all(shares, 1200), 0);
	assert_int_equal(take_all(shares, 0), 10);
	shares_free(shares);
}

/* Nor do the privileged leave the others nothing. */
static void as_much_is_for_the_others(void **state)
{
	struct shares *shares = make(100, 20);

	(void)state;
	assert_int_equal(take_all(shares, 0), 80);
	assert_int_equal(take_all(shares, OWN), 0);
	assert_int_equal(take_all(shares, 1001), 10);
	assert_int_equal(take_all(shares, 1002), 5);
	shares_give(shares, 0, 80);
	assert_int_equal(take_all(shares, OWN), 80);
	shares_free(shares);
}

static void what_is_given_back_can_be_taken(void **state)
{
	struct shares *shares = make(100, 0);

	(void)state;
	assert_int_equal(shares_take(shares, 1001, 40), 0);
	assert_int_equal(shares_take(shares, 1001, 40), -EAGAIN);
	/* What cannot be refused counts all the same. */
	assert_int_equal(shares_force(shares, 1001, 40), 0);
	assert_int_equal(shares_take(shares, 1002, 21), -EAGAIN);
	assert_int_equal(shares_take(shares, 1002, 10), 0);
	shares_give(shares, 1001, 80);
	assert_int_equal(shares_take(shares, 1001, 45), 0);
	shares_give(shares, 1001, 45);
	shares_give(shares, 1002, 10);
	assert_int_equal(shares_taken(shares), 0);
	shares_free(shares);
}

static void *take_and_give(void *argument)
{
	struct shares *shares = argument;

	for (unsigned i = 0; i < 20000; i++) {
		uid_t uid = 1000 + i % 300;

		if (!shares_take(shares, uid, 1 + i % 3))
			shares_give(shares, uid, 1 + i % 3);
	}
	return NULL;
}

static void threads_lose_nothing(void **state)
{
	struct shares *shares = make(64, 4);
	pthread_t threads[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, shares), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(shares_taken(shares), 0);
	assert_int_equal(take_all(shares, 1001), 30);
	shares_free(shares);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_user_gets_half),
		cmocka_unit_test(newcomers_find_something),
		cmocka_unit_test(users_get_equal_shares),
		cmocka_unit_test(reserve_is_for_the_privileged),
		cmocka_unit_test(as_much_is_for_the_others),
		cmocka_unit_test(what_is_given_back_can_be_taken),
		cmocka_unit_test(threads_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
