/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuts.h - which pages of a file were changed, once and for ever
 *
 * A set of page numbers that only grows, and takes memory where there are any: half a KiB for what
 * is changed within 16 MiB of a file. Stretches that are cut as a whole (truncation) take none.
 */
#ifndef FOLDFS_CUTS_H
#define FOLDFS_CUTS_H

#include <stdbool.h>
#include <stdint.h>

struct cuts;

/* None of so many PAGES is cut. NULL: no memory. */
struct cuts *cuts_new(uint64_t pages);
/* Nobody uses it any more. NULL is nothing. */
void cuts_free(struct cuts *cuts);

/* Pages FIRST..LAST are cut; those beyond the last there is are left out. False: no memory, and not
 * all of them are. *ret_grown: bytes more that it takes now. Any thread; takes a lock only if one
 * of them is new. */
bool cuts_add(struct cuts *cuts, uint64_t first, uint64_t last, uint64_t *ret_grown);
/* Whether PAGE is. Any thread, no lock. */
bool cuts_has(const struct cuts *cuts, uint64_t page);
/* The first page from PAGE on that is cut, or, not CUT, is not; how many pages there are, if there
 * is none. Any thread, no lock. */
uint64_t cuts_next(const struct cuts *cuts, uint64_t page, bool cut);
/* Bytes that it takes. Any thread. */
uint64_t cuts_bytes(const struct cuts *cuts);

#endif
