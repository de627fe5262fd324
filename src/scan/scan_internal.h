/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_internal.h - what the parts of a scan share
 *
 *   scan.c        the scan's own thread: starts the steps, counts, writes the catalogue
 *   scan_walk.c   finds the files
 *   scan_read.c   workers of the first step: digests of one file after the other
 *   scan_class.c  the second and the third step: counts, nominates, compares
 *   compare_files.c  whether whole files are equal
 *   scan_family.c the fourth step: files that have many pages in common
 *   compare_pages.c   in which pages two files are equal
 *   scan_queue.c  what workers tell the scan's thread; the rate; what is waited for
 *
 * Workers never write: they send notes, which the scan's thread takes, counts and puts into the
 * catalogue in batches. So a batch never waits for a read, and neither does another process.
 *
 * One mutex, scan->lock, for all queues; everything else belongs to one thread.
 */
#ifndef FOLDFS_SCAN_INTERNAL_H
#define FOLDFS_SCAN_INTERNAL_H

#include "distinct.h"
#include "foldfs/border.h"
#include "foldfs/catalogue.h"
#include "foldfs/extents.h"
#include "foldfs/scan.h"

#include <pthread.h>
#include <stdatomic.h>

/* Bytes of one read, and of the buffers of a comparison. */
#define SCAN_CHUNK (256u << 10)

/* A file to read: from the walk to a worker. */
struct scan_file {
	struct scan_file *next;
	struct source_stamp stamp;
	uint64_t data_bytes; /* that it takes on its file system, at most its size */
	bool reachable;      /* everybody may go through the directories above it */
	char path[];         /* relative to the root */
};

/* What tells which files have pages in common at the same places: the smallest of the digests of a
 * file's pages and their numbers. */
#define SCAN_SKETCH 64u
struct scan_sketch {
	uint64_t values[SCAN_SKETCH]; /* ascending */
	unsigned count;
};

enum scan_note_kind {
	SCAN_NOTE_PART,       /* digests of a part of a file that is still being read */
	SCAN_NOTE_FILE,       /* a file was read, or was known */
	SCAN_NOTE_CHANGED,    /* it changed meanwhile */
	SCAN_NOTE_UNREADABLE, /* with error */
	SCAN_NOTE_CLASS,      /* stamps of files that are equal to the one with STAMP */
	SCAN_NOTE_RUNS,       /* of two files, stamps[0] the one that was there */
	SCAN_NOTE_FAILED,     /* the worker cannot go on: error */
};

/* What a worker tells. The receiver frees it. */
struct scan_note {
	struct scan_note *next;
	enum scan_note_kind kind;
	errint_t error;
	bool known;        /* SCAN_NOTE_FILE: it need not be read */
	bool record;       /* to be put into the catalogue */
	bool too_young;    /* not to be, though there is one */
	uint64_t part;     /* of digests */
	uint64_t *digests; /* owned; may be NULL */
	size_t count;      /* of digests, or stamps */
	uint64_t pages;    /* SCAN_NOTE_FILE: that are not zero */
	uint64_t
		writers; /* SCAN_NOTE_FILE, as the two that follow; as in struct catalogue_record */
	bool readable;
	bool reachable;
	struct digest content;
	struct source_stamp stamp;
	uint64_t class;              /* SCAN_NOTE_CLASS: 0 for that of STAMP, or a new one */
	struct source_stamp *stamps; /* owned */
	struct scan_sketch *sketch;  /* SCAN_NOTE_FILE: owned; NULL: none is kept */
	uint64_t proved;             /* of them, by their extents */
	struct catalogue_run *runs;  /* SCAN_NOTE_RUNS: owned; count of them */
	char *path;                  /* owned; NULL for parts, classes and runs */
};

/* 24 bytes for each file that may be equal to another. */
struct scan_candidate {
	uint64_t hash; /* of size and digest */
	dev_t device;
	ino_t inode;
};

