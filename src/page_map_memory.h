/* SPDX-License-Identifier: Apache-2.0 */
/* page_map_memory.h - what page_map.c and page_map_memory.c share; nobody else includes it. */
#ifndef FOLDFS_PAGE_MAP_MEMORY_H
#define FOLDFS_PAGE_MAP_MEMORY_H

#include "foldfs/page_map.h"
#include "foldfs/rcu.h"

#include <pthread.h>
#include <stdatomic.h>

struct page_map_memory {
	struct page_store *store;
	_Atomic uint64_t bytes;         /* of nodes and maps; relaxed */
	_Atomic uint64_t leaving_bytes; /* of these, in nodes that are in no tree any more;
					 * relaxed */
	_Atomic uint64_t zero_pages;    /* relaxed; exact when nothing is under way */
	pthread_mutex_t lock;           /* a leaf of the lock order */
	/* Lists of nodes; each is the word of its first node, or 0. The first two are changed under
	 * lock. */
	_Atomic uint64_t detached; /* roots of trees that nothing points to, to be taken apart */
	uint64_t retired;          /* waiting for a grace period to begin */
	uint64_t leaving;          /* waiting for it to end; owned by the pending callback */
	bool grace_pending;        /* under lock */
	unsigned taken;            /* nodes of `detached` that threads are emptying; under lock */
	pthread_cond_t emptied;    /* `taken` is 0 */
	struct rcu_head head;      /* of the pending callback */
};

/* What malloc takes for BLOCK: its usable size and the chunk's header. */
uint64_t map_block_bytes(void *block);
/* What malloc takes for a node of 2^WIDTH words, nearly always. */
uint64_t map_node_bytes(unsigned width);
void map_memory_count(struct page_map_memory *memory, uint64_t bytes);
void map_memory_uncount(struct page_map_memory *memory, uint64_t bytes);
void map_zeroes_came(struct page_map_memory *memory, uint64_t pages);
void map_zeroes_went(struct page_map_memory *memory, uint64_t pages);

/* A node of 2^WIDTH words that all say WORD, counted. NULL: no memory. */
struct map_node *map_node_new(struct page_map_memory *memory, unsigned width, uint64_t word);
/* Nothing points to the node of NODE_WORD any more and all its words are `moved`: free it a grace
 * period later. Never blocks. */
void map_node_retire(struct page_map_memory *memory, uint64_t node_word);

/* Give up what WORD holds (page_map.c, B.3). WORD is no node, is in no slot any more, and stood for
 * 64^HEIGHT pages. BATCH: see page_store.h. Returns how many frames that were. RCU read side. */
unsigned map_word_drop(struct page_map_memory *memory, uint64_t word, unsigned height,
		       struct frame_batch *batch);
/* No word points to the node of NODE_WORD any more; BYTES are in it and in the nodes below. They
 * are taken apart later (page_map.c, R.5). Constant time; never blocks. */
void map_tree_detach(struct page_map_memory *memory, uint64_t node_word, uint64_t bytes);
/* Take apart a little of what is detached. A thread that detaches calls it, outside of the map's
 * lock, so that small trees are gone when its call returns. A quarter of a millisecond at most. */
void map_memory_take_apart_some(struct page_map_memory *memory);

#endif
