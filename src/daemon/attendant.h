/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attendant.h - does for the daemon, at its end, what that must or may not do itself
 *
 * Two things: to have the kernel write the mount back, for who waits for the mount must not be the
 * one who serves it; and to unmount for a plain user, which takes the set-user-ID program
 * fusermount3. It is a process of its own that was made at the start, while the daemon could still
 * make one: afterwards it starts no process and gets no right that it has not.
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
 * Start it. From the thread that ends last, before there are others, and before the mount: no
 * descriptor of that is to be in another process. -errno.
 */
errint_t attendant_start(struct attendant *ret_attendant);

/* Have everything that was changed in the mount of ROOT (O_PATH) written to the daemon, which goes
 * on serving. Waits for it, but no longer than MILLISECONDS. Not beside attendant_unmount(). */
void attendant_flush(const struct attendant *attendant, int root, int milliseconds);

/* Take the mount of ROOT away, whoever is in it, and wait until that is done. */
void attendant_unmount(const struct attendant *attendant, int root);

/* Nothing for one that is not there. */
void attendant_stop(struct attendant *attendant);

#endif
