/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_map.c - slot of (file, page): the choke point
 *
 * Life of a page, as its slot tells it:
 *
 *   unknown(v) --fill, by compare-and-swap--> zero | shared(f, g)
 *   shared(f, g) or private(f, g), f's life over --the same--> zero | shared(f', g')
 *   any --cow_break, under the lock--> unknown(v') | private(f, g) | zero; v' is a new one
 *
 * The tree. A word of 64 bits stands for 64^h pages, h >= 0, by its kind:
 *
 *   kind (3 bits)  the rest
 *   unknown        version, 61 bits
 *   zero           nothing
 *   shared         frame (29 bits), generation (32 bits); h = 0
 *   private        as shared; h = 0
 *   run            as shared; h = 1: 64 shared frames in a row, in one generation
 *   node           pointer to the words of h - 1, h, and how many there are
 *   moved          nothing: the node was replaced, and nothing may be published here
 *
 * A node whose words all say zero, or frames in a row, becomes one word again. So zero stretches
 * cost nothing, and content that was read in one go costs an eighth of a byte for each page.
 *
 * Rules:
 *
 *   R.1 Words are replaced under map->lock, with one exception: a fill replaces a slot (h = 0) that
 *       is unknown, or whose frame's life is over, by compare-and-swap without the lock.
 *
 *   R.2 A node goes only in this order. First, the word above it no longer points there. Then each
 *       of its words is exchanged for `moved`; whatever a fill had put there until then is dropped
 *       or carried over. Then the node is freed, a grace period later. A fill that still holds the
 *       node's address finds `moved` and is discarded.
 *
 *   R.3 A reader that meets `moved` takes the page for unknown, with a ticket that publishes
 *       nothing. It never waits (B.1).
 *
 *   R.4 Versions come from one counter for each map (B.2). A change gives a new version to the
 *       pages that it covers, and to no others except the rest of a word of h <= 1: a span of 64
 *       pages that is unknown as a whole has one version. Words that stand for more are split
 *       first. So a writer does not discard fills elsewhere in the file, and a file that is only
 *       written costs a node for each 16 MiB. Without memory to split, the whole word gets the new
 *       version: that only costs the fills that are under way in it.
 *
 *   R.5 A tree that is forgotten is cut off by one exchange of the word above it. The steps of R.2
 *       that follow are done later, a few words at a time, outside of map->lock and of the read
 *       side of the thread that forgot it (page_map_memory.c). That is sound, because these steps
 *       were always open to the same races. A thread that begins at the root cannot reach the tree
 *       any more; a thread that reached it before is in a read side. If that thread is a reader, it
 *       sees what was true when it began. If it is a fill, it puts its frame into a slot that
 *       nobody will find. That is as good as discarded, and the slot's user is dropped with the
 *       others (B.3). The fill cannot put the frame into the new tree, for its ticket is of the old
 *       one (B.2). Nobody changes the shape of what is cut off: shapes are changed under map->lock
 *       by threads that come from the root. Until the tree is taken apart, frames have users that
 *       no slot of a map tells of; their lives can end all the same (B.4).
 */
#include "foldfs/page_map.h"

#include "foldfs/rcu.h"
#include "page_map_memory.h"
#include "page_map_word.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct page_map {
	struct page_map_memory *memory;
	pthread_mutex_t lock;    /* R.1; below it: memory->lock and the store's */
	_Atomic uint64_t root;   /* R.1 */
	_Atomic uint64_t beyond; /* unknown: the word for pages behind the root node; under lock */
	uint64_t version;        /* last one used; under lock */
	uint64_t node_bytes;     /* of all nodes below root; under lock */
	uint64_t shrink_from;    /* page where page_map_shrink goes on; under lock */
	uint64_t size_hint;      /* pages */
	/* Batch for frames that are given up; the thread that has the lock settles it. NULL: drop
	 * at once. Under lock. */
	struct frame_batch *leaving;
};

/* ---- going down the tree ---- */

/* The word that tells of a page. */
struct place {
	_Atomic uint64_t *slot; /* the word, or NULL: behind the root node */
	uint64_t word;          /* what it said */
	unsigned height;        /* the word stands for 64^height pages; HEIGHT_MAX for the root */
	uint64_t base;          /* first page of it */
	uint64_t left;          /* pages from the one asked for to the end of it */
	unsigned beside;        /* words from this one to the end of its node */
};

