/* SPDX-License-Identifier: Apache-2.0 */
/*
 * readahead.c - fills frames ahead of sequential readers
 *
 * A stream becomes active with a miss; from then on its requests are watched. It is proven
 * sequential by requests that follow each other with few gaps. They may arrive a little out of
 * order, as the kernel's own read-ahead makes them. Then ranges ahead of it are handed to the
 * workers, farther ahead each time. Gaps identify the reads of a booting machine, many of which are
 * near each other. Two thirds of what is read ahead of those are never asked for
 * (bench/data/boot.trace), and cost the pool pages that are asked for. A range that turns out to be
 * resident as a whole ends the activity, so a reader of pooled content takes no lock here.
 *
 * Who owns a job: workers.h. A job stands in its stream's list all the time, under stream->lock,
 * which keeps it from being freed. Lock order: stream->lock, then that of the workers.
 */
#include "foldfs/readahead.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define CHUNK        (512u << 10) /* bytes of one job */
#define DEPTH_MIN    (512u << 10) /* how far ahead of the reader, at first */
#define DEPTH_MAX    (4u << 20)   /* and at most */
#define PROOF        (256u << 10) /* bytes read in sequence that make a sequential reader */
#define OUT_OF_ORDER (1u << 20)   /* how far from its expected place a request may be */

struct stream {
	struct filler *filler; /* constant, as the next three */
	struct workers *workers;
	struct file *file;
	struct source *source;
	pthread_mutex_t lock;
	pthread_cond_t done;       /* a job of this stream has ended */
	struct cds_list_head jobs; /* under lock */
	atomic_bool active;        /* a hint; changed under lock */
	uint64_t next;             /* where the reader is expected; under lock */
	uint64_t ahead;            /* end of what was handed out; under lock */
	uint64_t begin;            /* where the sequence began; under lock */
	uint64_t run;              /* bytes read in it; under lock */
	uint64_t depth;            /* under lock */
	bool closed;               /* freed by its last job; under lock */
};

struct job {
	struct worker_job worker_job;
	struct cds_list_head in_stream; /* under stream->lock */
	struct stream *stream;          /* constant */
	uint64_t offset;                /* while it is queued changed under stream->lock */
	uint64_t end;                   /* constant */
};

static void stream_destroy(struct stream *stream)
{
	source_put(stream->source);
	file_put(stream->file);
	pthread_cond_destroy(&stream->done);
	pthread_mutex_destroy(&stream->lock);
	free(stream);
}

/* JOB has ended or will not begin: take it out of its stream. If it was the last job of a closed
 * stream, destroy the stream too. MISSING: pages of it that were not resident. */
static void job_end(struct job *job, unsigned missing)
{
	struct stream *stream = job->stream;
	bool last;

	pthread_mutex_lock(&stream->lock);
	cds_list_del(&job->in_stream);
	if (!missing)
		atomic_store_explicit(&stream->active, false, memory_order_relaxed);
	last = stream->closed && cds_list_empty(&stream->jobs);
	pthread_cond_broadcast(&stream->done);
	pthread_mutex_unlock(&stream->lock);
	free(job);
	if (last)
		stream_destroy(stream);
}

static void fill_job(struct worker_job *worker_job, bool wanted)
{
	struct job *job = caa_container_of(worker_job, struct job, worker_job);
	struct stream *stream = job->stream;

	job_end(job, wanted ? fill_ahead(stream->filler, stream->file, stream->source,
					 (off_t)job->offset, job->end - job->offset)
			    : 0);
}

errint_t stream_new(struct filler *filler, struct workers *workers, struct file *file,
		    struct source *source, struct stream **ret_stream)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return -ENOMEM;
	stream->filler = filler;
	stream->workers = workers;
	stream->file = file_get(file);
	stream->source = source_get(source);
	stream->depth = DEPTH_MIN;
	CDS_INIT_LIST_HEAD(&stream->jobs);
	pthread_mutex_init(&stream->lock, NULL);
	pthread_cond_init(&stream->done, NULL);
	*ret_stream = stream;
	return 0;
}

/* Take JOB off the queue and free it. False: a worker has it. Under stream->lock. */
static bool cancel_locked(struct job *job)
{
	if (!workers_cancel(job->stream->workers, &job->worker_job))
		return false;
	cds_list_del(&job->in_stream);
	free(job);
	return true;
}

