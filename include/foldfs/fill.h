/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fill.h - the way of a read: hits from the pool, misses from the source into it
 *
 * A struct page_read is one read of at most FOLD_REQUEST_BYTES. It runs in two parts, so that the
 * part which blocks is never inside an RCU read side:
 *
 * 	page_read_init(&read, …);
 * 	fold_rcu_read_lock();
 * 	while (!page_read_look(&read)) {        // everything at hand?
 * 		fold_rcu_read_unlock();
 * 		page_read_fetch(&read);         // blocks: reads what is missing from the source
 * 		fold_rcu_read_lock();
 * 	}
 * 	page_read_iov(&read, iov, &count);      // valid until the read side is left
 * 	… reply …
 * 	fold_rcu_read_unlock();
 * 	page_read_finish(&read);                // publishes what was fetched
 *
 * A caller that does not wait for the source may do page_read_fetch() in its parts:
 *
 * 	page_read_begin_fetch(&read);           // the first one may wait for another reader
 * 	while (page_read_next(&read, &io))
 * 		page_read_got(&read, …);        // what reading IO from the source gave
 *
 * Every fetch brings in all that was missing, and what was fetched stays at hand, so the loop ends.
 * Some pages are known to be in common with other files (kin.h): for these the first fetch takes
 * the frames that the pool has. If such a frame is evicted before the next look, the second fetch
 * reads the page.
 */
#ifndef FOLDFS_FILL_H
#define FOLDFS_FILL_H

#include "foldfs/family.h"
#include "foldfs/file.h"

#include <pthread.h>
#include <stdatomic.h>

struct counters;

struct filler {
	struct page_store *store;  /* borrowed */
	struct file_table *files;  /* borrowed */
	struct counters *counters; /* borrowed */
	_Atomic unsigned at_work;  /* reads that may hold taken frames, for the audit; relaxed */
	pthread_mutex_t spare_lock;
	uint8_t *spare; /* bounce buffer for when there is no memory; under spare_lock */
};

/* -ENOMEM. */
errint_t filler_init(struct filler *filler, struct page_store *store, struct file_table *files,
		     struct counters *counters);
void filler_destroy(struct filler *filler);

/* A page of the read that was fetched from the source. */
struct page_in_hand {
	void *bytes;    /* a taken frame's or a bounce buffer's; NULL: not in hand */
	uint32_t frame; /* FILL_NO_FRAME: bytes are a bounce buffer's (bypass) */
	bool fetched;   /* the bytes are the source's */
};
#define FILL_NO_FRAME UINT32_MAX

struct page_read {
	struct filler *filler;
	struct file *file;
	struct source *source;
	uint64_t first; /* first page */
	unsigned pages;
	size_t skip;    /* bytes of the first page before the range */
	size_t length;  /* bytes asked for, later cut to what the file has of them */
	errint_t error; /* of the source, for the pages from error_page on */
	unsigned error_page;
	unsigned missing; /* pages that the last look did not find */
	unsigned hits;    /* pages the first look found */
	bool looked;
	bool at_work;    /* counted in filler->at_work */
	bool ahead;      /* for read-ahead: nobody waits for it */
	bool asked_kin;  /* the file's family was asked already */
	struct kin *kin; /* of the file, held since before the fetch; NULL: none */
	struct family_claim claim;
	uint8_t *bounce; /* room for all pages; used for those that found no frame */
	unsigned run;    /* the fetch is at pages run..run_end, neighbours to be read together */
	unsigned run_end;
	size_t run_got; /* bytes of the run that were read so far */
	struct page_look looks[FOLD_REQUEST_PAGES];
	struct page_in_hand hand[FOLD_REQUEST_PAGES];
};

/* LENGTH at most FOLD_REQUEST_BYTES. Everything given is borrowed until page_read_finish(). */
void page_read_init(struct page_read *read, struct filler *filler, struct file *file,
		    struct source *source, off_t offset, size_t length);
/* RCU read side. Whether every page is at hand or known to fail. */
bool page_read_look(struct page_read *read);
/* Read what is missing; neighbouring pages in one call. Blocks. Not within a read side. */
void page_read_fetch(struct page_read *read);

/* What is to be read from the source next. */
struct page_io {
	off_t offset;
	int count;
	struct iovec iov[FOLD_REQUEST_PAGES];
};

/* page_read_fetch() in parts. Begin: find places for what is missing, and take what other files'
 * readers have published of it. Blocks until readers that are fetching the same pages are done, but
 * only in the first fetch of a read. */
void page_read_begin_fetch(struct page_read *read);
/* What to read next. False: all that was missing is at hand, or known to fail. */
bool page_read_next(struct page_read *read, struct page_io *ret_io);
/* The source gave GOT bytes of the last page_read_next(), from its beginning; 0: the file ends
 * there; or -errno. */
void page_read_got(struct page_read *read, ssize_t got);
/* Copy FROM, which was looked at and not fetched yet, to TO. FROM's memory may then be used for
 * another read. */
void page_read_move(struct page_read *to, const struct page_read *from);
/*
 * The bytes: up to FOLD_REQUEST_PAGES parts, neighbouring frames joined. Returns their sum. It is
 * short at the end of the file, or before a page that the source could not read. If that page holds
 * the first byte, returns its error as -errno. Within the RCU read side of the last look.
 */
ssize_t page_read_iov(struct page_read *read, struct iovec iov[], int *ret_count);
/* Hash, share and publish what was fetched. Not within a read side. Counts hits and misses. Returns
 * how many pages were read from the source. */
unsigned page_read_finish(struct page_read *read);

/* Fill the pages of LENGTH bytes from OFFSET that are not resident; nothing is answered. For
 * read-ahead. Blocks. Pages already known are not read again. Errors are left for the reader.
 * Returns how many pages were not resident: read, failed, or left to a reader that is fetching them
 * already. For a thread that answers no requests. */
unsigned fill_ahead(struct filler *filler, struct file *file, struct source *source, off_t offset,
		    size_t length);

#endif
