/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - options, mount, signals, start and stop in order
 *
 * Two processes start a mount. One becomes the daemon; the other asks the mount its first question
 * and says whether it was answered. In the background the asker is the process that was called, so
 * its exit status is the truth; in the foreground it is a child that ends at once. The daemon never
 * asks its own mount anything: a thread that waits for the mount keeps the device open, so that
 * killing such a daemon would leave a mount that hangs for ever.
 *
 * Order of the start: look at everything that can be looked at, open the source (a mount over it
 * then covers nothing that we need), fork, mount, control socket, leave the terminal, serve. Errors
 * up to here reach stderr and status 1; later ones reach the system log. No thread runs before the
 * fork.
 *
 * Order of the end, by signal: have the kernel write back what clients stored through mmap, stop
 * serving, control socket, unmount, leave the source, free. By umount(8) the kernel has done the
 * first by itself. What hangs, as the source does, holds this up for END_SECONDS at most.
 *
 * A mount that the daemon was not told to end, and that stands although its connection has ended,
 * was aborted. It is left there, dead: below it is a bare directory, which clients would go on in.
 */
#include "attendant.h"
#include "control_requests.h"
#include "dirty_limit.h"
#include "figures_json.h"
#include "foldfs/control_place.h"
#include "foldfs/fusefs.h"
#include "foldfs/memory.h"
#include "foldfs/privileges.h"
#include "foldfs/scan_command.h"
#include "guardian.h"
#include "log.h"
#include "options_parse.h"
#include "own_mount.h"
#include "preflight.h"
#include "remount.h"
#include "state_open.h"
#include "syscall_filter.h"
#include "unmount.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* How long the kernel may take to begin the write-back before an end by signal. */
#define FLUSH_MS 5000
/* How long everything may take from the signal on, before the daemon ends whatever it waits for. */
#define END_SECONDS 20
#define OPEN_FILES  (1u << 20)

#ifdef __SANITIZE_ADDRESS__
/* Threads that read requests end by pthread_cancel(), which leaves AddressSanitizer's marks of the
 * frames that were unwound; its own use of the stack afterwards would trip over them. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "use_sigaltstack=0";
}
#endif

struct daemon {
	struct options options;
	struct place place;
	int asker;       /* a socket to the process that asks the first question */
	pid_t asker_pid; /* 0: not our child */
	struct state state;
	struct attendant attendant;
	pid_t guardian; /* 0: there is none */
	struct fusefs *fs;
	struct fuse_session *session;
	struct own_mount mount;
	struct figures_context status;
	struct control *control;
	sigset_t end_signals; /* blocked in every thread; end_thread waits for them */
	pthread_t end_thread;
	pthread_t ready_thread;
	pthread_t force_thread;
	bool end_thread_runs;
	bool force_thread_runs; /* of whoever set ending; anybody's once end_thread has ended */
	atomic_bool ending;     /* whoever sets it starts force_thread */
	atomic_bool told;       /* to end, by a signal */
	bool ready_thread_runs;
	atomic_bool unmounting; /* whoever sets it unmounts */
};

/* ---- the two processes ---- */

/* Wait until the daemon has mounted, ask the mount something, tell the daemon. An exit status. */
static int ask(int fd, const char *mountpoint)
{
	struct statfs st;
	char byte;

	/* All it takes to ask. */
	(void)privileges_keep(PRIVILEGE(CAP_DAC_READ_SEARCH));
	/* Without the byte the daemon has ended, and has said why. */
	if (TEMP_FAILURE_RETRY(read(fd, &byte, 1)) != 1)
		return EXIT_FAILURE;
	/* An error of the source is an answer as well. */
	if (statfs(mountpoint, &st) != 0 && (errno == ENOTCONN || errno == ECONNABORTED)) {
		complain("the mount on %s does not answer: %s.", mountpoint, strerror(errno));
		return EXIT_FAILURE;
	}
	/* A daemon that has just been told to end does not listen any more, which is its right. */
	(void)send(fd, "", 1, MSG_NOSIGNAL);
	return EXIT_SUCCESS;
}

/* Become two processes. In the asker this does not return. */
static errint_t split_processes(struct daemon *d)
{
	bool background = !d->options.foreground;
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return complain("cannot make a socket pair: %s.", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		close(ends[0]);
		close(ends[1]);
		return complain("cannot fork: %s.", strerror(errno));
	}
	if (background == (pid > 0)) {
		close(ends[1]);
		_exit(ask(ends[0], d->place.mountpoint));
	}
	close(ends[0]);
	d->asker = ends[1];
	d->asker_pid = background ? 0 : pid;
	if (background)
		setsid(); /* a fresh child leads no group, so this cannot fail */
	return 0;
}

