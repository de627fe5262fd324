/* SPDX-License-Identifier: Apache-2.0 */
/*
 * null_window.c - holds the kernel's cache of null_fuse's files to a budget
 *
 * It does what any server that keeps a window must do, and no more. It has a bit for each page that
 * the kernel was given, and regions of 256 KiB, queued in the order of their first page. One thread
 * invalidates the oldest regions past the budget, neighbours in one call. That thread holds no lock
 * meanwhile, and no request waits for it.
 *
 * A region is in the queue once while any of its bits is set: the thread that sets the first bit
 * queues it, and the trimming thread clears the bits after it took the region out. So the queue
 * never needs more places than there are regions.
 */
#include "null_window.h"

#include <errno.h>
#include <stdlib.h>

/* Neighbours are joined up to this much in one invalidation. */
#define RUN_REGIONS 16u

int null_window_init(struct null_window *window, uint64_t budget, struct null_window_file *files,
		     size_t count)
{
	*window = (struct null_window){.budget = budget};
	pthread_mutex_init(&window->mutex, NULL);
	pthread_cond_init(&window->full, NULL);
	for (size_t i = 0; i < count; i++) {
		files[i].pages = calloc(files[i].regions + 1, sizeof(*files[i].pages));
		if (!files[i].pages)
			return -ENOMEM;
		window->size += files[i].regions;
	}
	window->queue = calloc(window->size + 1, sizeof(*window->queue));
	return window->queue ? 0 : -ENOMEM;
}

void null_window_destroy(struct null_window *window, struct null_window_file *files, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(files[i].pages);
	free(window->queue);
	pthread_cond_destroy(&window->full);
	pthread_mutex_destroy(&window->mutex);
}

/* Queue a region whose first bit was just set. */
static void enqueue(struct null_window *window, struct null_window_file *file, uint64_t region)
{
	pthread_mutex_lock(&window->mutex);
	size_t at = (window->head + window->count) % window->size;
	window->queue[at] = (struct null_window_entry){file, region};
	window->count++;
	pthread_mutex_unlock(&window->mutex);
}

/* Set the bits of PAGES pages of REGION from FIRST on. Returns how many were not set. */
static unsigned note_region(struct null_window *window, struct null_window_file *file,
			    uint64_t region, unsigned first, unsigned pages)
{
	uint64_t mask = (pages == 64 ? UINT64_MAX : (UINT64_C(1) << pages) - 1) << first;
	uint64_t before = atomic_load_explicit(&file->pages[region], memory_order_relaxed);

	if ((before & mask) == mask)
		return 0;
	before = atomic_fetch_or(&file->pages[region], mask);
	if (!before)
		enqueue(window, file, region);
	return (unsigned)__builtin_popcountll(mask & ~before);
}

void null_window_note(struct null_window *window, struct null_window_file *file, uint64_t first,
		      uint64_t pages)
{
	uint64_t fresh = 0;

	while (pages) {
		uint64_t region = first / NULL_REGION_PAGES;
		unsigned at = (unsigned)(first % NULL_REGION_PAGES);
		unsigned here = NULL_REGION_PAGES - at;

		if (region >= file->regions)
			break;
		if (here > pages)
			here = (unsigned)pages;
		fresh += note_region(window, file, region, at, here);
		first += here;
		pages -= here;
	}
	if (!fresh)
		return;

	uint64_t bytes = fresh * NULL_PAGE_SIZE;
	uint64_t before = atomic_fetch_add(&window->bytes, bytes);
	if (before <= window->budget && before + bytes > window->budget) {
		pthread_mutex_lock(&window->mutex);
		pthread_cond_signal(&window->full);
		pthread_mutex_unlock(&window->mutex);
	}
}

/* Take the oldest region out, and those behind it in the queue that continue it, their bits
 * cleared. Returns how many. Under mutex. */
static uint64_t take_run_locked(struct null_window *window, struct null_window_entry *ret_first)
{
	uint64_t regions = 0;
	uint64_t pages = 0;

	*ret_first = window->queue[window->head];
	while (window->count && regions < RUN_REGIONS) {
		struct null_window_entry *entry = &window->queue[window->head];

		if (entry->file != ret_first->file || entry->region != ret_first->region + regions)
			break;
		window->head = (window->head + 1) % window->size;
		window->count--;
		uint64_t bits = atomic_exchange(&entry->file->pages[entry->region], 0);
		pages += (uint64_t)__builtin_popcountll(bits);
		regions++;
	}
	/* A note in between may not have added its bytes yet: the sum wraps and comes
	 * right again. */
	atomic_fetch_sub(&window->bytes, pages * NULL_PAGE_SIZE);
	return regions;
}

static bool over_budget(struct null_window *window)
{
	uint64_t bytes = atomic_load(&window->bytes);

	return bytes > window->budget && bytes < UINT64_MAX / 2;
}

static void *trim(void *context)
{
	struct null_window *window = context;

	pthread_mutex_lock(&window->mutex);
	while (!window->stopping) {
		struct null_window_entry first;

		if (!window->count || !over_budget(window)) {
			pthread_cond_wait(&window->full, &window->mutex);
			continue;
		}
		uint64_t regions = take_run_locked(window, &first);
		pthread_mutex_unlock(&window->mutex);
		/* Fails when the kernel has forgotten the node, and its cache with it: fine. */
		fuse_lowlevel_notify_inval_inode(window->se, first.file->node,
						 (off_t)(first.region * NULL_REGION_BYTES),
						 (off_t)(regions * NULL_REGION_BYTES));
		pthread_mutex_lock(&window->mutex);
	}
	pthread_mutex_unlock(&window->mutex);
	return NULL;
}

int null_window_start(struct null_window *window, struct fuse_session *se)
{
	window->se = se;
	int error = pthread_create(&window->thread, NULL, trim, window);
	window->started = !error;
	return -error;
}

void null_window_stop(struct null_window *window)
{
	if (!window->started)
		return;
	pthread_mutex_lock(&window->mutex);
	window->stopping = true;
	pthread_cond_signal(&window->full);
	pthread_mutex_unlock(&window->mutex);
	pthread_join(window->thread, NULL);
	window->started = false;
}
