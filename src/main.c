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
 * serving, control socket, unmount, free. By umount(8) the kernel has done the first by itself.
 * What hangs, as the source does, holds this up for END_SECONDS at most.
 */
#include "foldfs/attendant.h"
#include "foldfs/bdi.h"
#include "foldfs/control_place.h"
#include "foldfs/control_tasks.h"
#include "foldfs/fusefs.h"
#include "foldfs/guardian.h"
#include "foldfs/mounts.h"
#include "foldfs/options.h"
#include "foldfs/privileges.h"
#include "foldfs/scan_command.h"
#include "foldfs/state.h"
#include "foldfs/status.h"
#include "foldfs/syscall_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <syslog.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define NESTED_MAX 16
/* How long the write-back before an end by signal may take. */
#define FLUSH_MS 5000
/* How long no request must have come before the write-back is taken to be over. */
#define QUIET_MS 50
#define STEP_MS  10
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

/* Where log lines go; set once, before any thread runs. */
static bool log_to_syslog;
/* Lines of weight that were logged; whether a failure has been explained yet. */
static _Atomic unsigned errors_logged;

struct daemon {
	struct options options;
	char *source;     /* absolute */
	char *mountpoint; /* absolute */
	int source_fd;
	int asker;       /* a socket to the process that asks the first question */
	pid_t asker_pid; /* 0: not our child */
	struct state state;
	struct attendant attendant;
	pid_t guardian; /* 0: there is none */
	struct fusefs *fs;
	struct fuse_session *session;
	struct mount_entry entry; /* of our mount */
	struct status_context status;
	struct control *control;
	sigset_t end_signals; /* blocked in every thread; end_thread waits for them */
	pthread_t end_thread;
	pthread_t ready_thread;
	pthread_t force_thread;
	bool end_thread_runs;
	bool force_thread_runs; /* of whoever set ending; anybody's once end_thread has ended */
	atomic_bool ending;     /* whoever sets it starts force_thread */
	bool ready_thread_runs;
	bool mounted;
	atomic_bool unmounting; /* whoever sets it unmounts */
};

/* libfuse begins its lines with its own name and ends them with a newline. */
__attribute__((format(printf, 2, 0))) static void log_line(enum fuse_log_level level,
							   const char *format, va_list args)
{
	static const char prefix[] = "fuse: ";
	char text[1024];
	char *start = text;
	size_t length;

	if (level <= FUSE_LOG_ERR)
		atomic_fetch_add(&errors_logged, 1);
	vsnprintf(text, sizeof(text), format, args);
	if (strncmp(start, prefix, strlen(prefix)) == 0)
		start += strlen(prefix);
	length = strlen(start);
	if (length > 0 && start[length - 1] == '\n')
		start[length - 1] = '\0';
	if (log_to_syslog)
		syslog((int)level, "%s", start);
	else
		fprintf(stderr, "foldfs: %s\n", start);
}

__attribute__((format(printf, 1, 2))) static errint_t complain(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_line(FUSE_LOG_ERR, format, args);
	va_end(args);
	return -EINVAL;
}

/* ---- before the mount: what can be wrong ------------------------------------------------------
 */

static errint_t open_source(struct daemon *d)
{
	const char *source = d->options.source;

	d->source_fd = open(source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->source_fd < 0 && errno == ENOTDIR)
		return complain("the source %s is not a directory.", source);
	if (d->source_fd < 0)
		return complain("cannot open the source %s: %s.", source, strerror(errno));
	if (faccessat(d->source_fd, ".", X_OK, AT_EACCESS) != 0)
		return complain("cannot look into the source %s: %s.", source, strerror(errno));
	d->source = realpath(source, NULL);
	if (!d->source)
		return complain("cannot resolve the source %s: %s.", source, strerror(errno));
	return 0;
}

/* What comes by a file of a pseudo file system is judged by who opened it: the daemon. */
static errint_t check_source_type(const struct daemon *d)
{
	struct mount_entry entry = {0};
	errint_t err = 0;

	/* Where it cannot be told, the source is a mount of no usual kind: so be it. */
	if (!d->options.pseudo_filesystems && mount_entry_of_fd(d->source_fd, &entry) == 0 &&
	    border_is_pseudo(entry.type))
		err = complain("the source %s is on a pseudo file system (%s), whose files would "
			       "act with the daemon's rights for everybody: mount it with -o "
			       "pseudo-filesystems if that is meant.",
			       d->source, entry.type);
	mount_entry_clear(&entry);
	return err;
}

/* Whether the file system that ENTRY is the mount of is the source itself, seen at the mount point:
 * SOURCE and MOUNTPOINT are one directory then, which is mounted over on purpose. */
