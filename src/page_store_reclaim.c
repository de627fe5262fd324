/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_store_reclaim.c - the reclaimer: frames are free before they are wanted
 *
 * One thread evicts, waits for grace periods, gives frames memory ahead of their first use, and has
 * the index grow. It takes the same store's lock as fills do. So what it does in one hold is
 * bounded, and what can be done without the lock is.
 *
 * Eviction chooses frames by taking them out of their queue, under the lock, and ends their lives
 * without it. The last user of a chosen frame may drop it at the same time: the thread that ends
 * the frame's life brings it to limbo (page_store.c).
 */
#include "page_store_internal.h"

#include "foldfs/counters.h"
#include "foldfs/rcu.h"

#include <sched.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* What one hold of the lock does at most: choose EVICT_BATCH frames to evict, look at this many for
 * that, make this many free. */
#define EVICT_LOOKS 256u
#define FREE_BATCH  256u
/* Frames that are evicted although in use, if all that were looked at are in use. */
#define EVICT_FORCED 16u

static bool evicts_enough_locked(const struct page_store *store, unsigned chosen)
{
	return page_store_available_locked(store) + store->limbo_count + chosen >=
	       2 * store->reserve;
}

/*
 * Take frames that are to be evicted out of their queues: VICTIMS, EVICT_BATCH at most.
 *
 * If everything is in use, a frame is found only after the whole pool has cooled down, lap by lap.
 * That goes on while takers have enough. When half of the reserve is gone, or after a lap (*LOOKED
 * frames), the eldest are evicted as they are: they are no more in use than others.
 */
static unsigned choose_victims_locked(struct page_store *store, uint32_t victims[],
				      uint64_t *looked)
{
	unsigned looks = EVICT_LOOKS;
	unsigned count = 0;
	uint32_t frame = 0;

	while (count < EVICT_BATCH && frame != FRAME_NONE && !evicts_enough_locked(store, count)) {
		frame = frame_queue_victim(&store->queue, &looks);
		if (frame != FRAME_NONE)
			victims[count++] = frame;
	}
	*looked += EVICT_LOOKS - looks;
	if (!count && (page_store_available_locked(store) < store->reserve / 2 ||
		       *looked > store->frames_total))
		while (count < EVICT_FORCED &&
		       (frame = frame_queue_eldest(&store->queue)) != FRAME_NONE)
			victims[count++] = frame;
	store->moves++;
	return count;
}

/* Only their users know the victims, and may end their lives as well. None of them can be free, and
 * another thread's, before the reclaimer's next look at limbo. */
void page_store_evict_locked(struct page_store *store, uint32_t victims[], unsigned count)
{
	uint32_t generations[EVICT_BATCH];
	unsigned evicted = 0;
	unsigned i;

	pthread_mutex_unlock(&store->lock);
	if (!count)
		sched_yield(); /* otherwise waiting threads would hardly get the lock */
	for (i = 0; i < count; i++)
		if (page_store_end_life(store, victims[i], &generations[evicted]))
			victims[evicted++] = victims[i];
	counters_add(store->counters, COUNTER_EVICTIONS, evicted);
	pthread_mutex_lock(&store->lock);
	for (i = 0; i < evicted; i++)
		page_store_to_limbo_locked(store, victims[i], generations[i]);
}

/* Evict until twice the reserve is free or on its way. Gives the lock up between batches. */
static void evict_for_reserve_locked(struct page_store *store)
{
	uint32_t victims[EVICT_BATCH];
	uint64_t looked = 0;
	unsigned count;

	if (page_store_available_locked(store) >= store->reserve)
		return;
	while (!store->stopping && !evicts_enough_locked(store, 0) &&
	       (store->queue.small.length || store->queue.main.length)) {
		fold_rcu_read_lock();
		count = choose_victims_locked(store, victims, &looked);
		page_store_evict_locked(store, victims, count);
		fold_rcu_read_unlock();
	}
}

void page_store_empty_limbo_locked(struct page_store *store)
{
	uint32_t frame = store->limbo_first;
	unsigned freed = 0;
	uint32_t next;

	if (frame == FRAME_NONE)
		return;
	store->limbo_first = FRAME_NONE;
	pthread_mutex_unlock(&store->lock);
	fold_rcu_synchronize();
	pthread_mutex_lock(&store->lock);
	for (; frame != FRAME_NONE; frame = next) {
		next = store->metas[frame].next;
		store->limbo_count--;
		page_store_push_free_locked(store, frame);
		if (++freed % FREE_BATCH)
			continue;
		pthread_mutex_unlock(&store->lock);
		sched_yield();
		pthread_mutex_lock(&store->lock);
	}
}

/* Give the next frames memory, so that the thread which fills them does not wait for it to be
 * cleared. The lock is given up meanwhile. */
static void touch_stock_locked(struct page_store *store)
{
	uint32_t first = store->touched;
	uint32_t left = store->frames_total > first ? store->frames_total - first : 0;
	uint32_t count = left < PAGE_STORE_STOCK ? left : PAGE_STORE_STOCK;

	store->touched += count;
	pthread_mutex_unlock(&store->lock);
	/* Kernels before 5.14 cannot; there the first use gives the memory. */
	(void)madvise(page_store_bytes(store, first), (size_t)count << FOLD_PAGE_SHIFT,
		      MADV_POPULATE_WRITE);
	pthread_mutex_lock(&store->lock);
}

static void *reclaim(void *argument)
{
	struct page_store *store = argument;

	fold_rcu_register();
	pthread_mutex_lock(&store->lock);
	while (!store->stopping) {
		while (!page_store_wants_reclaimer_locked(store))
			pthread_cond_wait(&store->wanted, &store->lock);
		if (store->adjusts)
			page_store_adjust_locked(store);
		if (page_store_wants_stock_locked(store))
			touch_stock_locked(store);
		evict_for_reserve_locked(store);
		page_store_empty_limbo_locked(store);
		if (hash_index_wants_to_grow(store->index)) {
			pthread_mutex_unlock(&store->lock);
			hash_index_grow(store->index);
			pthread_mutex_lock(&store->lock);
		}
	}
	pthread_mutex_unlock(&store->lock);
	return NULL;
}

errint_t page_store_start(struct page_store *store)
{
	int error = pthread_create(&store->reclaimer, NULL, reclaim, store);

	store->running = !error;
	return -error;
}