/* Of the fourth step: 32 bytes for each file that may have pages in common with another. */
struct scan_kin {
	struct {
		dev_t device;
		ino_t inode;
	} file, of;
};

struct scan {
	int root_fd;
	struct scan_options options; /* constant once made */
	bool multigrain;             /* of the root's file system; constant */
	struct writers_view view;    /* on the root; constant */
	struct border border;        /* its own */
	uint8_t secret[CATALOGUE_SECRET_BYTES];
	atomic_bool cancelled;

	pthread_mutex_t lock;
	pthread_cond_t more_files; /* or the walk's end */
	pthread_cond_t more_notes; /* or a worker's end */
	pthread_cond_t less;       /* room in a queue; or it is cancelled */
	struct scan_file *files;   /* under lock, oldest first */
	struct scan_file **files_end;
	unsigned files_waiting;
	bool walk_ended;
	errint_t walk_error;
	struct scan_note *notes; /* under lock, oldest first */
	struct scan_note **notes_end;
	uint64_t notes_bytes;
	unsigned workers_left;
	int64_t rate_free_ns; /* under lock: when the next byte may be read (CLOCK_MONOTONIC) */

	/* Of progress; relaxed. */
	_Atomic uint64_t done_files;
	_Atomic uint64_t done_bytes;
	_Atomic uint64_t read_bytes;
	_Atomic uint64_t total_files;
	_Atomic uint64_t total_bytes;
	_Atomic uint64_t walk_memory;  /* of the walk, for the budget */
	_Atomic uint64_t table_memory; /* of digests and candidates; changed by the scan's thread */

	/* Of the scan's thread. */
	enum scan_step step;
	struct distinct *pages;
	struct distinct *contents;
	struct scan_note *pending; /* to be written */
	struct scan_note **pending_end;
	uint64_t pending_bytes;
	int64_t pending_since_ns;
	int64_t told_ns; /* progress */
	struct scan_result result;
	errint_t error;

	/* Of the third step: constant while workers run, but for the cursor. */
	struct scan_candidate *candidates;
	size_t candidates_count;
	_Atomic size_t candidates_next;

	/* Of the fourth one, the same. */
	struct scan_kin *kin;
	size_t kin_count;
	_Atomic size_t kin_next;

	pthread_t thread; /* of scan_start() */
	bool thread_runs;
};

/* ---- scan_queue.c ---- */

/* Have the progress told, if it is time. The scan's thread. */
void scan_tell_progress(struct scan *scan);

bool scan_is_cancelled(const struct scan *scan);
/* Own thread: nobody is to wait for it. */
void scan_lower_priority(void);
/* Wait until BYTES may be read. -ECANCELED. */
errint_t scan_rate_take(struct scan *scan, uint64_t bytes);

/* FILE is the queue's, also if it is cancelled: -ECANCELED. Waits for room. */
errint_t scan_file_push(struct scan *scan, struct scan_file *file);
/* The oldest one, the caller's; NULL: there will be no more. Waits. */
struct scan_file *scan_file_pop(struct scan *scan);
void scan_walk_end(struct scan *scan, errint_t error);

/* A new note of KIND, all else zero. NULL: no memory. */
struct scan_note *scan_note_new(enum scan_note_kind kind);
void scan_note_free(struct scan_note *note);
/* NOTE is the queue's. Waits for room, unless it is cancelled. */
void scan_note_push(struct scan *scan, struct scan_note *note);
/* The worker cannot go on. */
void scan_note_failure(struct scan *scan, errint_t error);
/* All that there are, oldest first, the caller's: NULL after a tenth of a second without any.
 * *ret_ended: there will be no more. */
struct scan_note *scan_notes_take(struct scan *scan, bool *ret_ended);
void scan_worker_end(struct scan *scan);

/* ---- scan_open.c ---- */

/* PATH beneath the root, for reading. A descriptor, or -errno. */
int scan_open(const struct scan *scan, const char *path);
/* The same of a regular file, INODE, with SIZE bytes. -EBUSY: somebody holds it for himself alone,
 * as a mount does with what its clients write to. An open would end that. */
