/* SPDX-License-Identifier: Apache-2.0 */
/*
 * writers.h - who may write to a source file, and whose word counts for whose file
 *
 * A file's stamp says that it was not changed. Its owner can make that a lie: EXT4_IOC_MOVE_EXT
 * gives a file other blocks and moves no time. And who has no need to lie just writes. So what one
 * file says of another's content counts only if nobody can write to the first who could not write
 * to the other. That is one number for each file, and one rule: writers_may_speak().
 *
 * Everything that takes content, or proof of it, from one file for another asks it: the file that
 * others of a class are compared with, and the one that backs them; the leader and the founder of a
 * family; who tells the memory of a family, and who adopts from it; the file that a kept copy is
 * made of (docs/catalogue.md).
 *
 * Nothing here has a state or a lock. Any thread.
 */
#ifndef FOLDFS_WRITERS_H
#define FOLDFS_WRITERS_H

#include "foldfs/page.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* Root alone, or the user that the daemon runs as. */
#define WRITERS_TRUSTED UINT64_C(0)
/* Anybody, or it cannot be told. */
#define WRITERS_UNKNOWN UINT64_MAX

/* From where files are looked at; constant once made. */
struct writers_view {
	dev_t device; /* the source's: elsewhere an owner is what a mount of somebody's says */
	uid_t user;   /* the daemon's own, whatever identity a thread of it has for the moment */
};

/* The view of this process on the source whose root is open as ROOT_FD. -errno of fstat. */
errint_t writers_view_of(int root_fd, struct writers_view *ret_view);

/*
 * Who may write to the file open as FD, found as ST:
 *
 *   WRITERS_TRUSTED       root or the daemon's user owns it, and nobody else may write to it
 *   uid << 32             its owner alone, besides root
 *   uid << 32 | gid + 1   its owner and its group, besides root
 *   WRITERS_UNKNOWN       all else: others may, an ACL says who, the owner is none that is known
 *                         here, or it is on another device than the source's root
 *
 * At most one system call, for a file that its group may write to.
 */
uint64_t writers_of(const struct writers_view *view, int fd, const struct stat *st);

/* Whether what a file of writers SPEAKER says of its content counts for one of writers LISTENER. */
static inline bool writers_may_speak(uint64_t speaker, uint64_t listener)
{
	return speaker == WRITERS_TRUSTED || (speaker == listener && speaker != WRITERS_UNKNOWN);
}

/* Whether everybody may read the file open as FD, found as ST. One system call at most. */
bool writers_all_may_read(int fd, const struct stat *st);
/* Whether everybody may go through the directory open as FD, found as ST. The same. */
bool writers_all_may_pass(int fd, const struct stat *st);

#endif
