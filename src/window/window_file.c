/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window_file.c - what the kernel holds of one node: dropped as a whole, followed, forgotten
 *
 * A file is freed when its node is forgotten and its last region gone.
 */
#include "foldfs/rcu.h"
#include "window_internal.h"

#include <errno.h>
#include <stdlib.h>

/* Regions that are looked at, and closed, in one hold of the lock. */
#define CLOSE_BATCH 256u

errint_t window_file_new(struct window *window, uint64_t node, uint64_t edition,
			 struct window_file **ret_file)
{
	struct window_file *file = calloc(1, sizeof(*file));

	if (!file)
		return -ENOMEM;
	file->window = window;
	file->node = node;
	atomic_init(&file->wanted, edition);
	atomic_init(&file->shown, edition);
	CDS_INIT_LIST_HEAD(&file->regions);
	CDS_INIT_LIST_HEAD(&file->closing);
	CDS_INIT_LIST_HEAD(&file->drops);
	CDS_INIT_LIST_HEAD(&file->stale);
	window_count_memory(window, file);
	pthread_mutex_lock(&window->lock);
	cds_list_add_tail(&file->link, &window->files);
	pthread_mutex_unlock(&window->lock);
	*ret_file = file;
	return 0;
}

/* Let others have the lock. */
static void give_way_locked(struct window *window)
{
	pthread_mutex_unlock(&window->lock);
	pthread_cond_signal(&window->wanted);
	pthread_mutex_lock(&window->lock);
}

/* Look for FILE's regions from INDEX to END one by one: the file has more regions than that. */
static void close_by_index_locked(struct window_file *file, uint64_t index, uint64_t end)
{
	unsigned looks = 0;

	for (; index < end; index++) {
		struct region *region;

		fold_rcu_read_lock();
		region = window_find_region(file, index);
		fold_rcu_read_unlock();
		/* Only trimmers free regions, under the lock, once they are closed. */
		if (region)
			window_close_region_locked(file->window, region);
		if (++looks % CLOSE_BATCH == 0)
			give_way_locked(file->window);
	}
}

/* Look at each region that FILE had at the beginning. Regions before INDEX go to the end of the
 * list, so it does not matter what others do to the list meanwhile. */
static void close_by_list_locked(struct window_file *file, uint64_t index)
{
	uint64_t left = file->noted;

	for (; left && !cds_list_empty(&file->regions); left--) {
		struct region *region =
			cds_list_first_entry(&file->regions, struct region, in_file);

		if (region->index >= index) {
			window_close_region_locked(file->window, region);
		} else {
			cds_list_del(&region->in_file);
			cds_list_add_tail(&region->in_file, &file->regions);
		}
		if (left % CLOSE_BATCH == 0)
			give_way_locked(file->window);
	}
}

/* Close FILE's regions from INDEX on. The lock is given up in between. Regions noted meanwhile may
 * be left. */
static void close_file_locked(struct window_file *file, uint64_t index)
{
	uint64_t end = file->end;

	if (end <= index)
		return;
	file->end = index; /* regions noted meanwhile move it on again */
	file->kept++;
	if (end - index < file->noted)
		close_by_index_locked(file, index, end);
	else
		close_by_list_locked(file, index);
	file->kept--;
}

void window_free_file_if_done_locked(struct window_file *file)
{
	if (!file->forgotten || file->kept || !cds_list_empty(&file->drops) ||
	    !cds_list_empty(&file->regions) || !cds_list_empty(&file->closing))
		return;
	cds_list_del(&file->stale);
	cds_list_del(&file->link);
	window_free_counted(file->window, file);
}

void window_file_forget(struct window_file *file)
{
	struct window *window;
	bool noted;

	if (!file)
		return;
	window = file->window;
	pthread_mutex_lock(&window->lock);
	file->forgotten = true;
	/* The node's number may be another file's by the time a trimmer comes to it. */
	cds_list_del_init(&file->stale);
	cds_list_del(&file->link);
	cds_list_add_tail(&file->link, &window->leaving);
	noted = !cds_list_empty(&file->regions);
	close_file_locked(file, 0);
	window_free_file_if_done_locked(file);
	pthread_mutex_unlock(&window->lock);
	/* Most forgotten files have nothing left to be dropped. */
	if (noted)
		pthread_cond_signal(&window->wanted);
}

void window_close_from(struct window_file *file, uint64_t first_page)
{
	struct window *window = file->window;

	pthread_mutex_lock(&window->lock);
	close_file_locked(file, (first_page + REGION_PAGES - 1) >> REGION_SHIFT);
	pthread_mutex_unlock(&window->lock);
	pthread_cond_signal(&window->wanted);
}

static void invalidate_soon_locked(struct window_file *file)
{
	if (!file->forgotten && cds_list_empty(&file->stale))
		cds_list_add_tail(&file->stale, &file->window->stale);
	close_file_locked(file, 0);
}

void window_invalidate_soon(struct window_file *file)
{
	struct window *window = file->window;

	pthread_mutex_lock(&window->lock);
	invalidate_soon_locked(file);
	pthread_mutex_unlock(&window->lock);
	pthread_cond_signal(&window->wanted);
}

void window_follow(struct window_file *file, uint64_t edition)
{
	struct window *window = file->window;

	if (atomic_load_explicit(&file->wanted, memory_order_relaxed) >= edition)
		return;
	pthread_mutex_lock(&window->lock);
	if (atomic_load(&file->wanted) < edition) {
		atomic_store(&file->wanted, edition);
		invalidate_soon_locked(file);
	}
	pthread_mutex_unlock(&window->lock);
	pthread_cond_signal(&window->wanted);
}

bool window_shows(const struct window_file *file, uint64_t edition)
{
	return atomic_load(&file->shown) >= edition;
}
