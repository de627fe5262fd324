/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window_trim.c - the thread that holds the window to its budget; the head of window.c has the
 * states of a region and why it is right to drop it
 *
 * The trimmer waits for the kernel: for a page that is locked until its READ is answered, and for
 * each page that was changed through a mapping until it is written back, which is a WRITE to us.
 * Meanwhile other pages are noted at the speed of memory. Four things bound what that comes to:
 *
 *   - what a READ holds that waits, for the source or for the trimmer, is left for later;
 *   - it runs at a higher priority than those whose pages it drops;
 *   - the kernel itself holds back those who change mapped pages (bdi.c);
 *   - past the ceiling a READ waits for the trimmer for a moment, and only while the trimmer gets
 *     on: the page that it waits for may be behind this READ. See window_wait_for_room().
 *
 * Measured with window=1M, three fio verify jobs through mappings and a reader of other files: at
 * most 50-97 MiB without all that, 7-12 MiB with it, in the same time.
 */
#include "foldfs/rcu.h"
#include "foldfs/window_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Regions that one round of the trimmer closes. */
#define TRIM_BATCH 256u
/* Files that one round drops as a whole. */
#define STALE_BATCH 16u
/* What a round trims below a small budget at least (4 MiB, but never more than a quarter): each
 * round costs a grace period. */
#define SLACK_PAGES 1024u
/* Regions that one invalidation covers: 4 MiB. The kernel holds the range's pages meanwhile. */
#define RUN_REGIONS 16u
/* A drop that is not over; later than all. */
#define UNDER_WAY UINT64_MAX

/* Past the budget, close the oldest regions until what stays is a sixteenth below it, so that
 * trimming comes in batches. */
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

bool window_is_held_locked(const struct window *window, const struct region *region)
{
	const struct window_range range = {
		.file = region->file, .first = region->index, .end = region->index + 1};
	const struct window_read *read;

	cds_list_for_each_entry (read, &window->reads, link)
		if (window_ranges_overlap(&read->regions, &range))
			return true;
	return false;
}

/* How many can be dropped together from regions[0] on, of COUNT; 0: not even that one, it is held.
 * Who reads any of them from now on is not to wait for the trimmer, which may wait for that READ.
 */
static unsigned begin_run(struct window *window, struct region *regions[], unsigned count)
{
	unsigned end;

	pthread_mutex_lock(&window->lock);
	for (end = 0; end < count && end < RUN_REGIONS; end++)
		if (regions[end]->file != regions[0]->file ||
		    regions[end]->index != regions[0]->index + end ||
		    window_is_held_locked(window, regions[end]))
			break;
	window->run = (struct window_range){.file = regions[0]->file,
					    .first = regions[0]->index,
					    .end = regions[0]->index + end};
	window->runs++;
	pthread_mutex_unlock(&window->lock);
	return end;
}

/* Have the kernel drop regions[0..count], in order of place; neighbours together. Those that are
 * held are left for later. No lock held. */
static void invalidate_regions(struct window *window, struct region *regions[], unsigned count)
{
	unsigned i;
	unsigned run;

	for (i = 0; i < count; i += run ? run : 1) {
		run = regions[i]->forgotten ? 0 : begin_run(window, &regions[i], count - i);
		regions[i]->held = !run && !regions[i]->forgotten;
		/* Failure is of no consequence: the node is gone (ENOENT), or the connection. */
		if (run)
			(void)window->invalidate(window->context, regions[i]->file->node,
						 (off_t)(regions[i]->index * REGION_BYTES),
						 (off_t)(run * REGION_BYTES));
	}
}

/* Finish regions that were closed before a grace period: uncount, invalidate, free. */
static void finish(struct window *window, struct region *regions[], unsigned count)
{
	uint64_t pages = 0;
	uint64_t trimmed = 0;
	unsigned i;

	qsort(regions, count, sizeof(regions[0]), by_place);
	invalidate_regions(window, regions, count);
	for (i = 0; i < count; i++) {
		uint64_t noted;

		if (regions[i]->held)
			continue;
		/* Taken, for the dropper uncounts those that it takes. */
		noted = (uint64_t)__builtin_popcountll(atomic_exchange(&regions[i]->bits, 0));
		pages += noted;
		trimmed += regions[i]->forgotten ? 0 : noted;
	}
	atomic_fetch_sub(&window->pages, pages);
	atomic_fetch_add_explicit(&window->trimmed, trimmed << FOLD_PAGE_SHIFT,
				  memory_order_relaxed);
	pthread_mutex_lock(&window->lock);
	for (i = 0; i < count; i++) {
		struct window_file *file = regions[i]->file;

		if (regions[i]->held) {
			/* That READ may have gone on since. */
			cds_list_add_tail(&regions[i]->link,
					  window_is_held_locked(window, regions[i])
						  ? &window->held
						  : &window->closing);
			continue;
		}
		cds_list_del(&regions[i]->in_file);
		cds_list_del(&regions[i]->suspect);
		window->closing_pages -= regions[i]->closing_pages;
		window_free_counted(window, regions[i]);
		window_free_file_if_done_locked(file);
	}
	pthread_mutex_unlock(&window->lock);
}

/* What one round of the trimmer drops. */
struct round {
	struct region *regions[TRIM_BATCH];
	unsigned count;
	struct window_file *stale[STALE_BATCH];
	unsigned stale_count;
	struct window_file *files[TRIM_BATCH + STALE_BATCH]; /* of all of these */
	unsigned file_count;
};

void window_drop_begins_locked(struct window_file *file)
{
	file->dropping++;
	atomic_store(&file->dropped, UNDER_WAY);
}

