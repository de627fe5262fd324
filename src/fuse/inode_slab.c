/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode_slab.c - objects that come back as raw 64-bit numbers
 *
 * Invariants:
 *  - slot.id is the object's number while it is live, 0 while it is not. The counter of a chunk's
 *    place increases with every object taken there, and outlives the chunk. So a number is given
 *    out once (until a counter of 32 bits has wrapped).
 *  - A place's chunk pointer is cleared before the chunk is freed, and the chunk is freed after a
 *    grace period. So inode_slab_get() reads only live chunks, whatever number it is given.
 *  - A chunk is in the partial list exactly while it has a free slot.
 *
 * A stale answer of inode_slab_get() is safe. It can only be for a number whose object ends at the
 * same moment, and a caller that may use a number keeps its object from ending.
 */
#include "inode_slab.h"

#include "foldfs/rcu.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/list.h>

#define CHUNK_SLOTS 256u
#define PLACES      (1u << 20) /* 268 million objects */
#define NO_SLOT     UINT32_MAX

struct chunk {
	struct cds_list_head link; /* in partial; under mutex */
	uint32_t place;            /* constant */
	uint32_t live;             /* under mutex */
	uint32_t first_free;       /* index of a slot, NO_SLOT: none; under mutex */
	struct rcu_head rcu;       /* for freeing the chunk */
	_Alignas(64) char objects[];
};

struct place {
	struct chunk *_Atomic chunk; /* written under mutex, read in an RCU read side */
	uint32_t count;              /* objects ever taken here; under mutex */
	uint32_t next_empty;         /* in the list of empty places; under mutex */
};

struct inode_slab {
	size_t stride; /* constant */
	pthread_mutex_t mutex;
	struct cds_list_head partial; /* chunks with a free slot; under mutex */
	uint32_t used_places;         /* places that ever had a chunk; under mutex */
	uint32_t first_empty;         /* index of a place, NO_SLOT: none; under mutex */
	_Atomic uint64_t live;        /* written under mutex */
	_Atomic uint64_t bytes;       /* written under mutex */
	struct place *places;         /* constant pointer; its untouched pages cost nothing */
};

static size_t chunk_bytes(const struct inode_slab *slab)
{
	return sizeof(struct chunk) + CHUNK_SLOTS * slab->stride;
}

static struct node_slot *chunk_slot(const struct inode_slab *slab, struct chunk *chunk,
				    uint32_t index)
{
	return (struct node_slot *)(chunk->objects + index * slab->stride);
}

errint_t inode_slab_new(size_t object_bytes, struct inode_slab **ret_slab)
{
	struct inode_slab *slab = calloc(1, sizeof(*slab));

	if (!slab)
		return -ENOMEM;
	slab->places = calloc(PLACES, sizeof(*slab->places));
	if (!slab->places) {
		free(slab);
		return -ENOMEM;
	}
	slab->stride = (object_bytes + 15) & ~(size_t)15;
	slab->first_empty = NO_SLOT;
	CDS_INIT_LIST_HEAD(&slab->partial);
	pthread_mutex_init(&slab->mutex, NULL);
	*ret_slab = slab;
	return 0;
}

void inode_slab_free(struct inode_slab *slab)
{
	if (!slab)
		return;
	for (uint32_t place = 0; place < slab->used_places; place++)
		free(atomic_load(&slab->places[place].chunk));
	fold_rcu_barrier(); /* chunks that wait for their grace period */
	pthread_mutex_destroy(&slab->mutex);
	free(slab->places);
	free(slab);
}

/* A place for a chunk; NO_SLOT: all are taken. */
static uint32_t place_take_locked(struct inode_slab *slab)
{
	uint32_t place = slab->first_empty;

	if (place != NO_SLOT) {
		slab->first_empty = slab->places[place].next_empty;
		return place;
	}
	return slab->used_places < PLACES ? slab->used_places++ : NO_SLOT;
}

static void place_give_locked(struct inode_slab *slab, uint32_t place)
{
	slab->places[place].next_empty = slab->first_empty;
	slab->first_empty = place;
}

/* A new chunk of free slots, in the partial list. */
static errint_t chunk_new_locked(struct inode_slab *slab, struct chunk **ret_chunk)
{
	uint32_t place = place_take_locked(slab);
	struct chunk *chunk;

	if (place == NO_SLOT)
		return -ENFILE;
	chunk = aligned_alloc(64, (chunk_bytes(slab) + 63) & ~(size_t)63);
	if (!chunk) {
		place_give_locked(slab, place);
		return -ENOMEM;
	}
	memset(chunk, 0, chunk_bytes(slab));
	chunk->place = place;
	for (uint32_t index = 0; index < CHUNK_SLOTS; index++)
		chunk_slot(slab, chunk, index)->next_free =
			index + 1 < CHUNK_SLOTS ? index + 1 : NO_SLOT;
	cds_list_add(&chunk->link, &slab->partial);
	atomic_store_explicit(&slab->places[place].chunk, chunk, memory_order_release);
	atomic_fetch_add_explicit(&slab->bytes, chunk_bytes(slab), memory_order_relaxed);
	*ret_chunk = chunk;
	return 0;
}

/* Make the first free slot of CHUNK live. CHUNK has a free slot. */
static struct node_slot *chunk_take_locked(struct inode_slab *slab, struct chunk *chunk)
{
	uint32_t index = chunk->first_free;
	struct node_slot *slot = chunk_slot(slab, chunk, index);
	struct place *place = &slab->places[chunk->place];
	uint64_t id = (uint64_t)chunk->place * CHUNK_SLOTS + index;

