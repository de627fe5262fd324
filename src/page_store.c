/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_store.c - the pool
 *
 * Who decides over a frame's life is one word, frame_meta.life (generation, users):
 *
 *   state   users  left by
 *   free    0      page_store_take(): off the free list, under the lock
 *   taken   0      publish: (g, 0) -> (g, 1), a store; give_back: to the free list
 *   live    > 0    share: (g, n) -> (g, n+1); drop: (g, n) -> (g, n-1);
 *                  the last drop or eviction: (g, n) -> (g+1, 0), by compare-and-swap
 *   limbo   0      the reclaimer, after a grace period that began when the frame was in limbo
 *
 * Whoever makes the step to limbo owns what follows: out of the index, out of the queue, on to the
 * limbo list. Everybody else finds the generation moved on (A.3): no reverse map is kept or
 * searched.
 *
 * Why a stale read is safe: bytes of a live frame are constant (A.1), and its memory is written
 * again only by a taker, after the frame was on the free list, after a grace period (A.2).
 *
 * Lock order: page_store.lock is a leaf; nothing is locked while it is held.
 */
#include "foldfs/page_store.h"

#include "foldfs/frame_queue.h"
#include "foldfs/rcu.h"
#include "foldfs/stats.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Frames kept free for takers, so that eviction runs ahead of them: 1/64 of the pool, in bounds. */
#define RESERVE_MIN 32u
#define RESERVE_MAX 4096u
/* Frames that are given memory ahead of their first use: 4 MiB, two huge pages. */
#define STOCK 1024u
/* What one hold of the lock does at most: so many frames are chosen to be evicted, so many are
 * looked at for that, so many become free. */
#define EVICT_BATCH 64u
#define EVICT_LOOKS 256u
#define FREE_BATCH  256u
/* Frames that are evicted though in use, where all that were looked at are. */
#define EVICT_FORCED 16u

/* Of a cache, and the one that is fetched along with it. */
#define LINES 128

struct page_store {
	/* What every hit reads; constant, and on no line that anybody writes. Two lines are kept
	 * apart where one would do, as in stats.c. */
	uint8_t *bytes;           /* frames_total * 4096; constant pointer until the end */
	struct frame_meta *metas; /* frames_total; constant pointer */
	uint32_t frames_total;
	uint32_t reserve;
	struct hash_index *index;
	struct stats *stats;

	/* Gauges: relaxed, each change made by whoever made the step in `life`. What every fill
	 * writes, and what sharing does. */
	_Alignas(LINES) _Atomic uint64_t used;
	_Atomic uint64_t own;
	_Alignas(LINES) _Atomic uint64_t shared;
	_Atomic uint64_t sharing;

	_Alignas(LINES) pthread_mutex_t lock;
	pthread_cond_t wanted;    /* the reclaimer sleeps here */
	struct frame_queue queue; /* under lock */
	uint32_t free_first;      /* list by meta.next; under lock */
	uint32_t free_count;      /* under lock */
	uint32_t limbo_first;     /* list by meta.next; under lock */
	uint32_t limbo_count;     /* under lock */
	_Atomic uint32_t fresh;   /* frames from here on were never used; changed under lock */
	_Atomic uint32_t touched; /* frames below have memory; changed under lock */
	uint64_t moves;           /* of frames between lists, for the audit; under lock */
	bool stopping;            /* under lock */
	bool running;             /* main thread only */
	pthread_t reclaimer;
};

static uint64_t life_of(uint32_t generation, uint32_t users)
{
	return (uint64_t)generation << 32 | users;
}

static struct frame_meta *meta_of_node(const struct hash_index_node *node)
{
	return caa_container_of(node, struct frame_meta, node);
}

static uint32_t frame_of(const struct page_store *store, const struct frame_meta *meta)
{
	return (uint32_t)(meta - store->metas);
}

static const void *index_bytes(void *owner, const struct hash_index_node *node)
{
	struct page_store *store = owner;
	const struct frame_meta *meta = meta_of_node(node);

	if (!frame_users(atomic_load_explicit(&meta->life, memory_order_acquire)))
		return NULL;
	return page_store_bytes(store, frame_of(store, meta));
}

