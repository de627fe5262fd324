/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_store.h - the pool: frames of 4096 bytes, taken, published, read, evicted
 *
 * Life of a frame (who may move it on):
 *
 *   free -> taken (page_store_take; the taker alone writes its bytes)
 *        -> live  (page_store_publish, page_store_publish_private; immutable from here on)
 *        -> limbo (the last user dropped it, or eviction: whoever wins the compare-and-swap of
 * `life`)
 *        -> free  (the reclaimer, a grace period later)
 *
 * Guarantees, cited by code and tests:
 *   A.1 the bytes of a live frame never change;
 *   A.2 within one RCU read side, bytes that page_store_read() returned stay as they are, whatever
 *       happens to the frame: its memory is written again only after a grace period;
 *   A.3 a frame_ref of an earlier life of a frame never reads, shares or drops its present one: the
 *       generation moves on when a life ends, and a frame whose generations are used up is retired;
 *   A.4 frames that share content were compared byte by byte;
 *   A.5 nothing here fails for want of a frame: take() returns fewer than asked, and that is all.
 *
 * The pool is one anonymous mapping of its full size; memory is touched, and so taken, only as
 * frames are first used. Eviction is S3-FIFO ("FIFO queues are all you need for cache eviction",
 * SOSP 2023): a hit sets bits in the frame's metadata and moves nothing.
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
	FRAME_PLACE_TAKEN, /* in no list: somebody's, or on its way */
	FRAME_PLACE_QUEUED,
	FRAME_PLACE_FREE,
	FRAME_PLACE_LIMBO,
	FRAME_PLACE_RETIRED,
	FRAME_PLACE_FRESH, /* never used */
	FRAME_PLACES
};

/*
 * Steps of frames from one list to another, gathered so that the store's lock, for which all wait,
 * is taken once for all that a request does. On the stack of who makes the request, who sets count
 * to 0 and settles the batch before it leaves the read side in which it was filled: what is in a
 * batch is in no list, and the audit takes that for lost where it lasts longer. A batch that is
 * full settles itself.
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
	uint64_t pages_volatile; /* of these, private frames: content that a write made */
	uint64_t pool_bytes;     /* frame memory touched so far, with frame metadata and ghost */
	uint64_t metadata_bytes; /* of these, metadata and ghost */
	uint64_t index_bytes;
};

/* A pool of POOL_BYTES, rounded down to pages, between the bounds above (-EINVAL outside). STATS is
 * borrowed. -ENOMEM. No thread runs until page_store_start(). */
errint_t page_store_new(uint64_t pool_bytes, struct counters *counters,
			struct page_store **ret_store);

/* Start the reclaimer, which evicts and waits for grace periods. After any fork. -errno. */
errint_t page_store_start(struct page_store *store);

/* Stop the reclaimer and give the frames' memory back at once, whatever their number. From then on
 * frames may be dropped and the store be freed, and nothing else. Idempotent. */
void page_store_end(struct page_store *store);

/* The same, and free everything: what is kept about each frame is looked at once more for that. No
 * other thread uses STORE any more. */
void page_store_free(struct page_store *store);

/*
 * Take up to COUNT frames for filling; how many there were is returned, 0 included. The caller owns
 * them until it publishes or gives them back. Their bytes are whatever they were. Any thread; does
 * not block on I/O; wakes the reclaimer when the pool runs low.
 */
unsigned page_store_take(struct page_store *store, uint32_t frames[], unsigned count);

/* Do what BATCH says, and empty it. Holds the lock for FRAME_BATCH steps at most. */
void page_store_settle(struct page_store *store, struct frame_batch *batch);

/* In what follows, what there is to do under the lock goes into BATCH; NULL: it is done at once. */

/* Give back a frame that was taken and not published. */
void page_store_give_back(struct page_store *store, uint32_t frame, struct frame_batch *batch);

/* The bytes of a frame that the caller took: writable until it is published. */
void *page_store_bytes(struct page_store *store, uint32_t frame);

/* The digest of a page under this pool's secret. */
void page_store_digest(const struct page_store *store, const void *page, struct digest *ret_digest);

/*
 * Publish the taken FRAME for one user, or share a live frame with the same bytes, in which case
 * FRAME goes back to the pool. *ret_ref is the frame to put into the slot, with the caller as one
 * user of it. Returns whether it was shared. It is read, shared and dropped as any other from now
 * on; it is not evicted before it is settled. RCU read side, entered by the caller, who thereby may
 * also go on reading page_store_read(*ret_ref).
 */
bool page_store_publish(struct page_store *store, uint32_t frame, const struct digest *digest,
			struct frame_batch *batch, struct frame_ref *ret_ref);

/* Become one more user of REF, which was published to be shared. False: that life is over. RCU read
 * side. */
bool page_store_share(struct page_store *store, struct frame_ref ref);

/* Publish FRAME as one file's own: in no index, never shared. RCU read side. */
struct frame_ref page_store_publish_private(struct page_store *store, uint32_t frame,
					    struct frame_batch *batch);

/*
 * The bytes of REF, or NULL if that life is over. RCU read side; the result is valid until it is
 * left (A.2). Wait-free; writes no shared cache line but the hotness bits, and those only when they
 * are not set yet. A stale answer is safe: an eviction that is not seen yet only means that the
 * bytes, immutable, are used once more before their grace period ends.
 */
const void *page_store_read(struct page_store *store, struct frame_ref ref);

/* The same, unnoticed by eviction: for who has counted this use already, and for the audit. */
const void *page_store_peek(const struct page_store *store, struct frame_ref ref);

/* Give up one use of REF; nothing if that life is over already. RCU read side. Never blocks. */
void page_store_drop(struct page_store *store, struct frame_ref ref, struct frame_batch *batch);

/* The frame has been seen live by a user other than through page_store_read: users of REF, 0 if
 * over. For tests and the audit. */
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

/* COUNT frames from FIRST on, FRAME_REPORTS_MAX at most, all of one moment. */
void page_store_report(struct page_store *store, uint32_t first, unsigned count,
		       struct frame_report reports[]);

/* What the lists say of themselves. While `moves` stays, no frame has gone from one to another. */
struct frame_lists {
	uint64_t moves;
	uint64_t index_entries;
	uint32_t length[FRAME_PLACES]; /* of those that have a length of their own; else 0 */
};
void page_store_lists(struct page_store *store, struct frame_lists *ret_lists);

/* A walk along the free list or the two queues, from oldest to newest, link by link. */
struct frame_walk {
	uint64_t moves; /* as of which it is true */
	uint32_t at;    /* where it goes on */
	uint8_t list;   /* 0: free list, 1: small queue, 2: main queue */
	bool begun;
	uint32_t seen; /* frames so far */
};
#define FRAME_WALK_LISTS 3u
enum frame_walk_step { FRAME_WALK_MORE, FRAME_WALK_DONE, FRAME_WALK_MOVED };
/* Go on; MOVED: a frame moved since walk->moves, and what was seen is of no use. */
enum frame_walk_step page_store_walk(struct page_store *store, struct frame_walk *walk);

/* What is wrong with a queued frame that is not private. */
enum {
	FRAME_WRONG_DIGEST = 1, /* its bytes have another */
	FRAME_NOT_INDEXED = 2,
	FRAME_TWICE = 4, /* another live frame has the same bytes, and both can be shared */
};
/* Look at REF's bytes and its place in the index. 0 also if that life is over: these are no
 * moment's matters, so what is returned is wrong. RCU read side, the one of page_store_report(),
 * which must have said that REF is queued. */
unsigned page_store_verify(struct page_store *store, struct frame_ref ref);

#endif
