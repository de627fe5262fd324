/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links.h - whether two names are one file for good
 *
 * Without index=on, overlayfs shows several names of a lower file with one inode number, as links.
 * It parts them when one is written: that one is copied up, the others stay. A file that was opened
 * by one of the names follows that name. So two such names with the same number are one file only
 * if the kernel has one inode for both. That is the case for names of a file in the upper layer.
 */
#ifndef FOLDFS_LINKS_H
#define FOLDFS_LINKS_H

#include "foldfs/page.h"

#include <pthread.h>
#include <stdbool.h>

struct links {
	pthread_mutex_t lock;
	int watches; /* inotify descriptor; -1: not needed so far. Under lock */
};

void links_init(struct links *links);
void links_clear(struct links *links);

/* Whether links may be parted in the file system that FD is on (O_PATH will do). True also if that
 * cannot be found out. */
bool links_may_part(int fd);

/* Whether the kernel has one inode for the objects open as A and B (O_PATH will do). False also if
 * that cannot be found out: the daemon may not read the object, or has no watch left. Uses the
 * daemon's own rights. Any thread; does not access a disk. */
bool links_are_one(struct links *links, int a, int b);

#endif
