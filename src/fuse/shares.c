/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shares.c - how much of a scarce resource one user may have
 *
 * Invariants, under the lock:
 *  - A user is in the table exactly while he has something. So the table has at most as many
 *    entries as units are taken.
 *  - taken is the sum of what all users in the table have; privileged is the sum of what the
 *    privileged ones have.
 */
#include "shares.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#define BUCKETS 256u

struct user {
	struct user *next;
	uint64_t has;
	uid_t uid;
};

struct shares {
	uint64_t budget;  /* constant */
	uint64_t reserve; /* constant */
	uid_t own;        /* constant */
	pthread_mutex_t lock;
	_Atomic uint64_t taken;        /* written under lock */
	uint64_t privileged;           /* under lock */
	struct user *buckets[BUCKETS]; /* under lock */
};

errint_t shares_new(uint64_t budget, uint64_t reserve, uid_t own, struct shares **ret_shares)
{
	struct shares *shares = calloc(1, sizeof(*shares));

	if (!shares)
		return -ENOMEM;
	shares->budget = budget;
	shares->reserve = reserve < budget ? reserve : budget;
	shares->own = own;
	pthread_mutex_init(&shares->lock, NULL);
	*ret_shares = shares;
	return 0;
}

void shares_free(struct shares *shares)
{
	struct user *user;

	if (!shares)
		return;
	for (unsigned i = 0; i < BUCKETS; i++)
		while ((user = shares->buckets[i])) {
			shares->buckets[i] = user->next;
			free(user);
		}
	pthread_mutex_destroy(&shares->lock);
	free(shares);
}

/* The link that points to UID's entry, or where it would be inserted. */
static struct user **find_locked(struct shares *shares, uid_t uid)
{
	struct user **link = &shares->buckets[uid % BUCKETS];

	while (*link && (*link)->uid != uid)
		link = &(*link)->next;
	return link;
}

static bool is_privileged(const struct shares *shares, uid_t uid)
{
	return uid == 0 || uid == shares->own;
}

/* Whether HAS and AMOUNT together do not exceed what TAKEN leaves of LIMIT. */
static bool fits(uint64_t has, uint64_t amount, uint64_t limit, uint64_t taken)
{
	return taken < limit && has + amount <= limit - taken;
}

static bool may_take_locked(const struct shares *shares, uid_t uid, uint64_t has, uint64_t amount)
{
	uint64_t taken = atomic_load_explicit(&shares->taken, memory_order_relaxed);
	uint64_t most = shares->budget - shares->reserve;

	if (!fits(0, amount, shares->budget, taken))
		return false;
	if (is_privileged(shares, uid))
		return fits(0, amount, most, shares->privileged);
	return fits(has, amount, most, taken) ||
	       fits(has, amount, shares->reserve, taken - shares->privileged);
}

static errint_t take_locked(struct shares *shares, uid_t uid, uint64_t amount, bool force)
{
	struct user **link = find_locked(shares, uid);
	struct user *user = *link;

	if (!force && !may_take_locked(shares, uid, user ? user->has : 0, amount))
		return -EAGAIN;
	if (!user) {
		user = calloc(1, sizeof(*user));
		if (!user)
			return -ENOMEM;
		user->uid = uid;
		*link = user;
	}
	user->has += amount;
	if (is_privileged(shares, uid))
		shares->privileged += amount;
	atomic_fetch_add_explicit(&shares->taken, amount, memory_order_relaxed);
	return 0;
}

static errint_t take(struct shares *shares, uid_t uid, uint64_t amount, bool force)
{
	errint_t error;

	pthread_mutex_lock(&shares->lock);
	error = take_locked(shares, uid, amount, force);
	pthread_mutex_unlock(&shares->lock);
	return error;
}

errint_t shares_take(struct shares *shares, uid_t uid, uint64_t amount)
{
	return take(shares, uid, amount, false);
}

errint_t shares_force(struct shares *shares, uid_t uid, uint64_t amount)
{
	return take(shares, uid, amount, true);
}

void shares_give(struct shares *shares, uid_t uid, uint64_t amount)
{
	struct user **link;
	struct user *user;

	pthread_mutex_lock(&shares->lock);
	link = find_locked(shares, uid);
	user = *link;
	user->has -= amount;
	if (is_privileged(shares, uid))
		shares->privileged -= amount;
	atomic_fetch_sub_explicit(&shares->taken, amount, memory_order_relaxed);
	if (!user->has) {
		*link = user->next;
		free(user);
	}
	pthread_mutex_unlock(&shares->lock);
}

uint64_t shares_taken(const struct shares *shares)
{
	return atomic_load_explicit(&shares->taken, memory_order_relaxed);
}
