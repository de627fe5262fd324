/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_store.c - the pool
 *
 * One word decides over a frame's life: frame_meta.life (generation, users).
 *
 *   state   users  left by
 *   free    0      page_store_take(): off the free list, under the lock
 *   taken   0      publish: (g, 0) -> (g, 1), a store; give_back: to the free list
 *   live    > 0    share: (g, n) -> (g, n+1); drop: (g, n) -> (g, n-1);
 *                  the last drop or eviction: (g, n) -> (g+1, 0), by compare-and-swap
 *   limbo   0      the reclaimer, after a grace period that began when the frame was in limbo
 *
 * The thread that makes the step to limbo owns what follows: it takes the frame out of the index
 * and out of its queue, and puts it on the limbo list. All others find that the generation has
 * moved on (A.3): no reverse map is kept or searched.
 *
 * `life` is moved without a lock. The lists follow under the lock, a batch at a time (struct
 * frame_batch). So for a moment a live frame may be in no queue, and a dead one in its queue. That
 * is sound:
 *   - A live frame in no queue is not evicted, for eviction finds frames in queues. It can die: it
 *     is put into its queue only if it still lives then. A thread that ends its life later finds it
 *     there. A thread that ended it before sends it to limbo, in this batch or another, and the
 *     frame was in no queue.
 *   - A dead frame may be chosen by the reclaimer. The reclaimer takes it out of the queue, finds
 *     it dead and leaves it alone. The thread that ended its life sends it to limbo, and finds it
 *     in no queue.
 *   - Only limbo leads to the free list, and a grace period begins after that: A.2 does not depend
 *     on when a frame comes there.
 *
 * The pool may change its size meanwhile: page_store_resize.c.
 *
 * Why a stale read is safe: bytes of a live frame are constant (A.1). Its memory is written again
 * only by a taker, after the frame was on the free list, after a grace period (A.2).
 *
 * Lock order: page_store.lock is a leaf; nothing is locked while it is held.
 */
#include "page_store_internal.h"

#include "foldfs/counters.h"
#include "foldfs/rcu.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* No cache line that every hit reads is written by a fill. */
_Static_assert(offsetof(struct page_store, used) / LINES >
		       offsetof(struct page_store, counters) / LINES,
	       "constant fields beside counters");

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

	counters_add(store->counters, COUNTER_DIGEST_COLLISIONS, 1);
}

bool page_store_wants_reclaimer_locked(const struct page_store *store)
{
	if (store->stopping || store->adjusts || hash_index_wants_to_grow(store->index) ||
	    page_store_wants_stock_locked(store))
		return true;
	/* One grace period serves many frames: a few in limbo can wait while others are free. */
	if (page_store_available_locked(store) >= store->reserve)
		return store->limbo_count >= store->reserve;
	return store->limbo_count || store->queue.small.length || store->queue.main.length;
}

static void unmap_frames(struct page_store *store)
{
	if (store->bytes)
		munmap(store->bytes, (uint64_t)store->frames_most << FOLD_PAGE_SHIFT);
	store->bytes = NULL;
}

static void unmap_memory(struct page_store *store)
{
	if (store->queue.ghost && store->queue.ghost != MAP_FAILED)
		frame_queue_destroy(&store->queue);
	if (store->metas)
		munmap(store->metas, (uint64_t)store->frames_most * sizeof(*store->metas));
	unmap_frames(store);
}

errint_t page_store_new(uint64_t pool_bytes, struct counters *counters,
			struct page_store **ret_store)
{
	return page_store_new_resizable(pool_bytes, pool_bytes, counters, ret_store);
}

static uint32_t frames_of(uint64_t bytes)
{
	return (uint32_t)((bytes < PAGE_STORE_MAX_BYTES ? bytes : PAGE_STORE_MAX_BYTES) >>
			  FOLD_PAGE_SHIFT);
}

errint_t page_store_new_resizable(uint64_t pool_bytes, uint64_t most_bytes,
				  struct counters *counters, struct page_store **ret_store)
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
	store->counters = counters;
	store->free_first = FRAME_NONE;
	store->limbo_first = FRAME_NONE;
	pthread_mutex_init(&store->lock, NULL);
	pthread_cond_init(&store->wanted, NULL);
	owner.owner = store;
	error = page_store_reserve(store, frames_of(pool_bytes), frames_of(most_bytes));
	if (!error)
		error = hash_index_new(store->frames_most, &owner, &store->index);
	if (error) {
		unmap_memory(store);
		free(store);
		return error;
	}
	*ret_store = store;
	return 0;
}

