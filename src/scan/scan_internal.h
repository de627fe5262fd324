/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_internal.h - what the parts of a scan share
 *
 *   scan.c           the scan's own thread: starts the steps, counts, writes the catalogue
 *   scan_walk.c      finds the files
 *   scan_read.c      workers of the first step: digests of one file after the other
 *   scan_class.c     the second and the third step: counts, nominates, compares
 *   compare_files.c  whether whole files are equal
 *   scan_family.c    the fourth step: files that have many pages in common
 *   compare_pages.c  in which pages two files are equal
 *   scan_queue.c     what workers tell the scan's thread; the rate limit; waiting and waking
 *
 * Workers never write: they send notes, which the scan's thread takes, counts and puts into the
 * catalogue in batches. So a batch never waits for a read, and neither does another process that
 * waits for the batch to end.
 *
 * One mutex, scan->lock, covers all queues; everything else belongs to one thread.
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

/* A file to read. The walk hands it to a worker. */
struct scan_file {
	struct scan_file *next;
	struct source_stamp stamp;
	uint64_t data_bytes; /* that the file takes on its file system, at most its size */
	bool reachable;      /* everybody may go through the directories above it */
	char path[];         /* relative to the root */
};

/* A sketch tells which files have pages in common at the same places. It is the smallest of the
 * values made from the digests of a file's pages and the pages' numbers. */
#define SCAN_SKETCH 64u
struct scan_sketch {
	uint64_t values[SCAN_SKETCH]; /* ascending */
	unsigned count;
};

enum scan_note_kind {
	SCAN_NOTE_PART,       /* digests of a part of a file that is still being read */
	SCAN_NOTE_FILE,       /* a file was read, or the catalogue knew it */
	SCAN_NOTE_CHANGED,    /* a file changed while it was read */
	SCAN_NOTE_UNREADABLE, /* a file, or directory, that could not be read; with error */
	SCAN_NOTE_CLASS,      /* stamps of files that are equal to the one with STAMP */
	SCAN_NOTE_RUNS,       /* two files; stamps[0] is the one that was there before */
	SCAN_NOTE_FAILED,     /* the worker cannot go on: error */
};

/* A message from a worker. The receiver frees it. */
struct scan_note {
	struct scan_note *next;
	enum scan_note_kind kind;
	errint_t error;
	bool known;        /* SCAN_NOTE_FILE: in the catalogue; was not read */
	bool record;       /* to be put into the catalogue */
	bool too_young;    /* not to be recorded, although there is a catalogue */
	uint64_t part;     /* number of the part of digests */
	uint64_t *digests; /* owned; may be NULL */
	size_t count;      /* of digests, or stamps */
	uint64_t pages;    /* SCAN_NOTE_FILE: pages that are not zero */
	uint64_t
		writers; /* SCAN_NOTE_FILE, as the next two fields; as in struct catalogue_record */
	bool readable;
	bool reachable;
	struct digest content;
	struct source_stamp stamp;
	uint64_t class;              /* SCAN_NOTE_CLASS: 0 means that of STAMP, or a new one */
	struct source_stamp *stamps; /* owned */
	struct scan_sketch *sketch;  /* SCAN_NOTE_FILE: owned; NULL: none is kept */
	uint64_t proved;             /* how many of the stamps were proved equal by extents */
	struct catalogue_run *runs;  /* SCAN_NOTE_RUNS: owned; count of them */
	char *path;                  /* owned; NULL for parts, classes and runs */
};

/* 24 bytes for each file that may be equal to another. */
struct scan_candidate {
	uint64_t hash; /* of size and digest */
	dev_t device;
	ino_t inode;
};

/* In the fourth step: 32 bytes for each file that may have pages in common with another. */
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
	pthread_cond_t less;       /* there is room in a queue; or the scan is cancelled */
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

	/* Progress. Relaxed. */
	_Atomic uint64_t done_files;
	_Atomic uint64_t done_bytes;
	_Atomic uint64_t read_bytes;
	_Atomic uint64_t total_files;
	_Atomic uint64_t total_bytes;
	_Atomic uint64_t walk_memory;  /* of the walk; counts against the budget */
	_Atomic uint64_t table_memory; /* of digests and candidates; changed by the scan's thread */

	/* These belong to the scan's thread. */
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

	/* For the third step: constant while workers run, except for the cursor. */
	struct scan_candidate *candidates;
	size_t candidates_count;
	_Atomic size_t candidates_next;

	/* For the fourth step: constant while workers run, except for the cursor. */
	struct scan_kin *kin;
	size_t kin_count;
	_Atomic size_t kin_next;

	pthread_t thread; /* of scan_start() */
	bool thread_runs;
};

/* ---- scan_queue.c ---- */

/* Report progress, if it is due. The scan's thread. */
void scan_tell_progress(struct scan *scan);

bool scan_is_cancelled(const struct scan *scan);
/* Lower the priority of the calling thread: it runs only when nothing else wants to. */
void scan_lower_priority(void);
/* Wait until the rate allows BYTES to be read. -ECANCELED. */
errint_t scan_rate_take(struct scan *scan, uint64_t bytes);

