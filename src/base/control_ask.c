/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_ask.c - the question to a daemon; shared by foldfs and foldctl
 *
 * The control socket is found from the list of mounts. The mount itself is never touched, so a
 * stuck one can be asked about. Whatever the daemon does, within its time there is an answer or an
 * error. The identity of the answering process is checked as well: the socket of a plain user's
 * mount is in a directory of that user, and only that user, or root, may answer there.
 */
#include "foldfs/control_ask.h"

#include "foldfs/clock.h"
#include "foldfs/control_place.h"
#include "foldfs/proc_fd.h"

#include <errno.h>
#include <fcntl.h>
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
		      struct control_tried *tried)
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

int control_connect(const struct mount_entry *entry, int64_t deadline,
		    struct control_tried *ret_tried)
{
	int fd = -ENOENT;

	*ret_tried = (struct control_tried){0};
	for (unsigned index = 0; fd < 0 && index < CONTROL_PLACES; index++) {
		struct control_tried tried = {0};
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

pid_t control_peer(int fd)
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

errint_t control_converse(int fd, const char *request, int64_t answer_within_ms,
			  json_t **ret_answer)
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

char *control_request_of_words(const char *request, const char *const words[], bool check)
{
	json_t *list = json_array();
	char *text = NULL;
	char *line = NULL;
	json_t *root;
	bool complete = list != NULL;

	for (; complete && *words; words++)
		complete = json_array_append_new(list, json_string(*words)) == 0;
	if (!complete) {
		json_decref(list);
		return NULL;
	}
	root = json_pack("{s:s, s:b, s:o}", "request", request, "check", check, "words", list);
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}
