/* SPDX-License-Identifier: Apache-2.0 */
/* window_internal.h - the regions behind window.h: for the window*.c files */
#ifndef FOLDFS_WINDOW_INTERNAL_H
#define FOLDFS_WINDOW_INTERNAL_H

#include "foldfs/window.h"

#include <pthread.h>
#include <stdatomic.h>

#include <urcu/hlist.h>
#include <urcu/list.h>
#include <urcu/rculfhash.h>

#define REGION_SHIFT 6u
#define REGION_PAGES (1u << REGION_SHIFT)
#define REGION_BYTES ((uint64_t)REGION_PAGES << FOLD_PAGE_SHIFT)
/* Nice value of the threads that have the kernel drop pages (setpriority(2), for one thread alone).
 * A plain user may not set it; then these threads have their fair share. */
#define TRIMMER_NICE (-10)
/* Number of trimmers. Each waits for the kernel, which waits for write-back or for a READ. What
 * they do at once bounds how far the window goes past its budget. */
#define TRIMMERS 16u
/* Counters of READs that wait, by a hash of the region. */
#define WAITING_SLOTS 4096u
#define SLOT_LEFT     (UINT32_C(1) << 31)

struct window {
	/* Both changed under lock, and read by any thread: a note or a READ that still goes by the
	 * old one is as if it had come before the change. 0 stays 0. */
	_Atomic uint64_t budget;
	_Atomic uint64_t ceiling; /* pages from which on reads wait */
	unsigned trimmers_most;   /* TRIMMERS; constant once they run */
	window_invalidate_fn invalidate;
	void *context;
	struct cds_lfht *regions; /* additions and removals under lock */
	_Atomic uint64_t pages;   /* bits set */
	_Atomic uint64_t trimmed; /* bytes; relaxed */
	_Atomic uint64_t memory;  /* bytes of regions, files and places; relaxed */
	pthread_mutex_t lock;
	pthread_cond_t wanted;          /* trimmers sleep here */
	pthread_cond_t trimmed_some;    /* reads that wait for room sleep here */
	pthread_cond_t suspected;       /* the dropper sleeps here */
	pthread_cond_t answered;        /* writes that wait for a drop sleep here */
	pthread_cond_t answer_bounded;  /* the answerer sleeps here */
	struct cds_list_head queue;     /* regions, oldest first; under lock */
	struct cds_list_head closing;   /* regions; under lock */
	struct cds_list_head ready;     /* closed regions, a grace period later; under lock */
	struct cds_list_head held;      /* regions left because of a READ that waits; under lock */
	struct cds_hlist_head *places;  /* closing, ready and held regions, by place; under lock */
	uint64_t places_mask;           /* number of places less one; under lock */
	uint64_t runs;                  /* how often a trimmer went to drop; under lock */
	_Atomic uint64_t closing_pages; /* pages of regions in places, still counted in `pages`;
					 * changed under lock */
	struct cds_list_head files;     /* all files but forgotten ones; under lock */
	struct cds_list_head leaving;   /* forgotten files that are still in use; under lock */
	struct cds_list_head stale;     /* files to invalidate as a whole; under lock */
	struct cds_list_head suspects;  /* regions with suspect pages; under lock */
	struct window_range redrop; /* being dropped by the dropper; no file: nothing; under lock */
	bool uncounting;            /* pages without a bit are still counted; under lock */
	bool gathering;             /* a trimmer waits for a grace period; under lock */
	struct cds_list_head answers; /* answers that wait for drops; under lock */
	uint64_t clock;               /* counts drops; under lock */
	bool stopping;                /* under lock */
	unsigned trimming;            /* trimmers that have regions or a file in hand; under lock */
	pthread_mutex_t stop_lock;    /* before lock */
	pthread_t trimmers[TRIMMERS], dropper, answerer; /* under stop_lock */
	unsigned trimmers_run;                           /* the same */
	bool dropper_runs, answerer_runs;                /* the same */
	/* Number of READs that wait, by the hash of their regions. No lock. SLOT_LEFT in a counter:
	 * something was left for one of these READs, and the last one that goes on has it looked at
	 * again. It is set under lock, before a second look at the count. */
	_Atomic uint32_t waiting[WAITING_SLOTS];
};

/* A drop that is under way. Belongs to the thread that drops. */
struct window_drop {
	struct window_file *file;    /* constant */
	struct window_range regions; /* constant; end UINT64_MAX: the file as a whole */
	uint64_t pages;              /* constant; a mask of the pages of each of the regions */
	struct cds_list_head link;   /* in file->drops; under window->lock */
};

struct window_file {
	struct window *window;
	uint64_t node;                /* constant */
	struct cds_list_head regions; /* noted regions; under window->lock */
	struct cds_list_head closing; /* regions in window->places; under window->lock */
	struct cds_list_head drops;   /* drops under way; they keep the file; under window->lock */
	struct cds_list_head link;    /* in window->files or leaving; under window->lock */
	struct cds_list_head stale;   /* in window->stale, or empty; under window->lock */
	uint64_t noted;               /* length of regions; under window->lock */
	uint64_t end;                 /* no region lies from here on; under window->lock */
	bool forgotten;               /* under window->lock */
	/* Counts answers that wait, and threads that close regions; under window->lock. */
	unsigned kept;
	/* If there is no window: the kernel caches something of the file. Never reset. */
	atomic_bool cached;
	_Atomic uint64_t dropped; /* the last drop, or UNDER_WAY; changed under window->lock */
	uint64_t over;            /* the last drop that is over; under window->lock */
	uint64_t whole;           /* the last drop of the whole file that is over; under
				   * window->lock */
	_Atomic uint64_t written; /* changed under window->lock */
	_Atomic uint64_t wanted;  /* the edition for which a drop was last asked; changed under
				   * window->lock */
	_Atomic uint64_t shown;   /* the edition that the last drop left; changed under
				   * window->lock */
};

