/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_attr.c - attributes: getattr, statx, setattr, xattrs, statfs
 *
 * Each request is two functions: do_x() decides and returns an errno, fusefs_x() only replies.
 *
 * The kernel has checked the caller (default_permissions), with capabilities and user namespace,
 * which a request does not carry; so attributes are changed as the daemon, and what the source does
 * on its own account (set-id bits at chown, the ACL's mask at chmod) it does. The one thing that
 * depends on the caller's groups at the source is an access ACL of a set-gid file: that is set
 * under the caller's identity.
 *
 * Objects are reached by O_PATH descriptors; calls that do not take one go through /proc/self/fd,
 * whose links lead to the object itself, to a symlink as well, and no further.
 */
#include "foldfs/fusefs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

/* An object at work. */
struct object {
	struct inode *inode;
	int fd;        /* O_PATH */
	char path[32]; /* of fd, for calls that take no descriptor */
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
	snprintf(ret_object->path, sizeof(ret_object->path), "/proc/self/fd/%d", fd);
	return 0;
}

static void object_end(const struct object *object)
{
	inode_path_end(object->inode, object->fd);
}

/* The end of having asked for its attributes. -ESTALE: it has gone, and its numbers may mean
 * another one by now; the kernel looks the name up again, and is to find that. */
static errint_t object_asked(struct fusefs *fs, const struct object *object, errint_t error)
{
	if (error == -ESTALE)
		inode_detach(fs->inodes, object->inode);
	object_end(object);
	return error;
}

/* ---- getattr and statx ---- */

/* An open handle saves opening the inode, and knows a file whose name is gone for certain. The
 * kernel gives handles of regular files only. */
static errint_t do_getattr(struct fusefs *fs, fuse_ino_t node, const struct fuse_file_info *fi,
			   struct stat *ret_stat)
{
	struct object object;
	errint_t error = 0;

	if (fi) {
		if (fstat(fusefs_handle_fd(fi), ret_stat) < 0)
			return -errno;
	} else {
		error = object_begin(fs, node, &object);
		if (error)
			return error;
		if (fstat(object.fd, ret_stat) < 0)
			error = -errno;
		error = object_asked(fs, &object, error);
	}
	if (!error)
		fusefs_stat_show(fs, ret_stat);
	return error;
}

static void reply_attr(fuse_req_t req, struct fusefs *fs, errint_t error, const struct stat *st)
{
	if (error)
		fuse_reply_err(req, -error);
	else
		fuse_reply_attr(req, st, fs->attr_timeout);
}

void fusefs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of(req);
	struct stat st;
	errint_t error = do_getattr(fs, ino, fi, &st);

	reply_attr(req, fs, error, &st);
}

static errint_t statx_fd(struct fusefs *fs, int fd, int flags, int mask, struct statx *ret_statx)
{
	flags = (flags & AT_STATX_SYNC_TYPE) | AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW;
	memset(ret_statx, 0, sizeof(*ret_statx));
	if (statx(fd, "", flags, (unsigned int)mask, ret_statx) < 0)
		return -errno;
	ret_statx->stx_ino = inode_number_shown(
		fs->inodes, makedev(ret_statx->stx_dev_major, ret_statx->stx_dev_minor),
		ret_statx->stx_ino);
	return 0;
}

static errint_t do_statx(struct fusefs *fs, fuse_ino_t node, int flags, int mask,
			 const struct fuse_file_info *fi, struct statx *ret_statx)
{
	struct object object;
	errint_t error;

	if (fi)
		return statx_fd(fs, fusefs_handle_fd(fi), flags, mask, ret_statx);
	error = object_begin(fs, node, &object);
	if (error)
		return error;
	error = statx_fd(fs, object.fd, flags, mask, ret_statx);
	return object_asked(fs, &object, error);
}

void fusefs_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of(req);
	struct statx stx;
	errint_t error = do_statx(fs, ino, flags, mask, fi, &stx);

	if (error)
		fuse_reply_err(req, -error);
	else
		fuse_reply_statx(req, 0, &stx, fs->attr_timeout);
}

/* ---- setattr ---- */

/* The set-id bits that a file loses when REQ's caller, without CAP_FSETID, writes it or changes its
 * owner, as in the kernel: set-gid without execution by the group stays for the members of that
 * group. */
static mode_t bits_to_kill(fuse_req_t req, const struct stat *st)
{
	mode_t kill = st->st_mode & S_ISUID;

	if ((st->st_mode & S_ISGID) &&
	    ((st->st_mode & S_IXGRP) || !identity_in_group(req, st->st_gid)))
		kill |= S_ISGID;
	return kill;
}

static errint_t chmod_fd(int fd, mode_t mode)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return chmod(path, mode) < 0 ? -errno : 0;
}

errint_t fusefs_kill_suidgid(fuse_req_t req, int fd)
{
	struct stat st;
	mode_t kill;

	if (fstat(fd, &st) < 0)
		return -errno;
	kill = S_ISREG(st.st_mode) ? bits_to_kill(req, &st) : 0;
	return kill ? chmod_fd(fd, st.st_mode & 07777 & ~kill) : 0;
}

