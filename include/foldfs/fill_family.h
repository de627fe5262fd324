/* SPDX-License-Identifier: Apache-2.0 */
/* fill_family.h - the part of a fill that asks the file's family before the source; fill.c
 * alone uses it */
#ifndef FOLDFS_FILL_FAMILY_H
#define FOLDFS_FILL_FAMILY_H

#include "foldfs/fill.h"

/* Give READ's file the frames that hold what its family knows of the missing pages, or claim those
 * pages. Once for each read; may wait for a reader that is fetching them. Returns whether something
 * is to be fetched now. False if all was found, and, for a read ahead, if another reader is
 * fetching the pages. Not within a read side. */
bool fill_family_pages(struct page_read *read);
/* Whether what READ fetched is what its family knows, except for pages that were cut. After the
 * fetch; a system call or two. */
bool fill_family_is_exact(const struct page_read *read);
/* Tell the family that page I of READ was published as REF; what was fetched is exact. RCU read
 * side. */
void fill_family_tell(const struct page_read *read, unsigned i, struct frame_ref ref);
/* To be called when all that was fetched is published. */
void fill_family_end(struct page_read *read);

#endif
