/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flush.c - what clients have stored through mappings of the mount is written back before its end
 *
 * Once nobody answers, it is lost. This program does it, started anew: the daemon must not touch
 * its own mount (main.c says why), and a mere fork of it would hold on to the connection. By /proc,
 * so that nobody else's program can be taken for it, and without an environment.
 */
#include "foldfs/flush.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How long it may take. */
#define FLUSH_MS      5000
#define FLUSH_STEP_MS 10

int flush_run(const char *mountpoint)
{
	int fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0 && syncfs(fd) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* 0: there is no process for it. In a group of its own, so that ^C does not end it. */
static pid_t start(char *mountpoint)
{
	char *const argv[] = {"foldfs", FLUSH_WORD, mountpoint, NULL};
	char *const nothing[] = {NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	pid_t pid = 0;

	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attributes, &none);
	if (posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, argv, nothing) != 0)
		pid = 0;
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return pid;
}

void flush_mount(char *mountpoint)
{
	const struct timespec step = {.tv_nsec = FLUSH_STEP_MS * 1000000L};
	pid_t pid = start(mountpoint);
	pid_t ended = 0;

	for (int waited = 0; pid && !ended && waited < FLUSH_MS; waited += FLUSH_STEP_MS) {
		ended = waitpid(pid, NULL, WNOHANG);
		if (!ended)
			nanosleep(&step, NULL);
	}
	/* What it waits for ends with the connection. */
	if (pid && !ended)
		kill(pid, SIGKILL);
}
