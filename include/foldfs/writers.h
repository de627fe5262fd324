/* SPDX-License-Identifier: Apache-2.0 */
/*
 * writers.h - who may write to a source file, and whose word counts for whose file
 *
 * A file's stamp says that the file was not changed. Its owner can make that a lie:
 * EXT4_IOC_MOVE_EXT gives a file other blocks and moves no time. And a user who may write need not
 * lie: a plain write does it. So what file A says of file B's content counts only if everybody who
 * can write to A can also write to B. That is one number for each file, and one rule:
 * writers_may_speak().
 *
 * Everything that takes content, or proof of it, from one file for another asks this rule:
 *
 * - the file that others of a class are compared with, and the one that backs them
 * - the leader and the founder of a family
 * - the file that tells the memory of a family, and the file that adopts from it
 * - the file that a kept copy is made of (docs/catalogue.md)
 *
 * Nothing here has a state or a lock. Any thread.
 */
#ifndef FOLDFS_WRITERS_H
#define FOLDFS_WRITERS_H

#include "foldfs/page.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* Only root, or the user that the daemon runs as, may write. */
#define WRITERS_TRUSTED UINT64_C(0)
/* Anybody may write, or it cannot be told who. */
#define WRITERS_UNKNOWN UINT64_MAX

/* The point of view from which files are judged; constant once made. */
struct writers_view {
	dev_t device; /* the source's; on another device an owner is whatever some user's mount
		       * says */
	uid_t user;   /* the daemon's own, whatever identity one of its threads has for the
		       * moment */
};

/* The view of this process on the source whose root is open as ROOT_FD. -errno of fstat. */
errint_t writers_view_of(int root_fd, struct writers_view *ret_view);

/*
 * Who may write to the file open as FD, found as ST:
 *
 *   WRITERS_TRUSTED       root or the daemon's user owns it, and nobody else may write to it
 *   uid << 32             its owner alone, besides root
 *   uid << 32 | gid + 1   its owner and its group, besides root
 *   WRITERS_UNKNOWN       all else: others may write, an ACL says who may, the owner is unknown
 *                         here, or the file is on another device than the source's root
 *
 * At most one system call, and only for a file that its group may write to.
 */
uint64_t writers_of(const struct writers_view *view, int fd, const struct stat *st);

/* Whether what a file of writers SPEAKER says of its content counts for one of writers LISTENER. */
static inline bool writers_may_speak(uint64_t speaker, uint64_t listener)
{
	return speaker == WRITERS_TRUSTED || (speaker == listener && speaker != WRITERS_UNKNOWN);
}

/* Whether everybody may read the file open as FD, found as ST. One system call at most. */
bool writers_all_may_read(int fd, const struct stat *st);
/* Whether everybody may go through the directory open as FD, found as ST. One system call at
 * most. */
bool writers_all_may_pass(int fd, const struct stat *st);

#endif
