/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family.h - content that several files are known to have, and the frames that hold it now
 *
 * A family is a number that the catalogue gave to one content, page by page, when files were
 * compared (catalogue.h). No later change of a file changes the family. A file is said to be of a
 * family under exactly one stamp: under it, its pages N hold the family's page N.
 *
 * The owner of a file can change it and leave its stamp as it was (writers.h). So a family is
 * remembered once for each kind of writers. What files of one kind told is adopted only by files
 * for which they may speak.
 *
 * For each page of a family the table remembers the frame that last held it. This does not count as
 * a use of the frame: the frame lives as long as files use it, and a frame in another life is taken
 * as missing (A.3 of page_store.h). So all of this can be given up at any moment, at the cost of
 * reading the source.
 *
 * While one reader fetches pages from its own file's source, other readers that want the same pages
 * of the family wait for it (a claim). So many files that are read at once in the same order are
 * read from the disk once.
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
/* Bytes of the families and of what else is counted here, including what waits for a grace period.
 * Any thread. */
uint64_t family_table_bytes(const struct family_table *table);
/* As family_table_bytes(), without what only waits for a grace period to be freed. */
uint64_t family_table_in_use(const struct family_table *table);
/* Count BYTES that their owner wants kept within the same budget; below zero: take them off the
 * count. */
void family_table_count(struct family_table *table, int64_t bytes);
/* BYTES of the counted ones now only wait for a grace period to be freed; below zero: they have
 * been. */
void family_table_leave(struct family_table *table, int64_t bytes);
/* Give up at least BYTES of what is remembered, if there is as much. Returns how many bytes that
 * was. Any thread, not within a read side. */
uint64_t family_table_shrink(struct family_table *table, uint64_t bytes);

/* What files of WRITERS tell of the family NUMBER, of at least PAGES pages; one reference to the
 * caller. The family is remembered from then on until the last reference is put. A family that is
 * known already keeps its size; pages beyond it are never remembered. NULL: no memory. */
struct family *family_get(struct family_table *table, uint64_t number, uint64_t writers,
			  uint64_t pages);
void family_put(struct family *family);
uint64_t family_number(const struct family *family);

/* The frame that holds PAGE now; the caller becomes one more user of it. False: no frame is
 * remembered, or its life is over. RCU read side. */
bool family_share(struct family *family, uint64_t page, struct frame_ref *ret_ref);

/* PAGE is in REF. The caller has read REF as the content of a file, while that file had the stamp
 * under which it is of the family. RCU read side. Without memory it is not remembered. */
void family_remember(struct family *family, uint64_t page, struct frame_ref ref);

/* The first page from PAGE on for which a frame is remembered; UINT64_MAX: none. RCU read side. */
uint64_t family_next(struct family *family, uint64_t page);
/* The frame remembered for PAGE, whose life may be over; the caller does not become a user of it.
 * False: none is remembered. RCU read side. */
bool family_recall(struct family *family, uint64_t page, struct frame_ref *ret_ref);

/* Pages FIRST..LAST that one reader is fetching and will tell. Owned by that reader; all zero: no
 * claim. */
struct family_claim {
	struct family *family;
	uint64_t first;
	uint64_t last;
	struct cds_list_head link; /* under the family's lock */
};

/* Claim pages FIRST..LAST if no reader has claimed any of them; false: one has. For a caller that
 * can tell what it will fetch, and that waits for its source alone. Not within a read side. */
bool family_claim(struct family *family, uint64_t first, uint64_t last,
		  struct family_claim *ret_claim);
/* Whether a reader has claimed one of these pages. */
bool family_is_claimed(struct family *family, uint64_t first, uint64_t last);
/* Wait until no reader has a claim on any of these pages, or UNTIL (of CLOCK_MONOTONIC) at most.
 * False: one still has. Not for a caller that holds a claim, nor within a read side. */
bool family_wait(struct family *family, uint64_t first, uint64_t last,
		 const struct timespec *until);
/* Does nothing if CLAIM is none. */
void family_unclaim(struct family_claim *claim);

/* For the audit: what there is, counted one by one. */
struct family_count {
	uint64_t bytes; /* of the families, and of what they remember */
	uint64_t references;
	uint64_t claims;
};
void family_table_recount(struct family_table *table, struct family_count *ret_count);

#endif
