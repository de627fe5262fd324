/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foldctl_upgrade.c - foldctl upgrade: exchange the program that serves a mount
 *
 * The program goes to the keeper of the mount as a descriptor. So it is the caller's choice, by the
 * caller's rights, whatever a name leads to for somebody else.
 */
#include "foldctl.h"
#include "foldfs/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* An exchange waits 10 s for the old program, and the new one may have to wait for requests that
 * hang in the source. */
#define EXCHANGE_MS 120000
#define LINE_BYTES  1024u

/* A line of JSON from FD, within MILLISECONDS. NULL: none has come. */
static json_t *receive_line(int fd, int64_t milliseconds)
{
	int64_t deadline = clock_now_ms() + milliseconds;
	char line[LINE_BYTES];
	size_t length = 0;

	while (length < sizeof(line)) {
		struct pollfd ready = {.fd = fd, .events = POLLIN};
		int events = poll(&ready, 1, clock_left_ms(deadline));

		if (events < 0 && errno == EINTR)
			continue;
		if (events <= 0 || recv(fd, line + length, 1, 0) != 1)
			return NULL;
		if (line[length] == '\n')
			break;
		length++;
	}
	return json_loadb(line, length, 0, NULL);
}

/* Send PROGRAM, a descriptor. */
static bool send_program(int fd, int program)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	char byte = 0;
	struct iovec part = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &program, sizeof(program));
	return sendmsg(fd, &message, MSG_NOSIGNAL) == 1;
}

/* The file from which the process at the other end of FD was started; what is there now, if it was
 * replaced since. False: unknown. */
static bool running_program(int fd, char path[PATH_MAX])
{
	static const char deleted[] = " (deleted)";
	char link[64];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/%d/exe", control_peer(fd));
	length = readlink(link, path, PATH_MAX - 1);
	if (length < 0)
		return false;
	path[length] = '\0';
	length -= (ssize_t)strlen(deleted);
	if (length > 0 && strcmp(path + length, deleted) == 0)
		path[length] = '\0';
	return true;
}

/* Print the ANSWER to a request for an upgrade. */
static int print_outcome(const struct mount_entry *entry, const json_t *answer)
{
	const char *refused = json_string_value(json_object_get(answer, "refused"));
	const char *version = json_string_value(json_object_get(answer, "upgraded"));

	if (refused)
		return fail("%s is served as before: %s", entry->mountpoint, refused);
	if (!version)
		return fail("the daemon of %s gave an answer that makes no sense.",
			    entry->mountpoint);
	human_print_foreign(stdout, entry->mountpoint);
	printf(" is served by foldfs ");
	human_print_foreign(stdout, version);
	printf(" now.\n");
	return finish_output();
}

/* Exchange the program of ENTRY, to whose daemon FD leads, for the one that is open as PROGRAM. */
static int exchange(const struct mount_entry *entry, int fd, int program)
{
	static const char request[] = "{\"request\":\"upgrade\"}\n";
	json_t *answer = NULL;
	int result;

	if (send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request))
		answer = receive_line(fd, ANSWER_MS);
	if (json_object_get(answer, "send")) {
		json_decref(answer);
		answer = send_program(fd, program) ? receive_line(fd, EXCHANGE_MS) : NULL;
	}
	result = answer ? print_outcome(entry, answer)
			: fail("the daemon of %s does not say what has come of it.",
			       entry->mountpoint);
	json_decref(answer);
	return result;
}

static int upgrade(const struct mount_entry *entry, const char *program)
{
	char running[PATH_MAX];
	int fd = connect_to(entry);
	int result, file;

	if (fd < 0)
		return EXIT_FAILURE;
	if (!program && running_program(fd, running))
		program = running;
	file = program ? open(program, O_RDONLY | O_CLOEXEC) : -1;
	if (!program)
		result = fail("which program serves %s is not known here: name one.",
			      entry->mountpoint);
	else if (file < 0)
		result = fail("cannot open the program %s: %s.", program, strerror(errno));
	else
		result = exchange(entry, fd, file);
	if (file >= 0)
		close(file);
	close(fd);
	return result;
}

int command_upgrade(char *argv[])
{
	struct mount_entry entry;
	int result;

	if (!argv[0] || argv[0][0] == '-')
		return fail("upgrade needs a MOUNTPOINT.");
	if (argv[1] && argv[2])
		return fail("'%s' is one argument too many.", argv[2]);
	result = find_mount(argv[0], &entry);
	if (result)
		return result;
	result = upgrade(&entry, argv[1]);
	mount_entry_clear(&entry);
	return result;
}
