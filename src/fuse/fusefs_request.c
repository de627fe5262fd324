/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_request.c - what every request goes through: the transport that it came by, and the share
 * of open files that its user has
 */
#include "fusefs_internal.h"

#include <errno.h>

#ifdef FOLD_TSAN
char fusefs_tsan_kernel;
#endif

__thread bool fusefs_on_ring;

void fusefs_ring_begin(struct fusefs *fs)
{
	/* libfuse cancels its ring threads at the end, also in the middle of a request, when they
	 * hold locks. They end without that as well: it wakes them through an eventfd first. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	fusefs_on_ring = true;
	atomic_store_explicit(&fs->uses_io_uring, true, memory_order_relaxed);
}

errint_t fusefs_handle_take(struct fusefs *fs, fuse_req_t req)
{
	errint_t error = shares_take(fs->open_handles, fuse_req_ctx(req)->uid, 1);

	if (!error)
		inode_table_make_room(fs->inodes, shares_taken(fs->open_handles));
	return error == -EAGAIN ? -ENFILE : error;
}

void fusefs_handle_give(struct fusefs *fs, uid_t user)
{
	shares_give(fs->open_handles, user, 1);
}
