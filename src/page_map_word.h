/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_map_word.h - the words of a page map's tree (page_map.c tells what each kind stands for)
 *
 * For page_map.c and page_map_memory.c; nobody else includes it.
 */
#ifndef FOLDFS_PAGE_MAP_WORD_H
#define FOLDFS_PAGE_MAP_WORD_H

#include "foldfs/page_map.h"

#include <stdatomic.h>

#define FAN_BITS   6u
#define FAN        (1u << FAN_BITS)
#define HEIGHT_MAX 9u /* 64^9 = 2^54 pages: more than 64-bit offsets have */

enum kind {
	UNKNOWN,
	ZERO,
	SHARED,
	PRIVATE,
	RUN,
	NODE,
	MOVED,
};

#define KIND_MASK     7u
#define VERSION_SHIFT 3u
#define FRAME_SHIFT   3u
#define FRAME_MASK    ((1u << PAGE_STORE_FRAME_BITS) - 1)
#define WIDTH_SHIFT   3u
#define HEIGHT_SHIFT  6u
#define POINTER_SHIFT 10u

/* A node of the tree. */
struct map_node {
	uint64_t next; /* word of the next node in the list of page_map_memory that it is in */
	_Atomic uint64_t words[]; /* page_map.c, R.1 */
};

static inline enum kind kind_of(uint64_t word)
{
	return (enum kind)(word & KIND_MASK);
}

static inline uint64_t frame_word(enum kind kind, struct frame_ref ref)
{
	return (uint64_t)ref.generation << 32 | (uint64_t)ref.frame << FRAME_SHIFT | kind;
}

static inline struct frame_ref ref_of(uint64_t word)
{
	return (struct frame_ref){.frame = (uint32_t)word >> FRAME_SHIFT,
				  .generation = (uint32_t)(word >> 32)};
}

/* The slot of page INDEX of a run. */
static inline uint64_t run_slot(uint64_t run, unsigned index)
{
	struct frame_ref ref = ref_of(run);

	ref.frame += index;
	return frame_word(SHARED, ref);
}

static inline uint64_t node_word(const struct map_node *node, unsigned height, unsigned width)
{
	return (uint64_t)(uintptr_t)node << POINTER_SHIFT | height << HEIGHT_SHIFT |
	       width << WIDTH_SHIFT | NODE;
}

static inline struct map_node *node_of(uint64_t word)
{
	return (struct map_node *)(uintptr_t)(word >> POINTER_SHIFT);
}

/* Of a node word: its words stand for 64^(height - 1) pages each. */
static inline unsigned height_of(uint64_t word)
{
	return word >> HEIGHT_SHIFT & 15;
}

static inline unsigned width_of(uint64_t word)
{
	return word >> WIDTH_SHIFT & 7;
}

static inline unsigned words_in(uint64_t word)
{
	return 1u << width_of(word);
}

/* Pages of one word in a node of HEIGHT. */
static inline uint64_t word_pages(unsigned height)
{
	return (uint64_t)1 << FAN_BITS * (height - 1);
}

#endif
