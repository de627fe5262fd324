/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.c - keeps the connection of a mount, so that the process that serves it may die
 *
 * The connection lives as long as a process has its descriptor. The keeper has it, and starts the
 * worker, which serves. Both have one table of descriptors (CLONE_FILES). So each descriptor that
 * the worker opens outlives it, under the same number. What the successor of a dead worker has to
 * know besides is in the session (session.h), which is in memory of both.
 *
 * The keeper has no threads, allocates nothing while it waits, and parses nothing that comes from
 * outside. It waits for signals, for the worker, and for a program that is to take its place
 * (exchange.h).
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
#include "exchange.h"
#include "foldfs/clock.h"
#include "foldfs/privileges.h"
#include "log.h"
#include "watchdog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
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
/* For so long all threads of a dead worker are awaited. They end within microseconds, unless they
 * wait. */
#define LEFT_MS_MIN 20
#define LOOK_MS     5
/* How often to look whether a successor serves. */
#define SERVES_MS 100
/* How long a worker that is to make way for another program may take for what it has in hand. What
 * it has not done then is done as after a death. */
#define EXCHANGE_MS 10000

struct keeper {
	struct daemon *d;
	int (*work)(struct daemon *d);
	struct handover *handover;
	char **arguments; /* of this program, for one that takes its place */
	pid_t process;    /* the keeper's own */
	pid_t worker;     /* 0: there is none */
	int64_t started;  /* of clock_now_ms() */
	int64_t died;     /* the same: when its thread was found gone; 0: it was not */
	int64_t down;     /* the same: clients have waited for a successor since then; 0: they do
			    * not */
	struct watchdog watchdog;
	unsigned fast;     /* how many died fast, one after the other */
	bool told;         /* a signal has told the daemon to end */
	int64_t makes_way; /* when the worker was told to make way for another program; 0: it was
			    * not */
};

/* ---- the worker's side ---- */

/* Take over what is open. Beside what was open at the start, an exchange has some descriptors, and
 * the keeper has one of the worker. */
static errint_t take_descriptors(struct session *records, const struct handover *handover,
				 struct takeover *ret_takeover)
{
	int kept[HANDOVER_KEPT + 4];
	size_t count = handover->kept_count;

	memcpy(kept, handover->kept, count * sizeof(*kept));
	kept[count++] = records->watch;
	kept[count++] = handover->program;
	kept[count++] = handover->previous;
	kept[count++] = atomic_load(&records->client);
	return takeover_begin(records, kept, count, ret_takeover);
}

/* The keeper's own descriptor of the worker comes after the worker. */
static errint_t take_over(struct keeper *keeper)
{
	const struct timespec pause = clock_at(LOOK_MS * NS_PER_MS);
	struct session *records = keeper->d->records;
	uint32_t watched = atomic_load(&records->watched);

	while (watched != records->workers) {
		(void)syscall(SYS_futex, &records->watched, FUTEX_WAIT, watched, &pause);
		watched = atomic_load(&records->watched);
		/* If the keeper was killed, the connection ends with this process. */
		if (getppid() != keeper->process)
			return -EOWNERDEAD;
	}
	return take_descriptors(records, keeper->handover, &keeper->d->takeover);
}

static void *work(void *argument)
{
	struct keeper *keeper = argument;
	struct daemon *d = keeper->d;
	int status = EXIT_FAILURE;
	errint_t error = 0;

	atomic_store(&d->records->thread, (uint32_t)gettid());
	(void)syscall(SYS_futex, &d->records->thread, FUTEX_WAKE, 1);
	/* If the keeper is killed, the worker is told (shutdown.c). That may have happened already. */
	(void)prctl(PR_SET_PDEATHSIG, SIGUSR2);
	if (getppid() != keeper->process)
		(void)kill(getpid(), SIGUSR2);
	if (session_continues(d->records))
		error = take_over(keeper);
	if (error)
		complain("cannot take over the mount on %s: %s.", d->place.mountpoint,
			 strerror(-error));
	else
		status = keeper->work(d);
	if (atomic_load(&d->records->serves) || !session_continues(d->records))
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
	atomic_store(&records->made_way, false);
	atomic_store(&records->thread, 0);
	keeper->process = getpid();
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
static bool reap(struct keeper *keeper, int *ret_status)
{
	bool found = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != keeper->worker)
			continue;
		*ret_status = status;
		keeper->worker = 0;
		found = true;
	}
	return found;
}

