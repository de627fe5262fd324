/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guardian.c - aborts the connection when the daemon is killed
 *
 * The guardian holds the connection's abort file and nothing else: above all no descriptor of the
 * connection itself, which would keep that alive. An open abort file stays with its connection;
 * once that has gone, writing to it does nothing, whatever number another one has.
 *
 * It is told of the end by PR_SET_PDEATHSIG, which the kernel sends when the thread that forked it
 * ends. A pidfd would not do: it waits for the last thread, and so for the one that is stuck.
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

/* The file is open: what is left takes no right. Without these it would guard as well. */
static void give_up_privileges(void)
{
	const struct syscall_filter filter = {.user = SYSCALLS_GUARDIAN};

	(void)privileges_keep(0);
	(void)privileges_freeze();
	(void)syscall_filter_install(&filter);
}

/* In a process of its own. */
_Noreturn static void guard(int abort_file, pid_t daemon)
{
	sigset_t end;
	int sig;

	/* A ^C is for the daemon, and its end is waited for. */
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
