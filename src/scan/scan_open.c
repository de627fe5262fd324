/* SPDX-License-Identifier: Apache-2.0 */
/* scan_open.c - opens what is scanned, beneath the root, unless it is leased; and whether a stamp
 * is old enough */
#include "foldfs/mountinfo.h"
#include "scan_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* No file system's stamps are coarser than this (FAT's have a resolution of two seconds). */
#define STAMP_SECONDS 2

/* Smaller files have no kin, so no mount holds leases on them: see COMMON_LEAST in
 * scan_family.c. */
#define LEASED_LEAST (UINT64_C(16) << FOLD_PAGE_SHIFT)

int scan_open(const struct scan *scan, const char *path)
{
	struct open_how how = {
		/* Do not wait for a writer of a pipe, or for the holder of a lease. */
		.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOATIME,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, scan->root_fd, path, &how, sizeof(how));

	/* O_NOATIME is only for a file's owner. */
	if (fd < 0 && errno == EPERM) {
		how.flags &= ~(uint64_t)O_NOATIME;
		fd = (int)syscall(SYS_openat2, scan->root_fd, path, &how, sizeof(how));
	}
	/* Linux before 5.6 has no openat2(). */
	if (fd < 0 && errno == ENOSYS)
		fd = openat(scan->root_fd, path,
			    O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

/* Whether the file at PATH is on the device MAJOR:MINOR. For a btrfs subvolume, stat(2) gives
 * another device than the list of locks, which gives that of its mount. */
static bool is_on(const struct scan *scan, const char *path, unsigned major, unsigned minor)
{
	int fd = openat(scan->root_fd, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct mount_entry entry;
	bool found = true; /* unless the kernel says otherwise */
	struct stat st;

	if (fd < 0)
		return false;
	if (fstat(fd, &st) || st.st_dev != makedev(major, minor)) {
		if (!mount_entry_of_fd(fd, &entry)) {
			found = entry.device_major == major && entry.device_minor == minor;
			mount_entry_clear(&entry);
		}
	}
	close(fd);
	return found;
}

/* Whether somebody holds a write lease on the file at PATH, which is INODE. */
static bool is_leased(const struct scan *scan, const char *path, ino_t inode)
{
	FILE *locks = fopen("/proc/locks", "re");
	unsigned major, minor;
	uintmax_t leased;
	char line[256];
	bool found = false;

	if (!locks)
		return false;
	while (!found && fgets(line, sizeof(line), locks))
		found = sscanf(line, "%*d: LEASE %*s WRITE %*d %x:%x:%ju", &major, &minor,
			       &leased) == 3 &&
			leased == inode && is_on(scan, path, major, minor);
	fclose(locks);
	return found;
}

int scan_open_file(const struct scan *scan, const char *path, ino_t inode, uint64_t size)
{
	int fd;

	if (size >= LEASED_LEAST && is_leased(scan, path, inode))
		return -EBUSY;
	fd = scan_open(scan, path);
	/* The lease was taken in between, or the file is a small one that is leased. */
	return fd == -EAGAIN ? -EBUSY : fd;
}

bool scan_stamp_is_old_enough(const struct scan *scan, const struct source_stamp *stamp)
{
	struct timespec now;

	/* A time of whole seconds is seldom chance: it means that the file system has no finer
	 * times for it. */
	if (scan->multigrain && stamp->device == scan->view.device && stamp->ctime.tv_nsec)
		return true;
	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec - stamp->ctime.tv_sec > STAMP_SECONDS &&
	       now.tv_sec - stamp->mtime.tv_sec > STAMP_SECONDS;
}
