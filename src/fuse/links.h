/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links.h - whether two names are one file for good
 *
 * Overlayfs without index=on shows several names of a lower file with one inode number, as links.
 * It parts them when one is written: that one is copied up, the others stay. What was opened by one
 * of the names follows that name. So two that have one number there are one file only if they are
 * one inode to the kernel, as names of a file in the upper layer are.
 */
#ifndef FOLDFS_LINKS_H
#define FOLDFS_LINKS_H

#include "foldfs/page.h"

#include <pthread.h>
#include <stdbool.h>

struct links {
	pthread_mutex_t lock;
	int watches; /* inotify's; -1: none was needed yet. Under lock */
};

void links_init(struct links *links);
void links_clear(struct links *links);

/* Whether links may be parted in the file system that FD is on (O_PATH will do). What cannot be
 * told may be. */
bool links_may_part(int fd);

/* Whether what is open as A and B (O_PATH will do) is one inode to the kernel. False also if that
 * cannot be told: the daemon may not read it, or has no watch left. With the daemon's own rights.
 * Any thread; asks nothing of a disk. */
bool links_are_one(struct links *links, int a, int b);

#endif
