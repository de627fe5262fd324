/* SPDX-License-Identifier: Apache-2.0 */
/* daemon.h - one mount's daemon: for main.c, connection.c, keeper.c, two_processes.c, shutdown.c */
#ifndef FOLDFS_DAEMON_H
#define FOLDFS_DAEMON_H

#include "attendant.h"
#include "control.h"
#include "figures_json.h"
#include "foldfs/fusefs.h"
#include "foldfs/takeover.h"
#include "options_parse.h"
#include "own_mount.h"
#include "preflight.h"
#include "settings.h"
#include "state_open.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

struct daemon {
	struct options options;
	struct place place;
	int asker;       /* a socket to the process that asks the first question */
	pid_t asker_pid; /* 0: not our child */
	struct state_place state_place;
	struct state state;
	struct attendant attendant;
	pid_t guardian;           /* 0: there is none */
	struct session *records;  /* what outlives the process that serves */
	struct takeover takeover; /* what an earlier one left */
	struct fusefs *fs;
	struct fuse_session *session;
	struct own_mount mount;
	struct settings settings;
	struct figures_context status;
	struct control *control;
	sigset_t end_signals; /* blocked in every thread; end_thread waits for these signals */
	pthread_t end_thread;
	pthread_t ready_thread;
	pthread_t force_thread;
	bool end_thread_runs;
	bool force_thread_runs; /* of the thread that set ending; of any thread once end_thread has
				 * ended */
	atomic_bool ending;     /* the thread that sets it starts force_thread */
	atomic_bool told;       /* a signal has told the daemon to end */
	atomic_bool hands_over; /* the keeper has told the worker to make way for another program */
	bool ready_thread_runs;
	atomic_bool unmounting; /* the thread that sets it unmounts */
};

/* ---- two_processes.c ---- */

/* Become two processes. In the asker this does not return. Errors are reported. */
errint_t two_processes_split(struct daemon *d);
/* In the background: let go of the caller's terminal and directory. Errors are reported. */
errint_t two_processes_detach(const struct daemon *d);
/* A thread's function: waits until the asker reports that the mount answers, then tells systemd, or
 * has the keeper tell it. */
void *two_processes_ready(void *d);
/* Tell systemd that the mount answers. */
void two_processes_notify(const struct daemon *d);

/* ---- connection.c ---- */

/* Mount, and note what the kernel asks first. Errors are reported. */
errint_t connection_open(struct daemon *d);
/* Whether the kernel can send requests once more that were not answered. */
bool connection_resends(const struct session *records);
/* Make the session that serves the connection. Errors are reported. */
errint_t connection_serve(struct daemon *d);

/* ---- keeper.c ---- */

/* The signal by which the keeper tells a worker to make way for another program. SIGUSR1 is
 * liburcu's: its threads take it. */
#define WORKER_MAKES_WAY SIGRTMIN

/* Keep the connection, and have workers serve it, each of which does WORK and ends with its result.
 * ARGUMENTS, of this program, are those of one that takes its place. Returns an exit status. */
int keeper_run(struct daemon *d, char *arguments[], int (*work)(struct daemon *d));
/* For a worker: have the keeper know that the mount answers. */
void keeper_ring(struct session *records);

/* ---- shutdown.c ---- */

/* Block the signals that end the daemon, in this thread and all later ones, because one thread
 * waits for them. A signal that the caller had ignored (nohup) stays ignored. */
void shutdown_block_signals(struct daemon *d);
/* The function of the thread that waits: each such signal begins the end. */
void *shutdown_wait(void *d);
/* From now on the end takes END_SECONDS at most. Without memory for a thread there is no limit. */
void shutdown_limit(struct daemon *d);
/* Unmount, if no other thread has. With FORCE, requests that nobody will answer any more fail at
 * once. */
void shutdown_unmount(struct daemon *d, bool force);
/* Whether a dead mount may be left, once serving has ended and before the mount is taken away: it
 * stands, and the daemon was not told to end. */
bool shutdown_may_leave_mount(const struct daemon *d);
/* End the connection and leave the mount, dead: below it is a bare directory, in which clients would
 * otherwise go on working. */
void shutdown_abandon(struct daemon *d);
/* The last step: by now umount -f, which first aborts and then unmounts, has done both. Errors are
 * reported. */
errint_t shutdown_check_not_aborted(const struct daemon *d);

#endif
