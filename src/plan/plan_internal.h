/* SPDX-License-Identifier: Apache-2.0 */
/* plan_internal.h - what plan.c and plan_shared.c share; nobody else includes it. */
#ifndef FOLDFS_PLAN_INTERNAL_H
#define FOLDFS_PLAN_INTERNAL_H

#include "file_set.h"
#include "foldfs/catalogue.h"
#include "foldfs/plan.h"

#include <pthread.h>
#include <stdatomic.h>

/* Files whose changer was refused a moment ago. A retry takes microseconds; what is forgotten when
 * more come in one moment costs an ESTALE at worst. */
#define AWAITED_MAX     64u
#define AWAITED_SECONDS 10

struct awaited {
	dev_t device;
	ino_t inode;
	struct timespec ctime; /* once it is changed it is not shared anyway */
	time_t until;
};

struct plan {
	struct passthrough *passthrough; /* borrowed */
	struct lease_table *leases;      /* the same */
	struct catalogue *catalogue;     /* borrowed; NULL: there is none. Constant */
	struct shared_copies *copies;    /* the same */
	char *root;         /* absolute path of the source, "" for /; NULL: no globs. Constant */
	char *const *globs; /* borrowed, NULL at the end; NULL: none. Constant */
	uint64_t max_bytes; /* constant */
	struct writers_view view;     /* on the source; constant */
	bool direct;                  /* constant */
	bool read_only;               /* constant */
	bool source_stacked;          /* constant */
	_Atomic(const char *) unable; /* why it is not (constant text); NULL: it is */
	atomic_bool able; /* the kernel takes backing files; set at init, never set again */
	atomic_bool able_elsewhere; /* the same, of other devices; only for the log */
	_Atomic uint64_t inodes[PLAN_SHARED + 1];
	_Atomic time_t awaited_until;        /* the last of those below; written under the lock */
	pthread_mutex_t awaited_lock;        /* a leaf */
	struct awaited awaited[AWAITED_MAX]; /* a ring, under awaited_lock, like what follows */
	unsigned awaited_next;
	pthread_mutex_t sharers_lock; /* a leaf */
	struct cds_list_head sharers; /* under sharers_lock, like what follows */
	struct file_set served;       /* in `shared`, since the mount */
	struct file_set backs;        /* that they were served from */
};

/* The file that backs those of RECORD's class, to one of which OPEN is, with STAMP: open for
 * reading, the caller's. -errno if there is none, or none yet. */
int plan_open_equal(struct plan *plan, const struct plan_open *open,
		    const struct catalogue_record *record, const struct source_stamp *stamp);

/* The file of OPEN is backed by the one open as FD from now on. NULL: no memory, or it is gone. */
struct plan_sharer *plan_begin_sharing(struct plan *plan, const struct plan_open *open, int fd);
/* Nothing for NULL. */
void plan_end_sharing(struct plan *plan, struct plan_sharer *sharer);
/* Whether what backs the file of HOLD, in `shared`, still may: it may have been changed or given
 * away since the first open. Under the inode's lock. */
bool plan_is_backed_still(struct plan *plan, const struct plan_hold *hold);

#endif
