/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_map_memory.c - the memory of page maps: counted, and freed a grace period after it is left
 *
 * Readers of a map take no lock, so a node that was taken out of its tree is kept until every read
 * side that may have seen it has ended. Nodes that are retired while one grace period is under way
 * wait for the next one together: one callback serves them all, and there is one at most.
 *
 *   bytes          everything that malloc gave and that was not freed yet
 *   leaving_bytes  the part of it that only waits
 */
#include "foldfs/page_map_memory.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

errint_t page_map_memory_new(struct page_store *store, struct page_map_memory **ret_memory)
{
	struct page_map_memory *memory = calloc(1, sizeof(*memory));

	if (!memory)
		return -ENOMEM;
	memory->store = store;
	pthread_mutex_init(&memory->lock, NULL);
	*ret_memory = memory;
	return 0;
}

void page_map_memory_free(struct page_map_memory *memory)
{
	bool pending;

	if (!memory)
		return;
	/* Looked at before the barrier: who has told that nothing is pending may still be at work.
	 */
	do {
		pthread_mutex_lock(&memory->lock);
		pending = memory->grace_pending;
		pthread_mutex_unlock(&memory->lock);
		fold_rcu_barrier();
	} while (pending);
	pthread_mutex_destroy(&memory->lock);
	free(memory);
}

uint64_t page_map_memory_bytes(const struct page_map_memory *memory)
{
	return atomic_load_explicit(&memory->bytes, memory_order_relaxed);
}

uint64_t page_map_memory_in_use(const struct page_map_memory *memory)
{
	uint64_t leaving = atomic_load_explicit(&memory->leaving_bytes, memory_order_relaxed);
	uint64_t bytes = page_map_memory_bytes(memory);

	/* Two counters, read one after the other. */
	return bytes > leaving ? bytes - leaving : 0;
}

uint64_t page_map_memory_zero_pages(const struct page_map_memory *memory)
{
	return atomic_load_explicit(&memory->zero_pages, memory_order_relaxed);
}

uint64_t map_block_bytes(void *block)
{
	return malloc_usable_size(block) + sizeof(size_t);
}

void map_memory_count(struct page_map_memory *memory, uint64_t bytes)
{
	atomic_fetch_add_explicit(&memory->bytes, bytes, memory_order_relaxed);
}

void map_memory_uncount(struct page_map_memory *memory, uint64_t bytes)
{
	atomic_fetch_sub_explicit(&memory->bytes, bytes, memory_order_relaxed);
}

struct map_node *map_node_new(struct page_map_memory *memory, unsigned words, uint64_t word)
{
	struct map_node *node = malloc(sizeof(*node) + words * sizeof(node->words[0]));
	unsigned i;

	if (!node)
		return NULL;
	for (i = 0; i < words; i++)
		atomic_init(&node->words[i], word);
	map_memory_count(memory, map_block_bytes(node));
	return node;
}

static void grace_ended(struct rcu_head *head);

/* Begin a grace period for what is retired, one at a time. Under memory->lock. */
static void begin_grace_locked(struct page_map_memory *memory)
{
	if (memory->grace_pending || !memory->retired)
		return;
	memory->leaving = memory->retired;
	memory->retired = NULL;
	memory->grace_pending = true;
	fold_rcu_call(&memory->head, grace_ended);
}

static void grace_ended(struct rcu_head *head)
{
	struct page_map_memory *memory = caa_container_of(head, struct page_map_memory, head);
	struct map_node *node;
	struct map_node *next;

	fold_rcu_called(head);
	for (node = memory->leaving; node; node = next) {
		next = node->next_retired;
		atomic_fetch_sub_explicit(&memory->leaving_bytes, map_block_bytes(node),
					  memory_order_relaxed);
		map_memory_uncount(memory, map_block_bytes(node));
		free(node);
	}
	pthread_mutex_lock(&memory->lock);
	memory->leaving = NULL;
	memory->grace_pending = false;
	begin_grace_locked(memory);
	/* Once it is not pending, page_map_memory_free() need not wait for us. */
	pthread_mutex_unlock(&memory->lock);
}

/* page_map.c, R.2, the end. */
void map_node_retire(struct page_map_memory *memory, struct map_node *node)
{
	atomic_fetch_add_explicit(&memory->leaving_bytes, map_block_bytes(node),
				  memory_order_relaxed);
	pthread_mutex_lock(&memory->lock);
	node->next_retired = memory->retired;
	memory->retired = node;
	begin_grace_locked(memory);
	pthread_mutex_unlock(&memory->lock);
}
