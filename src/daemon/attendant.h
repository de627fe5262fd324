/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attendant.h - does for the daemon, at its end, what the daemon itself must not or may not do
 *
 * It does two things. It has the kernel write the mount back: the thread that waits for the mount
 * must not be in the process that serves it. And it unmounts for a plain user, which takes the
 * set-user-ID program fusermount3. It is a process of its own, made at the start, while the daemon
 * could still start one: later the daemon starts no process and gets no right that it has not.
 */
#ifndef FOLDFS_ATTENDANT_H
#define FOLDFS_ATTENDANT_H

#include "foldfs/page.h"

#include <sys/types.h>

struct attendant {
	int socket; /* -1: there is none */
	pid_t pid;
};

/*
 * Start the attendant. Call it from the thread that ends last, before there are other threads, and
 * before the mount: no other process may have a descriptor of the mount. -errno.
 */
errint_t attendant_start(struct attendant *ret_attendant);

/* Have everything that was changed in the mount of ROOT (O_PATH) written to the daemon, which must
 * go on serving. Waits for it, but no longer than MILLISECONDS. Must not run beside
 * attendant_unmount(). */
void attendant_flush(const struct attendant *attendant, int root, int milliseconds);

/* Take the mount of ROOT away, even if it is in use, and wait until that is done. */
void attendant_unmount(const struct attendant *attendant, int root);

/* Does nothing if there is no attendant. */
void attendant_stop(struct attendant *attendant);

#endif
