/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_store_resize.c - the pool gets smaller or larger while it is in use
 *
 * Addresses are reserved for the largest size that the pool can have, and memory may be used for
 * the present size (`opened` is never taken back). So a frame keeps its number and its place, and
 * the size is one number: frames_total. Frames from there on are beyond the pool.
 *
 * A smaller pool: from the moment at which frames_total is lower, no frame beyond it comes onto the
 * free list or stays in a queue. The reclaimer goes over the frames beyond it, by number:
 *
 *   free      off the free list, closed
 *   queued    out of its queue, evicted: to limbo
 *   limbo     closed, a grace period later
 *   taken     left to its taker. Whatever the taker does, the frame comes by a step of page_store.c
 *             (page_store_is_beyond_locked), which has the reclaimer look again
 *
 * Then the memory of closed frames goes back. Frames are chosen by number and not by use: where
 * neighbours go together, huge pages go back as they are, and nothing has to be copied. What was in
 * use is read again from its files.
 *
 * Once all frames beyond the size are closed, they are as if they were never used: `fresh` is the
 * size, and their metadata goes back too. With it the generations are lost, which old references
 * still name. So later lives of these frames begin with fresh_generation, the highest that any of
 * them had reached (A.3). A reference that meets cleared metadata finds a frame without users.
 * If a frame is retired, the metadata stays, and the frames stay closed.
 *
 * A larger pool: memory of further frames is opened, and closed frames below the new size become
 * free. All others of the new frames are fresh.
 *
 * What one hold of the lock does is bounded, as in page_store_reclaim.c. Only the reclaimer closes,
 * opens and forgets frames, so what it has closed stays so while it gives the lock up.
 */
#include "page_store_internal.h"

#include "foldfs/rcu.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

/* Frames kept free for takers, so that eviction runs ahead of them: 1/64 of the pool, in bounds. */
#define RESERVE_MIN 32u
#define RESERVE_MAX 4096u
/* Frames that are looked at in one hold of the lock, or given back in one call: a huge page. */
#define LOOK_BATCH 512u

/* ---- addresses ---- */