	chunk->first_free = slot->next_free;
	chunk->live++;
	if (chunk->first_free == NO_SLOT)
		cds_list_del(&chunk->link);
	if (++place->count == 0)
		place->count = 1;
	memset((char *)slot + sizeof(*slot), 0, slab->stride - sizeof(*slot));
	atomic_store_explicit(&slot->id, (uint64_t)place->count << 32 | id, memory_order_release);
	atomic_fetch_add_explicit(&slab->live, 1, memory_order_relaxed);
	return slot;
}

errint_t inode_slab_take(struct inode_slab *slab, struct node_slot **ret_slot)
{
	struct chunk *chunk;
	errint_t error = 0;

	pthread_mutex_lock(&slab->mutex);
	if (cds_list_empty(&slab->partial))
		error = chunk_new_locked(slab, &chunk);
	else
		chunk = cds_list_first_entry(&slab->partial, struct chunk, link);
	if (!error)
		*ret_slot = chunk_take_locked(slab, chunk);
	pthread_mutex_unlock(&slab->mutex);
	return error;
}

/* Take CHUNK, which is wholly free, out of its place. Keep it if it is the only one with free
 * slots: the next object would need a chunk again. True: the caller must free it. */
static bool chunk_retire_locked(struct inode_slab *slab, struct chunk *chunk)
{
	if (slab->partial.next == slab->partial.prev)
		return false;
	cds_list_del(&chunk->link);
	atomic_store_explicit(&slab->places[chunk->place].chunk, NULL, memory_order_release);
	place_give_locked(slab, chunk->place);
	atomic_fetch_sub_explicit(&slab->bytes, chunk_bytes(slab), memory_order_relaxed);
	return true;
}

static void chunk_free(struct rcu_head *head)
{
	fold_rcu_called(head);
	free(caa_container_of(head, struct chunk, rcu));
}

void inode_slab_give(struct inode_slab *slab, struct node_slot *slot)
{
	uint32_t index = (uint32_t)atomic_load_explicit(&slot->id, memory_order_relaxed);
	bool retired = false;
	struct chunk *chunk;

	pthread_mutex_lock(&slab->mutex);
	chunk = atomic_load_explicit(&slab->places[index / CHUNK_SLOTS].chunk,
				     memory_order_relaxed);
	atomic_store_explicit(&slot->id, 0, memory_order_relaxed);
	slot->next_free = chunk->first_free;
	if (chunk->first_free == NO_SLOT)
		cds_list_add(&chunk->link, &slab->partial);
	chunk->first_free = index % CHUNK_SLOTS;
	atomic_fetch_sub_explicit(&slab->live, 1, memory_order_relaxed);
	if (--chunk->live == 0)
		retired = chunk_retire_locked(slab, chunk);
	pthread_mutex_unlock(&slab->mutex);
	if (retired)
		fold_rcu_call(&chunk->rcu, chunk_free);
}

struct node_slot *inode_slab_get(struct inode_slab *slab, uint64_t id)
{
	uint32_t index = (uint32_t)id;
	struct node_slot *slot = NULL;
	struct chunk *chunk;

	if (id >> 32 == 0 || index / CHUNK_SLOTS >= PLACES)
		return NULL;
	fold_rcu_read_lock();
	chunk = atomic_load_explicit(&slab->places[index / CHUNK_SLOTS].chunk,
				     memory_order_acquire);
	if (chunk) {
		slot = chunk_slot(slab, chunk, index % CHUNK_SLOTS);
		if (atomic_load_explicit(&slot->id, memory_order_acquire) != id)
			slot = NULL;
	}
	fold_rcu_read_unlock();
	return slot;
}

void inode_slab_each(struct inode_slab *slab, void (*visit)(void *context, struct node_slot *slot),
		     void *context)
{
	for (uint32_t place = 0; place < slab->used_places; place++) {
		for (uint32_t index = 0; index < CHUNK_SLOTS; index++) {
			struct chunk *chunk = atomic_load(&slab->places[place].chunk);
			struct node_slot *slot = chunk ? chunk_slot(slab, chunk, index) : NULL;

			if (slot && atomic_load(&slot->id) != 0)
				visit(context, slot);
		}
	}
}

uint64_t inode_slab_bytes(const struct inode_slab *slab)
{
	return atomic_load_explicit(&slab->bytes, memory_order_relaxed);
}

uint64_t inode_slab_live(const struct inode_slab *slab)
{
	return atomic_load_explicit(&slab->live, memory_order_relaxed);
}

static void place_recount_locked(struct inode_slab *slab, uint32_t place,
				 struct inode_slab_count *count)
{
	struct chunk *chunk =
		atomic_load_explicit(&slab->places[place].chunk, memory_order_relaxed);

	if (!chunk)
		return;
	count->bytes += chunk_bytes(slab);
	for (uint32_t index = 0; index < CHUNK_SLOTS; index++)
		count->live += atomic_load_explicit(&chunk_slot(slab, chunk, index)->id,
						    memory_order_relaxed) != 0;
}

void inode_slab_recount(struct inode_slab *slab, struct inode_slab_count *ret_count)
{
	struct inode_slab_count count = {0};
	uint32_t place;
	bool more = true;

	for (place = 0; more; place++) {
		pthread_mutex_lock(&slab->mutex);
		more = place < slab->used_places;
		if (more)
			place_recount_locked(slab, place, &count);
		pthread_mutex_unlock(&slab->mutex);
	}
	*ret_count = count;
}
