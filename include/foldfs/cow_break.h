/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cow_break.h - every change of content
 *
 * Order in each: the range's write lock; the source; then the slots. The source has the bytes
 * before anyone is told (DESIGN, invariant 1). A resident page becomes a private frame with the new
 * content, or zero. A page that was not resident becomes unknown. A large write (64 KiB) is taken
 * for a stream: all its pages become unknown. If the source failed part of the way, the slots of
 * the whole range become unknown, and the next read asks the source.
 *
 * All of these block on the source. None is called within an RCU read side. Each returns what its
 * system call returns, errors as negative errno. FILE is what foldfs knows of the file's content.
 */
#ifndef FOLDFS_COW_BREAK_H
#define FOLDFS_COW_BREAK_H

#include "foldfs/file.h"

struct counters;

struct cow_break {
	struct page_store *store;  /* borrowed */
	struct counters *counters; /* borrowed */
};

/* pwrite(2). Bytes written. SEEN: what fstat returned earlier in this request; NULL: nothing. */
ssize_t cow_break_write(const struct cow_break *cow, struct file *file, struct source *source,
			const void *buffer, size_t length, off_t offset, const struct stat *seen);

/* ftruncate(2) on FD; or, if PATH is not NULL, truncate(2) on PATH, the file that FD is open on
 * (O_PATH will do). File systems may tell the two apart: if a file keeps its size, XFS changes its
 * times for ftruncate(2) only. */
errint_t cow_break_truncate(const struct cow_break *cow, struct file *file, int fd,
			    const char *path, off_t size);

/* fallocate(2) on FD, every mode that the source has. */
errint_t cow_break_fallocate(const struct cow_break *cow, struct file *file, int fd, int mode,
			     off_t offset, off_t length);

/* copy_file_range(2) from FD_IN into FILE, open as FD_OUT. Bytes copied: a long copy is cut short,
 * so that the call ends soon. */
ssize_t cow_break_copy(const struct cow_break *cow, int fd_in, off_t offset_in, struct file *file,
		       int fd_out, off_t offset_out, size_t length);

#endif
