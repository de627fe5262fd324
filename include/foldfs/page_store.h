/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_store.h - the pool: frames of 4096 bytes, taken, published, read, evicted
 *
 * Life of a frame (who may move it on):
 *
 *   free -> taken (page_store_take; the taker alone writes its bytes)
 *        -> live  (page_store_publish, page_store_publish_private; immutable from here on)
 *        -> limbo (the last user's drop, or eviction: the thread that wins the compare-and-swap
 *                  of `life`)
 *        -> free  (the reclaimer, a grace period later; beyond the size of the pool: closed)
 *
 * Guarantees, cited by code and tests:
 *   A.1 The bytes of a live frame never change.
 *   A.2 Within one RCU read side, bytes that page_store_read() returned stay as they are, whatever
 *       happens to the frame: its memory is written again only after a grace period.
 *   A.3 A frame_ref of an earlier life of a frame never reads, shares or drops its present life:
 *       the generation moves on when a life ends, and a frame whose generations are used up is
 *       retired.
 *   A.4 Frames that share content were compared byte by byte.
 *   A.5 Nothing here fails for want of a frame: take() returns fewer than asked, and that is all.
 *
 * The pool is one anonymous mapping of the largest size that it can have; memory is touched, and so
 * taken, only as frames are first used. page_store_resize.c changes its size. Eviction is S3-FIFO
 * ("FIFO queues are all you need for cache eviction", SOSP 2023): a hit sets bits in the frame's
 * metadata and moves nothing.
 */
#ifndef FOLDFS_PAGE_STORE_H
#define FOLDFS_PAGE_STORE_H

#include "foldfs/hash_index.h"
#include "foldfs/page.h"

struct counters;
struct page_store;

/* Frame numbers fit 29 bits: 2 TiB of pool. */
#define PAGE_STORE_FRAME_BITS 29
#define PAGE_STORE_MAX_BYTES  ((uint64_t)FOLD_PAGE_SIZE << PAGE_STORE_FRAME_BITS)
/* Below this, a single request would turn the whole pool over. */
#define PAGE_STORE_MIN_BYTES (1u << 20)

/* A frame in one of its lives. */
struct frame_ref {
	uint32_t frame;
	uint32_t generation;
};

/* Where a frame is. */
enum frame_place {
	FRAME_PLACE_TAKEN, /* in no list: taken by a thread, or on its way */
	FRAME_PLACE_QUEUED,
	FRAME_PLACE_FREE,
	FRAME_PLACE_LIMBO,
	FRAME_PLACE_RETIRED,
	FRAME_PLACE_CLOSED, /* beyond the size of the pool, which was larger */
	FRAME_PLACE_FRESH,  /* never used */
	FRAME_PLACES
};

/*
 * Steps of frames from one list to another. They are gathered so that one request takes the store's
 * lock once, because all threads wait for that lock. A batch lies on the stack of the thread that
 * makes the request. That thread sets count to 0, and settles the batch before it leaves the read
 * side in which it was filled. Frames in a batch are in no list, and the audit takes them for lost
 * if that lasts longer. A full batch settles itself.
 */
#define FRAME_BATCH FOLD_REQUEST_PAGES
struct frame_batch {
	unsigned count;
	struct frame_step {
		struct frame_ref ref;
		enum frame_place to;
	} steps[FRAME_BATCH];
};

/* Gauges; each exact at a moment when nothing is under way. */
struct page_store_usage {
	uint64_t frames_total;
	uint64_t frames_used;    /* live frames */
	uint64_t pages_shared;   /* live frames with two or more users */
	uint64_t pages_sharing;  /* how many more slots use them: pages saved */
	uint64_t pages_unshared; /* live frames with one user */
	uint64_t pages_volatile; /* of these, private frames: content made by a write */
	uint64_t pool_bytes;     /* frame memory touched so far, with frame metadata and ghost */
	uint64_t metadata_bytes; /* of these, metadata and ghost */
	uint64_t index_bytes;
};

/* A pool of POOL_BYTES, rounded down to pages, between the bounds above (-EINVAL outside). COUNTERS
 * is borrowed. -ENOMEM. No thread runs until page_store_start(). */
errint_t page_store_new(uint64_t pool_bytes, struct counters *counters,
			struct page_store **ret_store);

/* As page_store_new(), with addresses for up to MOST_BYTES (at least POOL_BYTES). If there are not
 * so many, as in a small address space, the pool can shrink but not grow. */
errint_t page_store_new_resizable(uint64_t pool_bytes, uint64_t most_bytes,
				  struct counters *counters, struct page_store **ret_store);

/*
 * Change the size of the pool to POOL_BYTES, rounded down to pages. One caller at a time, once the
 * reclaimer runs; everything else goes on meanwhile. Returns at once. Then the reclaimer evicts the
 * frames beyond the new size and gives their memory back, in bounded holds of the lock. A frame
 * beyond it that somebody is filling goes when that is over. -ERANGE: below the least size, or
 * beyond page_store_most_bytes(). -ENOMEM: nothing has changed.
 */
errint_t page_store_resize(struct page_store *store, uint64_t pool_bytes);
/* The largest size that the pool can be given. Constant. */
uint64_t page_store_most_bytes(const struct page_store *store);

/* Start the reclaimer, which evicts and waits for grace periods. After any fork. -errno. */
errint_t page_store_start(struct page_store *store);

/* Stop the reclaimer and give the frames' memory back at once, whatever their number. From then on
 * frames may only be dropped and the store freed. Idempotent. */
void page_store_end(struct page_store *store);

