/* SPDX-License-Identifier: Apache-2.0 */
/* daemon.h - one mount's daemon: for main.c, two_processes.c and ending.c */
#ifndef FOLDFS_DAEMON_H
#define FOLDFS_DAEMON_H

#include "attendant.h"
#include "control.h"
#include "figures_json.h"
#include "foldfs/fusefs.h"
#include "options_parse.h"
#include "own_mount.h"
#include "preflight.h"
#include "state_open.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

struct daemon {
	struct options options;
	struct place place;
	int asker;       /* a socket to the process that asks the first question */
	pid_t asker_pid; /* 0: not our child */
	struct state state;
	struct attendant attendant;
	pid_t guardian; /* 0: there is none */
	struct fusefs *fs;
	struct fuse_session *session;
	struct own_mount mount;
	struct figures_context status;
	struct control *control;
	sigset_t end_signals; /* blocked in every thread; end_thread waits for them */
	pthread_t end_thread;
	pthread_t ready_thread;
	pthread_t force_thread;
	bool end_thread_runs;
	bool force_thread_runs; /* of whoever set ending; anybody's once end_thread has ended */
	atomic_bool ending;     /* whoever sets it starts force_thread */
	atomic_bool told;       /* to end, by a signal */
	bool ready_thread_runs;
	atomic_bool unmounting; /* whoever sets it unmounts */
};

/* ---- two_processes.c ---- */

/* Become two processes. In the asker this does not return. What is wrong is said. */
errint_t two_processes_split(struct daemon *d);
/* In the background: nothing of the caller's terminal or directory is held on to. The same. */
errint_t two_processes_detach(const struct daemon *d);
/* A thread: waits for the asker's word that the mount answers, and tells systemd. */
void *two_processes_ready(void *d);

/* ---- ending.c ---- */

/* Signals that end us, in every thread of ours to come: blocked, for one thread waits for them. One
 * that the caller had ignored (nohup) stays ignored. */
void ending_block_signals(struct daemon *d);
/* That thread: each such signal begins the end. */
void *ending_wait(void *d);
/* From now on the end has END_SECONDS. Without memory for a thread it has no limit. */
void ending_limit(struct daemon *d);
/* Unmount, if nobody else has. With FORCE requests that nobody answers any more fail at once. */
void ending_unmount(struct daemon *d, bool force);
/* The last thing: by now umount -f, which aborts before it unmounts, has done both. What is wrong
 * is said. */
errint_t ending_check_not_aborted(const struct daemon *d);

#endif
