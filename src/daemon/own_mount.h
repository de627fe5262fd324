/* SPDX-License-Identifier: Apache-2.0 */
/*
 * own_mount.h - the daemon's own mount: where it is now, whether it stands, how it is taken away
 *
 * Others may move it, unmount it, mount something else at its place, or abort its connection, at
 * any moment. Paths, device numbers and mount ids are given out again, so none of them says that a
 * mount is ours. What does is the connection: see own_mount.c.
 */
#ifndef FOLDFS_OWN_MOUNT_H
#define FOLDFS_OWN_MOUNT_H

#include "foldfs/mountinfo.h"

struct own_mount {
	struct mount_entry entry; /* as it was made */
	uint64_t unique_id;       /* that no other mount ever has; 0: unknown */
	int device;               /* the connection's; borrowed; -1: nothing is mounted */
	int waiting, abort;       /* its files of these names in fusectl; -1: cannot be had */
};

#define OWN_MOUNT_NONE                                                                             \
	{                                                                                          \
		.device = -1, .waiting = -1, .abort = -1                                           \
	}

/* Just mounted on MOUNTPOINT by the connection DEVICE: note which one it is. -ENOENT: it is gone
 * already. Once, before any of the others, which any thread may call then. */
errint_t own_mount_note(const char *mountpoint, int device, struct own_mount *ret_mount);
void own_mount_clear(struct own_mount *mount);

/*
 * Its root, as an O_PATH descriptor, the caller's: until that is closed nobody unmounts it, but
 * lazily. Asks the mount nothing. -ENOENT: it is not mounted any more, or under something else;
 * -ENOTCONN: its connection has ended, so whatever stands there is not for the daemon to remove.
 */
int own_mount_open(const struct own_mount *mount);

/* The connection has ended: whether a mount of it still stands, that is, it was aborted. With ANY a
 * bind mount counts as well. Once: that file is read from its beginning a single time. */
bool own_mount_is_left(const struct own_mount *mount, bool any);

/* Where it is, or a bind mount of it where that is all there is. Malloced; NULL: nowhere in this
 * mount namespace, or no memory. */
char *own_mount_place(const struct own_mount *mount);

#endif
