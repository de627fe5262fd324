/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.h - reads the files of a tree and finds out what they share
 *
 * Four steps: walk the tree and read each file that the catalogue does not know as it is now;
 * count, for each file, how many of its pages are found elsewhere; compare files that have the same
 * size and digest, in full, and put those that are equal into one class; compare files that have
 * many pages in common, page by page, and keep which are equal. Without a catalogue the first step
 * is all: an estimate.
 *
 * Memory is bounded: what does not fit is sampled, and the result says its error. Beside the
 * budget there are a few MiB of buffers for each worker.
 *
 * A scan runs in its caller's thread, with workers of its own. It may be cancelled at any moment,
 * and keeps what it has found by then.
 */
#ifndef FOLDFS_SCAN_H
#define FOLDFS_SCAN_H

#include "foldfs/page.h"

struct catalogue;
struct scan;

#define SCAN_MEMORY_BYTES (UINT64_C(256) << 20)
#define SCAN_MEMORY_MIN   (UINT64_C(128) << 10)
#define SCAN_WORKERS_MAX  4u

enum scan_step {
	SCAN_READING,
	SCAN_COUNTING,
	SCAN_COMPARING,
	SCAN_PAIRING, /* comparing page by page */
};

/* How far it is. */
struct scan_progress {
	enum scan_step step;
	uint64_t files;
	uint64_t bytes;       /* of data: holes are not read */
	uint64_t total_files; /* of the step; 0: not known yet */
	uint64_t total_bytes;
};

struct scan_result {
	bool complete;            /* not cancelled */
	errint_t catalogue_error; /* why nothing more could be put into the catalogue; or 0 */
	uint64_t files;           /* regular files, each once whatever its names */
	uint64_t empty_files;     /* of these */
	uint64_t known;           /* of these: not read, for the catalogue knows them */
	uint64_t changed;         /* left out: changed while they were read */
	uint64_t unreadable;      /* left out: could not be read */
	uint64_t too_young;       /* not recorded: their stamp may yet be given again */
	uint64_t bytes;           /* sizes of the files */
	uint64_t read_bytes;
	uint64_t zero_pages; /* of files: all zero, or in a hole */
	uint64_t data_pages; /* of files: all others */
	double share;        /* of those that were counted; 1: all, the numbers are exact */
	double unique_pages; /* different data pages */
	double pages_error;  /* standard error of that */
	double files_share;  /* the same three for whole files that are not empty */
	double different_files;
	double files_error;
	double equal_bytes;    /* of files that are equal to another one, that one not counted */
	uint64_t class_files;  /* files found equal by comparison in this scan */
	uint64_t proved_files; /* of these, proved by their extents */
	uint64_t family_files; /* files found in this scan to have pages in common with
				* another one */
	uint64_t family_pages; /* those pages, with content, as many as each of the files has */
	double seconds;
};

struct scan_options {
	struct catalogue *catalogue; /* borrowed; NULL: an estimate, nothing is recorded */
	unsigned workers;            /* 0: as many as processors, at most SCAN_WORKERS_MAX */
	uint64_t rate;               /* bytes a second; 0: as fast as it goes */
	uint64_t memory;             /* SCAN_MEMORY_MIN or more */
	bool all_file_systems;       /* also those mounted within the tree */
	bool count_ahead;            /* walk the tree once more, for the progress' totals */
	/* Called in the scan's thread; may be NULL. progress: ten times a second. unreadable: once
	 * for each, PATH relative to the tree. */
	void (*progress)(void *context, const struct scan_progress *progress);
	void (*unreadable)(void *context, const char *path, errint_t error);
	/* The catalogue holds what was found, and no more of what is gone; may be NULL. */
	void (*ended)(void *context);
	void *context;
};

/* To scan the directory open as ROOT_FD, borrowed. -errno. */
errint_t scan_new(int root_fd, const struct scan_options *options, struct scan **ret_scan);
void scan_free(struct scan *scan);

/* Once. Blocks for as long as it takes. 0 also if it was cancelled; -errno if the root cannot be
 * read, or for want of memory or threads: then *ret_result is of what was done. */
errint_t scan_run(struct scan *scan, struct scan_result *ret_result);
/* Have it end. Any thread; also a signal handler. */
void scan_cancel(struct scan *scan);

/* Bytes of its tables and of its walk, but for a few MiB of buffers. Any thread, no lock. */
uint64_t scan_memory(const struct scan *scan);

/* Run SCAN in a thread of its own, and have it end. -errno. Between the two only scan_cancel() and
 * scan_memory(). A thread that has come to its end leaves nothing in memory. */
errint_t scan_start(struct scan *scan);
void scan_stop(struct scan *scan);

#endif
