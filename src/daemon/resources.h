/* SPDX-License-Identifier: Apache-2.0 */
/* resources.h - the daemon's limits, and what it is to the kernel when memory is short */
#ifndef FOLDFS_RESOURCES_H
#define FOLDFS_RESOURCES_H

#include "foldfs/page.h"

/* As many open files as we may have: where the source has no file handles, inodes need
 * descriptors. */
void resources_raise_open_files(void);
/*
 * Files as large as the source takes. The size that a file may have (ulimit -f) is each client's
 * own limit, which the kernel looks at before it asks. One of the daemon's would be a limit to
 * everybody: then this says so, unless the mount is READ_ONLY, and returns -EINVAL.
 */
errint_t resources_raise_file_size(bool read_only);
/*
 * What a daemon under a mount needs when memory is short; each is best effort, for root alone.
 *
 * PR_SET_IO_FLUSHER: other processes' dirty pages are cleaned by writes that come to us. So we must
 * not be throttled, as one that dirties pages, until those are clean; and our allocations must not
 * wait for I/O that may need us. Threads inherit it, so it is set before they start.
 *
 * oom_score_adj: our memory is bounded, so ending us stops no leak, but takes every client of the
 * mount along. Not -1000, which would leave the kernel no choice at all; and not where the
 * administrator has set one already.
 */
void resources_protect(void);

#endif