void window_region_drop_begins_locked(struct region *region, uint64_t pages)
{
	/* What was dropped before the last write is of no interest any more. */
	if (region->dropped <= atomic_load(&region->file->written))
		region->again = 0;
	region->again |= pages;
	region->dropped = UNDER_WAY;
}

static void drop_is_over_locked(struct cds_list_head *regions, uint64_t clock)
{
	struct region *region;

	cds_list_for_each_entry (region, regions, in_file)
		if (region->dropped == UNDER_WAY)
			region->dropped = clock;
}

void window_drop_ends_locked(struct window_file *file)
{
	uint64_t clock = file->window->clock;

	if (--file->dropping)
		return;
	atomic_store(&file->dropped, clock);
	drop_is_over_locked(&file->regions, clock);
	drop_is_over_locked(&file->closing, clock);
	window_free_file_if_done_locked(file);
}

static void take_file_locked(struct round *round, struct window_file *file)
{
	window_drop_begins_locked(file);
	round->files[round->file_count++] = file;
}

static void drops_end_locked(struct window *window, struct round *round)
{
	unsigned i;

	window->clock++;
	for (i = 0; i < round->stale_count; i++)
		atomic_store(&round->stale[i]->shown, round->stale[i]->dropping_for);
	for (i = 0; i < round->file_count; i++)
		window_drop_ends_locked(round->files[i]);
}

static void take_closing_locked(struct window *window, struct round *round)
{
	while (round->count < TRIM_BATCH && !cds_list_empty(&window->closing)) {
		struct region *region = cds_list_first_entry(&window->closing, struct region, link);
		struct region *again;

		region->forgotten = region->file->forgotten;
		region->held = false;
		cds_list_del(&region->link);
		round->regions[round->count++] = region;
		take_file_locked(round, region->file);
		fold_rcu_read_lock();
		again = window_find_region(region->file, region->index);
		fold_rcu_read_unlock();
		if (again)
			window_region_drop_begins_locked(again, UINT64_MAX);
	}
}

/* Files that are stale as a whole. */
static void take_stale_locked(struct window *window, struct round *round)
{
	while (round->stale_count < STALE_BATCH && !cds_list_empty(&window->stale)) {
		struct window_file *file =
			cds_list_first_entry(&window->stale, struct window_file, stale);
		struct region *region;

		cds_list_del_init(&file->stale);
		round->stale[round->stale_count++] = file;
		file->dropping_for = atomic_load(&file->wanted);
		take_file_locked(round, file);
		cds_list_for_each_entry (region, &file->regions, in_file)
			window_region_drop_begins_locked(region, UINT64_MAX);
	}
}

static bool has_work_locked(struct window *window)
{
	return window->stopping || !cds_list_empty(&window->closing) ||
	       !cds_list_empty(&window->stale) ||
	       (atomic_load(&window->pages) > window_limit_pages(window) &&
		!cds_list_empty(&window->queue));
}

/* One round of the trimmer. The lock is given up for all that may take time. Regions and files of
 * the round stay: nobody but the trimmer frees regions, and `dropping` keeps files. */
void window_trim_locked(struct window *window)
{
	struct round round = {0};
	unsigned i;

	close_oldest_locked(window);
	take_stale_locked(window, &round);
	take_closing_locked(window, &round);
	window->trimming = round.count || round.stale_count;
	pthread_mutex_unlock(&window->lock);
	for (i = 0; i < round.stale_count; i++)
		(void)window->invalidate(window->context, round.stale[i]->node, 0, 0);
	if (round.count) {
		fold_rcu_synchronize();
		finish(window, round.regions, round.count);
	}
	pthread_mutex_lock(&window->lock);
	drops_end_locked(window, &round);
	window->trimming = false;
	pthread_cond_broadcast(&window->trimmed_some);
	window_give_answers_locked(window, false);
}

static void *trim(void *argument)
{
	struct window *window = argument;

	(void)setpriority(PRIO_PROCESS, 0, TRIMMER_NICE);
	fold_rcu_register();
	pthread_mutex_lock(&window->lock);
	while (!window->stopping) {
		if (has_work_locked(window))
			window_trim_locked(window);
		else
			pthread_cond_wait(&window->wanted, &window->lock);
	}
	pthread_mutex_unlock(&window->lock);
	return NULL;
}

errint_t window_start(struct window *window)
{
	int error;

	/* The end may be told of before all is begun. */
	pthread_mutex_lock(&window->stop_lock);
	error = pthread_create(&window->trimmer, NULL, trim, window);
	window->trimmer_runs = !error;
	if (!error)
		error = pthread_create(&window->dropper, NULL, window_run_dropper, window);
	window->dropper_runs = !error;
	if (!error)
		error = pthread_create(&window->answerer, NULL, window_run_answerer, window);
	window->answerer_runs = !error;
	pthread_mutex_unlock(&window->stop_lock);
	return -error;
}

static void join(pthread_t thread, bool *runs)
{
	if (*runs)
		pthread_join(thread, NULL);
	*runs = false;
}

void window_stop(struct window *window)
{
	pthread_mutex_lock(&window->lock);
	window->stopping = true;
	pthread_mutex_unlock(&window->lock);
	pthread_cond_signal(&window->wanted);
	pthread_cond_signal(&window->suspected);
	pthread_cond_broadcast(&window->trimmed_some);
	pthread_cond_signal(&window->answer_bounded);
	pthread_mutex_lock(&window->stop_lock);
	/* First, for the others may be waiting for an answer. */
	join(window->answerer, &window->answerer_runs);
	pthread_mutex_lock(&window->lock);
	window_give_answers_locked(window, true);
	pthread_mutex_unlock(&window->lock);
	join(window->dropper, &window->dropper_runs);
	join(window->trimmer, &window->trimmer_runs);
	pthread_mutex_unlock(&window->stop_lock);
}
