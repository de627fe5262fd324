/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_set.h - which files were met, and how large they are in all
 *
 * 8 bytes for each file, and room for as many again. Beyond 8 MiB no more files are taken, and the
 * sums are lower bounds. The caller holds one lock around all calls.
 */
#ifndef FOLDFS_FILE_SET_H
#define FOLDFS_FILE_SET_H

#include "foldfs/page.h"

#include <sys/types.h>

#define FILE_SET_MAX_PLACES (UINT64_C(1) << 20)

/* All zero: empty. */
struct file_set {
	uint64_t *places; /* a hash of each file, open addressing; 0: free */
	uint64_t count;   /* of places: 0, or a power of two */
	uint64_t files;
	uint64_t bytes; /* of the files, at the size that each had when it was first met */
};

/* A file of SIZE bytes was met. Nothing if it was met before, or if there is no room or no
 * memory. */
void file_set_add(struct file_set *set, dev_t device, ino_t inode, uint64_t size);
/* Bytes of memory. */
uint64_t file_set_memory(const struct file_set *set);
/* Empty it. */
void file_set_clear(struct file_set *set);

#endif
