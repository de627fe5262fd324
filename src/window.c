/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window.c - the kernel's page cache for this mount, held to a budget
 *
 * A region is 64 pages of one node, with a bit for each page that the kernel may hold. Regions are
 * found through a cds_lfht and live as long as they have bits: the first note of a region makes it,
 * the trimmer takes it out again. Bits are set without a lock, within an RCU read side.
 *
 *   noted    in the table, in the queue, in its file's list
 *   closing  out of the table, in window->closing: nobody finds it any more; those that had found
 *            it are in a read side. After a grace period its bits are final.
 *   held     the same, but in window->held: the kernel has pages of it locked for a READ that
 *            waits. When that goes on it is closing again.
 *
 * A region's pages may also be dropped by themselves, as suspects of a write: window_write.c.
 *
 * The trimmer closes the oldest regions when there are more bytes than the budget, waits for the
 * grace period, takes their bits off the count and has the kernel drop the pages, neighbours in one
 * call. It holds no lock while it does so, and no request waits for it for longer than a moment
 * (window_wait_for_room).
 *
 * A file is freed when its node is forgotten and its last region gone.
 */
#include "foldfs/rcu.h"
#include "foldfs/window_internal.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <urcu/list.h>
#include <urcu/rculfhash.h>

/* What the window may be above a small budget before reads wait. */
#define SLACK_BYTES ((uint64_t)4 << 20)
/* A trimmer that takes longer for one call waits for a page. (A call takes 0.1 ms for each MiB.)
 * Reads that went on waiting for it cost a storm of booting clones a third of its speed, because
 * that page was behind them; with a quarter of this the window grows to twice as much beside
 * mapped writes. */
#define STUCK_US 200u

struct region_key {
	const struct window_file *file;
	uint64_t index;
};

static void init_monotonic(pthread_cond_t *condition)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &attributes);
	pthread_condattr_destroy(&attributes);
}

errint_t window_new(uint64_t budget_bytes, window_invalidate_fn invalidate, void *context,
		    struct window **ret_window)
{
	struct window *window = calloc(1, sizeof(*window));

	if (!window)
		return -ENOMEM;
	window->budget = budget_bytes;
	window->invalidate = invalidate;
	window->context = context;
	window->ceiling = (budget_bytes +
			   (budget_bytes / 4 > SLACK_BYTES ? budget_bytes / 4 : SLACK_BYTES)) >>
			  FOLD_PAGE_SHIFT;
	CDS_INIT_LIST_HEAD(&window->queue);
	CDS_INIT_LIST_HEAD(&window->closing);
	CDS_INIT_LIST_HEAD(&window->held);
	CDS_INIT_LIST_HEAD(&window->reads);
	CDS_INIT_LIST_HEAD(&window->files);
	CDS_INIT_LIST_HEAD(&window->leaving);
	CDS_INIT_LIST_HEAD(&window->stale);
	CDS_INIT_LIST_HEAD(&window->suspects);
	CDS_INIT_LIST_HEAD(&window->answers);
	pthread_mutex_init(&window->lock, NULL);
	pthread_mutex_init(&window->stop_lock, NULL);
	pthread_cond_init(&window->wanted, NULL);
	pthread_cond_init(&window->suspected, NULL);
	pthread_cond_init(&window->answered, NULL);
	init_monotonic(&window->trimmed_some);
	init_monotonic(&window->answer_bounded);
	fold_rcu_register();
	window->regions = cds_lfht_new_flavor(64, 64, 0, CDS_LFHT_AUTO_RESIZE | CDS_LFHT_ACCOUNTING,
					      &urcu_memb_flavor, NULL);
	if (!window->regions) {
		free(window);
		return -ENOMEM;
	}
	*ret_window = window;
	return 0;
}

/* What BLOCK takes of the heap. */
static uint64_t bytes_of(void *block)
{
	return malloc_usable_size(block) + sizeof(size_t);
}

