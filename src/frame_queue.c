/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame_queue.c - S3-FIFO ("FIFO queues are all you need for cache eviction", SOSP 2023)
 *
 * The sizes are the paper's: a tenth of the pool for the small queue, a ghost of as many entries as
 * there are frames, hotness up to 3. The ghost is a table of small sets, each a FIFO of 16-bit
 * fingerprints. It takes 2 bytes for each frame, unlike a queue of digests. A fingerprint that
 * matches by chance only puts one page in the wrong queue.
 */
#include "frame_queue.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define GHOST_WAYS 16u

static void set_sizes(struct frame_queue *queue, uint32_t frames)
{
	queue->small_target = frames / 10;
	queue->ghost_sets = frames / GHOST_WAYS + 1;
}

errint_t frame_queue_init(struct frame_queue *queue, struct frame_meta *metas, uint32_t frames,
			  uint32_t most)
{
	static const struct frame_fifo empty = {FRAME_NONE, FRAME_NONE, 0};

	queue->metas = metas;
	queue->small = empty;
	queue->main = empty;
	set_sizes(queue, most);
	queue->ghost_bytes = frame_queue_bytes(queue);
	set_sizes(queue, frames);
	/* Memory is touched with use: a pool that never evicts has no ghost. */
	queue->ghost = mmap(NULL, queue->ghost_bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return queue->ghost == MAP_FAILED ? -errno : 0;
}

void frame_queue_resize(struct frame_queue *queue, uint32_t frames)
{
	/* Its sets are found by another divisor from now on. If the kernel refuses, fingerprints
	 * stay in sets that are not theirs: at worst some pages enter the wrong queue. */
	(void)madvise(queue->ghost, queue->ghost_bytes, MADV_DONTNEED);
	set_sizes(queue, frames);
}

void frame_queue_destroy(struct frame_queue *queue)
{
	munmap(queue->ghost, queue->ghost_bytes);
}

uint64_t frame_queue_bytes(const struct frame_queue *queue)
{
	return atomic_load_explicit(&queue->ghost_sets, memory_order_relaxed) * GHOST_WAYS *
	       sizeof(uint16_t);
}

static void fifo_push(struct frame_queue *queue, struct frame_fifo *fifo, uint32_t frame)
{
	struct frame_meta *meta = &queue->metas[frame];

	meta->prev = fifo->newest;
	meta->next = FRAME_NONE;
	if (fifo->newest == FRAME_NONE)
		fifo->oldest = frame;
	else
		queue->metas[fifo->newest].next = frame;
	fifo->newest = frame;
	fifo->length++;
}

static void fifo_unlink(struct frame_queue *queue, struct frame_fifo *fifo, uint32_t frame)
{
	struct frame_meta *meta = &queue->metas[frame];

	if (meta->prev == FRAME_NONE)
		fifo->oldest = meta->next;
	else
		queue->metas[meta->prev].next = meta->next;
	if (meta->next == FRAME_NONE)
		fifo->newest = meta->prev;
	else
		queue->metas[meta->next].prev = meta->prev;
	fifo->length--;
}

static uint16_t *ghost_set(const struct frame_queue *queue, const struct digest *digest)
{
	return queue->ghost + digest->low % queue->ghost_sets * GHOST_WAYS;
}

static uint16_t fingerprint(const struct digest *digest)
{
	uint16_t print = (uint16_t)(digest->high ^ digest->low >> 48);

	return print ? print : 1;
}

static void ghost_remember(struct frame_queue *queue, const struct digest *digest)
{
	uint16_t *set = ghost_set(queue, digest);

	memmove(set + 1, set, (GHOST_WAYS - 1) * sizeof(*set));
	set[0] = fingerprint(digest);
}

/* Whether DIGEST was remembered. It is forgotten by this. */
static bool ghost_recall(struct frame_queue *queue, const struct digest *digest)
{
	uint16_t *set = ghost_set(queue, digest);
	uint16_t print = fingerprint(digest);
	unsigned way;

	for (way = 0; way < GHOST_WAYS && set[way]; way++) {
		if (set[way] != print)
			continue;
		memmove(set + way, set + way + 1, (GHOST_WAYS - 1 - way) * sizeof(*set));
		set[GHOST_WAYS - 1] = 0;
		return true;
	}
	return false;
}

static void enter(struct frame_queue *queue, uint32_t frame, enum frame_where where)
{
	struct frame_meta *meta = &queue->metas[frame];

	meta->where = (uint8_t)where;
	meta->laps = 0;
	fifo_push(queue, where == FRAME_MAIN ? &queue->main : &queue->small, frame);
}

void frame_queue_insert(struct frame_queue *queue, uint32_t frame)
{
	struct frame_meta *meta = &queue->metas[frame];
	bool returned = !meta->private && ghost_recall(queue, &meta->node.digest);

	atomic_store_explicit(&meta->hot, 0, memory_order_relaxed);
	enter(queue, frame, returned ? FRAME_MAIN : FRAME_SMALL);
}

void frame_queue_remove(struct frame_queue *queue, uint32_t frame)
{
	struct frame_meta *meta = &queue->metas[frame];

	if (meta->where != FRAME_SMALL && meta->where != FRAME_MAIN)
		return;
	fifo_unlink(queue, meta->where == FRAME_MAIN ? &queue->main : &queue->small, frame);
	meta->where = FRAME_OUTSIDE;
}

bool frame_queue_is_linked(const struct frame_queue *queue, uint32_t frame)
{
	const struct frame_meta *meta = &queue->metas[frame];
	const struct frame_fifo *fifo = meta->where == FRAME_MAIN ? &queue->main : &queue->small;
	bool before = meta->prev == FRAME_NONE
			      ? fifo->oldest == frame
			      : queue->metas[meta->prev].next == frame &&
					queue->metas[meta->prev].where == meta->where;
	bool behind = meta->next == FRAME_NONE
			      ? fifo->newest == frame
			      : queue->metas[meta->next].prev == frame &&
					queue->metas[meta->next].where == meta->where;

	return before && behind;
}

/* The oldest frame of the small queue that was not used again; frames that were used move to
 * main. */
static uint32_t small_victim(struct frame_queue *queue, unsigned *looks)
{
	while (queue->small.length && *looks) {
		uint32_t frame = queue->small.oldest;
		struct frame_meta *meta = &queue->metas[frame];

		--*looks;
		frame_queue_remove(queue, frame);
		if (atomic_load_explicit(&meta->hot, memory_order_relaxed) < 2) {
			if (!meta->private)
				ghost_remember(queue, &meta->node.digest);
			return frame;
		}
		atomic_store_explicit(&meta->hot, 0, memory_order_relaxed);
		enter(queue, frame, FRAME_MAIN);
	}
	return FRAME_NONE;
}

/* Extra laps that a shared frame gets for its users: one for each doubling, three at most. */
static unsigned worth(const struct frame_meta *meta)
{
	uint32_t users = frame_users(atomic_load_explicit(&meta->life, memory_order_relaxed));

	return users >= 8 ? 3 : users >= 4 ? 2 : users >= 2 ? 1 : 0;
}

/* Each lap takes a hot bit away or is counted, so a frame is passed over at most six times. */
static uint32_t main_victim(struct frame_queue *queue, unsigned *looks)
{
	while (queue->main.length && *looks) {
		uint32_t frame = queue->main.oldest;
		struct frame_meta *meta = &queue->metas[frame];
		uint8_t hot = atomic_load_explicit(&meta->hot, memory_order_relaxed);

		--*looks;
		if (!hot && meta->laps >= worth(meta)) {
			frame_queue_remove(queue, frame);
			return frame;
		}
		if (hot)
			atomic_store_explicit(&meta->hot, hot - 1, memory_order_relaxed);
		else
			meta->laps++;
		fifo_unlink(queue, &queue->main, frame);
		fifo_push(queue, &queue->main, frame);
	}
	return FRAME_NONE;
}

uint32_t frame_queue_victim(struct frame_queue *queue, unsigned *looks)
{
	uint32_t frame = FRAME_NONE;

	if (queue->small.length > queue->small_target || !queue->main.length)
		frame = small_victim(queue, looks);
	return frame != FRAME_NONE ? frame : main_victim(queue, looks);
}

uint32_t frame_queue_eldest(struct frame_queue *queue)
{
	uint32_t frame = queue->main.length ? queue->main.oldest : queue->small.oldest;

	if (frame != FRAME_NONE)
		frame_queue_remove(queue, frame);
	return frame;
}
