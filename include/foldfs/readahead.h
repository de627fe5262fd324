/* SPDX-License-Identifier: Apache-2.0 */
/*
 * readahead.h - fills frames ahead of a sequential reader
 *
 * The workers that do it never reply. On io_uring with libfuse before 3.19 a miss has to be read on
 * the ring thread; read-ahead keeps such misses rare. One struct stream per open handle notices the
 * pattern. A range is handed to a worker at most once. A reader that needs a range which a worker
 * is just reading waits for the worker instead of reading the range a second time.
 */
#ifndef FOLDFS_READAHEAD_H
#define FOLDFS_READAHEAD_H

#include "foldfs/fill.h"
#include "foldfs/workers.h"

struct stream;

/* The state of one open handle. Takes references of its own to FILE and SOURCE; FILLER and WORKERS
 * are borrowed. -ENOMEM. */
errint_t stream_new(struct filler *filler, struct workers *workers, struct file *file,
		    struct source *source, struct stream **ret_stream);
/* No further note. Ranges still queued for it are dropped; ranges being read are finished. */
void stream_free(struct stream *stream);
/* Memory of one stream, without its queued jobs. */
uint64_t stream_bytes(void);

/* A read of LENGTH bytes at OFFSET is about to be served; MISSED says whether it has to go to the
 * source. May hand ranges to the workers. Any thread; a mutex of this handle only; never blocks on
 * I/O. */
void stream_note(struct stream *stream, off_t offset, size_t length, bool missed);

/* Wait until no worker is reading pages of this range for STREAM. True: there was a worker to wait
 * for, so look again. Blocks on the worker's I/O. */
bool stream_wait(struct stream *stream, off_t offset, size_t length);

#endif
