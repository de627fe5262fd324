/* SPDX-License-Identifier: Apache-2.0 */
/*
 * takeover.h - a worker takes over from one that died
 *
 * Order, all before the worker has another thread or opens anything:
 *   takeover_begin()   finds what is left: inodes, open files and directories, and their
 *                      descriptors. All other descriptors of the dead worker are closed.
 *   fusefs_new()       makes a file system of it.
 *   fusefs_serve()     asks the kernel for the requests that were not answered, before it reads.
 */
#ifndef FOLDFS_TAKEOVER_H
#define FOLDFS_TAKEOVER_H

#include "foldfs/session.h"

struct slab;

/* What was left. fusefs_new() takes it over. */
struct takeover {
	struct slab *memory[SESSION_MEMORIES]; /* NULL: there is none */
};

/* Find in SESSION what another worker left. Close all descriptors that belong neither to it nor to
 * KEPT (COUNT of them). -EPROTO: what is there is not of this program. Other -errno. */
errint_t takeover_begin(struct session *session, const int kept[], size_t count,
			struct takeover *ret_takeover);
void takeover_clear(struct takeover *takeover);
/* A number that differs if the size of a record does, for session_format(). */
size_t takeover_bytes(void);

#endif
