/* SPDX-License-Identifier: Apache-2.0 */
/*
 * border.c - which file systems that are mounted below a source are served with it
 *
 * Invariants:
 *   B.1 A file system that is not served is asked nothing. The first look is AT_STATX_DONT_SYNC,
 *       which takes what the kernel has. So it is reliable only for the device and the mount.
 *   B.2 That look is all there is where it is as good as any other: on the root's own file system,
 *       if that is local. So a look-up there costs one system call, as without borders.
 *   B.3 A mount that cannot be identified is not served.
 */
#include "foldfs/border.h"

#include "foldfs/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U /* Linux 6.8, include/uapi/linux/stat.h */
#endif

/* Not in this list: hugetlbfs, ramfs and devtmpfs. Their files are judged by their modes like any
 * others. */
static const char *const pseudo_types[] = {
	"autofs",  "binder",     "binfmt_misc", "bpf",         "cgroup",     "cgroup2", "configfs",
	"cpuset",  "debugfs",    "devpts",      "efivarfs",    "functionfs", "fusectl", "gadgetfs",
	"mqueue",  "nfsd",       "nsfs",        "ocfs2_dlmfs", "openpromfs", "proc",    "pstore",
	"resctrl", "rpc_pipefs", "s390_hypfs",  "securityfs",  "selinuxfs",  "smackfs", "spufs",
	"sysfs",   "tracefs",    "xenfs",
};

bool border_is_pseudo(const char *type)
{
	for (size_t i = 0; i < sizeof(pseudo_types) / sizeof(pseudo_types[0]); i++)
		if (strcmp(type, pseudo_types[i]) == 0)
			return true;
	return false;
}

static bool is_local(const struct statfs *fs)
{
	return fs->f_type == EXT4_SUPER_MAGIC || fs->f_type == XFS_SUPER_MAGIC ||
	       fs->f_type == BTRFS_SUPER_MAGIC || fs->f_type == TMPFS_MAGIC;
}

static errint_t look(int fd, const char *name, struct statx *ret_stat)
{
	const int flags =
		AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC;

	return statx(fd, name, flags, STATX_BASIC_STATS | STATX_MNT_ID | STATX_MNT_ID_UNIQUE,
		     ret_stat)
		       ? -errno
		       : 0;
}

static uint64_t mount_of(const struct statx *stx)
{
	return stx->stx_mask & (STATX_MNT_ID | STATX_MNT_ID_UNIQUE) ? stx->stx_mnt_id : 0;
}

static dev_t device_of(const struct statx *stx)
{
	return makedev(stx->stx_dev_major, stx->stx_dev_minor);
}

errint_t border_init(struct border *border, int root_fd, enum border_way way)
{
	struct statfs fs;
	struct statx stx;
	errint_t error = look(root_fd, "", &stx);

	if (!error && fstatfs(root_fd, &fs))
		error = -errno;
	if (error)
		return error;
	*border = (struct border){
		.way = way,
		.device = device_of(&stx),
		.mount = mount_of(&stx),
		.unique = stx.stx_mask & STATX_MNT_ID_UNIQUE,
		.local = is_local(&fs),
		.self = geteuid(),
	};
	return 0;
}

static struct timespec time_of(const struct statx_timestamp *time)
{
	return (struct timespec){.tv_sec = time->tv_sec, .tv_nsec = time->tv_nsec};
}

static void take(const struct statx *stx, struct stat *ret_stat)
{
	*ret_stat = (struct stat){
		.st_dev = device_of(stx),
		.st_ino = stx->stx_ino,
		.st_mode = stx->stx_mode,
		.st_nlink = stx->stx_nlink,
		.st_uid = stx->stx_uid,
		.st_gid = stx->stx_gid,
		.st_rdev = makedev(stx->stx_rdev_major, stx->stx_rdev_minor),
		.st_size = (off_t)stx->stx_size,
		.st_blksize = (blksize_t)stx->stx_blksize,
		.st_blocks = (blkcnt_t)stx->stx_blocks,
		.st_atim = time_of(&stx->stx_atime),
		.st_mtim = time_of(&stx->stx_mtime),
		.st_ctim = time_of(&stx->stx_ctime),
	};
}

/* Whether the file system mounted where FD is open is served: 0 or -EXDEV. Other -errno: not
 * known. */
static errint_t judge(const struct border *border, int fd)
{
	struct mount_entry entry = {0};
	errint_t error = mount_entry_of_fd(fd, &entry);
	bool refused = !error && (border_is_pseudo(entry.type) ||
				  (strncmp(entry.type, "fuse", 4) == 0 && entry.owner != 0 &&
				   entry.owner != border->self));

	mount_entry_clear(&entry);
	return refused ? -EXDEV : error;
}

static errint_t judge_at(const struct border *border, int fd, const char *name)
{
	int object = *name ? openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : fd;
	errint_t error = object < 0 ? -errno : judge(border, object);

	if (object >= 0 && object != fd)
		close(object);
	return error;
}

/* Cross the border to NAME in FD, on MOUNT (0: not known). 0, -EXDEV or another -errno. */
static errint_t cross(struct border *border, int fd, const char *name, uint64_t mount)
{
	_Atomic uint64_t *place = &border->verdicts[mount % BORDER_VERDICTS];
	uint64_t verdict = atomic_load_explicit(place, memory_order_relaxed);
	errint_t error;

	if (border->way != BORDER_NO_PSEUDO)
		return border->way == BORDER_PSEUDO_TOO ? 0 : -EXDEV;
	if (border->unique && verdict >> 1 == mount)
		return verdict & 1 ? 0 : -EXDEV;
	error = judge_at(border, fd, name);
	if (border->unique && (!error || error == -EXDEV))
		atomic_store_explicit(place, mount << 1 | !error, memory_order_relaxed);
	/* The mount is in no list: it was just taken away, or cannot be seen from here. */
	return error == -ENOENT ? -EXDEV : error;
}

errint_t border_stat(struct border *border, int fd, const char *name, dev_t parent,
		     struct stat *ret_stat)
{
	struct statx stx;
	errint_t error = look(fd, name, &stx);
	uint64_t mount;
	dev_t device;

	if (error)
		return error;
	device = device_of(&stx);
	mount = mount_of(&stx);
	if (device == border->device && border->local) {
		take(&stx, ret_stat);
		return 0;
	}
	/* Within one mount an object may have another device: a subvolume, a layer. */
	if (device != parent && (!mount || mount != border->mount))
		error = cross(border, fd, name, mount);
	if (!error &&
	    fstatat(fd, name, ret_stat, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT))
		error = -errno;
	return error;
}