static void index_collision(void *owner)
{
	struct page_store *store = owner;

	stats_add(store->stats, STAT_DIGEST_COLLISIONS, 1);
}

static void *map_lazily(uint64_t length)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static errint_t map_memory(struct page_store *store)
{
	uint64_t bytes = (uint64_t)store->frames_total << FOLD_PAGE_SHIFT;

	store->bytes = map_lazily(bytes);
	if (!store->bytes)
		return -ENOMEM;
	/* Frames are handed out from the bottom, so huge pages are filled before the next is
	 * touched. A core dump without the pool is still a useful one. Both are advice. */
	(void)madvise(store->bytes, bytes, MADV_HUGEPAGE);
	(void)madvise(store->bytes, bytes, MADV_DONTDUMP);
	store->metas = map_lazily((uint64_t)store->frames_total * sizeof(*store->metas));
	return store->metas ? frame_queue_init(&store->queue, store->metas, store->frames_total)
			    : -ENOMEM;
}

static void unmap_frames(struct page_store *store)
{
	if (store->bytes)
		munmap(store->bytes, (uint64_t)store->frames_total << FOLD_PAGE_SHIFT);
	store->bytes = NULL;
}

static void unmap_memory(struct page_store *store)
{
	if (store->queue.ghost && store->queue.ghost != MAP_FAILED)
		frame_queue_destroy(&store->queue);
	if (store->metas)
		munmap(store->metas, (uint64_t)store->frames_total * sizeof(*store->metas));
	unmap_frames(store);
}

errint_t page_store_new(uint64_t pool_bytes, struct stats *stats, struct page_store **ret_store)
{
	struct hash_index_owner owner = {.bytes = index_bytes, .collision = index_collision};
	struct page_store *store;
	errint_t error;

	if (pool_bytes < PAGE_STORE_MIN_BYTES || pool_bytes > PAGE_STORE_MAX_BYTES)
		return -EINVAL;
	store = aligned_alloc(LINES, sizeof(*store));
	if (!store)
		return -ENOMEM;
	memset(store, 0, sizeof(*store));
	store->frames_total = (uint32_t)(pool_bytes >> FOLD_PAGE_SHIFT);
	store->reserve = store->frames_total / 64;
	if (store->reserve < RESERVE_MIN)
		store->reserve = RESERVE_MIN;
	if (store->reserve > RESERVE_MAX)
		store->reserve = RESERVE_MAX;
	store->stats = stats;
	store->free_first = FRAME_NONE;
	store->limbo_first = FRAME_NONE;
	pthread_mutex_init(&store->lock, NULL);
	pthread_cond_init(&store->wanted, NULL);
	owner.owner = store;
	error = map_memory(store);
	if (!error)
		error = hash_index_new(store->frames_total, &owner, &store->index);
	if (error) {
		unmap_memory(store);
		free(store);
		return error;
	}
	*ret_store = store;
	return 0;
}

/* Frames that a taker could have now. Under the lock. */
static uint32_t available_locked(const struct page_store *store)
{
	return store->free_count + store->frames_total -
	       atomic_load_explicit(&store->fresh, memory_order_relaxed);
}

/* Whether frames that were never used are about to be handed out without memory behind them. */
static bool wants_stock_locked(const struct page_store *store)
{
	return store->touched < store->frames_total && store->touched - store->fresh < STOCK / 2;
}

static bool wants_reclaimer_locked(const struct page_store *store)
{
	if (store->stopping || hash_index_wants_to_grow(store->index) || wants_stock_locked(store))
		return true;
	/* One grace period serves many frames: a few in limbo can wait while others are free. */
	if (available_locked(store) >= store->reserve)
		return store->limbo_count >= store->reserve;
	return store->limbo_count || store->queue.small.length || store->queue.main.length;
}

