/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_map_memory.c - the memory of page maps: counted, taken apart, and freed
 *
 * What happens to a tree that its map gave up (page_map.c, R.2 and R.5):
 *
 *   detached  no word points to it; its slots still hold their frames
 *   retired   one node of it: all its words say `moved`, and its children are detached themselves
 *   leaving   a grace period is under way for it, after which it is freed
 *
 * Readers of a map take no lock, so a node is kept until every read side that may have seen it has
 * ended. Nodes that are retired while one grace period is under way wait together for the next one:
 * there is one callback at most, and it serves them all. The same callback takes apart what is
 * detached, CALLBACK_COST at a time, because it runs in a thread that nobody waits for. So neither
 * a lock nor a read side is held for longer than STEP_COST, whatever the size of the tree.
 *
 *   bytes          everything that malloc gave and that was not freed yet
 *   leaving_bytes  the part of it that is detached, retired or leaving
 */
#include "page_map_memory.h"

#include "page_map_word.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

/* Cost: words that are looked at and frames that are dropped; each takes 10 to 250 ns. */
#define STEP_COST     256u   /* in one read side */
#define SOME_COST     1024u  /* by the thread that detaches: a map of a few leaves, however tall */
#define CALLBACK_COST 16384u /* in one callback: other callbacks wait behind it */

errint_t page_map_memory_new(struct page_store *store, struct page_map_memory **ret_memory)
{
	struct page_map_memory *memory = calloc(1, sizeof(*memory));

	if (!memory)
		return -ENOMEM;
	memory->store = store;
	pthread_mutex_init(&memory->lock, NULL);
	pthread_cond_init(&memory->emptied, NULL);
	*ret_memory = memory;
	return 0;
}

