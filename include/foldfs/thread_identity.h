/* SPDX-License-Identifier: Apache-2.0 */
/*
 * thread_identity.h - do something on the source as the caller would
 *
 * A request carries the caller's uid, gid and thread. What it asks for is done on the source with
 * that uid, gid and the caller's supplementary groups, and with no capability that counts there: so
 * the source itself says, at that moment, whether the caller may. The kernel has checked that too
 * before it asked (default_permissions), but against attributes that may be attr_timeout old.
 * Ownership, set-gid directories, set-id bits, default ACLs, quotas and reserved blocks come out as
 * on the source by themselves, and a network file system's server sees who asks.
 *
 * What is refused may still be the caller's right, by a capability, which does not come with a
 * request. Only then /proc is asked for it, and the call is made again with those that the caller
 * has (identity_insist()). So capabilities cost nothing where they are not needed.
 *
 * The identity is the calling thread's own: raw system calls, because glibc's wrappers change every
 * thread. It is the file-system uid alone that changes, never the real, effective or saved one: a
 * user who has the effective uid of a thread may change its priority and its processors.
 *
 * Callers with uid 0 have all that the daemon has, some of it (blocks and quota that are root's,
 * file capabilities) when they are refused without. A daemon that is not root leaves everything as
 * it is, but for the umask.
 */
#ifndef FOLDFS_THREAD_IDENTITY_H
#define FOLDFS_THREAD_IDENTITY_H

#include "foldfs/page.h"

#include <errno.h>
#include <fuse_lowlevel.h>

/* A name that is about to go from a directory: what it names may have a say. */
struct identity_victim {
	int directory_fd;
	const char *name;
};

/* One thing that is being done for a caller. */
struct identity {
	fuse_req_t req; /* NULL: capabilities are asked for uid 0 alone */
	int fd;         /* what it is done to or in */
	int other_fd;   /* the same where there are two; -1 */
	struct identity_victim victims[2];
	bool insisted;
};

/* The calling thread has the daemon's identity. Changed by thread_identity.c alone. */
extern __thread bool identity_is_own;

/*
 * Take on the identity of REQ's caller on this thread, until identity_restore(); never nested. The
 * thread may be lent. FD is what something is done to, or the directory in which it is done: where
 * its mode says that supplementary groups cannot matter, they are left out, for they are expensive
 * to learn. GROUPS: they matter all the same (a group is given, a set-gid bit). -errno; then the
 * thread is its own again. Blocks on nothing but /proc.
 */
errint_t identity_assume(fuse_req_t req, int fd, bool groups, struct identity *ret_identity);
/* What is done takes NAME from the directory open as DIRECTORY_FD as well: before
 * identity_insist(). Twice at most; NAME is borrowed. */
void identity_takes(struct identity *identity, int directory_fd, const char *name);
/*
 * The source has answered RESULT (negative errno, or success). True: the caller has capabilities
 * that may make a difference, the thread has them now, and the call is to be made again. At most
 * once for each identity_assume().
 *
 * A capability of a user namespace holds for objects whose owner and group are mapped there, as the
 * kernel has it (capable_wrt_inode_uidgid()). That is looked at just before the call.
 */
bool identity_insist(struct identity *identity, ssize_t result);
/* The daemon's own identity again. A thread that cannot get it back must not go on: this aborts
 * then, the only place in foldfs that does. */
void identity_restore(void);

/*
 * Whether supplementary groups can make a difference to what REQ's caller does to what is open as
 * FD. They cannot for its owner, whom the owner's permissions alone concern, nor where the group
 * may do what others may. But a set-gid bit is kept for members alone.
 */
bool identity_groups_matter(fuse_req_t req, int fd);

/* Or: the thread stays as it is, for the next thing that the same caller wants, until
 * identity_make_own(). Never with groups or capabilities: what others have is asked for anew. */
void identity_leave_lent(void);

/* For what is made: the umask of REQ's caller, on this thread alone, from now on. -ENOMEM. */
errint_t identity_take_umask(fuse_req_t req);

/*
 * Take on UID and GID for changes of content of a file that is open, where supplementary groups
 * have no say. The thread stays so, for the next change of the same user's, until
 * identity_make_own(). KEEP_SET_ID: what the change may do to set-id bits it does as if by somebody
 * with CAP_FSETID; for uid 0 false takes that from the daemon's capabilities. identity_insist() is
 * for root's changes, which may use blocks and quota that others may not. -errno.
 */
errint_t identity_lend(uid_t uid, gid_t gid, bool keep_set_id, struct identity *ret_identity);

/* Before anything that is the daemon's own to do, on a thread that may be lent. */
void identity_make_own_slowly(void);
static inline void identity_make_own(void)
{
	if (!identity_is_own)
		identity_make_own_slowly();
}

/* A call of the daemon's own has failed with ERROR (an errno). True: that may be because the thread
 * was lent. It is its own now, and the call is to be made again. */
static inline bool identity_was_lent(int error)
{
	if (identity_is_own || (error != EACCES && error != EPERM))
		return false;
	identity_make_own_slowly();
	return true;
}

/*
 * Be somebody without rights over files, until identity_make_own(): the caller whom the thread is
 * lent to, or else nobody. For what the kernel goes on doing with the rights of the moment (kernel
 * passthrough): no write that goes there keeps set-id bits, or uses blocks that are root's. -errno.
 */
errint_t identity_give_up_rights(void);

/* Whether REQ's caller has CAPABILITY (a number of <linux/capability.h>) in the outermost user
 * namespace. Asks /proc. */
bool identity_has_capability(fuse_req_t req, unsigned capability);

#endif
