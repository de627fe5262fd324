/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window.h - the kernel's page cache for this mount, held to a budget
 *
 * The daemon sees every fill of that cache: each READ it answers and each WRITE it takes. Pages are
 * noted by region (64 pages, 256 KiB), one bit each; regions stand in a queue in the order of their
 * first page. Past the budget, trimmers invalidate the oldest regions, neighbours together.
 *
 * Why noting before the reply is enough: the kernel holds a page locked from READ to its reply, and
 * an invalidation waits for locked pages. A page whose bit was cleared before its reply arrived is
 * dropped by the invalidation that follows. A page whose bit is set after that stays counted.
 *
 * Rule: only the window's threads make the notify call. They hold no lock meanwhile, and a request
 * waits for them only for a moment (KERNEL: every field report of a hung mount breaks this rule).
 */
#ifndef FOLDFS_WINDOW_H
#define FOLDFS_WINDOW_H

#include "foldfs/page.h"

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include <urcu/list.h>

struct window;
struct window_file;

/* Drop what the kernel caches of a node: LENGTH bytes from OFFSET; LENGTH 0: all. -errno; -ENOENT
 * if the kernel knows no such node any more. */
typedef errint_t (*window_invalidate_fn)(void *context, uint64_t node, off_t offset, off_t length);

struct window_usage {
	uint64_t budget_bytes;
	uint64_t bytes;         /* noted now: an upper bound of what the kernel holds */
	uint64_t trimmed_bytes; /* since the start */
	uint64_t memory_bytes;  /* of the bookkeeping */
};

/* BUDGET_BYTES 0: no window, notes are ignored (direct I/O). -ENOMEM. */
errint_t window_new(uint64_t budget_bytes, window_invalidate_fn invalidate, void *context,
		    struct window **ret_window);
/* From now on the window is held to BUDGET_BYTES. There is a window, and it stays one: neither
 * budget is 0. What is beyond a smaller budget is trimmed soon. Any thread; waits for no
 * trimmer. */
void window_set_budget(struct window *window, uint64_t budget_bytes);
/* Start the threads; after any fork, once the connection can take notifications. */
errint_t window_start(struct window *window);
/* Stop trimming: afterwards nothing calls invalidate. Idempotent. */
void window_stop(struct window *window);
void window_free(struct window *window);

/* The record of the pages that the kernel caches for NODE. It has none yet. One reference. EDITION:
 * the present edition of its content (file_edition()). -ENOMEM. */
errint_t window_file_new(struct window *window, uint64_t node, uint64_t edition,
			 struct window_file **ret_file);
/* The kernel has forgotten the node, and its cache went with it: uncount all, drop the
 * reference. */
void window_file_forget(struct window_file *file);

/* The kernel is about to cache these pages. Before the reply. Any thread, lock-free but for the
 * first note of a region. */
void window_note(struct window_file *file, uint64_t first_page, unsigned pages);

/* The pages of a READ or a WRITE, worked out once. */
struct window_span {
	uint64_t first;
	unsigned pages;
	bool direct; /* past the kernel's cache: O_DIRECT, or any request if there is no window */
};

/* A range of regions of a file. */
struct window_range {
	const struct window_file *file; /* only to compare with */
	uint64_t first;
	uint64_t end;
};

/* A READ whose pages the kernel may cache, from its begin to its end. Its fields are the
 * window's. */
struct window_read {
	/* Constant, except `waits` and `regions`, which goes with it. FILE may be gone once the
	 * reply is sent. */
	struct window_file *file;
	struct window *window;
	struct window_range regions; /* if it waits */
	struct window_span span;
	bool waits; /* it misses something */
};

/*
 * Around a READ of SPAN. Of a direct READ the kernel caches nothing. The begin comes before the
 * READ looks for the bytes: so a write that the look does not see will see that the kernel caches
 * the pages. The end comes after the reply. Any thread, in no read side; lock-free but for the
 * first READ of a region.
 *
 * When the window is past a quarter above the budget (4 MiB for a small one), the begin waits until
 * the trimmers have caught up. It waits for MICROSECONDS at most (< 10^9, in steps of 200), and no
 * longer than the trimmers make progress: they may be waiting for something behind this very
 * request. Costs one load if there is room.
 */