/* Find the word that tells of PAGE, or one above it that stands for no more than 64^LOWEST pages.
 * Read side, or under the lock. */
static void descend(struct page_map *map, uint64_t page, unsigned lowest, struct place *ret_place)
{
	struct place place = {
		.slot = &map->root, .height = HEIGHT_MAX, .left = UINT64_MAX - page, .beside = 1};

	place.word = atomic_load_explicit(place.slot, memory_order_acquire);
	while (kind_of(place.word) == NODE && place.height > lowest) {
		unsigned height = height_of(place.word);
		uint64_t pages = word_pages(height);
		uint64_t index = (page - place.base) / pages;
		struct map_node *node = node_of(place.word);

		if (index >= words_in(place.word)) {
			place.slot = NULL;
			place.word = atomic_load_explicit(&map->beyond, memory_order_acquire);
			break;
		}
		place.slot = &node->words[index];
		place.base += index * pages;
		place.height = height - 1;
		place.left = pages - (page - place.base);
		place.beside = words_in(place.word) - (unsigned)index;
		place.word = atomic_load_explicit(place.slot, memory_order_acquire);
	}
	*ret_place = place;
}

/* What a slot of PAGE says, or would say if the page had one of its own. */
static uint64_t slot_word(const struct place *place, uint64_t page)
{
	if (kind_of(place->word) == RUN)
		return run_slot(place->word, (unsigned)(page - place->base));
	return place->word;
}

/* AGAIN: LOOK is the result of an earlier look, which counted the use already. */
static void look_at(struct page_map *map, uint64_t word, bool again, struct page_look *look)
{
	const struct page_store *store = map->memory->store;
	bool counted = again && look->from_pool;

	look->ticket = word;
	look->from_pool = false;
	look->data = NULL;
	switch (kind_of(word)) {
	case ZERO:
		look->data = fold_zero_page;
		break;
	case SHARED:
	case PRIVATE:
		look->data = counted ? page_store_peek(store, ref_of(word))
				     : page_store_read(map->memory->store, ref_of(word));
		look->from_pool = look->data;
		break;
	default:
		break;
	}
}

static void look(struct page_map *map, uint64_t first, unsigned count, bool again,
		 struct page_look looks[])
{
	struct place place;
	unsigned done = 0;
	unsigned pages;
	unsigned i;

	for (; done < count; done += pages) {
		descend(map, first + done, 0, &place);
		if (place.slot && !place.height) {
			pages = place.beside < count - done ? place.beside : count - done;
			for (i = 0; i < pages; i++)
				look_at(map,
					atomic_load_explicit(place.slot + i, memory_order_acquire),
					again, &looks[done + i]);
		} else {
			pages = place.left < count - done ? (unsigned)place.left : count - done;
			for (i = 0; i < pages; i++)
				look_at(map, slot_word(&place, first + done + i), again,
					&looks[done + i]);
		}
	}
}

void page_map_look(struct page_map *map, uint64_t first, unsigned count, struct page_look looks[])
{
	look(map, first, count, false, looks);
}

void page_map_look_again(struct page_map *map, uint64_t first, unsigned count,
			 struct page_look looks[])
{
	look(map, first, count, true, looks);
}

bool page_map_users(struct page_map *map, uint64_t page, uint32_t *ret_users)
{
	struct place place;
	uint64_t word;

	descend(map, page, 0, &place);
	word = slot_word(&place, page);
	*ret_users = 0;
	if (kind_of(word) == SHARED || kind_of(word) == PRIVATE)
		*ret_users = page_store_users(map->memory->store, ref_of(word));
	return *ret_users || kind_of(word) == ZERO;
}

/* ---- changing the tree; all under map->lock ---- */

/* Take the lock. Frames that are given up under it go into BATCH. */
static void lock_leaving(struct page_map *map, struct frame_batch *batch)
{
	pthread_mutex_lock(&map->lock);
	map->leaving = batch;
}

static void unlock_leaving(struct page_map *map)
{
	map->leaving = NULL;
	pthread_mutex_unlock(&map->lock);
}

