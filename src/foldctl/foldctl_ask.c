/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foldctl_ask.c - the question to a daemon
 *
 * foldctl asks over the control socket, which it finds from the list of mounts. It never touches
 * the mount itself, so it can look at a stuck one. Whatever the daemon does, within its time there
 * is an answer or an error. The identity of the answering process is checked as well: the socket of
 * a plain user's mount is in a directory of that user, and only that user, or root, may answer
 * there.
 */
#include "foldctl.h"

#include "foldfs/clock.h"
#include "foldfs/control_place.h"
#include "foldfs/proc_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MAX (1u << 20)
#define RETRY_MS   20

static errint_t wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = events};
	int ready;

	do {
		ready = poll(&pfd, 1, clock_left_ms(deadline));
	} while (ready < 0 && errno == EINTR);
	return ready > 0 ? 0 : ready == 0 ? -ETIMEDOUT : -errno;
}

/* If many clients ask at once, the daemon's queue may be full for a moment. */
static errint_t connect_patiently(int fd, const struct sockaddr_un *address, int64_t deadline)
{
	const struct timespec pause = {.tv_nsec = RETRY_MS * NS_PER_MS};

	while (connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0) {
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (clock_now_ms() >= deadline)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* Whether the process at FD is root's or OWNER's. */
static errint_t check_peer(int fd, uid_t owner)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
		return -errno;
	return peer.uid == 0 || peer.uid == owner ? 0 : -EPERM;
}

/* Connect to the socket that is open as OBJECT (O_PATH). A descriptor, or -errno. */
static int connect_object(int object, uid_t owner, int64_t deadline)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	errint_t error;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	proc_fd(address.sun_path, object);
	error = connect_patiently(fd, &address, deadline);
	if (!error)
		error = check_peer(fd, owner);
	if (error)
		close(fd);
	return error ? error : fd;
}

/* Connect to the socket of ENTRY in place number INDEX. */
static int connect_at(const struct mount_entry *entry, unsigned index, int64_t deadline,
		      struct socket_tried *tried)
{
	char name[MOUNT_SOCKET_NAME];
	struct control_place place;
	struct stat st;
	int object, fd;
	errint_t error = control_place_open(entry->owner, index, &place);

	/* A place that others could take over is not used. */
	if (error)
		return error == -EPERM ? -ENOENT : error;
	mount_socket_name(entry, name);
	object = openat(place.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	fd = object < 0 ? -errno : connect_object(object, entry->owner, deadline);
	if (object >= 0 && fstat(object, &st) == 0)
		tried->made = st.st_ctim;
	if (object >= 0)
		close(object);
	if (asprintf(&tried->path, "%s/%s", place.path, name) < 0)
		tried->path = NULL;
	control_place_clear(&place);
	return fd;
}

int connect_to_daemon(const struct mount_entry *entry, int64_t deadline,
		      struct socket_tried *ret_tried)
{
	int fd = -ENOENT;

