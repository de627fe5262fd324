/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_attr.c - attributes: getattr, statx, setattr, xattrs, statfs
 *
 * Each request is two functions: do_x() decides and returns an errno, fusefs_x() only replies.
 *
 * Attributes are changed as the caller (thread_identity.h), by one system call on the source each.
 * So the source makes the checks, at that moment, and does what belongs to the change (set-id bits
 * at chown, the ACL's mask at chmod).
 *
 * Objects are reached by O_PATH descriptors. Calls that do not take such a descriptor go through
 * /proc/self/fd. Its links lead to the object itself, also if that is a symlink, and no further.
 */
#include "foldfs/proc_fd.h"
#include "fusefs_again.h"
#include "fusefs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ACL_ACCESS     "system.posix_acl_access"
#define ACL_DEFAULT    "system.posix_acl_default"
#define CAPABILITY     "security.capability"
#define TRUSTED_PREFIX "trusted."

/* An object that a request works on. */
struct object {
	struct inode *inode;
	int fd;                   /* O_PATH */
	char path[PROC_FD_BYTES]; /* of fd, for calls that take no descriptor */
};

static errint_t object_begin(struct fusefs *fs, fuse_ino_t node, struct object *ret_object)
{
	struct inode *inode = inode_of(fs->inodes, node);
	int fd;

	if (!inode)
		return -ESTALE;
	fd = inode_path_begin(fs->inodes, inode);
	if (fd < 0)
		return fd;
	ret_object->inode = inode;
	ret_object->fd = fd;
	proc_fd(ret_object->path, fd);
	return 0;
}

static void object_end(const struct object *object)
{
	inode_path_end(object->inode);
}

/* End OBJECT after its attributes were asked for. ERROR is -ESTALE if the object is gone. Then its
 * numbers may mean another object by now; the kernel looks the name up again, and must find that
 * other object. */
static errint_t object_asked(struct fusefs *fs, const struct object *object, errint_t error)
{
	if (error == -ESTALE)
		inode_detach(fs->inodes, object->inode);
	object_end(object);
	return error;
}

/* ---- getattr and statx ---- */

/* The attributes of what is open as FD, as the client sees them. */
static errint_t stat_fd(struct fusefs *fs, int fd, struct stat *ret_stat)
{
	return fstat(fd, ret_stat) < 0 ? -errno : fusefs_stat_show(fs, fd, ret_stat);
}

/* With an open handle the inode need not be opened, and a file whose name is gone is found for
 * certain. The kernel sends handles of regular files only. */
static errint_t do_getattr(struct fusefs *fs, fuse_ino_t node, const struct fuse_file_info *fi,
			   struct stat *ret_stat)
{
	struct object object;
	errint_t error = 0;

	if (fi)
		return stat_fd(fs, fusefs_handle_fd(fs, fi), ret_stat);
	error = object_begin(fs, node, &object);
	if (error)
		return error;
	error = stat_fd(fs, object.fd, ret_stat);
	return object_asked(fs, &object, error);
}

static void reply_attr(fuse_req_t req, struct fusefs *fs, fuse_ino_t node, errint_t error,
		       const struct stat *st)
{
	if (error)
		fusefs_reply_err(req, -error);
	else
		fusefs_reply_attr(req, st, fusefs_attr_timeout(fs, inode_of(fs->inodes, node)));
}

void fusefs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct stat st;
	errint_t error = do_getattr(fs, ino, fi, &st);

	reply_attr(req, fs, ino, error, &st);
}

static errint_t statx_fd(struct fusefs *fs, int fd, int flags, int mask, struct statx *ret_statx)
{
	ino_t number = 0;
	errint_t error;

	flags = (flags & AT_STATX_SYNC_TYPE) | AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW;
	memset(ret_statx, 0, sizeof(*ret_statx));
	if (statx(fd, "", flags, (unsigned int)mask, ret_statx) < 0)
		return -errno;
	error = inode_number_shown(fs->inodes, fd,
				   makedev(ret_statx->stx_dev_major, ret_statx->stx_dev_minor),
				   ret_statx->stx_ino, &number);
	ret_statx->stx_ino = number;
	return error;
}

static errint_t do_statx(struct fusefs *fs, fuse_ino_t node, int flags, int mask,
			 const struct fuse_file_info *fi, struct statx *ret_statx)
{
	struct object object;
	errint_t error;

	if (fi)
		return statx_fd(fs, fusefs_handle_fd(fs, fi), flags, mask, ret_statx);
	error = object_begin(fs, node, &object);
	if (error)
		return error;
	error = statx_fd(fs, object.fd, flags, mask, ret_statx);
	return object_asked(fs, &object, error);
}