static void count_memory(struct window *window, void *block)
{
	atomic_fetch_add_explicit(&window->memory, bytes_of(block), memory_order_relaxed);
}

void window_free_counted(struct window *window, void *block)
{
	atomic_fetch_sub_explicit(&window->memory, bytes_of(block), memory_order_relaxed);
	free(block);
}

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
	CDS_INIT_LIST_HEAD(&file->stale);
	count_memory(window, file);
	pthread_mutex_lock(&window->lock);
	cds_list_add_tail(&file->link, &window->files);
	pthread_mutex_unlock(&window->lock);
	*ret_file = file;
	return 0;
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

/* Read side. */
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

/* The region, made and queued if it is not there. Read side. NULL: no memory. */
static struct region *find_or_make(struct window_file *file, uint64_t index)
{
	struct window *window = file->window;
	struct region *region = window_find_region(file, index);
	struct region *made;

	if (region)
		return region;
	made = calloc(1, sizeof(*made));
	if (!made)
		return NULL;
	made->file = file;
	made->index = index;
	cds_lfht_node_init(&made->node);
	pthread_mutex_lock(&window->lock);
	region = window_find_region(file, index);
	if (!region) {
		FOLD_TSAN_RELEASE(&made->node);
		cds_lfht_add(window->regions, window_hash_of(file, index), &made->node);
		cds_list_add_tail(&made->link, &window->queue);
		cds_list_add_tail(&made->in_file, &file->regions);
		CDS_INIT_LIST_HEAD(&made->suspect);
		made->dropped = atomic_load(&file->dropped);
		made->again = UINT64_MAX;
		count_memory(window, made);
	}
	pthread_mutex_unlock(&window->lock);
	if (!region)
		return made;
	free(made);
	return region;
}

static void wake(struct window *window)
{
	/* The lock makes sure that the trimmer is not between its test and its sleep. */
	pthread_mutex_lock(&window->lock);
	pthread_mutex_unlock(&window->lock);
	pthread_cond_signal(&window->wanted);
}

uint64_t window_mask_of(uint64_t page, uint64_t end)
{
	unsigned from = page & (REGION_PAGES - 1);
	uint64_t left = end - page;
	unsigned count = left < REGION_PAGES - from ? (unsigned)left : REGION_PAGES - from;

	return (count == REGION_PAGES ? UINT64_MAX : (1ull << count) - 1) << from;
}

