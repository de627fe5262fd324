/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - the control socket: answers foldctl, also when the mount is stuck
 *
 * A Unix stream socket for root and the mount's owner alone (mode 0600 and SO_PEERCRED). One
 * request of at most 4 KiB, a JSON object and a newline; one answer, a JSON object and a newline;
 * then the connection is closed. Served by one thread that takes no lock of the request path. A
 * slow, silent or hostile client has a time limit and cannot hold up another for longer than that.
 *
 * What can be asked is a table (control_requests.h has the daemon's).
 */
#ifndef FOLDFS_CONTROL_H
#define FOLDFS_CONTROL_H

#include "foldfs/page.h"

#include <jansson.h>
#include <sys/types.h>

struct control;

#define CONTROL_REQUEST_MAX 4096

/*
 * Make a new JSON object that answers REQUEST; NULL for want of memory. IS_CANCELLED(ASKER) tells
 * when to give up.
 */
typedef json_t *control_answer_fn(void *context, const json_t *request,
				  bool (*is_cancelled)(void *asker), void *asker);

/* The user who made the request of ASKER. NULL: the daemon's own user. */
uid_t control_asker_uid(const void *asker);

/* {"request":NAME} is answered by this function. */
struct control_request {
	const char *name; /* a literal */
	control_answer_fn *answer;
	bool own_thread; /* it takes long, or takes locks that other requests hold; one at a time */
	/* Instead of an answer: take over the client's connection. Returns a sentence if it does
	 * not. */
	const char *(*take)(void *context, int fd);
};
#define CONTROL_REQUESTS_MAX 8

/* Bind the socket NAME in the directory open as DIRECTORY. That stays the caller's; nobody else may
 * write to it. A stale socket is replaced. No thread runs yet. REQUESTS, at most
 * CONTROL_REQUESTS_MAX and then one without a name, and their CONTEXT are borrowed. -EEXIST:
 * something else has the name; other -errno. */
errint_t control_new(int directory, const char *name, const struct control_request requests[],
		     void *context, struct control **ret_control);
errint_t control_start(struct control *control);
/* Make the answering end, without waiting for it. NULL is allowed. */
void control_end(struct control *control);
/* Stop answering. Requests that are under way are cancelled. The socket's name stays until
 * control_free(). NULL is allowed. */
void control_stop(struct control *control);
/* Have control_free() leave the socket's name: `foldctl list` knows a dead mount by a socket that
 * nobody listens on. For the thread that calls control_free(). NULL is allowed. */
void control_keep_name(struct control *control);
/* Stop answering and remove the socket. NULL is allowed. */
void control_free(struct control *control);

/* The answer to the request TEXT, made on this thread. NULL only for want of memory; an object with
 * "error" for anything that is no request. For tests. */
json_t *control_answer(const struct control_request requests[], void *context, const char *text,
		       size_t length);

#endif
