/* SPDX-License-Identifier: Apache-2.0 */
/* window_region.c - regions: found, closed, held (window.c tells what states they have) */
#include "foldfs/rcu.h"
#include "window_internal.h"

#include <malloc.h>
#include <stdlib.h>
#include <time.h>

struct region_key {
	const struct window_file *file;
	uint64_t index;
};

uint64_t window_bytes_of(void *block)
{
	return malloc_usable_size(block) + sizeof(size_t);
}

void window_count_memory(struct window *window, void *block)
{
	atomic_fetch_add_explicit(&window->memory, window_bytes_of(block), memory_order_relaxed);
}

void window_free_counted(struct window *window, void *block)
{
	atomic_fetch_sub_explicit(&window->memory, window_bytes_of(block), memory_order_relaxed);
	free(block);
}

static struct region *region_of(struct cds_lfht_node *node)
{
	return caa_container_of(node, struct region, node);
}

static int match_region(struct cds_lfht_node *node, const void *key)
{
	const struct region_key *wanted = key;
	const struct region *region = region_of(node);

	FOLD_TSAN_ACQUIRE(node);
	return region->index == wanted->index && region->file == wanted->file;
}

struct region *window_find_region(struct window_file *file, uint64_t index)
{
	struct region_key key = {.file = file, .index = index};
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	cds_lfht_lookup(file->window->regions, window_hash_of(file, index), match_region, &key,
			&iter);
	node = cds_lfht_iter_get_node(&iter);
	return node ? region_of(node) : NULL;
}

uint64_t window_mask_of(uint64_t page, uint64_t end)
{
	unsigned from = page & (REGION_PAGES - 1);
	uint64_t left = end - page;
	unsigned count = left < REGION_PAGES - from ? (unsigned)left : REGION_PAGES - from;

	return (count == REGION_PAGES ? UINT64_MAX : (1ull << count) - 1) << from;
}

struct window_range window_regions_of(const struct window_file *file, uint64_t first_page,
				      unsigned pages)
{
	return (struct window_range){
		.file = file,
		.first = first_page >> REGION_SHIFT,
		.end = ((first_page + pages - 1) >> REGION_SHIFT) + 1,
	};
}

_Atomic uint32_t *window_waiting_slot(struct window *window, const struct window_file *file,
				      uint64_t index)
{
	return &window->waiting[window_hash_of(file, index) % WAITING_SLOTS];
}

bool window_is_held_locked(struct window *window, const struct region *region)
{
	_Atomic uint32_t *slot = window_waiting_slot(window, region->file, region->index);

	if (!(atomic_load(slot) & ~SLOT_LEFT))
		return false;
	atomic_fetch_or(slot, SLOT_LEFT);
	return atomic_load(slot) & ~SLOT_LEFT;
}

static struct cds_hlist_head *place_of(const struct window *window, const struct window_file *file,
				       uint64_t index)
{
	return &window->places[window_hash_of(file, index) & window->places_mask];
}

struct cds_hlist_head *window_move_places_locked(struct window *window,
						 struct cds_hlist_head *places, uint64_t mask)
{
	struct cds_hlist_head *before = window->places;
	uint64_t count = window->places_mask + 1;
	uint64_t i;

	window->places = places;
	window->places_mask = mask;
	for (i = 0; before && i < count; i++) {
		while (before[i].next) {
			struct region *region =
				caa_container_of(before[i].next, struct region, place);

			cds_hlist_del(&region->place);
			cds_hlist_add_head(&region->place,
					   place_of(window, region->file, region->index));
		}
	}
	return before;
}

struct region *window_next_closed_locked(const struct window_file *file, uint64_t index,
					 const struct region *before)
{
	struct cds_hlist_node *node =
		before ? before->place.next : place_of(file->window, file, index)->next;

	for (; node; node = node->next) {
		struct region *region = caa_container_of(node, struct region, place);

		if (region->file == file && region->index == index)
			return region;
	}
	return NULL;
}

void window_close_region_locked(struct window *window, struct region *region)
{
	struct window_file *file = region->file;

	fold_rcu_read_lock();
	cds_lfht_del(window->regions, &region->node);
	fold_rcu_read_unlock();
	cds_list_del(&region->link);
	cds_list_add_tail(&region->link, &window->closing);
	cds_list_del(&region->in_file);
	cds_list_add_tail(&region->in_file, &file->closing);
	cds_hlist_add_head(&region->place, place_of(window, file, region->index));
	file->noted--;
	region->closing_pages = (uint64_t)__builtin_popcountll(
		atomic_load_explicit(&region->bits, memory_order_relaxed));
	window->closing_pages += region->closing_pages;
}
