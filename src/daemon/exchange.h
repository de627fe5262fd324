/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exchange.h - another program takes the place of the one that serves a mount: foldctl upgrade
 *
 * In this order:
 *   a worker hands over the client who asks      exchange_ask(), on a thread of the control socket
 *   the keeper looks who that is, gets the
 *   program from the client, and tries it        exchange_accept()
 *   the worker ends in order                     (shutdown.c)
 *   the keeper becomes the new program           exchange_run()
 *   a worker of the new program serves           exchange_served()
 *   or none can: the keeper becomes the old one  exchange_undo()
 *
 * The client is told what has come of it, by one line of JSON, whoever serves by then.
 *
 * Rule: a worker talks to everybody who has a file in the mount, so the keeper believes nothing of
 * what it says. The program comes from the client alone, as a descriptor, and the kernel says who
 * the client is.
 */
#ifndef FOLDFS_EXCHANGE_H
#define FOLDFS_EXCHANGE_H

#include "handover.h"

#include <jansson.h>

/* Hand over to the keeper the client whose connection is FD, a descriptor that the callee takes
 * over. -EBUSY: there is another one. -ENOTSUP: no program can take over. -EFBIG: the session is in
 * no file. Any thread of a worker. */
errint_t exchange_ask(struct session *session, int fd);

/* The bell has rung, possibly for something else. 0: there is a program, and WORKER is to end.
 * -EINVAL: there is none, and a client was told why. */
errint_t exchange_accept(struct session *session, pid_t worker);

/* Become the new program, with the arguments ARGV of this one. Returns only if that fails; then the
 * client was told, and this program goes on, possibly as another process. */
void exchange_run(struct session *session, char *argv[]);

/* Whether this program was begun by an exchange, and has not served yet. */
bool exchange_is_open(struct session *session);
/* It serves: the client is told, and there is no way back. For the worker. */
void exchange_served(struct session *session);
/* It cannot serve, for PROBLEM, a sentence: become the program before again. Returns only if that
 * fails. */
void exchange_undo(struct session *session, char *argv[], const char *problem);

#endif
