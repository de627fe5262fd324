/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuts.c - which pages of a file were changed, once and for ever
 *
 * Bits in leaves, leaves in nodes; both are made by the first cut in them, under the lock. Nothing
 * is taken away before the end, so readers need no lock and no read side: a pointer that they see
 * stays good. A node's or leaf's span that is cut as a whole, before it has a node or a leaf, gets
 * the one that stands for all such spans.
 */
#include "cuts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define BITS       64u
#define LEAF_WORDS 64u
#define LEAF_PAGES ((uint64_t)BITS * LEAF_WORDS) /* 16 MiB of a file */
#define LEAVES     64u
#define NODE_PAGES (LEAF_PAGES * LEAVES) /* 1 GiB */

struct leaf {
	_Atomic uint64_t words[LEAF_WORDS];
};

struct node {
	_Atomic(struct leaf *) leaves[LEAVES]; /* NULL: nothing is cut */
};

struct cuts {
	pthread_mutex_t lock; /* held to add; a leaf of the lock order */
	uint64_t pages;       /* constant */
	uint64_t count;       /* of nodes; constant */
	_Atomic uint64_t bytes;
	_Atomic(struct node *) nodes[]; /* NULL: nothing is cut */
};

/* Stand for spans that are cut as a whole. Known by their addresses; their content is not read. */
static struct leaf whole_leaf;
static struct node whole_node;

struct cuts *cuts_new(uint64_t pages)
{
	uint64_t count = (pages + NODE_PAGES - 1) / NODE_PAGES;
	size_t bytes = sizeof(struct cuts) + (size_t)count * sizeof(struct node *);
	struct cuts *cuts = calloc(1, bytes);

	if (!cuts)
		return NULL;
	pthread_mutex_init(&cuts->lock, NULL);
	cuts->pages = pages;
	cuts->count = count;
	atomic_init(&cuts->bytes, bytes);
	return cuts;
}

static void node_free(struct node *node)
{
	if (!node || node == &whole_node)
		return;
	for (unsigned i = 0; i < LEAVES; i++) {
		struct leaf *leaf = atomic_load(&node->leaves[i]);

		if (leaf != &whole_leaf)
			free(leaf);
	}
	free(node);
}

void cuts_free(struct cuts *cuts)
{
	if (!cuts)
		return;
	for (uint64_t i = 0; i < cuts->count; i++)
		node_free(atomic_load(&cuts->nodes[i]));
	pthread_mutex_destroy(&cuts->lock);
	free(cuts);
}

uint64_t cuts_bytes(const struct cuts *cuts)
{
	return atomic_load_explicit(&cuts->bytes, memory_order_relaxed);
}

/* The first page behind the stretch of PAGES pages that PAGE is in. */
static uint64_t behind(uint64_t page, uint64_t pages)
{
	return (page / pages + 1) * pages;
}

/* The word that PAGE's bit is in. Its bits hold for all pages from PAGE to *ret_end. */
static uint64_t word_of(const struct cuts *cuts, uint64_t page, uint64_t *ret_end)
{
	struct node *node =
		atomic_load_explicit(&cuts->nodes[page / NODE_PAGES], memory_order_acquire);
	struct leaf *leaf;

	*ret_end = behind(page, NODE_PAGES);
	if (!node || node == &whole_node)
		return node ? UINT64_MAX : 0;
	leaf = atomic_load_explicit(&node->leaves[page / LEAF_PAGES % LEAVES],
				    memory_order_acquire);
	*ret_end = behind(page, LEAF_PAGES);
	if (!leaf || leaf == &whole_leaf)
		return leaf ? UINT64_MAX : 0;
	*ret_end = behind(page, BITS);
	return atomic_load_explicit(&leaf->words[page / BITS % LEAF_WORDS], memory_order_acquire);
}

uint64_t cuts_next(const struct cuts *cuts, uint64_t page, bool cut)
{
	uint64_t end;
	uint64_t word;

	for (; page < cuts->pages; page = end) {
		word = word_of(cuts, page, &end);
		word = (cut ? word : ~word) >> page % BITS;
		if (!word)
			continue;
		page += (uint64_t)__builtin_ctzll(word);
		break;
	}
	return page < cuts->pages ? page : cuts->pages;
}

bool cuts_has(const struct cuts *cuts, uint64_t page)
{
	uint64_t end;

	return page < cuts->pages && word_of(cuts, page, &end) >> page % BITS & 1;
}

static void *grow_locked(struct cuts *cuts, size_t bytes)
{
	void *made = calloc(1, bytes);

	if (made)
		atomic_fetch_add_explicit(&cuts->bytes, bytes, memory_order_relaxed);
	return made;
}

/* Cut FIRST..LAST, which are all in one leaf. */
static void cut_bits_locked(struct leaf *leaf, uint64_t first, uint64_t last)
{
	for (uint64_t page = first; page <= last; page = behind(page, BITS)) {
		uint64_t bits = UINT64_MAX << page % BITS;

		if (last < behind(page, BITS))
			bits &= UINT64_MAX >> (BITS - 1 - last % BITS);
		atomic_fetch_or(&leaf->words[page / BITS % LEAF_WORDS], bits);
	}
}

static bool cut_leaf_locked(struct cuts *cuts, struct node *node, uint64_t first, uint64_t last)
{
	_Atomic(struct leaf *) *slot = &node->leaves[first / LEAF_PAGES % LEAVES];
	struct leaf *leaf = atomic_load(slot);

	if (leaf == &whole_leaf)
		return true;
	if (!leaf && last - first + 1 == LEAF_PAGES) {
		atomic_store(slot, &whole_leaf);
		return true;
	}
	if (!leaf) {
		leaf = grow_locked(cuts, sizeof(*leaf));
		if (!leaf)
			return false;
		cut_bits_locked(leaf, first, last);
		atomic_store(slot, leaf);
	} else {
		cut_bits_locked(leaf, first, last);
	}
	return true;
}

static bool cut_node_locked(struct cuts *cuts, uint64_t first, uint64_t last)
{
	_Atomic(struct node *) *slot = &cuts->nodes[first / NODE_PAGES];
	struct node *node = atomic_load(slot);
	uint64_t end;

	if (node == &whole_node)
		return true;
	if (!node && last - first + 1 == NODE_PAGES) {
		atomic_store(slot, &whole_node);
		return true;
	}
	if (!node) {
		node = grow_locked(cuts, sizeof(*node));
		if (!node)
			return false;
		atomic_store(slot, node);
	}
	for (; first <= last; first = end) {
		end = behind(first, LEAF_PAGES);
		if (!cut_leaf_locked(cuts, node, first, last < end ? last : end - 1))
			return false;
	}
	return true;
}

bool cuts_add(struct cuts *cuts, uint64_t first, uint64_t last, uint64_t *ret_grown)
{
	bool done = true;
	uint64_t before;
	uint64_t end;

	*ret_grown = 0;
	if (first >= cuts->pages || cuts_next(cuts, first, false) > last)
		return true;
	/* A cut to the file's end goes to the end of the last node, so that the node may be cut as
	 * a whole. */
	if (last >= cuts->pages - 1)
		last = cuts->count * NODE_PAGES - 1;
	pthread_mutex_lock(&cuts->lock);
	before = cuts_bytes(cuts);
	for (; done && first <= last; first = end) {
		end = behind(first, NODE_PAGES);
		done = cut_node_locked(cuts, first, last < end ? last : end - 1);
	}
	*ret_grown = cuts_bytes(cuts) - before;
	pthread_mutex_unlock(&cuts->lock);
	return done;
}
