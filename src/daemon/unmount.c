/* SPDX-License-Identifier: Apache-2.0 */
/* unmount.c - takes a mount away, even if it is in use */
#include "unmount.h"

#include "foldfs/proc_fd.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

errint_t unmount_lazily(int root, bool force)
{
	char link[PROC_FD_BYTES];

	proc_fd(link, root);
	return umount2(link, MNT_DETACH | (force ? MNT_FORCE : 0)) == 0 ? 0 : -errno;
}

/* Calls fusermount3 as libfuse does. */
static _Noreturn void become_fusermount(char *mountpoint)
{
	char *const argv[] = {"fusermount3", "--unmount", "--quiet", "--lazy",
			      "--",          mountpoint,  NULL};
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv("/usr/bin/fusermount3", argv);
	execvp("fusermount3", argv);
	_exit(EXIT_FAILURE);
}

void unmount_by_fusermount(int root)
{
	char link[PROC_FD_BYTES], mountpoint[PATH_MAX];
	ssize_t length;
	pid_t pid;

	proc_fd(link, root);
	length = readlink(link, mountpoint, sizeof(mountpoint) - 1);
	if (length < 0)
		return;
	mountpoint[length] = '\0';
	pid = fork();
	if (pid == 0)
		become_fusermount(mountpoint);
	if (pid > 0)
		TEMP_FAILURE_RETRY(waitpid(pid, NULL, 0));
}
