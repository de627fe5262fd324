/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c - another program takes the place of the one that serves a mount: foldctl upgrade */
#include "exchange.h"

#include "foldfs/clock.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* How long a client may take to send its program, and a program to say what it is. */
#define CLIENT_MS 2000
#define TRY_MS    10000
/* How long a new program may take until it serves. */
#define GUARD_MS 90000
#define END_MS   10000
#define LOOK_MS  10

extern char **environ;

/* ---- the client ---- */

/* Tell the client, and let go of it. */
__attribute__((format(printf, 2, 3))) static void tell(struct session *session, const char *format,
						       ...)
{
	int client = atomic_exchange(&session->client, -1);
	va_list args;

	if (client < 0)
		return;
	va_start(args, format);
	(void)vdprintf(client, format, args);
	va_end(args);
	close(client);
}

static errint_t refuse(struct session *session, const char *why)
{
	tell(session, "{\"refused\":\"%s\"}\n", why);
	return -EINVAL;
}

errint_t exchange_ask(struct session *session, int fd)
{
	int none = -1;

	if (!session || !session->survives)
		return -ENOTSUP;
	if (session->memory_of_it < 0)
		return -EFBIG;
	if (!atomic_compare_exchange_strong(&session->client, &none, fd))
		return -EBUSY;
	return eventfd_write(handover_of(session)->bell, 1) ? -errno : 0;
}

/* Whether the client is root or the daemon's user, and a process of its own. */
static bool may_ask(int client, pid_t worker)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       (peer.uid == 0 || peer.uid == geteuid()) && peer.pid != worker &&
	       peer.pid != getpid();
}

static bool is_ready(int fd, int milliseconds)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};

	return TEMP_FAILURE_RETRY(poll(&ready, 1, milliseconds)) > 0;
}

