/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family.h - content that several files are known to have, and the frames that hold it now
 *
 * A family is a number that the catalogue gave to one content, page by page, when files were
 * compared (catalogue.h). No file's later change makes it another: whoever is told of a family is
 * told that its pages N hold the family's page N under exactly one stamp.
 *
 * Whoever owns a file can change it and leave its stamp (writers.h). So a family is remembered as
 * often as it has kinds of writers: what files of one kind told is adopted by those alone for which
 * they may speak.
 *
 * Of each page of a family the table remembers the frame that last held it. That is no use of the
 * frame: it lives as long as files use it, and a frame in another life is simply not there (A.3 of
 * page_store.h). So all of this can be given up at any moment, and costs reading the source.
 *
 * While one reader fetches pages from its own file's source, others that want the same pages of the
 * family for theirs wait for it (a claim), so that many files which are read at once in the same
 * order are read from the disk once.
 */
#ifndef FOLDFS_FAMILY_H
#define FOLDFS_FAMILY_H

#include "foldfs/page_store.h"

#include <time.h>

#include <urcu/list.h>

struct family;
struct family_table;

/* Frames are STORE's, borrowed. -ENOMEM. */
errint_t family_table_new(struct page_store *store, struct family_table **ret_table);
/* No family is referenced any more. */
void family_table_free(struct family_table *table);
/* Bytes of the families and of what is counted here besides; the part that waits for a grace period
 * included. Any thread. */
uint64_t family_table_bytes(const struct family_table *table);
/* The same without what only waits for a grace period to be freed. */
uint64_t family_table_in_use(const struct family_table *table);
/* Count BYTES (below zero: no more) that their owner wants kept within the same budget. */
void family_table_count(struct family_table *table, int64_t bytes);
/* BYTES of them only wait for a grace period to be freed; below zero: they have been. */
void family_table_leave(struct family_table *table, int64_t bytes);
/* Give up what is remembered, at least BYTES of it if there is as much. Returns what it was. Any
 * thread, not within a read side. */
uint64_t family_table_shrink(struct family_table *table, uint64_t bytes);

/* What files of WRITERS tell of the family NUMBER, of at least PAGES pages; one reference to the
 * caller. Remembered from then on until the last is put. A known one keeps its size; pages beyond
 * it are never remembered. NULL: no memory. */
struct family *family_get(struct family_table *table, uint64_t number, uint64_t writers,
			  uint64_t pages);
void family_put(struct family *family);
uint64_t family_number(const struct family *family);

/* The frame that holds PAGE now; the caller is one more user of it. False: none is remembered, or
 * it has gone. RCU read side. */
bool family_share(struct family *family, uint64_t page, struct frame_ref *ret_ref);

/* PAGE is in REF, which the caller has read as the content of a file while that file had the stamp
 * under which it is of the family. RCU read side. Without memory it is not remembered. */
void family_remember(struct family *family, uint64_t page, struct frame_ref ref);

/* The first page from PAGE on of which something is remembered, UINT64_MAX: none. RCU read side. */
uint64_t family_next(struct family *family, uint64_t page);
/* The frame remembered for PAGE, whose life may be over; nobody becomes its user. False: none. RCU
 * read side. */
bool family_recall(struct family *family, uint64_t page, struct frame_ref *ret_ref);

/* Pages FIRST..LAST that one reader is fetching, and will tell. Its own; all zero: none. */
struct family_claim {
	struct family *family;
	uint64_t first;
	uint64_t last;
	struct cds_list_head link; /* under the family's lock */
};

/* Claim pages FIRST..LAST if nobody has any of them; false: somebody has. For who can tell what he
 * will fetch; he waits for his source alone. Not within a read side. */
bool family_claim(struct family *family, uint64_t first, uint64_t last,
		  struct family_claim *ret_claim);
/* Whether somebody has one of them. */
bool family_is_claimed(struct family *family, uint64_t first, uint64_t last);
/* Wait until nobody has any of them, or UNTIL (of CLOCK_MONOTONIC) at most; false: somebody still
 * has. Not for who has a claim, nor within a read side. */
bool family_wait(struct family *family, uint64_t first, uint64_t last,
		 const struct timespec *until);
/* Nothing if CLAIM is none. */
void family_unclaim(struct family_claim *claim);

/* For the audit: what there is, counted one by one. */
struct family_count {
	uint64_t bytes; /* of the families, and of what they remember */
	uint64_t references;
	uint64_t claims;
};
void family_table_recount(struct family_table *table, struct family_count *ret_count);

#endif
