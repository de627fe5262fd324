/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links.c - whether two names are one file for good
 *
 * No attribute distinguishes two of the kernel's inodes that have the same number. But an inotify
 * descriptor has only one watch for each inode. A second request to watch the same inode returns
 * the number of the first watch.
 */
#include "links.h"

#include "foldfs/mountinfo.h"
#include "foldfs/proc_fd.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/statfs.h>
#include <unistd.h>

void links_init(struct links *links)
{
	pthread_mutex_init(&links->lock, NULL);
	links->watches = -1;
}

void links_clear(struct links *links)
{
	if (links->watches >= 0)
		close(links->watches);
	pthread_mutex_destroy(&links->lock);
}

/* Overlayfs's default for index, used if no mount option sets it. */
static bool index_is_default(void)
{
	int fd = open("/sys/module/overlay/parameters/index", O_RDONLY | O_CLOEXEC);
	char answer = 'N';

	if (fd < 0)
		return false;
	if (read(fd, &answer, 1) != 1)
		answer = 'N';
	close(fd);
	return answer == 'Y';
}

static bool options_may_part(const char *options)
{
	/* Without an upper layer nothing is copied up. */
	if (!strstr(options, ",upperdir=") || mount_option_is_set(options, "index=on"))
		return false;
	return mount_option_is_set(options, "index=off") || !index_is_default();
}

bool links_may_part(int fd)
{
	struct mount_entry entry = {0};
	struct statfs fs;
	bool result;

	if (fstatfs(fd, &fs) || fs.f_type != OVERLAYFS_SUPER_MAGIC)
		return false;
	if (mount_entry_of_fd(fd, &entry))
		return true;
	result = options_may_part(entry.super_options);
	mount_entry_clear(&entry);
	return result;
}

static int watch_locked(const struct links *links, int fd)
{
	char path[PROC_FD_BYTES];

	return inotify_add_watch(links->watches, proc_fd(path, fd), IN_DELETE_SELF);
}

/* Remove WATCH, and the events that report its end. */
static void unwatch_locked(const struct links *links, int watch)
{
	char events[4096];

	if (watch >= 0)
		(void)inotify_rm_watch(links->watches, watch);
	while (read(links->watches, events, sizeof(events)) > 0)
		;
}

bool links_are_one(struct links *links, int a, int b)
{
	bool result = false;
	int first, second;

	pthread_mutex_lock(&links->lock);
	if (links->watches < 0)
		links->watches = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (links->watches >= 0) {
		first = watch_locked(links, a);
		second = watch_locked(links, b);
		result = first >= 0 && first == second;
		unwatch_locked(links, first);
		if (!result)
			unwatch_locked(links, second);
	}
	pthread_mutex_unlock(&links->lock);
	return result;
}
