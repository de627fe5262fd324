/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscall_filter.c - the system calls that a process may still make (seccomp)
 *
 * Four tables say what happens to a call:
 * - whole: allowed as it is.
 * - narrow: allowed with the argument that is named.
 * - deadly: ends the process.
 * - absent: refused in silence, because libraries are known to try it.
 * Any other call is refused too, with ENOSYS, but reported: the tests take that line for a failure.
 * So running the tests finds the calls that a new library or a change of ours makes, and these go
 * into the table where they belong.
 *
 * Calls are named, not numbered, because there are several architectures. A name that this
 * libseccomp or the architecture does not have is passed over. But calls that foldfs makes itself,
 * and that libseccomp may be too old to name, have their number here.
 *
 * io_uring makes calls that bypass any filter. So rings may be created only where requests may come
 * by io_uring. Elsewhere only existing rings may be used; they were restricted to reads before
 * (fetcher.c).
 */
#include "syscall_filter.h"

#include "foldfs/sanitized.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

/* Some headers are too old to have it. */
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#define FUSE_BACKING_OPEN  _IOC(_IOC_WRITE, 229, 1, 16)
#define FUSE_BACKING_CLOSE _IOC(_IOC_WRITE, 229, 2, 4)
#define FUSE_CLONE         _IOC(_IOC_READ, 229, 0, 4)

/* As source_watch.c asks for it. */
#define WATCH_KIND                                                                                 \
	(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_REPORT_DFID_NAME | FAN_CLOEXEC | FAN_NONBLOCK)

#define FOR(user) (1u << (user))
#define DAEMON    FOR(SYSCALLS_DAEMON)
#define GUARDIAN  FOR(SYSCALLS_GUARDIAN)
#define ATTENDANT FOR(SYSCALLS_ATTENDANT)
#define ALL       (DAEMON | GUARDIAN | ATTENDANT)
/* Not a user of its own: for the daemon, where requests may come by io_uring. */
#define RING      (1u << 8)
#define SANITIZER (1u << 9)

/* Names are separated by blanks, and grouped by what needs them. */
static const struct {
	unsigned users;
	const char *names;
} whole[] = {
	/* C library: a process and its threads, and their end. */
	{ALL, "exit exit_group rt_sigreturn restart_syscall"},
	{ALL, "rt_sigaction rt_sigprocmask rt_sigtimedwait sigaltstack gettid getpid"},
	{DAEMON, "futex futex_wait futex_wake futex_waitv set_robust_list rseq wait4 waitid"},
	{DAEMON, "sched_yield sched_getaffinity sched_setaffinity getcpu membarrier"},
	{DAEMON, "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time"},
	{DAEMON, "getrandom uname sysinfo getrusage getpriority setpriority ioprio_set"},
	{DAEMON, "getuid geteuid getgid getegid getppid getrlimit"},
	/* Memory: malloc, the pool, LMDB's map. Never executable: see narrow. */
	{ALL, "brk munmap"},
	{DAEMON, "mremap madvise msync mincore"},
	/* Content of the source, the catalogue and the copies. */
	{ALL, "read write close"},
	{DAEMON, "readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek"},
	{DAEMON, "splice tee vmsplice sendfile copy_file_range fallocate ftruncate truncate"},
	{DAEMON,
	 "fsync fdatasync sync_file_range syncfs readahead fadvise64 flock fcntl cachestat"},
	/* Names and attributes. */
	{DAEMON | ATTENDANT, "open openat close_range"},
	{DAEMON, "openat2 dup dup2 dup3 pipe pipe2 umask"},
	{DAEMON, "stat lstat fstat newfstatat fstatat64 statx statfs fstatfs access faccessat"},
	{DAEMON, "faccessat2 readlink readlinkat getcwd chdir fchdir getdents64"},
	{DAEMON, "mkdir mkdirat mknod mknodat symlink symlinkat link linkat unlink unlinkat rmdir"},
	{DAEMON, "rename renameat renameat2 chmod fchmod fchmodat fchmodat2"},
	{DAEMON, "chown lchown fchown fchownat utimensat name_to_handle_at open_by_handle_at"},
	{DAEMON, "getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr"},
	{DAEMON, "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr"},
	/* Taking on the caller's identity: thread_identity.c. */
	{DAEMON, "setfsuid setfsgid setgroups capget capset"},
	/* Waiting; the control socket, syslog and systemd. */
	{DAEMON,
	 "poll ppoll select pselect6 eventfd2 epoll_create1 epoll_ctl epoll_wait epoll_pwait"},
	{DAEMON, "accept accept4 bind listen connect shutdown getsockopt setsockopt getsockname"},
	{DAEMON | ATTENDANT, "sendto recvmsg"},
	{DAEMON, "getpeername recvfrom sendmsg"},
	/* Finding out which inode it is: links.c. */
	{DAEMON, "inotify_init1 inotify_add_watch inotify_rm_watch"},
	/* The end of the mount. */
	{DAEMON, "umount2"},
	/* The attendant makes a child for each order; the child ends with the order. */
	{ATTENDANT, "clone fork set_robust_list rseq syncfs"},
	/* FUSE over io_uring, whose threads each run on the node of their processor. */
	{RING, "io_uring_setup io_uring_register get_mempolicy set_mempolicy mbind"},
	{DAEMON, "io_uring_enter"},
	/* The sanitizers' own calls, with those of the symbolizer that they start and the threads
	 * that they stop. */
	{SANITIZER,
	 "clone clone3 fork vfork execve ptrace wait4 waitid personality prctl arch_prctl"},
	{SANITIZER,
	 "mmap mprotect kill tgkill prlimit64 setrlimit pipe pipe2 dup2 ioctl socketpair"},
	{SANITIZER,
	 "getppid getdents readlink sched_getaffinity alarm setitimer timer_create timer_settime"},
	{SANITIZER,
	 "process_vm_readv futex mremap madvise open openat lseek fstat newfstatat poll"},
};

