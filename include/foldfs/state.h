/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - what outlives a mount */
#ifndef FOLDFS_STATE_H
#define FOLDFS_STATE_H

struct catalogue;
struct shared_copies;
struct scan;

struct state {
	struct catalogue *catalogue;  /* NULL: there is none */
	struct shared_copies *copies; /* the same */
	struct scan *scan;            /* that runs in the background; NULL: none does */
	char *directory;              /* of all this; NULL: nothing is kept */
};

#endif
