/* SPDX-License-Identifier: Apache-2.0 */
/* resources.h - the daemon's limits, and how the kernel treats it when memory is short */
#ifndef FOLDFS_RESOURCES_H
#define FOLDFS_RESOURCES_H

#include "foldfs/page.h"

/* Allow as many open files as possible: where the source has no file handles, inodes need
 * descriptors. */
void resources_raise_open_files(void);
/*
 * Allow files as large as the source takes. The limit of a file's size (ulimit -f) is each client's
 * own, and the kernel checks it before it asks. A limit of the daemon's would apply to everybody:
 * then this reports it, unless the mount is READ_ONLY, and returns -EINVAL.
 */
errint_t resources_raise_file_size(bool read_only);
/*
 * What the daemon of a mount needs when memory is short. Both are best effort, for root alone.
 *
 * PR_SET_IO_FLUSHER: other processes' dirty pages are cleaned by writes that come to us. So we must
 * not be throttled, as a process that dirties pages, until those are clean; and our allocations
 * must not wait for I/O that may need us. Threads inherit it, so it is set before they start.
 *
 * oom_score_adj: our memory is bounded, so ending us stops no leak, but takes every client of the
 * mount along. It is not set to -1000, which would leave the kernel no choice at all, and not set
 * if the administrator has set a value already.
 */
void resources_protect(void);

#endif
