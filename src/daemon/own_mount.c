/* SPDX-License-Identifier: Apache-2.0 */
/*
 * own_mount.c - the daemon's own mount: where it is now, whether it stands, how it is taken away
 *
 * The kernel gives out a device number and a mount's id again as soon as the mount is gone, and the
 * next mount at the same place is likely to get both. So these two only find a mount; the
 * connection tells whether that mount is ours:
 *
 *  M.1  While the connection is alive, so is its file system, and no other one has its device
 *       number. If a thread opens something of that number and sees afterwards that the connection
 *       still lives, what it opened is ours. An open descriptor keeps it so.
 *  M.2  An open file of fusectl stays with its connection, and becomes empty once the connection
 *       has no file system. This happens before the device number is given out again. So a mount
 *       with our number was ours if it was seen while the file still had content. Where there is no
 *       such file (a plain user's mount in a container), the mount's unique id tells. Before Linux
 *       6.8 there is none, and a mount that looks like ours is taken for ours. That is used for
 *       messages only.
 *
 * By M.1 a mount is taken away, through the descriptor and not by its path. A mount whose
 * connection has ended is never taken away. Either the kernel has unmounted it, or the connection
 * was aborted; then clients have to get errors instead of what is below the mount.
 */
#include "own_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u
#endif

#define CONNECTIONS "/sys/fs/fuse/connections"

/* Make a mount of fusectl that is attached nowhere, for systems where fusectl is not mounted. */
static int mount_fusectl(void)
{
	int context = fsopen("fusectl", FSOPEN_CLOEXEC);
	int fd = -1;

	if (context < 0)
		return -1;
	if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		fd = fsmount(context, FSMOUNT_CLOEXEC, 0);
	close(context);
	return fd;
}

/* Open the file NAME of a connection. -1, with errno. */
static int open_connection_file(unsigned connection, const char *name, int flags)
{
	char path[64];
	int directory = -1;
	int fd;

	snprintf(path, sizeof(path), CONNECTIONS "/%u/%s", connection, name);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		directory = mount_fusectl();
	if (directory >= 0) {
		snprintf(path, sizeof(path), "%u/%s", connection, name);
		fd = openat(directory, path, flags | O_CLOEXEC);
		close(directory);
	}
	return fd;
}

/* The unique id of the mount of ENTRY, which is never given out again; 0: before Linux 6.8. */
static uint64_t unique_id_of(const struct mount_entry *entry)
{
	int fd = mount_entry_open(entry);
	struct statx stx = {0};

	if (fd < 0)
		return 0;
	(void)statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC,
		    STATX_MNT_ID_UNIQUE, &stx);
	close(fd);
	return stx.stx_mask & STATX_MNT_ID_UNIQUE ? stx.stx_mnt_id : 0;
}

static bool is_connected(const struct own_mount *mount)
{
	struct pollfd device = {.fd = mount->device};

	return mount->device >= 0 && poll(&device, 1, 0) == 0;
}

errint_t own_mount_note(const char *mountpoint, int device, struct own_mount *ret_mount)
{
	struct own_mount mount = {.device = device, .waiting = -1, .abort = -1};
	errint_t error = mount_entry_find(mountpoint, &mount.entry);

	if (error)
		return error;
	mount.waiting = open_connection_file(mount.entry.device_minor, "waiting", O_RDONLY);
	mount.abort = open_connection_file(mount.entry.device_minor, "abort", O_WRONLY);
	mount.unique_id = unique_id_of(&mount.entry);
	/* What was found is ours only if the connection is still alive now (M.1). */
	if (!is_connected(&mount)) {
		own_mount_clear(&mount);
		return -ENOENT;
	}
	*ret_mount = mount;
	return 0;
}

void own_mount_clear(struct own_mount *mount)
{
	mount_entry_clear(&mount->entry);
	if (mount->waiting >= 0)
		close(mount->waiting);
	if (mount->abort >= 0)
		close(mount->abort);
	*mount = (struct own_mount)OWN_MOUNT_NONE;
}

int own_mount_open(const struct own_mount *mount)
{
	struct mount_entry entry = {0};
	errint_t error;
	int fd;

	if (!is_connected(mount))
		return -ENOTCONN;
	error = mount_entry_find_again(&mount->entry, false, &entry);
	if (error)
		return error;
	fd = mount_entry_open(&entry);
	mount_entry_clear(&entry);
	if (fd < 0 || is_connected(mount)) /* M.1 */
		return fd;
	close(fd);
	return -ENOTCONN;
}

bool own_mount_is_left(const struct own_mount *mount, bool any)
{
	struct mount_entry entry = {0};
	bool told = mount->waiting >= 0; /* M.2 */
	bool left;
	char byte;

	if (mount->device < 0 || mount_entry_find_again(&mount->entry, any && told, &entry) != 0)
		return false;
	left = told ? read(mount->waiting, &byte, 1) == 1
		    : unique_id_of(&entry) == mount->unique_id;
	mount_entry_clear(&entry);
	return left;
}

char *own_mount_place(const struct own_mount *mount)
{
	struct mount_entry entry = {0};
	char *place = NULL;

	if (mount->device >= 0 && mount_entry_find_again(&mount->entry, true, &entry) == 0)
		place = strdup(entry.mountpoint);
	mount_entry_clear(&entry);
	return place;
}
