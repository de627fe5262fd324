/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guardian.c - aborts the connection when the daemon is killed
 *
 * The guardian holds the connection's abort file and nothing else. Above all it has no descriptor
 * of the connection itself, which would keep the connection alive. An open abort file stays with
 * its connection. Once the connection has gone, writing to the file does nothing, even if a new
 * connection has its number.
 *
 * PR_SET_PDEATHSIG tells the guardian of the end: the kernel sends the signal when the thread that
 * forked the guardian ends. A pidfd would not do: it waits for the last thread, and so for the one
 * that is stuck.
 */
#include "guardian.h"

#include "foldfs/privileges.h"
#include "syscall_filter.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* The file is open, and the rest of the task takes no right. If this fails, it guards all the
 * same. */
static void give_up_privileges(void)
{
	const struct syscall_filter filter = {.user = SYSCALLS_GUARDIAN};

	(void)privileges_keep(0);
	(void)privileges_freeze();
	(void)syscall_filter_install(&filter);
}

/* The guardian's process. */
_Noreturn static void guard(int abort_file, pid_t daemon)
{
	sigset_t end;
	int sig;

	/* A ^C is meant for the daemon; the guardian waits for the daemon's end. */
	setsid();
	if (chdir("/"))
		_exit(EXIT_FAILURE);
	privileges_keep_file(abort_file);
	(void)prctl(PR_SET_NAME, "foldfs-guardian");
	sigfillset(&end);
	sigprocmask(SIG_SETMASK, &end, NULL);
	sigemptyset(&end);
	sigaddset(&end, SIGUSR1);
	(void)prctl(PR_SET_PDEATHSIG, SIGUSR1);
	if (getppid() != daemon)
		(void)raise(SIGUSR1);
	give_up_privileges();
	while (sigwait(&end, &sig))
		;
	(void)!write(abort_file, "1", 1);
	_exit(EXIT_SUCCESS);
}

errint_t guardian_start(int abort_file, pid_t *ret_pid)
{
	pid_t daemon = getpid();
	errint_t error = 0;
	pid_t pid;

	*ret_pid = 0;
	if (abort_file < 0)
		return -EBADF;
	pid = fork();
	if (pid == 0)
		guard(abort_file, daemon);
	if (pid < 0)
		error = -errno;
	else
		*ret_pid = pid;
	return error;
}

void guardian_stop(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}