void page_store_push_free_locked(struct page_store *store, uint32_t frame)
{
	struct frame_meta *meta = &store->metas[frame];

	store->moves++;
	if (page_store_is_beyond_locked(store, frame)) {
		meta->where = FRAME_CLOSED;
		return;
	}
	if (store->free_first != FRAME_NONE)
		store->metas[store->free_first].prev = frame;
	meta->next = store->free_first;
	meta->where = FRAME_FREE;
	store->free_first = frame;
	store->free_count++;
}

/* The next frame that was never used, or not since the pool was smaller. */
static uint32_t take_fresh_locked(struct page_store *store)
{
	uint32_t frame = store->fresh++;

	/* Its metadata may have lost its memory, and the last generation with it (A.3). */
	if (store->shrunk) {
		store->metas[frame].where = FRAME_OUTSIDE;
		atomic_store_explicit(&store->metas[frame].life,
				      life_of(store->fresh_generation, 0), memory_order_relaxed);
	}
	return frame;
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
	while (taken < count && store->fresh < store->frames_total && !store->fresh_held)
		frames[taken++] = take_fresh_locked(store);
	if (store->touched < store->fresh)
		store->touched = store->fresh;
	store->moves += taken != 0;
	low = page_store_wants_reclaimer_locked(store);
	pthread_mutex_unlock(&store->lock);
	if (low)
		pthread_cond_signal(&store->wanted);
	return taken;
}

void *page_store_bytes(struct page_store *store, uint32_t frame)
{
	return store->bytes + ((uint64_t)frame << FOLD_PAGE_SHIFT);
}

void page_store_digest(const struct page_store *store, const void *page, struct digest *ret_digest)
{
	hash_index_digest(store->index, page, ret_digest);
}

void page_store_to_limbo_locked(struct page_store *store, uint32_t frame, uint32_t generation)
{
	struct frame_meta *meta = &store->metas[frame];

	frame_queue_remove(&store->queue, frame);
	store->moves++;
	(void)page_store_is_beyond_locked(store, frame);
	if (generation == UINT32_MAX) {
		meta->where = FRAME_RETIRED; /* its generations are used up */
		return;
	}
	meta->where = FRAME_LIMBO;
	meta->next = store->limbo_first;
	store->limbo_first = frame;
	store->limbo_count++;
}

static void step_locked(struct page_store *store, const struct frame_step *step)
{
	if (step->to == FRAME_PLACE_LIMBO) {
		page_store_to_limbo_locked(store, step->ref.frame, step->ref.generation);
	} else if (step->to == FRAME_PLACE_QUEUED) {
		/* The last generation also stands for dead frames, so ask for the users. */
		if (page_store_users(store, step->ref))
			frame_queue_insert(&store->queue, step->ref.frame);
		(void)page_store_is_beyond_locked(store, step->ref.frame);
		store->moves++;
	}
}

static void make_steps(struct page_store *store, const struct frame_step steps[], unsigned count)
{
	bool low;
	unsigned i;

	pthread_mutex_lock(&store->lock);
	for (i = 0; i < count; i++)
		step_locked(store, &steps[i]);
	/* Last first, so that the list hands them out in the order in which they were taken. */
	for (i = count; i--;)
		if (steps[i].to == FRAME_PLACE_FREE)
			page_store_push_free_locked(store, steps[i].ref.frame);
	low = page_store_wants_reclaimer_locked(store);
	pthread_mutex_unlock(&store->lock);
	if (low)
		pthread_cond_signal(&store->wanted);
}

void page_store_settle(struct page_store *store, struct frame_batch *batch)
{
	if (batch->count)
		make_steps(store, batch->steps, batch->count);
	batch->count = 0;
}

static void step(struct page_store *store, struct frame_batch *batch, struct frame_ref ref,
		 enum frame_place to)
{
	const struct frame_step step = {.ref = ref, .to = to};

	if (!batch) {
		make_steps(store, &step, 1);
		return;
	}
	if (batch->count == FRAME_BATCH)
		page_store_settle(store, batch);
	batch->steps[batch->count++] = step;
}

void page_store_give_back(struct page_store *store, uint32_t frame, struct frame_batch *batch)
{
	step(store, batch, (struct frame_ref){.frame = frame}, FRAME_PLACE_FREE);
}

/* taken -> live, one user. */
static struct frame_ref begin_life(struct page_store *store, uint32_t frame, bool private)
{
	struct frame_meta *meta = &store->metas[frame];
	uint32_t generation =
		frame_generation(atomic_load_explicit(&meta->life, memory_order_relaxed));

	meta->private = private;
	atomic_store_explicit(&meta->life, life_of(generation, 1), memory_order_release);
	return (struct frame_ref){.frame = frame, .generation = generation};
}