static bool is_source(const struct daemon *d, const struct mount_entry *entry)
{
	struct stat source, at;

	return fstat(d->source_fd, &source) == 0 &&
	       source.st_dev == makedev(entry->device_major, entry->device_minor) &&
	       stat(d->options.mountpoint, &at) == 0 && at.st_dev == source.st_dev &&
	       at.st_ino == source.st_ino;
}

/* The mount point is looked up in the list of mounts first: a dead mount there must not hold us up.
 */
static errint_t check_not_busy(const struct daemon *d)
{
	struct mount_entry entry;
	bool busy;
	errint_t err = mount_entry_find(d->options.mountpoint, &entry);

	if (err == -ENOENT)
		return 0;
	if (err)
		return complain("cannot look up the mount point %s: %s.", d->options.mountpoint,
				strerror(-err));
	/* What stands behind an automount point is mounted over it. */
	busy = strcmp(entry.type, "autofs") != 0 &&
	       (strncmp(entry.type, "fuse", 4) == 0 || !is_source(d, &entry));
	if (busy)
		err = complain("the mount point %s is busy: %s (%s) is mounted there already.",
			       d->options.mountpoint, entry.source, entry.type);
	mount_entry_clear(&entry);
	return err;
}

static errint_t check_mountpoint(struct daemon *d)
{
	const char *mountpoint = d->options.mountpoint;
	errint_t err = check_not_busy(d);
	struct stat st;

	if (err)
		return err;
	if (stat(mountpoint, &st) != 0)
		return complain("cannot use the mount point %s: %s.", mountpoint, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return complain("the mount point %s is not a directory.", mountpoint);
	d->mountpoint = realpath(mountpoint, NULL);
	if (!d->mountpoint)
		return complain("cannot resolve the mount point %s: %s.", mountpoint,
				strerror(errno));
	return 0;
}

/*
 * Whether PATH, absolute, lies strictly inside the directory that ST is of. By identity, from
 * PATH's parent up: symlinks and bind mounts lead to the same directory by other names. PATH itself
 * is not opened (it may be an automount point).
 */
static bool lies_inside(const char *path, const struct stat *st)
{
	const char *slash = strrchr(path, '/');
	char *parent = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	int fd = parent ? open(parent, O_PATH | O_CLOEXEC) : -1;
	struct stat here, last = {0};
	bool inside = false;

	free(parent);
	if (strcmp(path, "/") == 0 && fd >= 0) {
		close(fd);
		return false;
	}
	while (fd >= 0 && !inside && fstat(fd, &here) == 0 &&
	       (here.st_dev != last.st_dev || here.st_ino != last.st_ino)) {
		int up = openat(fd, "..", O_PATH | O_CLOEXEC);

		inside = here.st_dev == st->st_dev && here.st_ino == st->st_ino;
		last = here;
		close(fd);
		fd = up;
	}
	if (fd >= 0)
		close(fd);
	return inside;
}

/*
 * A mount point inside its own source would loop: the daemon, walking the source, would come to its
 * own mount and wait for itself. So it would where the source lies in another foldfs mount and the
 * mount point in that one's source; there it takes two daemons that wait for each other.
 */
static errint_t check_loop(const struct daemon *d)
{
	struct mount_entry entry = {0};
	struct stat st;
	errint_t err = 0;
	int fd;

	if (fstat(d->source_fd, &st) != 0)
		return complain("cannot look at the source %s: %s.", d->source, strerror(errno));
	if (lies_inside(d->mountpoint, &st))
		return complain("the mount point %s lies inside the source %s: that would loop.",
				d->mountpoint, d->source);
	fd = dup(d->source_fd);
	for (int depth = 0; depth < NESTED_MAX && fd >= 0 && !err; depth++) {
		bool nested = mount_entry_of_fd(fd, &entry) == 0 &&
			      strcmp(entry.type, "fuse.foldfs") == 0 && entry.source[0] == '/' &&
			      stat(entry.source, &st) == 0;

		close(fd);
		fd = -1;
		/* Mounted over its own source: nothing that has a path now is below it. */
		if (nested && st.st_dev == makedev(entry.device_major, entry.device_minor))
			nested = false;
		if (nested && lies_inside(d->mountpoint, &st))
			err = complain("the source %s is served by the foldfs mount %s, and the "
				       "mount point %s lies inside that one's source: that would "
				       "loop.",
				       d->source, entry.mountpoint, d->mountpoint);
		if (nested && !err)
			fd = open(entry.source, O_PATH | O_DIRECTORY | O_CLOEXEC);
		mount_entry_clear(&entry);
	}
	if (fd >= 0)
		close(fd);
	return err;
}

static errint_t check_transport(const struct daemon *d)
{
	static const char parameter[] = "/sys/module/fuse/parameters/enable_uring";
	FILE *file;
	int value;

	if (d->options.transport != TRANSPORT_IO_URING)
		return 0;
	file = fopen(parameter, "re");
	value = file ? fgetc(file) : EOF;
	if (file)
		fclose(file);
	if (value == EOF)
		return complain("transport=io_uring needs Linux 6.14 or newer, and the fuse module "
				"loaded.");
	if (value != 'Y' && value != '1')
		return complain("transport=io_uring is switched off: write Y to %s first.",
				parameter);
	return 0;
}

/* ---- the two processes ------------------------------------------------------------------------
 */

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
		_exit(ask(ends[0], d->mountpoint));
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
	openlog("foldfs", LOG_PID, LOG_DAEMON);
	log_to_syslog = true;
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
		sd_notifyf(0, "READY=1\nSTATUS=Serving %s on %s", d->source, d->mountpoint);
	return NULL;
}