void stream_free(struct stream *stream)
{
	struct job *job;
	struct job *next;
	bool last;

	if (!stream)
		return;
	pthread_mutex_lock(&stream->lock);
	cds_list_for_each_entry_safe (job, next, &stream->jobs, in_stream)
		(void)cancel_locked(job);
	stream->closed = true;
	last = cds_list_empty(&stream->jobs);
	pthread_mutex_unlock(&stream->lock);
	if (last)
		stream_destroy(stream);
}

/* Hand OFFSET..END to the workers. False: no memory, or none are wanted. Under stream->lock. */
static bool hand_out_locked(struct stream *stream, uint64_t offset, uint64_t end)
{
	struct job *job = malloc(sizeof(*job));

	if (!job)
		return false;
	*job = (struct job){
		.worker_job = {.run = fill_job}, .stream = stream, .offset = offset, .end = end};
	cds_list_add_tail(&job->in_stream, &stream->jobs);
	workers_add(stream->workers, &job->worker_job);
	return true;
}

/* Add OFFSET..END to the pattern. Returns whether the reader is sequential. Under stream->lock. */
static bool follow_locked(struct stream *stream, uint64_t offset, uint64_t end)
{
	struct job *job;
	struct job *following;
	uint64_t distance = offset > stream->next ? offset - stream->next : stream->next - offset;

	if (distance > OUT_OF_ORDER || !stream->next) {
		/* Read-ahead for the old place is not wanted any more. */
		cds_list_for_each_entry_safe (job, following, &stream->jobs, in_stream)
			(void)cancel_locked(job);
		stream->begin = end;
		stream->run = 0;
		stream->ahead = 0;
		stream->depth = DEPTH_MIN;
		stream->next = end;
		return false;
	}
	if (end > stream->next) {
		/* Skipped bytes were not read. */
		stream->run += end - (offset > stream->next ? offset : stream->next);
		stream->next = end;
	}
	return stream->run >= PROOF && stream->run >= (stream->next - stream->begin) / 4 * 3;
}

void stream_note(struct stream *stream, off_t offset, size_t length, bool missed)
{
	uint64_t size;
	uint64_t end;

	if (!missed && !atomic_load_explicit(&stream->active, memory_order_relaxed))
		return;
	size = file_size(stream->file);
	pthread_mutex_lock(&stream->lock);
	if (missed)
		atomic_store_explicit(&stream->active, true, memory_order_relaxed);
	if (follow_locked(stream, (uint64_t)offset, (uint64_t)offset + length)) {
		if (stream->ahead < stream->next)
			stream->ahead = stream->next & ~FOLD_PAGE_MASK;
		if (stream->ahead < stream->next + stream->depth / 2) {
			while (stream->ahead < stream->next + stream->depth &&
			       stream->ahead < size) {
				end = stream->ahead + CHUNK < size ? stream->ahead + CHUNK : size;
				if (!hand_out_locked(stream, stream->ahead, end))
					break;
				stream->ahead += CHUNK;
			}
			if (stream->depth < DEPTH_MAX)
				stream->depth *= 2;
		}
	}
	pthread_mutex_unlock(&stream->lock);
}

/* JOB overlaps a range that ends at END and that its reader is about to read. Only what lies behind
 * END is still read ahead. False: a worker has the job. Under stream->lock. */
static bool cut_locked(struct job *job, uint64_t end)
{
	if (job->end <= end)
		return cancel_locked(job);
	if (!workers_cancel(job->stream->workers, &job->worker_job))
		return false;
	job->offset = end & ~FOLD_PAGE_MASK;
	workers_add(job->stream->workers, &job->worker_job);
	return true;
}

/* Whether a worker is reading a job that overlaps OFFSET..END. Jobs that no worker has begun yet
 * are cut: the reader is there first. Under stream->lock. */
static bool is_being_read_locked(struct stream *stream, uint64_t offset, uint64_t end)
{
	struct job *job;
	struct job *next;

	cds_list_for_each_entry_safe (job, next, &stream->jobs, in_stream)
		if (job->offset < end && offset < job->end && !cut_locked(job, end))
			return true;
	return false;
}

bool stream_wait(struct stream *stream, off_t offset, size_t length)
{
	bool waited = false;

	pthread_mutex_lock(&stream->lock);
	while (is_being_read_locked(stream, (uint64_t)offset, (uint64_t)offset + length)) {
		waited = true;
		pthread_cond_wait(&stream->done, &stream->lock);
	}
	pthread_mutex_unlock(&stream->lock);
	return waited;
}

uint64_t stream_bytes(void)
{
	return sizeof(struct stream);
}
