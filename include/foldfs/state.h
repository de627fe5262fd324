/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - what outlives a mount, and where it is kept */
#ifndef FOLDFS_STATE_H
#define FOLDFS_STATE_H

#include "foldfs/page.h"

struct catalogue;
struct shared_copies;
struct options;
struct scan;

struct state {
	struct catalogue *catalogue;  /* NULL: there is none */
	struct shared_copies *copies; /* the same */
	struct scan *scan;            /* that runs in the background; NULL: none does */
	char *directory;              /* of all this; NULL: nothing is kept */
};

/*
 * The directory of what is kept about SOURCE, an absolute path without symbolic links: BASE/NAME.
 * With BASE NULL that is /var/lib/foldfs/NAME for root, for others $XDG_STATE_HOME/foldfs/NAME or
 * ~/.local/state/foldfs/NAME. NAME is the path with each slash as '-', as systemd-escape(1) writes
 * it; so no two sources have one name. The caller's to free; it is not made. -ENOMEM;
 * -ENAMETOOLONG; -ENOENT: no home is known.
 */
errint_t state_directory(const char *base, const char *source, char **ret_directory);

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
