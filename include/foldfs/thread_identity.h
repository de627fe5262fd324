/* SPDX-License-Identifier: Apache-2.0 */
/*
 * thread_identity.h - do something on the source as the caller would
 *
 * A request carries the caller's uid, gid and thread. The daemon does what the request asks for
 * with that uid and gid and the caller's supplementary groups. It does so without any capability
 * that counts on the source. So the source itself decides, at that moment, whether the caller may.
 * The kernel has checked that too before it sent the request (default_permissions), but against
 * attributes that may be attr_timeout old. Ownership, set-gid directories, set-id bits, default
 * ACLs, quotas and reserved blocks come out as on the source, without further work. A network file
 * system's server sees who asks.
 *
 * A refused request may still be the caller's right, by a capability. Capabilities do not come with
 * a request. Only after a refusal the daemon asks /proc for the caller's capabilities and makes the
 * call again with them (identity_insist()). So capabilities cost nothing where they are not needed.
 *
 * The identity belongs to the calling thread only. It is set by raw system calls, because glibc's
 * wrappers change every thread. Only the file-system uid changes, never the real, effective or
 * saved one: a user with the effective uid of a thread may change its priority and its processors.
 *
 * Callers with uid 0 have all that the daemon has. Some of it (blocks and quota that are root's,
 * file capabilities) they get only after a refusal. A daemon that is not root leaves everything as
 * it is, except the umask.
 */
#ifndef FOLDFS_THREAD_IDENTITY_H
#define FOLDFS_THREAD_IDENTITY_H

#include "foldfs/page.h"

#include <errno.h>
#include <fuse_lowlevel.h>

/* A name that is about to be removed from a directory. The object that it names may matter for the
 * permission. */
struct identity_victim {
	int directory_fd;
	const char *name;
};

/* One operation that is being done for a caller. */
struct identity {
	fuse_req_t req; /* NULL: capabilities are asked for only with uid 0 */
	int fd;         /* the object or directory that it works on */
	int other_fd;   /* a second such object; -1: none */
	struct identity_victim victims[2];
	bool insisted;
};

/* The calling thread has the daemon's identity. Only thread_identity.c changes it. */
extern __thread bool identity_is_own;

/*
 * Take on the identity of REQ's caller on this thread, until identity_restore(). Never nested. The
 * thread may be lent. FD is the object of the operation, or the directory in which it is done.
 * Supplementary groups are expensive to learn; they are left out where the mode of FD says that
 * they cannot matter. GROUPS: they matter in any case (a group is given, a set-gid bit). -errno;
 * then the thread has its own identity again. Blocks on nothing but /proc.
 */
errint_t identity_assume(fuse_req_t req, int fd, bool groups, struct identity *ret_identity);
/* The operation also removes NAME from the directory open as DIRECTORY_FD. To be called before
 * identity_insist(), at most twice. NAME is borrowed. */
void identity_takes(struct identity *identity, int directory_fd, const char *name);
/*
 * The source has answered RESULT (negative errno, or success). True: the caller has capabilities
 * that may make a difference, and the thread has them now; make the call again. Returns true at
 * most once for each identity_assume().
 *
 * A capability of a user namespace holds for objects whose owner and group are mapped there, like
 * in the kernel (capable_wrt_inode_uidgid()). The owner and the group are looked at just before the
 * call.
 */
bool identity_insist(struct identity *identity, ssize_t result);
/* Take back the daemon's own identity. A thread that cannot get it back must not go on, so this
 * aborts then. No other place in foldfs aborts. */
void identity_restore(void);

/*
 * Whether supplementary groups can make a difference to what REQ's caller does to the object open
 * as FD. They cannot for its owner, because only the owner's permissions apply to the owner. They
 * cannot where the group has the same permissions as others. But a set-gid bit is kept only for
 * members of the group.
 */
bool identity_groups_matter(fuse_req_t req, int fd);

/* Instead of identity_restore(): the thread keeps the identity for the same caller's next
 * operation, until identity_make_own(). Groups and capabilities are never kept, because they are
 * asked for anew each time. */
void identity_leave_lent(void);

/* For operations that make something: take on the umask of REQ's caller, on this thread alone, from
 * now on. -ENOMEM. */
errint_t identity_take_umask(fuse_req_t req);

/*
 * Take on UID and GID for changes of content of an open file, where supplementary groups have no
 * say. The thread keeps them for the next change by the same user, until identity_make_own().
 * KEEP_SET_ID: the change treats set-id bits as if the writer had CAP_FSETID. For uid 0, false
 * removes that capability from the daemon's. identity_insist() is for root's changes, which may use
 * blocks and quota that others may not. -errno.
 */
errint_t identity_lend(uid_t uid, gid_t gid, bool keep_set_id, struct identity *ret_identity);

/* To be called before any operation of the daemon's own, on a thread that may be lent. */
void identity_make_own_slowly(void);
static inline void identity_make_own(void)
{
	if (!identity_is_own)
		identity_make_own_slowly();
}

/* A call of the daemon's own has failed with ERROR (an errno). True: that may be because the thread
 * was lent. The thread has its own identity now; make the call again. */
static inline bool identity_was_lent(int error)
{
	if (identity_is_own || (error != EACCES && error != EPERM))
		return false;
	identity_make_own_slowly();
	return true;
}

/*
 * Take on an identity without rights over files, until identity_make_own(): that of the caller whom
 * the thread is lent to, or else nobody's. For operations that the kernel continues later with the
 * rights of this moment (kernel passthrough). So no such write keeps set-id bits, or uses blocks
 * that are root's. -errno.
 */
errint_t identity_give_up_rights(void);

/* Whether REQ's caller has CAPABILITY (a number of <linux/capability.h>) in the outermost user
 * namespace. Asks /proc. */
bool identity_has_capability(fuse_req_t req, unsigned capability);

#endif
