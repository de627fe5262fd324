/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.c - the scan's own thread: starts the steps, counts what workers tell, writes the catalogue
 *
 * Invariants:
 * A  Only this thread counts, and only it writes the catalogue. It gathers what workers tell and
 *    then writes it in one short transaction, during which it waits for nothing else.
 * B  What is recorded of a file is true by itself. So a scan that is cancelled or killed leaves a
 *    catalogue that is valid as far as it goes. Pages that are not counted yet count as shared.
 * C  If the catalogue is full or fails, recording ends, but the scan goes on.
 */
#include "foldfs/clock.h"
#include "foldfs/xxh3.h"
#include "scan_internal.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

/* A batch is written when it has this many bytes, or this long after its first note. */
#define BATCH_BYTES (4u << 20)
#define BATCH_NS    1000000000

#define WORKERS_MOST 64u

/* ---- making ---- */

static void init_locks(struct scan *scan)
{
	pthread_mutex_init(&scan->lock, NULL);
	clock_cond_init(&scan->more_files);
	clock_cond_init(&scan->more_notes);
	clock_cond_init(&scan->less);
}

static unsigned workers_of(const struct scan_options *options)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	if (options->workers)
		return options->workers < WORKERS_MOST ? options->workers : WORKERS_MOST;
	return processors < 1                  ? 1
	       : processors > SCAN_WORKERS_MAX ? SCAN_WORKERS_MAX
					       : (unsigned)processors;
}

static errint_t init_secret(struct scan *scan)
{
	fold_xxh3_prepare();
	if (scan->options.catalogue) {
		memcpy(scan->secret, catalogue_secret(scan->options.catalogue),
		       sizeof(scan->secret));
		return 0;
	}
	return getrandom(scan->secret, sizeof(scan->secret), 0) == (ssize_t)sizeof(scan->secret)
		       ? 0
		       : -EIO;
}

static errint_t init_root(struct scan *scan)
{
	struct statfs fs;
	errint_t error;

	if (fstatfs(scan->root_fd, &fs))
		return -errno;
	scan->multigrain = source_is_multigrain(&fs);
	error = border_init(&scan->border, scan->root_fd, BORDER_NO_PSEUDO);
	return error ? error : writers_view_of(scan->root_fd, &scan->view);
}

errint_t scan_new(int root_fd, const struct scan_options *options, struct scan **ret_scan)
{
	struct scan *scan = calloc(1, sizeof(*scan));
	errint_t error;

	if (!scan)
		return -ENOMEM;
	scan->root_fd = root_fd;
	scan->options = *options;
	scan->options.workers = workers_of(options);
	scan->files_end = &scan->files;
	scan->notes_end = &scan->notes;
	scan->pending_end = &scan->pending;
	error = init_root(scan);
	if (!error)
		error = init_secret(scan);
	/* An eighth of the memory is for whole files: there are fewer of them. */
	if (!error)
		error = distinct_new(options->memory / 8 * 7, &scan->pages);
	if (!error)
		error = distinct_new(options->memory / 8, &scan->contents);
	if (error) {
		distinct_free(scan->pages);
		distinct_free(scan->contents);
		free(scan);
		return error;
	}
	init_locks(scan);
	*ret_scan = scan;
	return 0;
}

static void free_notes(struct scan_note *note)
{
	struct scan_note *next;

	for (; note; note = next) {
		next = note->next;
		scan_note_free(note);
	}
}

void scan_free(struct scan *scan)
{
	struct scan_file *next;

	if (!scan)
		return;
	for (struct scan_file *file = scan->files; file; file = next) {
		next = file->next;
		free(file);
	}
	free_notes(scan->notes);
	free_notes(scan->pending);
	free(scan->candidates);
	free(scan->kin);
	distinct_free(scan->pages);
	distinct_free(scan->contents);
	pthread_cond_destroy(&scan->less);
	pthread_cond_destroy(&scan->more_notes);
	pthread_cond_destroy(&scan->more_files);
	pthread_mutex_destroy(&scan->lock);
	free(scan);
}

/* ---- writing ---- */

static void set_class(const void *context, struct catalogue_record *record)
{
	record->class = *(const uint64_t *)context;
}

struct seen {
	uint64_t *class;
};

static void see_class(const void *context, struct catalogue_record *record)
{
	const struct seen *seen = context;

	*seen->class = record->class;
}

/* The class of the file that the others of NOTE are equal to: the class that an earlier part of the
 * group gave it, or a new one. */