void window_note(struct window_file *file, uint64_t first_page, unsigned pages)
{
	struct window *window = file->window;
	uint64_t page = first_page;
	uint64_t end = first_page + pages;
	uint64_t added = 0;
	uint64_t before;
	uint64_t limit;

	if (!window->budget) {
		if (!atomic_load_explicit(&file->cached, memory_order_relaxed))
			atomic_store(&file->cached, true);
		return;
	}
	fold_rcu_read_lock();
	while (page < end) {
		uint64_t mask = window_mask_of(page, end);
		struct region *region = find_or_make(file, page >> REGION_SHIFT);

		if (region && (~atomic_load_explicit(&region->bits, memory_order_relaxed) & mask))
			added += (uint64_t)__builtin_popcountll(
				mask & ~atomic_fetch_or(&region->bits, mask));
		page = (page | (REGION_PAGES - 1)) + 1;
	}
	/* Within the read side: the trimmer takes no bits off the count before they are on it. */
	before = added ? atomic_fetch_add(&window->pages, added) : 0;
	fold_rcu_read_unlock();
	/* The trimmer, once it is done, has left no more than the limit; and whoever makes that
	 * lower wakes it. */
	limit = added ? window_limit_pages(window) : 0;
	if (added && before + added > limit && before <= limit)
		wake(window);
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

static void read_waits_locked(struct window_file *file, uint64_t first_page, unsigned pages,
			      struct window_read *read)
{
	read->regions = window_regions_of(file, first_page, pages);
	cds_list_add(&read->link, &file->window->reads);
}

/* What was left for READ can be dropped now. */
static void read_goes_on_locked(struct window *window, struct window_read *read)
{
	cds_list_del(&read->link);
	if (!cds_list_empty(&window->held))
		pthread_cond_signal(&window->wanted);
	/* All of it: the trimmer looks again. */
	cds_list_splice(&window->held, &window->closing);
	CDS_INIT_LIST_HEAD(&window->held);
	if (!cds_list_empty(&window->suspects))
		pthread_cond_signal(&window->suspected);
}

void window_read_waits(struct window_file *file, uint64_t first_page, unsigned pages,
		       struct window_read *read)
{
	pthread_mutex_lock(&file->window->lock);
	read_waits_locked(file, first_page, pages, read);
	pthread_mutex_unlock(&file->window->lock);
}

void window_read_goes_on(struct window *window, struct window_read *read)
{
	pthread_mutex_lock(&window->lock);
	read_goes_on_locked(window, read);
	pthread_mutex_unlock(&window->lock);
}

struct timespec window_time_in(unsigned microseconds)
{
	struct timespec then;

	clock_gettime(CLOCK_MONOTONIC, &then);
	then.tv_nsec += (long)microseconds * 1000;
	then.tv_sec += then.tv_nsec / 1000000000;
	then.tv_nsec %= 1000000000;
	return then;
}

/* There is no room, and the trimmer does not wait for READ. */
static bool is_to_wait_locked(const struct window *window, const struct window_read *read)
{
	return !window->stopping && atomic_load(&window->pages) > window->ceiling &&
	       !window_ranges_overlap(&read->regions, &window->run) &&
	       !window_ranges_overlap(&read->regions, &window->redrop);
}

void window_wait_for_room(struct window_file *file, uint64_t first_page, unsigned pages,
			  unsigned microseconds)
{
	struct window *window = file->window;
	unsigned slices = (microseconds + STUCK_US - 1) / STUCK_US;
	struct window_read read;

	if (!window->budget || !pages ||
	    atomic_load_explicit(&window->pages, memory_order_relaxed) <= window->ceiling)
		return;
	pthread_mutex_lock(&window->lock);
	read_waits_locked(file, first_page, pages, &read);
	while (is_to_wait_locked(window, &read) && slices--) {
		struct timespec until = window_time_in(STUCK_US);
		uint64_t runs = window->runs;

		if (pthread_cond_timedwait(&window->trimmed_some, &window->lock, &until) &&
		    window->runs == runs)
			break;
	}
	read_goes_on_locked(window, &read);
	pthread_mutex_unlock(&window->lock);
}

/* Take REGION from the noted to the closing ones. Read side for the table. */
void window_close_region_locked(struct window *window, struct region *region)
{
	fold_rcu_read_lock();
	cds_lfht_del(window->regions, &region->node);
	fold_rcu_read_unlock();
	cds_list_del(&region->link);
	cds_list_add_tail(&region->link, &window->closing);
	cds_list_del(&region->in_file);
	cds_list_add_tail(&region->in_file, &region->file->closing);
	region->closing_pages = (uint64_t)__builtin_popcountll(
		atomic_load_explicit(&region->bits, memory_order_relaxed));
	window->closing_pages += region->closing_pages;
}

/* Close FILE's regions from INDEX on. */
static void close_file_locked(struct window_file *file, uint64_t index)
{
	struct region *region;
	struct region *next;

	cds_list_for_each_entry_safe (region, next, &file->regions, in_file)
		if (region->index >= index)
			window_close_region_locked(file->window, region);
}

void window_free_file_if_done_locked(struct window_file *file)
{
	if (!file->forgotten || file->dropping || file->awaited ||
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
	/* Its number may be another file's by the time the trimmer comes to it. */
	cds_list_del_init(&file->stale);
	cds_list_del(&file->link);
	cds_list_add_tail(&file->link, &window->leaving);
	noted = !cds_list_empty(&file->regions);
	close_file_locked(file, 0);
	window_free_file_if_done_locked(file);
	pthread_mutex_unlock(&window->lock);
	/* Most files that go have nothing left to be dropped. */
	if (noted)
		pthread_cond_signal(&window->wanted);
}

void window_uncount(struct window_file *file, uint64_t first_page)
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

static errint_t ignore(void *context, uint64_t node, off_t offset, off_t length)
{
	(void)context;
	(void)node;
	(void)offset;
	(void)length;
	return 0;
}

void window_free(struct window *window)
{
	if (!window)
		return;
	window_stop(window);
	/* Every file was forgotten; finish what they left behind. */
	window->invalidate = ignore;
	pthread_mutex_lock(&window->lock);
	while (!cds_list_empty(&window->closing))
		window_trim_locked(window);
	pthread_mutex_unlock(&window->lock);
	cds_lfht_destroy(window->regions, NULL);
	pthread_cond_destroy(&window->answer_bounded);
	pthread_cond_destroy(&window->answered);
	pthread_cond_destroy(&window->trimmed_some);
	pthread_cond_destroy(&window->suspected);
	pthread_cond_destroy(&window->wanted);
	pthread_mutex_destroy(&window->stop_lock);
	pthread_mutex_destroy(&window->lock);
	free(window);
}

static uint64_t noted_in(const struct region *region)
{
	return (uint64_t)__builtin_popcountll(
		atomic_load_explicit(&region->bits, memory_order_relaxed));
}

/* Of a list of regions on their way out. Under the lock, read side. */
static void count_closing(const struct cds_list_head *list, struct window_count *count)
{
	struct region *region;

	cds_list_for_each_entry (region, list, link) {
		count->pages += noted_in(region);
		count->closing += region->closing_pages;
		count->misplaced += window_find_region(region->file, region->index) == region;
	}
}

/* Of a list of files, with all their regions. Under the lock. */
static uint64_t memory_of(const struct cds_list_head *files)
{
	struct window_file *file;
	struct region *region;
	uint64_t bytes = 0;

	cds_list_for_each_entry (file, files, link) {
		bytes += bytes_of(file);
		cds_list_for_each_entry (region, &file->regions, in_file)
			bytes += bytes_of(region);
		cds_list_for_each_entry (region, &file->closing, in_file)
			bytes += bytes_of(region);
	}
	return bytes;
}

void window_count(struct window *window, struct window_count *ret_count)
{
	struct window_count count = {.budget = window_budget_pages(window)};
	struct region *region;

	pthread_mutex_lock(&window->lock);
	fold_rcu_read_lock();
	cds_list_for_each_entry (region, &window->queue, link) {
		count.pages += noted_in(region);
		count.misplaced += window_find_region(region->file, region->index) != region;
	}
	count_closing(&window->closing, &count);
	count_closing(&window->held, &count);
	count.pages_said = atomic_load(&window->pages);
	count.closing_said = window->closing_pages;
	count.memory = memory_of(&window->files) + memory_of(&window->leaving);
	count.memory_said = atomic_load_explicit(&window->memory, memory_order_relaxed);
	fold_rcu_read_unlock();
	count.trims = window->budget && !window->stopping;
	count.trimming = window->trimming || window->uncounting;
	pthread_mutex_unlock(&window->lock);
	*ret_count = count;
}

void window_usage(const struct window *window, struct window_usage *ret_usage)
{
	ret_usage->budget_bytes = window->budget;
	ret_usage->bytes = atomic_load_explicit(&window->pages, memory_order_relaxed)
			   << FOLD_PAGE_SHIFT;
	ret_usage->trimmed_bytes = atomic_load_explicit(&window->trimmed, memory_order_relaxed);
	ret_usage->memory_bytes = atomic_load_explicit(&window->memory, memory_order_relaxed);
}
