/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shutdown.c - how the daemon ends: by signal, when the source hangs, or with its mount
 *
 * By signal: have the kernel write back what clients stored through mmap, then stop serving. At
 * umount(8) the kernel has done the write-back by itself. Something that hangs, such as the source,
 * delays the end for END_SECONDS at most.
 */
#include "daemon.h"
#include "exchange.h"
#include "log.h"
#include "unmount.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* At an end by signal, how long the kernel may take to begin the write-back. */
#define FLUSH_MS 5000
/* From the signal on, how long everything may take. Then the daemon ends whatever it waits for. */
#define END_SECONDS 20

/* End the connection, also for the keeper, and for threads that are about to read from it. */
static void hang_up(struct daemon *d)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return;
	close(ends[0]);
	/* A pipe without a reader gives POLLERR, as an aborted connection does. */
	(void)dup3(ends[1], d->records->device, O_CLOEXEC);
	close(ends[1]);
}

/* If this takes fusermount3, for a plain user, the attendant does it. */
static void remove_mount(struct daemon *d, bool force)
{
	int root = own_mount_open(&d->mount);
	errint_t error;

	/* No mount of ours is there, or the kernel has ended it. */
	if (root < 0)
		return;
	error = unmount_lazily(root, force);
	if (error == -EPERM && geteuid() != 0)
		attendant_unmount(&d->attendant, root);
	else if (error)
		complain("cannot unmount %s: %s.", d->place.mountpoint, strerror(-error));
	close(root);
}

void shutdown_unmount(struct daemon *d, bool force)
{
	if (atomic_exchange(&d->unmounting, true))
		return;
	remove_mount(d, force);
	hang_up(d);
}

/*
 * The end, if a hanging source delays it. An orderly end would have to wait for the threads that
 * wait for the source. Clients get an error instead of waiting too. Nothing that was acknowledged
 * is lost, because the source has it. It does not matter whether the call that hangs in the source
 * still succeeds.
 */
static void *end_by_force(void *arg)
{
	struct daemon *d = arg;
	struct timespec left = {.tv_sec = END_SECONDS};

	while (nanosleep(&left, &left) != 0)
		;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	complain("the source %s does not answer: the daemon ends without waiting for it.",
		 d->place.source);
	shutdown_unmount(d, true);
	_exit(EXIT_FAILURE);
}

void shutdown_limit(struct daemon *d)
{
	if (!atomic_exchange(&d->ending, true))
		d->force_thread_runs = pthread_create(&d->force_thread, NULL, end_by_force, d) == 0;
}

/*
 * Have the kernel write back what clients stored through mmap: once the daemon stops answering, it
 * is lost. On a FUSE mount syncfs(2) only begins the write-back, for all files at once. It returns
 * even while the server does not run (seen with Linux 6.18.44). So the write-back is then awaited
 * file by file.
 */
static void flush_mount(const struct daemon *d)
{
	int root = own_mount_open(&d->mount);

	if (root >= 0) {
		attendant_flush(&d->attendant, root, FLUSH_MS);
		close(root);
	}
	fusefs_write_back(d->fs);
}

void shutdown_abandon(struct daemon *d)
{
	atomic_store(&d->unmounting, true);
	if (d->mount.abort < 0 || write(d->mount.abort, "1", 1) != 1)
		hang_up(d);
	if (d->fs)
		fusefs_end(d->fs);
}

void *shutdown_wait(void *arg)
{
	struct daemon *d = arg;
	sigset_t signals = d->end_signals;
	int sig;

	if (d->records->survives) {
		sigaddset(&signals, WORKER_MAKES_WAY);
		sigaddset(&signals, SIGUSR2);
	}
	/* Once something has begun, the end of serving does not cut it short. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	for (;;) {
		int failed;

		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		failed = sigwait(&signals, &sig);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		if (failed)
			continue;
		/* Before a new program serves, the mount is the old one's (exchange.c). */
		if (sig == SIGUSR2 && exchange_is_open(d->records) &&
		    !atomic_load(&d->records->serves))
			_exit(EXIT_FAILURE);
		if (sig == SIGUSR2) {
			complain("the process that keeps the connection of %s was killed: the "
				 "mount ends.",
				 d->place.mountpoint);
			shutdown_abandon(d);
			continue;
		}
		if (sig == WORKER_MAKES_WAY) {
			atomic_store(&d->hands_over, true);
			fusefs_hand_over(d->fs);
			continue;
		}
		atomic_store(&d->told, true);
		sd_notify(0, "STOPPING=1");
		shutdown_limit(d);
		flush_mount(d);
		fusefs_quiesce(d->fs);
		fusefs_end(d->fs);
	}
	return NULL;
}

void shutdown_block_signals(struct daemon *d)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGTERM};
	struct sigaction action;
	sigset_t keepers;

	sigemptyset(&d->end_signals);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			sigaddset(&d->end_signals, signals[i]);
	pthread_sigmask(SIG_BLOCK, &d->end_signals, NULL);
	sigemptyset(&keepers);
	sigaddset(&keepers, WORKER_MAKES_WAY);
	sigaddset(&keepers, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &keepers, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* A client that exceeds an inherited limit of file sizes gets EFBIG; the signal must not
	 * end the daemon. */
	signal(SIGXFSZ, SIG_IGN);
}

bool shutdown_may_leave_mount(const struct daemon *d)
{
	char *place = atomic_load(&d->told) ? NULL : own_mount_place(&d->mount);
	bool stands = place != NULL;

	free(place);
	return stands;
}

errint_t shutdown_check_not_aborted(const struct daemon *d)
{
	bool told = atomic_load(&d->told);
	char *place = own_mount_is_left(&d->mount, !told) ? own_mount_place(&d->mount) : NULL;
	errint_t error = 0;

	if (place)
		error = complain("%s: the mount on %s stays, dead, until it is unmounted "
				 "(umount %s).",
				 told ? "it cannot be taken away" : "the connection was aborted",
				 place, place);
	free(place);
	return error;
}
