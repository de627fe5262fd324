/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_again.c - requests that come once more, because the worker that had them in hand died
 *
 * An object that is younger than the change that was to make it was made by that change. Its ctime
 * tells: the clock that file systems use is never behind that of session_change_begins(). A file
 * server with a clock of its own may be behind. There, what was made may be taken for something
 * that had been there before.
 */
#include "fusefs_again.h"

#include "foldfs/clock.h"
#include "foldfs/session.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static bool has_changed_since(const struct stat *st, int64_t began)
{
	return st->st_ctim.tv_sec * NS_PER_S + st->st_ctim.tv_nsec >= began;
}

static bool leads_to(int directory_fd, const char *name, const char *target)
{
	char is[PATH_MAX + 1];
	ssize_t length = readlinkat(directory_fd, name, is, sizeof(is));

	return length == (ssize_t)strlen(target) && memcmp(is, target, (size_t)length) == 0;
}

bool fusefs_again_made(int directory_fd, const char *name, const struct again_object *object)
{
	uint64_t facts[2];
	int64_t began;
	struct stat st;

	if (!session_change_had_begun(&began, facts) ||
	    fstatat(directory_fd, name, &st, AT_SYMLINK_NOFOLLOW) || !has_changed_since(&st, began))
		return false;
	if ((st.st_mode ^ object->mode) & S_IFMT)
		return false;
	if ((S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) && st.st_rdev != object->rdev)
		return false;
	return !object->target || leads_to(directory_fd, name, object->target);
}

bool fusefs_again_linked(int directory_fd, const char *name, int fd)
{
	uint64_t facts[2];
	int64_t began;
	struct stat link;
	struct stat st;

	return session_change_had_begun(&began, facts) &&
	       !fstatat(directory_fd, name, &link, AT_SYMLINK_NOFOLLOW) && !fstat(fd, &st) &&
	       link.st_ino == st.st_ino && link.st_dev == st.st_dev &&
	       has_changed_since(&st, began);
}

static uint64_t number_of(const struct stat *st)
{
	return st ? st->st_ino : 0;
}

void fusefs_again_removes(const struct stat *victim)
{
	session_change_begins(number_of(victim), 0);
}

bool fusefs_again_removed(void)
{
	uint64_t facts[2];
	int64_t began;

	return session_change_had_begun(&began, facts) && facts[0];
}

bool fusefs_again_renamed(int from_fd, const char *name, const struct stat *moved, int to_fd,
			  const char *newname, const struct stat *victim, unsigned flags)
{
	struct stat from = {0};
	struct stat to;
	uint64_t facts[2];
	int64_t began;

	if (!session_change_had_begun(&began, facts)) {
		session_change_begins(number_of(moved), number_of(victim));
		return false;
	}
	if (!facts[0] || fstatat(to_fd, newname, &to, AT_SYMLINK_NOFOLLOW) || to.st_ino != facts[0])
		return false;
	(void)fstatat(from_fd, name, &from, AT_SYMLINK_NOFOLLOW);
	/* Two names of one file change nothing when they are renamed to each other. */
	return flags & RENAME_EXCHANGE ? from.st_ino == facts[1] : from.st_ino != facts[0];
}

bool fusefs_again_set(const char *path, const char *name, const char *value, size_t size)
{
	char *is = malloc(size + 1);
	uint64_t facts[2];
	int64_t began;
	bool same = is && session_change_had_begun(&began, facts) &&
		    getxattr(path, name, is, size + 1) == (ssize_t)size &&
		    memcmp(is, value, size) == 0;

	free(is);
	return same;
}

bool fusefs_again_unset(const char *path)
{
	uint64_t facts[2];
	int64_t began;
	struct stat st;

	return session_change_had_begun(&began, facts) && !stat(path, &st) &&
	       has_changed_since(&st, began);
}

size_t fusefs_again_appended(int fd, size_t bytes)
{
	uint64_t facts[2];
	int64_t began;
	struct stat st;
	uint64_t more;

	if (fstat(fd, &st))
		return 0;
	if (!session_change_had_begun(&began, facts)) {
		session_change_begins((uint64_t)st.st_size, 0);
		return 0;
	}
	more = (uint64_t)st.st_size > facts[0] ? (uint64_t)st.st_size - facts[0] : 0;
	return more < bytes ? more : bytes;
}