/* ---- the end by signal ------------------------------------------------------------------------
 */

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
static void remove_mount(struct daemon *d)
{
	if (umount2(d->mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return;
	if (geteuid() != 0)
		attendant_unmount(&d->attendant);
	else
		complain("cannot unmount %s: %s.", d->mountpoint, strerror(errno));
}

/* Unmount, if nobody else has, even if the mount is dead because its connection was aborted. */
static void unmount(struct daemon *d)
{
	struct mount_entry entry;

	if (!d->mounted || atomic_exchange(&d->unmounting, true))
		return;
	hang_up(d);
	fuse_session_unmount(d->session);
	if (mount_entry_find(d->mountpoint, &entry) != 0)
		return;
	if (entry.device_major == d->entry.device_major &&
	    entry.device_minor == d->entry.device_minor)
		remove_mount(d);
	mount_entry_clear(&entry);
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
	complain("the source %s does not answer: ended without waiting for it.", d->source);
	(void)umount2(d->mountpoint, MNT_FORCE);
	unmount(d);
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
 * a FUSE mount syncfs(2) may only begin that, and return while the server does not even run (seen
 * with Linux 6.18.44). So what comes of it is awaited. What a thread has read it finishes; what is
 * in the queue is to be read yet.
 */
static void flush_mount(const struct daemon *d)
{
	struct pollfd queue = {.fd = fuse_session_fd(d->session), .events = POLLIN};
	const struct timespec step = {.tv_nsec = STEP_MS * 1000000L};
	int quiet = 0;

	attendant_flush(&d->attendant, FLUSH_MS);
	for (int waited = 0; quiet < QUIET_MS && waited < FLUSH_MS; waited += STEP_MS) {
		nanosleep(&step, NULL);
		quiet = poll(&queue, 1, 0) > 0 ? 0 : quiet + STEP_MS;
	}
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

/* ---- the daemon -------------------------------------------------------------------------------
 */

/* As many open files as we may have: where the source has no file handles, inodes need descriptors.
 */
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

	/* libfuse searches fusermount3 in PATH, where it is not in its usual place. Root does not
	 * run what somebody's PATH leads to; a plain user's is the user's own. */
	if (geteuid() == 0 && setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1) != 0)
		return complain("not enough memory.");
	d->session = fuse_session_new(&d->options.fuse, &fusefs_operations,
				      sizeof(fusefs_operations), d->fs);
	if (!d->session)
		return atomic_load(&errors_logged) ? -EINVAL
						   : complain("libfuse cannot make a session.");
	before = atomic_load(&errors_logged);
	if (fuse_session_mount(d->session, d->mountpoint) != 0)
		/* libfuse, or fusermount3, has given the cause. */
		return atomic_load(&errors_logged) != before
			       ? -EINVAL
			       : complain("cannot mount on %s.", d->mountpoint);
	d->mounted = true;
	return 0;
}

static errint_t open_control(struct daemon *d)
{
	struct control_place place;
	char name[MOUNT_SOCKET_NAME];
	struct timespec now;
	errint_t err = mount_entry_find(d->mountpoint, &d->entry);

	if (err)
		return complain("cannot find the new mount on %s: %s.", d->mountpoint,
				strerror(-err));
	clock_gettime(CLOCK_MONOTONIC, &now);
	d->status = (struct status_context){
		.fs = d->fs,
		.source = d->source,
		.mountpoint = d->mountpoint,
		.state = &d->state,
		.started = now.tv_sec,
	};
	mount_socket_name(&d->entry, name);
	err = control_place_make(&place);
	if (!err)
		err = control_new(place.fd, name, &d->status, &d->control);
	if (!err)
		control_tasks_add(d->control, d->fs);
	else
		fuse_log(FUSE_LOG_WARNING,
			 "there is no control socket, and so no foldctl for this mount: %s: %s.\n",
			 place.path ? place.path : "no place for it",
			 err == -EPERM ? "others may write there" : strerror(-err));
	control_place_clear(&place);
	return 0;
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
				d->source);
	case -ENOSYS:
		return complain("watch needs Linux 5.9 or newer, with fanotify.");
	default:
		return complain("cannot watch %s: %s.", d->source, strerror(-err));
	}
}

