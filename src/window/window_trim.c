/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window_trim.c - what trimmers do to hold the window to its budget
 *
 * The head of window.c has the states of a region and why it is right to drop it.
 *
 * A trimmer waits for the kernel. The kernel waits for a page that is locked until its READ is
 * answered, and for the write-back of each page that was changed through a mapping. That write-back
 * is a WRITE to us, behind all other requests. Meanwhile other pages are noted at the speed of
 * memory. Five things bound how far the window grows:
 *
 *   - there are several trimmers, and one that waits for long has another called;
 *   - what is held by a READ that waits, for the source or for a trimmer, is left for later;
 *   - trimmers run at a higher priority than those whose pages they drop;
 *   - the kernel itself holds back processes that change mapped pages (dirty_limit.c);
 *   - past the ceiling a READ waits for the trimmers for a moment, and only while they make
 *     progress: the page that they wait for may be behind this READ. See window_wait_for_room().
 *
 * All trimmers are alike. Their work goes in steps, each taken from a list under the lock. One
 * trimmer at a time waits for a grace period for many regions (gather); the others drop a run of
 * neighbours or a file. So a run that takes long holds up only its own trimmer.
 *
 * A step costs what it drops, whatever else is noted: 64 pages or one of each region, in a file of
 * ten regions or of a million.
 *
 * Measured with window=1M, three fio verify jobs through mappings and a reader of other files: at
 * most 50-97 MiB without all that, 7-12 MiB with it, in the same time.
 */
#include "foldfs/clock.h"
#include "foldfs/rcu.h"
#include "window_internal.h"

#include <stdlib.h>
#include <string.h>

/* Regions that share one grace period. */
#define TRIM_BATCH 256u
/* Pages that are trimmed below a small budget at least (4 MiB, but never more than a quarter),
 * because each time costs a grace period. */
#define SLACK_PAGES 1024u
/* Regions that one invalidation covers: 4 MiB. The kernel holds the range's pages meanwhile. */
#define RUN_REGIONS 16u
/* A call that takes longer waits for something: there is work for another trimmer meanwhile. */
#define SLOW_US 1000u
/* When the window is past the budget, close the oldest regions until what stays is a sixteenth
 * below it, so that trimming comes in batches. */
static void close_oldest_locked(struct window *window)
{
	uint64_t budget = window_budget_pages(window);
	uint64_t slack = budget / 16 > SLACK_PAGES ? budget / 16 : SLACK_PAGES;
	uint64_t keep = budget - (slack < budget / 4 ? slack : budget / 4);
	uint64_t pages = atomic_load(&window->pages);
	unsigned regions = 0;

	if (pages <= window_limit_pages(window))
		return;
	while (pages > keep + window->closing_pages && regions++ < TRIM_BATCH &&
	       !cds_list_empty(&window->queue))
		window_close_region_locked(
			window, cds_list_first_entry(&window->queue, struct region, link));
}

static int by_place(const void *a, const void *b)
{
	const struct region *left = *(struct region *const *)a;
	const struct region *right = *(struct region *const *)b;

	if (left->file->node != right->file->node)
		return left->file->node < right->file->node ? -1 : 1;
	return left->index < right->index ? -1 : left->index > right->index;
}

static bool wants_gathering_locked(struct window *window)
{
	return !window->gathering && (!cds_list_empty(&window->closing) ||
				      (atomic_load(&window->pages) > window_limit_pages(window) &&
				       !cds_list_empty(&window->queue)));
}

/* closing -> ready, a grace period later. */
static void gather_locked(struct window *window)
{
	struct region *regions[TRIM_BATCH];
	unsigned count = 0;
	unsigned i;

	close_oldest_locked(window);
	while (count < TRIM_BATCH && !cds_list_empty(&window->closing)) {
		regions[count] = cds_list_first_entry(&window->closing, struct region, link);
		cds_list_del(&regions[count++]->link);
	}
	window->gathering = true;
	pthread_mutex_unlock(&window->lock);
	fold_rcu_synchronize();
	qsort(regions, count, sizeof(regions[0]), by_place);
	pthread_mutex_lock(&window->lock);
	window->gathering = false;
	for (i = 0; i < count; i++)
		cds_list_add_tail(&regions[i]->link, &window->ready);
	if (count > 1)
		pthread_cond_signal(&window->wanted);
}

/* ---- runs ---- */

/* Neighbours that one call drops. */
struct run {
	struct region *regions[RUN_REGIONS];
	unsigned count;
	bool forgotten; /* its node is forgotten */
	struct window_drop drop;
};

static bool belongs_to(const struct run *run, const struct region *region)
{
	return !run->count || (region->file == run->regions[0]->file &&
			       region->index == run->regions[0]->index + run->count);
}

/* Take the next regions that are ready, except those that are held, which are left for later.
 * False: there are none. A READ of any of them that begins from now on must not wait for the
 * trimmers, which may wait for that READ. */
