/* SPDX-License-Identifier: Apache-2.0 */
/*
 * border.h - which file systems that are mounted below a source are served with it
 *
 * Not served, unless that is asked for:
 *
 * - Pseudo file systems (proc, cgroup2, debugfs, …). Their files are the kernel's doors: what goes
 *   through is judged by who opened them, not by their modes alone. The opener would be the daemon.
 * - FUSE file systems of other users. They answer when their owner likes, or never, and a thread of
 *   the daemon would wait for them.
 *
 * A border is crossed where an object is on another device than its directory, and on another mount
 * than the source. There the mount is looked up in /proc/self/mountinfo, which asks the file system
 * nothing. Device numbers are given out again, so what was found is kept by the mount's unique
 * number (Linux 6.8), or not at all.
 */
#ifndef FOLDFS_BORDER_H
#define FOLDFS_BORDER_H

#include "foldfs/page.h"

#include <sys/stat.h>
#include <sys/types.h>

#define BORDER_VERDICTS 64u

enum border_way {
	BORDER_NO_PSEUDO,  /* what is said above */
	BORDER_PSEUDO_TOO, /* all is served */
	BORDER_ONE,        /* nothing that is mounted below */
};

/* Constant after border_init(), but what is marked. */
struct border {
	enum border_way way;
	dev_t device;   /* the root's */
	uint64_t mount; /* the same; 0: the kernel does not say */
	bool unique;    /* mounts are known by numbers that are never given again */
	bool local;     /* nobody changes the root's file system from elsewhere */
	uid_t self;
	_Atomic uint64_t verdicts[BORDER_VERDICTS]; /* mount << 1 | served; 0: none. Relaxed */
};

/* The source is open as ROOT_FD. -errno. */
errint_t border_init(struct border *border, int root_fd, enum border_way way);

/* The attributes of NAME in the directory open as FD, which is on device PARENT; with NAME "" of
 * what is open as FD. Symbolic links are not followed, and nothing is mounted by looking. -EXDEV:
 * it is not served, and nothing was asked of it; else -errno. Any thread, no lock. May block on a
 * file system that is served. */
errint_t border_stat(struct border *border, int fd, const char *name, dev_t parent,
		     struct stat *ret_stat);

/* Whether a file system of TYPE, as /proc/filesystems names it, is a pseudo file system. */
bool border_is_pseudo(const char *type);

#endif