/* The descriptor that the client sends; -1: it sends none. */
static int receive_program(int client)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec part = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	const struct cmsghdr *header;
	int fd = -1;

	if (dprintf(client, "{\"send\":\"program\"}\n") < 0 || !is_ready(client, CLIENT_MS) ||
	    recvmsg(client, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1)
		return -1;
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
	    header->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

/* ---- the program ---- */

/* In a child: have the program say what it is. */
static _Noreturn void ask_program(int program, int output)
{
	char name[] = "foldfs", option[] = "--session-format";
	char *arguments[] = {name, option, NULL};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (null >= 0 && dup2(null, STDERR_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0)
		execveat(program, "", arguments, environ, AT_EMPTY_PATH);
	_exit(127);
}

/* What the program says, until it ends; "" if it does not end in time. */
static void read_answer(int fd, pid_t child, char *text, size_t size)
{
	int64_t deadline = clock_now_ms() + TRY_MS;
	size_t length = 0;
	ssize_t got = 1;
	int status = 0;

	while (got > 0 && length < size - 1) {
		got = is_ready(fd, clock_left_ms(deadline))
			      ? read(fd, text + length, size - 1 - length)
			      : -1;
		length += got > 0 ? (size_t)got : 0;
	}
	if (got < 0)
		(void)kill(child, SIGKILL);
	TEMP_FAILURE_RETRY(waitpid(child, &status, 0));
	text[got < 0 || !WIFEXITED(status) || WEXITSTATUS(status) ? 0 : length] = '\0';
}

/* Whether PROGRAM runs here, and knows the records of this one. NULL: it does. */
static const char *problem_of(int program, const struct session *session)
{
	char text[SESSION_FORMAT_BYTES + 2] = "", expected[SESSION_FORMAT_BYTES + 2];
	struct stat st;
	int ends[2];
	pid_t child;

	if (fstat(program, &st) || !S_ISREG(st.st_mode))
		return "the program is not a file.";
	if (pipe2(ends, O_CLOEXEC))
		return "the keeper cannot make a pipe.";
	child = fork();
	if (child == 0)
		ask_program(program, ends[1]);
	close(ends[1]);
	if (child > 0)
		read_answer(ends[0], child, text, sizeof(text));
	close(ends[0]);
	if (child < 0)
		return "the keeper cannot start a process.";
	snprintf(expected, sizeof(expected), "%s\n", session->format);
	if (!*text)
		return "the program does not run, or is no foldfs that can take over.";
	return strcmp(text, expected) == 0
		       ? NULL
		       : "the program keeps its records in another form: it needs a new mount.";
}

errint_t exchange_accept(struct session *session, pid_t worker)
{
	struct handover *handover = handover_of(session);
	int client = atomic_load(&session->client);
	const char *problem;
	int program;

	if (client < 0)
		return -EINVAL;
	if (!may_ask(client, worker))
		return refuse(session, "only root and the mount's owner may do that.");
	if (handover->program < 0)
		return refuse(session,
			      "there would be no way back: /proc was not there at the mount.");
	program = receive_program(client);
	if (program < 0)
		return refuse(session, "the client has sent no program.");
	problem = problem_of(program, session);
	if (problem) {
		close(program);
		return refuse(session, problem);
	}
	handover->previous = handover->program;
	handover->program = program;
	handover->problem[0] = '\0';
	return 0;
}

/* ---- to become it ---- */

/* Have all descriptors outlive an exec. Those of nobody are closed by the next worker. */
static errint_t keep_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	const struct dirent *entry;

	if (!directory)
		return -errno;
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
			(void)fcntl(atoi(entry->d_name), F_SETFD, 0);
	closedir(directory);
	return 0;
}

/* Become handover->program. Returns -errno. */
static errint_t become(const struct session *session, int program, char *argv[])
{
	errint_t error = keep_descriptors();
	char number[16];

	snprintf(number, sizeof(number), "%d", session->memory_of_it);
	if (!error && setenv(HANDOVER_VARIABLE, number, true))
		error = -ENOMEM;
	if (!error) {
		fflush(NULL);
		execveat(program, "", argv, environ, AT_EMPTY_PATH);
		error = -errno;
	}
	unsetenv(HANDOVER_VARIABLE);
	(void)close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
	return error;
}

/* The new program does not serve, and the calling one goes on. */
static void take_back(struct session *session)
{
	struct handover *handover = handover_of(session);

	close(handover->program);
	handover->program = handover->previous;
	handover->previous = -1;
}

/* ---- the guard ---- */

/*
 * A program that passes the try may still end before it can do anything. Then nobody would be left
 * with the connection. So a copy of the old keeper stays until the new program serves, and has all
 * descriptors meanwhile. If the new program ends, or does not serve in time, the copy goes on.
 */

/* Have a worker of the new program end, if there is one. It serves nobody. One that hangs is left to
 * its end: it has done nothing that another one could come in the way of. */
static void end_worker(const struct session *session)
{
	pid_t thread = (pid_t)atomic_load(&session->thread);
	const struct timespec pause = {.tv_nsec = LOOK_MS * NS_PER_MS};
	int64_t deadline = clock_now_ms() + END_MS;

	while (thread && kill(thread, SIGKILL) == 0 && clock_now_ms() < deadline)
		nanosleep(&pause, NULL);
}

/* In the guard: wait until the new program, process KEEPER, serves, and end; or return once it is
 * clear that it never will. */
static void guard(struct session *session, pid_t keeper)
{
	int64_t deadline = clock_now_ms() + GUARD_MS;
	const struct timespec pause = {.tv_nsec = LOOK_MS * NS_PER_MS};

	while (getppid() == keeper && clock_now_ms() < deadline) {
		if (!exchange_is_open(session))
			_exit(EXIT_SUCCESS);
		nanosleep(&pause, NULL);
	}
	if (!exchange_is_open(session))
		_exit(EXIT_SUCCESS);
	(void)kill(keeper, SIGKILL);
	end_worker(session);
}

void exchange_run(struct session *session, char *argv[])
{
	pid_t keeper = getpid();
	errint_t error;
	pid_t child;

	/* The old worker has ended, and somebody else may get the number of its thread. */
	atomic_store(&session->thread, 0);
	child = fork();
	if (child == 0) {
		guard(session, keeper);
		take_back(session);
		complain("the new program has ended before it served. The old one goes on.");
		tell(session, "{\"refused\":\"the program has ended before it served.\"}\n");
		sd_notifyf(0, "MAINPID=%d", getpid());
		return;
	}
	error = child < 0 ? -errno : become(session, handover_of(session)->program, argv);
	take_back(session);
	if (child > 0)
		TEMP_FAILURE_RETRY(waitpid(child, NULL, 0));
	complain("cannot run the new program: %s. The old one goes on.", strerror(-error));
	tell(session, "{\"refused\":\"the program cannot be run: %s.\"}\n", strerror(-error));
}

bool exchange_is_open(struct session *session)
{
	return handover_of(session)->previous >= 0;
}

void exchange_served(struct session *session)
{
	struct handover *handover = handover_of(session);

	if (*handover->problem) {
		tell(session, "{\"refused\":\"%s\"}\n", handover->problem);
		handover->problem[0] = '\0';
		return;
	}
	if (handover->previous < 0)
		return;
	close(handover->previous);
	handover->previous = -1;
	atomic_fetch_add(&session->exchanges, 1);
	tell(session, "{\"upgraded\":\"%s\"}\n", FOLDFS_VERSION);
}

void exchange_undo(struct session *session, char *argv[], const char *problem)
{
	struct handover *handover = handover_of(session);

	complain("%s The program before goes on.", problem);
	take_back(session);
	snprintf(handover->problem, sizeof(handover->problem), "%s", problem);
	complain("cannot run the program before: %s.",
		 strerror(-become(session, handover->program, argv)));
}