/* In the background: nothing of the caller's terminal or directory is held on to. */
static errint_t detach(const struct daemon *d)
{
	int null;

	if (chdir("/") != 0)
		return complain("cannot change to /: %s.", strerror(errno));
	if (d->options.foreground)
		return 0;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return complain("cannot open /dev/null: %s.", strerror(errno));
	log_to_system();
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
	return 0;
}

static void *wait_until_ready(void *arg)
{
	struct daemon *d = arg;
	char byte;
	ssize_t got = TEMP_FAILURE_RETRY(read(d->asker, &byte, 1));

	if (d->asker_pid > 0)
		TEMP_FAILURE_RETRY(waitpid(d->asker_pid, NULL, 0));
	if (got == 1)
		sd_notifyf(0, "READY=1\nSTATUS=Serving %s on %s", d->place.source,
			   d->place.mountpoint);
	return NULL;
}

/* ---- the end by signal ---- */

/*
 * End the connection, and have libfuse see that it is ended. Else it might start a program to
 * unmount (fusermount3, or umount where /etc/mtab is a file), which the daemon cannot any more.
 */
static void hang_up(struct daemon *d)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return;
	close(ends[0]);
	/* A pipe that nobody reads says POLLERR, as a connection does that was aborted. */
	(void)dup3(ends[1], fuse_session_fd(d->session), O_CLOEXEC);
	close(ends[1]);
}

/* Where that takes fusermount3, for a plain user, the attendant does it. */
static void remove_mount(struct daemon *d, bool force)
{
	int root = own_mount_open(&d->mount);
	errint_t err;

	/* Nothing of ours is there, or the kernel has ended it. */
	if (root < 0)
		return;
	err = unmount_lazily(root, force);
	if (err == -EPERM && geteuid() != 0)
		attendant_unmount(&d->attendant, root);
	else if (err)
		complain("cannot unmount %s: %s.", d->place.mountpoint, strerror(-err));
	close(root);
}

/* Unmount, if nobody else has. With FORCE requests that nobody answers any more fail at once. */
static void unmount(struct daemon *d, bool force)
{
	if (atomic_exchange(&d->unmounting, true))
		return;
	remove_mount(d, force);
	hang_up(d);
	fuse_session_unmount(d->session);
}

/*
 * The end, if a source that hangs holds it up: threads that wait for it would have to be waited
 * for. Clients get an error instead of waiting along. Nothing that was acknowledged is lost, for
 * the source has it, and it does not matter whether what it hangs in succeeds yet.
 */
static void *end_by_force(void *arg)
{
	struct daemon *d = arg;
	struct timespec left = {.tv_sec = END_SECONDS};

	while (nanosleep(&left, &left) != 0)
		;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	complain("the source %s does not answer: ended without waiting for it.", d->place.source);
	unmount(d, true);
	_exit(EXIT_FAILURE);
}

/* From now on the end has END_SECONDS. Without memory for a thread it has no limit. */
static void limit_end(struct daemon *d)
{
	if (!atomic_exchange(&d->ending, true))
		d->force_thread_runs = pthread_create(&d->force_thread, NULL, end_by_force, d) == 0;
}

/*
 * Have the kernel write back what clients stored through mmap: once nobody answers, it is lost. On
 * a FUSE mount syncfs(2) only begins that, for all files at once, and returns while the server does
 * not even run (seen with Linux 6.18.44). So it is awaited then, file by file.
 */
static void flush_mount(const struct daemon *d)
{
	int root = own_mount_open(&d->mount);

	if (root >= 0) {
		attendant_flush(&d->attendant, root, FLUSH_MS);
		close(root);
	}
	fusefs_write_back(d->fs);
}

static void *wait_for_end(void *arg)
{
	struct daemon *d = arg;
	int sig;

	for (;;) {
		if (sigwait(&d->end_signals, &sig) != 0)
			continue;
		/* Once begun, the end is not cut short by serving's own end. */
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		atomic_store(&d->told, true);
		sd_notify(0, "STOPPING=1");
		limit_end(d);
		flush_mount(d);
		fusefs_quiesce(d->fs);
		fusefs_end(d->fs);
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	}
	return NULL;
}

