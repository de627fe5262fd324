/* SPDX-License-Identifier: Apache-2.0 */
/* state_open.h - what outlives a mount: opened when the mount starts, or left out */
#ifndef FOLDFS_STATE_OPEN_H
#define FOLDFS_STATE_OPEN_H

#include "foldfs/options.h"
#include "foldfs/state.h"

/* Where what is kept about a source lies. */
struct state_place {
	char *path;
	int fd; /* -1: it cannot be opened */
};
#define STATE_PLACE_NONE ((struct state_place){.fd = -1})

/* Open the place for SOURCE. Call it before the mount, which may cover the place. A mount works
 * correctly without it, so what cannot be opened is logged and left out. */
void state_place_open(const struct options *options, const char *source,
		      struct state_place *ret_place);
void state_place_clear(struct state_place *place);

/* Open what OPTIONS need of what is kept about SOURCE at PLACE, or log why not. Call it in the
 * process that uses it, because LMDB's environments do not survive a fork, and before that process
 * serves. */
void state_open(const struct options *options, const char *source, const struct state_place *place,
		struct state *ret_state);
/* Begin to scan the source in the background. It is open as SOURCE_FD, which is borrowed until
 * state_stop_scan(). Call it in the process that serves, if no scan was begun. -ENOENT: there is no
 * catalogue. Other -errno: as scan_new() and scan_start(). */
errint_t state_begin_scan(int source_fd, struct state *state);
/* The same if OPTIONS ask for it. Failures are logged. */
void state_start_scan(const struct options *options, int source_fd, struct state *state);
/* End the scan at once, except for a read that is under way. Nothing if there is none. */
void state_stop_scan(struct state *state);
/* Close everything. Nothing may use it any more. */
void state_close(struct state *state);

#endif
