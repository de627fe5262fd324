/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window.c - the kernel's page cache for this mount, held to a budget
 *
 * A region is 64 pages of one node, with a bit for each page that the kernel may hold. Regions are
 * found through a cds_lfht and live as long as they have bits: the first note of a region makes it,
 * the trimmer takes it out again. Bits are set without a lock, within an RCU read side.
 *
 *   noted    in the table, in the queue, in its file's list
 *   closing  out of the table, in window->closing: nobody who notes finds it any more; those that
 *            had found it are in a read side
 *   ready    a grace period later, in window->ready: its bits are final
 *   held     the same, but in window->held: the kernel has pages of it locked for a READ that
 *            waits. When that goes on it is ready again.
 *
 * From closing on it is in window->places, where writes look for pages that are on their way out. A
 * region's pages may also be dropped by themselves, as suspects of a write: window_write.c.
 *
 * Trimmers close the oldest regions when there are more bytes than the budget, wait for the grace
 * period, have the kernel drop the pages, neighbours in one call, and take their bits off the
 * count. They hold no lock while they wait, and no request waits for them for longer than a moment
 * (window_wait_for_room).
 *
 * What one hold of the lock does is bounded, whatever the window, a file or their notes have come
 * to: CLOSE_BATCH regions are closed, TRIM_BATCH gathered, a run of them dropped.
 *
 * A file is freed when its node is forgotten and its last region gone.
 */
#include "foldfs/rcu.h"
#include "window_internal.h"

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
/* Regions that are looked at, and closed, while the lock is held once. */
#define CLOSE_BATCH 256u
/* Places of regions that are on their way out: one for so many pages of the budget, in bounds. */
#define PLACE_PAGES 16u
#define PLACES_MIN  64u
#define PLACES_MAX  65536u

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

static void init_lists_and_locks(struct window *window)
{
	CDS_INIT_LIST_HEAD(&window->queue);
	CDS_INIT_LIST_HEAD(&window->closing);
	CDS_INIT_LIST_HEAD(&window->ready);
	CDS_INIT_LIST_HEAD(&window->held);
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
}

static errint_t make_tables(struct window *window)
{
	uint64_t places = PLACES_MIN;

	while (places < PLACES_MAX && places * PLACE_PAGES < window_budget_pages(window))
		places *= 2;
	window->places_mask = places - 1;
	window->places = calloc(places, sizeof(*window->places));
	if (!window->places)
		return -ENOMEM;
	count_memory(window, window->places);
	fold_rcu_register();
	window->regions = cds_lfht_new_flavor(64, 64, 0, CDS_LFHT_AUTO_RESIZE | CDS_LFHT_ACCOUNTING,
					      &urcu_memb_flavor, NULL);
	return window->regions ? 0 : -ENOMEM;
}

errint_t window_new(uint64_t budget_bytes, window_invalidate_fn invalidate, void *context,
		    struct window **ret_window)
{
	struct window *window = calloc(1, sizeof(*window));
	errint_t error;

	if (!window)
		return -ENOMEM;
	window->budget = budget_bytes;
	window->invalidate = invalidate;
	window->context = context;
	window->trimmers_most = TRIMMERS;
	window->ceiling = (budget_bytes +
			   (budget_bytes / 4 > SLACK_BYTES ? budget_bytes / 4 : SLACK_BYTES)) >>
			  FOLD_PAGE_SHIFT;
	error = make_tables(window);
	if (error) {
		free(window->places);
		free(window);
		return error;
	}
	init_lists_and_locks(window);
	*ret_window = window;
	return 0;
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
	CDS_INIT_LIST_HEAD(&file->drops);
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
		file->noted++;
		if (file->end <= index)
			file->end = index + 1;
		/* Nobody knows any more which of its pages that was. */
		made->dropped = file->over;
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
	/* The lock makes sure that no trimmer is between its test and its sleep. */
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
	/* The last trimmer that went to sleep had found no more than the limit; and whoever makes
	 * that lower looks again. */
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

static _Atomic uint32_t *waiting_slot(struct window *window, const struct window_file *file,
				      uint64_t index)
{
	return &window->waiting[window_hash_of(file, index) % WAITING_SLOTS];
}

void window_read_waits(struct window_file *file, uint64_t first_page, unsigned pages,
		       struct window_read *read)
{
	uint64_t index;