/*
 * The source takes capabilities and set-id bits of a file that changes hands by itself, but judges
 * the set-gid bit of one that its group cannot execute by the daemon, who is root. By the caller it
 * may have to go; that depends on the group that the file had.
 */
static errint_t set_owner(fuse_req_t req, const struct object *object, const struct stat *attr,
			  int to_set)
{
	uid_t uid = to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
	gid_t gid = to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;
	struct stat before;
	struct stat now;

	if (fstat(object->fd, &before) < 0)
		return -errno;
	if (fchownat(object->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (fuse_req_ctx(req)->uid == 0 || S_ISDIR(before.st_mode) ||
	    !(bits_to_kill(req, &before) & S_ISGID))
		return 0;
	if (fstat(object->fd, &now) < 0)
		return -errno;
	return now.st_mode & S_ISGID ? chmod_fd(object->fd, now.st_mode & 07777 & ~S_ISGID) : 0;
}

/*
 * A request that sets nothing comes from chown(2) of neither owner nor group, and before a write
 * that takes set-id bits or capabilities away. For root and the owner both mean: off with them, and
 * a new ctime; but root's write keeps set-id bits, and is told by the capabilities that the kernel
 * sent it for. From everybody else, of a file with set-id bits, chown(2) is to be refused; but an
 * error here would also fail a write, so only objects that are not written by FUSE say so.
 */
static errint_t set_nothing(fuse_req_t req, const struct object *object, const struct stat *attr)
{
	uid_t uid = fuse_req_ctx(req)->uid;
	struct stat st;

	if (fstat(object->fd, &st) < 0)
		return -errno;
	if (uid == 0 && getxattr(object->path, CAPABILITY, NULL, 0) >= 0)
		return 0;
	if (uid == 0 || uid == st.st_uid || S_ISLNK(st.st_mode))
		return set_owner(req, object, attr, 0);
	if (!S_ISDIR(st.st_mode) && bits_to_kill(req, &st))
		return S_ISREG(st.st_mode) ? 0 : -EPERM;
	return chmod_fd(object->fd, st.st_mode & 07777);
}

static struct timespec time_to_set(int to_set, int flag, int now_flag, struct timespec time)
{
	if (to_set & now_flag)
		return (struct timespec){.tv_nsec = UTIME_NOW};
	if (to_set & flag)
		return time;
	return (struct timespec){.tv_nsec = UTIME_OMIT};
}

static errint_t set_times(const struct object *object, const struct stat *attr, int to_set)
{
	const struct timespec times[2] = {
		time_to_set(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, attr->st_atim),
		time_to_set(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, attr->st_mtim),
	};

	return utimensat(object->fd, "", times, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

#define SET_OWNER (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)
#define SET_TIMES                                                                                  \
	(FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW |                     \
	 FUSE_SET_ATTR_MTIME_NOW)
#define KILL_SUIDGID (FUSE_SET_ATTR_KILL_SUID | FUSE_SET_ATTR_KILL_SGID)

/* chmod(2), where the plan that the file has allows set-id bits; else they are ignored, as POSIX
 * leaves it to the implementation. Not under the inode's lock: it waits for who writes to the file
 * in the source, and he may have himself waited for. */
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
	error = chmod(object->path, mode) < 0 ? -errno : 0;
	if (granting) {
		inode_lock(object->inode);
		plan_grant_end(hold);
		inode_unlock(object->inode);
	}
	return error;
}

/*
 * In an order in which no part undoes another: a new owner takes set-id bits that a mode may give,
 * a new size takes a new time. The ctime is the source's own and cannot be set: FUSE_SET_ATTR_CTIME
 * comes with the write-back cache only, which we do not use.
 */
static errint_t set_parts(fuse_req_t req, const struct object *object, const struct stat *attr,
			  int to_set, struct fuse_file_info *fi)
{
	errint_t error = 0;

	if (!to_set)
		error = set_nothing(req, object, attr);
	if (to_set & SET_OWNER)
		error = set_owner(req, object, attr, to_set);
	if (!error && (to_set & FUSE_SET_ATTR_MODE))
		error = set_mode(req, object, attr->st_mode & 07777);
	if (!error && (to_set & FUSE_SET_ATTR_SIZE))
		error = fusefs_truncate(fusefs_of(req), req, object->inode, fi, attr->st_size);
	if (!error && (to_set & KILL_SUIDGID) && !(to_set & (SET_OWNER | FUSE_SET_ATTR_MODE)))
		error = fusefs_kill_suidgid(req, object->fd);
	if (!error && (to_set & SET_TIMES))
		error = set_times(object, attr, to_set);
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
	if (!error && fstat(object.fd, ret_stat) < 0)
		error = -errno;
	object_end(&object);
	if (!error)
		fusefs_stat_show(fs, ret_stat);
	return error;
}

void fusefs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		    struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of(req);
	struct stat st;
	errint_t error = do_setattr(fs, req, ino, attr, to_set, fi, &st);

	reply_attr(req, fs, error, &st);
}

/* ---- xattrs ---- */

/* See the head of this file. */
static errint_t setxattr_as_caller(fuse_req_t req, const struct object *object, const char *name,
				   const char *value, size_t size, int flags)
{
	struct identity identity;
	errint_t error = identity_assume(req, -1, &identity);

	if (error)
		return error;
	if (setxattr(object->path, name, value, size, flags) < 0)
		error = -errno;
	identity_restore(&identity);
	return error;
}

static errint_t do_setxattr(struct fusefs *fs, fuse_req_t req, fuse_ino_t node, const char *name,
			    const char *value, size_t size, int flags)
{
	struct object object;
	struct own_change change;
	errint_t error = object_begin(fs, node, &object);
	struct stat st;

	if (error)
		return error;
	fusefs_own_change_begin(fs, object.fd, &change);
	if (strcmp(name, ACL_ACCESS) == 0 && fstat(object.fd, &st) == 0 && (st.st_mode & S_ISGID))
		error = setxattr_as_caller(req, &object, name, value, size, flags);
	else if (setxattr(object.path, name, value, size, flags) < 0)
		error = -errno;
	fusefs_own_change_end(&change);
	object_end(&object);
	return error;
}

void fusefs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		     size_t size, int flags)
{
	fuse_reply_err(req, -do_setxattr(fusefs_of(req), req, ino, name, value, size, flags));
}

/* Bytes of the value, in a new buffer of the caller's if SIZE is not 0. */
static ssize_t do_getxattr(struct fusefs *fs, fuse_ino_t node, const char *name, size_t size,
			   char **ret_value)
{
	struct object object;
	char *value = NULL;
	ssize_t length = object_begin(fs, node, &object);

	if (length < 0)
		return length;
	if (size > 0)
		value = malloc(size);
	if (size > 0 && !value)
		length = -ENOMEM;
	else if ((length = getxattr(object.path, name, value, size)) < 0)
		length = -errno;
	object_end(&object);
	/* The kernel asks for ACLs to check permissions, and an error would refuse access: a source
	 * without ACLs has none. */
	if (length == -EOPNOTSUPP &&
	    (strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0))
		length = -ENODATA;
	if (length < 0)
		free(value);
	else
		*ret_value = value;
	return length;
}

/* LENGTH bytes, or the error; VALUE NULL: only their number was asked. Frees VALUE. */
static void reply_xattr(fuse_req_t req, ssize_t length, size_t size, char *value)
{
	if (length < 0) {
		fuse_reply_err(req, (int)-length);
		return;
	}
	if (size == 0)
		fuse_reply_xattr(req, (size_t)length);
	else
		fuse_reply_buf(req, value, (size_t)length);
	free(value);
}

void fusefs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char *value = NULL;
	ssize_t length = do_getxattr(fusefs_of(req), ino, name, size, &value);

	reply_xattr(req, length, size, value);
}