/*
 * What the daemon does without from here on. Capabilities are each thread's own, and so they go
 * before there is a second one; the attendant is made while processes can be. A plain user's daemon
 * has none, but still has to start fusermount3.
 */
static errint_t keep_privileges(struct daemon *d)
{
	errint_t err = attendant_start(d->mountpoint, &d->attendant);

	if (err)
		return complain("cannot start a process: %s.", strerror(-err));
	raise_open_files();
	err = privileges_keep_daemon();
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
	state_open(&d->options, d->source, &d->state);
	err = fusefs_new(&d->options, d->source_fd, &d->fs);
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
	(void)guardian_start(d->entry.device_minor, &d->guardian);
	/* Without it the window is held to its budget less closely: see window_trim.c. */
	(void)bdi_limit_dirty(d->entry.device_major, d->entry.device_minor,
			      d->options.window_bytes);
	err = detach(d);
	/* Before the threads: one of them looks at the scan when the status is asked. */
	if (!err)
		state_start_scan(&d->options, d->source_fd, &d->state);
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
	if (d->end_thread_runs) {
		pthread_cancel(d->end_thread);
		pthread_join(d->end_thread, NULL);
	}
	/* Who asks for the status looks at the scan. */
	control_free(d->control);
	state_stop_scan(&d->state);
	if (d->session) {
		unmount(d);
		/* It may have answers to give. */
		if (d->fs)
			fusefs_quiesce(d->fs);
		fuse_session_destroy(d->session);
	}
	/* The asker, should it still wait for the mount, has its answer now. */
	if (d->ready_thread_runs) {
		shutdown(d->asker, SHUT_WR);
		pthread_join(d->ready_thread, NULL);
	}
	if (d->fs)
		fusefs_free(d->fs);
	state_close(&d->state);
	guardian_stop(d->guardian);
	attendant_stop(&d->attendant);
	/* Until here something may have waited for the source. */
	if (d->force_thread_runs) {
		pthread_cancel(d->force_thread);
		pthread_join(d->force_thread, NULL);
	}
	/* In the foreground each has been a line already. */
	if (log_to_syslog && syscall_filter_refused() > 0)
		complain("%u system calls were refused.", syscall_filter_refused());
	mount_entry_clear(&d->entry);
	close(d->asker);
}

static int run(struct daemon *d)
{
	errint_t err = start(d);

	if (!err) {
		err = fusefs_serve(d->fs, d->session);
		sd_notify(0, "STOPPING=1");
		limit_end(d);
		if (err)
			complain("serving %s on %s ended: %s.", d->source, d->mountpoint,
				 strerror(-err));
		/* Requests that nobody answers any more are to fail, not to hang. As a plain user
		 * the kernel does this when we end. */
		if (err)
			(void)umount2(d->mountpoint, MNT_FORCE);
	}
	stop(d);
	return err ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void daemon_clear(struct daemon *d)
{
	free(d->source);
	free(d->mountpoint);
	if (d->source_fd >= 0)
		close(d->source_fd);
	options_clear(&d->options);
}

static int mount_and_serve(struct daemon *d)
{
	if (open_source(d) || check_source_type(d) || check_mountpoint(d) || check_loop(d) ||
	    check_transport(d) || split_processes(d))
		return EXIT_FAILURE;
	return run(d);
}

int main(int argc, char *argv[])
{
	struct daemon d = {.source_fd = -1, .attendant.socket = -1};
	int status = EXIT_SUCCESS;

	privileges_begin();
	if (argc > 1 && strcmp(argv[1], "--estimate") == 0)
		return scan_estimate(argv + 2);
	fuse_set_log_func(log_line);
	if (options_parse(argc, argv, &d.options))
		return EXIT_FAILURE;
	if (d.options.show_help)
		options_print_help(argc > 0 ? argv[0] : "foldfs");
	else if (d.options.show_version)
		printf("foldfs %s (libfuse %s)\n", FOLDFS_VERSION, fuse_pkgversion());
	else
		status = mount_and_serve(&d);
	daemon_clear(&d);
	return status;
}