static errint_t class_of(struct catalogue_batch *batch, const struct scan_note *note,
			 uint64_t *ret_class)
{
	const struct seen seen = {.class = ret_class};
	errint_t error;

	*ret_class = note->class;
	if (*ret_class)
		return 0;
	error = catalogue_amend(batch, &note->stamp, see_class, &seen);
	if (error && error != -ENOENT)
		return error;
	return *ret_class ? 0 : catalogue_new_class(batch, ret_class);
}

static errint_t put_class(struct catalogue_batch *batch, const struct scan_note *note)
{
	uint64_t class;
	errint_t error = class_of(batch, note, &class);

	for (size_t i = 0; i < note->count && !error; i++) {
		error = catalogue_amend(batch, &note->stamps[i], set_class, &class);
		/* The catalogue no longer has it under this stamp: somebody has recorded something
		 * newer. */
		if (error == -ENOENT)
			error = 0;
	}
	return error;
}

static errint_t put_runs(struct catalogue_batch *batch, const struct scan_note *note)
{
	errint_t error =
		catalogue_put_runs(batch, &note->stamp, &note->stamps[0], note->runs, note->count);

	return error == -ENOENT ? 0 : error;
}

static errint_t put_file(struct catalogue_batch *batch, const struct scan_note *note,
			 struct catalogue_member *file)
{
	/* Its pages are not counted yet, so all of them are taken for shared. */
	struct catalogue_record record = {
		.content = note->content,
		.pages = note->pages,
		.pages_elsewhere = note->pages,
		.pages_error = note->pages,
		.writers = note->writers,
		.readable = note->readable,
		.reachable = note->reachable,
	};
	errint_t error;

	if (note->known) {
		error = catalogue_rename(batch, &note->stamp, note->path, note->reachable);
		return error == -ENOENT ? 0 : error;
	}
	file->stamp = note->stamp;
	strcpy(file->path, note->path);
	error = catalogue_put(batch, file, &record, NULL, 0);
	if (!error && note->sketch)
		error = catalogue_put_digests(batch, note->stamp.device, note->stamp.inode,
					      CATALOGUE_SKETCH, note->sketch->values,
					      note->sketch->count);
	return error;
}

static errint_t put_note(struct catalogue_batch *batch, const struct scan_note *note,
			 struct catalogue_member *file)
{
	dev_t device = note->stamp.device;
	ino_t inode = note->stamp.inode;
	errint_t error = 0;

	if (note->kind == SCAN_NOTE_CLASS)
		return put_class(batch, note);
	if (note->kind == SCAN_NOTE_RUNS)
		return put_runs(batch, note);
	if (note->kind == SCAN_NOTE_CHANGED)
		return catalogue_remove(batch, device, inode);
	/* The first part replaces what the catalogue held of the file before. */
	if (!note->known && note->part == 0)
		error = catalogue_remove(batch, device, inode);
	if (!error && note->count)
		error = catalogue_put_digests(batch, device, inode, note->part, note->digests,
					      note->count);
	if (!error && note->kind == SCAN_NOTE_FILE)
		error = put_file(batch, note, file);
	return error;
}

static errint_t put_pending(struct scan *scan)
{
	struct catalogue_member *file = malloc(sizeof(*file));
	struct catalogue_batch *batch;
	errint_t error = file ? catalogue_begin(scan->options.catalogue, &batch) : -ENOMEM;

	if (!error) {
		for (struct scan_note *note = scan->pending; note && !error; note = note->next)
			error = put_note(batch, note, file);
		if (error)
			catalogue_abort(batch);
		else
			error = catalogue_commit(batch);
	}
	free(file);
	return error;
}

static void write_pending(struct scan *scan)
{
	if (scan->pending && !scan->result.catalogue_error)
		scan->result.catalogue_error = put_pending(scan);
	free_notes(scan->pending);
	scan->pending = NULL;
	scan->pending_end = &scan->pending;
	scan->pending_bytes = 0;
}

static bool is_to_be_written(const struct scan *scan, const struct scan_note *note)
{
	if (!scan->options.catalogue)
		return false;
	return note->record || note->kind == SCAN_NOTE_CLASS || note->kind == SCAN_NOTE_RUNS;
}

/* Take over NOTE and keep it until it is written. */
static void keep_pending(struct scan *scan, struct scan_note *note)
{
	if (!scan->pending)
		scan->pending_since_ns = clock_now_ns();
	note->next = NULL;
	*scan->pending_end = note;
	scan->pending_end = &note->next;
	scan->pending_bytes += sizeof(*note) + note->count * sizeof(struct source_stamp);
}

static void write_if_due(struct scan *scan)
{
	if (scan->pending && (scan->pending_bytes >= BATCH_BYTES ||
			      clock_now_ns() - scan->pending_since_ns >= BATCH_NS))
		write_pending(scan);
}

/* ---- counting ---- */

