/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.c - the control socket: answers foldctl, also when the mount is stuck
 *
 * Invariants:
 * A  One thread serves one connection at a time. Reading the request and writing the answer have
 *    one deadline each, which counts from when they begin and not from the last byte. So whatever a
 *    client does, it holds up the next one for twice CLIENT_MS at most. If no other client waits,
 *    the thread waits longer for a client that is slow to send its request (on an overloaded
 *    machine).
 * B  The input is bounded (CONTROL_REQUEST_MAX) before it is parsed, and is never sent back: an
 *    answer is valid JSON whatever the request was.
 * C  The kernel tells who asks (SO_PEERCRED), and that decides who may, besides the socket's mode.
 * D  The thread takes no lock of the request path and never touches the mount.
 * E  A request that takes such locks or much time (an audit) is answered by a thread of its own,
 *    which owns its client's connection from then on. There is at most one such thread of each
 *    kind; a second request is refused. The thread gives up when its client goes away or the daemon
 *    ends.
 *
 * The socket's name is the mount's device number, which no two mounts have at the same time. So a
 * socket that exists when we bind is left over from a daemon that was killed. The number may be
 * given out again before our end, so the socket is removed only if it is still the one that we
 * made.
 */
#include "control.h"

#include "foldfs/clock.h"
#include "foldfs/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENT_MS 1000
#define ALONE_MS  30000
#define BACKLOG   16
/* How long to wait for descriptors to become free when accept() finds none. */
#define ACCEPT_RETRY_MS 100

/* A request that is answered by a thread of its own. */
struct task {
	struct control *control; /* constant */
	pthread_t thread;        /* the control thread's; after its end the main thread's */
	bool started;            /* owned in the same way: there is a thread to join */
	atomic_bool running;     /* set by the control thread, cleared by the task's at its end */
	int fd;                  /* the client's connection; the task thread's while running */
	uid_t uid;               /* who asks; the same */
	json_t *request;         /* the same */
	control_answer_fn *fn;   /* the same */
};

/* Everything is constant from control_start() to control_stop(), except the tasks; see their
 * comments. */
struct control {
	const struct control_request *requests; /* borrowed, like their context */
	void *context;
	int directory; /* of the socket; owned */
	char name[MOUNT_SOCKET_NAME];
	int listener;
	int stop; /* an eventfd, readable once the thread is to end */
	dev_t device;
	ino_t inode; /* of the socket that this daemon made; 0: none is to be removed */
	pthread_t thread;
	bool started;
	struct task tasks[CONTROL_REQUESTS_MAX]; /* by the index of their request */
};

static json_t *error_answer(const char *text)
{
	return json_pack("{s:s}", "error", text);
}

static json_t *unknown_answer(const struct control_request requests[])
{
	char known[128] = "";
	size_t length = 0;

	for (; requests->name && length < sizeof(known); requests++)
		length += (size_t)snprintf(known + length, sizeof(known) - length, "%s%s",
					   length ? ", " : "", requests->name);
	return json_pack("{s:s+}", "error", "the request is unknown; known ones are ", known);
}

/* Find which of REQUESTS the TEXT is. *ret_request is its JSON, which is the caller's. NULL: it is
 * no request, and *ret_answer says why. */
static const struct control_request *parse(const struct control_request requests[],
					   const char *text, size_t length, json_t **ret_request,
					   json_t **ret_answer)
{
	json_t *request = length <= CONTROL_REQUEST_MAX
				  ? json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL)
				  : NULL;
	const char *name = json_string_value(json_object_get(request, "request"));

	for (const struct control_request *one = requests; name && one->name; one++) {
		if (strcmp(name, one->name) == 0) {
			*ret_request = request;
			return one;
		}
	}
	if (length > CONTROL_REQUEST_MAX)
		*ret_answer = error_answer("the request is longer than 4096 bytes");
	else if (!json_is_object(request))
		*ret_answer = error_answer("the request is not a JSON object");
	else if (!name)
		*ret_answer = error_answer("the request has no string \"request\"");
	else
		*ret_answer = unknown_answer(requests);
	json_decref(request);
	return NULL;
}

