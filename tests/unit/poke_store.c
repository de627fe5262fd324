/* SPDX-License-Identifier: Apache-2.0 */
/* poke_store.c - page_store.c, with ways to damage it: see poke.h */
#include "poke.h"

#include "../../src/page_store.c"

void poke_users(struct page_store *store, uint32_t frame, int by)
{
	atomic_fetch_add(&store->metas[frame].life, (uint64_t)(int64_t)by);
}

uint8_t poke_where(struct page_store *store, uint32_t frame, uint8_t where)
{
	uint8_t was;

	pthread_mutex_lock(&store->lock);
	was = store->metas[frame].where;
	store->metas[frame].where = where;
	pthread_mutex_unlock(&store->lock);
	return was;
}

uint8_t poke_hot(struct page_store *store, uint32_t frame)
{
	return atomic_load_explicit(&store->metas[frame].hot, memory_order_relaxed);
}

void poke_unqueue(struct page_store *store, uint32_t frame)
{
	pthread_mutex_lock(&store->lock);
	frame_queue_remove(&store->queue, frame);
	pthread_mutex_unlock(&store->lock);
}

void poke_queue(struct page_store *store, uint32_t frame)
{
	pthread_mutex_lock(&store->lock);
	frame_queue_insert(&store->queue, frame);
	pthread_mutex_unlock(&store->lock);
}

uint32_t poke_next(struct page_store *store, uint32_t frame, uint32_t next)
{
	uint32_t was;

	pthread_mutex_lock(&store->lock);
	was = store->metas[frame].next;
	store->metas[frame].next = next;
	pthread_mutex_unlock(&store->lock);
	return was;
}

uint32_t poke_free_first(struct page_store *store, uint32_t frame)
{
	uint32_t was;

	pthread_mutex_lock(&store->lock);
	was = store->free_first;
	store->free_first = frame;
	pthread_mutex_unlock(&store->lock);
	return was;
}

void poke_free_again(struct page_store *store, uint32_t frame)
{
	pthread_mutex_lock(&store->lock);
	page_store_push_free_locked(store, frame);
	pthread_mutex_unlock(&store->lock);
}

void poke_free_count(struct page_store *store, int by)
{
	pthread_mutex_lock(&store->lock);
	store->free_count += (uint32_t)by;
	pthread_mutex_unlock(&store->lock);
}

void poke_gauges(struct page_store *store, int used, int own, int shared, int sharing)
{
	atomic_fetch_add(&store->used, (uint64_t)(int64_t)used);
	atomic_fetch_add(&store->private, (uint64_t)(int64_t)own);
	atomic_fetch_add(&store->shared, (uint64_t)(int64_t)shared);
	atomic_fetch_add(&store->sharing, (uint64_t)(int64_t)sharing);
}

void poke_unindex(struct page_store *store, uint32_t frame)
{
	fold_rcu_read_lock();
	hash_index_remove(store->index, &store->metas[frame].node);
	fold_rcu_read_unlock();
	fold_rcu_synchronize();
}

void poke_index(struct page_store *store, uint32_t frame)
{
	fold_rcu_read_lock();
	poke_index_add(store->index, &store->metas[frame].node);
	fold_rcu_read_unlock();
}

void poke_unprivate(struct page_store *store, uint32_t frame)
{
	page_store_digest(store, page_store_bytes(store, frame), &store->metas[frame].node.digest);
	store->metas[frame].private = false;
	poke_gauges(store, 0, -1, 0, 0);
	poke_index(store, frame);
}

void poke_private(struct page_store *store, uint32_t frame)
{
	poke_unindex(store, frame);
	poke_gauges(store, 0, 1, 0, 0);
	store->metas[frame].private = true;
}