static bool begin_run_locked(struct window *window, struct run *run)
{
	while (run->count < RUN_REGIONS && !cds_list_empty(&window->ready)) {
		struct region *region = cds_list_first_entry(&window->ready, struct region, link);
		bool held = !region->file->forgotten && window_is_held_locked(window, region);

		if (run->count && (held || !belongs_to(run, region)))
			break;
		cds_list_del(&region->link);
		if (held)
			cds_list_add_tail(&region->link, &window->held);
		else
			run->regions[run->count++] = region;
	}
	if (!run->count)
		return false;
	run->forgotten = run->regions[0]->file->forgotten;
	run->drop = (struct window_drop){
		.file = run->regions[0]->file,
		.regions = {.file = run->regions[0]->file,
			    .first = run->regions[0]->index,
			    .end = run->regions[0]->index + run->count},
		.pages = UINT64_MAX,
	};
	window_drop_begins_locked(&run->drop);
	window->trimming++;
	return true;
}

/* REGION was dropped: uncount and free it. Returns its pages. */
static uint64_t end_region_locked(struct window *window, struct region *region, bool *suspects)
{
	/* Exchanged, for the dropper uncounts the bits that it takes. */
	uint64_t noted = (uint64_t)__builtin_popcountll(atomic_exchange(&region->bits, 0));

	*suspects |= region->suspects != 0;
	cds_list_del(&region->in_file);
	cds_list_del(&region->suspect);
	cds_hlist_del(&region->place);
	window->closing_pages -= region->closing_pages;
	window_free_counted(window, region);
	return noted;
}

static void end_run_locked(struct window *window, struct run *run)
{
	struct window_file *file = run->regions[0]->file;
	bool suspects = false;
	uint64_t pages = 0;
	unsigned i;

	for (i = 0; i < run->count; i++)
		pages += end_region_locked(window, run->regions[i], &suspects);
	atomic_fetch_sub(&window->pages, pages);
	if (!run->forgotten)
		atomic_fetch_add_explicit(&window->trimmed, pages << FOLD_PAGE_SHIFT,
					  memory_order_relaxed);
	window_drop_ends_locked(&run->drop);
	window_free_file_if_done_locked(file);
	window->runs++;
	window->trimming--;
	if (atomic_load(&window->pages) <= window->ceiling)
		pthread_cond_broadcast(&window->trimmed_some);
	if (suspects)
		window_give_answers_locked(window, false);
}

/* Have the kernel drop LENGTH bytes from OFFSET of FILE; LENGTH 0: all. No lock held. Returns
 * whether that took long. */
static bool invalidate(struct window_file *file, uint64_t offset, uint64_t length)
{
	int64_t soon = clock_now_ns() + SLOW_US * NS_PER_US;

	/* Failure does not matter: the node is gone (ENOENT), or the connection. */
	(void)file->window->invalidate(file->window->context, file->node, (off_t)offset,
				       (off_t)length);
	return clock_now_ns() > soon;
}

/* Drop the next run of what was gathered. The lock is given up meanwhile. */
static void drop_run_locked(struct window *window)
{
	struct run run = {.count = 0};
	const struct window_range *regions = &run.drop.regions;
	bool slow = false;

	if (!begin_run_locked(window, &run))
		return;
	pthread_mutex_unlock(&window->lock);
	if (!run.forgotten)
		slow = invalidate(run.drop.file, regions->first * REGION_BYTES,
				  run.count * REGION_BYTES);
	pthread_mutex_lock(&window->lock);
	end_run_locked(window, &run);
	if (slow && !cds_list_empty(&window->ready))
		pthread_cond_signal(&window->wanted);
}

/* Drop a file as a whole. The lock is given up meanwhile. */
static void drop_stale_locked(struct window *window)
{
	struct window_file *file = cds_list_first_entry(&window->stale, struct window_file, stale);
	struct window_drop drop = {
		.file = file,
		.regions = {.file = file, .end = UINT64_MAX},
		.pages = UINT64_MAX,
	};
	uint64_t edition = atomic_load(&file->wanted);

	cds_list_del_init(&file->stale);
	window_drop_begins_locked(&drop);
	window->trimming++;
	pthread_mutex_unlock(&window->lock);
	(void)invalidate(file, 0, 0);
	pthread_mutex_lock(&window->lock);
	window->trimming--;
	/* Two trimmers may have dropped it at once. */
	if (atomic_load(&file->shown) < edition)
		atomic_store(&file->shown, edition);
	window_drop_ends_locked(&drop);
	window_free_file_if_done_locked(file);
	window_give_answers_locked(window, false);
}

bool window_trim_locked(struct window *window)
{
	if (wants_gathering_locked(window))
		gather_locked(window);
	else if (!cds_list_empty(&window->stale))
		drop_stale_locked(window);
	else if (!cds_list_empty(&window->ready))
		drop_run_locked(window);
	else
		return false;
	return true;
}
