/* SPDX-License-Identifier: Apache-2.0 */
/*
 * range_lock.c - a list of holds in order of arrival
 *
 * A hold waits for every overlapping hold that came before it. So overlapping writers are served in
 * order and none starves. A hold never waits for a later one, so there is no cycle.
 */
#include "foldfs/range_lock.h"

void range_lock_init(struct range_lock *lock)
{
	pthread_mutex_init(&lock->mutex, NULL);
	pthread_cond_init(&lock->released, NULL);
	CDS_INIT_LIST_HEAD(&lock->holders);
}

void range_lock_destroy(struct range_lock *lock)
{
	pthread_cond_destroy(&lock->released);
	pthread_mutex_destroy(&lock->mutex);
}

/* Whether a hold that came before HOLD overlaps it. Under the mutex. */
static bool must_wait_locked(const struct range_lock *lock, const struct range_hold *hold)
{
	const struct range_hold *other;

	cds_list_for_each_entry (other, &lock->holders, link) {
		if (other == hold)
			return false;
		if (other->first <= hold->last && hold->first <= other->last)
			return true;
	}
	return false;
}

void range_lock_lock(struct range_lock *lock, struct range_hold *hold, uint64_t first,
		     uint64_t last)
{
	hold->first = first;
	hold->last = last;
	pthread_mutex_lock(&lock->mutex);
	cds_list_add_tail(&hold->link, &lock->holders);
	while (must_wait_locked(lock, hold))
		pthread_cond_wait(&lock->released, &lock->mutex);
	pthread_mutex_unlock(&lock->mutex);
}

void range_lock_unlock(struct range_lock *lock, struct range_hold *hold)
{
	bool others;

	pthread_mutex_lock(&lock->mutex);
	cds_list_del(&hold->link);
	others = !cds_list_empty(&lock->holders);
	pthread_mutex_unlock(&lock->mutex);
	if (others)
		pthread_cond_broadcast(&lock->released);
}
