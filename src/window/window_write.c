/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window_write.c - what a write leaves untrue in the kernel's cache is dropped before the answer
 *
 * The kernel copies what a client writes into its page, lets go of the page, and sends the WRITE. A
 * drop between the two takes the page away, and a READ before the WRITE is handled brings it back
 * as it was. Then the kernel caches old bytes that nothing corrects. We cannot see this happen, but
 * we know when it can have happened. The kernel has one buffered write of an inode under way at a
 * time, so only the first WRITE after a drop can have begun before the drop. The pages of such a
 * WRITE that a READ brought back are suspects. They are dropped once more, and then the WRITE is
 * answered. A client that has the answer must find no old page to read or to store into; a page
 * stored into would be written back whole. The same holds for pages of regions that are on their
 * way out: they are still there.
 *
 *   clock             counts drops; drop d is over when the clock says d
 *   file->drops       drops under way, with the regions that they concern
 *   file->dropped     the last drop of any of its pages; UNDER_WAY while one is under way
 *   file->over        the last drop that is over
 *   file->whole       the last drop that is over and was of the file as a whole
 *   file->written     the clock when its last buffered WRITE was handled: a later WRITE began after
 *                     all drops up to here
 *   region->dropped   the last drop of pages of it that is over, or of the file when the region was
 *                     made
 *   region->again     which pages that drop, or those drops, took
 *   region->suspects  which pages are to be dropped for a write
 *
 * So a drop marks the regions that it concerned and no others, once, when it is over.
 *
 * Suspects have a thread of their own, the dropper: an answer does not wait for what a trimmer
 * waits for. The dropper drops one region's suspects at a time.
 *
 * The kernel may hold a page of the WRITE locked until the answer: a page that it did not have and
 * got a part of. That page is not one that a READ brought back, but it may be noted as one, or lie
 * among those. Then the drop would wait for the answer. So the answer is given some time after the
 * drop has begun in any case, by another thread, the answerer. The time is counted from the drop's
 * beginning, not from the WRITE: a drop takes a tenth of a millisecond, but may come late if the
 * machine has too much to do. If the drop cannot even begin, what is in its way may be behind the
 * WRITE as well: that wait has a bound too.
 *
 * Direct writes drop pages by themselves, but asynchronous ones only before they are sent. So pages
 * that a READ brought back are dropped after each direct WRITE, and then it is answered. Of such a
 * WRITE no page is locked. If there is no window, the same is done for all writes: a trimmer drops
 * the whole file, if the kernel caches anything of it.
 */
#include "foldfs/clock.h"
#include "foldfs/rcu.h"
#include "window_internal.h"

#include <sys/resource.h>

/* ---- suspects ---- */

/* Suspect REGION's pages in MASK that a READ brought back after a drop since SINCE (0: all).
 * Returns whether there are any. */
static bool suspect_region_locked(struct region *region, uint64_t mask, uint64_t since)
{
	mask &= atomic_load(&region->bits) & window_dropped_since_locked(region, since);
	if (!mask)
		return false;
	region->suspects |= mask;
	if (cds_list_empty(&region->suspect))
		cds_list_add_tail(&region->suspect, &region->file->window->suspects);
	return true;
}

/* Suspect pages among FIRST..END, which were written. Returns whether there are any. Read side. */
static bool suspect_locked(struct window_file *file, uint64_t first, uint64_t end, uint64_t since)
{
	bool any = false;
	uint64_t page;

	for (page = first; page < end; page = (page | (REGION_PAGES - 1)) + 1) {
		uint64_t index = page >> REGION_SHIFT;
		uint64_t mask = window_mask_of(page, end);
		struct region *region = window_find_region(file, index);

		if (region)
			any |= suspect_region_locked(region, mask, since);
		for (region = window_next_closed_locked(file, index, NULL); region;
		     region = window_next_closed_locked(file, index, region))
			any |= suspect_region_locked(region, mask, since);
	}
	return any;
}

bool window_written(struct window_file *file, struct window_span span)
{
	struct window *window = file->window;
	uint64_t since = span.direct ? 0 : atomic_load(&file->written) + 1;
	bool any = false;

	if (!window->budget) {
		any = atomic_load(&file->cached);
		if (any)
			window_invalidate_soon(file);
		return any;
	}
	if (!span.direct && atomic_load(&file->dropped) < since)
		return false;
	pthread_mutex_lock(&window->lock);
	fold_rcu_read_lock();
	any = suspect_locked(file, span.first, span.first + span.pages, since);
	fold_rcu_read_unlock();
	if (!span.direct)
		atomic_store(&file->written, window->clock);
	pthread_mutex_unlock(&window->lock);
	if (any)
		pthread_cond_signal(&window->suspected);
	return any;
}

