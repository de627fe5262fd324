/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clones.h - files that have blocks of the disk in common, found when they are opened
 *
 * A clone by reflink is equal to what it was made of wherever both still have the same block at the
 * same offset, and the file system says where that is. So a file of which nothing is known gets a
 * kin (kin.h) at its first open, without a byte being read, if a file that was opened before under
 * this mount has blocks in common with it. What it takes for proof, and from whom, is told at the
 * head of clones.c.
 *
 * Only XFS and btrfs have such files. Of others, and of small ones, nothing is asked. Memory is
 * bounded: CLONES_KNOWN files are remembered, those that were opened last.
 */
#ifndef FOLDFS_CLONES_H
#define FOLDFS_CLONES_H

#include "foldfs/file.h"

struct clones;
struct lease_table;

/* Smaller files are not looked at. */
#define CLONES_LEAST (UINT64_C(1) << 20)
#define CLONES_KNOWN 1024u

/* FILE, of DEVICE and INODE: a description of it to look at, one reference to the caller; where a
 * client has it open for writing, that one. NULL: it cannot be had. */
typedef struct source *clones_open_fn(void *context, const struct file *file, dev_t device,
				      ino_t inode);

/* The file of DEVICE and INODE has a kin now. Without a lock of the file's; the caller of
 * clones_learn() waits. */
typedef void clones_found_fn(void *context, dev_t device, ino_t inode);

/* For files of FILES of the source open as ROOT_FD; LEASES are those that the daemon holds. Both
 * are borrowed. -ENOMEM; -errno. */
errint_t clones_new(struct file_table *files, struct lease_table *leases, int root_fd,
		    clones_open_fn *open_file, clones_found_fn *on_found, void *context,
		    struct clones **ret_clones);
/* Nobody uses it any more. NULL is nothing. */
void clones_free(struct clones *clones);
/* Memory, a constant once a file was noted. Any thread. */
uint64_t clones_bytes(const struct clones *clones);
/* Files that were found to have blocks in common with another one. Any thread. */
uint64_t clones_found(const struct clones *clones);

/* FILE, validated, was opened as SOURCE to be served from the pool. It is noted; and if it has no
 * kin, and was not looked at as it is now, it gets one, if that can be proved. A few system calls
 * for a file that has nothing in common with any; else some milliseconds, and as long as it takes
 * to write what is dirty of both. As the daemon itself, without a lock of a file's or an
 * inode's. */
void clones_learn(struct clones *clones, struct file *file, struct source *source);

#endif
