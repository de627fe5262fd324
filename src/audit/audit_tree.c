/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_tree.c - audit: finds source files by (device, inode) under the source directory
 *
 * One walk finds all of them. A name costs no system call of its own: the directory tells its inode
 * number and type, and only files whose number is wanted are opened. One descriptor is open for
 * each level of the way down; a level for which there is no descriptor left is passed over.
 */
#include "audit_internal.h"

#include "foldfs/lease.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct level {
	struct level *up;
	DIR *directory;
};

struct search {
	const struct audit_subject *subject;
	const struct file_key *wanted;
	size_t count;
	size_t left; /* not found yet */
	bool *found; /* whether it was found, by index */
	audit_visit_fn *visit;
	void *context;
	struct level *level; /* the innermost */
};

/* Go down into the directory open as FD. Takes over FD. -ENOMEM. */
static errint_t enter(struct search *search, int fd)
{
	struct level *level = malloc(sizeof(*level));

	if (!level) {
		close(fd);
		return -ENOMEM;
	}
	level->directory = fdopendir(fd);
	if (!level->directory) {
		close(fd);
		free(level);
		return errno == ENOMEM ? -ENOMEM : 0;
	}
	level->up = search->level;
	search->level = level;
	return 0;
}

static void leave(struct search *search)
{
	struct level *level = search->level;

	search->level = level->up;
	closedir(level->directory);
	free(level);
}

/* The first index at which the inode number is INODE, or the count. */
static size_t lower_bound(const struct search *search, ino_t inode)
{
	size_t low = 0;
	size_t high = search->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (search->wanted[middle].inode < inode)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int open_below(const struct search *search, const char *name, int flags)
{
	int directory = dirfd(search->level->directory);
	int fd;

	flags |= O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	fd = openat(directory, name, flags | O_NOATIME);
	return fd < 0 && errno == EPERM ? openat(directory, name, flags) : fd;
}

/* A client may have opened the file by now; an open by name would break the mount's lease on it. */
static int open_file(const struct search *search, const char *name)
{
	const struct audit_subject *subject = search->subject;
	struct lease_opening opening;
	struct stat st;
	int fd;

	if (!subject->leases)
		return open_below(search, name, 0);
	if (fstatat(dirfd(search->level->directory), name, &st, AT_SYMLINK_NOFOLLOW))
		return -1;
	if (!lease_opening_begin(subject->leases, st.st_dev, st.st_ino, &opening))
		fd = open_below(search, name, 0);
	else
		fd = subject->open_source(subject->context, st.st_dev, st.st_ino);
	lease_opening_end(subject->leases, &opening);
	return fd;
}

/* NAME is a file whose inode number is wanted. */
static errint_t try_file(struct search *search, const char *name, size_t index)
{
	ino_t inode = search->wanted[index].inode;
	int fd = open_file(search, name);
	struct stat st;

	if (fd < 0)
		return 0;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode)) {
		for (; index < search->count && search->wanted[index].inode == inode; index++) {
			if (search->found[index] || st.st_ino != inode ||
			    search->wanted[index].device != st.st_dev)
				continue;
			search->found[index] = true;
			search->left--;
			return search->visit(search->context, index, fd);
		}
	}
	close(fd);
	return 0;
}

static unsigned char type_of(const struct search *search, const struct dirent *entry)
{
	struct stat st;

	if (entry->d_type != DT_UNKNOWN)
		return entry->d_type;
	if (fstatat(dirfd(search->level->directory), entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
		return DT_UNKNOWN;
	return S_ISDIR(st.st_mode) ? DT_DIR : S_ISREG(st.st_mode) ? DT_REG : DT_UNKNOWN;
}

static errint_t look_at(struct search *search, const struct dirent *entry)
{
	size_t index;
	int fd;

	if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
		return 0;
	switch (type_of(search, entry)) {
	case DT_DIR:
		fd = open_below(search, entry->d_name, O_DIRECTORY);
		return fd < 0 ? 0 : enter(search, fd);
	case DT_REG:
		index = lower_bound(search, entry->d_ino);
		if (index < search->count && search->wanted[index].inode == entry->d_ino)
			return try_file(search, entry->d_name, index);
		return 0;
	default:
		return 0;
	}
}

errint_t audit_tree_visit(const struct audit_subject *subject, const struct file_key wanted[],
			  size_t count, audit_visit_fn *visit, void *context)
{
	struct search search = {.subject = subject,
				.wanted = wanted,
				.count = count,
				.left = count,
				.found = calloc(count + 1, sizeof(bool)),
				.visit = visit,
				.context = context};
	const struct dirent *entry;
	errint_t error = search.found ? 0 : -ENOMEM;
	int fd;

	if (!error) {
		fd = openat(subject->source_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0)
			error = enter(&search, fd);
	}
	while (!error && search.level && search.left) {
		entry = readdir(search.level->directory);
		if (entry)
			error = look_at(&search, entry);
		else
			leave(&search);
	}
	while (search.level)
		leave(&search);
	free(search.found);
	return error;
}
