/* SPDX-License-Identifier: Apache-2.0 */
/*
 * range_lock.h - writers of overlapping ranges of one file go one after the other
 *
 * Keeps writers of one page in the same order on the source and in the slot (DESIGN, "Page map").
 * Readers and fills never take it. Overlapping holds are served first come, first served. The list
 * is as long as the number of writers at work on one file, so it is searched front to back.
 */
#ifndef FOLDFS_RANGE_LOCK_H
#define FOLDFS_RANGE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

struct range_lock {
	pthread_mutex_t mutex;
	pthread_cond_t released;
	struct cds_list_head holders; /* struct range_hold in order of arrival; under mutex */
};

/* On the holder's stack, from lock to unlock. */
struct range_hold {
	struct cds_list_head link; /* under the lock's mutex */
	uint64_t first;
	uint64_t last; /* inclusive */
};

void range_lock_init(struct range_lock *lock);
void range_lock_destroy(struct range_lock *lock);

/* Wait until no earlier hold overlaps FIRST..LAST (both inclusive; the unit is the caller's), then
 * hold that range. Blocks. Not from a thread that already holds an overlapping range of LOCK. */
void range_lock_lock(struct range_lock *lock, struct range_hold *hold, uint64_t first,
		     uint64_t last);
void range_lock_unlock(struct range_lock *lock, struct range_hold *hold);

#endif
