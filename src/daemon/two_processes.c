/* SPDX-License-Identifier: Apache-2.0 */
/*
 * two_processes.c - the daemon, and the process that asks its mount the first question
 *
 * In the background the asker is the process that was called, so its exit status is true. In the
 * foreground it is a child that ends at once. The daemon never asks its own mount anything: a
 * thread that waits for the mount keeps the device open, so killing such a daemon would leave a
 * mount that hangs for ever.
 */
#include "daemon.h"
#include "foldfs/privileges.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* Wait until the daemon has mounted, ask the mount something, tell the daemon. Returns an exit
 * status. */
static int ask(int fd, const char *mountpoint)
{
	struct statfs st;
	char byte;

	/* The only capability that the question needs. */
	(void)privileges_keep(PRIVILEGE(CAP_DAC_READ_SEARCH));
	/* If the byte does not come, the daemon has ended, and has reported why. */
	if (TEMP_FAILURE_RETRY(read(fd, &byte, 1)) != 1)
		return EXIT_FAILURE;
	/* An error of the source is an answer as well. */
	if (statfs(mountpoint, &st) != 0 && (errno == ENOTCONN || errno == ECONNABORTED)) {
		complain("the mount on %s does not answer: %s.", mountpoint, strerror(errno));
		return EXIT_FAILURE;
	}
	/* A daemon that has just been told to end may not listen any more. That is no error. */
	(void)send(fd, "", 1, MSG_NOSIGNAL);
	return EXIT_SUCCESS;
}

errint_t two_processes_split(struct daemon *d)
{
	bool background = !d->options.foreground;
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return complain("cannot make a socket pair: %s.", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		close(ends[0]);
		close(ends[1]);
		return complain("cannot fork: %s.", strerror(errno));
	}
	if (background == (pid > 0)) {
		close(ends[1]);
		_exit(ask(ends[0], d->place.mountpoint));
	}
	close(ends[0]);
	d->asker = ends[1];
	d->asker_pid = background ? 0 : pid;
	if (background)
		setsid(); /* a fresh child leads no group, so this cannot fail */
	return 0;
}

errint_t two_processes_detach(const struct daemon *d)
{
	int null;

	if (chdir("/") != 0)
		return complain("cannot change to /: %s.", strerror(errno));
	if (d->options.foreground)
		return 0;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return complain("cannot open /dev/null: %s.", strerror(errno));
	log_to_system();
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
	return 0;
}

void two_processes_notify(const struct daemon *d)
{
	sd_notifyf(0, "READY=1\nSTATUS=Serving %s on %s", d->place.source, d->place.mountpoint);
}

void *two_processes_ready(void *arg)
{
	struct daemon *d = arg;
	char byte;
	ssize_t got = TEMP_FAILURE_RETRY(read(d->asker, &byte, 1));

	if (d->asker_pid > 0)
		TEMP_FAILURE_RETRY(waitpid(d->asker_pid, NULL, 0));
	if (got != 1)
		return NULL;
	/* systemd listens to the main process alone, if it is not told otherwise. */
	if (d->records->survives)
		keeper_ring(d->records);
	else
		two_processes_notify(d);
	return NULL;
}
