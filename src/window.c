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
 * it are in a read side. After a grace period its bits are final.
 *
 * The trimmer closes the oldest regions when there are more bytes than the budget, waits for the
 * grace period, takes their bits off the count and has the kernel drop the pages, neighbours in one
 * call. It holds no lock while it does so, and no request waits for it.
 *
 * A file is freed when its node is forgotten and its last region gone.
 *
 * Writes. The kernel copies what a client writes into its page, lets go of the page, and sends the
 * WRITE. A drop between the two takes the page away, and a READ before the WRITE is handled brings
 * it back as it was: the kernel then caches old bytes that nothing corrects. We cannot see it
 * happen, but when it can have happened: the kernel has one buffered write of an inode under way at
 * a time, so only the first WRITE after a drop can have begun before it. Such a WRITE (a suspect)
 * has its pages dropped once more after it was answered, if a READ brought them back. For a moment
 * the old bytes can be read; to drop them before the answer is not possible, for the kernel may
 * hold these very pages until then.
 *
 *   clock             counts drops; drop d is over when the clock says d
 *   file->dropped     the last drop of any of its pages; UNDER_WAY while one is
 *   file->written     the clock when its last buffered WRITE was handled: a later one began after
 * all drops up to here region->dropped   the last drop of pages of it, or of the file when the
 * region was made region->again     which pages those were
 *
 * O_DIRECT writes drop pages by themselves, but asynchronous ones only before they are sent; so
 * pages that a READ brought back are dropped after each. Where there is no window the same holds
 * for all writes, and the whole file is dropped if the kernel caches anything of it.
 */
#include "foldfs/window.h"

#include "foldfs/rcu.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/list.h>
#include <urcu/rculfhash.h>

#define REGION_SHIFT 6u
#define REGION_PAGES (1u << REGION_SHIFT)
#define REGION_BYTES ((uint64_t)REGION_PAGES << FOLD_PAGE_SHIFT)
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

struct window {
	uint64_t budget;
	window_invalidate_fn invalidate;
	void *context;
	struct cds_lfht *regions; /* additions and removals under lock */
	_Atomic uint64_t pages;   /* bits set */
	_Atomic uint64_t trimmed; /* bytes; relaxed */
	_Atomic uint64_t memory;  /* bytes of regions and files; relaxed */
	pthread_mutex_t lock;
	pthread_cond_t wanted;         /* the trimmer sleeps here */
	struct cds_list_head queue;    /* regions, oldest first; under lock */
	struct cds_list_head closing;  /* regions; under lock */
	uint64_t closing_pages;        /* of regions that are closing, still in pages; under lock */
	struct cds_list_head files;    /* all, but forgotten ones; under lock */
	struct cds_list_head stale;    /* files to invalidate as a whole; under lock */
	struct cds_list_head suspects; /* regions with suspect pages; under lock */
	uint64_t clock;                /* of drops; under lock */
	bool stopping;                 /* under lock */
	bool trimming;                 /* the trimmer has regions in hand; under lock */
	pthread_mutex_t stop_lock;     /* before lock */
	bool running;                  /* under stop_lock */
	pthread_t trimmer;             /* under stop_lock */
};

struct window_file {
	struct window *window;
	uint64_t node;                /* constant */
	struct cds_list_head regions; /* under window->lock */
	struct cds_list_head link;    /* in window->files, or empty; under window->lock */
	struct cds_list_head stale;   /* in window->stale, or empty; under window->lock */
	bool forgotten;               /* under window->lock */
	unsigned dropping;            /* uses of the trimmer, which keep it; under window->lock */
	atomic_bool
		cached; /* without a window: the kernel caches something of it; never goes back */
	_Atomic uint64_t dropped; /* changed under window->lock */
	_Atomic uint64_t written; /* the same */
	_Atomic uint64_t wanted;  /* the edition that a drop was last asked for; the same */
	_Atomic uint64_t shown;   /* the edition that the last drop left; the same */
	uint64_t dropping_for;    /* the edition that a drop under way is for; the trimmer's */
};

struct region {
	struct cds_lfht_node node;
	struct window_file *file; /* constant */
	uint64_t index;           /* constant; in regions */
	_Atomic uint64_t bits;
	bool forgotten;               /* the file's, when the trimmer took it; the trimmer's */
	uint64_t closing_pages;       /* bits when it was closed; under window->lock */
	struct cds_list_head link;    /* in the queue or in closing; under window->lock */
	struct cds_list_head in_file; /* under window->lock */
	struct cds_list_head suspect; /* in window->suspects, or empty; under window->lock */
	uint64_t suspects;            /* pages to drop once more; under window->lock */
	uint64_t dropped;             /* under window->lock */
	uint64_t again;               /* under window->lock */
};

