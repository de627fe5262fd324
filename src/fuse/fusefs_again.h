/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_again.h - requests that come once more, because the worker that had them in hand died
 *
 * Most requests may be handled twice: their second time does no harm, and has the same answer. This
 * is for the others. Before such a change of the source, its request notes that it begins
 * (session_change_begins()). If the request comes once more, the functions below tell from what is
 * there now whether the dead worker had made the change. They are all false for a request that
 * comes for the first time.
 *
 * The kernel holds the directories of a request locked until it has the answer. So between the two
 * times no client of the mount can have made or removed the name.
 */
#ifndef FOLDFS_FUSEFS_AGAIN_H
#define FOLDFS_FUSEFS_AGAIN_H

#include "foldfs/page.h"

#include <sys/types.h>

struct stat;

/* The type S_IFMT of an object with MODE; for a device RDEV; for a symlink TARGET. */
struct again_object {
	mode_t mode;
	dev_t rdev;
	const char *target;
};

/* Making NAME in DIRECTORY_FD said that it exists: whether it is the OBJECT that was to be made. */
bool fusefs_again_made(int directory_fd, const char *name, const struct again_object *object);

/* Linking the object open as FD to NAME said that it exists: whether that is the link. */
bool fusefs_again_linked(int directory_fd, const char *name, int fd);

/* A name is about to be removed, which stands for the object found as VICTIM (NULL: for none). */
void fusefs_again_removes(const struct stat *victim);
/* The removal said that there is no such name: whether there was one. */
bool fusefs_again_removed(void);

/* NAME in FROM_FD, found as MOVED, is about to become NEWNAME in TO_FD, found as VICTIM. NULL: there
 * is none. Returns whether that was done before. */
bool fusefs_again_renamed(int from_fd, const char *name, const struct stat *moved, int to_fd,
			  const char *newname, const struct stat *victim, unsigned flags);

/* Setting the attribute NAME of the object at PATH said that it exists: whether it has the VALUE
 * that was to be set. */
bool fusefs_again_set(const char *path, const char *name, const char *value, size_t size);
/* Removing an attribute said that there is none: whether there was one. */
bool fusefs_again_unset(const char *path);

/* BYTES are about to be appended to the file open as FD. Returns how many of them were appended
 * before. */
size_t fusefs_again_appended(int fd, size_t bytes);

#endif
