/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workers.h - a few threads for what no request has to wait for
 *
 * Who owns a job: the queue until a worker has taken it off or it was cancelled, then who did so.
 */
#ifndef FOLDFS_WORKERS_H
#define FOLDFS_WORKERS_H

#include "foldfs/page.h"

#include <urcu/list.h>

struct workers;
struct worker_job;

/* Do JOB and free it, on a worker. Not WANTED: the workers end, and the caller waits. */
typedef void (*worker_fn)(struct worker_job *job, bool wanted);

/* Part of a larger struct, which is the adder's. */
struct worker_job {
	struct cds_list_head link; /* the queue's, under its lock */
	bool queued;               /* the same */
	worker_fn run;             /* set before workers_add(), then constant */
};

/* COUNT threads (0: none, jobs stay queued), started by workers_start() after any fork. -ENOMEM. */
errint_t workers_new(unsigned count, struct workers **ret_workers);
/* 0 if one at least runs. */
errint_t workers_start(struct workers *workers);
/* Have the threads end, without waiting for it; whatever is queued then is left to
 * workers_free(). */
void workers_end(struct workers *workers);
/* Waits for the jobs that are being done; the others are run here, as not wanted. */
void workers_free(struct workers *workers);

/* Jobs are begun in the order they were added. Any thread; a mutex held briefly. */
void workers_add(struct workers *workers, struct worker_job *job);
/* Take JOB off the queue; it is the caller's then. False: it was begun. Only while something of
 * the caller's own keeps JOB from being freed. */
bool workers_cancel(struct workers *workers, struct worker_job *job);

#endif
