/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_map.h - slot of (file, page): the choke point
 *
 * A file's map says of each page that it is unknown, zero, a shared frame or a private frame. No
 * other file of foldfs reads or changes a slot; content changes reach it from cow_break alone.
 *
 * The map is a radix tree of 64-bit words, 64 to a node. A word speaks for the whole span below it:
 * `unknown` and `zero` at any height, `node` above the leaves, frames in the leaves. So stretches
 * of zeroes and stretches never read cost nothing, and forgetting a whole file is one exchange.
 *
 * Guarantees:
 *   B.1 A reader takes no lock and sees each word whole.
 *   B.2 Every change of content gives the pages it covers a version that the map never used before.
 *       So a fill that looked before the change cannot be published after it.
 *   B.3 A frame in a slot holds one user of it; the slot that stops pointing there drops that user,
 *       once.
 *   B.4 A slot whose frame has begun another life reads as unknown, and a fill may replace it.
 */
#ifndef FOLDFS_PAGE_MAP_H
#define FOLDFS_PAGE_MAP_H

#include "foldfs/page_store.h"

struct page_map;
struct page_map_memory;

/* What a look found, and the ticket to publish against. */
struct page_look {
	uint64_t ticket;  /* opaque; valid for the map that gave it, for ever */
	const void *data; /* 4096 bytes (a frame's, or the zero page), or NULL: unknown */
	bool from_pool;   /* data is a frame's */
};

/* Memory of many maps, counted together, in bytes. Its owner keeps it within a budget, see file.h.
 * -ENOMEM. */
errint_t page_map_memory_new(struct page_store *store, struct page_map_memory **ret_memory);
void page_map_memory_free(struct page_map_memory *memory);
uint64_t page_map_memory_bytes(const struct page_map_memory *memory);
/* As page_map_memory_bytes(), without memory that was given up and only waits to be freed: what a
 * trim can still change. */
uint64_t page_map_memory_in_use(const struct page_map_memory *memory);
/* Slots that say "zero", each page of a zero stretch counted. Includes trees that are yet to be
 * taken apart. */
uint64_t page_map_memory_zero_pages(const struct page_map_memory *memory);

/* What maps gave up is taken apart bit by bit in the background (page_map.c, R.5). Until then its
 * frames have users that no slot tells of. This call does all of it now, and waits for the parts
 * that other threads do. Blocks; not within a read side. */
void page_map_memory_settle(struct page_map_memory *memory);

/* An empty map: every page unknown. SIZE_HINT (bytes) shapes the first node. -ENOMEM. */
errint_t page_map_new(struct page_map_memory *memory, uint64_t size_hint,
		      struct page_map **ret_map);

/* Memory of the map with its nodes, bytes: what page_map_free() frees. Any thread. */
uint64_t page_map_bytes(struct page_map *map);

/* Drop every slot and the map. No other thread uses it. Takes as long for a large map as for a
 * small one: see page_map_memory_settle(). Not within a read side. */
void page_map_free(struct page_map *map);

/*
 * Look at COUNT pages from FIRST on. RCU read side, which keeps the data of every look valid. Takes
 * no lock.
 */
void page_map_look(struct page_map *map, uint64_t first, unsigned count, struct page_look looks[]);
/* As page_map_look(), once more for the same request: LOOKS is what the earlier look found. A frame
 * that was found then is not marked as used once more, so that eviction does not take one request
 * for two. */
void page_map_look_again(struct page_map *map, uint64_t first, unsigned count,
			 struct page_look looks[]);

/*
 * Publish what a fill read: page PAGE has the content of REF, if nothing changed it since TICKET
 * was given. True: the slot holds REF's user. False: stale, REF's user is still the caller's to
 * drop. RCU read side. Also false when there is no memory for a node.
 */
bool page_map_publish(struct page_map *map, uint64_t page, uint64_t ticket, struct frame_ref ref);

/* As page_map_publish(), for a page that is all zero. */
bool page_map_publish_zero(struct page_map *map, uint64_t page, uint64_t ticket);

/*
 * For cow_break alone. The content of COUNT pages from FIRST on is no longer what it was: they
 * become unknown, with a new version. UINT64_MAX - FIRST as COUNT means "to the end". Cannot fail:
 * where there is no memory to be precise, more becomes unknown. RCU read side.
 */
void page_map_forget(struct page_map *map, uint64_t first, uint64_t count);

/*
 * For cow_break alone. PAGE, which was resident, now has the content of the private frame REF; the
 * slot takes over REF's user. Without memory for it the page becomes unknown and REF is dropped.
 * The frame that the page had goes into BATCH (page_store.h). RCU read side.
 */
void page_map_break(struct page_map *map, uint64_t page, struct frame_ref ref,
		    struct frame_batch *batch);

/* For cow_break alone. PAGE is now all zero. BATCH as in page_map_break(). RCU read side. */
void page_map_break_zero(struct page_map *map, uint64_t page, struct frame_batch *batch);

/* Whether PAGE is known, and how many slots, including this one, use its frame; 0 for a page of
 * zeroes. RCU read side. */
bool page_map_users(struct page_map *map, uint64_t page, uint32_t *ret_users);

/* Give memory back: nodes worth at least BYTES, from where the last call stopped. Returns how many
 * bytes were freed; 0 if the map has none. RCU read side. */
uint64_t page_map_shrink(struct page_map *map, uint64_t bytes);

/*
 * For the audit, which looks at a map that is in use.
 */

/* Neighbouring pages whose slots say the same, or frames side by side of one generation. */
struct page_stretch {
	uint64_t first;
	uint64_t pages;
	enum {
		STRETCH_ZERO,
		STRETCH_SHARED,
		STRETCH_PRIVATE, /* of one page */
	} kind;
	struct frame_ref ref; /* the first page's, whose life may be over */
};

/* A walk over the pages from NEXT up to END; the caller sets both before the first call. */
struct page_walk {
	uint64_t next; /* where the next call goes on; END or more: done */
	uint64_t end;
	uint64_t bytes; /* memory of the map as far as it was walked; added to */
};
#define PAGE_WALK_ALL UINT64_MAX

/* Up to MAX stretches of the pages that come next, in order. Returns their number, which may be 0
 * before the end. Slots that say "unknown" are left out. Changes nothing. Holds the map's lock for
 * a bounded time. So what one call returns is of one moment, except for fills and for lives that
 * end. */
unsigned page_map_walk(struct page_map *map, struct page_walk *walk, unsigned max,
		       struct page_stretch stretches[]);

#endif