/* Files that may be equal have the same size and the same digest of content. */
static uint64_t hash_of_content(const struct scan_note *note)
{
	return note->content.low ^ note->content.high * UINT64_C(0x9e3779b97f4a7c15);
}

static errint_t count_file(struct scan *scan, const struct scan_note *note)
{
	struct scan_result *result = &scan->result;
	uint64_t size = (uint64_t)note->stamp.size;

	result->files++;
	result->known += note->known;
	result->empty_files += !size;
	result->too_young += note->too_young;
	result->bytes += size;
	result->zero_pages += fold_pages_in(0, size) - note->pages;
	return size ? distinct_add(scan->contents, hash_of_content(note), size) : 0;
}

static errint_t count_digests(struct scan *scan, const struct scan_note *note)
{
	errint_t error = 0;

	for (size_t i = 0; i < note->count && !error; i++)
		error = distinct_add(scan->pages, note->digests[i], 1);
	scan->result.data_pages += note->count;
	return error;
}

static errint_t count_note(struct scan *scan, const struct scan_note *note)
{
	errint_t error;

	switch (note->kind) {
	case SCAN_NOTE_FILE:
		error = count_digests(scan, note);
		return error ? error : count_file(scan, note);
	case SCAN_NOTE_PART:
		return count_digests(scan, note);
	case SCAN_NOTE_CHANGED:
		scan->result.changed++;
		return 0;
	case SCAN_NOTE_UNREADABLE:
		scan->result.unreadable++;
		if (scan->options.unreadable)
			scan->options.unreadable(scan->options.context, note->path, note->error);
		return 0;
	case SCAN_NOTE_CLASS:
		scan->result.class_files += note->count;
		scan->result.proved_files += note->proved;
		return 0;
	case SCAN_NOTE_RUNS:
		scan->result.family_files += note->pages != 0;
		scan->result.family_pages += note->pages;
		return 0;
	case SCAN_NOTE_FAILED:
		return note->error;
	}
	return 0;
}

static void take_notes(struct scan *scan, struct scan_note *note)
{
	struct scan_note *next;
	errint_t error;

	for (; note; note = next) {
		next = note->next;
		error = scan->error ? scan->error : count_note(scan, note);
		if (error && !scan->error) {
			scan->error = error;
			scan_cancel(scan);
		}
		if (is_to_be_written(scan, note))
			keep_pending(scan, note);
		else
			scan_note_free(note);
	}
}

/* ---- steps ---- */

static void count_memory(struct scan *scan)
{
	uint64_t bytes = 0;

	if (scan->pages)
		bytes += distinct_bytes(scan->pages) + distinct_bytes(scan->contents);
	if (scan->candidates)
		bytes += malloc_usable_size(scan->candidates);
	if (scan->kin)
		bytes += malloc_usable_size(scan->kin);
	atomic_store_explicit(&scan->table_memory, bytes, memory_order_relaxed);
}

uint64_t scan_memory(const struct scan *scan)
{
	return atomic_load_explicit(&scan->table_memory, memory_order_relaxed) +
	       atomic_load_explicit(&scan->walk_memory, memory_order_relaxed);
}

/* As the walk's memory grows, the table of pages gets less. */
static void share_memory(struct scan *scan)
{
	uint64_t walk = atomic_load_explicit(&scan->walk_memory, memory_order_relaxed);
	uint64_t budget = scan->options.memory / 8 * 7;

	if (!scan->pages)
		return;
	distinct_limit(scan->pages, budget > walk ? budget - walk : 0);
}

/* Take notes until no worker is left. */
static void attend(struct scan *scan)
{
	bool ended = false;

	while (!ended) {
		take_notes(scan, scan_notes_take(scan, &ended));
		share_memory(scan);
		count_memory(scan);
		write_if_due(scan);
		scan_tell_progress(scan);
	}
	write_pending(scan);
}

typedef void *(*thread_fn)(void *scan);

/* Run FIRST, unless it is NULL, and as many WORKERs as the options ask for. Wait for their end. */
static void run_workers(struct scan *scan, thread_fn first, thread_fn worker)
{
	unsigned wanted = scan->options.workers + (first ? 1 : 0);
	pthread_t threads[WORKERS_MOST + 1];
	unsigned made = 0;
	errint_t error = 0;

	scan->workers_left = wanted;
	while (made < wanted && !error) {
		error = -pthread_create(&threads[made], NULL, first && !made ? first : worker,
					scan);
		made += !error;
	}
	if (error) {
		scan->error = error;
		scan_cancel(scan);
		for (unsigned i = made; i < wanted; i++)
			scan_worker_end(scan);
	}
	attend(scan);
	for (unsigned i = 0; i < made; i++)
		pthread_join(threads[i], NULL);
}

