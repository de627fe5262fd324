/* SPDX-License-Identifier: Apache-2.0 */
/* watchdog.c - whether a worker has stopped answering: for keeper.c */
#include "watchdog.h"

#include "foldfs/clock.h"
#include "foldfs/privileges.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Looks within the limit. A worker that is only busy shows progress at one of them. */
#define LOOKS 8
/* How long the source may take to answer. */
#define SOURCE_MS 5000
#define PAUSE_MS  10

int watchdog_period_ms(const struct watchdog *watchdog)
{
	int64_t period = watchdog->limit_ms / LOOKS;

	if (!watchdog->limit_ms)
		return -1;
	return period < 1 ? 1 : period > 60000 ? 60000 : (int)period;
}

static bool has_unread(const struct session *session)
{
	struct pollfd device = {.fd = session->device, .events = POLLIN};

	return poll(&device, 1, 0) > 0 && device.revents == POLLIN;
}

/* Whether a debugger holds PID. */
static bool is_traced(pid_t pid)
{
	static const char key[] = "TracerPid:\t";
	char path[32], line[128];
	bool traced = false;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "re");
	while (status && !traced && fgets(line, sizeof(line), status))
		traced = strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] != '0';
	if (status)
		fclose(status);
	return traced;
}

/* In a child, which may have to wait for ever. */
static _Noreturn void ask_source(int source)
{
	struct statfs st;

	privileges_keep_file(source);
	_exit(fstatfs(source, &st) == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

/* Whether the source answers. */
static bool source_answers(int source)
{
	const struct timespec pause = {.tv_nsec = PAUSE_MS * NS_PER_MS};
	int64_t deadline = clock_now_ms() + SOURCE_MS;
	pid_t child = fork(), ended = 0;
	int status = 0;

	if (child == 0)
		ask_source(source);
	while (child > 0 && !ended && clock_now_ms() < deadline) {
		nanosleep(&pause, NULL);
		ended = waitpid(child, &status, WNOHANG);
	}
	/* One that hangs is reaped by the keeper when it ends. */
	if (child > 0 && !ended)
		(void)kill(child, SIGKILL);
	return ended > 0 && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

bool watchdog_look(struct watchdog *watchdog, struct session *session, pid_t pid, int source)
{
	uint64_t progress = session_progress(session);
	int64_t now = clock_now_ms();

	if (!has_unread(session)) {
		watchdog->since_ms = 0;
		return false;
	}
	if (!watchdog->since_ms || progress != watchdog->progress) {
		watchdog->since_ms = now;
		watchdog->progress = progress;
		return false;
	}
	if (now - watchdog->since_ms < watchdog->limit_ms)
		return false;
	/* Whatever comes of it, the next answer is due after the same time. */
	watchdog->since_ms = 0;
	return !is_traced(pid) && source_answers(source);
}