static uint64_t new_unknown_locked(struct page_map *map)
{
	return ++map->version << VERSION_SHIFT | UNKNOWN;
}

static struct map_node *new_node_locked(struct page_map *map, unsigned width, uint64_t word)
{
	struct map_node *node = map_node_new(map->memory, width, word);

	if (node)
		map->node_bytes += map_node_bytes(width);
	return node;
}

/* The node of NODE_WORD is in no slot any more, and its words say `moved` (R.2). */
static void retire_locked(struct page_map *map, uint64_t node_word)
{
	map->node_bytes -= map_node_bytes(width_of(node_word));
	map_node_retire(map->memory, node_word);
}

/* Bytes of the node of WORD and all nodes below it. For a leaf only the word above it is read. */
static uint64_t tree_bytes(uint64_t word)
{
	uint64_t bytes = map_node_bytes(width_of(word));
	unsigned i;

	if (height_of(word) == 1)
		return bytes;
	for (i = 0; i < words_in(word); i++) {
		uint64_t below =
			atomic_load_explicit(&node_of(word)->words[i], memory_order_relaxed);

		if (kind_of(below) == NODE)
			bytes += tree_bytes(below);
	}
	return bytes;
}

/* Replace the word at SLOT, which stood for 64^HEIGHT pages, and give up what it held: frames at
 * once, a tree bit by bit (R.5, B.3). */
static void replace_locked(struct page_map *map, _Atomic uint64_t *slot, unsigned height,
			   uint64_t word)
{
	uint64_t old = atomic_exchange(slot, word);
	uint64_t bytes;

	if (kind_of(old) != NODE) {
		map_word_drop(map->memory, old, height, map->leaving);
		return;
	}
	bytes = slot == &map->root ? map->node_bytes : tree_bytes(old);
	map->node_bytes -= bytes;
	map_tree_detach(map->memory, old, bytes);
}

/* Put a node in place of the one word at SLOT, which is unknown, zero or a run. */
static errint_t split_locked(struct page_map *map, _Atomic uint64_t *slot, uint64_t word,
			     unsigned height)
{
	struct map_node *node = new_node_locked(map, FAN_BITS, word);
	unsigned i;

	if (!node)
		return -ENOMEM;
	if (kind_of(word) == RUN)
		for (i = 0; i < FAN; i++)
			atomic_init(&node->words[i], run_slot(word, i));
	atomic_store_explicit(slot, node_word(node, height, FAN_BITS), memory_order_release);
	return 0;
}

static unsigned bits_for(uint64_t count)
{
	unsigned bits = 0;

	while (bits < FAN_BITS && (uint64_t)1 << bits < count)
		bits++;
	return bits;
}

/* Make the first node. It is as high as the file needs and no wider at the top, so that a small
 * file's map is small. The root, unknown as a whole until now, gives its version to all of it. */
static errint_t plant_root_locked(struct page_map *map, uint64_t page)
{
	uint64_t word = atomic_load_explicit(&map->root, memory_order_relaxed);
	uint64_t pages = page + 1 > map->size_hint ? page + 1 : map->size_hint;
	unsigned height = 1;
	unsigned width;
	struct map_node *node;

	while (height < HEIGHT_MAX && word_pages(height + 1) < pages)
		height++;
	width = bits_for((pages + word_pages(height) - 1) / word_pages(height));
	node = new_node_locked(map, width, word);
	if (!node)
		return -ENOMEM;
	atomic_store_explicit(&map->beyond, word, memory_order_relaxed);
	atomic_store_explicit(&map->root, node_word(node, height, width), memory_order_release);
	return 0;
}

/* The file has outgrown its root node: widen the node, or put a level on top of it. */
static errint_t grow_root_locked(struct page_map *map)
{
	uint64_t root = atomic_load_explicit(&map->root, memory_order_relaxed);
	uint64_t beyond = atomic_load_explicit(&map->beyond, memory_order_relaxed);
	unsigned words = words_in(root);
	bool widen = words < FAN;
	struct map_node *node = new_node_locked(map, FAN_BITS, beyond);
	unsigned i;

	if (!node)
		return -ENOMEM;
	if (widen)
		for (i = 0; i < words; i++)
			atomic_init(&node->words[i],
				    atomic_exchange(&node_of(root)->words[i], MOVED));
	else
		atomic_init(&node->words[0], root);
	atomic_store_explicit(&map->root, node_word(node, height_of(root) + !widen, FAN_BITS),
			      memory_order_release);
	if (widen)
		retire_locked(map, root);
	return 0;
}