/* Calls that foldfs makes itself and that libseccomp may be too old to name. The number is the same
 * on all architectures. */
static const struct {
	const char *name;
	int number;
} numbers[] = {{"cachestat", 451}, {"fchmodat2", 452}};

/* The call is allowed if the bits of MASK in that argument equal VALUE. */
static const struct {
	unsigned users;
	const char *name;
	unsigned argument;
	uint64_t mask;
	uint64_t value;
} narrow[] = {
	/* Threads, but no processes. The C library tries clone3 first, whose flags no filter can
	 * see. */
	{DAEMON, "clone", 0, CLONE_THREAD, CLONE_THREAD},
	/* No memory that was written is ever executed. */
	{ALL, "mmap", 2, PROT_EXEC, 0},
	{ALL, "mmap2", 2, PROT_EXEC, 0},
	{ALL, "mprotect", 2, PROT_EXEC, 0},
	/* Only sockets that are reached through files. */
	{DAEMON, "socket", 0, UINT32_MAX, AF_UNIX},
	{DAEMON, "socketpair", 0, UINT32_MAX, AF_UNIX},
	{DAEMON, "ioctl", 1, UINT32_MAX, FUSE_BACKING_OPEN},
	{DAEMON, "ioctl", 1, UINT32_MAX, FUSE_BACKING_CLOSE},
	{DAEMON, "ioctl", 1, UINT32_MAX, FUSE_CLONE},
	{DAEMON, "ioctl", 1, UINT32_MAX, FICLONE},
	{DAEMON, "ioctl", 1, UINT32_MAX, FS_IOC_FIEMAP},
	{DAEMON, "ioctl", 1, UINT32_MAX, TCGETS}, /* isatty, of stderr */
	{DAEMON, "unshare", 0, UINT32_MAX, CLONE_FS},
	{DAEMON, "io_uring_register", 1, UINT32_MAX, IORING_REGISTER_ENABLE_RINGS},
	/* SCHED_IDLE, for work in the background. */
	{DAEMON, "sched_setscheduler", 1, UINT32_MAX, SCHED_IDLE},
	/* The watch, which may begin at any time: reports, never permissions. */
	{DAEMON, "fanotify_init", 0, UINT32_MAX, WATCH_KIND},
	{DAEMON, "fanotify_mark", 1, UINT32_MAX, FAN_MARK_ADD | FAN_MARK_FILESYSTEM},
	/* The daemon's own limits. */
	{DAEMON, "prlimit64", 0, UINT32_MAX, 0},
	/* The C library names threads and memory; the status report needs the rest. */
	{ALL, "prctl", 0, UINT32_MAX, PR_SET_NAME},
	{ALL, "prctl", 0, UINT32_MAX, PR_SET_VMA},
	{DAEMON, "prctl", 0, UINT32_MAX, PR_CAPBSET_READ},
	{DAEMON, "prctl", 0, UINT32_MAX, PR_GET_DUMPABLE},
	{DAEMON, "prctl", 0, UINT32_MAX, PR_GET_NO_NEW_PRIVS},
	{DAEMON, "prctl", 0, UINT32_MAX, PR_GET_SECCOMP},
	{ATTENDANT, "prctl", 0, UINT32_MAX, PR_SET_PDEATHSIG},
};