static void push_free_locked(struct page_store *store, uint32_t frame)
{
	store->metas[frame].next = store->free_first;
	store->metas[frame].where = FRAME_FREE;
	store->free_first = frame;
	store->free_count++;
}

unsigned page_store_take(struct page_store *store, uint32_t frames[], unsigned count)
{
	unsigned taken = 0;
	bool low;

	pthread_mutex_lock(&store->lock);
	while (taken < count && store->free_first != FRAME_NONE) {
		frames[taken] = store->free_first;
		store->metas[frames[taken]].where = FRAME_OUTSIDE;
		store->free_first = store->metas[frames[taken++]].next;
		store->free_count--;
	}
	while (taken < count && store->fresh < store->frames_total)
		frames[taken++] = store->fresh++;
	if (store->touched < store->fresh)
		store->touched = store->fresh;
	store->moves += taken != 0;
	low = wants_reclaimer_locked(store);
	pthread_mutex_unlock(&store->lock);
	if (low)
		pthread_cond_signal(&store->wanted);
	return taken;
}

void page_store_give_back(struct page_store *store, const uint32_t frames[], unsigned count)
{
	pthread_mutex_lock(&store->lock);
	/* Last first, so that the list hands them out in the order in which they were taken. */
	while (count)
		push_free_locked(store, frames[--count]);
	store->moves++;
	pthread_mutex_unlock(&store->lock);
}

void *page_store_bytes(struct page_store *store, uint32_t frame)
{
	return store->bytes + ((uint64_t)frame << FOLD_PAGE_SHIFT);
}

void page_store_digest(const struct page_store *store, const void *page, struct digest *ret_digest)
{
	hash_index_digest(store->index, page, ret_digest);
}

/* Put a frame that was just published into the queue, unless its life is over already: then its
 * memory is still untouched, because the caller's read side began before. */
static void enqueue(struct page_store *store, struct frame_ref ref)
{
	struct frame_meta *meta = &store->metas[ref.frame];
	bool low;

	pthread_mutex_lock(&store->lock);
	if (frame_generation(atomic_load_explicit(&meta->life, memory_order_relaxed)) ==
	    ref.generation)
		frame_queue_insert(&store->queue, ref.frame);
	store->moves++;
	low = wants_reclaimer_locked(store);
	pthread_mutex_unlock(&store->lock);
	if (low)
		pthread_cond_signal(&store->wanted);
}

/* taken -> live, one user. */
static struct frame_ref begin_life(struct page_store *store, uint32_t frame, bool own)
{
	struct frame_meta *meta = &store->metas[frame];
	uint32_t generation =
		frame_generation(atomic_load_explicit(&meta->life, memory_order_relaxed));

	meta->own = own;
	atomic_store_explicit(&meta->life, life_of(generation, 1), memory_order_release);
	return (struct frame_ref){.frame = frame, .generation = generation};
}

/* Become one more user of a live frame, in the generation that *LIFE, just seen, has. False: it has
 * just died, or has all the users it can have. */
static bool join_life(struct page_store *store, struct frame_meta *meta, uint64_t life,
		      struct frame_ref *ret_ref)
{
	uint32_t generation = frame_generation(life);

	do {
		if (frame_generation(life) != generation || !frame_users(life) ||
		    frame_users(life) == UINT32_MAX)
			return false;
	} while (!atomic_compare_exchange_weak(&meta->life, &life, life + 1));
	if (frame_users(life) == 1)
		atomic_fetch_add_explicit(&store->shared, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&store->sharing, 1, memory_order_relaxed);
	ret_ref->frame = frame_of(store, meta);
	ret_ref->generation = frame_generation(life);
	return true;
}

static void touch(struct frame_meta *meta)
{
	uint8_t hot = atomic_load_explicit(&meta->hot, memory_order_relaxed);

	if (hot < FRAME_HOT_MAX)
		atomic_store_explicit(&meta->hot, hot + 1, memory_order_relaxed);
}

bool page_store_publish(struct page_store *store, uint32_t frame, const struct digest *digest,
			struct frame_ref *ret_ref)
{
	struct frame_meta *meta = &store->metas[frame];
	struct frame_meta *shared;
	struct hash_index_node *node;
	struct frame_ref own;
	uint64_t life;

