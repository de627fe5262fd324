/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handles.h - file handles of a source: what names an object for as long as it is there
 *
 * Handles are those of the file system that the source's root lies on, by the mount it was reached
 * by. They are plain memory, the caller's to free. Any thread; nothing here is shared.
 */
#ifndef FOLDFS_HANDLES_H
#define FOLDFS_HANDLES_H

#include "foldfs/page.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>

/* Constant after handles_init(). */
struct handles {
	int mount_fd; /* for open_by_handle_at(); -1: there are no handles here */
	int mount_id; /* of the root */
};

/* For the directory open as ROOT_FD. There are handles if the file system has them, and we may open
 * them. */
void handles_init(struct handles *handles, int root_fd);
void handles_close(struct handles *handles);

/* The handle of the object open as FD (O_PATH will do), if it has one that can be opened here; NULL
 * if not, or for want of memory. */
struct file_handle *handles_get(const struct handles *handles, int fd);
/*
 * open_by_handle_at(2), with MOUNT_FD as it wants it; -1 and errno.
 *
 * The kernel says ENOMEM, not ESTALE, while the handle's inode number is being given to a new file
 * (I_CREATING in fs/inode.c; measured on ext4, Linux 6.18). So this waits until that file is made,
 * for a second or two; then ENOMEM is handed on.
 */
int handles_open(int mount_fd, struct file_handle *handle, int flags);

size_t handles_size(const struct file_handle *handle);
bool handles_equal(const struct file_handle *a, const struct file_handle *b);

#endif