/* The C library can do without clone3, and libfuse can do without its programs: it looks for a
 * mount(8) that writes /etc/mtab, and for fusermount3, whose work is done by that time. */
static const struct {
	const char *name;
	int error;
} absent[] = {{"clone3", ENOSYS}, {"fork", EPERM}, {"vfork", EPERM}};

/* Only an intruder who has taken the process over has a use for these here. */
static const char deadly[] =
	"execve execveat ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp "
	"init_module finit_module delete_module kexec_load kexec_file_load bpf perf_event_open "
	"userfaultfd keyctl add_key request_key mount fsopen fsmount move_mount pivot_root chroot "
	"setns reboot swapon swapoff iopl ioperm settimeofday clock_settime sethostname quotactl";

static atomic_uint refused;

unsigned syscall_filter_refused(void)
{
	return atomic_load(&refused);
}

/* ---- what is refused ---- */

#if defined(__x86_64__)
#define RESULT(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define RESULT(context) ((context)->uc_mcontext.regs[0])
#endif

#ifdef RESULT
/* Interrupts any code, so it does only what is safe in a signal handler. */
static void notice(int signal, siginfo_t *info, void *context)
{
	static const char text[] = "foldfs: refused a system call, number ";
	char line[sizeof(text) + 12];
	char *end = line + sizeof(line);
	char *at = end;
	int number = info->si_syscall;
	int saved = errno;

	(void)signal;
	*--at = '\n';
	do
		*--at = (char)('0' + number % 10);
	while (number /= 10);
	at -= sizeof(text) - 1;
	memcpy(at, text, sizeof(text) - 1);
	atomic_fetch_add(&refused, 1);
	/* In the background stderr leads nowhere, but the count is kept. */
	(void)!write(STDERR_FILENO, at, (size_t)(end - at));
	errno = saved;
	RESULT((ucontext_t *)context) = -ENOSYS;
}

/* The action for a call that is in no table. */
static uint32_t refusal(enum syscall_user user)
{
	struct sigaction action = {.sa_sigaction = notice, .sa_flags = SA_SIGINFO | SA_NODEFER};

	/* The others have no stderr, and nobody asks them for the count. */
	if (user != SYSCALLS_DAEMON || sigaction(SIGSYS, &action, NULL) < 0)
		return SCMP_ACT_ERRNO(ENOSYS);
	return SCMP_ACT_TRAP;
}
#else
static uint32_t refusal(enum syscall_user user)
{
	(void)user;
	return SCMP_ACT_ERRNO(ENOSYS);
}
#endif

/* ---- from the tables to the kernel ---- */

/* The number of the call whose name ends at the first blank. */
static int number_of(const char *name)
{
	char copy[32];
	int number;

	memccpy(copy, name, ' ', sizeof(copy));
	copy[strcspn(name, " ")] = '\0';
	number = seccomp_syscall_resolve_name(copy);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (number == __NR_SCMP_ERROR && !strcmp(copy, numbers[i].name))
			number = numbers[i].number;
	return number;
}