	read->regions = window_regions_of(file, first_page, pages);
	for (index = read->regions.first; index < read->regions.end; index++)
		atomic_fetch_add(waiting_slot(file->window, file, index), 1);
}

/* A READ does not wait any more: whether it was the last one that something was left for. Whoever
 * left something has said so before it looked at the slot for the last time, and puts it into the
 * list before it gives the lock back, which is to be taken now. */
static bool leave_slots(struct window *window, const struct window_read *read)
{
	bool last = false;
	uint64_t index;

	for (index = read->regions.first; index < read->regions.end; index++) {
		_Atomic uint32_t *slot = waiting_slot(window, read->regions.file, index);

		if (atomic_fetch_sub(slot, 1) == (SLOT_LEFT | 1)) {
			atomic_fetch_and(slot, ~SLOT_LEFT);
			last = true;
		}
	}
	return last;
}

/* All that was left can be looked at again. */
static void look_again_locked(struct window *window)
{
	if (!cds_list_empty(&window->held))
		pthread_cond_signal(&window->wanted);
	cds_list_splice(&window->held, &window->ready);
	CDS_INIT_LIST_HEAD(&window->held);
	if (!cds_list_empty(&window->suspects))
		pthread_cond_signal(&window->suspected);
}

void window_read_goes_on(struct window *window, struct window_read *read)
{
	if (!leave_slots(window, read))
		return;
	pthread_mutex_lock(&window->lock);
	look_again_locked(window);
	pthread_mutex_unlock(&window->lock);
}

bool window_is_held_locked(struct window *window, const struct region *region)
{
	_Atomic uint32_t *slot = waiting_slot(window, region->file, region->index);

	if (!(atomic_load(slot) & ~SLOT_LEFT))
		return false;
	atomic_fetch_or(slot, SLOT_LEFT);
	return atomic_load(slot) & ~SLOT_LEFT;
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

static bool is_being_dropped_locked(const struct window_file *file,
				    const struct window_range *regions)
{
	const struct window_drop *drop;

	cds_list_for_each_entry (drop, &file->drops, link)
		if (window_ranges_overlap(&drop->regions, regions))
			return true;
	return false;
}

/* There is no room, and no trimmer waits for a READ of these regions of FILE. */
static bool is_to_wait_locked(const struct window_file *file, const struct window_read *read)
{
	const struct window *window = file->window;

	return !window->stopping && atomic_load(&window->pages) > window->ceiling &&
	       !is_being_dropped_locked(file, &read->regions);
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
	window_read_waits(file, first_page, pages, &read);
	pthread_mutex_lock(&window->lock);
	while (is_to_wait_locked(file, &read) && slices--) {
		struct timespec until = window_time_in(STUCK_US);
		uint64_t runs = window->runs;

		if (pthread_cond_timedwait(&window->trimmed_some, &window->lock, &until) &&
		    window->runs == runs)
			break;
	}
	if (leave_slots(window, &read))
		look_again_locked(window);
	pthread_mutex_unlock(&window->lock);
}

static struct cds_hlist_head *place_of(const struct window *window, const struct window_file *file,
				       uint64_t index)
{
	return &window->places[window_hash_of(file, index) & window->places_mask];
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

/* Let others have the lock. */
static void give_way_locked(struct window *window)
{
	pthread_mutex_unlock(&window->lock);
	pthread_cond_signal(&window->wanted);
	pthread_mutex_lock(&window->lock);
}

/* Look for FILE's regions from INDEX to END one by one: there are more regions. */
static void close_by_index_locked(struct window_file *file, uint64_t index, uint64_t end)
{
	unsigned looks = 0;

	for (; index < end; index++) {
		struct region *region;

		fold_rcu_read_lock();
		region = window_find_region(file, index);
		fold_rcu_read_unlock();
		/* Nobody but trimmers frees regions, under the lock, once they are closed. */
		if (region)
			window_close_region_locked(file->window, region);
		if (++looks % CLOSE_BATCH == 0)
			give_way_locked(file->window);
	}
}

/* Look at each of FILE's regions there were when it began: those before INDEX go to the list's end,
 * so it does not matter what others do to the list meanwhile. */
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

/* Close FILE's regions from INDEX on. The lock is given up in between; what is noted meanwhile may
 * be left. */
static void close_file_locked(struct window_file *file, uint64_t index)
{
	uint64_t end = file->end;

	if (end <= index)
		return;
	file->end = index; /* what is noted meanwhile moves it on again */
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
	/* Its number may be another file's by the time a trimmer comes to it. */
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
	while (!cds_list_empty(&window->closing) || !cds_list_empty(&window->ready))
		(void)window_trim_locked(window);
	pthread_mutex_unlock(&window->lock);
	cds_lfht_destroy(window->regions, NULL);
	window_free_counted(window, window->places);
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
	count_closing(&window->ready, &count);
	count_closing(&window->held, &count);
	count.pages_said = atomic_load(&window->pages);
	count.closing_said = window->closing_pages;
	count.memory =
		bytes_of(window->places) + memory_of(&window->files) + memory_of(&window->leaving);
	count.memory_said = atomic_load_explicit(&window->memory, memory_order_relaxed);
	fold_rcu_read_unlock();
	count.trims = window->budget && !window->stopping;
	count.trimming = window->trimming || window->gathering || !cds_list_empty(&window->ready) ||
			 window->uncounting;
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
