/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_store_audit.c - what the audit sees of a pool that is in use
 *
 * Changes nothing; each hold of the lock is bounded. The report of a frame in a queue is of one
 * moment. For a frame that is in no list, another thread may be writing its metadata.
 */
#include "page_store_internal.h"

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
	case FRAME_CLOSED:
		return FRAME_PLACE_CLOSED;
	default:
		return FRAME_PLACE_TAKEN;
	}
}

static bool is_frame(const struct page_store *store, uint32_t link)
{
	return link == FRAME_NONE || link < store->fresh;
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
	/* The publisher of a frame that is not queued yet may be writing these fields. */
	ret_report->private = meta->private;
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
			/* Its metadata has no memory yet, and looking at it must not give it
			 * any. */
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
	ret_lists->used_before = store->fresh;
	pthread_mutex_unlock(&store->lock);
}

/* Links that are followed in one hold of the lock: some milliseconds. */
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
	/* Counting frames ends the walk in a ring; a link to nowhere ends it too. */
	for (; step == FRAME_WALK_MORE && steps < WALK_STEPS; steps++) {
		if (walk->at >= store->fresh || walk->seen > store->fresh) {
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
	/* A frame leaves the index when its life ends, which may have been just now. */
	return page_store_users(store, ref) ? wrong : 0;
}
