/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window.c - the kernel's page cache for this mount, held to a budget
 *
 * A region is 64 pages of one node, with a bit for each page that the kernel may hold. Regions are
 * found through a cds_lfht and live as long as they have bits: the first note of a region makes it,
 * the trimmer takes it out again. Bits are set without a lock, within an RCU read side.
 *
 *   noted    in the table, in the queue, in its file's list
 *   closing  out of the table, in window->closing: a note does not find it any more; threads that
 *            had found it are in a read side
 *   ready    a grace period later, in window->ready: its bits are final
 *   held     as ready, but in window->held: the kernel has pages of it locked for a READ that
 *            waits. When that READ goes on, the region is ready again.
 *
 * From closing on a region is in window->places, where writes look for pages that are on their way
 * out. A region's pages may also be dropped by themselves, as suspects of a write: window_write.c.
 *
 * When there are more bytes than the budget, trimmers close the oldest regions and wait for the
 * grace period. Then they have the kernel drop the pages, neighbours in one call, and take their
 * bits off the count. They hold no lock while they wait, and a request waits for them only for a
 * moment (window_wait_for_room).
 *
 * What one hold of the lock does is bounded, however large the window, a file or their notes have
 * become: CLOSE_BATCH regions are closed, TRIM_BATCH gathered, a run of them dropped.
 */
#include "foldfs/clock.h"
#include "foldfs/rcu.h"
#include "window_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <urcu/list.h>
#include <urcu/rculfhash.h>

/* Bytes that the window may be above a small budget before reads wait. */
#define SLACK_BYTES ((uint64_t)4 << 20)
/* A trimmer that takes longer for one call waits for a page. (A call takes 0.1 ms for each MiB.)
 * When reads went on waiting for such a trimmer, a storm of booting clones lost a third of its
 * speed, because that page was behind those reads. With a quarter of this value the window grows to
 * twice as much beside mapped writes. */
#define STUCK_US 200u

/* Places of regions that are on their way out: one for every PLACE_PAGES pages of the budget, in
 * bounds. */
#define PLACE_PAGES 16u
#define PLACES_MIN  64u
#define PLACES_MAX  65536u

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
	clock_cond_init(&window->trimmed_some);
	clock_cond_init(&window->answer_bounded);
}

static void set_budget(struct window *window, uint64_t bytes)
{
	uint64_t slack = bytes / 4 > SLACK_BYTES ? bytes / 4 : SLACK_BYTES;

	atomic_store_explicit(&window->budget, bytes, memory_order_relaxed);
	atomic_store_explicit(&window->ceiling, (bytes + slack) >> FOLD_PAGE_SHIFT,
			      memory_order_relaxed);
}

static uint64_t places_for(uint64_t budget_bytes)
{
	uint64_t places = PLACES_MIN;

	while (places < PLACES_MAX && places * PLACE_PAGES < budget_bytes >> FOLD_PAGE_SHIFT)
		places *= 2;
	return places;
}

static errint_t make_tables(struct window *window)
{
	uint64_t places = places_for(window->budget);

	window->places_mask = places - 1;
	window->places = calloc(places, sizeof(*window->places));
	if (!window->places)
		return -ENOMEM;
	window_count_memory(window, window->places);
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
	set_budget(window, budget_bytes);
	window->invalidate = invalidate;
	window->context = context;
	window->trimmers_most = TRIMMERS;
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

void window_set_budget(struct window *window, uint64_t budget_bytes)
{
	uint64_t count = places_for(budget_bytes);
	/* Without memory for others, there are as many places as before, and longer chains. */
	struct cds_hlist_head *places = calloc(count, sizeof(*places));

	pthread_mutex_lock(&window->lock);
	set_budget(window, budget_bytes);
	if (places) {
		window_count_memory(window, places);
		places = window_move_places_locked(window, places, count - 1);
	}
	pthread_mutex_unlock(&window->lock);
	if (places)
		window_free_counted(window, places);
	/* There may be more to trim, or room for those who wait. */
	pthread_cond_signal(&window->wanted);
	pthread_cond_broadcast(&window->trimmed_some);
}

/* The region; made and queued if it is not there. Read side. NULL: no memory. */
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
		/* It is not known any more which of its pages that drop took. */
		made->dropped = file->over;
		made->again = UINT64_MAX;
		window_count_memory(window, made);
	}
	pthread_mutex_unlock(&window->lock);
	if (!region)
		return made;
	free(made);
	return region;
}

