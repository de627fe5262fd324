/* SPDX-License-Identifier: Apache-2.0 */
/* page_map_memory.h - what page_map.c and page_map_memory.c share; nobody else includes it. */
#ifndef FOLDFS_PAGE_MAP_MEMORY_H
#define FOLDFS_PAGE_MAP_MEMORY_H

#include "foldfs/page_map.h"
#include "foldfs/rcu.h"

#include <pthread.h>
#include <stdatomic.h>

/* A node of a page map's tree. */
struct map_node {
	struct map_node *next_retired; /* under memory->lock, once the node is unreachable */
	_Atomic uint64_t words[];      /* page_map.c, R.1 */
};

struct page_map_memory {
	struct page_store *store;
	_Atomic uint64_t bytes;         /* of nodes and maps; relaxed */
	_Atomic uint64_t leaving_bytes; /* of these, in nodes that are retired; relaxed */
	_Atomic uint64_t zero_pages;    /* relaxed; exact when nothing is under way */
	pthread_mutex_t lock;           /* a leaf */
	struct map_node *retired;       /* waiting for a grace period to begin; under lock */
	struct map_node *leaving;       /* waiting for it to end; the pending callback's */
	bool grace_pending;             /* under lock */
	struct rcu_head head;           /* of the pending callback */
};

/* What malloc takes for BLOCK: its usable size and the chunk's header. */
uint64_t map_block_bytes(void *block);
void map_memory_count(struct page_map_memory *memory, uint64_t bytes);
void map_memory_uncount(struct page_map_memory *memory, uint64_t bytes);

/* A node of WORDS words that all say WORD, counted. NULL: no memory. */
struct map_node *map_node_new(struct page_map_memory *memory, unsigned words, uint64_t word);
/* Nothing points to NODE any more and all its words are `moved`: it is freed a grace period later.
 * Never blocks. */
void map_node_retire(struct page_map_memory *memory, struct map_node *node);

#endif
