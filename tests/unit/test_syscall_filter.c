/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_syscall_filter.c - what is possible under a filter, and what is not
 *
 * A filter stays for good, so each case is a child process of its own. Where the sanitizers' calls
 * are allowed as well, what they make possible is not tested.
 */
#include "daemon/syscall_filter.h"
#include "foldfs/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

/* The errno of an ATTEMPT under USER's filter; or the number of the signal that it died of, above
 * 1000. */
static int outcome(enum syscall_user user, int (*attempt)(void))
{
	const struct syscall_filter filter = {.user = user};
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		const struct rlimit no_core = {0};

		/* The count of what is refused is looked at, not the lines. */
		close(STDERR_FILENO);
		setrlimit(RLIMIT_CORE, &no_core);
		if (syscall_filter_install(&filter))
			_exit(255);
		_exit(attempt() < 0 ? errno : 0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int run_program(void)
{
	return execl("/bin/true", "true", NULL);
}

static int trace(void)
{
	return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int mount_something(void)
{
	return mount("none", "/nowhere", "tmpfs", 0, NULL);
}

static void what_only_an_intruder_wants_ends_it(void **state)
{
	int (*const attempts[])(void) = {run_program, trace, mount_something};

	(void)state;
	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
		assert_int_equal(outcome(SYSCALLS_DAEMON, attempts[i]), 1000 + SIGSYS);
}

static int make_process(void)
{
	return (int)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static void no_process_is_made(void **state)
{
	(void)state;
	assert_int_equal(outcome(SYSCALLS_DAEMON, make_process), EPERM);
}

/* Refused, and counted. */
static int counted(int result)
{
	int error = errno;

	if (syscall_filter_refused() != 1)
		_exit(254);
	errno = error;
	return result;
}

static int talk_to_a_network(void)
{
	return counted(socket(AF_INET, SOCK_STREAM, 0));
}

static int map_to_run(void)
{
	void *memory = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return counted(memory == MAP_FAILED ? -1 : 0);
}

static int let_run(void)
{
	void *memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return counted(mprotect(memory, 4096, PROT_READ | PROT_EXEC));
}

static int end_another(void)
{
	return counted(kill(getppid(), 0));
}

static int use_a_ring(void)
{
	return counted((int)syscall(SYS_io_uring_setup, 1, NULL));
}

static int type_for_somebody(void)
{
	return counted(ioctl(0, TIOCSTI, "x"));
}

static int leave_the_namespace(void)
{
	return counted(unshare(CLONE_NEWUSER));
}

static int be_dumpable(void)
{
	return counted(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static void what_is_not_listed_is_refused(void **state)
{
	int (*const attempts[])(void) = {
		talk_to_a_network, map_to_run,          let_run,     end_another, use_a_ring,
		type_for_somebody, leave_the_namespace, be_dumpable,
	};

	(void)state;
	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
		assert_int_equal(outcome(SYSCALLS_DAEMON, attempts[i]), ENOSYS);
}

static void *do_nothing(void *arg)
{
	return arg;
}

static int work(void)
{
	pthread_t thread;
	char *memory = malloc(1 << 24);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (!memory || fd < 0 || pthread_create(&thread, NULL, do_nothing, NULL) ||
	    pthread_cancel(thread) || pthread_join(thread, NULL))
		return -1;
	free(memory);
	return syscall_filter_refused() ? -1 : close(fd);
}

static void work_goes_on(void **state)
{
	(void)state;
	assert_int_equal(outcome(SYSCALLS_DAEMON, work), 0);
}

static int die(void)
{
	abort();
}

/* The end by an assertion is not turned into something else. */
static void abort_ends_it(void **state)
{
	(void)state;
	assert_int_equal(outcome(SYSCALLS_DAEMON, die), 1000 + SIGABRT);
}

static int open_something(void)
{
	return open("/", O_RDONLY);
}

static int write_something(void)
{
	return (int)write(STDOUT_FILENO, "", 0);
}

static void the_guardian_only_writes(void **state)
{
	(void)state;
	assert_int_equal(outcome(SYSCALLS_GUARDIAN, write_something), 0);
	assert_int_equal(outcome(SYSCALLS_GUARDIAN, open_something), ENOSYS);
	assert_int_equal(outcome(SYSCALLS_GUARDIAN, make_process), ENOSYS);
	assert_int_equal(outcome(SYSCALLS_ATTENDANT, open_something), 0);
	assert_int_equal(outcome(SYSCALLS_ATTENDANT, run_program), ENOSYS);
}

/* Threads that were there before are filtered as well. */
static void *try_a_network(void *arg)
{
	int *ends = arg;
	char byte;

	if (read(ends[0], &byte, 1) == 1 && socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == ENOSYS)
		return arg;
	return NULL;
}

static void threads_that_are_there_are_filtered(void **state)
{
	const struct syscall_filter filter = {.user = SYSCALLS_DAEMON};
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		pthread_t thread;
		void *result = NULL;
		int ends[2];

		close(STDERR_FILENO);
		if (pipe(ends) || pthread_create(&thread, NULL, try_a_network, ends) ||
		    syscall_filter_install(&filter) || write(ends[1], "", 1) != 1 ||
		    pthread_join(thread, &result))
			_exit(1);
		_exit(result ? 0 : 2);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void names_of_capabilities(void **state)
{
	char names[PRIVILEGE_NAMES_BYTES];

	(void)state;
	privileges_names(0, names);
	assert_string_equal(names, "");
	privileges_names(PRIVILEGE(CAP_CHOWN) | PRIVILEGE(CAP_SYS_ADMIN) |
				 PRIVILEGE(CAP_CHECKPOINT_RESTORE) | PRIVILEGE(63),
			 names);
	assert_string_equal(names, "chown sys_admin checkpoint_restore 63");
	privileges_names(~UINT64_C(0), names);
	assert_string_equal(names + strlen(names) - 3, " 63");
}

int main(void)
{
	const struct CMUnitTest everywhere[] = {
		cmocka_unit_test(work_goes_on),
		cmocka_unit_test(abort_ends_it),
		cmocka_unit_test(names_of_capabilities),
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_only_an_intruder_wants_ends_it),
		cmocka_unit_test(no_process_is_made),
		cmocka_unit_test(what_is_not_listed_is_refused),
		cmocka_unit_test(the_guardian_only_writes),
		cmocka_unit_test(threads_that_are_there_are_filtered),
	};
	int failed = cmocka_run_group_tests(everywhere, NULL, NULL);

	if (!SANITIZED)
		failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed;
}
