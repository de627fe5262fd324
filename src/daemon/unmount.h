/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unmount.h - take a mount away, whoever is in it
 *
 * A mount is named by ROOT, a descriptor of its root (mount_entry_open()): what else may be on its
 * path by now is not meant.
 */
#ifndef FOLDFS_UNMOUNT_H
#define FOLDFS_UNMOUNT_H

#include "foldfs/page.h"

/* Now. With FORCE a FUSE connection ends first, so that those who wait in it get an error. -EPERM:
 * a plain user needs fusermount3 for it. -errno. */
errint_t unmount_lazily(int root, bool force);

/* Have fusermount3 do it, and wait for that. It goes by the path; but as ROOT is open, only a lazy
 * unmount by somebody else could take the mount away meanwhile. What is left says
 * whether it did. */
void unmount_by_fusermount(int root);

#endif
