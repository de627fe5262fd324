/* SPDX-License-Identifier: Apache-2.0 */
/* object_hash.h - a hash of the numbers that identify a file: device and inode */
#ifndef FOLDFS_OBJECT_HASH_H
#define FOLDFS_OBJECT_HASH_H

#include <stdint.h>
#include <sys/types.h>

/*
 * All bits depend on all bits of both numbers. Either number may be dense while the other is
 * constant: the inodes of one disk, or the same inode in thousands of snapshots (btrfs numbers
 * their devices one by one). Multiplication carries upwards only, so the upper half is folded down
 * after each multiplication (as splitmix64 does).
 */
static inline uint64_t fold_object_hash(dev_t device, ino_t inode)
{
	uint64_t hash = (uint64_t)device * UINT64_C(0xbf58476d1ce4e5b9);

	hash = ((hash ^ hash >> 32) + (uint64_t)inode) * UINT64_C(0x9e3779b97f4a7c15);
	hash = (hash ^ hash >> 32) * UINT64_C(0x94d049bb133111eb);
	return hash ^ hash >> 32;
}

#endif