void fusefs_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct statx stx;
	errint_t error = do_statx(fs, ino, flags, mask, fi, &stx);

	if (error)
		fusefs_reply_err(req, -error);
	else
		fusefs_reply_statx(req, 0, &stx,
				   fusefs_attr_timeout(fs, inode_of(fs->inodes, ino)));
}

/* ---- setattr ---- */

/*
 * Each of these is one system call on the source, made as the caller. The source makes the checks,
 * and clears set-id bits and capabilities, under its own lock. No mode is read here and then
 * written back: in between another process may have changed it.
 */

static errint_t result_of(int result)
{
	return result < 0 ? -errno : 0;
}

static errint_t set_owner(fuse_req_t req, const struct object *object, const struct stat *attr,
			  int to_set)
{
	uid_t uid = to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
	gid_t gid = to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;
	struct identity identity;
	errint_t error = identity_assume(req, object->fd, to_set & FUSE_SET_ATTR_GID, &identity);

	if (error)
		return error;
	do
		error = result_of(
			fchownat(object->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
	while (identity_insist(&identity, error));
	identity_leave_lent();
	return error;
}

/*
 * A request that sets nothing has two causes: chown(2) of neither owner nor group, and a write that
 * clears set-id bits or capabilities and is about to come. Both are done by chown(2) here, with two
 * exceptions.
 *  - Root's write keeps set-id bits. It is recognized by the capabilities, for which the kernel
 *    sent the request. The write itself clears them.
 *  - Not everybody may chown(2) a file with set-id bits, and an error would make a write fail as
 *    well. So for regular files, which FUSE may write, that error is not returned.
 */
static errint_t set_nothing(fuse_req_t req, const struct object *object)
{
	errint_t error;

	if (fuse_req_ctx(req)->uid == 0 && getxattr(object->path, CAPABILITY, NULL, 0) >= 0)
		return 0;
	error = set_owner(req, object, NULL, 0);
	return error == -EPERM && inode_is_regular(object->inode) ? 0 : error;
}

static struct timespec time_to_set(int to_set, int flag, int now_flag, struct timespec time)
{
	if (to_set & now_flag)
		return (struct timespec){.tv_nsec = UTIME_NOW};
	if (to_set & flag)
		return time;
	return (struct timespec){.tv_nsec = UTIME_OMIT};
}

static errint_t set_times(fuse_req_t req, const struct object *object, const struct stat *attr,
			  int to_set)
{
	const struct timespec times[2] = {
		time_to_set(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, attr->st_atim),
		time_to_set(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, attr->st_mtim),
	};
	struct identity identity;
	errint_t error = identity_assume(req, object->fd, false, &identity);

	if (error)
		return error;
	do
		error = result_of(utimensat(object->fd, "", times, AT_EMPTY_PATH));
	while (identity_insist(&identity, error));
	identity_leave_lent();
	return error;
}

#define SET_OWNER (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)
#define SET_TIMES                                                                                  \
	(FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW |                     \
	 FUSE_SET_ATTR_MTIME_NOW)
#define KILL_SUIDGID (FUSE_SET_ATTR_KILL_SUID | FUSE_SET_ATTR_KILL_SGID)

static errint_t chmod_as_caller(fuse_req_t req, const struct object *object, mode_t mode)
{
	struct identity identity;
	errint_t error = identity_assume(req, object->fd, mode & S_ISGID, &identity);

	if (error)
		return error;
	do
		error = result_of(chmod(object->path, mode));
	while (identity_insist(&identity, error));
	identity_leave_lent();
	return error;
}

/* chmod(2). If the file's plan does not allow set-id bits, they are ignored; POSIX leaves that to
 * the implementation. Not under the inode's lock: chmod waits for a process that writes to the file
 * in the source, and that process may make others wait on purpose. */
static errint_t set_mode(fuse_req_t req, const struct object *object, mode_t mode)
{
	struct plan_hold *hold = inode_plan(object->inode);
	bool granting = false;
	errint_t error;

	if (mode & (S_ISUID | S_ISGID) && inode_is_regular(object->inode)) {
		inode_lock(object->inode);
		granting = plan_grant_begin(hold, fuse_req_ctx(req)->pid);
		inode_unlock(object->inode);
		if (!granting)
			mode &= ~(mode_t)(S_ISUID | S_ISGID);
	}
	error = chmod_as_caller(req, object, mode);
	if (granting) {
		inode_lock(object->inode);
		plan_grant_end(hold);
		inode_unlock(object->inode);
	}
	return error;
}

/*
 * The order is such that no part undoes another: a new owner clears set-id bits that a mode may
 * set, and a new size sets a new time. The ctime is the source's own and cannot be set:
 * FUSE_SET_ATTR_CTIME comes only with the write-back cache, which we do not use.
 */
static errint_t set_parts(fuse_req_t req, const struct object *object, const struct stat *attr,
			  int to_set, struct fuse_file_info *fi)
{
	errint_t error = 0;

	if (!to_set)
		error = set_nothing(req, object);
	if (to_set & SET_OWNER)
		error = set_owner(req, object, attr, to_set);
	if (!error && (to_set & FUSE_SET_ATTR_MODE))
		error = set_mode(req, object, attr->st_mode & 07777);
	if (!error && (to_set & FUSE_SET_ATTR_SIZE))
		error = fusefs_truncate(req, object->inode, fi, attr->st_size,
					to_set & KILL_SUIDGID);
	if (!error && (to_set & SET_TIMES))
		error = set_times(req, object, attr, to_set);
	return error;
}

static errint_t do_setattr(struct fusefs *fs, fuse_req_t req, fuse_ino_t node,
			   const struct stat *attr, int to_set, struct fuse_file_info *fi,
			   struct stat *ret_stat)
{
	struct object object;
	struct own_change change;
	errint_t error = object_begin(fs, node, &object);

	if (error)
		return error;
	fusefs_own_change_begin(fs, object.fd, &change);
	error = set_parts(req, &object, attr, to_set, fi);
	fusefs_own_change_end(&change);
	if (!error)
		error = stat_fd(fs, object.fd, ret_stat);
	object_end(&object);
	return error;
}

void fusefs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		    struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of_lent(req);
	struct stat st;
	errint_t error = do_setattr(fs, req, ino, attr, to_set, fi, &st);

	reply_attr(req, fs, ino, error, &st);
}

/* ---- xattrs ---- */

static bool is_acl(const char *name)
{
	return strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0;
}

static errint_t setxattr_as_caller(fuse_req_t req, const struct object *object, const char *name,
				   const char *value, size_t size, int flags)
{
	struct identity identity;
	/* Setting an ACL clears the set-gid bit of a file, unless the file's group is the
	 * caller's. */
	errint_t error = identity_assume(req, object->fd, false, &identity);

	if (error)
		return error;
	session_change_begins(0, 0);
	do
		error = result_of(setxattr(object->path, name, value, size, flags));
	while (identity_insist(&identity, error));
	identity_restore();
	return error == -EEXIST && fusefs_again_set(object->path, name, value, size) ? 0 : error;
}

static errint_t do_setxattr(struct fusefs *fs, fuse_req_t req, fuse_ino_t node, const char *name,
			    const char *value, size_t size, int flags)
{
	struct object object;
	struct own_change change;
	errint_t error = object_begin(fs, node, &object);

	if (error)
		return error;
	fusefs_own_change_begin(fs, object.fd, &change);
	error = setxattr_as_caller(req, &object, name, value, size, flags);
	fusefs_own_change_end(&change);
	object_end(&object);
	return error;
}

void fusefs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		     size_t size, int flags)
{
	fusefs_reply_err(req, -do_setxattr(fusefs_of(req), req, ino, name, value, size, flags));
}

