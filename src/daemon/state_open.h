/* SPDX-License-Identifier: Apache-2.0 */
/* state_open.h - what outlives a mount: opened at its start, or left out */
#ifndef FOLDFS_STATE_OPEN_H
#define FOLDFS_STATE_OPEN_H

#include "foldfs/options.h"
#include "foldfs/state.h"

/*
 * Open what OPTIONS need of what is kept about SOURCE. A mount is as right without any of it, so
 * what cannot be had is logged and left out. In the process that uses it, for LMDB's environments
 * do not outlive fork, and before it has threads.
 */
void state_open(const struct options *options, const char *source, struct state *ret_state);
/* scan=background: begin to scan the source, open as SOURCE_FD, which is borrowed until
 * state_stop_scan(). In the process that serves. What cannot be done is logged. */
void state_start_scan(const struct options *options, int source_fd, struct state *state);
/* Have it end, at once but for a read under way. */
void state_stop_scan(struct state *state);
/* Nobody uses it any more. */
void state_close(struct state *state);

#endif