/* Signals that end us, in every thread of ours to come: blocked, for one thread waits for them. One
 * that the caller had ignored (nohup) stays ignored. */
static void block_end_signals(struct daemon *d)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGTERM};
	struct sigaction action;

	sigemptyset(&d->end_signals);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			sigaddset(&d->end_signals, signals[i]);
	pthread_sigmask(SIG_BLOCK, &d->end_signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* A limit of file sizes that was inherited is a client's EFBIG, not the daemon's end. */
	signal(SIGXFSZ, SIG_IGN);
}

/* ---- the daemon ---- */

/* As many open files as we may have: where the source has no file handles, inodes need
 * descriptors. */
static void raise_open_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	if (geteuid() == 0 && limit.rlim_max < OPEN_FILES) {
		struct rlimit wanted = {OPEN_FILES, OPEN_FILES};

		if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
			return;
	}
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* The size that a file may have (ulimit -f) is each client's own limit, which the kernel looks at
 * before it asks. One of the daemon's would be a limit to everybody. */
static errint_t raise_file_size(const struct daemon *d)
{
	const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
	struct rlimit limit;

	if (setrlimit(RLIMIT_FSIZE, &none) == 0 || getrlimit(RLIMIT_FSIZE, &limit) != 0)
		return 0;
	/* A plain user's may end below that. */
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_FSIZE, &limit);
	if (limit.rlim_max == RLIM_INFINITY || d->options.read_only)
		return 0;
	return complain("files of the mount could not grow beyond %llu bytes, for whomever: raise "
			"the limit (ulimit -f), or mount with -o ro.",
			(unsigned long long)limit.rlim_max);
}

/*
 * What a daemon under a mount needs when memory is short; each is best effort, for root alone.
 *
 * PR_SET_IO_FLUSHER: other processes' dirty pages are cleaned by writes that come to us. So we must
 * not be throttled, as one that dirties pages, until those are clean; and our allocations must not
 * wait for I/O that may need us. Threads inherit it, so it is set before they start.
 *
 * oom_score_adj: our memory is bounded, so ending us stops no leak, but takes every client of the
 * mount along. Not -1000, which would leave the kernel no choice at all; and not where the
 * administrator has set one already.
 */
static void protect_from_memory_pressure(void)
{
	FILE *file;
	int score;

	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	file = fopen("/proc/self/oom_score_adj", "r+e");
	if (!file)
		return;
	if (fscanf(file, "%d", &score) == 1 && score == 0) {
		rewind(file);
		fputs("-900", file);
	}
	fclose(file); /* a plain user's write fails here, which is fine */
}

static errint_t mount_session(struct daemon *d)
{
	unsigned before;
	errint_t err;

	/* libfuse searches fusermount3 in PATH, where it is not in its usual place. Root does not
	 * run what somebody's PATH leads to; a plain user's is the user's own. */
	if (geteuid() == 0 && setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1) != 0)
		return complain("not enough memory.");
	d->session = fuse_session_new(&d->options.fuse, &fusefs_operations,
				      sizeof(fusefs_operations), d->fs);
	if (!d->session)
		return log_errors() ? -EINVAL : complain("libfuse cannot make a session.");
	before = log_errors();
	if (fuse_session_mount(d->session, d->place.mountpoint) != 0)
		/* libfuse, or fusermount3, has given the cause. */
		return log_errors() != before
			       ? -EINVAL
			       : complain("cannot mount on %s.", d->place.mountpoint);
	err = own_mount_note(d->place.mountpoint, fuse_session_fd(d->session), &d->mount);
	return err ? complain("cannot find the new mount on %s: %s.", d->place.mountpoint,
			      strerror(-err))
		   : 0;
}

static errint_t open_control(struct daemon *d)
{
	struct control_place place;
	char name[MOUNT_SOCKET_NAME];
	struct timespec now;
	errint_t err;

	clock_gettime(CLOCK_MONOTONIC, &now);
	d->status = (struct figures_context){
		.fs = d->fs,
		.source = d->place.source,
		.mountpoint = d->place.mountpoint,
		.mount = &d->mount,
		.state = &d->state,
		.started = now.tv_sec,
	};
	mount_socket_name(&d->mount.entry, name);
	err = control_place_make(d->options.control, &place);
	if (!err)
		err = control_new(place.fd, name, &d->status, &d->control);
	if (!err)
		control_requests_add(d->control, d->fs);
	else if (d->options.control)
		complain("cannot make the control socket in %s: %s.", d->options.control,
			 err == -EPERM ? "others may write there" : strerror(-err));
	else
		fuse_log(FUSE_LOG_WARNING,
			 "there is no control socket, and so no foldctl for this mount: %s: %s.\n",
			 place.path ? place.path : "no place for it",
			 err == -EPERM ? "others may write there" : strerror(-err));
	control_place_clear(&place);
	/* What was asked for by name is had, or nothing is mounted. */
	return d->options.control ? err : 0;
}