	meta->node.digest = *digest;
	own = begin_life(store, frame, false);
	for (;;) {
		node = hash_index_share(store->index, &meta->node, page_store_bytes(store, frame));
		if (node == &meta->node)
			break;
		shared = meta_of_node(node);
		life = atomic_load_explicit(&shared->life, memory_order_acquire);
		if (!join_life(store, shared, life, ret_ref)) {
			if (!frame_users(shared->life))
				continue; /* it died after the comparison: look again */
			*ret_ref = page_store_publish_private(store, frame);
			return false;
		}
		touch(shared); /* content that another file brings is a use of it */
		/* Never seen by anyone: back to taken, and to the pool. */
		atomic_store_explicit(&meta->life, life_of(own.generation, 0),
				      memory_order_relaxed);
		page_store_give_back(store, &frame, 1);
		stats_add(store->stats, STAT_MERGES, 1);
		return true;
	}
	atomic_fetch_add_explicit(&store->used, 1, memory_order_relaxed);
	enqueue(store, own);
	*ret_ref = own;
	return false;
}

bool page_store_share(struct page_store *store, struct frame_ref ref)
{
	struct frame_meta *meta = &store->metas[ref.frame];
	uint64_t life = atomic_load_explicit(&meta->life, memory_order_acquire);

	if (frame_generation(life) != ref.generation || !join_life(store, meta, life, &ref))
		return false;
	touch(meta); /* as in page_store_publish() */
	return true;
}

struct frame_ref page_store_publish_private(struct page_store *store, uint32_t frame)
{
	struct frame_ref ref = begin_life(store, frame, true);

	atomic_fetch_add_explicit(&store->used, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&store->own, 1, memory_order_relaxed);
	enqueue(store, ref);
	return ref;
}

const void *page_store_read(struct page_store *store, struct frame_ref ref)
{
	struct frame_meta *meta = &store->metas[ref.frame];
	uint64_t life = atomic_load_explicit(&meta->life, memory_order_acquire);

	if (frame_generation(life) != ref.generation || !frame_users(life))
		return NULL;
	touch(meta);
	return page_store_bytes(store, ref.frame);
}

uint32_t page_store_users(const struct page_store *store, struct frame_ref ref)
{
	uint64_t life = atomic_load_explicit(&store->metas[ref.frame].life, memory_order_acquire);

	return frame_generation(life) == ref.generation ? frame_users(life) : 0;
}

/* The life that follows LIFE's. The last generation stays dead for ever (A.3). */
static uint64_t next_life(uint64_t life)
{
	uint32_t generation = frame_generation(life);

	return life_of(generation == UINT32_MAX ? generation : generation + 1, 0);
}

/* A life with USERS users has ended: the gauges, the index. Read side. */
static void end_life(struct page_store *store, struct frame_meta *meta, uint32_t users)
{
	if (users > 1) {
		atomic_fetch_sub_explicit(&store->shared, 1, memory_order_relaxed);
		atomic_fetch_sub_explicit(&store->sharing, users - 1, memory_order_relaxed);
	}
	atomic_fetch_sub_explicit(&store->used, 1, memory_order_relaxed);
	if (meta->own)
		atomic_fetch_sub_explicit(&store->own, 1, memory_order_relaxed);
	else
		hash_index_remove(store->index, &meta->node);
}

static void to_limbo_locked(struct page_store *store, uint32_t frame, uint32_t generation)
{
	struct frame_meta *meta = &store->metas[frame];

	frame_queue_remove(&store->queue, frame);
	store->moves++;
	if (generation == UINT32_MAX) {
		meta->where = FRAME_RETIRED; /* its generations are used up */
		return;
	}
	meta->where = FRAME_LIMBO;
	meta->next = store->limbo_first;
	store->limbo_first = frame;
	store->limbo_count++;
}