/* ---- answers ---- */

/* Whether pages in a region of this place wait to be dropped. Read side. */
static bool has_suspects_locked(struct window_file *file, uint64_t index)
{
	const struct region *region = window_find_region(file, index);
	bool any = region && region->suspects;

	for (region = window_next_closed_locked(file, index, NULL); region && !any;
	     region = window_next_closed_locked(file, index, region))
		any = region->suspects != 0;
	return any;
}

/* Whether no page that was found untrue in these regions of FILE still waits to be dropped. */
static bool is_dropped_locked(struct window_file *file, const struct window_range *regions)
{
	struct window *window = file->window;
	bool pending = false;
	uint64_t index;

	/* Without a window there are no regions, and a trimmer drops the file. */
	if (!window->budget)
		return cds_list_empty(&file->drops) && cds_list_empty(&file->stale);
	if (window_ranges_overlap(&window->redrop, regions))
		return false;
	fold_rcu_read_lock();
	for (index = regions->first; index < regions->end && !pending; index++)
		pending = has_suspects_locked(file, index);
	fold_rcu_read_unlock();
	return !pending;
}

/* Have ANSWER, whose `give` is set, wait for the drop of what window_written() has found untrue of
 * SPAN. False: there is nothing to wait for. */
static bool await_locked(struct window_file *file, struct window_span span,
			 struct window_patience patience, struct window_answer *answer)
{
	struct window *window = file->window;

	answer->file = file;
	answer->regions = window_regions_of(file, span.first, span.pages);
	answer->patience = patience;
	if (window->stopping || is_dropped_locked(file, &answer->regions))
		return false;
	file->kept++;
	cds_list_add_tail(&answer->link, &window->answers);
	if (patience.begin_us) {
		answer->until_ns =
			clock_now_ns() +
			NS_PER_US * (window_ranges_overlap(&window->redrop, &answer->regions)
					     ? patience.drop_us
					     : patience.begin_us);
		pthread_cond_signal(&window->answer_bounded);
	}
	return true;
}

bool window_answer_later(struct window_file *file, struct window_span span,
			 struct window_patience patience, struct window_answer *answer)
{
	struct window *window = file->window;
	bool later;

	pthread_mutex_lock(&window->lock);
	later = await_locked(file, span, patience, answer);
	pthread_mutex_unlock(&window->lock);
	return later;
}

/* A thread that waits for its answer to be given. */
struct waiting {
	struct window_answer answer;
	struct window *window;
	bool over; /* under window->lock */
};

static void end_wait(struct window_answer *answer)
{
	struct waiting *waiting = caa_container_of(answer, struct waiting, answer);
	struct window *window = waiting->window;

	pthread_mutex_lock(&window->lock);
	waiting->over = true;
	pthread_cond_broadcast(&window->answered);
	pthread_mutex_unlock(&window->lock);
}

void window_wait_for_drop(struct window_file *file, struct window_span span,
			  struct window_patience patience)
{
	struct window *window = file->window;
	struct waiting waiting = {.answer.give = end_wait, .window = window};

	pthread_mutex_lock(&window->lock);
	if (await_locked(file, span, patience, &waiting.answer))
		while (!waiting.over)
			pthread_cond_wait(&window->answered, &window->lock);
	pthread_mutex_unlock(&window->lock);
}

static bool is_overdue(const struct window_answer *answer, int64_t now_ns)
{
	return answer->patience.begin_us && now_ns >= answer->until_ns;
}

void window_give_answers_locked(struct window *window, bool all)
{
	const int64_t now_ns = clock_now_ns();
	struct window_answer *answer;
	struct window_answer *next;
	CDS_LIST_HEAD(given);

	cds_list_for_each_entry_safe (answer, next, &window->answers, link) {
		if (!all && !is_overdue(answer, now_ns) &&
		    !is_dropped_locked(answer->file, &answer->regions))
			continue;
		cds_list_del(&answer->link);
		cds_list_add_tail(&answer->link, &given);
		answer->file->kept--;
		window_free_file_if_done_locked(answer->file);
	}
	if (cds_list_empty(&given))
		return;
	pthread_mutex_unlock(&window->lock);
	cds_list_for_each_entry_safe (answer, next, &given, link)
		answer->give(answer);
	pthread_mutex_lock(&window->lock);
}

/* The answer that is overdue next; NULL: there is none. */
static const struct window_answer *next_bounded_locked(const struct window *window)
{
	const struct window_answer *next = NULL;
	const struct window_answer *answer;

	cds_list_for_each_entry (answer, &window->answers, link)
		if (answer->patience.begin_us && (!next || answer->until_ns < next->until_ns))
			next = answer;
	return next;
}

