/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve.h - the loop that reads requests from the fuse device and has them handled
 *
 * However many requests of one user wait, for whatever, those of others are served, and of his own
 * what is there without waiting: see serve.c.
 * Requests that come by a ring (io_uring) are libfuse's, on its own threads, and not bounded here.
 */
#ifndef FOLDFS_SERVE_H
#define FOLDFS_SERVE_H

#include "foldfs/page.h"

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/types.h>

struct serve;

/* USER_OF tells whose share a request counts to; it is called by any thread, holding no lock.
 * IS_BRIEF tells whether a request hardly waits; it is asked about those of users who have their
 * share, by any thread, with a lock held: it waits for nothing. No thread runs yet. -errno. */
errint_t serve_new(uid_t (*user_of)(const struct fuse_in_header *request),
		   bool (*is_brief)(const struct fuse_in_header *request),
		   struct serve **ret_serve);
/* Not while it runs. */
void serve_free(struct serve *serve);

/* Serve SE, which is mounted, until the connection ends or serve_end() is called; then all threads
 * have ended, also those of a ring. Once. 0, or -errno that ended it (-ECONNABORTED as well). */
errint_t serve_run(struct serve *serve, struct fuse_session *se);

/* Have serve_run() return as soon as the requests in hand are done, also if it has not begun. Any
 * thread but those that handle requests; does not wait. */
void serve_end(struct serve *serve);

/* The calling thread is about to answer the request that it handles, and will then be back for the
 * next one without waiting for anything. Any thread; on others than those here it does nothing. */
void serve_answers(void);

/* A moment's view. Any thread. */
struct serve_usage {
	uint64_t threads; /* that read requests or handle one */
	uint64_t handled; /* requests that are being handled */
	uint64_t parked;  /* requests that wait because their user has his share of threads */
	uint64_t refused; /* requests so far that were answered with an error for want of room */
	uint64_t bytes;   /* of buffers */
};
void serve_usage(struct serve *serve, struct serve_usage *ret_usage);

#endif
