/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dead_mount.h - whether a FUSE mount is dead, and its removal
 *
 * A FUSE mount whose daemon was killed, or whose connection was aborted, stays in its place and
 * answers everything with ENOTCONN.
 */
#ifndef FOLDFS_DEAD_MOUNT_H
#define FOLDFS_DEAD_MOUNT_H

#include "foldfs/mountinfo.h"

enum mount_life {
	MOUNT_ALIVE,
	MOUNT_DEAD,
	MOUNT_SILENT, /* it does not answer in time */
};

/*
 * Ask the FUSE mount of ENTRY, for a few seconds at most. Call it while there are no threads. A
 * living daemon that answers ENOTCONN because its own source is dead counts as dead.
 */
enum mount_life mount_life_of(const struct mount_entry *entry);

/* Take the dead mount of ENTRY away, but nothing that has taken its place. Call it while there are
 * no threads. -errno; -EPERM: it is not this user's. */
errint_t dead_mount_remove(const struct mount_entry *entry);

#endif
