/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_handle.h - file handles of a source: each names an object for as long as it exists
 *
 * Handles are those of the file system that the source's root lies on, reached by the same mount.
 * They are plain memory that the caller frees. Any thread; nothing here is shared.
 */
#ifndef FOLDFS_SOURCE_HANDLE_H
#define FOLDFS_SOURCE_HANDLE_H

#include "foldfs/page.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>

/* Constant after source_handle_init(). */
struct source_handles {
	int mount_fd;  /* for open_by_handle_at(); -1: there are no handles here */
	int mount_id;  /* of the root */
	unsigned room; /* bytes that take nearly every handle here, after struct file_handle */
};

/* For the directory open as ROOT_FD. Handles are available if the file system has them, and we may
 * open them. */
void source_handle_init(struct source_handles *handles, int root_fd);
void source_handle_close(struct source_handles *handles);

/* The handle of the object open as FD (O_PATH will do). NULL: it has no handle that can be opened
 * here, or there is no memory. */
struct file_handle *source_handle_get(const struct source_handles *handles, int fd);
/* The same, into *HANDLE, after which there are ROOM bytes. False: there is no such handle, or it
 * is too large. */
bool source_handle_fill(const struct source_handles *handles, int fd, unsigned room,
			struct file_handle *handle);
/*
 * open_by_handle_at(2); MOUNT_FD is as that call requires it. -1 and errno.
 *
 * While the handle's inode number is being given to a new file, the kernel says ENOMEM, not ESTALE
 * (I_CREATING in fs/inode.c; measured on ext4, Linux 6.18). So this waits until that file is made,
 * for a second or two. Then it returns ENOMEM.
 */
int source_handle_open(int mount_fd, struct file_handle *handle, int flags);

size_t source_handle_size(const struct file_handle *handle);
bool source_handle_equal(const struct file_handle *a, const struct file_handle *b);

#endif