void *window_run_answerer(void *argument)
{
	struct window *window = argument;
	const struct window_answer *next;
	struct timespec until;

	fold_rcu_register();
	pthread_mutex_lock(&window->lock);
	while (!window->stopping) {
		next = next_bounded_locked(window);
		if (next) {
			until = clock_at(next->until_ns);
			(void)pthread_cond_timedwait(&window->answer_bounded, &window->lock,
						     &until);
		} else {
			pthread_cond_wait(&window->answer_bounded, &window->lock);
		}
		window_give_answers_locked(window, false);
	}
	pthread_mutex_unlock(&window->lock);
	return NULL;
}

/* ---- the dropper ---- */

/* The next region whose suspects can be dropped. NULL: there is none. A region that is held by a
 * READ that waits is left until that READ goes on. A region of a forgotten node has no suspects any
 * more: the node's number may be another's. */
static struct region *next_suspect_locked(struct window *window)
{
	struct region *region;
	struct region *next;

	cds_list_for_each_entry_safe (region, next, &window->suspects, suspect) {
		if (!region->file->forgotten && window_is_held_locked(window, region))
			continue;
		cds_list_del_init(&region->suspect);
		if (!region->file->forgotten)
			return region;
		region->suspects = 0;
	}
	return NULL;
}

/* A drop of what these answers wait for has begun: from now on they wait for that alone. */
static void bound_answers_locked(struct window *window)
{
	struct window_answer *answer;

	cds_list_for_each_entry (answer, &window->answers, link)
		if (answer->patience.begin_us &&
		    window_ranges_overlap(&window->redrop, &answer->regions))
			answer->until_ns = clock_now_ns() + NS_PER_US * answer->patience.drop_us;
	pthread_cond_signal(&window->answer_bounded);
}

/* Drop the suspects of REGION, with all that lies between the first and the last: there is rarely
 * more than one, and what lies between comes back. They are uncounted first, so that what a READ
 * brings from now on is counted. Returns how many were uncounted. The lock is given up meanwhile,
 * and REGION may be gone after that. */
static uint64_t drop_suspects_locked(struct window *window, struct region *region)
{
	struct window_file *file = region->file;
	uint64_t mask = region->suspects;
	unsigned first = (unsigned)__builtin_ctzll(mask);
	unsigned end = REGION_PAGES - (unsigned)__builtin_clzll(mask);
	uint64_t page = (region->index << REGION_SHIFT) + first;
	uint64_t uncounted =
		(uint64_t)__builtin_popcountll(atomic_fetch_and(&region->bits, ~mask) & mask);
	struct window_drop drop = {
		.file = file,
		.regions = {.file = file, .first = region->index, .end = region->index + 1},
		.pages = mask,
	};

	region->suspects = 0;
	window->redrop = drop.regions;
	window->uncounting |= uncounted != 0;
	window_drop_begins_locked(&drop);
	bound_answers_locked(window);
	pthread_mutex_unlock(&window->lock);
	/* Failure does not matter: the node is gone (ENOENT), or the connection. */
	(void)window->invalidate(window->context, file->node, (off_t)(page << FOLD_PAGE_SHIFT),
				 (off_t)((uint64_t)(end - first) << FOLD_PAGE_SHIFT));
	pthread_mutex_lock(&window->lock);
	window->redrop.file = NULL;
	window_drop_ends_locked(&drop);
	window_free_file_if_done_locked(file);
	window_give_answers_locked(window, false);
	return uncounted;
}

/* UNCOUNTED pages have lost their bits. The threads that set these bits may not have counted them
 * yet. */
static void uncount_locked(struct window *window, uint64_t uncounted)
{
	pthread_mutex_unlock(&window->lock);
	fold_rcu_synchronize();
	atomic_fetch_sub(&window->pages, uncounted);
	pthread_mutex_lock(&window->lock);
	window->uncounting = false;
	pthread_cond_broadcast(&window->trimmed_some);
	/* A trimmer may have slept because there were more pages counted than bits to take. */
	pthread_cond_signal(&window->wanted);
}

void *window_run_dropper(void *argument)
{
	struct window *window = argument;
	uint64_t uncounted = 0;
	struct region *region;

	/* With the trimmers' priority. */
	(void)setpriority(PRIO_PROCESS, 0, TRIMMER_NICE);
	fold_rcu_register();
	pthread_mutex_lock(&window->lock);
	while (!window->stopping) {
		region = next_suspect_locked(window);
		if (region) {
			uncounted += drop_suspects_locked(window, region);
		} else if (uncounted) {
			uncount_locked(window, uncounted);
			uncounted = 0;
		} else {
			pthread_cond_wait(&window->suspected, &window->lock);
		}
	}
	if (uncounted)
		uncount_locked(window, uncounted);
	pthread_mutex_unlock(&window->lock);
	return NULL;
}