/* Give PAGE a slot of its own. What is known does not change. */
static errint_t make_slot_locked(struct page_map *map, uint64_t page, struct place *ret_place)
{
	errint_t error = 0;

	for (;;) {
		descend(map, page, 0, ret_place);
		if (ret_place->slot && !ret_place->height)
			return 0;
		if (!ret_place->slot)
			error = grow_root_locked(map);
		else if (ret_place->slot == &map->root)
			error = plant_root_locked(map, page);
		else
			error = split_locked(map, ret_place->slot, ret_place->word,
					     ret_place->height);
		if (error)
			return error;
	}
}

/* Whether WORD must be split before a part of its pages can change without the rest (R.4). */
static bool is_to_be_split(uint64_t word, unsigned height)
{
	return kind_of(word) == ZERO || kind_of(word) == RUN ||
	       (kind_of(word) == UNKNOWN && height > 1);
}

/* Pages FIRST..LAST of the word at SLOT, which stands for 64^HEIGHT pages from BASE on, become
 * UNKNOWN_WORD. If only a part of the word is to change and it cannot be split, all of it does. */
static void forget_locked(struct page_map *map, _Atomic uint64_t *slot, unsigned height,
			  uint64_t base, uint64_t first, uint64_t last, uint64_t unknown_word)
{
	uint64_t word = atomic_load_explicit(slot, memory_order_relaxed);
	bool whole = first <= base && last - base >= word_pages(height + 1) - 1;
	uint64_t pages;
	uint64_t i;

	if (!whole && is_to_be_split(word, height)) {
		if (!split_locked(map, slot, word, height))
			word = atomic_load_explicit(slot, memory_order_relaxed);
	}
	if (whole || kind_of(word) != NODE) {
		replace_locked(map, slot, height, unknown_word);
		return;
	}
	pages = word_pages(height);
	for (i = first > base ? (first - base) / pages : 0;
	     i < words_in(word) && base + i * pages <= last; i++)
		forget_locked(map, &node_of(word)->words[i], height - 1, base + i * pages, first,
			      last, unknown_word);
}

/* Have a root node with a word for PAGE, if there is memory for it. */
static void reach_locked(struct page_map *map, uint64_t page)
{
	uint64_t root;
	errint_t error = 0;

	while (!error) {
		root = atomic_load_explicit(&map->root, memory_order_relaxed);
		if (kind_of(root) != NODE)
			error = plant_root_locked(map, page);
		else if (page / word_pages(height_of(root)) >= words_in(root))
			error = grow_root_locked(map);
		else
			return;
	}
}

/* FIRST..LAST, both inclusive. */
static void forget_range_locked(struct page_map *map, uint64_t first, uint64_t last)
{
	bool whole = !first && last == UINT64_MAX;
	uint64_t unknown_word = new_unknown_locked(map);
	uint64_t root;
	uint64_t pages;
	uint64_t i;

	if (!whole)
		reach_locked(map, last == UINT64_MAX ? first : last);
	root = atomic_load_explicit(&map->root, memory_order_relaxed);
	if (kind_of(root) != NODE || whole) {
		atomic_store_explicit(&map->beyond, unknown_word, memory_order_release);
		replace_locked(map, &map->root, HEIGHT_MAX, unknown_word);
		return;
	}
	pages = word_pages(height_of(root));
	for (i = first / pages; i < words_in(root) && i * pages <= last; i++)
		forget_locked(map, &node_of(root)->words[i], height_of(root) - 1, i * pages, first,
			      last, unknown_word);
	if (last / pages >= words_in(root))
		atomic_store_explicit(&map->beyond, unknown_word, memory_order_release);
}

void page_map_forget(struct page_map *map, uint64_t first, uint64_t count)
{
	struct frame_batch batch = {.count = 0};

	if (!count)
		return;
	lock_leaving(map, &batch);
	forget_range_locked(map, first,
			    count >= UINT64_MAX - first ? UINT64_MAX : first + count - 1);
	unlock_leaving(map);
	page_store_settle(map->memory->store, &batch);
	map_memory_take_apart_some(map->memory);
}