/* Takes over FILE, also if the scan is cancelled: -ECANCELED. Waits for room. */
errint_t scan_file_push(struct scan *scan, struct scan_file *file);
/* The oldest file, which is the caller's. NULL: there will be no more. Waits. */
struct scan_file *scan_file_pop(struct scan *scan);
void scan_walk_end(struct scan *scan, errint_t error);

/* A new note of KIND, all else zero. NULL: no memory. */
struct scan_note *scan_note_new(enum scan_note_kind kind);
void scan_note_free(struct scan_note *note);
/* Takes over NOTE. Waits for room, unless the scan is cancelled. */
void scan_note_push(struct scan *scan, struct scan_note *note);
/* Tell the scan's thread that this worker cannot go on. */
void scan_note_failure(struct scan *scan, errint_t error);
/* All notes in the queue, oldest first; they are the caller's. NULL after a tenth of a second
 * without any. *ret_ended: there will be no more. */
struct scan_note *scan_notes_take(struct scan *scan, bool *ret_ended);
void scan_worker_end(struct scan *scan);

/* ---- scan_open.c ---- */

/* Open PATH beneath the root for reading. A descriptor, or -errno. */
int scan_open(const struct scan *scan, const char *path);
/* Open a regular file in the same way; it is INODE and has SIZE bytes. -EBUSY: somebody holds an
 * exclusive lease on it, as a mount does on a file that its clients write to. An open would break
 * that lease. */
int scan_open_file(const struct scan *scan, const char *path, ino_t inode, uint64_t size);
/* Whether a later change of the file must get another stamp than the one it has now. */
bool scan_stamp_is_old_enough(const struct scan *scan, const struct source_stamp *stamp);

/* ---- scan_sketch.c ---- */

/* Add page NUMBER, which is not zero and has this digest. */
void scan_sketch_add(struct scan_sketch *sketch, uint64_t number, uint64_t digest);

/* ---- scan_walk.c ---- */

/* The walk's thread: pushes every file. The argument is the scan. */
void *scan_walk_thread(void *scan);
/* Counts files and bytes ahead, for the progress' totals. The argument is the scan. */
void *scan_count_thread(void *scan);

/* ---- scan_read.c ---- */

void *scan_read_thread(void *scan);

/* ---- scan_class.c ---- */

/* The second step. -errno. */
errint_t scan_count_records(struct scan *scan);
/* How many rounds of nomination are needed; and the nominees of one round. They are put into
 * scan->candidates, sorted; candidates that are alone are left out. -errno. */
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
	bool unfit; /* differs from what the catalogue knows, or is being written to */
	struct catalogue_member file;
};

/* Load the file as the catalogue knows it; it is the caller's. NULL: the catalogue does not know it
 * any more. -errno; 0. */
errint_t scan_twin_load(struct scan *scan, dev_t device, ino_t inode, struct scan_twin **ret_twin);

/* Compare up to COUNT - 1 files with the first one, in full. Sets `equal` in those that are equal
 * and whose stamps did not change. BUFFERS: two of SCAN_CHUNK. -ECANCELED. */
#define SCAN_TWINS_MAX 16u
errint_t scan_compare(struct scan *scan, struct scan_twin *twins[], unsigned count,
		      uint8_t *buffers);

/* Open TWIN under rules A to C of compare_files.c: it is what the catalogue knows, and nobody
 * writes to it; otherwise it is `unfit`. Closing it checks whether this still holds. */
void scan_twin_open(const struct scan *scan, struct scan_twin *twin);
void scan_twin_close(struct scan_twin *twin);
/* The next offset, at or after OFFSET, at which one of the files has data; SIZE if none has. A
 * range that is a hole in all of them is equal. */
uint64_t scan_next_data(struct scan_twin *twins[], unsigned count, uint64_t offset, uint64_t size);
/* Read WANT bytes at OFFSET, within the scan's rate. A file that cannot be read becomes unfit.
 * -ECANCELED. */
errint_t scan_read_twin(struct scan *scan, struct scan_twin *twin, uint8_t *buffer, size_t want,
			uint64_t offset);

/* ---- compare_pages.c ---- */

/* The runs of pages in which two files are equal. */
struct scan_runs {
	struct catalogue_run *list; /* owned */
	size_t count;
	uint64_t data_pages; /* pages in the runs, without those in a hole of both files */
};

/* Compare A with B page by page, up to the end or until there is no memory for more runs. Returns
 * nothing for a file that was not, before or after, what the catalogue knows. BUFFERS: two of
 * SCAN_CHUNK. -ECANCELED; -ENOMEM. */
errint_t scan_compare_pages(struct scan *scan, struct scan_twin *a, struct scan_twin *b,
			    uint8_t *buffers, struct scan_runs *ret_runs);

/* ---- scan_family.c ---- */

/* Files that have fewer non-zero pages than this are in no family. */
#define SCAN_FAMILY_PAGES 64u

/* Find the files that may have pages in common; they are put into scan->kin. -errno. */
errint_t scan_nominate_kin(struct scan *scan);
/* Workers of the fourth step. */
void *scan_kin_thread(void *scan);

#endif
