/* SPDX-License-Identifier: Apache-2.0 */
/*
 * border.h - which file systems that are mounted below a source are served with it
 *
 * Not served, unless the mount asks for it:
 *
 * - Pseudo file systems (proc, cgroup2, debugfs, …). Their files give access to the kernel. The
 *   kernel checks who opened such a file, not only its mode, and the opener would be the daemon.
 * - FUSE file systems of other users. Their owner decides when they answer, or whether they do at
 *   all, and a thread of the daemon would wait for them.
 *
 * A border is crossed where an object is on another device than its directory, and on another mount
 * than the source. Only there is the mount looked up in /proc/self/mountinfo, which asks the file
 * system nothing. Device numbers are reused. So a verdict is cached under the mount's unique number
 * (Linux 6.8), or not cached at all.
 */
#ifndef FOLDFS_BORDER_H
#define FOLDFS_BORDER_H

#include "foldfs/page.h"

#include <sys/stat.h>
#include <sys/types.h>

#define BORDER_VERDICTS 64u

enum border_way {
	BORDER_NO_PSEUDO,  /* as described above */
	BORDER_PSEUDO_TOO, /* all is served */
	BORDER_ONE,        /* nothing that is mounted below is served */
};

/* Constant after border_init(), except verdicts. */
struct border {
	enum border_way way;
	dev_t device;   /* the root's device */
	uint64_t mount; /* the root's mount; 0: the kernel does not say */
	bool unique;    /* mount numbers are unique: never given again */
	bool local;     /* no other machine changes the root's file system */
	uid_t self;
	_Atomic uint64_t verdicts[BORDER_VERDICTS]; /* mount << 1 | served; 0: none. Relaxed */
};

/* The source is open as ROOT_FD. -errno. */
errint_t border_init(struct border *border, int root_fd, enum border_way way);

/* The attributes of NAME in the directory open as FD, which is on device PARENT. With NAME "", of
 * the object open as FD. Does not follow symbolic links, and triggers no automount. -EXDEV: the
 * object is not served, and its file system was asked nothing. Other -errno. Any thread, no lock.
 * May block on a file system that is served. */
errint_t border_stat(struct border *border, int fd, const char *name, dev_t parent,
		     struct stat *ret_stat);

/* Whether a file system of TYPE, as /proc/filesystems names it, is a pseudo file system. */
bool border_is_pseudo(const char *type);

#endif
