/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.h - reads the files of a tree and finds out what they share
 *
 * Four steps:
 * - Walk the tree and read each file, unless the catalogue knows it under its present stamp.
 * - For each file, count how many of its pages are found elsewhere.
 * - Compare files that have the same size and digest, in full. Those that are equal go into one
 *   class.
 * - Compare files that have many pages in common, page by page, and record which pages are equal.
 * Without a catalogue only the first step runs: an estimate.
 *
 * Memory is bounded: what does not fit is sampled, and the result states its standard error.
 * Besides the budget each worker has a few MiB of buffers.
 *
 * A scan runs in its caller's thread, with worker threads of its own. It may be cancelled at any
 * moment, and keeps what it has found by then.
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

/* How far the scan is. */
struct scan_progress {
	enum scan_step step;
	uint64_t files;
	uint64_t bytes;       /* of data: holes are not read */
	uint64_t total_files; /* in this step; 0: not known yet */
	uint64_t total_bytes;
};

struct scan_result {
	bool complete;            /* not cancelled */
	errint_t catalogue_error; /* why recording in the catalogue stopped; or 0 */
	uint64_t files;           /* regular files; one with several names counts once */
	uint64_t empty_files;     /* of these */
	uint64_t known;           /* of these: not read, because the catalogue knows them */
	uint64_t changed;         /* left out: changed while they were read */
	uint64_t unreadable;      /* left out: could not be read */
	uint64_t too_young;       /* not recorded: a later change may still get the same stamp */
	uint64_t bytes;           /* sizes of the files */
	uint64_t read_bytes;
	uint64_t zero_pages; /* pages of files: all zero, or in a hole */
	uint64_t data_pages; /* pages of files: all others */
	double share;        /* share of digests that were counted; 1: all, the numbers are exact */
	double unique_pages; /* different data pages */
	double pages_error;  /* standard error of unique_pages */
	double files_share;  /* these three: the same for whole files that are not empty */
	double different_files;
	double files_error;
	double equal_bytes;    /* of files that equal another one; the first of each is not
				* counted */
	uint64_t class_files;  /* files found equal by comparison in this scan */
	uint64_t proved_files; /* of these, proved by their extents */
	uint64_t family_files; /* files found in this scan to have pages in common with another
				* one */
	uint64_t family_pages; /* these pages, without zero pages, summed over the files */
	double seconds;
};

struct scan_options {
	struct catalogue *catalogue; /* borrowed; NULL: an estimate, nothing is recorded */
	unsigned workers;            /* 0: as many as processors, at most SCAN_WORKERS_MAX */
	uint64_t rate;               /* bytes a second; 0: as fast as it goes */
	uint64_t memory;             /* SCAN_MEMORY_MIN or more */
	bool all_file_systems;       /* also file systems mounted within the tree */
	bool count_ahead;            /* walk the tree once more, to know the progress' totals */
	/* Both are called in the scan's thread, and may be NULL. progress: ten times a second.
	 * unreadable: once for each unreadable file, with PATH relative to the tree. */
	void (*progress)(void *context, const struct scan_progress *progress);
	void (*unreadable)(void *context, const char *path, errint_t error);
	/* Called when the catalogue holds what was found and no longer holds what is gone; may be
	 * NULL. */
	void (*ended)(void *context);
	void *context;
};

/* Make a scan of the directory open as ROOT_FD, which is borrowed. -errno. */
errint_t scan_new(int root_fd, const struct scan_options *options, struct scan **ret_scan);
void scan_free(struct scan *scan);

/* Call once. Blocks until the scan ends. Returns 0 also if it was cancelled; -errno if the root
 * cannot be read, or for want of memory or threads. After an error *ret_result tells what was
 * done. */
errint_t scan_run(struct scan *scan, struct scan_result *ret_result);
/* Make the scan end. Any thread; also a signal handler. */
void scan_cancel(struct scan *scan);

/* Bytes of the scan's tables and of its walk, without a few MiB of buffers. Any thread, no lock. */
uint64_t scan_memory(const struct scan *scan);

/* Run SCAN in a thread of its own, and end it. -errno. Between the two calls only scan_cancel() and
 * scan_memory() may be called. A thread that has finished leaves nothing in memory. */
errint_t scan_start(struct scan *scan);
void scan_stop(struct scan *scan);

#endif