/* Whether the kernel decides about NAME itself. It asks for file capabilities on its own account,
 * so it does not matter what the caller may see. For trusted.* it has already checked the caller's
 * capabilities. */
static bool is_asked_by_kernel(const char *name)
{
	return strncmp(name, "security.", strlen("security.")) == 0 ||
	       strncmp(name, TRUSTED_PREFIX, strlen(TRUSTED_PREFIX)) == 0;
}

static ssize_t getxattr_as_caller(fuse_req_t req, const struct object *object, const char *name,
				  char *value, size_t size)
{
	struct identity identity;
	ssize_t length = identity_assume(req, object->fd, false, &identity);

	if (length)
		return length;
	do {
		length = getxattr(object->path, name, value, size);
		if (length < 0)
			length = -errno;
	} while (identity_insist(&identity, length));
	identity_restore();
	return length;
}

static ssize_t getxattr_for(fuse_req_t req, const struct object *object, const char *name,
			    char *value, size_t size)
{
	ssize_t length;

	/* Every user may see ACLs, and the kernel asks for them before many requests. So the thread
	 * keeps the identity that it has. */
	if (!is_acl(name) && !is_asked_by_kernel(name))
		return getxattr_as_caller(req, object, name, value, size);
	if (!is_acl(name))
		identity_make_own();
	length = getxattr(object->path, name, value, size);
	return length < 0 ? -errno : length;
}

/* Returns the length of the value. If SIZE is not 0, the value is in a new buffer that the caller
 * frees. */
static ssize_t do_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size,
			   char **ret_value)
{
	struct object object;
	char *value = NULL;
	ssize_t length = object_begin(fusefs_of_lent(req), node, &object);

	if (length < 0)
		return length;
	if (size > 0)
		value = malloc(size);
	if (size > 0 && !value)
		length = -ENOMEM;
	else
		length = getxattr_for(req, &object, name, value, size);
	object_end(&object);
	/* The kernel asks for ACLs to check permissions, and an error would deny access. So a
	 * source that does not support ACLs has none. */
	if (length == -EOPNOTSUPP && is_acl(name))
		length = -ENODATA;
	if (length < 0)
		free(value);
	else
		*ret_value = value;
	return length;
}