static errint_t start_threads(struct daemon *d)
{
	errint_t err = d->control ? control_start(d->control) : 0;

	if (!err)
		err = -pthread_create(&d->end_thread, NULL, wait_for_end, d);
	d->end_thread_runs = err == 0;
	if (!err)
		err = -pthread_create(&d->ready_thread, NULL, wait_until_ready, d);
	d->ready_thread_runs = err == 0;
	if (err)
		complain("cannot start a thread: %s.", strerror(-err));
	return err;
}

static errint_t start_watch(struct daemon *d)
{
	errint_t err = fusefs_watch(d->fs);

	switch (err) {
	case 0:
		return 0;
	case -EPERM:
		return complain("watch needs root's rights: the capabilities CAP_SYS_ADMIN and "
				"CAP_DAC_READ_SEARCH.");
	case -EOPNOTSUPP:
		return complain("watch is not possible: the file system of %s does not report "
				"changes by file handle (fanotify).",
				d->place.source);
	case -ENOSYS:
		return complain("watch needs Linux 5.9 or newer, with fanotify.");
	default:
		return complain("cannot watch %s: %s.", d->place.source, strerror(-err));
	}
}

/*
 * What the daemon does without from here on. Capabilities are each thread's own, and so they go
 * before there is a second one; the attendant is made while processes can be. A plain user's daemon
 * has none, but still has to start fusermount3.
 */
static errint_t keep_privileges(struct daemon *d)
{
	errint_t err = attendant_start(&d->attendant);

	if (err)
		return complain("cannot start a process: %s.", strerror(-err));
	raise_open_files();
	err = raise_file_size(d);
	if (err)
		return err;
	err = privileges_keep_daemon();
	if (err == -EPERM)
		return complain("cannot take on users: the securebits say that capabilities stay "
				"with a change of user (no_setuid_fixup), and are locked.");
	if (!err && geteuid() == 0)
		err = privileges_freeze();
	return err ? complain("cannot give up privileges: %s.", strerror(-err)) : 0;
}

/* Mounted, and nobody served yet: the threads that are there are filtered along. */
static errint_t filter_syscalls(const struct daemon *d)
{
	const struct syscall_filter filter = {
		.user = SYSCALLS_DAEMON,
		.io_uring = d->options.transport == TRANSPORT_IO_URING,
		.children = {d->guardian, d->attendant.pid},
	};
	errint_t err = d->options.seccomp ? syscall_filter_install(&filter) : privileges_freeze();

	return err ? complain("cannot restrict system calls: %s. Without that: -o seccomp=off.",
			      strerror(-err))
		   : 0;
}

static errint_t start(struct daemon *d)
{
	errint_t err = keep_privileges(d);

	if (err)
		return err;
	/* Before the pool, whose hash tables have a thread of their own. */
	state_open(&d->options, d->place.source, &d->state);
	err = fusefs_new(&d->options, d->place.source_fd, &d->fs);
	if (err)
		return complain("cannot set up the pool: %s.", strerror(-err));
	fusefs_use_state(d->fs, &d->state);
	if (d->options.watch && start_watch(d))
		return -EINVAL;
	block_end_signals(d);
	err = mount_session(d);
	if (!err)
		err = open_control(d);
	if (err)
		return err;
	/* What is created for a caller has the caller's umask; ours must not add to it. */
	umask(0);
	protect_from_memory_pressure();
	/* Where there can be none, a mount that hangs after kill -9 is the user's to abort. */
	(void)guardian_start(d->mount.abort, &d->guardian);
	/* Without it the window is held to its budget less closely: see window_trim.c. */
	(void)dirty_limit_set(d->mount.entry.device_major, d->mount.entry.device_minor,
			      d->options.window_bytes);
	err = detach(d);
	/* Before the threads: one of them looks at the scan when the status is asked. */
	if (!err)
		state_start_scan(&d->options, d->place.source_fd, &d->state);
	if (!err)
		err = filter_syscalls(d);
	if (!err)
		err = start_threads(d);
	if (!err && send(d->asker, "", 1, MSG_NOSIGNAL) != 1)
		err = complain("the process that started the mount is gone.");
	return err;
}

