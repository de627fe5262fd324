/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preflight.c - before the mount: finds what can be wrong with it
 *
 * Everything that can be checked is checked before anything is made. An error is reported in one
 * sentence.
 */
#include "preflight.h"

#include "dead_mount.h"
#include "foldfs/border.h"
#include "foldfs/mountinfo.h"
#include "foldfs/options.h"
#include "foldfs/passthrough.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NESTED_MAX 16

static errint_t open_source(const char *source, struct place *place)
{

	place->source_fd = open(source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (place->source_fd < 0 && errno == ENOTDIR)
		return complain("the source %s is not a directory.", source);
	if (place->source_fd < 0)
		return complain("cannot open the source %s: %s.", source, strerror(errno));
	if (faccessat(place->source_fd, ".", X_OK, AT_EACCESS) != 0)
		return complain("cannot look into the source %s: %s.", source, strerror(errno));
	place->source = realpath(source, NULL);
	if (!place->source)
		return complain("cannot resolve the source %s: %s.", source, strerror(errno));
	return 0;
}

/* A pseudo file system judges access through an open file by who opened it. Here that is the
 * daemon. */
static errint_t check_source_type(const struct options *options, const struct place *place)
{
	struct mount_entry entry = {0};
	errint_t error = 0;

	/* If its type cannot be found out, the source is on an unusual kind of mount. It is
	 * accepted. */
	if (!options->pseudo_filesystems && mount_entry_of_fd(place->source_fd, &entry) == 0 &&
	    border_is_pseudo(entry.type))
		error = complain("the source %s is on a pseudo file system (%s). Its files would "
				 "act with the daemon's rights, for every user. To mount it all "
				 "the same: -o pseudo-filesystems.",
				 place->source, entry.type);
	mount_entry_clear(&entry);
	return error;
}

/* Whether the file system that ENTRY mounts is the source itself, seen at the mount point. Then
 * SOURCE and MOUNTPOINT are one directory, which is mounted over on purpose. */
static bool is_source(const struct options *options, const struct place *place,
		      const struct mount_entry *entry)
{
	struct stat source, at;

	return fstat(place->source_fd, &source) == 0 &&
	       source.st_dev == makedev(entry->device_major, entry->device_minor) &&
	       stat(options->mountpoint, &at) == 0 && at.st_dev == source.st_dev &&
	       at.st_ino == source.st_ino;
}

static errint_t refuse_busy(const struct options *options, const struct mount_entry *entry)
{
	enum mount_life life =
		strncmp(entry->type, "fuse", 4) == 0 ? mount_life_of(entry) : MOUNT_ALIVE;
	errint_t error;

	if (life == MOUNT_SILENT)
		return complain("the mount point %s is busy: %s (%s) is mounted there already, and "
				"it does not answer.",
				options->mountpoint, entry->source, entry->type);
	if (life == MOUNT_ALIVE)
		return complain("the mount point %s is busy: %s (%s) is mounted there already.",
				options->mountpoint, entry->source, entry->type);
	if (!options->replace)
		return complain("a dead mount is on %s: the daemon of %s (%s) has ended. Unmount "
				"it (%s %s), or mount with -o replace.",
				options->mountpoint, entry->source, entry->type,
				geteuid() == 0 ? "umount" : "fusermount3 -u", entry->mountpoint);
	error = dead_mount_remove(entry);
	return error ? complain("cannot unmount the dead mount on %s: %s.", options->mountpoint,
				strerror(-error))
		     : 0;
}

/* Look the mount point up in the list of mounts first, because a dead mount there must not hold us
 * up. With replace, dead mounts are taken away one after the other. */
static errint_t check_not_busy(const struct options *options, const struct place *place)
{
	struct mount_entry entry;
	bool busy;
	errint_t error;

	do {
		error = mount_entry_find(options->mountpoint, &entry);
		if (error == -ENOENT)
			return 0;
		if (error)
			return complain("cannot look up the mount point %s: %s.",
					options->mountpoint, strerror(-error));
		/* What is below an automount point gets mounted over it. */
		busy = strcmp(entry.type, "autofs") != 0 &&
		       (strncmp(entry.type, "fuse", 4) == 0 || !is_source(options, place, &entry));
		if (busy)
			error = refuse_busy(options, &entry);
		mount_entry_clear(&entry);
	} while (busy && !error);
	return error;
}

static errint_t check_mountpoint(const struct options *options, struct place *place)
{
	const char *mountpoint = options->mountpoint;
	errint_t error = check_not_busy(options, place);
	struct stat st;

	if (error)
		return error;
	if (stat(mountpoint, &st) != 0)
		return complain("cannot use the mount point %s: %s.", mountpoint, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return complain("the mount point %s is not a directory.", mountpoint);
	place->mountpoint = realpath(mountpoint, NULL);
	if (!place->mountpoint)
		return complain("cannot resolve the mount point %s: %s.", mountpoint,
				strerror(errno));
	return 0;
}

/*
 * Whether PATH, absolute, lies strictly inside the directory of ST. Directories are compared by
 * identity, from PATH's parent up, because symlinks and bind mounts lead to the same directory by
 * other names. PATH itself is not opened (it may be an automount point).
 */
static bool lies_inside(const char *path, const struct stat *st)
{
	const char *slash = strrchr(path, '/');
	char *parent = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	int fd = parent ? open(parent, O_PATH | O_CLOEXEC) : -1;
	struct stat here, last = {0};
	bool inside = false;

	free(parent);
	if (strcmp(path, "/") == 0 && fd >= 0) {
		close(fd);
		return false;
	}
	while (fd >= 0 && !inside && fstat(fd, &here) == 0 &&
	       (here.st_dev != last.st_dev || here.st_ino != last.st_ino)) {
		int up = openat(fd, "..", O_PATH | O_CLOEXEC);

		inside = here.st_dev == st->st_dev && here.st_ino == st->st_ino;
		last = here;
		close(fd);
		fd = up;
	}
	if (fd >= 0)
		close(fd);
	return inside;
}

/*
 * A mount point inside its own source would loop: the daemon, walking the source, would come to its
 * own mount and wait for itself. A loop also arises if the source lies in another foldfs mount and
 * the mount point lies in that mount's source. Then two daemons wait for each other.
 */
static errint_t check_loop(const struct place *place)
{
	struct mount_entry entry = {0};
	struct stat st;
	errint_t error = 0;
	int fd;

	if (fstat(place->source_fd, &st) != 0)
		return complain("cannot look at the source %s: %s.", place->source,
				strerror(errno));
	if (lies_inside(place->mountpoint, &st))
		return complain("the mount point %s lies inside the source %s: that would loop.",
				place->mountpoint, place->source);
	fd = dup(place->source_fd);
	for (int depth = 0; depth < NESTED_MAX && fd >= 0 && !error; depth++) {
		bool nested = mount_entry_of_fd(fd, &entry) == 0 &&
			      strcmp(entry.type, "fuse.foldfs") == 0 && entry.source[0] == '/' &&
			      stat(entry.source, &st) == 0;

		close(fd);
		fd = -1;
		/* That mount covers its own source: no path leads below it now. */
		if (nested && st.st_dev == makedev(entry.device_major, entry.device_minor))
			nested = false;
		if (nested && lies_inside(place->mountpoint, &st))
			error = complain(
				"the source %s lies in the foldfs mount %s. The mount point %s "
				"lies inside the source of that mount: that would loop.",
				place->source, entry.mountpoint, place->mountpoint);
		if (nested && !error)
			fd = open(entry.source, O_PATH | O_DIRECTORY | O_CLOEXEC);
		mount_entry_clear(&entry);
	}
	if (fd >= 0)
		close(fd);
	return error;
}

static errint_t check_transport(const struct options *options)
{
	static const char parameter[] = "/sys/module/fuse/parameters/enable_uring";
	FILE *file;
	int value;

	if (options->transport != TRANSPORT_IO_URING)
		return 0;
	file = fopen(parameter, "re");
	value = file ? fgetc(file) : EOF;
	if (file)
		fclose(file);
	if (value == EOF)
		return complain("transport=io_uring needs Linux 6.14 or newer, with the fuse "
				"module loaded.");
	if (value != 'Y' && value != '1')
		return complain("transport=io_uring is switched off: write Y to %s first.",
				parameter);
	return 0;
}

/* This is no reason not to mount: every byte is served. */
static void tell_without_effect(const struct options *options)
{
	const char *word = options->passthrough         ? "passthrough"
			   : options->coherence_overlay ? "coherence=overlay"
			   : options->source_stacked    ? "source-stacked"
							: NULL;

	if (word && !passthrough_permitted())
		(void)complain("the option %s has no effect: kernel passthrough needs a daemon "
			       "with CAP_SYS_ADMIN.",
			       word);
}

errint_t preflight(const struct options *options, struct place *ret_place)
{
	errint_t error = open_source(options->source, ret_place);

	if (!error)
		error = check_source_type(options, ret_place);
	if (!error)
		error = check_mountpoint(options, ret_place);
	if (!error)
		error = check_loop(ret_place);
	if (!error)
		error = check_transport(options);
	if (!error)
		tell_without_effect(options);
	return error;
}

void place_leave(struct place *place)
{
	if (place->source_fd >= 0)
		close(place->source_fd);
	if (place->view_fd >= 0)
		close(place->view_fd);
	if (place->claim_fd >= 0)
		close(place->claim_fd);
	place->source_fd = -1;
	place->view_fd = -1;
	place->claim_fd = -1;
}

void place_clear(struct place *place)
{
	place_leave(place);
	free(place->source);
	free(place->mountpoint);
}
