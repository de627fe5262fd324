/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trusted_path.c - directories that nobody else can replace
 *
 * Invariant: the directory that a walk has reached was found fit. So only somebody trusted can have
 * put there the object that the next component names. In a sticky directory the component's owner
 * tells who put it there.
 *
 * The owner of the root directory is trusted too, except in a sticky directory: that user could
 * replace anything. In a user namespace this is the machine's root, who has no number there. Every
 * user without a number looks the same. So the directory that is used in the end never belongs to
 * such a user.
 */
#include "foldfs/trusted_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS_MAX 40u

struct walk {
	uid_t owner;
	bool make;
	mode_t mode;
	uid_t root_owner; /* owner of the root directory */
	bool sticky;      /* others may put things into the directory that the walk has reached */
	int fd;           /* the directory that the walk has reached; O_PATH */
	unsigned links;
	char rest[PATH_MAX]; /* the path from there */
};

static bool is_owned(const struct stat *st, uid_t owner)
{
	return st->st_uid == 0 || st->st_uid == owner;
}

static bool is_fit(const struct stat *st, uid_t owner)
{
	return is_owned(st, owner) && !(st->st_mode & (S_IWGRP | S_IWOTH));
}

/* Whether only somebody trusted can have put the object of ST into the directory that WALK has
 * reached. */
static bool is_trusted(const struct walk *walk, const struct stat *st)
{
	return is_owned(st, walk->owner) || (!walk->sticky && st->st_uid == walk->root_owner);
}

/* Whether the walk may go on through the directory of ST. */
static bool leads_on(const struct walk *walk, const struct stat *st)
{
	return is_trusted(walk, st) &&
	       (!(st->st_mode & (S_IWGRP | S_IWOTH)) || st->st_mode & S_ISVTX);
}

errint_t trusted_path_check(int fd, uid_t owner)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	return is_fit(&st, owner) ? 0 : -EPERM;
}

/* The next component, NULL at the end, and the path behind it. Both lie in the walk's rest. */
static char *next_component(struct walk *walk, char **ret_behind)
{
	char *name = walk->rest + strspn(walk->rest, "/");
	char *end = name + strcspn(name, "/");

	*ret_behind = end + strspn(end, "/");
	*end = '\0';
	return *name ? name : NULL;
}

/* The rest of the path becomes TARGET followed by BEHIND. */
static errint_t put_rest(struct walk *walk, const char *target, const char *behind)
{
	char rest[PATH_MAX];

	if (snprintf(rest, sizeof(rest), "%s/%s", target, behind) >= (int)sizeof(rest))
		return -ENAMETOOLONG;
	strcpy(walk->rest, rest);
	return 0;
}

static void go_to(struct walk *walk, int fd)
{
	close(walk->fd);
	walk->fd = fd;
}

/* Follow the symbolic link open as LINK, which is closed. */
static errint_t follow(struct walk *walk, int link, const char *behind)
{
	char target[PATH_MAX];
	ssize_t length = readlinkat(link, "", target, sizeof(target) - 1);
	int root;

	close(link);
	if (length < 0)
		return -errno;
	target[length] = '\0';
	if (++walk->links > LINKS_MAX)
		return -ELOOP;
	if (target[0] == '/') {
		root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (root < 0)
			return -errno;
		go_to(walk, root);
		walk->sticky = false;
	}
	return put_rest(walk, target, behind);
}

static int open_component(const struct walk *walk, const char *name, bool last)
{
	const int flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(walk->fd, name, flags);

	if (fd >= 0 || errno != ENOENT || !walk->make)
		return fd < 0 ? -errno : fd;
	if (mkdirat(walk->fd, name, last ? walk->mode : 0755) && errno != EEXIST)
		return -errno;
	fd = openat(walk->fd, name, flags);
	return fd < 0 ? -errno : fd;
}

/* Move on to the component NAME. */
static errint_t step(struct walk *walk, const char *name, const char *behind)
{
	int fd = open_component(walk, name, !*behind);
	struct stat st;
	errint_t error = 0;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st))
		error = -errno;
	else if (!is_trusted(walk, &st))
		error = -EPERM;
	else if (S_ISLNK(st.st_mode))
		return follow(walk, fd, behind);
	else if (!S_ISDIR(st.st_mode))
		error = -ENOTDIR;
	else if (!leads_on(walk, &st))
		error = -EPERM;
	if (error) {
		close(fd);
		return error;
	}
	go_to(walk, fd);
	walk->sticky = st.st_mode & (S_IWGRP | S_IWOTH);
	return put_rest(walk, "", behind);
}

static errint_t walk_all(struct walk *walk)
{
	errint_t error = 0;
	struct stat st;
	char *behind;
	char *name;

	if (stat("/", &st))
		return -errno;
	walk->root_owner = st.st_uid;
	if (fstat(walk->fd, &st))
		return -errno;
	if (!leads_on(walk, &st))
		return -EPERM;
	walk->sticky = st.st_mode & (S_IWGRP | S_IWOTH);
	while (!error && (name = next_component(walk, &behind)))
		error = step(walk, name, behind);
	return error;
}

int trusted_path_open(const char *path, uid_t owner, bool make, mode_t mode)
{
	struct walk walk = {.owner = owner, .make = make, .mode = mode};
	errint_t error;
	int fd = -1;

	if (strlen(path) >= sizeof(walk.rest))
		return -ENAMETOOLONG;
	strcpy(walk.rest, path);
	walk.fd = open(*path == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (walk.fd < 0)
		return -errno;
	error = walk_all(&walk);
	if (!error)
		error = trusted_path_check(walk.fd, owner);
	if (!error) {
		fd = openat(walk.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		error = fd < 0 ? -errno : 0;
	}
	close(walk.fd);
	return error ? error : fd;
}