/* libseccomp returns -EACCES for a rule that does the same as the default. */
static errint_t add_names(scmp_filter_ctx context, uint32_t action, const char *names)
{
	for (const char *name = names; *name;) {
		int number = number_of(name);
		int error = number == __NR_SCMP_ERROR
				    ? 0
				    : seccomp_rule_add(context, action, number, 0);

		if (error && error != -EACCES && error != -EDOM)
			return error;
		name += strcspn(name, " ");
		name += strspn(name, " ");
	}
	return 0;
}

static errint_t add_narrow(scmp_filter_ctx context, const char *name, unsigned argument,
			   uint64_t mask, uint64_t value)
{
	int number = number_of(name);
	int error;

	if (number == __NR_SCMP_ERROR)
		return 0;
	error = seccomp_rule_add(context, SCMP_ACT_ALLOW, number, 1,
				 SCMP_CMP64(argument, SCMP_CMP_MASKED_EQ, mask, value));
	return error == -EDOM ? 0 : error;
}

static errint_t add_tables(scmp_filter_ctx context, unsigned users)
{
	errint_t error = 0;

	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]) && !error; i++)
		if (whole[i].users & users)
			error = add_names(context, SCMP_ACT_ALLOW, whole[i].names);
	for (size_t i = 0; i < sizeof(narrow) / sizeof(narrow[0]) && !error; i++)
		if (narrow[i].users & users)
			error = add_narrow(context, narrow[i].name, narrow[i].argument,
					   narrow[i].mask, narrow[i].value);
	return error;
}

static errint_t add_refusals(scmp_filter_ctx context)
{
	/* libfuse's fork() is clone() on most architectures. */
	errint_t error = seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
					  SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));

	for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]) && !error; i++)
		error = add_names(context, SCMP_ACT_ERRNO((uint32_t)absent[i].error),
				  absent[i].name);
	return error ? error : add_names(context, SCMP_ACT_KILL_PROCESS, deadly);
}

/* Allow signals to this process, above all from abort(), and signals that end its children. */
static errint_t add_signals(scmp_filter_ctx context, const struct syscall_filter *filter)
{
	errint_t error = add_narrow(context, "tgkill", 0, UINT32_MAX, (uint32_t)getpid());

	for (size_t i = 0; i < sizeof(filter->children) / sizeof(filter->children[0]); i++)
		if (!error && filter->children[i])
			error = add_narrow(context, "kill", 0, UINT32_MAX,
					   (uint32_t)filter->children[i]);
	return error;
}

static errint_t set_attributes(scmp_filter_ctx context)
{
	errint_t error = seccomp_attr_set(context, SCMP_FLTATR_CTL_TSYNC, 1);

	if (!error)
		error = seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	/* No foreign code runs here against which speculation must be restricted. Before Linux 5.16
	 * a filter restricts it by default, which slows the process down. */
	if (!error)
		error = seccomp_attr_set(context, SCMP_FLTATR_CTL_SSB, 1);
	return error;
}

errint_t syscall_filter_install(const struct syscall_filter *filter)
{
	scmp_filter_ctx context = seccomp_init(refusal(filter->user));
	unsigned users = FOR(filter->user);
	errint_t error;

	if (!context)
		return -ENOMEM;
	if (filter->io_uring)
		users |= RING;
#ifdef FOLD_SANITIZED
	users |= SANITIZER;
#endif
	error = set_attributes(context);
	if (!error)
		error = add_tables(context, users);
	if (!error && filter->user == SYSCALLS_DAEMON)
		error = add_signals(context, filter);
	/* Not with a sanitizer, which makes most of these calls. */
	if (!error && filter->user == SYSCALLS_DAEMON && !(users & SANITIZER))
		error = add_refusals(context);
	if (!error)
		error = seccomp_load(context);
	seccomp_release(context);
	return error;
}
