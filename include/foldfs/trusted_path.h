/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trusted_path.h - directories that nobody else can replace
 *
 * foldfs believes what it finds in the state directory, and whoever answers at the control socket.
 * So such a directory is opened once, component by component, and used only by its descriptor from
 * then on.
 */
#ifndef FOLDFS_TRUSTED_PATH_H
#define FOLDFS_TRUSTED_PATH_H

#include "foldfs/page.h"

#include <sys/types.h>

/*
 * Open the directory at PATH for reading; the caller closes it. The directory and all that leads to
 * it (also by symbolic links) must belong to root or OWNER. Nobody else may write to the directory.
 * Nobody else may write to a directory that leads to it either, unless that is sticky: there only
 * the directory's owner can rename an entry of ours. With MAKE missing directories are made: the
 * directory itself with MODE, those that lead to it with 0755.
 *
 * -EPERM: somebody else could change it. Other -errno of what failed. May block.
 */
int trusted_path_open(const char *path, uid_t owner, bool make, mode_t mode);

/* Whether the directory open as FD itself has such an owner and mode. 0, -EPERM or -errno of
 * fstat. */
errint_t trusted_path_check(int fd, uid_t owner);

#endif
