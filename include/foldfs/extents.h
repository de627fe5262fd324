/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extents.h - where on the disk a file's bytes are, as its file system tells (FIEMAP)
 *
 * Physical places are relative to the file system. Two files are equal where both have the same
 * place at the same offset, if dirty data was written before and the extent is plain. Nothing here
 * has a state. Any thread; a call may wait for the disk.
 */
#ifndef FOLDFS_EXTENTS_H
#define FOLDFS_EXTENTS_H

#include "foldfs/page.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>

/* The extents lie behind the map, in its flexible array member. */
#define EXTENTS_AT_ONCE 128u
union extents {
	struct fiemap map;
	unsigned char room[sizeof(struct fiemap) + EXTENTS_AT_ONCE * sizeof(struct fiemap_extent)];
};

/* The extents of the file open as FD from byte START on, as many as fit. SYNC: dirty data is
 * written first, and waited for. False: the file system does not say. */
bool extents_map(int fd, uint64_t start, bool sync, union extents *ret_extents);
/* The byte up to which EXTENTS is complete; UINT64_MAX: to the end. */
uint64_t extents_end(const union extents *extents);
/* Whether the extent's place determines what is read from it. Its place is known, it holds data,
 * and the data is neither encoded nor in line with metadata. */
bool extents_is_plain(const struct fiemap_extent *extent);
/* Whether the extent is plain and another file has it too. */
bool extents_is_shared(const struct fiemap_extent *extent);
/* Whether A and B are the same, extent for extent. */
bool extents_same(const union extents *a, const union extents *b);

#endif
