/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xxh3.h - XXH3, with the widest vectors that the processor has
 *
 * libxxhash chooses the vectors at run time where it was built for that (Debian's for amd64 is).
 * Elsewhere they are those of the build. The values are the same. A page takes 569 ns with SSE2,
 * 125 with AVX2 and 139 with AVX-512 (an otherwise idle Xeon, 256 pages by turns).
 */
#ifndef FOLDFS_XXH3_H
#define FOLDFS_XXH3_H

#ifdef FOLDFS_XXH3_DISPATCH
#include <xxh_x86dispatch.h>
#else
#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

#include "foldfs/page.h"

/* libxxhash makes its choice in the first call, without a lock. So this must be called before there
 * are threads that hash. */
static inline void fold_xxh3_prepare(void)
{
	(void)XXH3_128bits(fold_zero_page, FOLD_PAGE_SIZE);
}

#endif