void page_map_memory_free(struct page_map_memory *memory)
{
	bool pending;

	if (!memory)
		return;
	/* `pending` is read before the barrier: the callback that cleared it may still be at
	 * work. */
	do {
		page_map_memory_settle(memory);
		pthread_mutex_lock(&memory->lock);
		pending = memory->grace_pending;
		pthread_mutex_unlock(&memory->lock);
		fold_rcu_barrier();
	} while (pending);
	pthread_cond_destroy(&memory->emptied);
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

uint64_t map_node_bytes(unsigned width)
{
	const uint64_t chunk = 2 * sizeof(size_t);
	uint64_t bytes =
		sizeof(struct map_node) + ((uint64_t)sizeof(uint64_t) << width) + sizeof(size_t);

	bytes = (bytes + chunk - 1) / chunk * chunk;
	return bytes < 2 * chunk ? 2 * chunk : bytes;
}

void map_memory_count(struct page_map_memory *memory, uint64_t bytes)
{
	atomic_fetch_add_explicit(&memory->bytes, bytes, memory_order_relaxed);
}

void map_memory_uncount(struct page_map_memory *memory, uint64_t bytes)
{
	atomic_fetch_sub_explicit(&memory->bytes, bytes, memory_order_relaxed);
}

void map_zeroes_came(struct page_map_memory *memory, uint64_t pages)
{
	atomic_fetch_add_explicit(&memory->zero_pages, pages, memory_order_relaxed);
}

void map_zeroes_went(struct page_map_memory *memory, uint64_t pages)
{
	atomic_fetch_sub_explicit(&memory->zero_pages, pages, memory_order_relaxed);
}

struct map_node *map_node_new(struct page_map_memory *memory, unsigned width, uint64_t word)
{
	unsigned words = 1u << width;
	struct map_node *node = malloc(sizeof(*node) + words * sizeof(node->words[0]));
	unsigned i;

	if (!node)
		return NULL;
	for (i = 0; i < words; i++)
		atomic_init(&node->words[i], word);
	map_memory_count(memory, map_node_bytes(width));
	return node;
}

/* ---- from retired to freed ---- */

static void grace_ended(struct rcu_head *head);

/* Begin a grace period for what is retired, one at a time. Also if only the callback is wanted, for
 * what is detached. Under memory->lock. */
static void begin_grace_locked(struct page_map_memory *memory)
{
	if (memory->grace_pending || (!memory->retired && !memory->detached))
		return;
	memory->leaving = memory->retired;
	memory->retired = 0;
	memory->grace_pending = true;
	fold_rcu_call(&memory->head, grace_ended);
}

static void retire_locked(struct page_map_memory *memory, uint64_t node_word)
{
	node_of(node_word)->next = memory->retired;
	memory->retired = node_word;
	begin_grace_locked(memory);
}

/* The last step of R.2 (page_map.c). */
void map_node_retire(struct page_map_memory *memory, uint64_t node_word)
{
	atomic_fetch_add_explicit(&memory->leaving_bytes, map_node_bytes(width_of(node_word)),
				  memory_order_relaxed);
	pthread_mutex_lock(&memory->lock);
	retire_locked(memory, node_word);
	pthread_mutex_unlock(&memory->lock);
}

static void free_leaving(struct page_map_memory *memory)
{
	uint64_t word;
	uint64_t next;

	for (word = memory->leaving; word; word = next) {
		next = node_of(word)->next;
		atomic_fetch_sub_explicit(&memory->leaving_bytes, map_node_bytes(width_of(word)),
					  memory_order_relaxed);
		map_memory_uncount(memory, map_node_bytes(width_of(word)));
		free(node_of(word));
	}
}

/* ---- from detached to retired ---- */

static void push_detached_locked(struct page_map_memory *memory, uint64_t node_word)
{
	node_of(node_word)->next = atomic_load_explicit(&memory->detached, memory_order_relaxed);
	atomic_store_explicit(&memory->detached, node_word, memory_order_relaxed);
}

void map_tree_detach(struct page_map_memory *memory, uint64_t node_word, uint64_t bytes)
{
	atomic_fetch_add_explicit(&memory->leaving_bytes, bytes, memory_order_relaxed);
	pthread_mutex_lock(&memory->lock);
	push_detached_locked(memory, node_word);
	begin_grace_locked(memory);
	pthread_mutex_unlock(&memory->lock);
}

unsigned map_word_drop(struct page_map_memory *memory, uint64_t word, unsigned height,
		       struct frame_batch *batch)
{
	struct frame_ref ref = ref_of(word);
	unsigned frames = 0;
	unsigned i;

	if (kind_of(word) == ZERO)
		map_zeroes_went(memory, word_pages(height + 1));
	else if (kind_of(word) == RUN)
		frames = FAN;
	else if (kind_of(word) == SHARED || kind_of(word) == PRIVATE)
		frames = 1;
	for (i = 0; i < frames; i++, ref.frame++)
		page_store_drop(memory->store, ref, batch);
	return frames;
}

static uint64_t take_detached(struct page_map_memory *memory)
{
	uint64_t word;

	/* The unlocked read is a hint: a thread sees what it detached itself, and for what others
	 * detached there is the callback. */
	if (!atomic_load_explicit(&memory->detached, memory_order_relaxed))
		return 0;
	pthread_mutex_lock(&memory->lock);
	word = atomic_load_explicit(&memory->detached, memory_order_relaxed);
	if (word) {
		atomic_store_explicit(&memory->detached, node_of(word)->next, memory_order_relaxed);
		memory->taken++;
	}
	pthread_mutex_unlock(&memory->lock);
	return word;
}

/* Exchange the words of NODE_WORD's node for `moved` until that has cost STEP_COST, and put the
 * nodes below it into a list. Returns whether all words are exchanged. Read side. */
static bool empty_node(struct page_map_memory *memory, uint64_t node_word, unsigned *ret_cost,
		       uint64_t *ret_below)
{
	struct map_node *node = node_of(node_word);
	struct frame_batch batch = {.count = 0};
	uint64_t word;
	unsigned i;

	*ret_below = 0;
	*ret_cost = 0;
	for (i = 0; i < words_in(node_word) && *ret_cost < STEP_COST; i++, ++*ret_cost) {
		word = atomic_exchange(&node->words[i], MOVED);
		if (kind_of(word) == NODE) {
			node_of(word)->next = *ret_below;
			*ret_below = word;
		} else {
			*ret_cost += map_word_drop(memory, word, height_of(node_word) - 1, &batch);
		}
	}
	page_store_settle(memory->store, &batch);
	return i == words_in(node_word);
}

/* One step. Returns its cost; 0: nothing is detached. A node that is not done goes back into the
 * list: its exchanged words already say `moved`, and are passed over. */
static unsigned take_apart_step(struct page_map_memory *memory)
{
	uint64_t node_word = take_detached(memory);
	uint64_t below;
	uint64_t next;
	unsigned cost;
	bool done;

	if (!node_word)
		return 0;
	fold_rcu_read_lock();
	done = empty_node(memory, node_word, &cost, &below);
	fold_rcu_read_unlock();
	pthread_mutex_lock(&memory->lock);
	if (!done)
		push_detached_locked(memory, node_word);
	for (; below; below = next) {
		next = node_of(below)->next;
		push_detached_locked(memory, below);
	}
	if (done)
		retire_locked(memory, node_word);
	begin_grace_locked(memory);
	if (!--memory->taken)
		pthread_cond_broadcast(&memory->emptied);
	pthread_mutex_unlock(&memory->lock);
	return cost;
}

static void take_apart(struct page_map_memory *memory, uint64_t limit)
{
	uint64_t cost = 0;
	unsigned step;

	do {
		step = take_apart_step(memory);
		cost += step;
	} while (step && cost < limit);
}

void map_memory_take_apart_some(struct page_map_memory *memory)
{
	take_apart(memory, SOME_COST);
}

void page_map_memory_settle(struct page_map_memory *memory)
{
	bool settled;

	do {
		take_apart(memory, UINT64_MAX);
		pthread_mutex_lock(&memory->lock);
		while (memory->taken)
			pthread_cond_wait(&memory->emptied, &memory->lock);
		settled = !memory->detached;
		pthread_mutex_unlock(&memory->lock);
	} while (!settled);
}

static void grace_ended(struct rcu_head *head)
{
	struct page_map_memory *memory = caa_container_of(head, struct page_map_memory, head);

	fold_rcu_called(head);
	free_leaving(memory);
	take_apart(memory, CALLBACK_COST);
	pthread_mutex_lock(&memory->lock);
	memory->leaving = 0;
	memory->grace_pending = false;
	begin_grace_locked(memory);
	/* Once no callback is pending, page_map_memory_free() need not wait for this one. */
	pthread_mutex_unlock(&memory->lock);
}
