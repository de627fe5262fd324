/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - the state that outlives a mount */
#ifndef FOLDFS_STATE_H
#define FOLDFS_STATE_H

struct catalogue;
struct shared_copies;
struct scan;

struct state {
	struct catalogue *catalogue;  /* NULL: there is none */
	struct shared_copies *copies; /* the same */
	struct scan *scan;            /* runs in the background; NULL: none does */
	char *directory;              /* where all this is kept; NULL: nothing is kept */
};

#endif