/* ---- one word instead of a node ---- */

/* The one word that says what WORDS (FAN of them, each for 64^HEIGHT pages) say, or MOVED. */
static uint64_t summary_of(_Atomic uint64_t words[], unsigned height)
{
	uint64_t first = atomic_load_explicit(&words[0], memory_order_acquire);
	uint64_t run = (first & ~(uint64_t)KIND_MASK) | RUN;
	bool zero = kind_of(first) == ZERO;
	unsigned i;

	if (!zero && (height || kind_of(first) != SHARED))
		return MOVED;
	/* Begin at the end: the last slot is the last to be filled. */
	for (i = FAN - 1; i; i--)
		if (atomic_load_explicit(&words[i], memory_order_acquire) !=
		    (zero ? (uint64_t)ZERO : run_slot(run, i)))
			return MOVED;
	return zero ? ZERO : run;
}

/* Put SUMMARY into the place of a node whose words said exactly that. A fill may have replaced one
 * of them meanwhile, because its frame's life was over. Such a fill's frame loses its user, and the
 * page stays unknown. */
static void fold_locked(struct page_map *map, struct place *place, uint64_t summary)
{
	struct map_node *node = node_of(place->word);
	unsigned i;

	atomic_store_explicit(place->slot, summary, memory_order_release);
	for (i = 0; i < FAN; i++) {
		uint64_t said = kind_of(summary) == RUN ? run_slot(summary, i) : summary;
		uint64_t word = atomic_exchange(&node->words[i], MOVED);

		if (word != said)
			map_word_drop(map->memory, word, 0, map->leaving);
	}
	retire_locked(map, place->word);
}

/* Fold the node that holds PAGE's slot, and the ones above it, as long as one word can say it all.
 * The root node stays: it does not tell what lies behind it. */
static void fold(struct page_map *map, uint64_t page)
{
	struct place place;
	unsigned height;
	uint64_t summary;

	descend(map, page, 0, &place);
	if (!place.slot || place.height || place.beside != FAN - page % FAN ||
	    summary_of(place.slot - page % FAN, 0) == MOVED)
		return;
	pthread_mutex_lock(&map->lock);
	for (height = 1; height < HEIGHT_MAX; height++) {
		descend(map, page, height, &place);
		if (!place.slot || place.slot == &map->root || place.height != height ||
		    kind_of(place.word) != NODE)
			break;
		summary = summary_of(node_of(place.word)->words, height - 1);
		if (summary == MOVED)
			break;
		fold_locked(map, &place, summary);
	}
	pthread_mutex_unlock(&map->lock);
}

/* ---- publishing and breaking ---- */

static bool publish_word(struct page_map *map, uint64_t page, uint64_t ticket, uint64_t word)
{
	struct place place;
	errint_t error;

	if (kind_of(ticket) != UNKNOWN && kind_of(ticket) != SHARED && kind_of(ticket) != PRIVATE)
		return false;
	for (;;) {
		descend(map, page, 0, &place);
		if (place.slot && !place.height) {
			if (!atomic_compare_exchange_strong(place.slot, &ticket, word))
				return false;
			/* Does nothing if that frame's life was over; otherwise B.3. */
			map_word_drop(map->memory, ticket, 0, NULL);
			return true;
		}
		if (slot_word(&place, page) != ticket)
			return false;
		pthread_mutex_lock(&map->lock);
		error = make_slot_locked(map, page, &place);
		pthread_mutex_unlock(&map->lock);
		if (error)
			return false;
	}
}

bool page_map_publish(struct page_map *map, uint64_t page, uint64_t ticket, struct frame_ref ref)
{
	if (!publish_word(map, page, ticket, frame_word(SHARED, ref)))
		return false;
	fold(map, page);
	return true;
}

bool page_map_publish_zero(struct page_map *map, uint64_t page, uint64_t ticket)
{
	/* Counted first: once it is published, any thread may take it away again. */
	map_zeroes_came(map->memory, 1);
	if (!publish_word(map, page, ticket, ZERO)) {
		map_zeroes_went(map->memory, 1);
		return false;
	}
	fold(map, page);
	return true;
}

