/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.c - keeps the connection of a mount, so that the process that serves it may die
 *
 * The connection lives as long as a process has its descriptor. The keeper has it, and starts the
 * worker, which serves. Both have one table of descriptors (CLONE_FILES). So each descriptor that
 * the worker opens outlives it, under the same number. What the successor of a dead worker has to
 * know besides is in the session (session.h), which is in memory of both.
 *
 * The keeper has no threads, allocates nothing once it keeps, and looks at nothing that comes from
 * outside. It waits for signals and for the worker.
 *
 * A worker that ends by itself has said what that means: its status is the keeper's. A worker that
 * was killed is replaced, unless it was to end, or those before it died fast. Then the connection
 * ends: no client may wait for ever.
 *
 * The successor begins when the dead worker's threads are gone. One that was changing the source
 * might otherwise end its change after a later one. But a thread may wait, within the kernel, for
 * a page that a request holds which nobody has answered: the successor is to answer it. Only
 * threads of the window wait so. So once the thread that does the work is gone, only those are
 * awaited that have a request in hand.
 *
 * If the keeper is killed, the worker is told, and ends the connection (shutdown.c).
 */
#include "daemon.h"
#include "foldfs/clock.h"
#include "foldfs/privileges.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
/* From <linux/pidfd.h> since Linux 6.9: the descriptor tells of the end of one thread. */
#define PIDFD_THREAD O_EXCL

/* A worker that died sooner after its start has died fast. */
#define FAST_MS 1000
/* So many may die fast, one after the other. Before each but the first the pause doubles. */
#define FAST_MAX     6u
#define PAUSE_MS_MIN 50
/* How long clients wait at most for threads of a dead worker to end. */
#define LEFT_MS_MAX 60000
/* For so long all its threads are awaited. They end within microseconds, unless they wait. */
#define LEFT_MS_MIN 20
#define LOOK_MS     5

struct keeper {
	struct daemon *d;
	int (*work)(struct daemon *d);
	int *kept; /* the descriptors that no worker opened */
	size_t kept_count;
	int signals;     /* signalfd(2) */
	pid_t worker;    /* 0: there is none */
	int64_t started; /* of clock_now_ms() */
	int64_t died;    /* the same: when its thread was found gone; 0: it was not */
	unsigned fast;   /* how many died fast, one after the other */
	bool told;       /* a signal has told the daemon to end */
};

/* ---- the worker's side ---- */

/* The keeper's own descriptor of the worker comes after the worker, and has to stay. */
static errint_t take_over(struct keeper *keeper)
{
	struct session *records = keeper->d->records;
	uint32_t watched = atomic_load(&records->watched);

	while (watched != records->workers) {
		(void)syscall(SYS_futex, &records->watched, FUTEX_WAIT, watched, NULL);
		watched = atomic_load(&records->watched);
	}
	keeper->kept[keeper->kept_count++] = records->watch;
	return takeover_begin(records, keeper->kept, keeper->kept_count, &keeper->d->takeover);
}

static void *work(void *argument)
{
	struct keeper *keeper = argument;
	struct daemon *d = keeper->d;
	int status = EXIT_FAILURE;
	errint_t error = 0;

	atomic_store(&d->records->thread, (uint32_t)gettid());
	(void)syscall(SYS_futex, &d->records->thread, FUTEX_WAKE, 1);
	/* If the keeper is killed, the worker is told: see shutdown.c. */
	(void)prctl(PR_SET_PDEATHSIG, SIGUSR2);
	if (session_continues(d->records))
		error = take_over(keeper);
	if (error)
		complain("cannot take over the mount on %s: %s.", d->place.mountpoint,
			 strerror(-error));
	else
		status = keeper->work(d);
	atomic_store(&d->records->ends, true);
	return (void *)(intptr_t)status;
}

/* In the new process. Its first thread has come to be without the C library, which knows it by the
 * keeper's number. So another thread does the work. */
