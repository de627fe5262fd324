/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_queue.c - the queues between the walk, the workers and the scan's own thread; progress
 *
 * Both queues are bounded, so a fast part waits for a slow one and memory stays constant. A waiting
 * thread is woken by the event that it waits for. But a cancellation may come from a signal
 * handler, which can wake no thread. So every wait ends after TICK_NS at the latest, and the thread
 * checks.
 */
#include "foldfs/clock.h"
#include "scan_internal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS     100000000
#define PROGRESS_NS 100000000 /* between two reports */

#define FILES_MAX   1024u
#define NOTES_BYTES (4u << 20)

/* <linux/ioprio.h> is missing from older headers. */
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_IDLE        (3 << 13)

void scan_cancel(struct scan *scan)
{
	atomic_store_explicit(&scan->cancelled, true, memory_order_relaxed);
}

bool scan_is_cancelled(const struct scan *scan)
{
	return atomic_load_explicit(&scan->cancelled, memory_order_relaxed);
}

void scan_lower_priority(void)
{
	const struct sched_param param = {0};

	/* Both calls concern the calling thread alone. If they are refused, its priority stays. */
	(void)sched_setscheduler(0, SCHED_IDLE, &param);
	(void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE);
}

/* Wait at most until UNTIL_NS, and no longer than a tick. */
static void wait_until(struct scan *scan, pthread_cond_t *condition, int64_t until_ns)
{
	int64_t end = clock_now_ns() + TICK_NS;
	struct timespec time = clock_at(until_ns < end ? until_ns : end);

	pthread_cond_timedwait(condition, &scan->lock, &time);
}

static void wait_for(struct scan *scan, pthread_cond_t *condition)
{
	wait_until(scan, condition, INT64_MAX);
}

errint_t scan_rate_take(struct scan *scan, uint64_t bytes)
{
	uint64_t rate = scan->options.rate;
	int64_t start;
	int64_t now;

	if (!rate)
		return scan_is_cancelled(scan) ? -ECANCELED : 0;
	pthread_mutex_lock(&scan->lock);
	now = clock_now_ns();
	/* Unused time is not saved up. */
	start = scan->rate_free_ns > now ? scan->rate_free_ns : now;
	scan->rate_free_ns = start + (int64_t)((double)bytes * 1e9 / (double)rate);
	while (!scan_is_cancelled(scan) && clock_now_ns() < start)
		wait_until(scan, &scan->less, start);
	pthread_mutex_unlock(&scan->lock);
	return scan_is_cancelled(scan) ? -ECANCELED : 0;
}

errint_t scan_file_push(struct scan *scan, struct scan_file *file)
{
	errint_t error = 0;

	pthread_mutex_lock(&scan->lock);
	while (scan->files_waiting >= FILES_MAX && !scan_is_cancelled(scan))
		wait_for(scan, &scan->less);
	if (scan_is_cancelled(scan)) {
		error = -ECANCELED;
		free(file);
	} else {
		file->next = NULL;
		*scan->files_end = file;
		scan->files_end = &file->next;
		scan->files_waiting++;
		pthread_cond_signal(&scan->more_files);
	}
	pthread_mutex_unlock(&scan->lock);
	return error;
}

struct scan_file *scan_file_pop(struct scan *scan)
{
	struct scan_file *file;

	pthread_mutex_lock(&scan->lock);
	while (!scan->files && !scan->walk_ended && !scan_is_cancelled(scan))
		wait_for(scan, &scan->more_files);
	file = scan_is_cancelled(scan) ? NULL : scan->files;
	if (file) {
		scan->files = file->next;
		if (!scan->files)
			scan->files_end = &scan->files;
		scan->files_waiting--;
		pthread_cond_broadcast(&scan->less);
	}
	pthread_mutex_unlock(&scan->lock);
	return file;
}

void scan_walk_end(struct scan *scan, errint_t error)
{
	pthread_mutex_lock(&scan->lock);
	scan->walk_ended = true;
	scan->walk_error = error;
	pthread_cond_broadcast(&scan->more_files);
	pthread_mutex_unlock(&scan->lock);
}

struct scan_note *scan_note_new(enum scan_note_kind kind)
{
	struct scan_note *note = calloc(1, sizeof(*note));

	if (note)
		note->kind = kind;
	return note;
}

void scan_note_free(struct scan_note *note)
{
	if (!note)
		return;
	free(note->digests);
	free(note->stamps);
	free(note->runs);
	free(note->sketch);
	free(note->path);
	free(note);
}

static uint64_t bytes_of(const struct scan_note *note)
{
	return sizeof(*note) +
	       note->count * (note->stamps ? sizeof(*note->stamps) : sizeof(*note->digests));
}

void scan_note_push(struct scan *scan, struct scan_note *note)
{
	pthread_mutex_lock(&scan->lock);
	while (scan->notes_bytes >= NOTES_BYTES && !scan_is_cancelled(scan))
		wait_for(scan, &scan->less);
	note->next = NULL;
	*scan->notes_end = note;
	scan->notes_end = &note->next;
	scan->notes_bytes += bytes_of(note);
	pthread_cond_signal(&scan->more_notes);
	pthread_mutex_unlock(&scan->lock);
}

void scan_note_failure(struct scan *scan, errint_t error)
{
	struct scan_note *note;

	if (error == -ECANCELED)
		return;
	note = scan_note_new(SCAN_NOTE_FAILED);
	if (note) {
		note->error = error;
		scan_note_push(scan, note);
	} else {
		/* There is not even memory for the note. So cancel: the scan's result says that it
		 * is incomplete. */
		scan_cancel(scan);
	}
}

struct scan_note *scan_notes_take(struct scan *scan, bool *ret_ended)
{
	struct scan_note *notes;
	int64_t end = clock_now_ns() + TICK_NS;

	pthread_mutex_lock(&scan->lock);
	while (!scan->notes && scan->workers_left && clock_now_ns() < end)
		wait_until(scan, &scan->more_notes, end);
	notes = scan->notes;
	scan->notes = NULL;
	scan->notes_end = &scan->notes;
	scan->notes_bytes = 0;
	*ret_ended = !scan->workers_left;
	pthread_cond_broadcast(&scan->less);
	pthread_mutex_unlock(&scan->lock);
	return notes;
}

void scan_worker_end(struct scan *scan)
{
	pthread_mutex_lock(&scan->lock);
	scan->workers_left--;
	pthread_cond_signal(&scan->more_notes);
	pthread_mutex_unlock(&scan->lock);
}

void scan_tell_progress(struct scan *scan)
{
	struct scan_progress progress = {
		.step = scan->step,
		.files = atomic_load_explicit(&scan->done_files, memory_order_relaxed),
		.bytes = atomic_load_explicit(&scan->done_bytes, memory_order_relaxed),
		.total_files = atomic_load_explicit(&scan->total_files, memory_order_relaxed),
		.total_bytes = atomic_load_explicit(&scan->total_bytes, memory_order_relaxed),
	};
	int64_t now = clock_now_ns();

	if (!scan->options.progress || now - scan->told_ns < PROGRESS_NS)
		return;
	scan->told_ns = now;
	scan->options.progress(scan->options.context, &progress);
}
