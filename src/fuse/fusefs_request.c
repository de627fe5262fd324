/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_request.c - what every request uses: the transport that it came by, and its user's share
 * of open files
 */
#include "fusefs_internal.h"

#include <errno.h>

#ifdef FOLD_TSAN
char fusefs_tsan_kernel;
#endif

__thread bool fusefs_on_ring;

void fusefs_ring_begin(struct fusefs *fs)
{
	/* At the end libfuse cancels its ring threads, even in the middle of a request, when they
	 * hold locks. They also end without being cancelled: libfuse wakes them through an eventfd
	 * first. */
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