void page_store_drop(struct page_store *store, struct frame_ref ref)
{
	struct frame_meta *meta = &store->metas[ref.frame];
	uint64_t life = atomic_load_explicit(&meta->life, memory_order_acquire);
	uint64_t next;
	bool wake;

	do {
		if (frame_generation(life) != ref.generation || !frame_users(life))
			return;
		next = frame_users(life) > 1 ? life - 1 : next_life(life);
	} while (!atomic_compare_exchange_weak(&meta->life, &life, next));
	if (frame_users(life) > 1) {
		if (frame_users(life) == 2)
			atomic_fetch_sub_explicit(&store->shared, 1, memory_order_relaxed);
		atomic_fetch_sub_explicit(&store->sharing, 1, memory_order_relaxed);
		return;
	}
	end_life(store, meta, 1);
	pthread_mutex_lock(&store->lock);
	to_limbo_locked(store, ref.frame, ref.generation);
	wake = wants_reclaimer_locked(store);
	pthread_mutex_unlock(&store->lock);
	if (wake)
		pthread_cond_signal(&store->wanted);
}

/* End the life of FRAME, which was just taken out of its queue, whatever its users. False: somebody
 * else did, and will bring it to limbo. */
static bool evict(struct page_store *store, uint32_t frame, uint32_t *ret_generation)
{
	struct frame_meta *meta = &store->metas[frame];
	uint64_t life = atomic_load_explicit(&meta->life, memory_order_acquire);

	do {
		if (!frame_users(life))
			return false;
	} while (!atomic_compare_exchange_weak(&meta->life, &life, next_life(life)));
	end_life(store, meta, frame_users(life));
	*ret_generation = frame_generation(life);
	return true;
}

static bool evicts_enough_locked(const struct page_store *store, unsigned chosen)
{
	return available_locked(store) + store->limbo_count + chosen >= 2 * store->reserve;
}

/*
 * Take frames that are to be evicted out of their queues: VICTIMS, EVICT_BATCH at most.
 *
 * Where everything is in use, a frame is found only after the whole pool has cooled down, lap by
 * lap. That goes on while takers have enough; when half of the reserve is gone, or after a lap
 * (*LOOKED frames), the eldest go as they are: they are no more in use than others.
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
	if (!count &&
	    (available_locked(store) < store->reserve / 2 || *looked > store->frames_total))
		while (count < EVICT_FORCED &&
		       (frame = frame_queue_eldest(&store->queue)) != FRAME_NONE)
			victims[count++] = frame;
	store->moves++;
	return count;
}

/* End the lives of VICTIMS, which are in no queue: nobody but their users knows them, who may end
 * them as well. None is free, and another's, before the reclaimer's next look at limbo. The lock is
 * given up meanwhile. Read side, so that the audit sees them chosen and in limbo at once. */
static void evict_victims_locked(struct page_store *store, uint32_t victims[], unsigned count)
{
	uint32_t generations[EVICT_BATCH];
	unsigned evicted = 0;
	unsigned i;

	pthread_mutex_unlock(&store->lock);
	if (!count)
		sched_yield(); /* those who wait would hardly get in */
	for (i = 0; i < count; i++)
		if (evict(store, victims[i], &generations[evicted]))
			victims[evicted++] = victims[i];
	stats_add(store->stats, STAT_EVICTIONS, evicted);
	pthread_mutex_lock(&store->lock);
	for (i = 0; i < evicted; i++)
		to_limbo_locked(store, victims[i], generations[i]);
}

/* Evict until twice the reserve is free or on its way. Gives the lock up between batches. */
static void evict_for_reserve_locked(struct page_store *store)
{
	uint32_t victims[EVICT_BATCH];
	uint64_t looked = 0;
	unsigned count;

	if (available_locked(store) >= store->reserve)
		return;
	while (!store->stopping && !evicts_enough_locked(store, 0) &&
	       (store->queue.small.length || store->queue.main.length)) {
		fold_rcu_read_lock();
		count = choose_victims_locked(store, victims, &looked);
		evict_victims_locked(store, victims, count);
		fold_rcu_read_unlock();
	}
}