/* Everything that start() did, backwards, however far it came. */
static void stop(struct daemon *d)
{
	/* Those that may be at the source are all told to end before any is waited for: somebody
	 * may be about to unmount it. */
	if (d->end_thread_runs)
		pthread_cancel(d->end_thread);
	control_end(d->control);
	/* It may have answers to give. */
	if (d->fs)
		fusefs_quiesce(d->fs);
	/* Who asks for the status looks at the scan. */
	control_free(d->control);
	if (d->end_thread_runs)
		pthread_join(d->end_thread, NULL);
	state_stop_scan(&d->state);
	if (d->session) {
		unmount(d, false);
		fuse_session_destroy(d->session);
	}
	/* Whoever unmounts the source next does not have to wait for the rest. */
	if (d->fs)
		fusefs_leave_source(d->fs);
	place_leave(&d->place);
	/* The asker, should it still wait for the mount, has its answer now. */
	if (d->ready_thread_runs) {
		shutdown(d->asker, SHUT_WR);
		pthread_join(d->ready_thread, NULL);
	}
	if (d->fs)
		fusefs_finish(d->fs);
	state_close(&d->state);
	guardian_stop(d->guardian);
	attendant_stop(&d->attendant);
	/* Until here something may have waited for the source. */
	if (d->force_thread_runs) {
		pthread_cancel(d->force_thread);
		pthread_join(d->force_thread, NULL);
	}
	/* In the foreground each has been a line already. */
	if (log_is_to_system() && syscall_filter_refused() > 0)
		complain("%u system calls were refused.", syscall_filter_refused());
	close(d->asker);
}

/* The last thing: by now umount -f, which aborts before it unmounts, has done both. */
static errint_t check_not_aborted(const struct daemon *d)
{
	bool told = atomic_load(&d->told);
	char *place = own_mount_is_left(&d->mount, !told) ? own_mount_place(&d->mount) : NULL;
	errint_t err = 0;

	if (place)
		err = complain("%s: the mount on %s stays, dead, until it is unmounted "
			       "(umount %s).",
			       told ? "it cannot be taken away" : "the connection was aborted",
			       place, place);
	free(place);
	return err;
}

static int run(struct daemon *d)
{
	errint_t err = start(d);

	if (!err) {
		err = fusefs_serve(d->fs, d->session);
		sd_notify(0, "STOPPING=1");
		limit_end(d);
		if (err)
			complain("serving %s on %s ended: %s.", d->place.source,
				 d->place.mountpoint, strerror(-err));
		/* Requests that nobody answers any more are to fail, not to hang. As a plain user
		 * the kernel does this when we end. */
		if (err)
			unmount(d, true);
	}
	stop(d);
	if (!err)
		err = check_not_aborted(d);
	own_mount_clear(&d->mount);
	return err ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void daemon_clear(struct daemon *d)
{
	place_clear(&d->place);
	options_clear(&d->options);
}

static int mount_and_serve(struct daemon *d)
{
	if (preflight(&d->options, &d->place) || split_processes(d))
		return EXIT_FAILURE;
	return run(d);
}

int main(int argc, char *argv[])
{
	struct daemon d = {.place = PLACE_NONE, .attendant.socket = -1, .mount = OWN_MOUNT_NONE};
	int status = EXIT_SUCCESS;

	privileges_begin();
	memory_begin();
	if (argc > 1 && strcmp(argv[1], "--estimate") == 0)
		return scan_estimate(argv + 2);
	fuse_set_log_func(log_line);
	if (options_parse(argc, argv, &d.options))
		return EXIT_FAILURE;
	if (d.options.show_help)
		options_print_help(argc > 0 ? argv[0] : "foldfs");
	else if (d.options.show_version)
		printf("foldfs %s (libfuse %s)\n", FOLDFS_VERSION, fuse_pkgversion());
	else if (d.options.remount.asked)
		status = remount_run(&d.options.remount, d.options.mountpoint) ? EXIT_FAILURE
									       : EXIT_SUCCESS;
	else
		status = mount_and_serve(&d);
	daemon_clear(&d);
	return status;
}
