/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve.h - the loop that reads requests from the fuse device and has them handled
 *
 * One user may have any number of waiting requests, whatever they wait for. The requests of other
 * users are still served, and so are those of the same user that can be answered without waiting:
 * see serve.c.
 *
 * Requests that come by a ring (io_uring) belong to libfuse. They run on its own threads, and are
 * not bounded here.
 */
#ifndef FOLDFS_SERVE_H
#define FOLDFS_SERVE_H

#include "foldfs/session.h"

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/types.h>

struct serve;

/* Any thread calls them, with the context that serve_new() got. */
struct serve_callbacks {
	/* Whose share a request counts to. Called without a lock. */
	uid_t (*user_of)(const void *context, const struct fuse_in_header *request);
	/* Whether a request hardly waits. It is asked about requests of users who have used up
	 * their share. Called with a lock held, so it must not wait for anything. */
	bool (*is_brief)(const void *context, const struct fuse_in_header *request);
	/* The calling thread is about to handle a request that an earlier worker had in hand. Take
	 * back what SLOT says that it did. Called without a lock. */
	void (*take_back)(void *context, struct session_slot *slot);
};

/* CALLBACKS are copied. What requests do is noted in SESSION (borrowed). No thread runs yet.
 * -errno. */
errint_t serve_new(const struct serve_callbacks *callbacks, void *context, struct session *session,
		   struct serve **ret_serve);
/* Not while serve_run() runs. */
void serve_free(struct serve *serve);

/* Serve SE, which is mounted, until the connection ends or serve_end() is called. All threads have
 * ended when it returns, also those of a ring. READY is called once requests are read. To be called
 * once. Returns 0, or the -errno that ended it (which may be -ECONNABORTED). */
errint_t serve_run(struct serve *serve, struct fuse_session *se, void (*ready)(void *context),
		   void *context);

/* Make serve_run() return as soon as the requests in hand are done, even if it has not begun yet.
 * Any thread except those that handle requests; does not wait. */
void serve_end(struct serve *serve);

/* The calling thread is about to answer the request that it handles. Afterwards it comes back for
 * the next request without waiting for anything. Any thread may call this; it does nothing on
 * threads that are not of this loop. */
void serve_answers(void);

/* A moment's view. Any thread. */
struct serve_usage {
	uint64_t threads; /* threads that read requests or handle one */
	uint64_t handled; /* requests that are being handled */
	uint64_t parked;  /* requests that wait because their user has used up his share of
			   * threads */
	uint64_t refused; /* requests so far that were answered with an error for lack of room */
	uint64_t bytes;   /* of buffers */
};
void serve_usage(struct serve *serve, struct serve_usage *ret_usage);

#endif