/* Addresses without memory: not counted by the kernel as something that was promised. */
static void *reserve(uint64_t length)
{
	void *memory =
		mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static errint_t open_up(void *memory, uint64_t length)
{
	return mprotect(memory, length, PROT_READ | PROT_WRITE) == 0 ? 0 : -ENOMEM;
}

static uint64_t meta_bytes(uint64_t frames)
{
	return frames * sizeof(struct frame_meta);
}

/* Let memory be used for the first FRAMES frames. */
static errint_t open_frames(struct page_store *store, uint64_t frames)
{
	errint_t error = 0;

	if (frames <= store->opened)
		return 0;
	error = open_up(store->bytes, frames << FOLD_PAGE_SHIFT);
	if (!error)
		error = open_up(store->metas, meta_bytes(frames));
	if (!error)
		store->opened = frames;
	return error;
}

static void set_size_locked(struct page_store *store, uint32_t frames)
{
	uint32_t part = frames / 64;

	atomic_store_explicit(&store->frames_total, frames, memory_order_relaxed);
	store->reserve = part < RESERVE_MIN ? RESERVE_MIN : part > RESERVE_MAX ? RESERVE_MAX : part;
}

/* Reserve for MOST frames. */
static errint_t reserve_most(struct page_store *store, uint32_t most)
{
	store->frames_most = most;
	store->bytes = reserve((uint64_t)most << FOLD_PAGE_SHIFT);
	store->metas = store->bytes ? reserve(meta_bytes(most)) : NULL;
	if (store->metas)
		return 0;
	if (store->bytes)
		munmap(store->bytes, (uint64_t)most << FOLD_PAGE_SHIFT);
	store->bytes = NULL;
	return -ENOMEM;
}

errint_t page_store_reserve(struct page_store *store, uint32_t frames, uint32_t most)
{
	errint_t error = reserve_most(store, most > frames ? most : frames);
	uint64_t bytes;

	/* A limited address space: the pool itself may fit. */
	if (error && most > frames)
		error = reserve_most(store, frames);
	if (!error)
		error = open_frames(store, frames);
	if (error)
		return error;
	bytes = (uint64_t)store->frames_most << FOLD_PAGE_SHIFT;
	/* Frames are handed out from the bottom, so each huge page is filled before the next is
	 * touched. A core dump without the pool is still useful. Both calls are advice. */
	(void)madvise(store->bytes, bytes, MADV_HUGEPAGE);
	(void)madvise(store->bytes, bytes, MADV_DONTDUMP);
	set_size_locked(store, frames);
	return frame_queue_init(&store->queue, store->metas, frames, store->frames_most);
}

uint64_t page_store_most_bytes(const struct page_store *store)
{
	return (uint64_t)store->frames_most << FOLD_PAGE_SHIFT;
}

errint_t page_store_resize(struct page_store *store, uint64_t pool_bytes)
{
	uint64_t frames = pool_bytes >> FOLD_PAGE_SHIFT;
	errint_t error;

	if (pool_bytes < PAGE_STORE_MIN_BYTES || frames > store->frames_most)
		return -ERANGE;
	error = open_frames(store, frames);
	if (error)
		return error;
	pthread_mutex_lock(&store->lock);
	if (frames > store->frames_total)
		store->grown = true;
	set_size_locked(store, (uint32_t)frames);
	frame_queue_resize(&store->queue, (uint32_t)frames);
	store->sizes++;
	store->adjusts = true;
	pthread_mutex_unlock(&store->lock);
	pthread_cond_signal(&store->wanted);
	return 0;
}

/* ---- the reclaimer's part ---- */

/* Let others have the lock. */
static void pause_locked(struct page_store *store)
{
	pthread_mutex_unlock(&store->lock);
	sched_yield();
	pthread_mutex_lock(&store->lock);
}

static void unlink_free_locked(struct page_store *store, uint32_t frame)
{
	struct frame_meta *meta = &store->metas[frame];

	if (store->free_first == frame)
		store->free_first = meta->next;
	else
		store->metas[meta->prev].next = meta->next;
	if (meta->next != FRAME_NONE)
		store->metas[meta->next].prev = meta->prev;
	store->free_count--;
}

/* Close FRAME if it is free. If it is in a queue, take it out, as one more of the VICTIMS. */
static void close_frame_locked(struct page_store *store, uint32_t frame, uint32_t victims[],
			       unsigned *count)
{
	struct frame_meta *meta = &store->metas[frame];

	switch (meta->where) {
	case FRAME_FREE:
		unlink_free_locked(store, frame);
		meta->where = FRAME_CLOSED;
		break;
	case FRAME_SMALL:
	case FRAME_MAIN:
		frame_queue_remove(&store->queue, frame);
		victims[(*count)++] = frame;
		break;
	default:
		break;
	}
}

/* Close or evict all frames beyond the size, but for those that are taken. */
static void close_beyond_locked(struct page_store *store)
{
	uint32_t frame = store->frames_total;
	uint32_t victims[EVICT_BATCH];
	unsigned count;
	unsigned looked;

	while (frame < store->fresh && !store->stopping) {
		/* The size may have changed while the lock was given up. */
		if (frame < store->frames_total)
			frame = store->frames_total;
		fold_rcu_read_lock();
		count = 0;
		for (looked = 0; looked < EVICT_BATCH && frame < store->fresh; looked++, frame++)
			close_frame_locked(store, frame, victims, &count);
		store->moves++;
		page_store_evict_locked(store, victims, count);
		fold_rcu_read_unlock();
	}
}

/* What was found beyond the size. */
struct beyond {
	uint32_t first;      /* the size when the look began */
	uint32_t end;        /* frames from here on were never used */
	uint32_t generation; /* the highest of closed frames */
	bool closed;         /* all of them */
};

/* The length of the run of closed frames from FRAME, up to the next multiple of LOOK_BATCH. */
static uint32_t closed_run_locked(const struct page_store *store, uint32_t frame,
				  struct beyond *beyond)
{
	uint32_t most = LOOK_BATCH - frame % LOOK_BATCH;
	uint32_t length = 0;

	while (length < most && frame + length < beyond->end &&
	       store->metas[frame + length].where == FRAME_CLOSED) {
		uint32_t generation = frame_generation(atomic_load_explicit(
			&store->metas[frame + length].life, memory_order_relaxed));

		if (generation > beyond->generation)
			beyond->generation = generation;
		length++;
	}
	return length;
}

/* Give back the memory of LENGTH frames from FRAME on, which are closed or were never used. The
 * lock is given up meanwhile. */
static void give_back_locked(struct page_store *store, uint32_t frame, uint32_t length)
{
	pthread_mutex_unlock(&store->lock);
	/* It cannot fail with these arguments; if it did, the memory would only be kept. */
	(void)madvise(page_store_bytes(store, frame), (uint64_t)length << FOLD_PAGE_SHIFT,
		      MADV_DONTNEED);
	pthread_mutex_lock(&store->lock);
}

/* Give back the memory of all closed frames beyond the size. */
static void release_beyond_locked(struct page_store *store, struct beyond *beyond)
{
	uint32_t frame = beyond->first;
	uint32_t run;

	while (frame < beyond->end && !store->stopping) {
		run = closed_run_locked(store, frame, beyond);
		if (run) {
			give_back_locked(store, frame, run);
		} else {
			beyond->closed = false;
			run = 1;
			if (frame % LOOK_BATCH == 0)
				pause_locked(store);
		}
		frame += run;
	}
}

/* Give back what stands ready for frames that were never used. If the pool grows meanwhile, nobody
 * takes these frames yet. The lock is given up. */
static void release_stock_locked(struct page_store *store)
{
	uint32_t first = store->fresh > store->frames_total ? store->fresh : store->frames_total;

	if (first >= store->touched)
		return;
	store->fresh_held = true;
	give_back_locked(store, first, store->touched - first);
	store->touched = first;
	store->fresh_held = false;
}

/* All frames of BEYOND are closed: from now on they were never used, whatever the size is by now.
 * Their metadata is cleared while they are closed. The lock is given up meanwhile. */
static void forget_beyond_locked(struct page_store *store, const struct beyond *beyond)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t first = (meta_bytes(beyond->first) + page - 1) / page * page;
	uint64_t end = meta_bytes(beyond->end) / page * page;

	store->moves++;
	store->fresh_held = true;
	pthread_mutex_unlock(&store->lock);
	if (end > first)
		(void)madvise((char *)store->metas + first, end - first, MADV_DONTNEED);
	pthread_mutex_lock(&store->lock);
	store->fresh_held = false;
	store->shrunk = true;
	if (store->fresh_generation < beyond->generation)
		store->fresh_generation = beyond->generation;
	store->fresh = beyond->first;
	store->touched = beyond->first;
	store->moves++;
}