static _Noreturn void worker_main(struct keeper *keeper)
{
	void *status = (void *)(intptr_t)EXIT_FAILURE;
	pthread_t thread;

	if (pthread_create(&thread, NULL, work, keeper) == 0)
		pthread_join(thread, &status);
	exit((int)(intptr_t)status);
}

/* ---- the keeper's side ---- */

/*
 * From here on the keeper learns of the end of the thread that does the work, even if others stay.
 * The worker's first thread would not do: of that one the kernel tells when all others are gone. A
 * worker that dies before it has the thread has no others, so it can be reaped.
 */
static void watch_worker(struct keeper *keeper)
{
	const struct timespec pause = clock_at(LOOK_MS * NS_PER_MS);
	struct session *records = keeper->d->records;
	siginfo_t ended = {0};

	while (!atomic_load(&records->thread) && !ended.si_pid) {
		(void)syscall(SYS_futex, &records->thread, FUTEX_WAIT, 0, &pause);
		(void)waitid(P_PID, (id_t)keeper->worker, &ended, WEXITED | WNOHANG | WNOWAIT);
	}
	records->watch = (int)syscall(SYS_pidfd_open, atomic_load(&records->thread), PIDFD_THREAD);
	atomic_store(&records->watched, records->workers);
	(void)syscall(SYS_futex, &records->watched, FUTEX_WAKE, 1);
}

static errint_t start_worker(struct keeper *keeper)
{
	struct session *records = keeper->d->records;
	long pid;

	records->workers++;
	atomic_store(&records->serves, false);
	atomic_store(&records->ends, false);
	atomic_store(&records->thread, 0);
	keeper->started = clock_now_ms();
	keeper->died = 0;
	fflush(NULL);
	pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		worker_main(keeper);
	if (pid < 0)
		return complain("cannot start a process for the mount on %s: %s.",
				keeper->d->place.mountpoint, strerror(errno));
	keeper->worker = (pid_t)pid;
	watch_worker(keeper);
	return 0;
}

/* Reap children. True: the worker was among them; *ret_status is its own. */
static bool reap(const struct keeper *keeper, int *ret_status)
{
	bool found = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != keeper->worker)
			continue;
		*ret_status = status;
		found = true;
	}
	return found;
}