	*ret_tried = (struct socket_tried){0};
	for (unsigned index = 0; fd < 0 && index < CONTROL_PLACES; index++) {
		struct socket_tried tried = {0};
		int found = connect_at(entry, index, deadline, &tried);

		/* A socket that does not answer tells more than one that is not there. */
		if (found != -ENOENT || !ret_tried->path) {
			fd = found != -ENOENT ? found : fd;
			free(ret_tried->path);
			*ret_tried = tried;
		} else {
			free(tried.path);
		}
	}
	return fd;
}

pid_t peer_of(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

static errint_t send_all(int fd, const char *text, int64_t deadline)
{
	while (*text) {
		ssize_t sent = send(fd, text, strlen(text), MSG_NOSIGNAL);
		errint_t error = 0;

		if (sent > 0)
			text += sent;
		else if (errno == EAGAIN)
			error = wait_for(fd, POLLOUT, deadline);
		else if (errno != EINTR)
			error = -errno;
		if (error)
			return error;
	}
	return 0;
}

/* Read until the connection ends. The number of bytes, or -errno. */
static ssize_t receive_all(int fd, char *buffer, size_t size, int64_t deadline)
{
	size_t length = 0;

	while (length < size) {
		errint_t error = wait_for(fd, POLLIN, deadline);
		ssize_t got;

		if (error)
			return error;
		got = recv(fd, buffer + length, size - length, 0);
		if (got == 0)
			return (ssize_t)length;
		if (got < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (got > 0)
			length += (size_t)got;
	}
	return -EMSGSIZE;
}

/* The daemon's answer to REQUEST over FD, within ANSWER_WITHIN_MS. -EBADMSG: it is no
 * JSON object. */
static errint_t converse(int fd, const char *request, int64_t answer_within_ms, json_t **ret_answer)
{
	int64_t deadline = clock_now_ms() + answer_within_ms;
	char *buffer = malloc(ANSWER_MAX);
	ssize_t length = buffer ? 0 : -ENOMEM;
	json_t *answer = NULL;

	if (length == 0)
		length = send_all(fd, request, deadline);
	/* A daemon that has given up sends the reason before it hangs up. */
	if (length == 0 || length == -EPIPE)
		length = receive_all(fd, buffer, ANSWER_MAX, deadline);
	if (length >= 0) {
		answer = json_loadb(buffer, (size_t)length, 0, NULL);
		length = json_is_object(answer) ? 0 : -EBADMSG;
	}
	free(buffer);
	if (length) {
		json_decref(answer);
		return (errint_t)length;
	}
	*ret_answer = answer;
	return 0;
}

static int explain_no_connection(const struct mount_entry *entry, const char *path, errint_t error)
{
	const char *mountpoint = entry->mountpoint;
	const char *socket = path ? path : "no socket";

	/* With -o subtype= the type of our mount is whatever the user chose. Only our mounts have
	 * the socket. */
	if (error == -ENOENT && strcmp(entry->type, "fuse.foldfs") != 0)
		return fail("%s is not a foldfs mount: it is %s.", mountpoint, entry->type);
	if (error == -ENOENT || error == -ECONNREFUSED)
		return fail("nobody answers for %s (%s: %s). Its daemon has ended, runs in another "
			    "container, or has its socket elsewhere (--control).",
			    mountpoint, socket, strerror(-error));
	if (error == -EACCES)
		return fail("only root and the owner of the mount %s may look at it.", mountpoint);
	if (error == -EPERM)
		return fail("a process of another user listens on %s: only root and the mount's "
			    "owner are believed.",
			    socket);
	return fail("cannot reach the daemon of %s over %s: %s.", mountpoint, socket,
		    strerror(-error));
}

int ask(const struct mount_entry *entry, const char *request, int64_t answer_within_ms,
	json_t **ret_answer)
{
	struct socket_tried tried;
	const char *refusal;
	json_t *answer = NULL;
	int fd, result;
	errint_t error;

	fd = connect_to_daemon(entry, clock_now_ms() + ANSWER_MS, &tried);
	result = fd < 0 ? explain_no_connection(entry, tried.path, fd) : EXIT_SUCCESS;
	free(tried.path);
	if (fd < 0)
		return result;
	error = converse(fd, request, answer_within_ms, &answer);
	close(fd);
	if (error == -ETIMEDOUT)
		return fail("the daemon of %s does not answer within %" PRId64 " seconds.",
			    entry->mountpoint, answer_within_ms / 1000);
	if (error)
		return fail("the daemon of %s gave an answer that makes no sense: %s.",
			    entry->mountpoint, strerror(-error));
	refusal = json_string_value(json_object_get(answer, "error"));
	if (!refusal) {
		*ret_answer = answer;
		return EXIT_SUCCESS;
	}
	result = fail("the daemon of %s refuses to answer: %s.", entry->mountpoint, refusal);
	json_decref(answer);
	return result;
}