struct region {
	struct cds_lfht_node node;
	struct window_file *file; /* constant */
	uint64_t index;           /* constant; number of the region in the file */
	_Atomic uint64_t bits;
	uint64_t closing_pages;       /* bits set when it was closed; under window->lock */
	struct cds_list_head link;    /* in queue, closing, ready or held; under window->lock */
	struct cds_list_head in_file; /* under window->lock */
	struct cds_list_head suspect; /* in window->suspects, or empty; under window->lock */
	struct cds_hlist_node place;  /* in window->places once it is closed; under window->lock */
	uint64_t suspects;            /* pages to drop once more; under window->lock */
	uint64_t dropped;             /* under window->lock */
	uint64_t again;               /* under window->lock */
};

static inline uint64_t window_budget_pages(const struct window *window)
{
	return atomic_load_explicit(&window->budget, memory_order_relaxed) >> FOLD_PAGE_SHIFT;
}

/* Number of pages past which there is something to trim. What is on its way out is not to be
 * trimmed again. */
static inline uint64_t window_limit_pages(const struct window *window)
{
	return window_budget_pages(window) + atomic_load(&window->closing_pages);
}

/* The hash of a region. The table takes the low bits first, so each of them must depend on every
 * bit of both inputs. The output function of SplitMix64 (Steele, Lea, Flood: Fast splittable
 * pseudorandom number generators, OOPSLA 2014; constants: Vigna). */
static inline unsigned long window_hash_of(const struct window_file *file, uint64_t index)
{
	uint64_t z = (uintptr_t)file + index * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (unsigned long)(z ^ z >> 31);
}

static inline bool window_ranges_overlap(const struct window_range *a, const struct window_range *b)
{
	return a->file == b->file && a->first < b->end && b->first < a->end;
}

/* ---- window.c: the parts of window_read_begin() and window_read_end() ---- */

void window_wait_for_room(struct window_file *file, uint64_t first_page, unsigned pages,
			  unsigned microseconds);
void window_read_waits(struct window_file *file, uint64_t first_page, unsigned pages,
		       struct window_read *read);
void window_read_goes_on(struct window *window, struct window_read *read);

/* ---- window_region.c ---- */

/* What BLOCK takes of the heap; add it to WINDOW's memory; take it off again and free BLOCK. */
uint64_t window_bytes_of(void *block);
void window_count_memory(struct window *window, void *block);
void window_free_counted(struct window *window, void *block);
/* Mask of the pages of PAGE's region from PAGE on, before END. */
uint64_t window_mask_of(uint64_t page, uint64_t end);
/* The regions that hold the PAGES pages (at least one) from FIRST_PAGE on. */
struct window_range window_regions_of(const struct window_file *file, uint64_t first_page,
				      unsigned pages);
/* The region with these pages, or NULL. Read side. */
struct region *window_find_region(struct window_file *file, uint64_t index);
/* Move what is in WINDOW's places to PLACES, of which there are MASK + 1. Returns what was there
 * before. */
struct cds_hlist_head *window_move_places_locked(struct window *window,
						 struct cds_hlist_head *places, uint64_t mask);
/* Move REGION from the noted to the closing ones. */
void window_close_region_locked(struct window *window, struct region *region);
/* The next region of FILE and INDEX that is on its way out, behind BEFORE; BEFORE NULL: the first.
 * There may be several: a region was noted again, and closed again, before the first was
 * dropped. */
struct region *window_next_closed_locked(const struct window_file *file, uint64_t index,
					 const struct region *before);
/* The counter of READs that wait for the region. */
_Atomic uint32_t *window_waiting_slot(struct window *window, const struct window_file *file,
				      uint64_t index);
/* Whether the kernel may hold pages of REGION for a READ that waits. If so, REGION is left, and
 * looked at again when that READ goes on. */
bool window_is_held_locked(struct window *window, const struct region *region);

/* ---- window_file.c ---- */

/* Free a forgotten file, once nothing is left of it. */
void window_free_file_if_done_locked(struct window_file *file);

/* ---- window_drop.c ---- */

/* Around a drop of DROP's pages; DROP is filled in but for its link. The file stays meanwhile. The
 * end moves the clock on and marks each region there is among those that were dropped. */
void window_drop_begins_locked(struct window_drop *drop);
void window_drop_ends_locked(struct window_drop *drop);
/* Mask of REGION's pages that a drop since SINCE may have taken, whether it is over or under way.
 * SINCE 0: all pages. */
uint64_t window_dropped_since_locked(const struct region *region, uint64_t since);

/* ---- window_write.c ---- */

/* Give the answers whose pages are dropped, or that are overdue (ALL: all answers), and take them
 * out of the window. The lock is given up while they are given. */
void window_give_answers_locked(struct window *window, bool all);
/* Threads that run until the window stops: one drops suspects, one gives answers that are
 * overdue. */
void *window_run_dropper(void *window);
void *window_run_answerer(void *window);

/* ---- window_trim.c ---- */

/* One step of a trimmer. The lock is given up for everything that may take time. False: there was
 * nothing to do. */
bool window_trim_locked(struct window *window);

#endif
