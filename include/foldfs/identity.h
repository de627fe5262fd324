/* SPDX-License-Identifier: Apache-2.0 */
/*
 * identity.h - do something on the source as the caller would
 *
 * Objects are created with the caller's uid, gid, supplementary groups and umask, so that set-gid
 * directories, default ACLs and quotas come out as on the source itself. The identity is the
 * calling thread's own: raw system calls, because glibc's wrappers change every thread. A daemon
 * that is not root leaves it as it is.
 */
#ifndef FOLDFS_IDENTITY_H
#define FOLDFS_IDENTITY_H

#include "foldfs/page.h"

#include <fuse_lowlevel.h>

struct identity {
	bool assumed;
	mode_t umask; /* the thread's own, to go back to */
};

/* Take on the identity of REQ's caller on this thread; in pairs, never nested. -errno; then nothing
 * is changed. */
errint_t identity_assume(fuse_req_t req, struct identity *ret_identity);
/* Go back. A daemon that cannot get its own identity back must not go on: this aborts then, the
 * only place in foldfs that does. */
void identity_restore(const struct identity *identity);

#endif