static void wake(struct window *window)
{
	/* Taking the lock makes sure that no trimmer is between its test and its sleep. */
	pthread_mutex_lock(&window->lock);
	pthread_mutex_unlock(&window->lock);
	pthread_cond_signal(&window->wanted);
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
	/* Within the read side: so the trimmer takes no bits off the count before they are on
	 * it. */
	before = added ? atomic_fetch_add(&window->pages, added) : 0;
	fold_rcu_read_unlock();
	/* The last trimmer that went to sleep had found no more than the limit. A thread that
	 * lowers the limit looks again. */
	limit = added ? window_limit_pages(window) : 0;
	if (added && before + added > limit && before <= limit)
		wake(window);
}

void window_read_waits(struct window_file *file, uint64_t first_page, unsigned pages,
		       struct window_read *read)
{
	uint64_t index;

	read->regions = window_regions_of(file, first_page, pages);
	for (index = read->regions.first; index < read->regions.end; index++)
		atomic_fetch_add(window_waiting_slot(file->window, file, index), 1);
}

/* A READ does not wait any more. Returns whether it was the last one that something was left for. A
 * thread that left something has set SLOT_LEFT before it looked at the slot for the last time. It
 * puts what it left into the list before it gives the lock back; so the caller is to take the lock
 * now. */
static bool leave_slots(struct window *window, const struct window_read *read)
{
	bool last = false;
	uint64_t index;

	for (index = read->regions.first; index < read->regions.end; index++) {
		_Atomic uint32_t *slot = window_waiting_slot(window, read->regions.file, index);

		if (atomic_fetch_sub(slot, 1) == (SLOT_LEFT | 1)) {
			atomic_fetch_and(slot, ~SLOT_LEFT);
			last = true;
		}
	}
	return last;
}

/* Make all that was left be looked at again. */
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

static bool is_being_dropped_locked(const struct window_file *file,
				    const struct window_range *regions)
{
	const struct window_drop *drop;

	cds_list_for_each_entry (drop, &file->drops, link)
		if (window_ranges_overlap(&drop->regions, regions))
			return true;
	return false;
}

/* Whether a READ of these regions of FILE is to wait: there is no room, and no trimmer waits for
 * such a READ. */
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
		struct timespec until = clock_at(clock_now_ns() + STUCK_US * NS_PER_US);
		uint64_t runs = window->runs;

		if (pthread_cond_timedwait(&window->trimmed_some, &window->lock, &until) &&
		    window->runs == runs)
			break;
	}
	if (leave_slots(window, &read))
		look_again_locked(window);
	pthread_mutex_unlock(&window->lock);
}

void window_read_begin(struct window_file *file, struct window_span span, unsigned microseconds,
		       struct window_read *ret_read)
{
	ret_read->file = file;
	ret_read->window = file->window;
	ret_read->span = span;
	ret_read->waits = false;
	if (span.direct || !span.pages)
		return;
	window_wait_for_room(file, span.first, span.pages, microseconds);
	window_note(file, span.first, span.pages);
}

void window_read_misses(struct window_read *read)
{
	window_read_waits(read->file, read->span.first, read->span.pages, read);
	read->waits = true;
}

void window_read_end(struct window_read *read)
{
	if (read->waits)
		window_read_goes_on(read->window, read);
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
	/* Every file was forgotten. Finish what they left behind. */
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

/* Count a list of regions that are on their way out. Under the lock, read side. */
static void count_closing(const struct cds_list_head *list, struct window_count *count)
{
	struct region *region;

	cds_list_for_each_entry (region, list, link) {
		count->pages += noted_in(region);
		count->closing += region->closing_pages;
		count->misplaced += window_find_region(region->file, region->index) == region;
	}
}

/* Memory of a list of files, with all their regions. Under the lock. */
static uint64_t memory_of(const struct cds_list_head *files)
{
	struct window_file *file;
	struct region *region;
	uint64_t bytes = 0;

	cds_list_for_each_entry (file, files, link) {
		bytes += window_bytes_of(file);
		cds_list_for_each_entry (region, &file->regions, in_file)
			bytes += window_bytes_of(region);
		cds_list_for_each_entry (region, &file->closing, in_file)
			bytes += window_bytes_of(region);
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
	count.memory = window_bytes_of(window->places) + memory_of(&window->files) +
		       memory_of(&window->leaving);
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