static bool never(void *asker)
{
	(void)asker;
	return false;
}

json_t *control_answer(const struct control_request requests[], void *context, const char *text,
		       size_t length)
{
	const struct control_request *kind;
	json_t *request, *answer;

	kind = parse(requests, text, length, &request, &answer);
	if (!kind)
		return answer;
	answer = kind->answer ? kind->answer(context, request, never, NULL)
			      : error_answer("the request needs a connection");
	json_decref(request);
	return answer;
}

/* Wait until FD has EVENTS. 0; -ETIMEDOUT after DEADLINE, or as soon as somebody connects to
 * LISTENER (-1: ignore connections); -ECANCELED if the thread is to end. */
static errint_t wait_while_alone(const struct control *control, int fd, short events,
				 int64_t deadline, int listener)
{
	struct pollfd fds[] = {{.fd = fd, .events = events},
			       {.fd = control->stop, .events = POLLIN},
			       {.fd = listener, .events = POLLIN}};

	for (;;) {
		int ready = poll(fds, 3, clock_left_ms(deadline));

		if (ready < 0 && errno != EINTR)
			return -errno;
		if (ready > 0 && fds[1].revents)
			return -ECANCELED;
		if (ready > 0)
			return fds[0].revents ? 0 : -ETIMEDOUT;
		if (ready == 0)
			return -ETIMEDOUT;
	}
}

static errint_t wait_for(const struct control *control, int fd, short events, int64_t deadline)
{
	return wait_while_alone(control, fd, events, deadline, -1);
}

/* Wait for bytes of a request. Reading it began at START. */
static errint_t wait_for_request(const struct control *control, int fd, int64_t start)
{
	errint_t error = wait_for(control, fd, POLLIN, start + CLIENT_MS);

	if (error != -ETIMEDOUT)
		return error;
	return wait_while_alone(control, fd, POLLIN, start + ALONE_MS, control->listener);
}

/* Read up to a newline into BUFFER of CONTROL_REQUEST_MAX bytes. Returns the number of bytes before
 * the newline; -ETIMEDOUT, -EMSGSIZE, -ENODATA (the client stopped sending before a newline),
 * -ECANCELED or another -errno. */
static ssize_t read_request(const struct control *control, int fd, char *buffer)
{
	int64_t start = clock_now_ms();
	size_t length = 0;

	while (length < CONTROL_REQUEST_MAX) {
		errint_t error = wait_for_request(control, fd, start);
		const char *newline;
		ssize_t got;

		if (error)
			return error;
		got = recv(fd, buffer + length, CONTROL_REQUEST_MAX - length, 0);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -ENODATA;
		newline = memchr(buffer + length, '\n', (size_t)got);
		if (newline)
			return newline - buffer;
		length += (size_t)got;
	}
	return -EMSGSIZE;
}

/* Best effort: a client that does not read its answer loses the rest of it. */
static void write_all(const struct control *control, int fd, const char *text, size_t length)
{
	int64_t deadline = clock_now_ms() + CLIENT_MS;

	while (length > 0 && wait_for(control, fd, POLLOUT, deadline) == 0) {
		ssize_t sent = send(fd, text, length, MSG_NOSIGNAL);

		if (sent < 0 && errno != EAGAIN && errno != EINTR)
			return;
		if (sent > 0) {
			text += sent;
			length -= (size_t)sent;
		}
	}
}

/* Takes over ANSWER; if it is NULL (no memory), the client still gets an answer. */
static void send_answer(const struct control *control, int fd, json_t *answer)
{
	static const char no_memory[] = "{\"error\":\"the daemon is short of memory\"}";
	char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	const char *line = text ? text : no_memory;

	write_all(control, fd, line, strlen(line));
	write_all(control, fd, "\n", 1);
	free(text);
	json_decref(answer);
}

static bool may_ask(int fd, uid_t *ret_uid)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
		return false;
	*ret_uid = peer.uid;
	return peer.uid == 0 || peer.uid == geteuid();
}

