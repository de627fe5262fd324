/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workers.h - a few threads for work that no request has to wait for
 *
 * Ownership of a job: the queue owns it until a worker takes it off or workers_cancel() removes it.
 * From then on that worker, or the caller of workers_cancel(), owns it.
 */
#ifndef FOLDFS_WORKERS_H
#define FOLDFS_WORKERS_H

#include "foldfs/page.h"

#include <urcu/list.h>

struct workers;
struct worker_job;

/* Do JOB and free it, on a worker. If WANTED is false the workers are ending and workers_free() is
 * waiting. */
typedef void (*worker_fn)(struct worker_job *job, bool wanted);

/* Embedded in a larger struct, which belongs to the thread that adds the job. */
struct worker_job {
	struct cds_list_head link; /* the queue's, under its lock */
	bool queued;               /* the same */
	worker_fn run;             /* set before workers_add(), then constant */
};

/* Make COUNT threads (0: none, jobs stay queued). workers_start() starts them, after any fork.
 * -ENOMEM. */
errint_t workers_new(unsigned count, struct workers **ret_workers);
/* 0 if at least one thread runs, or COUNT was 0. */
errint_t workers_start(struct workers *workers);
/* Tell the threads to end, without waiting for them. Jobs still queued then are left to
 * workers_free(). */
void workers_end(struct workers *workers);
/* Waits for the jobs that are being done. Runs the queued ones here, with WANTED false. */
void workers_free(struct workers *workers);

/* Jobs begin in the order in which they were added. Any thread; holds a mutex briefly. */
void workers_add(struct workers *workers, struct worker_job *job);
/* Take JOB off the queue; it is the caller's then. False: a worker has begun it. Call it only while
 * something of the caller's own keeps JOB from being freed. */
bool workers_cancel(struct workers *workers, struct worker_job *job);

#endif