/* Take the names that only root may see out of LIST; the bytes left. */
static size_t list_without_trusted(char *list, size_t length)
{
	size_t kept = 0;

	for (size_t at = 0, bytes; at < length; at += bytes) {
		bytes = strnlen(list + at, length - at) + 1;
		if (bytes > length - at)
			bytes = length - at;
		if (strncmp(list + at, TRUSTED_PREFIX, strlen(TRUSTED_PREFIX)) == 0)
			continue;
		memmove(list + kept, list + at, bytes);
		kept += bytes;
	}
	return kept;
}

/* Bytes of the list of names that the caller may see, in a new buffer of the caller's. */
static ssize_t do_listxattr(struct fusefs *fs, fuse_ino_t node, uid_t uid, size_t size,
			    char **ret_list)
{
	struct object object;
	ssize_t length = object_begin(fs, node, &object);
	char *list;

	if (length < 0)
		return length;
	list = malloc(XATTR_LIST_MAX);
	if (!list)
		length = -ENOMEM;
	else if ((length = listxattr(object.path, list, XATTR_LIST_MAX)) < 0)
		length = -errno;
	object_end(&object);
	if (length > 0 && uid != 0)
		length = (ssize_t)list_without_trusted(list, (size_t)length);
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
	ssize_t length = do_listxattr(fusefs_of(req), ino, fuse_req_ctx(req)->uid, size, &list);

	reply_xattr(req, length, size, list);
}

static errint_t do_removexattr(struct fusefs *fs, fuse_ino_t node, const char *name)
{
	struct object object;
	struct own_change change;
	errint_t error = object_begin(fs, node, &object);

	if (error)
		return error;
	fusefs_own_change_begin(fs, object.fd, &change);
	if (removexattr(object.path, name) < 0)
		error = -errno;
	fusefs_own_change_end(&change);
	object_end(&object);
	return error;
}

void fusefs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	fuse_reply_err(req, -do_removexattr(fusefs_of(req), ino, name));
}

/* ---- statfs ---- */

static errint_t do_statfs(struct fusefs *fs, fuse_ino_t node, struct statvfs *ret_statvfs)
{
	struct object object;
	/* Node 0: the kernel asks for the file system, not for a place in it. */
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
		fuse_reply_err(req, -error);
	else
		fuse_reply_statfs(req, &statvfs);
}