uid_t control_asker_uid(const void *asker)
{
	const struct task *task = asker;

	return task ? task->uid : geteuid();
}

/* ---- requests with a thread of their own ---- */

/* The daemon is ending, or the client has hung up. Further input from the client is ignored. */
static bool is_cancelled(void *arg)
{
	const struct task *task = arg;
	struct pollfd fds[] = {{.fd = task->fd}, {.fd = task->control->stop, .events = POLLIN}};

	return poll(fds, 2, 0) > 0 && ((fds[0].revents & (POLLHUP | POLLERR)) || fds[1].revents);
}

static void *run_task(void *arg)
{
	struct task *task = arg;
	int fd = task->fd;

	send_answer(task->control, fd,
		    task->fn(task->control->context, task->request, is_cancelled, task));
	json_decref(task->request);
	/* Before the close: a client that has seen the end of the connection can then ask again. */
	atomic_store(&task->running, false);
	close(fd);
	return NULL;
}

/* Have TASK answer, by FN, the REQUEST of the client at FD, who is UID. Takes over FD if it
 * succeeds, and REQUEST in any case. False: the request was refused. */
static bool begin_task(struct task *task, control_answer_fn *fn, int fd, uid_t uid, json_t *request)
{
	const char *problem = "another request of this kind is under way";

	if (!atomic_load(&task->running)) {
		if (task->started)
			pthread_join(task->thread, NULL);
		task->fd = fd;
		task->uid = uid;
		task->request = request;
		task->fn = fn;
		atomic_store(&task->running, true);
		task->started = pthread_create(&task->thread, NULL, run_task, task) == 0;
		if (task->started)
			return true;
		atomic_store(&task->running, false);
		problem = "the daemon cannot start a thread for it";
	}
	json_decref(request);
	send_answer(task->control, fd, error_answer(problem));
	return false;
}

/* ---- clients ---- */

/* Answer TEXT of UID's. Returns whether the connection is still the caller's, to close. */
static bool answer_request(struct control *control, int fd, uid_t uid, const char *text,
			   size_t length)
{
	const struct control_request *kind;
	json_t *request, *answer;

	kind = parse(control->requests, text, length, &request, &answer);
	if (kind && kind->own_thread)
		return !begin_task(&control->tasks[kind - control->requests], kind->answer, fd, uid,
				   request);
	if (kind && kind->take) {
		const char *problem = kind->take(control->context, fd);

		json_decref(request);
		if (!problem)
			return false;
		answer = json_pack("{s:s}", "refused", problem);
	} else if (kind) {
		answer = kind->answer(control->context, request, never, NULL);
		json_decref(request);
	}
	send_answer(control, fd, answer);
	return true;
}

/* Answer the client at FD. Returns whether the connection is still the caller's, to close. */
static bool serve_client(struct control *control, int fd)
{
	char buffer[CONTROL_REQUEST_MAX];
	ssize_t length;
	uid_t uid;

	if (!may_ask(fd, &uid)) {
		send_answer(control, fd, error_answer("only root and the mount's owner may ask"));
		return true;
	}
	length = read_request(control, fd, buffer);
	if (length >= 0)
		return answer_request(control, fd, uid, buffer, (size_t)length);
	if (length == -EMSGSIZE)
		send_answer(control, fd, error_answer("the request is longer than 4096 bytes"));
	else if (length == -ENODATA)
		send_answer(control, fd, error_answer("the request does not end in a newline"));
	else if (length == -ETIMEDOUT)
		send_answer(control, fd, error_answer("the request did not arrive in time"));
	return true;
}

static void *serve(void *arg)
{
	struct control *control = arg;

	while (wait_for(control, control->listener, POLLIN, INT64_MAX) != -ECANCELED) {
		int fd = accept4(control->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			if (serve_client(control, fd))
				close(fd);
		} else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
			wait_for(control, -1, 0, clock_now_ms() + ACCEPT_RETRY_MS);
		}
	}
	return NULL;
}

/* Daemons take turns in the socket's directory, so that none removes a name between another one's
 * check and its use. If no turn can be had, this works as well as long as no other daemon is
 * there. */
