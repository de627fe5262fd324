/* SPDX-License-Identifier: Apache-2.0 */
/* workers.c - a queue of jobs, and the threads that do them in order */
#include "foldfs/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct workers {
	unsigned count;
	unsigned running;   /* threads to join; the owner's */
	pthread_t *threads; /* the owner's */
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct cds_list_head queue; /* jobs, oldest first; under lock */
	bool stopping;              /* under lock */
};

errint_t workers_new(unsigned count, struct workers **ret_workers)
{
	struct workers *workers = calloc(1, sizeof(*workers));

	if (!workers)
		return -ENOMEM;
	workers->threads = calloc(count ? count : 1, sizeof(*workers->threads));
	if (!workers->threads) {
		free(workers);
		return -ENOMEM;
	}
	workers->count = count;
	CDS_INIT_LIST_HEAD(&workers->queue);
	pthread_mutex_init(&workers->lock, NULL);
	pthread_cond_init(&workers->work, NULL);
	*ret_workers = workers;
	return 0;
}

static struct worker_job *take_locked(struct workers *workers)
{
	struct worker_job *job = cds_list_first_entry(&workers->queue, struct worker_job, link);

	cds_list_del(&job->link);
	job->queued = false;
	return job;
}

static void *work(void *argument)
{
	struct workers *workers = argument;
	struct worker_job *job;

	pthread_mutex_lock(&workers->lock);
	while (!workers->stopping) {
		if (cds_list_empty(&workers->queue)) {
			pthread_cond_wait(&workers->work, &workers->lock);
			continue;
		}
		job = take_locked(workers);
		pthread_mutex_unlock(&workers->lock);
		job->run(job, true);
		pthread_mutex_lock(&workers->lock);
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

errint_t workers_start(struct workers *workers)
{
	int error = 0;

	while (workers->running < workers->count) {
		error = pthread_create(&workers->threads[workers->running], NULL, work, workers);
		if (error)
			break;
		workers->running++;
	}
	/* One worker is enough to continue. */
	return workers->running || !workers->count ? 0 : -error;
}

void workers_end(struct workers *workers)
{
	pthread_mutex_lock(&workers->lock);
	workers->stopping = true;
	pthread_mutex_unlock(&workers->lock);
	pthread_cond_broadcast(&workers->work);
}

void workers_free(struct workers *workers)
{
	struct worker_job *job;

	if (!workers)
		return;
	workers_end(workers);
	while (workers->running)
		pthread_join(workers->threads[--workers->running], NULL);
	while (!cds_list_empty(&workers->queue)) {
		job = take_locked(workers);
		job->run(job, false);
	}
	pthread_cond_destroy(&workers->work);
	pthread_mutex_destroy(&workers->lock);
	free(workers->threads);
	free(workers);
}

void workers_add(struct workers *workers, struct worker_job *job)
{
	pthread_mutex_lock(&workers->lock);
	job->queued = true;
	cds_list_add_tail(&job->link, &workers->queue);
	pthread_mutex_unlock(&workers->lock);
	pthread_cond_signal(&workers->work);
}

bool workers_cancel(struct workers *workers, struct worker_job *job)
{
	bool queued;

	pthread_mutex_lock(&workers->lock);
	queued = job->queued;
	if (queued)
		cds_list_del(&job->link);
	job->queued = false;
	pthread_mutex_unlock(&workers->lock);
	return queued;
}
