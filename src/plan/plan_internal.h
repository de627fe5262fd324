/* SPDX-License-Identifier: Apache-2.0 */
/* plan_internal.h - declarations that only plan.c and plan_shared.c share */
#ifndef FOLDFS_PLAN_INTERNAL_H
#define FOLDFS_PLAN_INTERNAL_H

#include "file_set.h"
#include "foldfs/catalogue.h"
#include "foldfs/plan.h"

#include <pthread.h>
#include <stdatomic.h>

/* Files for which an opener or truncater got ESTALE a moment ago. A retry takes microseconds. If
 * more come at one moment, an entry is forgotten; that costs an ESTALE at worst. */
#define AWAITED_MAX     64u
#define AWAITED_SECONDS 10

struct awaited {
	dev_t device;
	ino_t inode;
	struct timespec ctime; /* once the ctime has moved, the file is not shared anyway */
	time_t until;
};

/* Constant once it is published. */
struct plan_globs {
	char **list; /* NULL at the end; owned */
};

struct plan {
	struct passthrough *passthrough; /* borrowed */
	struct lease_table *leases;      /* the same */
	struct catalogue *catalogue;     /* borrowed; NULL: there is none. Constant */
	struct shared_copies *copies;    /* the same */
	char *root; /* absolute path of the source, "" for /; NULL: not known. Constant */
	/* Read within a read side; changed by plan_set_passthrough(), which frees what was there a
	 * grace period later. NULL: none. */
	_Atomic(struct plan_globs *) globs;
	_Atomic uint64_t max_bytes;   /* relaxed: an open goes by the one or the other */
	struct writers_view view;     /* on the source; constant */
	bool direct;                  /* constant */
	bool read_only;               /* constant */
	bool source_stacked;          /* constant */
	_Atomic(const char *) unable; /* why passthrough is not possible (constant text); NULL: it
				       * is */
	atomic_bool able; /* the kernel takes backing files; set at init, cleared once, never set
			   * again */
	atomic_bool able_elsewhere; /* likewise for other devices; only for the log */
	_Atomic uint64_t inodes[PLAN_SHARED + 1];
	_Atomic time_t awaited_until;        /* the last of those in `awaited`; written under the
					      * lock */
	pthread_mutex_t awaited_lock;        /* a leaf */
	struct awaited awaited[AWAITED_MAX]; /* a ring, under awaited_lock, like the next field */
	unsigned awaited_next;
	pthread_mutex_t sharers_lock; /* a leaf */
	struct cds_list_head sharers; /* under sharers_lock, like the fields below */
	struct file_set served;       /* files in `shared`, since the mount */
	struct file_set backs;        /* files that they were served from */
};

/* The file that backs the class of RECORD. OPEN, with STAMP, is one of the class. Returned open for
 * reading, the caller's. -errno if there is none, or none yet. */
int plan_open_equal(struct plan *plan, const struct plan_open *open,
		    const struct catalogue_record *record, const struct source_stamp *stamp);

/* The file open as FD backs the file of OPEN from now on. NULL: no memory, or FD's file is gone. */
struct plan_sharer *plan_begin_sharing(struct plan *plan, const struct plan_open *open, int fd);
/* End sharing. Nothing for NULL. */
void plan_end_sharing(struct plan *plan, struct plan_sharer *sharer);
/* Whether the backing file of HOLD, in `shared`, may still back it. It may have been changed or
 * given away since the first open. Under the inode's lock. */
bool plan_is_backed_still(struct plan *plan, const struct plan_hold *hold);

#endif
