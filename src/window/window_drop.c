/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window_drop.c - the clock of drops: which pages may have been dropped since a moment
 *
 * While a drop is under way, others find it in file->drops. When it is over, the regions at its
 * place are marked.
 */
#include "foldfs/rcu.h"
#include "window_internal.h"

/* Stands for a drop that is not over: later than every drop that is. */
#define UNDER_WAY UINT64_MAX

void window_drop_begins_locked(struct window_drop *drop)
{
	struct window_file *file = drop->file;

	cds_list_add(&drop->link, &file->drops);
	atomic_store(&file->dropped, UNDER_WAY);
}

/* Mark REGION, at a place that was dropped, with this drop's clock. */
static void mark_region(struct region *region, uint64_t pages, uint64_t clock)
{
	/* What was dropped before the last write does not matter any more. */
	if (region->dropped <= atomic_load(&region->file->written))
		region->again = 0;
	region->again |= pages;
	region->dropped = clock;
}

static void mark_regions_locked(const struct window_drop *drop, uint64_t clock)
{
	struct window_file *file = drop->file;
	struct region *region;
	uint64_t index;

	for (index = drop->regions.first; index < drop->regions.end; index++) {
		fold_rcu_read_lock();
		region = window_find_region(file, index);
		fold_rcu_read_unlock();
		if (region)
			mark_region(region, drop->pages, clock);
		for (region = window_next_closed_locked(file, index, NULL); region;
		     region = window_next_closed_locked(file, index, region))
			mark_region(region, drop->pages, clock);
	}
}

void window_drop_ends_locked(struct window_drop *drop)
{
	struct window_file *file = drop->file;
	uint64_t clock = ++file->window->clock;

	cds_list_del(&drop->link);
	file->over = clock;
	atomic_store(&file->dropped, cds_list_empty(&file->drops) ? clock : UNDER_WAY);
	if (drop->regions.end == UINT64_MAX)
		file->whole = clock;
	else
		mark_regions_locked(drop, clock);
}

uint64_t window_dropped_since_locked(const struct region *region, uint64_t since)
{
	const struct window_drop *drop;
	uint64_t pages = region->dropped >= since ? region->again : 0;

	if (!since || region->file->whole >= since)
		return UINT64_MAX;
	cds_list_for_each_entry (drop, &region->file->drops, link)
		if (region->index >= drop->regions.first && region->index < drop->regions.end)
			pages |= drop->pages;
	return pages;
}
