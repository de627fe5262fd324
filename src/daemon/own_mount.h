/* SPDX-License-Identifier: Apache-2.0 */
/*
 * own_mount.h - the daemon's own mount: where it is now, whether it stands, how it is taken away
 *
 * Others may at any moment move it, unmount it, mount something else at its place, or abort its
 * connection. Paths, device numbers and mount ids are given out again, so none of them proves that
 * a mount is ours. The connection does: see own_mount.c.
 */
#ifndef FOLDFS_OWN_MOUNT_H
#define FOLDFS_OWN_MOUNT_H

#include "foldfs/mountinfo.h"

struct own_mount {
	struct mount_entry entry; /* as it was at the mount */
	uint64_t unique_id;       /* that no other mount ever has; 0: unknown */
	int device;               /* the connection's; borrowed; -1: nothing is mounted */
	int waiting, abort;       /* the connection's files of these names in fusectl; -1: not
				   * available */
};

#define OWN_MOUNT_NONE                                                                             \
	{                                                                                          \
		.device = -1, .waiting = -1, .abort = -1                                           \
	}

/* Call it just after mounting on MOUNTPOINT by the connection DEVICE: note which mount it is.
 * -ENOENT: it is gone already. Call it once, and before any of the other functions; those may be
 * called by any thread afterwards. */
errint_t own_mount_note(const char *mountpoint, int device, struct own_mount *ret_mount);
void own_mount_clear(struct own_mount *mount);

/*
 * An O_PATH descriptor of the mount's root, which is the caller's. While it is open, the mount can
 * only be unmounted lazily. Asks the mount nothing. -ENOENT: it is not mounted any more, or
 * something else is mounted over it. -ENOTCONN: its connection has ended, so a mount that still
 * stands there is not for the daemon to remove.
 */
int own_mount_open(const struct own_mount *mount);

/* After the connection has ended: whether a mount of it still stands, which means that it was
 * aborted. With ANY a bind mount counts as well. Call it once: that file can be read from its
 * beginning a single time. */
bool own_mount_is_left(const struct own_mount *mount, bool any);

/* Where the mount is; if only a bind mount of it is left, where that is. Malloced; NULL: nowhere in
 * this mount namespace, or no memory. */
char *own_mount_place(const struct own_mount *mount);

#endif
