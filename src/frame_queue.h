/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame_queue.h - which frame to evict next: S3-FIFO over the frames' metadata
 *
 * There are two queues and a ghost. New content enters the small queue, a tenth of the pool. What
 * is used again before it reaches the end moves on to the main queue; the rest leaves, and the
 * ghost remembers its digest. Content that comes back while it is remembered enters the main queue
 * at once. The ghost knows digests, not file positions: content that comes back through another
 * file counts. A hit moves nothing, it sets bits (frame_meta.hot). In the main queue a frame with
 * hot bits goes round again. A shared frame goes round once more for each doubling of its users,
 * because evicting it would cost each of them a miss.
 *
 * Part of page_store.c. Like the store's lists, it is under the store's lock.
 */
#ifndef FOLDFS_FRAME_QUEUE_H
#define FOLDFS_FRAME_QUEUE_H

#include "foldfs/hash_index.h"

#include <stdatomic.h>

#define FRAME_NONE    UINT32_MAX /* no frame has this number: they fit 29 bits */
#define FRAME_HOT_MAX 3

enum frame_where {
	FRAME_OUTSIDE, /* in no queue and no list: taken, or on its way from one to another */
	FRAME_SMALL,
	FRAME_MAIN,
	/* The store's lists, of frames that are not live. */
	FRAME_FREE,
	FRAME_LIMBO,
	FRAME_RETIRED, /* for good, in no list */
	FRAME_CLOSED,  /* beyond the size of the pool, without memory, in no list */
};

/* Everything about a frame but its bytes; one cache line. */
struct frame_meta {
	struct hash_index_node node; /* constant from publication to the end of the life */
	/* generation << 32 | users. This word decides: the thread that takes the users of a
	 * generation to 0 by compare-and-swap, and moves the generation on, ends that life. */
	_Atomic uint64_t life;
	uint32_t prev;       /* in its queue or the free list, where the first one's means nothing;
			      * under the store's lock */
	uint32_t next;       /* the same */
	_Atomic uint8_t hot; /* 0..FRAME_HOT_MAX; set by any reader, lost updates are harmless */
	uint8_t where;       /* enum frame_where; under the store's lock */
	uint8_t laps;        /* of the main queue without a hit; under the store's lock */
	bool private;        /* in no index; constant while live */
} __attribute__((aligned(64)));

struct frame_fifo {
	uint32_t oldest;
	uint32_t newest;
	uint32_t length;
};

struct frame_queue {
	struct frame_meta *metas; /* borrowed */
	struct frame_fifo small;
	struct frame_fifo main;
	uint32_t small_target;       /* frames that the small queue may keep */
	uint16_t *ghost;             /* sets of GHOST_WAYS fingerprints, newest first; 0: empty */
	_Atomic uint64_t ghost_sets; /* changed under the store's lock */
	uint64_t ghost_bytes;        /* of its mapping; constant */
};

static inline uint32_t frame_users(uint64_t life)
{
	return (uint32_t)life;
}

static inline uint32_t frame_generation(uint64_t life)
{
	return (uint32_t)(life >> 32);
}

/* FRAMES: size of the pool, which frame_queue_resize() may change, up to MOST. -ENOMEM. */
errint_t frame_queue_init(struct frame_queue *queue, struct frame_meta *metas, uint32_t frames,
			  uint32_t most);
/* The pool has FRAMES frames now. What the ghost remembered is forgotten. */
void frame_queue_resize(struct frame_queue *queue, uint32_t frames);
void frame_queue_destroy(struct frame_queue *queue);
uint64_t frame_queue_bytes(const struct frame_queue *queue);

/* Insert a frame that was just published. */
void frame_queue_insert(struct frame_queue *queue, uint32_t frame);
/* Does nothing if the frame is in neither queue. */
void frame_queue_remove(struct frame_queue *queue, uint32_t frame);
/* Whether FRAME's neighbours, or the ends of its queue, agree that FRAME stands between them. */
bool frame_queue_is_linked(const struct frame_queue *queue, uint32_t frame);
/* Take the next frame to evict out of its queue. At most *LOOKS frames are looked at, and *LOOKS is
 * reduced by their number: each frame that is passed over has cooled down. FRAME_NONE: there is
 * none, or all of these were in use. */
uint32_t frame_queue_victim(struct frame_queue *queue, unsigned *looks);
/* Take the frame that has been longest in the main queue out of it, whatever its use; if the main
 * queue is empty, of the small one. FRAME_NONE if there is none. */
uint32_t frame_queue_eldest(struct frame_queue *queue);

#endif