void window_read_begin(struct window_file *file, struct window_span span, unsigned microseconds,
		       struct window_read *ret_read);
/* The READ has to wait for the source. Until its reply the kernel holds its pages locked, and an
 * invalidation of these pages waits too. So trimmers leave its regions for later, and go on with
 * others. */
void window_read_misses(struct window_read *read);
/* Takes the window's lock only if something was left for a READ that waits. */
void window_read_end(struct window_read *read);

/*
 * A client's WRITE of SPAN was handled; called before the reply, and before its pages are noted.
 * Not for write-back of mapped pages. The kernel may have cached pages of the file meanwhile
 * without these bytes: those are dropped soon, see the head of window_write.c. Returns whether
 * there are any. Any thread; takes no lock if nothing was dropped before.
 */
bool window_written(struct window_file *file, struct window_span span);

/* How long an answer may wait for a drop, in microseconds (< 10^9): until the drop begins, and from
 * then on. Both 0: for as long as it takes. */
struct window_patience {
	unsigned begin_us;
	unsigned drop_us;
};

/* The answer to a WRITE. It belongs to its giver until it is given. */
struct window_answer {
	void (*give)(struct window_answer *answer); /* set by the giver; the rest is the window's */
	struct window_file *file;
	struct window_range regions;
	struct window_patience patience;
	int64_t until_ns;          /* of clock.h; only if the wait is bounded; under the window's
				    * lock */
	struct cds_list_head link; /* under the window's lock */
};

/*
 * Whether ANSWER, to a WRITE of these pages, has to wait: window_written() has found some of them
 * untrue, and they are not dropped yet. If it has to wait, one of the window's threads gives it as
 * soon as they are dropped, with no lock held; or the thread that stops the window does. The kernel
 * may hold one of the pages locked for this very WRITE, as it may for all but direct ones. Then the
 * drop may be waiting for the answer, so PATIENCE must have an end.
 */
bool window_answer_later(struct window_file *file, struct window_span span,
			 struct window_patience patience, struct window_answer *answer);

/* As window_answer_later(), for a WRITE that no other thread can answer: wait here. The wait must
 * have an end, because the drop may be waiting for something behind this very request. The window
 * has been started. */
void window_wait_for_drop(struct window_file *file, struct window_span span,
			  struct window_patience patience);

/* The kernel holds nothing at or behind FIRST_PAGE any more (truncate, invalidation at open). */
void window_close_from(struct window_file *file, uint64_t first_page);

/* Content changed behind the kernel: have a trimmer drop all that it caches of the file. Never
 * blocks. */
void window_invalidate_soon(struct window_file *file);
/* As window_invalidate_soon(), unless it was already asked for since EDITION of the content began.
 * The caller must have published EDITION first. Any thread; no lock if it was already asked for. */
void window_follow(struct window_file *file, uint64_t edition);
/* Whether all that the kernel caches of the file is of EDITION or of a later one, that is, whether
 * the drop that window_follow() asked for is over. Any thread, no lock. */
bool window_shows(const struct window_file *file, uint64_t edition);

void window_usage(const struct window *window, struct window_usage *ret_usage);

/* For the audit: what is noted, counted bit by bit, beside what the sums say. All of one moment,
 * except for notes that are just being made and regions that a trimmer has in hand. Holds the
 * window's lock for as long as it takes to look at each region; there are no more regions than
 * pages in the budget. */
struct window_count {
	uint64_t pages;        /* bits set */
	uint64_t pages_said;   /* what the sum says */
	uint64_t closing;      /* pages of regions on their way out */
	uint64_t closing_said; /* what the sum says */
	uint64_t memory;       /* bytes of regions and files */
	uint64_t memory_said;  /* what the sum says */
	uint64_t budget;       /* pages */
	uint64_t misplaced;    /* regions that are found though closed, or not found though noted */
	bool trims;            /* there are trimmers */
	bool trimming; /* trimmers are at work or have work, with regions that are in no list, or
			* pages are being uncounted */
};
void window_count(struct window *window, struct window_count *ret_count);

#endif