/* Look at the signals that have come. All but those of children are for the worker. */
static void take_signals(struct keeper *keeper)
{
	struct signalfd_siginfo info;

	while (read(keeper->handover->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			continue;
		keeper->told = true;
		sd_notify(0, "STOPPING=1");
		if (keeper->worker)
			(void)kill(keeper->worker, (int)info.ssi_signo);
	}
}

void keeper_ring(struct session *records)
{
	atomic_store(&records->answers, true);
	(void)eventfd_write(handover_of(records)->bell, 1);
}

/* The bell has rung: the mount answers, or a worker has handed over a client who brings another
 * program. */
static void answer_bell(struct keeper *keeper)
{
	eventfd_t rung;

	(void)eventfd_read(keeper->handover->bell, &rung);
	if (atomic_exchange(&keeper->d->records->answers, false))
		two_processes_notify(keeper->d);
	if (exchange_accept(keeper->d->records, keeper->worker))
		return;
	keeper->makes_way = clock_now_ms();
	(void)kill(keeper->worker, WORKER_MAKES_WAY);
}

/* The worker has made way, or has had the time to. */
static bool has_made_way(struct keeper *keeper)
{
	if (keeper->makes_way && clock_now_ms() - keeper->makes_way > EXCHANGE_MS)
		(void)kill(keeper->worker, SIGKILL);
	return keeper->makes_way;
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
	/* If it ends by itself, there is no successor. */
	return left > LEFT_MS_MIN && !atomic_load(&records->ends) &&
	       !session_is_busy(records, keeper->worker);
}

/* Whether clients have waited for a successor for too long. */
static bool is_late(struct keeper *keeper)
{
	const struct session *records = keeper->d->records;

	if (keeper->died && !keeper->down && !atomic_load(&records->ends))
		keeper->down = keeper->died;
	if (!keeper->died && atomic_load(&records->serves))
		keeper->down = 0;
	return keeper->down &&
	       clock_now_ms() - keeper->down > (int64_t)(keeper->d->options.survive_wait * 1000);
}

/* End a worker that does not answer any more. */
static void watch_for_stuck(struct keeper *keeper)
{
	struct session *records = keeper->d->records;

	if (!atomic_load(&records->serves) || atomic_load(&records->ends) || keeper->told ||
	    !watchdog_look(&keeper->watchdog, records, keeper->worker, keeper->d->place.source_fd))
		return;
	fuse_log(FUSE_LOG_WARNING,
		 "the process that serves the mount on %s has read no request for %g seconds, "
		 "while the source answers: it is ended.\n",
		 keeper->d->place.mountpoint, keeper->d->options.watchdog);
	(void)kill(keeper->worker, SIGKILL);
}

/* How long to wait for events, in milliseconds; -1: for ever. LOOKS: the worker is about to end. */
static int patience(const struct keeper *keeper, bool looks)
{
	if (looks)
		return LOOK_MS;
	return keeper->down ? SERVES_MS : watchdog_period_ms(&keeper->watchdog);
}

/* Wait until the worker has ended, or a successor is too late. Returns its wait status. */
static int await_worker(struct keeper *keeper)
{
	struct pollfd events[] = {
		{.fd = keeper->handover->signals, .events = POLLIN},
		{.fd = keeper->d->records->watch, .events = POLLIN},
		{.fd = keeper->handover->bell, .events = POLLIN},
	};
	int status = SIGKILL; /* of a worker whose end cannot be awaited */

	while (!reap(keeper, &status) && !has_gone(keeper) && !is_late(keeper)) {
		bool looks = keeper->died || has_made_way(keeper);

		/* Once its thread is gone, look again and again. */
		events[1].fd = keeper->died ? -1 : keeper->d->records->watch;
		events[2].fd = looks ? -1 : keeper->handover->bell;
		(void)poll(events, 3, patience(keeper, looks));
		take_signals(keeper);
		if (!looks)
			watch_for_stuck(keeper);
		if (!looks && events[2].revents)
			answer_bell(keeper);
	}
	if (keeper->d->records->watch >= 0)
		close(keeper->d->records->watch);
	return status;
}

/* Wait MILLISECONDS, or until told to end. */
static void pause_for(struct keeper *keeper, int milliseconds)
{
	struct pollfd signals = {.fd = keeper->handover->signals, .events = POLLIN};
	int64_t deadline = clock_now_ms() + milliseconds;

	keeper->worker = 0;
	while (!keeper->told && poll(&signals, 1, clock_left_ms(deadline)) > 0)
		take_signals(keeper);
}

/* The worker was killed, or could not take over. Whether another one is to be started, after a
 * pause if need be. */
static bool tries_again(struct keeper *keeper, int status)
{
	const char *mountpoint = keeper->d->place.mountpoint;

	if (keeper->told || atomic_load(&keeper->d->records->ends))
		return false;
	atomic_store(&keeper->d->records->serves, false);
	if (!keeper->down)
		keeper->down = clock_now_ms();
	if (is_late(keeper)) {
		complain("no process has taken over the mount on %s within %g seconds: given up.",
			 mountpoint, keeper->d->options.survive_wait);
		return false;
	}
	keeper->fast = clock_now_ms() - keeper->started < FAST_MS ? keeper->fast + 1 : 0;
	if (keeper->fast > FAST_MAX) {
		complain("the process that serves the mount on %s has ended %u times within %d "
			 "second of its start: given up.",
			 mountpoint, keeper->fast, FAST_MS / 1000);
		return false;
	}
	/* One that could not take over has said why. */
	if (WIFEXITED(status))
		fuse_log(FUSE_LOG_WARNING, "another process tries to take over the mount on %s.\n",
			 mountpoint);
	else
		fuse_log(FUSE_LOG_WARNING,
			 "the process that served the mount on %s has died of signal %d: another "
			 "one takes over.\n",
			 mountpoint, WTERMSIG(status));
	if (keeper->fast > 1)
		pause_for(keeper, PAUSE_MS_MIN << (keeper->fast - 2));
	return !keeper->told;
}

/* Have those fail who wait for an answer. Without fusectl the connection ends with the last process
 * that has it. */
static void give_up(const struct keeper *keeper)
{
	const struct daemon *d = keeper->d;

	if (keeper->worker)
		(void)kill(keeper->worker, SIGKILL);
	if (d->mount.abort >= 0)
		(void)!write(d->mount.abort, "1", 1);
}

/* This process is not the one that started the attendant, which has ended with that one. Without
 * another one an end by signal does not have the mount written back. */
static void renew_attendant(const struct keeper *keeper)
{
	struct attendant *attendant = &keeper->d->attendant;
	struct attendant fresh;

	if (attendant_start(&fresh))
		return;
	/* Under the number that is kept. */
	(void)dup3(fresh.socket, attendant->socket, O_CLOEXEC);
	close(fresh.socket);
	attendant->pid = keeper->handover->attendant_pid = fresh.pid;
}

/* The worker has ended, with STATUS, for another program. Returns if that program cannot be run. */
static void make_way(struct keeper *keeper, int status)
{
	pid_t before = getpid();

	if (!keeper->makes_way)
		return;
	keeper->makes_way = 0;
	/* What it was told meanwhile counts more. */
	if (keeper->told || (WIFEXITED(status) && atomic_load(&keeper->d->records->ends)))
		return;
	if (!atomic_load(&keeper->d->records->made_way))
		fuse_log(FUSE_LOG_WARNING,
			 "the process that serves the mount on %s did not make way for another "
			 "program within %d seconds, or died: it is replaced as after a death.\n",
			 keeper->d->place.mountpoint, EXCHANGE_MS / 1000);
	exchange_run(keeper->d->records, keeper->arguments);
	if (getpid() != before)
		renew_attendant(keeper);
}

/* This program cannot serve what the one before did serve. Returns if there was none. */
static void go_back(struct keeper *keeper, const char *problem)
{
	if (!keeper->told && exchange_is_open(keeper->d->records))
		exchange_undo(keeper->d->records, keeper->arguments, problem);
}

/* Whether a worker that has ended, with STATUS, is to be replaced. *ret_status: the keeper's
 * otherwise. */
static bool goes_on(struct keeper *keeper, int status, int *ret_status)
{
	struct session *records = keeper->d->records;
	bool failed = session_continues(records) && !atomic_load(&records->serves);

	*ret_status = EXIT_FAILURE;
	if (atomic_load(&records->made_way))
		return true;
	if (WIFEXITED(status) && !failed) {
		*ret_status = WEXITSTATUS(status);
		return false;
	}
	if (tries_again(keeper, status))
		return true;
	go_back(keeper, "the new program cannot take the mount over.");
	give_up(keeper);
	return false;
}

static int keep(struct keeper *keeper)
{
	int status;

	do {
		if (start_worker(keeper)) {
			give_up(keeper);
			return EXIT_FAILURE;
		}
		if (!keeper->d->options.foreground)
			log_to_system();
		status = await_worker(keeper);
		make_way(keeper, status);
	} while (goes_on(keeper, status, &status));
	return status;
}

/* Note what is open now, before there is a worker. */
static errint_t note_kept(struct handover *handover)
{
	DIR *directory = opendir("/proc/self/fd");
	const struct dirent *entry;

	if (!directory)
		return complain("cannot read /proc/self/fd: %s.", strerror(errno));
	while ((entry = readdir(directory)) && handover->kept_count < HANDOVER_KEPT)
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
			handover->kept[handover->kept_count++] = atoi(entry->d_name);
	closedir(directory);
	return entry ? complain("the daemon was started with more than %u open descriptors: "
				"mount with -o survive=off.",
				HANDOVER_KEPT)
		     : 0;
}

static void block_signals(const struct keeper *keeper, sigset_t *ret_signals)
{
	*ret_signals = keeper->d->end_signals;
	sigaddset(ret_signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, ret_signals, NULL);
}

/* What the keeper has for itself, and hands on. */
static errint_t begin_keeping(struct keeper *keeper)
{
	struct handover *handover = keeper->handover;
	sigset_t signals;
	errint_t error = handover_note(keeper->d);

	if (error)
		return complain("cannot note the mount on %s: %s.", keeper->d->place.mountpoint,
				strerror(-error));
	block_signals(keeper, &signals);
	handover->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	handover->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (handover->signals < 0 || handover->bell < 0)
		return complain("cannot wait for signals: %s.", strerror(errno));
	error = note_kept(handover);
	/* Not one of those that are kept for good: an exchange closes it. */
	handover->program = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	return error;
}

/* The same in a program that has taken another one's place. */
static errint_t go_on_keeping(struct keeper *keeper)
{
	sigset_t signals;

	block_signals(keeper, &signals);
	if (!keeper->d->options.foreground)
		log_to_system();
	return 0;
}

int keeper_run(struct daemon *d, char *arguments[], int (*work_of)(struct daemon *d))
{
	struct keeper keeper = {
		.d = d,
		.work = work_of,
		.handover = handover_of(d->records),
		.arguments = arguments,
		.watchdog.limit_ms = (int64_t)(d->options.watchdog * 1000),
	};
	errint_t error;

	/* A directory that somebody wants to unmount is not kept. */
	if (chdir("/"))
		complain("cannot change to /: %s.", strerror(errno));
	else if ((error = privileges_freeze()))
		complain("cannot give up privileges: %s.", strerror(-error));
	else if (!(d->records->workers ? go_on_keeping(&keeper) : begin_keeping(&keeper)))
		return keep(&keeper);
	return EXIT_FAILURE;
}