/* Closed frames that the pool has again become free. */
static void open_closed_locked(struct page_store *store)
{
	uint32_t frame;

	store->grown = false;
	for (frame = 0; frame < store->fresh && frame < store->frames_total; frame++) {
		if (store->metas[frame].where == FRAME_CLOSED)
			page_store_push_free_locked(store, frame);
		if (frame % LOOK_BATCH == 0)
			pause_locked(store);
	}
}

/* Close what is beyond the size, and give its memory back. */
static void shrink_locked(struct page_store *store)
{
	uint32_t sizes = store->sizes;
	struct beyond beyond = {.closed = true};

	close_beyond_locked(store);
	page_store_empty_limbo_locked(store);
	/* From here on, what comes is for another call. So is another size. */
	store->adjusts = sizes != store->sizes;
	beyond.first = store->frames_total;
	beyond.end = store->fresh;
	release_beyond_locked(store, &beyond);
	release_stock_locked(store);
	/* If the pool has grown, fresh frames may have been taken. */
	if (beyond.closed && !store->stopping && beyond.first < beyond.end &&
	    store->fresh == beyond.end)
		forget_beyond_locked(store, &beyond);
	pthread_mutex_unlock(&store->lock);
	hash_index_shrink(store->index);
	pthread_mutex_lock(&store->lock);
}

void page_store_adjust_locked(struct page_store *store)
{
	store->adjusts = false;
	if (store->grown)
		open_closed_locked(store);
	if (store->fresh > store->frames_total)
		shrink_locked(store);
	else
		release_stock_locked(store);
}
