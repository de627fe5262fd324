/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_answer.c - libFuzzer target: foldctl, run by root, in front of a hostile daemon
 *
 * All of foldctl runs, with its main() under another name, against a socket that answers with the
 * input. The daemon of a plain user's mount belongs to that user. So whatever it answers, foldctl
 * must end with one of its statuses, report why it failed, and send no control character to the
 * terminal. The first byte of the input chooses the command.
 */
#include "foldctl_main.h"
#include "foldfs/control_place.h"
#include "foldfs/mountinfo.h"
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FILE_THERE "/proc/self/exe"
#define COMMANDS   (sizeof(commands) / sizeof(commands[0]))
#define MINOR      42u

static const struct command {
	const char *name;
	const char *where; /* NULL: it takes none */
	bool as_json;
} commands[] = {
	{"status", "/m", false}, {"status", "/m", true},         {"audit", "/m", false},
	{"audit", "/m", true},   {"explain", FILE_THERE, false}, {"explain", FILE_THERE, true},
	{"list", NULL, false},   {"list", NULL, true},           {"set", "/m", false},
	{"set", "/m", true},
};

/* The input at work. One thread. */
static const uint8_t *answer;
static size_t answer_size;
/* The daemon's end of the connection, open until foldctl is done; -1: there is none. */
static int daemon_end = -1;
/* The directory of the socket. */
static char place[] = "/tmp/fuzz-answer-XXXXXX";

errint_t __wrap_mount_entries_visit(const char *file,
				    void (*visit)(void *context, const struct mount_entry *entry),
				    void *context);
errint_t __wrap_mount_entry_find(const char *path, struct mount_entry *ret_entry);
errint_t __wrap_mount_entry_find_again(const struct mount_entry *like, bool any,
				       struct mount_entry *ret_entry);
errint_t __wrap_mount_entry_of_fd(int fd, struct mount_entry *ret_entry);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);

/* The one mount there is, with PATH as its mount point. Its texts are borrowed. */
static struct mount_entry entry_at(const char *path)
{
	return (struct mount_entry){
		.device_minor = MINOR,
		.owner = geteuid(),
		.root = (char *)"/",
		.source = (char *)"/source",
		.mountpoint = (char *)path,
		.type = (char *)"fuse.foldfs",
		.options = (char *)"rw",
		.super_options = (char *)"rw",
	};
}

errint_t __wrap_mount_entries_visit(const char *file,
				    void (*visit)(void *context, const struct mount_entry *entry),
				    void *context)
{
	struct mount_entry entry = entry_at("/m");

	(void)file;
	visit(context, &entry);
	return 0;
}

errint_t __wrap_mount_entry_find(const char *path, struct mount_entry *ret_entry)
{
	struct mount_entry entry = entry_at(path);

	expect(mount_entry_copy(&entry, ret_entry) == 0);
	return 0;
}

errint_t __wrap_mount_entry_find_again(const struct mount_entry *like, bool any,
				       struct mount_entry *ret_entry)
{
	(void)any;
	return __wrap_mount_entry_find(like->mountpoint, ret_entry);
}

errint_t __wrap_mount_entry_of_fd(int fd, struct mount_entry *ret_entry)
{
	(void)fd;
	return __wrap_mount_entry_find("/m", ret_entry);
}

static void remove_place(void)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/0:%u.sock", place, MINOR);
	unlink(path);
	rmdir(place);
}

/* FD becomes one end of a pair whose other end has said all that it will. */
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
	int pair[2], flags = fcntl(fd, F_GETFL);

	(void)address;
	(void)size;
	expect(daemon_end == -1);
	expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	if (answer_size > 0)
		expect(send(pair[1], answer, answer_size, MSG_DONTWAIT) == (ssize_t)answer_size);
	expect(shutdown(pair[1], SHUT_WR) == 0);
	expect(dup3(pair[0], fd, O_CLOEXEC) == fd && fcntl(fd, F_SETFL, flags) == 0);
	close(pair[0]);
	daemon_end = pair[1];
	return 0;
}

/* No control characters but newlines; those from U+0080 to U+009F are two bytes each. */
static bool is_harmless(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i], next = (unsigned char)text[i + 1];

		if ((c < 0x20 && c != '\n') || c == 0x7f)
			return false;
		if (c == 0xc2 && next >= 0x80 && next <= 0x9f)
			return false;
	}
	return true;
}

static void check(const struct command *command, int result, const char *out, const char *error)
{
	json_t *again;
	bool is_audit = strcmp(command->name, "audit") == 0;

	expect(result >= 0 && result <= 2);
	expect(is_harmless(error, strlen(error)));
	expect(*error ? result != 0 : *out != '\0');
	if (!command->as_json) {
		expect(is_harmless(out, strlen(out)));
	} else if (!*error) {
		again = json_loads(out, 0, NULL);
		expect(json_is_object(again));
		/* "All is well" is what the daemon said, never what it left out. */
		if (is_audit)
			expect(json_is_integer(json_object_get(again, "differences")) &&
			       !json_integer_value(json_object_get(again, "differences")) ==
				       !result);
		json_decref(again);
	}
}

/* foldctl opens the socket by its name before it connects. What is there does not matter, because
 * connect() is ours. Runs before main(), and so without the filter. */
__attribute__((constructor)) static void make_place(void)
{
	char path[PATH_MAX];
	int fd;

	expect(mkdtemp(place) != NULL);
	snprintf(path, sizeof(path), "%s/0:%u.sock", place, MINOR);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	expect(fd >= 0 && close(fd) == 0);
	expect(setenv(CONTROL_PLACE_VARIABLE, place, true) == 0);
	atexit(remove_place);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct command *command = &commands[size ? data[0] % COMMANDS : 0];
	char *argv[] = {"foldctl", (char *)command->name, NULL, NULL, NULL};
	int argc = 2;
	FILE *real_out = stdout, *real_err = stderr;
	size_t out_size, err_size;
	char *out, *error;
	int result;

	if (!size)
		return 0;
	if (command->where)
		argv[argc++] = (char *)command->where;
	if (command->as_json)
		argv[argc++] = (char *)"--json";
	answer = data + 1;
	answer_size = size - 1;
	stdout = open_memstream(&out, &out_size);
	stderr = open_memstream(&error, &err_size);
	expect(stdout && stderr);
	result = foldctl_main(argc, argv);
	expect(fclose(stdout) == 0 && fclose(stderr) == 0);
	stdout = real_out;
	stderr = real_err;
	if (daemon_end >= 0)
		close(daemon_end);
	daemon_end = -1;
	check(command, result, out, error);
	free(out);
	free(error);
	return 0;
}