/* As page_store_end(), and free everything. This looks at each frame's metadata once more. No other
 * thread uses STORE any more. */
void page_store_free(struct page_store *store);

/*
 * Take up to COUNT frames for filling. Returns how many there were, which may be 0. The caller owns
 * them until it publishes them or gives them back. Their bytes are undefined. Any thread; does not
 * block on I/O; wakes the reclaimer when the pool runs low.
 */
unsigned page_store_take(struct page_store *store, uint32_t frames[], unsigned count);

/* Do the steps in BATCH, and empty it. Holds the lock for FRAME_BATCH steps at most. */
void page_store_settle(struct page_store *store, struct frame_batch *batch);

/* The functions below put the steps to do under the lock into BATCH. If BATCH is NULL, they do them
 * at once. */

/* Give back a frame that was taken and not published. */
void page_store_give_back(struct page_store *store, uint32_t frame, struct frame_batch *batch);

/* The bytes of a frame that the caller took: writable until it is published. */
void *page_store_bytes(struct page_store *store, uint32_t frame);

/* The digest of a page under this pool's secret. */
void page_store_digest(const struct page_store *store, const void *page, struct digest *ret_digest);

/*
 * Publish the taken FRAME for one user. If a live frame has the same bytes, share that one instead,
 * and FRAME goes back to the pool. *ret_ref is the frame to put into the slot, with the caller as
 * one user of it. Returns whether it was shared. From now on it is read, shared and dropped as any
 * other; it is not evicted before BATCH is settled. RCU read side, entered by the caller. Within it
 * the caller may also go on reading page_store_read(*ret_ref).
 */
bool page_store_publish(struct page_store *store, uint32_t frame, const struct digest *digest,
			struct frame_batch *batch, struct frame_ref *ret_ref);

/* Become one more user of REF, which was published to be shared. False: that life is over. RCU read
 * side. */
bool page_store_share(struct page_store *store, struct frame_ref ref);

/* Publish FRAME for one file alone: in no index, never shared. RCU read side. */
struct frame_ref page_store_publish_private(struct page_store *store, uint32_t frame,
					    struct frame_batch *batch);

/*
 * The bytes of REF, or NULL if that life is over. RCU read side; the result is valid until it is
 * left (A.2). Wait-free; writes no shared cache line but the hotness bits, and those only when they
 * are not set yet. A stale answer is safe: if an eviction is not seen yet, the bytes, which are
 * immutable, are only used once more before their grace period ends.
 */
const void *page_store_read(struct page_store *store, struct frame_ref ref);

/* As page_store_read(), but without marking a use for eviction: for a caller that has counted this
 * use already, and for the audit. */
const void *page_store_peek(const struct page_store *store, struct frame_ref ref);

/* Give up one use of REF; does nothing if that life is over already. RCU read side. Never
 * blocks. */
void page_store_drop(struct page_store *store, struct frame_ref ref, struct frame_batch *batch);

/* The number of users of REF, 0 if that life is over. Does not count as a use. For tests and the
 * audit. */
uint32_t page_store_users(const struct page_store *store, struct frame_ref ref);

void page_store_usage(const struct page_store *store, struct page_store_usage *ret_usage);

/*
 * For the audit, which looks at a pool that is in use. Nothing here changes anything, hotness
 * included; each call holds the store's lock for a bounded time, or takes none.
 */

/* A frame at one moment. */
struct frame_report {
	struct frame_ref ref;
	uint32_t users;
	enum frame_place place;
	bool private; /* in no index, of one file alone */
	bool linked;  /* queued, and its neighbours agree */
};

#define FRAME_REPORTS_MAX 1024u

/* COUNT frames from FIRST on, FRAME_REPORTS_MAX at most, all as of one moment. */
void page_store_report(struct page_store *store, uint32_t first, unsigned count,
		       struct frame_report reports[]);

/* What the lists say of themselves. As long as `moves` stays the same, no frame has moved from one
 * list to another. */
struct frame_lists {
	uint64_t moves;
	uint64_t index_entries;
	uint32_t used_before;          /* frames from here on were never used */
	uint32_t length[FRAME_PLACES]; /* of the lists that keep a length; else 0 */
};
void page_store_lists(struct page_store *store, struct frame_lists *ret_lists);

/* A walk along the free list or the two queues, from oldest to newest, link by link. */
struct frame_walk {
	uint64_t moves; /* the store's `moves` for which the walk is true */
	uint32_t at;    /* frame where the next call goes on */
	uint8_t list;   /* 0: free list, 1: small queue, 2: main queue */
	bool begun;
	uint32_t seen; /* frames so far */
};
#define FRAME_WALK_LISTS 3u
enum frame_walk_step { FRAME_WALK_MORE, FRAME_WALK_DONE, FRAME_WALK_MOVED };
/* Go on with the walk. FRAME_WALK_MOVED: a frame moved since walk->moves, so what was seen is of no
 * use. */
enum frame_walk_step page_store_walk(struct page_store *store, struct frame_walk *walk);

/* What is wrong with a queued frame that is not private. */
enum {
	FRAME_WRONG_DIGEST = 1, /* its bytes have another digest */
	FRAME_NOT_INDEXED = 2,
	FRAME_TWICE = 4, /* another live frame has the same bytes, and both can be shared */
};
/* Look at REF's bytes and its place in the index. Returns 0 also if that life is over. These are
 * not matters of a moment, so what is returned is really wrong. Must be called within the RCU read
 * side of page_store_report(), which must have said that REF is queued. */
unsigned page_store_verify(struct page_store *store, struct frame_ref ref);

#endif
