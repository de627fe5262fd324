/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - the state that outlives a mount */
#ifndef FOLDFS_STATE_H
#define FOLDFS_STATE_H

#include <pthread.h>

struct catalogue;
struct shared_copies;
struct scan;

struct state {
	struct catalogue *catalogue;  /* NULL: there is none. Constant, like all but the scan */
	struct shared_copies *copies; /* the same */
	pthread_mutex_t scan_lock;    /* a leaf; held for moments */
	struct scan *scan; /* runs in the background; NULL: none does. Under scan_lock; begun and
			    * ended by one thread at a time */
	char *directory;   /* where all this is kept; NULL: nothing is kept */
};

#endif
