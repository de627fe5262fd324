/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl_ask.c - which mount is meant, and what is said if its daemon does not answer */
#include "foldctl.h"
#include "foldfs/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

int connect_to(const struct mount_entry *entry)
{
	struct control_tried tried;
	int fd = control_connect(entry, clock_now_ms() + ANSWER_MS, &tried);

	if (fd < 0)
		explain_no_connection(entry, tried.path, fd);
	free(tried.path);
	return fd;
}

int ask(const struct mount_entry *entry, const char *request, int64_t answer_within_ms,
	json_t **ret_answer)
{
	int fd = connect_to(entry);
	const char *refusal;
	json_t *answer = NULL;
	errint_t error;
	int result;

	if (fd < 0)
		return EXIT_FAILURE;
	error = control_converse(fd, request, answer_within_ms, &answer);
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