/* Set PAGE's slot to WORD, whatever it was. False: there was no memory, and the page is unknown. */
static bool set_slot(struct page_map *map, uint64_t page, uint64_t word, struct frame_batch *batch)
{
	struct place place;
	bool set;

	lock_leaving(map, batch);
	set = !make_slot_locked(map, page, &place);
	if (set)
		replace_locked(map, place.slot, 0, word);
	else
		forget_range_locked(map, page, page);
	unlock_leaving(map);
	return set;
}

void page_map_break(struct page_map *map, uint64_t page, struct frame_ref ref,
		    struct frame_batch *batch)
{
	if (!set_slot(map, page, frame_word(PRIVATE, ref), batch))
		page_store_drop(map->memory->store, ref, batch);
}

void page_map_break_zero(struct page_map *map, uint64_t page, struct frame_batch *batch)
{
	map_zeroes_came(map->memory, 1);
	if (set_slot(map, page, ZERO, batch))
		fold(map, page);
	else
		map_zeroes_went(map->memory, 1);
}

/* ---- giving memory back ---- */

static bool all_unknown(const struct map_node *node, unsigned words)
{
	unsigned i;

	for (i = 0; i < words; i++)
		if (kind_of(atomic_load_explicit(&node->words[i], memory_order_relaxed)) != UNKNOWN)
			return false;
	return true;
}

/* Free leaves below SLOT from map->shrink_from on, until WANTED bytes are freed. Returns bytes. */
static uint64_t shrink_locked(struct page_map *map, _Atomic uint64_t *slot, uint64_t base,
			      uint64_t wanted)
{
	uint64_t word = atomic_load_explicit(slot, memory_order_relaxed);
	uint64_t freed = 0;
	uint64_t pages;
	unsigned i;

	if (kind_of(word) != NODE)
		return 0;
	pages = word_pages(height_of(word));
	if (height_of(word) > 1) {
		for (i = 0; i < words_in(word) && freed < wanted; i++)
			if (base + (i + 1) * pages > map->shrink_from)
				freed += shrink_locked(map, &node_of(word)->words[i],
						       base + i * pages, wanted - freed);
		if (!all_unknown(node_of(word), words_in(word)))
			return freed;
	}
	freed += map_node_bytes(width_of(word));
	map->shrink_from = base + words_in(word) * pages;
	replace_locked(map, slot, height_of(word), new_unknown_locked(map));
	return freed;
}

uint64_t page_map_shrink(struct page_map *map, uint64_t bytes)
{
	struct frame_batch batch = {.count = 0};
	uint64_t freed;

	lock_leaving(map, &batch);
	freed = shrink_locked(map, &map->root, 0, bytes);
	if (freed < bytes) {
		map->shrink_from = 0;
		freed += shrink_locked(map, &map->root, 0, bytes - freed);
	}
	if (!freed && kind_of(map->root) == NODE) {
		/* Only runs and zeroes are left, and nodes that hold them. */
		freed = map->node_bytes;
		forget_range_locked(map, 0, UINT64_MAX);
	}
	if (kind_of(map->root) != NODE)
		atomic_store_explicit(&map->beyond, map->root, memory_order_release);
	unlock_leaving(map);
	page_store_settle(map->memory->store, &batch);
	map_memory_take_apart_some(map->memory);
	return freed;
}

/* ---- for the audit ---- */

/* Words that are looked at in one hold of the lock: well under a millisecond. */
#define WALK_WORDS 16384u

struct walker {
	struct page_walk *walk;
	struct page_stretch *stretches;
	unsigned max;
	unsigned count;
	unsigned words;
};

/* Whether STRETCH follows LAST so that the two are one stretch. */
static bool goes_on(const struct page_stretch *last, const struct page_stretch *stretch)
{
	if (last->first + last->pages != stretch->first || last->kind != stretch->kind)
		return false;
	return stretch->kind == STRETCH_ZERO ||
	       (stretch->kind == STRETCH_SHARED &&
		last->ref.generation == stretch->ref.generation &&
		last->ref.frame + last->pages == stretch->ref.frame);
}

