/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extents.c - where on the disk a file's bytes are, as its file system tells (FIEMAP)
 *
 * Flags that are unknown here may mean anything, so an extent with one of them is not plain.
 */
#include "foldfs/extents.h"

#include <string.h>
#include <sys/ioctl.h>

bool extents_map(int fd, uint64_t start, bool sync, union extents *ret_extents)
{
	memset(&ret_extents->map, 0, sizeof(ret_extents->map));
	ret_extents->map.fm_start = start;
	ret_extents->map.fm_length = FIEMAP_MAX_OFFSET - start;
	ret_extents->map.fm_flags = sync ? FIEMAP_FLAG_SYNC : 0;
	ret_extents->map.fm_extent_count = EXTENTS_AT_ONCE;
	return !ioctl(fd, FS_IOC_FIEMAP, &ret_extents->map);
}

uint64_t extents_end(const union extents *extents)
{
	unsigned count = extents->map.fm_mapped_extents;
	const struct fiemap_extent *last;

	if (count < EXTENTS_AT_ONCE)
		return UINT64_MAX;
	last = &extents->map.fm_extents[count - 1];
	return last->fe_flags & FIEMAP_EXTENT_LAST ? UINT64_MAX
						   : last->fe_logical + last->fe_length;
}

bool extents_is_plain(const struct fiemap_extent *extent)
{
	return !(extent->fe_flags &
		 ~(FIEMAP_EXTENT_LAST | FIEMAP_EXTENT_MERGED | FIEMAP_EXTENT_SHARED));
}

bool extents_is_shared(const struct fiemap_extent *extent)
{
	return extent->fe_flags & FIEMAP_EXTENT_SHARED && extents_is_plain(extent);
}

static bool is_same_extent(const struct fiemap_extent *a, const struct fiemap_extent *b)
{
	return a->fe_logical == b->fe_logical && a->fe_physical == b->fe_physical &&
	       a->fe_length == b->fe_length && a->fe_flags == b->fe_flags;
}

bool extents_same(const union extents *a, const union extents *b)
{
	unsigned count = a->map.fm_mapped_extents;

	if (count != b->map.fm_mapped_extents)
		return false;
	for (unsigned i = 0; i < count; i++)
		if (!is_same_extent(&a->map.fm_extents[i], &b->map.fm_extents[i]))
			return false;
	return true;
}