/* limbo -> free, a grace period later. The lock is given up meanwhile. */
static void empty_limbo_locked(struct page_store *store)
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
		store->moves++;
		push_free_locked(store, frame);
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
	uint32_t left = store->frames_total - first;
	uint32_t count = left < STOCK ? left : STOCK;

	store->touched += count;
	pthread_mutex_unlock(&store->lock);
	/* Where the kernel (before 5.14) cannot, the first use does it. */
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
		while (!wants_reclaimer_locked(store))
			pthread_cond_wait(&store->wanted, &store->lock);
		if (wants_stock_locked(store))
			touch_stock_locked(store);
		evict_for_reserve_locked(store);
		empty_limbo_locked(store);
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

static void stop_reclaimer(struct page_store *store)
{
	pthread_mutex_lock(&store->lock);
	store->stopping = true;
	pthread_mutex_unlock(&store->lock);
	pthread_cond_signal(&store->wanted);
	if (store->running)
		pthread_join(store->reclaimer, NULL);
	store->running = false;
}

void page_store_end(struct page_store *store)
{
	stop_reclaimer(store);
	unmap_frames(store);
}

void page_store_free(struct page_store *store)
{
	uint32_t frame;

	if (!store)
		return;
	page_store_end(store);
	fold_rcu_read_lock();
	for (frame = 0; frame < store->fresh; frame++) {
		struct frame_meta *meta = &store->metas[frame];

		if (frame_users(meta->life) && !meta->own)
			hash_index_remove(store->index, &meta->node);
	}
	fold_rcu_read_unlock();
	fold_rcu_synchronize();
	hash_index_free(store->index);
	unmap_memory(store);
	pthread_cond_destroy(&store->wanted);
	pthread_mutex_destroy(&store->lock);
	free(store);
}

void page_store_usage(const struct page_store *store, struct page_store_usage *ret_usage)
{
	uint64_t fresh = atomic_load_explicit(&store->fresh, memory_order_relaxed);
	uint64_t touched = atomic_load_explicit(&store->touched, memory_order_relaxed);
	bool full = fresh == store->frames_total;

	ret_usage->frames_total = store->frames_total;
	ret_usage->frames_used = atomic_load_explicit(&store->used, memory_order_relaxed);
	ret_usage->pages_shared = atomic_load_explicit(&store->shared, memory_order_relaxed);
	ret_usage->pages_sharing = atomic_load_explicit(&store->sharing, memory_order_relaxed);
	ret_usage->pages_volatile = atomic_load_explicit(&store->own, memory_order_relaxed);
	ret_usage->pages_unshared = ret_usage->frames_used > ret_usage->pages_shared
					    ? ret_usage->frames_used - ret_usage->pages_shared
					    : 0;
	ret_usage->metadata_bytes =
		fresh * sizeof(struct frame_meta) + (full ? frame_queue_bytes(&store->queue) : 0);
	ret_usage->pool_bytes = touched * FOLD_PAGE_SIZE + ret_usage->metadata_bytes;
	ret_usage->index_bytes = hash_index_bytes(store->index);
}

/* ---- for the audit ---- */

const void *page_store_peek(const struct page_store *store, struct frame_ref ref)
{
	if (ref.frame >= store->frames_total || !page_store_users(store, ref))
		return NULL;
	return store->bytes + ((uint64_t)ref.frame << FOLD_PAGE_SHIFT);
}

static enum frame_place place_of(const struct frame_meta *meta)
{
	switch (meta->where) {
	case FRAME_SMALL:
	case FRAME_MAIN:
		return FRAME_PLACE_QUEUED;
	case FRAME_FREE:
		return FRAME_PLACE_FREE;
	case FRAME_LIMBO:
		return FRAME_PLACE_LIMBO;
	case FRAME_RETIRED:
		return FRAME_PLACE_RETIRED;
	default:
		return FRAME_PLACE_TAKEN;
	}
}

static bool is_frame(const struct page_store *store, uint32_t link)
{
	return link == FRAME_NONE || link < store->frames_total;
}

