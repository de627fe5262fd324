/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watchdog.h - whether a worker has stopped answering: for keeper.c
 *
 * Some thread of a worker always reads requests, whatever the others wait for (serve.c, S.1). So a
 * worker is stuck if a request waits to be read, and goes on waiting, and no thread begins or ends
 * one meanwhile. A source that hangs does not do that: it has threads of its users only.
 *
 * To be sure, the source is asked before a worker is ended. A worker that is being debugged is
 * never stuck.
 */
#ifndef FOLDFS_WATCHDOG_H
#define FOLDFS_WATCHDOG_H

#include "foldfs/session.h"

#include <sys/types.h>

struct watchdog {
	int64_t limit_ms;  /* 0: nothing is ever stuck */
	int64_t since_ms;  /* a request has waited since then (clock.h); 0: none does */
	uint64_t progress; /* as it was then */
};

/* How often to look, in milliseconds; -1: never. */
int watchdog_period_ms(const struct watchdog *watchdog);

/* Look at the worker of SESSION, process PID, which serves the source open as SOURCE. True: it is
 * stuck. Takes some milliseconds at most, unless it may be stuck: then some seconds. */
bool watchdog_look(struct watchdog *watchdog, struct session *session, pid_t pid, int source);

#endif