/* Add WORD, which is no node and stands for PAGES pages from BASE on. */
static void walk_word(struct walker *walker, uint64_t word, uint64_t base, uint64_t pages)
{
	uint64_t from = base > walker->walk->next ? base : walker->walk->next;
	uint64_t end = walker->walk->end - base < pages ? walker->walk->end : base + pages;
	struct page_stretch stretch = {.first = from, .pages = end - from};

	switch (kind_of(word)) {
	case ZERO:
		stretch.kind = STRETCH_ZERO;
		break;
	case SHARED:
	case RUN:
		stretch.kind = STRETCH_SHARED;
		stretch.ref = ref_of(word);
		stretch.ref.frame += (uint32_t)(from - base);
		break;
	case PRIVATE:
		stretch.kind = STRETCH_PRIVATE;
		stretch.ref = ref_of(word);
		break;
	default:
		return;
	}
	if (walker->count && goes_on(&walker->stretches[walker->count - 1], &stretch))
		walker->stretches[walker->count - 1].pages += stretch.pages;
	else
		walker->stretches[walker->count++] = stretch;
}

/* Walk WORD, which stands for 64^HEIGHT pages from BASE on (for a root: for as many as its words
 * do). False: there is no room, and the walk goes on at walk->next. The walk stops only before
 * words that are not the first of their node, and it leaves room for one stretch. So a node is
 * counted once, with its first word. */
static bool walk_locked(struct walker *walker, uint64_t word, unsigned height, uint64_t base)
{
	struct page_walk *walk = walker->walk;
	uint64_t pages;
	uint64_t i;

	if (kind_of(word) != NODE) {
		walk_word(walker, word, base, word_pages(height + 1));
		return true;
	}
	if (base >= walk->next)
		walk->bytes += map_node_bytes(width_of(word));
	pages = word_pages(height_of(word));
	for (i = walk->next > base ? (walk->next - base) / pages : 0;
	     i < words_in(word) && base + i * pages < walk->end; i++) {
		if (i && (walker->count == walker->max || walker->words >= WALK_WORDS)) {
			walk->next = base + i * pages;
			return false;
		}
		walker->words++;
		if (!walk_locked(
			    walker,
			    atomic_load_explicit(&node_of(word)->words[i], memory_order_acquire),
			    height_of(word) - 1, base + i * pages))
			return false;
	}
	return true;
}

unsigned page_map_walk(struct page_map *map, struct page_walk *walk, unsigned max,
		       struct page_stretch stretches[])
{
	struct walker walker = {.walk = walk, .stretches = stretches, .max = max};

	if (!walk->next)
		walk->bytes += map_block_bytes(map);
	pthread_mutex_lock(&map->lock);
	if (walk_locked(&walker, atomic_load_explicit(&map->root, memory_order_acquire), HEIGHT_MAX,
			0))
		walk->next = walk->end;
	pthread_mutex_unlock(&map->lock);
	return walker.count;
}

errint_t page_map_new(struct page_map_memory *memory, uint64_t size_hint, struct page_map **ret_map)
{
	struct page_map *map = calloc(1, sizeof(*map));

	if (!map)
		return -ENOMEM;
	map->memory = memory;
	map->size_hint = fold_pages_in(0, size_hint);
	atomic_init(&map->root, UNKNOWN);
	atomic_init(&map->beyond, UNKNOWN);
	pthread_mutex_init(&map->lock, NULL);
	map_memory_count(memory, map_block_bytes(map));
	*ret_map = map;
	return 0;
}

uint64_t page_map_bytes(struct page_map *map)
{
	uint64_t bytes;

	pthread_mutex_lock(&map->lock);
	bytes = map_block_bytes(map) + map->node_bytes;
	pthread_mutex_unlock(&map->lock);
	return bytes;
}

void page_map_free(struct page_map *map)
{
	struct page_map_memory *memory;

	if (!map)
		return;
	memory = map->memory;
	fold_rcu_read_lock();
	replace_locked(map, &map->root, HEIGHT_MAX, MOVED);
	fold_rcu_read_unlock();
	pthread_mutex_destroy(&map->lock);
	map_memory_uncount(memory, map_block_bytes(map));
	free(map);
	map_memory_take_apart_some(memory);
}
