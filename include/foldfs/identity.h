/* SPDX-License-Identifier: Apache-2.0 */
/*
 * identity.h - do something on the source as the caller would
 *
 * Names are made, moved and removed with the caller's uid, gid, supplementary groups and umask, so
 * that ownership, set-gid directories, default ACLs, quotas and reserved blocks come out as on the
 * source itself, and a network file system's server sees who asks. The identity is the calling
 * thread's own: raw system calls, because glibc's wrappers change every thread. A daemon that is
 * not root leaves it as it is, but for the umask.
 *
 * Who may do it at all has been decided before: the mount has default_permissions, and the kernel
 * knows the caller's capabilities and user namespace, which do not come with a request. So the
 * thread keeps the capabilities that only stand for that decision (to search and write directories,
 * sticky ones included, and to make device nodes), and loses those that change what is made.
 */
#ifndef FOLDFS_IDENTITY_H
#define FOLDFS_IDENTITY_H

#include "foldfs/page.h"

#include <fuse_lowlevel.h>

struct identity {
	bool gid_assumed;
	bool uid_assumed;
	bool groups_assumed;
	mode_t umask; /* the thread's own, to go back to */
};

/*
 * Take on the identity of REQ's caller on this thread; in pairs, never nested. DIRECTORY_FD is the
 * directory in which something is to be done, or -1: where its mode for others than its owner
 * cannot matter, the caller's supplementary groups, which are expensive to learn, are left out.
 * -errno; then nothing is changed. Blocks on nothing but /proc.
 */
errint_t identity_assume(fuse_req_t req, int directory_fd, struct identity *ret_identity);
/* Go back. A daemon that cannot get its own identity back must not go on: this aborts then, the
 * only place in foldfs that does. */
void identity_restore(const struct identity *identity);

/* Whether REQ's caller is in the group GID, by his own or a supplementary one. */
bool identity_in_group(fuse_req_t req, gid_t gid);

#endif