static void report_locked(const struct page_store *store, uint32_t frame,
			  struct frame_report *ret_report)
{
	const struct frame_meta *meta = &store->metas[frame];
	uint64_t life = atomic_load_explicit(&meta->life, memory_order_acquire);

	*ret_report = (struct frame_report){
		.ref = {.frame = frame, .generation = frame_generation(life)},
		.users = frame_users(life),
		.place = place_of(meta),
	};
	if (ret_report->place != FRAME_PLACE_QUEUED)
		return;
	/* What is not queued yet may just be written by its publisher. */
	ret_report->own = meta->own;
	ret_report->linked = is_frame(store, meta->prev) && is_frame(store, meta->next) &&
			     frame_queue_is_linked(&store->queue, frame);
}

void page_store_report(struct page_store *store, uint32_t first, unsigned count,
		       struct frame_report reports[])
{
	unsigned i;

	pthread_mutex_lock(&store->lock);
	for (i = 0; i < count; i++) {
		if (first + i < store->fresh)
			report_locked(store, first + i, &reports[i]);
		else
			/* Its metadata has no memory yet, and gets none from being looked at. */
			reports[i] = (struct frame_report){.ref.frame = first + i,
							   .place = FRAME_PLACE_FRESH};
	}
	pthread_mutex_unlock(&store->lock);
}

void page_store_lists(struct page_store *store, struct frame_lists *ret_lists)
{
	*ret_lists = (struct frame_lists){.index_entries = hash_index_entries(store->index)};
	pthread_mutex_lock(&store->lock);
	ret_lists->moves = store->moves;
	ret_lists->length[FRAME_PLACE_QUEUED] =
		store->queue.small.length + store->queue.main.length;
	ret_lists->length[FRAME_PLACE_FREE] = store->free_count;
	ret_lists->length[FRAME_PLACE_LIMBO] = store->limbo_count;
	ret_lists->length[FRAME_PLACE_FRESH] = store->frames_total - store->fresh;
	pthread_mutex_unlock(&store->lock);
}

/* Links that one hold of the lock follows: some milliseconds. */
#define WALK_STEPS 16384u

enum frame_walk_step page_store_walk(struct page_store *store, struct frame_walk *walk)
{
	enum frame_walk_step step = FRAME_WALK_MORE;
	unsigned steps = 0;

	pthread_mutex_lock(&store->lock);
	if (!walk->begun)
		walk->at = walk->list == 0   ? store->free_first
			   : walk->list == 1 ? store->queue.small.oldest
					     : store->queue.main.oldest;
	walk->begun = true;
	if (walk->moves != store->moves)
		step = FRAME_WALK_MOVED;
	/* A ring would have no end; a link to nowhere is one. */
	for (; step == FRAME_WALK_MORE && steps < WALK_STEPS; steps++) {
		if (walk->at >= store->frames_total || walk->seen > store->frames_total) {
			step = FRAME_WALK_DONE;
		} else {
			walk->at = store->metas[walk->at].next;
			walk->seen++;
		}
	}
	pthread_mutex_unlock(&store->lock);
	return step;
}

unsigned page_store_verify(struct page_store *store, struct frame_ref ref)
{
	const struct frame_meta *meta = &store->metas[ref.frame];
	const void *bytes = page_store_peek(store, ref);
	struct digest digest;
	unsigned wrong = 0;

	if (!bytes)
		return 0;
	hash_index_digest(store->index, bytes, &digest);
	if (digest.low != meta->node.digest.low || digest.high != meta->node.digest.high)
		wrong |= FRAME_WRONG_DIGEST;
	switch (hash_index_count_equal(store->index, &meta->node, bytes)) {
	case HASH_INDEX_ABSENT:
		wrong |= FRAME_NOT_INDEXED;
		break;
	case HASH_INDEX_TWICE:
		wrong |= FRAME_TWICE;
		break;
	default:
		break;
	}
	/* It left the index when its life ended, perhaps just now. */
	return page_store_users(store, ref) ? wrong : 0;
}