static void begin_turn(const struct control *control)
{
	(void)TEMP_FAILURE_RETRY(flock(control->directory, LOCK_EX));
}

static void end_turn(const struct control *control)
{
	(void)flock(control->directory, LOCK_UN);
}

static errint_t remove_stale(const struct control *control)
{
	struct stat st;

	if (fstatat(control->directory, control->name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	return unlinkat(control->directory, control->name, 0) == 0 ? 0 : -errno;
}

static errint_t bind_socket(struct control *control)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;

	/* Go by the descriptor, whatever the directory's name leads to now. */
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s",
		 control->directory, control->name);
	/* The mode is set before the name exists, so there is no moment at which others could
	 * connect. */
	if (fchmod(control->listener, 0600) != 0 ||
	    bind(control->listener, (struct sockaddr *)&address, sizeof(address)) != 0)
		return -errno;
	if (fstatat(control->directory, control->name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
	    fchmodat(control->directory, control->name, 0600, 0) != 0 ||
	    listen(control->listener, BACKLOG) != 0) {
		errint_t error = -errno;

		unlinkat(control->directory, control->name, 0);
		return error;
	}
	control->device = st.st_dev;
	control->inode = st.st_ino;
	return 0;
}

/* Bind the socket, and replace one that a killed daemon may have left. */
static errint_t take_name(struct control *control)
{
	errint_t error;

	begin_turn(control);
	error = remove_stale(control);
	if (!error)
		error = bind_socket(control);
	end_turn(control);
	return error;
}

errint_t control_new(int directory, const char *name, const struct control_request requests[],
		     void *context, struct control **ret_control)
{
	struct control *control = calloc(1, sizeof(*control));
	errint_t error = 0;

	if (!control)
		return -ENOMEM;
	control->requests = requests;
	control->context = context;
	for (unsigned i = 0; i < CONTROL_REQUESTS_MAX; i++)
		control->tasks[i].control = control;
	control->listener = control->stop = -1;
	control->directory = fcntl(directory, F_DUPFD_CLOEXEC, 0);
	if (control->directory < 0)
		error = -errno;
	else if (snprintf(control->name, sizeof(control->name), "%s", name) >=
		 (int)sizeof(control->name))
		error = -ENAMETOOLONG;
	if (!error) {
		control->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		control->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (control->listener < 0 || control->stop < 0)
			error = -errno;
	}
	if (!error)
		error = take_name(control);
	if (error)
		control_free(control);
	else
		*ret_control = control;
	return error;
}

errint_t control_start(struct control *control)
{
	sigset_t all, before;
	errint_t error;

	/* Signals are for the thread that waits for them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = -pthread_create(&control->thread, NULL, serve, control);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	control->started = error == 0;
	return error;
}

/* Remove the socket, if the one under its name is still ours. */
static void remove_own(const struct control *control)
{
	struct stat st;

	begin_turn(control);
	if (fstatat(control->directory, control->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_dev == control->device && st.st_ino == control->inode)
		unlinkat(control->directory, control->name, 0);
	end_turn(control);
}

void control_end(struct control *control)
{
	if (control && control->started)
		eventfd_write(control->stop, 1);
}

void control_stop(struct control *control)
{
	if (!control)
		return;
	control_end(control);
	if (control->started)
		pthread_join(control->thread, NULL);
	control->started = false;
	for (unsigned i = 0; i < CONTROL_REQUESTS_MAX; i++) {
		if (control->tasks[i].started)
			pthread_join(control->tasks[i].thread, NULL);
		control->tasks[i].started = false;
	}
	if (control->listener >= 0)
		close(control->listener);
	control->listener = -1;
}

void control_keep_name(struct control *control)
{
	if (control)
		control->inode = 0;
}

void control_free(struct control *control)
{
	if (!control)
		return;
	control_stop(control);
	if (control->inode)
		remove_own(control);
	if (control->stop >= 0)
		close(control->stop);
	if (control->directory >= 0)
		close(control->directory);
	free(control);
}
