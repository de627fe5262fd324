/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_store_internal.h - what page_store.c, page_store_reclaim.c and page_store_audit.c share;
 * nobody else includes it
 */
#ifndef FOLDFS_PAGE_STORE_INTERNAL_H
#define FOLDFS_PAGE_STORE_INTERNAL_H

#include "foldfs/page_store.h"
#include "frame_queue.h"

#include <pthread.h>
#include <stdatomic.h>

/* Bytes of two cache lines: one, and the one that is fetched along with it. */
#define LINES 128

struct page_store {
	/* What every hit reads: on no line that anybody writes, but for a change of the pool's
	 * size. Two lines are kept apart where one would do, as in counters.c. */
	uint8_t *bytes;                /* frames_most * 4096; constant pointer until the end */
	struct frame_meta *metas;      /* frames_most; constant pointer */
	uint32_t frames_most;          /* that there are addresses for; constant */
	_Atomic uint32_t frames_total; /* the pool's size: frames from here on are closed, or about
					* to be; changed under lock */
	uint32_t reserve;              /* under lock */
	struct hash_index *index;
	struct counters *counters;

	/* Gauges, relaxed. Each is changed by the thread that made the step in `life`. The first
	 * two are written by every fill, the next two by sharing. */
	_Alignas(LINES) _Atomic uint64_t used;
	_Atomic uint64_t private;
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
	uint64_t moves;           /* counts frames that moved between lists, for the audit; under
				   * lock */
	/* Of a change of size; see page_store_resize.c. */
	uint64_t opened;           /* frames below have memory that may be used; the resizer's */
	uint32_t fresh_generation; /* of the first life of frames from fresh on; under lock */
	uint32_t sizes;            /* counts changes of size; under lock */
	bool fresh_held;           /* frames from fresh on are not to be taken now; under lock */
	bool shrunk;               /* frames from fresh on may have lived before; under lock */
	bool grown;                /* closed frames may belong to the pool; under lock */
	bool adjusts;  /* the reclaimer is to look at frames beyond the pool's size, or at
				    * closed ones; under lock */
	bool stopping; /* under lock */
	/* Not within the eight bytes of the flags above, which are read together. */
	pthread_t reclaimer;
	bool running; /* main thread only */
};

/* Number of frames that a taker could have now. Under the lock. */
static inline uint32_t page_store_available_locked(const struct page_store *store)
{
	uint32_t fresh = atomic_load_explicit(&store->fresh, memory_order_relaxed);
	uint32_t total = atomic_load_explicit(&store->frames_total, memory_order_relaxed);

	return store->free_count + (total > fresh ? total - fresh : 0);
}

/* Frames that are given memory ahead of their first use: 4 MiB, two huge pages. */
#define PAGE_STORE_STOCK 1024u

/* Whether frames that were never used are about to be handed out without memory behind them. */
static inline bool page_store_wants_stock_locked(const struct page_store *store)
{
	return store->touched < store->frames_total &&
	       store->touched - store->fresh < PAGE_STORE_STOCK / 2;
}

/* Put FRAME, which is in no list and nobody's, on the free list. */
void page_store_push_free_locked(struct page_store *store, uint32_t frame);
/* FRAME's life, its GENERATION, is over: take it out of its queue, if it is in one, and put it in
 * limbo. Called by the thread that ended that life. */
void page_store_to_limbo_locked(struct page_store *store, uint32_t frame, uint32_t generation);
/* End the life of FRAME, however many users it has. False: another thread ended it, and will bring
 * the frame to limbo. Read side. */
bool page_store_end_life(struct page_store *store, uint32_t frame, uint32_t *ret_generation);

/* End the lives of COUNT VICTIMS, EVICT_BATCH at most, which are in no queue, and put them in
 * limbo. The lock is given up meanwhile. Read side, so that the audit sees them chosen and in limbo
 * at once. */
#define EVICT_BATCH 64u
void page_store_evict_locked(struct page_store *store, uint32_t victims[], unsigned count);
/* limbo -> free, or closed, a grace period later. The lock is given up meanwhile. */
void page_store_empty_limbo_locked(struct page_store *store);

/* ---- page_store_resize.c ---- */

/* Addresses for the pool and all that is kept about its frames. -ENOMEM. */
errint_t page_store_reserve(struct page_store *store, uint32_t frames, uint32_t most);
/* Whether FRAME is beyond the pool's size. If so, the reclaimer is to look. */
static inline bool page_store_is_beyond_locked(struct page_store *store, uint32_t frame)
{
	if (frame < atomic_load_explicit(&store->frames_total, memory_order_relaxed))
		return false;
	store->adjusts = true;
	return true;
}
/* The reclaimer's part of a change of size. The lock is given up meanwhile. */
void page_store_adjust_locked(struct page_store *store);

/* Whether the reclaimer has something to do. */
bool page_store_wants_reclaimer_locked(const struct page_store *store);

#endif
