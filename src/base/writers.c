/* SPDX-License-Identifier: Apache-2.0 */
/*
 * writers.c - who may write to a source file, by owner, mode and ACL
 *
 * If a file has a POSIX ACL, the group bits of its mode are the ACL's mask: without a w there the
 * ACL gives nobody the right to write. With a w the ACL may name anybody, so WRITERS_UNKNOWN may
 * write to such a file. For reading the mode tells only half of it: an ACL may deny somebody what
 * the mode gives all others.
 */
#include "foldfs/writers.h"

#include <errno.h>
#include <sys/xattr.h>
#include <unistd.h>

/* What the kernel shows for a user or group that has no number in the daemon's user namespace:
 * DEFAULT_OVERFLOWUID. Several users or groups may be behind it. */
#define NO_USER  65534u
#define NO_GROUP 65534u

errint_t writers_view_of(int root_fd, struct writers_view *ret_view)
{
	struct stat st;

	if (fstat(root_fd, &st))
		return -errno;
	*ret_view = (struct writers_view){.device = st.st_dev, .user = geteuid()};
	return 0;
}

/* If it cannot be told, the answer is true. */
static bool has_acl(int fd)
{
	return fgetxattr(fd, "system.posix_acl_access", NULL, 0) >= 0 ||
	       (errno != ENODATA && errno != EOPNOTSUPP);
}

uint64_t writers_of(const struct writers_view *view, int fd, const struct stat *st)
{
	uint64_t owner = (uint64_t)st->st_uid << 32;

	if (st->st_dev != view->device || st->st_mode & S_IWOTH)
		return WRITERS_UNKNOWN;
	if (st->st_uid == NO_USER && view->user != NO_USER)
		return WRITERS_UNKNOWN;
	if (!(st->st_mode & S_IWGRP))
		return !st->st_uid || st->st_uid == view->user ? WRITERS_TRUSTED : owner;
	if (st->st_gid == NO_GROUP || has_acl(fd))
		return WRITERS_UNKNOWN;
	return owner | ((uint64_t)st->st_gid + 1);
}

/* Whether BITS, one of each class, are all set, and no ACL denies somebody one of them. */
static bool all_may(int fd, const struct stat *st, mode_t bits)
{
	return (st->st_mode & bits) == bits && !has_acl(fd);
}

bool writers_all_may_read(int fd, const struct stat *st)
{
	return all_may(fd, st, S_IRUSR | S_IRGRP | S_IROTH);
}

bool writers_all_may_pass(int fd, const struct stat *st)
{
	return all_may(fd, st, S_IXUSR | S_IXGRP | S_IXOTH);
}
