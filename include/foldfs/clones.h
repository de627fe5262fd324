/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clones.h - files that have blocks of the disk in common, found when they are opened
 *
 * A clone by reflink equals its original wherever both still have the same block at the same
 * offset, and the file system says where that is. So a file of which nothing is known gets a kin
 * (kin.h) at its first open, without a byte being read, if a file that was opened before under this
 * mount has blocks in common with it. The head of clones.c says what counts as proof, and from
 * whom.
 *
 * Only XFS and btrfs have such files. Files of other file systems, and small ones, are not looked
 * at. Memory is bounded: CLONES_KNOWN files are remembered, those that were opened last.
 */
#ifndef FOLDFS_CLONES_H
#define FOLDFS_CLONES_H

#include "foldfs/file.h"

struct clones;
struct lease_table;

/* Smaller files are not looked at. */
#define CLONES_LEAST (UINT64_C(1) << 20)
#define CLONES_KNOWN 1024u

/* A description of FILE, which is of DEVICE and INODE, to look at; one reference to the caller. If
 * a client has the file open for writing, that client's description. NULL: it cannot be had. */
typedef struct source *clones_open_fn(void *context, const struct file *file, dev_t device,
				      ino_t inode);

/* The file of DEVICE and INODE has a kin now. Called without a lock of the file's; the caller of
 * clones_learn() waits. */
typedef void clones_found_fn(void *context, dev_t device, ino_t inode);

/* For files of FILES in the source open as ROOT_FD; LEASES are those that the daemon holds. FILES
 * and LEASES are borrowed. -ENOMEM; -errno. */
errint_t clones_new(struct file_table *files, struct lease_table *leases, int root_fd,
		    clones_open_fn *open_file, clones_found_fn *on_found, void *context,
		    struct clones **ret_clones);
/* Nobody uses CLONES any more. NULL does nothing. */
void clones_free(struct clones *clones);
/* Memory, in bytes; constant once a file was noted. Any thread. */
uint64_t clones_bytes(const struct clones *clones);
/* Files that were found to have blocks in common with another one. Any thread. */
uint64_t clones_found(const struct clones *clones);

/* FILE, validated, was opened as SOURCE to be served from the pool. It is noted. If it has no kin,
 * and was not looked at in its present state, it gets a kin if one can be proved. Costs a few
 * system calls for a file that has nothing in common with any other. Otherwise it takes some
 * milliseconds, and as long as it takes to write what is dirty of both files. Called as the daemon
 * itself, without a lock of a file or an inode. */
void clones_learn(struct clones *clones, struct file *file, struct source *source);

#endif