/* Reply with LENGTH bytes, or with the error. If VALUE is NULL, only the length was asked for.
 * Frees VALUE. */
static void reply_xattr(fuse_req_t req, ssize_t length, size_t size, char *value)
{
	if (length < 0) {
		fusefs_reply_err(req, (int)-length);
		return;
	}
	if (size == 0)
		fusefs_reply_xattr(req, (size_t)length);
	else
		fusefs_reply_buf(req, value, (size_t)length);
	free(value);
}

void fusefs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char *value = NULL;
	ssize_t length = do_getxattr(req, ino, name, size, &value);

	reply_xattr(req, length, size, value);
}

/* Remove the names that need CAP_SYS_ADMIN from LIST, unless REQ's caller has it. Returns the bytes
 * left. */
static size_t list_visible(fuse_req_t req, char *list, size_t length)
{
	bool asked = false;
	size_t kept = 0;

	for (size_t at = 0, bytes; at < length; at += bytes) {
		bytes = strnlen(list + at, length - at) + 1;
		if (bytes > length - at)
			bytes = length - at;
		if (strncmp(list + at, TRUSTED_PREFIX, strlen(TRUSTED_PREFIX)) == 0) {
			if (!asked && identity_has_capability(req, CAP_SYS_ADMIN))
				return length;
			asked = true;
			continue;
		}
		memmove(list + kept, list + at, bytes);
		kept += bytes;
	}
	return kept;
}

/* Returns the length of the list of names that the caller may see. The list is in a new buffer that
 * the caller frees. */
static ssize_t do_listxattr(fuse_req_t req, fuse_ino_t node, size_t size, char **ret_list)
{
	struct object object;
	ssize_t length = object_begin(fusefs_of(req), node, &object);
	char *list;

	if (length < 0)
		return length;
	list = malloc(XATTR_LIST_MAX);
	if (!list)
		length = -ENOMEM;
	else if ((length = listxattr(object.path, list, XATTR_LIST_MAX)) < 0)
		length = -errno;
	object_end(&object);
	if (length > 0)
		length = (ssize_t)list_visible(req, list, (size_t)length);
	if (size > 0 && length > 0 && (size_t)length > size)
		length = -ERANGE;
	if (length < 0)
		free(list);
	else
		*ret_list = list;
	return length;
}

void fusefs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char *list = NULL;
	ssize_t length = do_listxattr(req, ino, size, &list);

	reply_xattr(req, length, size, list);
}

static errint_t removexattr_as_caller(fuse_req_t req, const struct object *object, const char *name)
{
	struct identity identity = {0};
	errint_t error = 0;

	/* When any user writes, the kernel has file capabilities removed. That is done as the
	 * daemon. If a client asks for it, the kernel has checked the client. Nobody gains a right
	 * by it. */
	if (strcmp(name, CAPABILITY))
		error = identity_assume(req, object->fd, false, &identity);
	if (error)
		return error;
	session_change_begins(0, 0);
	do
		error = result_of(removexattr(object->path, name));
	while (identity_insist(&identity, error));
	identity_restore();
	return error == -ENODATA && fusefs_again_unset(object->path) ? 0 : error;
}

static errint_t do_removexattr(struct fusefs *fs, fuse_req_t req, fuse_ino_t node, const char *name)
{
	struct object object;
	struct own_change change;
	errint_t error = object_begin(fs, node, &object);

	if (error)
		return error;
	fusefs_own_change_begin(fs, object.fd, &change);
	error = removexattr_as_caller(req, &object, name);
	fusefs_own_change_end(&change);
	object_end(&object);
	return error;
}

void fusefs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	fusefs_reply_err(req, -do_removexattr(fusefs_of(req), req, ino, name));
}

/* ---- statfs ---- */

static errint_t do_statfs(struct fusefs *fs, fuse_ino_t node, struct statvfs *ret_statvfs)
{
	struct object object;
	/* Node 0: the kernel asks about the file system, not about a place in it. */
	errint_t error = object_begin(fs, node ? node : FUSE_ROOT_ID, &object);

	if (error)
		return error;
	if (fstatvfs(object.fd, ret_statvfs) < 0)
		error = -errno;
	object_end(&object);
	return error;
}

void fusefs_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs statvfs;
	errint_t error = do_statfs(fusefs_of(req), ino, &statvfs);

	if (error)
		fusefs_reply_err(req, -error);
	else
		fusefs_reply_statfs(req, &statvfs);
}
