/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guardian.h - aborts the connection when the daemon is killed
 *
 * The kernel ends a FUSE connection when the last descriptor of it is closed, and so every request
 * that nobody will answer. But a daemon that is killed while its trimming thread waits, inside the
 * kernel, for a page which such a request holds does not close its descriptors: that thread cannot
 * end before the request does. A small process beside the daemon sees the daemon's main thread end
 * and aborts the connection.
 */
#ifndef FOLDFS_GUARDIAN_H
#define FOLDFS_GUARDIAN_H

#include "foldfs/page.h"

#include <sys/types.h>

/*
 * Start the guardian of the connection whose abort file is open as ABORT_FILE (borrowed; see
 * own_mount.h). From the thread that ends last, and before there are others. *ret_pid is the
 * guardian's. -EBADF: there is none, because connections cannot be aborted here (-1: no fusectl
 * file system, no right to mount it). -errno.
 */
errint_t guardian_start(int abort_file, pid_t *ret_pid);

/* The connection has ended: so does the guardian. Nothing for 0. */
void guardian_stop(pid_t pid);

#endif
