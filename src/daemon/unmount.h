/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unmount.h - takes a mount away, even if it is in use
 *
 * ROOT, a descriptor of the mount's root (mount_entry_open()), names the mount. Another mount that
 * is on its path by now is left alone.
 */
#ifndef FOLDFS_UNMOUNT_H
#define FOLDFS_UNMOUNT_H

#include "foldfs/page.h"

/* Unmount now. With FORCE a FUSE connection is ended first, so that callers who wait in it get an
 * error. -EPERM: a plain user needs fusermount3 for it. -errno. */
errint_t unmount_lazily(int root, bool force);

/* Have fusermount3 unmount it, and wait for that. fusermount3 goes by the path; but while ROOT is
 * open, only somebody else's lazy unmount could take the mount away meanwhile. To find out whether
 * it succeeded, look for the mount afterwards. */
void unmount_by_fusermount(int root);

#endif
