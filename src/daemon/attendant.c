/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attendant.c - does for the daemon, at its end, what the daemon itself must not or may not do
 *
 * The attendant reads orders from a socket: one byte, and a descriptor of the mount's root, which
 * identifies the mount wherever it is by then. A child carries out each order, so the attendant is
 * free for the next one when a mount does not answer. The child answers with the same byte. The
 * attendant and its children end with the daemon, whoever ends it.
 *
 * Root's daemon unmounts by itself, so its attendant needs no right except to reach the mount
 * point, and starts no program. A plain user's attendant has no right to give up, and must start
 * fusermount3.
 */
#include "attendant.h"

#include "foldfs/clock.h"
#include "foldfs/privileges.h"
#include "syscall_filter.h"
#include "unmount.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FLUSH   'f'
#define UNMOUNT 'u'

static void flush(int root)
{
	int fd = openat(root, ".", O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return;
	/* An error concerns those who wrote, and they have been told. */
	(void)syncfs(fd);
	/* Close it before the answer, while the daemon still serves the mount. */
	close(fd);
}

static _Noreturn void carry_out(int socket, char order, int root)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_DFL);
	if (order == FLUSH)
		flush(root);
	if (order == UNMOUNT)
		unmount_by_fusermount(root);
	/* If the daemon does not listen any more, it has waited long enough. */
	(void)send(socket, &order, 1, MSG_NOSIGNAL);
	_exit(EXIT_SUCCESS);
}

/* Root's attendant keeps only what its one task needs. If this fails, it would do its task all the
 * same. */
static void give_up_privileges(void)
{
	const struct syscall_filter filter = {.user = SYSCALLS_ATTENDANT};

	if (geteuid() != 0)
		return;
	(void)privileges_keep(PRIVILEGE(CAP_DAC_READ_SEARCH));
	(void)privileges_freeze();
	(void)syscall_filter_install(&filter);
}

/* Room in the message for the order's descriptor. */
union ancillary {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr aligned;
};

/* Receive the next order and the root that it is about, which is the caller's. False at the end. */
static bool receive_order(int socket, char *ret_order, int *ret_root)
{
	union ancillary ancillary;
	struct iovec byte = {.iov_base = ret_order, .iov_len = 1};
	struct msghdr message = {.msg_iov = &byte,
				 .msg_iovlen = 1,
				 .msg_control = ancillary.bytes,
				 .msg_controllen = sizeof(ancillary.bytes)};
	const struct cmsghdr *header;

	if (TEMP_FAILURE_RETRY(recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) != 1)
		return false;
	header = CMSG_FIRSTHDR(&message);
	*ret_root = -1;
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
		memcpy(ret_root, CMSG_DATA(header), sizeof(*ret_root));
	return true;
}

static bool send_order(int socket, char order, int root)
{
	union ancillary ancillary = {0};
	struct iovec byte = {.iov_base = &order, .iov_len = 1};
	struct msghdr message = {.msg_iov = &byte,
				 .msg_iovlen = 1,
				 .msg_control = ancillary.bytes,
				 .msg_controllen = sizeof(ancillary.bytes)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(root));
	memcpy(CMSG_DATA(header), &root, sizeof(root));
	return TEMP_FAILURE_RETRY(sendmsg(socket, &message, MSG_NOSIGNAL)) == 1;
}

/* The attendant's process. */
static _Noreturn void attend(int socket, pid_t daemon)
{
	sigset_t all;
	char order;
	int root;

	/* A signal to end the daemon may go to a whole process group or service. It is not for the
	 * attendant: the daemon has orders for it then. */
	setsid();
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	if (chdir("/"))
		_exit(EXIT_FAILURE);
	privileges_keep_file(socket);
	signal(SIGCHLD, SIG_IGN);
	(void)prctl(PR_SET_NAME, "foldfs-attendant");
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != daemon)
		_exit(EXIT_FAILURE);
	give_up_privileges();
	while (receive_order(socket, &order, &root)) {
		pid_t pid = fork();

		if (pid == 0)
			carry_out(socket, order, root);
		if (pid < 0)
			(void)send(socket, &order, 1, MSG_NOSIGNAL);
		if (root >= 0)
			close(root);
	}
	_exit(EXIT_SUCCESS);
}

errint_t attendant_start(struct attendant *ret_attendant)
{
	pid_t daemon = getpid(), pid;
	int ends[2];
	errint_t error = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		attend(ends[1], daemon);
	if (pid < 0)
		error = -errno;
	close(ends[1]);
	if (error)
		close(ends[0]);
	else
		*ret_attendant = (struct attendant){.socket = ends[0], .pid = pid};
	return error;
}

/* Give an order about ROOT and wait until it is carried out, at most MILLISECONDS; -1 means without
 * a limit. */
static void order_and_wait(const struct attendant *attendant, char order, int root,
			   int milliseconds)
{
	struct pollfd answer = {.fd = attendant->socket, .events = POLLIN};
	int64_t deadline = clock_now_ms() + milliseconds;
	char byte = 0;

	if (attendant->socket < 0 || !send_order(attendant->socket, order, root))
		return;
	/* The answer to an earlier order, which was not waited for to its end, may come first. */
	while (byte != order) {
		int ready = poll(&answer, 1, milliseconds < 0 ? -1 : clock_left_ms(deadline));

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready <= 0 || recv(attendant->socket, &byte, 1, 0) != 1)
			return;
	}
}

void attendant_flush(const struct attendant *attendant, int root, int milliseconds)
{
	order_and_wait(attendant, FLUSH, root, milliseconds);
}

void attendant_unmount(const struct attendant *attendant, int root)
{
	order_and_wait(attendant, UNMOUNT, root, -1);
}

void attendant_stop(struct attendant *attendant)
{
	if (attendant->socket < 0)
		return;
	kill(attendant->pid, SIGKILL);
	TEMP_FAILURE_RETRY(waitpid(attendant->pid, NULL, 0));
	close(attendant->socket);
	attendant->socket = -1;
}