int scan_open_file(const struct scan *scan, const char *path, ino_t inode, uint64_t size);
/* Whether a later change of the file must get another stamp than the one it has now. */
bool scan_stamp_is_old_enough(const struct scan *scan, const struct source_stamp *stamp);

/* ---- scan_sketch.c ---- */

/* The page NUMBER, not zero, has this digest. */
void scan_sketch_add(struct scan_sketch *sketch, uint64_t number, uint64_t digest);

/* ---- scan_walk.c ---- */

/* The walk's thread: pushes every file. SCAN. */
void *scan_walk_thread(void *scan);
/* Counts files and bytes ahead, for the progress. SCAN. */
void *scan_count_thread(void *scan);

/* ---- scan_read.c ---- */

void *scan_read_thread(void *scan);

/* ---- scan_class.c ---- */

/* The second step. -errno. */
errint_t scan_count_records(struct scan *scan);
/* How many rounds of nomination it takes, and those of one round: scan->candidates, sorted, only
 * those that are not alone. -errno. */
unsigned scan_rounds(const struct scan *scan, uint64_t files);
errint_t scan_nominate(struct scan *scan, unsigned round, unsigned rounds);
/* Workers of the third step. */
void *scan_compare_thread(void *scan);

/* ---- compare_files.c ---- */

/* A file that is compared. */
struct scan_twin {
	struct catalogue_record record;
	struct source *source; /* while it is compared */
	bool equal;
	bool proved;
	bool unfit; /* is not what the catalogue knows, or is being written to */
	struct catalogue_member file;
};

/* The file as the catalogue knows it. NULL: it does not any more. -errno; 0. The caller's. */
errint_t scan_twin_load(struct scan *scan, dev_t device, ino_t inode, struct scan_twin **ret_twin);

/* Compare up to COUNT - 1 files with the first; says in `equal` which are, in full, while no stamp
 * changed. BUFFERS: two of SCAN_CHUNK. -ECANCELED. */
#define SCAN_TWINS_MAX 16u
errint_t scan_compare(struct scan *scan, struct scan_twin *twins[], unsigned count,
		      uint8_t *buffers);

/* Rules A to C of compare_files.c: it is what the catalogue knows, and nobody writes to it; else
 * `unfit`. Closing it finds out whether it still is. */
void scan_twin_open(const struct scan *scan, struct scan_twin *twin);
void scan_twin_close(struct scan_twin *twin);
/* Where one of the files next has data, at or after OFFSET; SIZE if none has. What is a hole in all
 * of them is equal. */
uint64_t scan_next_data(struct scan_twin *twins[], unsigned count, uint64_t offset, uint64_t size);
/* WANT bytes at OFFSET, at the scan's rate. What cannot be read is unfit. -ECANCELED. */
errint_t scan_read_twin(struct scan *scan, struct scan_twin *twin, uint8_t *buffer, size_t want,
			uint64_t offset);

/* ---- compare_pages.c ---- */

/* The runs of pages in which two files are equal. */
struct scan_runs {
	struct catalogue_run *list; /* owned */
	size_t count;
	uint64_t data_pages; /* of these, those that are not in a hole of both */
};

/* Compare A with B page by page, up to the end or as many runs as there is memory for. Of files
 * that are not what the catalogue knows, before or after, nothing is returned. BUFFERS: two of
 * SCAN_CHUNK. -ECANCELED; -ENOMEM. */
errint_t scan_compare_pages(struct scan *scan, struct scan_twin *a, struct scan_twin *b,
			    uint8_t *buffers, struct scan_runs *ret_runs);

/* ---- scan_family.c ---- */

/* Files with fewer pages that are not zero are in no family. */
#define SCAN_FAMILY_PAGES 64u

/* Find those that may have pages in common: scan->kin. -errno. */
errint_t scan_nominate_kin(struct scan *scan);
/* Workers of the fourth step. */
void *scan_kin_thread(void *scan);

#endif