struct region_key {
	const struct window_file *file;
	uint64_t index;
};

errint_t window_new(uint64_t budget_bytes, window_invalidate_fn invalidate, void *context,
		    struct window **ret_window)
{
	struct window *window = calloc(1, sizeof(*window));

	if (!window)
		return -ENOMEM;
	window->budget = budget_bytes;
	window->invalidate = invalidate;
	window->context = context;
	CDS_INIT_LIST_HEAD(&window->queue);
	CDS_INIT_LIST_HEAD(&window->closing);
	CDS_INIT_LIST_HEAD(&window->files);
	CDS_INIT_LIST_HEAD(&window->stale);
	CDS_INIT_LIST_HEAD(&window->suspects);
	pthread_mutex_init(&window->lock, NULL);
	pthread_mutex_init(&window->stop_lock, NULL);
	pthread_cond_init(&window->wanted, NULL);
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

static void count_memory(struct window *window, void *block)
{
	atomic_fetch_add_explicit(&window->memory, malloc_usable_size(block) + sizeof(size_t),
				  memory_order_relaxed);
}

static void free_counted(struct window *window, void *block)
{
	atomic_fetch_sub_explicit(&window->memory, malloc_usable_size(block) + sizeof(size_t),
				  memory_order_relaxed);
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
	CDS_INIT_LIST_HEAD(&file->stale);
	count_memory(window, file);
	pthread_mutex_lock(&window->lock);
	cds_list_add_tail(&file->link, &window->files);
	pthread_mutex_unlock(&window->lock);
	*ret_file = file;
	return 0;
}

static unsigned long hash_of(const struct window_file *file, uint64_t index)
{
	/* Fibonacci hashing (Knuth, TAOCP 3, 6.4) of the two. */
	return (unsigned long)((((uintptr_t)file >> 4) + (index << 32 | index >> 32)) *
				       UINT64_C(11400714819323198485) >>
			       7);
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
static struct region *find(struct window_file *file, uint64_t index)
{
	struct region_key key = {.file = file, .index = index};
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	cds_lfht_lookup(file->window->regions, hash_of(file, index), match_region, &key, &iter);
	node = cds_lfht_iter_get_node(&iter);
	return node ? region_of(node) : NULL;
}

/* The region, made and queued if it is not there. Read side. NULL: no memory. */
static struct region *find_or_make(struct window_file *file, uint64_t index)
{
	struct window *window = file->window;
	struct region *region = find(file, index);
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
	region = find(file, index);
	if (!region) {
		FOLD_TSAN_RELEASE(&made->node);
		cds_lfht_add(window->regions, hash_of(file, index), &made->node);
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

static uint64_t budget_pages(const struct window *window)
{
	return window->budget >> FOLD_PAGE_SHIFT;
}

/* The pages of PAGE's region from PAGE on, before END. */
static uint64_t mask_of(uint64_t page, uint64_t end)
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

	if (!window->budget) {
		if (!atomic_load_explicit(&file->cached, memory_order_relaxed))
			atomic_store(&file->cached, true);
		return;
	}
	fold_rcu_read_lock();
	while (page < end) {
		uint64_t mask = mask_of(page, end);
		struct region *region = find_or_make(file, page >> REGION_SHIFT);

		if (region && (~atomic_load_explicit(&region->bits, memory_order_relaxed) & mask))
			added += (uint64_t)__builtin_popcountll(
				mask & ~atomic_fetch_or(&region->bits, mask));
		page = (page | (REGION_PAGES - 1)) + 1;
	}
	/* Within the read side: the trimmer takes no bits off the count before they are on it. */
	before = added ? atomic_fetch_add(&window->pages, added) : 0;
	fold_rcu_read_unlock();
	if (added && before + added > budget_pages(window) && before <= budget_pages(window))
		wake(window);
}

/* Pages FIRST..END were written: those that a READ brought back after a drop since SINCE (0: all)
 * are suspects. Read side. */
static bool suspect_locked(struct window_file *file, uint64_t first, uint64_t end, uint64_t since)
{
	struct window *window = file->window;
	bool any = false;
	uint64_t page;

	for (page = first; page < end; page = (page | (REGION_PAGES - 1)) + 1) {
		struct region *region = find(file, page >> REGION_SHIFT);
		uint64_t mask = mask_of(page, end);

		if (!region || region->dropped < since)
			continue;
		mask &= atomic_load(&region->bits);
		if (since)
			mask &= region->again;
		if (!mask)
			continue;
		region->suspects |= mask;
		if (cds_list_empty(&region->suspect))
			cds_list_add_tail(&region->suspect, &window->suspects);
		any = true;
	}
	return any;
}

void window_written(struct window_file *file, uint64_t first_page, unsigned pages, bool direct)
{
	struct window *window = file->window;
	uint64_t since = direct ? 0 : atomic_load(&file->written) + 1;
	bool any = false;

	if (!window->budget) {
		if (atomic_load(&file->cached))
			window_invalidate_soon(file);
		return;
	}
	if (!direct && atomic_load(&file->dropped) < since)
		return;
	pthread_mutex_lock(&window->lock);
	fold_rcu_read_lock();
	any = suspect_locked(file, first_page, first_page + pages, since);
	fold_rcu_read_unlock();
	if (!direct)
		atomic_store(&file->written, window->clock);
	pthread_mutex_unlock(&window->lock);
	if (any)
		pthread_cond_signal(&window->wanted);
}

/* Take REGION from the noted to the closing ones. Read side for the table. */
static void close_locked(struct window *window, struct region *region)
{
	fold_rcu_read_lock();
	cds_lfht_del(window->regions, &region->node);
	fold_rcu_read_unlock();
	cds_list_del(&region->link);
	cds_list_del_init(&region->suspect);
	cds_list_add_tail(&region->link, &window->closing);
	region->closing_pages = (uint64_t)__builtin_popcountll(
		atomic_load_explicit(&region->bits, memory_order_relaxed));
	window->closing_pages += region->closing_pages;
}

/* Close FILE's regions from INDEX on. A region that is closing already stands in the list too. */
static void close_file_locked(struct window_file *file, uint64_t index)
{
	struct region *region;

	cds_list_for_each_entry (region, &file->regions, in_file)
		if (region->index >= index && !cds_lfht_is_node_deleted(&region->node))
			close_locked(file->window, region);
}

static void free_file_if_done_locked(struct window_file *file)
{
	if (!file->forgotten || file->dropping || !cds_list_empty(&file->regions))
		return;
	cds_list_del(&file->stale);
	free_counted(file->window, file);
}

void window_file_forget(struct window_file *file)
{
	struct window *window;

	if (!file)
		return;
	window = file->window;
	pthread_mutex_lock(&window->lock);
	file->forgotten = true;
	/* Its number may be another file's by the time the trimmer comes to it. */
	cds_list_del_init(&file->stale);
	cds_list_del_init(&file->link);
	close_file_locked(file, 0);
	free_file_if_done_locked(file);
	pthread_mutex_unlock(&window->lock);
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

void window_invalidate_all_soon(struct window *window)
{
	struct window_file *file;

	pthread_mutex_lock(&window->lock);
	cds_list_for_each_entry (file, &window->files, link)
		invalidate_soon_locked(file);
	pthread_mutex_unlock(&window->lock);
	pthread_cond_signal(&window->wanted);
}

/* Past the budget, close the oldest regions until what stays is a sixteenth below it, so that
 * trimming comes in batches. */
static void close_oldest_locked(struct window *window)
{
	uint64_t budget = budget_pages(window);
	uint64_t slack = budget / 16 > SLACK_PAGES ? budget / 16 : SLACK_PAGES;
	uint64_t keep = budget - (slack < budget / 4 ? slack : budget / 4);
	uint64_t pages = atomic_load(&window->pages);
	unsigned regions = 0;

	if (pages <= budget + window->closing_pages)
		return;
	while (pages > keep + window->closing_pages && regions++ < TRIM_BATCH &&
	       !cds_list_empty(&window->queue))
		close_locked(window, cds_list_first_entry(&window->queue, struct region, link));
}

static int by_place(const void *a, const void *b)
{
	const struct region *left = *(struct region *const *)a;
	const struct region *right = *(struct region *const *)b;

	if (left->file->node != right->file->node)
		return left->file->node < right->file->node ? -1 : 1;
	return left->index < right->index ? -1 : left->index > right->index;
}

/* Have the kernel drop regions[0..count], in order of place; neighbours together. No lock held. */
static void invalidate_regions(struct window *window, struct region *regions[], unsigned count)
{
	unsigned i;
	unsigned end;

	for (i = 0; i < count; i = end) {
		for (end = i + 1; end < count && end - i < RUN_REGIONS; end++)
			if (regions[end]->file != regions[i]->file ||
			    regions[end]->index != regions[i]->index + (end - i))
				break;
		/* Failure is of no consequence: the node is gone (ENOENT), or the connection. */
		if (!regions[i]->forgotten)
			(void)window->invalidate(window->context, regions[i]->file->node,
						 (off_t)(regions[i]->index * REGION_BYTES),
						 (off_t)((end - i) * REGION_BYTES));
	}
}

/* Finish regions that were closed before a grace period: uncount, invalidate, free. */
static void finish(struct window *window, struct region *regions[], unsigned count)
{
	uint64_t pages = 0;
	uint64_t trimmed = 0;
	unsigned i;

	for (i = 0; i < count; i++) {
		uint64_t noted = (uint64_t)__builtin_popcountll(atomic_load(&regions[i]->bits));

		pages += noted;
		trimmed += regions[i]->forgotten ? 0 : noted;
	}
	qsort(regions, count, sizeof(regions[0]), by_place);
	invalidate_regions(window, regions, count);
	atomic_fetch_sub(&window->pages, pages);
	atomic_fetch_add_explicit(&window->trimmed, trimmed << FOLD_PAGE_SHIFT,
				  memory_order_relaxed);
	pthread_mutex_lock(&window->lock);
	for (i = 0; i < count; i++) {
		struct window_file *file = regions[i]->file;

		cds_list_del(&regions[i]->in_file);
		window->closing_pages -= regions[i]->closing_pages;
		free_counted(window, regions[i]);
		free_file_if_done_locked(file);
	}
	pthread_mutex_unlock(&window->lock);
}

/* What one round of the trimmer drops. */
struct round {
	struct region *regions[TRIM_BATCH];
	unsigned count;
	struct region *suspects[TRIM_BATCH];
	uint64_t masks[TRIM_BATCH]; /* of suspects: their pages */
	unsigned suspect_count;
	struct window_file *stale[STALE_BATCH];
	unsigned stale_count;
	struct window_file *files[2 * TRIM_BATCH + STALE_BATCH]; /* of all of these */
	unsigned file_count;
};

/* Pages of FILE are about to be dropped. */
static void drop_begins_locked(struct round *round, struct window_file *file)
{
	file->dropping++;
	atomic_store(&file->dropped, UNDER_WAY);
	round->files[round->file_count++] = file;
}

/* PAGES (a mask) of REGION are about to be dropped. */
static void region_drop_begins_locked(struct region *region, uint64_t pages)
{
	/* What was dropped before the last write is of no interest any more. */
	if (region->dropped <= atomic_load(&region->file->written))
		region->again = 0;
	region->again |= pages;
	region->dropped = UNDER_WAY;
}

static void drops_end_locked(struct window *window, struct round *round)
{
	struct region *region;
	unsigned i;

	window->clock++;
	for (i = 0; i < round->stale_count; i++)
		atomic_store(&round->stale[i]->shown, round->stale[i]->dropping_for);
	for (i = 0; i < round->file_count; i++) {
		struct window_file *file = round->files[i];

		if (--file->dropping)
			continue;
		atomic_store(&file->dropped, window->clock);
		cds_list_for_each_entry (region, &file->regions, in_file)
			if (region->dropped == UNDER_WAY)
				region->dropped = window->clock;
		free_file_if_done_locked(file);
	}
}

static void take_closing_locked(struct window *window, struct round *round)
{
	while (round->count < TRIM_BATCH && !cds_list_empty(&window->closing)) {
		struct region *region = cds_list_first_entry(&window->closing, struct region, link);
		struct region *again;

		region->forgotten = region->file->forgotten;
		cds_list_del(&region->link);
		round->regions[round->count++] = region;
		drop_begins_locked(round, region->file);
		fold_rcu_read_lock();
		again = find(region->file, region->index);
		fold_rcu_read_unlock();
		if (again)
			region_drop_begins_locked(again, UINT64_MAX);
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
		drop_begins_locked(round, file);
		cds_list_for_each_entry (region, &file->regions, in_file)
			region_drop_begins_locked(region, UINT64_MAX);
	}
}

/* Suspect pages. They are uncounted first, so that what a READ brings from now on is counted. */
static uint64_t take_suspects_locked(struct window *window, struct round *round)
{
	uint64_t uncounted = 0;

	while (round->suspect_count < TRIM_BATCH && !cds_list_empty(&window->suspects)) {
		struct region *region =
			cds_list_first_entry(&window->suspects, struct region, suspect);
		uint64_t mask = region->suspects;

		cds_list_del_init(&region->suspect);
		region->suspects = 0;
		round->suspects[round->suspect_count] = region;
		round->masks[round->suspect_count++] = mask;
		uncounted += (uint64_t)__builtin_popcountll(atomic_fetch_and(&region->bits, ~mask) &
							    mask);
		drop_begins_locked(round, region->file);
		region_drop_begins_locked(region, mask);
	}
	return uncounted;
}

/* Each from its first to its last page: rarely more than one, and what lies between comes back. */
static void drop_suspects(struct window *window, const struct round *round)
{
	unsigned i;

	for (i = 0; i < round->suspect_count; i++) {
		const struct region *region = round->suspects[i];
		unsigned first = (unsigned)__builtin_ctzll(round->masks[i]);
		unsigned end = REGION_PAGES - (unsigned)__builtin_clzll(round->masks[i]);
		uint64_t page = (region->index << REGION_SHIFT) + first;

		(void)window->invalidate(window->context, region->file->node,
					 (off_t)(page << FOLD_PAGE_SHIFT),
					 (off_t)((uint64_t)(end - first) << FOLD_PAGE_SHIFT));
	}
}

static bool has_work_locked(struct window *window)
{
	return window->stopping || !cds_list_empty(&window->closing) ||
	       !cds_list_empty(&window->stale) || !cds_list_empty(&window->suspects) ||
	       (atomic_load(&window->pages) > budget_pages(window) + window->closing_pages &&
		!cds_list_empty(&window->queue));
}

/* One round of the trimmer. The lock is given up for all that may take time. Regions and files of
 * the round stay: nobody but the trimmer frees regions, and `dropping` keeps files. */
static void trim_locked(struct window *window)
{
	struct round round = {0};
	uint64_t uncounted;
	unsigned i;

	close_oldest_locked(window);
	take_stale_locked(window, &round);
	take_closing_locked(window, &round);
	uncounted = take_suspects_locked(window, &round);
	pthread_mutex_unlock(&window->lock);
	drop_suspects(window, &round);
	for (i = 0; i < round.stale_count; i++)
		(void)window->invalidate(window->context, round.stale[i]->node, 0, 0);
	if (round.count || uncounted)
		fold_rcu_synchronize();
	atomic_fetch_sub(&window->pages, uncounted);
	if (round.count)
		finish(window, round.regions, round.count);
	pthread_mutex_lock(&window->lock);
	drops_end_locked(window, &round);
}

static void *trim(void *argument)
{
	struct window *window = argument;

	fold_rcu_register();
	pthread_mutex_lock(&window->lock);
	while (!window->stopping) {
		if (has_work_locked(window))
			trim_locked(window);
		else
			pthread_cond_wait(&window->wanted, &window->lock);
	}
	pthread_mutex_unlock(&window->lock);
	return NULL;
}

errint_t window_start(struct window *window)
{
	int error = pthread_create(&window->trimmer, NULL, trim, window);

	window->running = !error;
	return -error;
}

void window_stop(struct window *window)
{
	pthread_mutex_lock(&window->lock);
	window->stopping = true;
	pthread_mutex_unlock(&window->lock);
	pthread_cond_signal(&window->wanted);
	pthread_mutex_lock(&window->stop_lock);
	if (window->running)
		pthread_join(window->trimmer, NULL);
	window->running = false;
	pthread_mutex_unlock(&window->stop_lock);
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
		trim_locked(window);
	pthread_mutex_unlock(&window->lock);
	cds_lfht_destroy(window->regions, NULL);
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

void window_count(struct window *window, struct window_count *ret_count)
{
	struct window_count count = {.budget = budget_pages(window)};
	struct region *region;

	pthread_mutex_lock(&window->lock);
	fold_rcu_read_lock();
	cds_list_for_each_entry (region, &window->queue, link) {
		count.pages += noted_in(region);
		count.misplaced += find(region->file, region->index) != region;
	}
	cds_list_for_each_entry (region, &window->closing, link) {
		count.pages += noted_in(region);
		count.closing += region->closing_pages;
		count.misplaced += find(region->file, region->index) == region;
	}
	count.pages_said = atomic_load(&window->pages);
	count.closing_said = window->closing_pages;
	fold_rcu_read_unlock();
	count.trims = window->budget && !window->stopping;
	count.trimming = window->trimming;
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