/* Become one more user of a live frame, in the generation of LIFE, which was just read. False: the
 * frame has just died, or has all the users it can have. */
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
			struct frame_batch *batch, struct frame_ref *ret_ref)
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
			*ret_ref = page_store_publish_private(store, frame, batch);
			return false;
		}
		touch(shared); /* another file bringing the same content counts as a use */
		/* No other thread has seen it: back to taken, and to the pool. */
		atomic_store_explicit(&meta->life, life_of(own.generation, 0),
				      memory_order_relaxed);
		page_store_give_back(store, frame, batch);
		counters_add(store->counters, COUNTER_MERGES, 1);
		return true;
	}
	atomic_fetch_add_explicit(&store->used, 1, memory_order_relaxed);
	step(store, batch, own, FRAME_PLACE_QUEUED);
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

struct frame_ref page_store_publish_private(struct page_store *store, uint32_t frame,
					    struct frame_batch *batch)
{
	struct frame_ref ref = begin_life(store, frame, true);

	atomic_fetch_add_explicit(&store->used, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&store->private, 1, memory_order_relaxed);
	step(store, batch, ref, FRAME_PLACE_QUEUED);
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

const void *page_store_peek(const struct page_store *store, struct frame_ref ref)
{
	if (ref.frame >= atomic_load_explicit(&store->fresh, memory_order_relaxed) ||
	    !page_store_users(store, ref))
		return NULL;
	return store->bytes + ((uint64_t)ref.frame << FOLD_PAGE_SHIFT);
}

/* The life after LIFE. The last generation stays dead for ever (A.3). */
static uint64_t next_life(uint64_t life)
{
	uint32_t generation = frame_generation(life);

	return life_of(generation == UINT32_MAX ? generation : generation + 1, 0);
}

/* A life with USERS users has ended: update the gauges and the index. Read side. */
static void count_end(struct page_store *store, struct frame_meta *meta, uint32_t users)
{
	if (users > 1) {
		atomic_fetch_sub_explicit(&store->shared, 1, memory_order_relaxed);
		atomic_fetch_sub_explicit(&store->sharing, users - 1, memory_order_relaxed);
	}
	atomic_fetch_sub_explicit(&store->used, 1, memory_order_relaxed);
	if (meta->private)
		atomic_fetch_sub_explicit(&store->private, 1, memory_order_relaxed);
	else
		hash_index_remove(store->index, &meta->node);
}

void page_store_drop(struct page_store *store, struct frame_ref ref, struct frame_batch *batch)
{
	struct frame_meta *meta = &store->metas[ref.frame];
	uint64_t life = atomic_load_explicit(&meta->life, memory_order_acquire);
	uint64_t next;

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
	count_end(store, meta, 1);
	step(store, batch, ref, FRAME_PLACE_LIMBO);
}

bool page_store_end_life(struct page_store *store, uint32_t frame, uint32_t *ret_generation)
{
	struct frame_meta *meta = &store->metas[frame];
	uint64_t life = atomic_load_explicit(&meta->life, memory_order_acquire);

	do {
		if (!frame_users(life))
			return false;
	} while (!atomic_compare_exchange_weak(&meta->life, &life, next_life(life)));
	count_end(store, meta, frame_users(life));
	*ret_generation = frame_generation(life);
	return true;
}

/* Stop the reclaimer and wait for its end. Idempotent. */
static void stop(struct page_store *store)
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
	stop(store);
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

		if (frame_users(meta->life) && !meta->private)
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
	uint32_t total = atomic_load_explicit(&store->frames_total, memory_order_relaxed);
	bool full = fresh >= total;

	ret_usage->frames_total = total;
	ret_usage->frames_used = atomic_load_explicit(&store->used, memory_order_relaxed);
	ret_usage->pages_shared = atomic_load_explicit(&store->shared, memory_order_relaxed);
	ret_usage->pages_sharing = atomic_load_explicit(&store->sharing, memory_order_relaxed);
	ret_usage->pages_volatile = atomic_load_explicit(&store->private, memory_order_relaxed);
	ret_usage->pages_unshared = ret_usage->frames_used > ret_usage->pages_shared
					    ? ret_usage->frames_used - ret_usage->pages_shared
					    : 0;
	ret_usage->metadata_bytes =
		fresh * sizeof(struct frame_meta) + (full ? frame_queue_bytes(&store->queue) : 0);
	ret_usage->pool_bytes = touched * FOLD_PAGE_SIZE + ret_usage->metadata_bytes;
	ret_usage->index_bytes = hash_index_bytes(store->index);
}
