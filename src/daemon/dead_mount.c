/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dead_mount.c - whether a FUSE mount is dead, and its removal
 *
 * A process that asks a mount may wait for ever, in a state in which even SIGKILL does not help. So
 * a child asks, and is abandoned if it takes too long. The child holds nothing but its end of a
 * pipe: a caller that waits until our output is closed must not wait for the child.
 */
#include "dead_mount.h"

#include "foldfs/privileges.h"
#include "unmount.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define ASK_MS 3000

/* A plain user's mount answers only its owner. */
static errint_t become_owner(const struct mount_entry *entry)
{
	if (geteuid() != 0 || entry->owner == 0)
		return 0;
	return setresgid(entry->group, entry->group, entry->group) == 0 &&
			       setresuid(entry->owner, entry->owner, entry->owner) == 0
		       ? 0
		       : -errno;
}

static _Noreturn void ask(const struct mount_entry *entry, int answer)
{
	struct statfs st;
	char error;

	privileges_keep_file(answer);
	error = (char)-become_owner(entry);
	if (!error && statfs(entry->mountpoint, &st) != 0)
		error = (char)errno;
	(void)!write(answer, &error, 1);
	_exit(EXIT_SUCCESS);
}

enum mount_life mount_life_of(const struct mount_entry *entry)
{
	struct pollfd answer = {.events = POLLIN};
	enum mount_life life = MOUNT_SILENT;
	int ends[2];
	char error;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) != 0)
		return MOUNT_ALIVE;
	pid = fork();
	if (pid == 0)
		ask(entry, ends[1]);
	close(ends[1]);
	answer.fd = ends[0];
	if (pid > 0 && poll(&answer, 1, ASK_MS) == 1 && read(ends[0], &error, 1) == 1) {
		life = error == (char)ENOTCONN ? MOUNT_DEAD : MOUNT_ALIVE;
		TEMP_FAILURE_RETRY(waitpid(pid, NULL, 0));
	} else if (pid > 0) {
		/* It ends as soon as it can; the process that adopts it reaps it. */
		kill(pid, SIGKILL);
	}
	close(ends[0]);
	return life;
}

errint_t dead_mount_remove(const struct mount_entry *entry)
{
	struct mount_entry left = {0};
	int root = mount_entry_open(entry);
	errint_t error;

	if (root < 0)
		return root;
	error = unmount_lazily(root, false);
	if (error == -EPERM && geteuid() != 0) {
		unmount_by_fusermount(root);
		error = mount_entry_find_again(entry, false, &left) == 0 ? -EPERM : 0;
		mount_entry_clear(&left);
	}
	close(root);
	return error;
}
