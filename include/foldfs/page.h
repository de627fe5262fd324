/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page.h - the unit that everything here is counted in
 *
 * A page is 4096 bytes of a file at an aligned offset. The last page of a file may be short. Its
 * frame is filled up with zeroes, which is also what a reader of a growing file must see there.
 */
#ifndef FOLDFS_PAGE_H
#define FOLDFS_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FOLD_PAGE_SHIFT 12
#define FOLD_PAGE_SIZE  (1u << FOLD_PAGE_SHIFT)
#define FOLD_PAGE_MASK  ((uint64_t)FOLD_PAGE_SIZE - 1)

/* One kernel request covers at most this much (fs.fuse.max_pages_limit: 256 pages). */
#define FOLD_REQUEST_BYTES (1u << 20)
/* The most pages that an unaligned request of that size touches. */
#define FOLD_REQUEST_PAGES (FOLD_REQUEST_BYTES / FOLD_PAGE_SIZE + 1)

/* 0 or a negative errno. */
typedef int errint_t;

/* XXH3-128 of a page or of a file, with a secret: the pool's or the catalogue's. */
struct digest {
	uint64_t low;
	uint64_t high;
};

/* The page that holds byte OFFSET. */
static inline uint64_t fold_page_of(uint64_t offset)
{
	return offset >> FOLD_PAGE_SHIFT;
}

/* Pages that LENGTH bytes from OFFSET touch; 0 for no bytes. */
static inline uint64_t fold_pages_in(uint64_t offset, uint64_t length)
{
	return length ? fold_page_of(offset + length - 1) - fold_page_of(offset) + 1 : 0;
}

/* 4096 zero bytes, page-aligned, never written. */
extern const uint8_t fold_zero_page[FOLD_PAGE_SIZE];

/* Whether the 4096 bytes at PAGE (16-byte aligned or not) are all zero. */
bool fold_page_is_zero(const void *page);

#endif
