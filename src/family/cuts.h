/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuts.h - which pages of a file were changed, once and for ever
 *
 * A set of page numbers that only grows. It takes memory only where pages are cut: half a KiB for
 * what is changed within 16 MiB of a file. Stretches that are cut as a whole (truncation) take
 * none.
 */
#ifndef FOLDFS_CUTS_H
#define FOLDFS_CUTS_H

#include <stdbool.h>
#include <stdint.h>

struct cuts;

/* A set for a file of PAGES pages, none of them cut. NULL: no memory. */
struct cuts *cuts_new(uint64_t pages);
/* Nobody uses CUTS any more. NULL does nothing. */
void cuts_free(struct cuts *cuts);

/* Cut pages FIRST..LAST; pages beyond the last one of the file are left out. False: no memory, and
 * not all of them are cut. *ret_grown: how many bytes more the set takes now. Any thread; takes a
 * lock only if one of the pages is not cut yet. */
bool cuts_add(struct cuts *cuts, uint64_t first, uint64_t last, uint64_t *ret_grown);
/* Whether PAGE is cut. Any thread, no lock. */
bool cuts_has(const struct cuts *cuts, uint64_t page);
/* The first page from PAGE on that is cut, or, with CUT false, that is not cut. If there is none,
 * the number of the file's pages. Any thread, no lock. */
uint64_t cuts_next(const struct cuts *cuts, uint64_t page, bool cut);
/* Bytes that the set takes. Any thread. */
uint64_t cuts_bytes(const struct cuts *cuts);

#endif