/* Look at the signals that have come. All but those of children are for the worker. */
static void take_signals(struct keeper *keeper)
{
	struct signalfd_siginfo info;

	while (read(keeper->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			continue;
		keeper->told = true;
		if (keeper->worker)
			(void)kill(keeper->worker, (int)info.ssi_signo);
	}
}

/* Whether the worker's thread is gone, and no other is left that a successor has to wait for. */
static bool has_gone(struct keeper *keeper)
{
	struct session *records = keeper->d->records;
	struct pollfd watch = {.fd = records->watch, .events = POLLIN};
	int64_t left;

	if (!keeper->died && poll(&watch, 1, 0) > 0)
		keeper->died = clock_now_ms();
	if (!keeper->died)
		return false;
	left = clock_now_ms() - keeper->died;
	if (left > LEFT_MS_MAX)
		return true;
	/* If it ends by itself, there is no successor. */
	return left > LEFT_MS_MIN && !atomic_load(&records->ends) &&
	       !session_is_busy(records, keeper->worker);
}

/* Wait until the worker has ended. Returns its wait status. */
static int await_worker(struct keeper *keeper)
{
	struct pollfd events[] = {
		{.fd = keeper->signals, .events = POLLIN},
		{.fd = keeper->d->records->watch, .events = POLLIN},
	};
	int status = SIGKILL; /* of a worker whose end cannot be awaited */

	while (!reap(keeper, &status) && !has_gone(keeper)) {
		/* Once its thread is gone, look again and again. */
		events[1].fd = keeper->died ? -1 : keeper->d->records->watch;
		(void)poll(events, 2, keeper->died ? LOOK_MS : -1);
		take_signals(keeper);
	}
	if (keeper->d->records->watch >= 0)
		close(keeper->d->records->watch);
	return status;
}

/* Wait MILLISECONDS, or until told to end. */
static void pause_for(struct keeper *keeper, int milliseconds)
{
	struct pollfd signals = {.fd = keeper->signals, .events = POLLIN};
	int64_t deadline = clock_now_ms() + milliseconds;

	keeper->worker = 0;
	while (!keeper->told && poll(&signals, 1, clock_left_ms(deadline)) > 0)
		take_signals(keeper);
}

/* The worker was killed. Whether another one is to be started, after a pause if need be. */
static bool tries_again(struct keeper *keeper, int status)
{
	const char *mountpoint = keeper->d->place.mountpoint;

	if (keeper->told || atomic_load(&keeper->d->records->ends))
		return false;
	keeper->fast = clock_now_ms() - keeper->started < FAST_MS ? keeper->fast + 1 : 0;
	if (keeper->fast > FAST_MAX) {
		complain("the process that serves the mount on %s has died %u times within %d "
			 "second of its start, the last time of signal %d: given up.",
			 mountpoint, keeper->fast, FAST_MS / 1000, WTERMSIG(status));
		return false;
	}
	fuse_log(FUSE_LOG_WARNING,
		 "the process that served the mount on %s has died of signal %d: another one "
		 "takes over.\n",
		 mountpoint, WTERMSIG(status));
	if (keeper->fast > 1)
		pause_for(keeper, PAUSE_MS_MIN << (keeper->fast - 2));
	return !keeper->told;
}

/* Have those fail who wait for an answer. */
static int give_up(const struct keeper *keeper)
{
	const struct daemon *d = keeper->d;

	if (d->mount.abort >= 0)
		(void)!write(d->mount.abort, "1", 1);
	return EXIT_FAILURE;
}

static int keep(struct keeper *keeper)
{
	struct session *records = keeper->d->records;
	int status;

	do {
		if (start_worker(keeper))
			return give_up(keeper);
		if (!keeper->d->options.foreground)
			log_to_system();
		status = await_worker(keeper);
		/* A successor that could not begin has said why. */
		if (WIFEXITED(status) && session_continues(records) &&
		    !atomic_load(&records->serves))
			return give_up(keeper);
		if (WIFEXITED(status))
			return WEXITSTATUS(status);
	} while (tries_again(keeper, status));
	return give_up(keeper);
}

/* Note what is open now, before there is a worker, and leave room for one more. */
static errint_t note_kept(struct keeper *keeper)
{
	DIR *directory = opendir("/proc/self/fd");
	const struct dirent *entry;
	size_t room = 0;

	if (!directory)
		return complain("cannot read /proc/self/fd: %s.", strerror(errno));
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(directory))
			continue;
		if (keeper->kept_count + 1 >= room) {
			int *kept = reallocarray(keeper->kept, room + 64, sizeof(*kept));

			if (!kept)
				break;
			keeper->kept = kept;
			room += 64;
		}
		keeper->kept[keeper->kept_count++] = atoi(entry->d_name);
	}
	closedir(directory);
	return entry ? complain("cannot note the descriptors of the mount on %s: %s.",
				keeper->d->place.mountpoint, strerror(ENOMEM))
		     : 0;
}

static errint_t open_signals(struct keeper *keeper)
{
	sigset_t signals = keeper->d->end_signals;

	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	keeper->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	return keeper->signals < 0 ? complain("cannot wait for signals: %s.", strerror(errno)) : 0;
}

int keeper_run(struct daemon *d, int (*work_of)(struct daemon *d))
{
	struct keeper keeper = {.d = d, .work = work_of};
	int status = EXIT_FAILURE;
	errint_t error;

	/* A directory that somebody wants to unmount is not kept. */
	if (chdir("/"))
		complain("cannot change to /: %s.", strerror(errno));
	else if ((error = privileges_freeze()))
		complain("cannot give up privileges: %s.", strerror(-error));
	else if (!open_signals(&keeper) && !note_kept(&keeper))
		status = keep(&keeper);
	free(keeper.kept);
	return status;
}
