/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - the control socket: answers foldctl, also when the mount is stuck
 *
 * A Unix stream socket for root and the mount's owner alone (mode 0600 and SO_PEERCRED). One
 * request of at most 4 KiB, a JSON object and a newline; one answer, a JSON object and a newline;
 * then the connection is closed. Served by one thread that takes no lock of the request path. A
 * slow, silent or hostile client has a time limit and cannot hold up another for longer than that.
 *
 *	{"request":"status"}              the figures of figures_json.h
 *	{"request":"audit","idle":false}  the report of audit_json.h, when it is there
 *	{"request":"explain","inode":N}   plan, reason, whether it is open, known pages
 */
#ifndef FOLDFS_CONTROL_H
#define FOLDFS_CONTROL_H

#include "figures_json.h"

struct control;

#define CONTROL_REQUEST_MAX 4096

/* Bind the socket NAME in the directory open as DIRECTORY (the caller's), to which nobody else may
 * write; a stale socket is replaced. No thread yet. STATUS is borrowed. -EEXIST: something else has
 * the name; other -errno. */
errint_t control_new(int directory, const char *name, const struct figures_context *status,
		     struct control **ret_control);
errint_t control_start(struct control *control);
/*
 * A request that takes its time, or locks that other requests hold: a new JSON object to answer
 * REQUEST with, or NULL. IS_CANCELLED(ASKER) tells when to give up. On a thread of its own, one at
 * a time for each kind.
 */
typedef json_t *control_task_fn(void *context, const json_t *request,
				bool (*is_cancelled)(void *asker), void *asker);
#define CONTROL_TASKS_MAX 4
/* What {"request":NAME} is answered by; NAME is a literal. Before control_start(). */
void control_add_task(struct control *control, const char *name, control_task_fn *task,
		      void *context);
/* Have the answering end, without waiting for it. NULL is nothing. */
void control_end(struct control *control);
/* Stop answering and remove the socket. Tasks that are under way are cancelled. NULL is nothing. */
void control_free(struct control *control);

/* The answer to one request, for the socket and for tests: never NULL but for want of memory; an
 * object with "error" for anything that is no request, or is a task's. */
json_t *control_answer(const struct figures_context *status, const char *text, size_t length);

#endif
