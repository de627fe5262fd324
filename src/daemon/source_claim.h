/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_claim.h - to know that a source is served by two mounts
 *
 * What one of them changes, the other one sees when a file is opened or locked, or at once with
 * watch; and neither shares memory with the other. So a second mount is a mistake more often than
 * not, and the user is told. It is not refused: mounts that only read do no harm to each other, and
 * some mount one source twice on purpose, with other options.
 *
 * A mount has a lock for reading (F_OFD_SETLK) on one byte, far out, of the source directory. So it
 * is seen from every mount namespace, ends with the daemon, and leaves nothing behind.
 */
#ifndef FOLDFS_SOURCE_CLAIM_H
#define FOLDFS_SOURCE_CLAIM_H

#include "foldfs/page.h"

/* Say that SOURCE is served, open as SOURCE_FD, and warn if another mount serves it too, and one of
 * the two may change it. The descriptor that is returned holds the claim; -1: none could be made,
 * which is no reason not to mount. Call it after the last fork: the descriptor is the daemon's
 * alone. */
int source_claim(int source_fd, const char *source, bool read_only);

#endif