static void read_files(struct scan *scan)
{
	pthread_t counter;
	bool counts =
		scan->options.progress && !pthread_create(&counter, NULL, scan_count_thread, scan);

	run_workers(scan, scan_walk_thread, scan_read_thread);
	if (counts)
		pthread_join(counter, NULL);
	if (!scan->error)
		scan->error = scan->walk_error;
}

static void begin_step(struct scan *scan, enum scan_step step, uint64_t files)
{
	scan->step = step;
	atomic_store_explicit(&scan->done_files, 0, memory_order_relaxed);
	atomic_store_explicit(&scan->done_bytes, 0, memory_order_relaxed);
	atomic_store_explicit(&scan->total_files, files, memory_order_relaxed);
	atomic_store_explicit(&scan->total_bytes, 0, memory_order_relaxed);
}

static void compare_files(struct scan *scan)
{
	unsigned rounds = scan_rounds(scan, scan->result.files);

	for (unsigned round = 0; round < rounds && !scan->error && !scan_is_cancelled(scan);
	     round++) {
		scan->error = scan_nominate(scan, round, rounds);
		if (scan->error || !scan->candidates_count)
			continue;
		begin_step(scan, SCAN_COMPARING, scan->candidates_count);
		count_memory(scan);
		atomic_store(&scan->candidates_next, 0);
		run_workers(scan, NULL, scan_compare_thread);
	}
	free(scan->candidates);
	scan->candidates = NULL;
	count_memory(scan);
}

static void compare_pages(struct scan *scan)
{
	scan->error = scan_nominate_kin(scan);
	if (scan->error || !scan->kin_count)
		return;
	begin_step(scan, SCAN_PAIRING, scan->kin_count);
	count_memory(scan);
	run_workers(scan, NULL, scan_kin_thread);
	free(scan->kin);
	scan->kin = NULL;
	count_memory(scan);
}

/* Take the results from the tables of digests and free them: later steps need the memory. */
static void use_up_tables(struct scan *scan)
{
	struct scan_result *result = &scan->result;

	result->share = distinct_share(scan->pages);
	result->unique_pages = distinct_count(scan->pages, &result->pages_error);
	result->files_share = distinct_share(scan->contents);
	result->different_files = distinct_count(scan->contents, &result->files_error);
	result->equal_bytes = distinct_repeated(scan->contents);
	distinct_free(scan->pages);
	distinct_free(scan->contents);
	scan->pages = NULL;
	scan->contents = NULL;
	count_memory(scan);
}

/* The steps that need a catalogue. */
static void follow_up(struct scan *scan)
{
	begin_step(scan, SCAN_COUNTING, scan->result.files);
	scan->error = scan_count_records(scan);
	use_up_tables(scan);
	if (!scan->error && !scan_is_cancelled(scan))
		compare_files(scan);
	if (!scan->error && !scan_is_cancelled(scan))
		compare_pages(scan);
}

errint_t scan_run(struct scan *scan, struct scan_result *ret_result)
{
	int64_t started = clock_now_ns();

	scan_lower_priority();
	read_files(scan);
	if (scan->options.catalogue && !scan->error && !scan->result.catalogue_error &&
	    !scan_is_cancelled(scan))
		follow_up(scan);
	else
		use_up_tables(scan);
	scan->result.read_bytes = atomic_load_explicit(&scan->read_bytes, memory_order_relaxed);
	scan->result.complete = !scan->error && !scan_is_cancelled(scan);
	if (scan->result.complete && scan->options.ended)
		scan->options.ended(scan->options.context);
	scan->result.seconds = (double)(clock_now_ns() - started) / 1e9;
	*ret_result = scan->result;
	return scan->error;
}

static void *run_thread(void *arg)
{
	struct scan *scan = arg;
	struct scan_result result;

	/* The results are in the catalogue. A scan that failed leaves things as they were. */
	(void)scan_run(scan, &result);
	atomic_store(&scan->table_memory, 0);
	atomic_store(&scan->walk_memory, 0);
	return NULL;
}

errint_t scan_start(struct scan *scan)
{
	errint_t error;

	count_memory(scan);
	error = -pthread_create(&scan->thread, NULL, run_thread, scan);
	scan->thread_runs = !error;
	return error;
}

void scan_stop(struct scan *scan)
{
	if (!scan || !scan->thread_runs)
		return;
	scan_cancel(scan);
	pthread_mutex_lock(&scan->lock);
	pthread_cond_broadcast(&scan->more_files);
	pthread_cond_broadcast(&scan->more_notes);
	pthread_cond_broadcast(&scan->less);
	pthread_mutex_unlock(&scan->lock);
	pthread_join(scan->thread, NULL);
	scan->thread_runs = false;
}
