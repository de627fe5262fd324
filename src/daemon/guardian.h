/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guardian.h - aborts the connection when the daemon is killed
 *
 * The kernel ends a FUSE connection, with every request that nobody will answer, when the last
 * descriptor of it is closed. But suppose a daemon is killed while its trimming thread waits,
 * inside the kernel, for a page which such a request holds. Then its descriptors are not closed,
 * because that thread cannot end before the request does. The guardian is a small process beside
 * the daemon. It sees the daemon's main thread end, and aborts the connection.
 */
#ifndef FOLDFS_GUARDIAN_H
#define FOLDFS_GUARDIAN_H

#include "foldfs/page.h"

#include <sys/types.h>

/*
 * Start the guardian of the connection whose abort file is open as ABORT_FILE (borrowed; see
 * own_mount.h). Call it from the thread that ends last, before there are other threads. *ret_pid is
 * the guardian's. -EBADF: there is no guardian, because connections cannot be aborted here
 * (ABORT_FILE is -1: no fusectl file system, no right to mount it). -errno.
 */
errint_t guardian_start(int abort_file, pid_t *ret_pid);

/* End the guardian, once the connection has ended. Does nothing for 0. */
void guardian_stop(pid_t pid);

#endif
