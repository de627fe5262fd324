/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - options, mount, start and stop in order
 *
 * Two processes start a mount (two_processes.c): the daemon, and the asker, which asks the mount
 * its first question and reports whether the mount answered.
 *
 * Order of the start: check everything that can be checked, open the source (a mount over it then
 * covers nothing that the daemon needs), fork, mount, control socket, leave the terminal, serve.
 * Until the daemon leaves the terminal, errors reach stderr and lead to status 1; later ones reach
 * the system log. No thread runs before the fork.
 *
 * Order of the end: stop serving, control socket, unmount, leave the source, free (shutdown.c).
 *
 * A mount was aborted if it stands although its connection has ended and the daemon was not told to
 * end. Such a mount is left there, dead: below it is a bare directory, in which clients would
 * otherwise go on working.
 */
#include "control_requests.h"
#include "daemon.h"
#include "exchange.h"
#include "foldfs/clock.h"
#include "foldfs/control_place.h"
#include "foldfs/fusefs.h"
#include "foldfs/memory.h"
#include "foldfs/passthrough.h"
#include "foldfs/privileges.h"
#include "foldfs/scan_command.h"
#include "foldfs/scan_options.h"
#include "guardian.h"
#include "log.h"
#include "options_parse.h"
#include "options_words.h"
#include "remount.h"
#include "resources.h"
#include "source_claim.h"
#include "syscall_filter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
/* Threads that read requests end by pthread_cancel(). The stack frames that are unwound keep
 * AddressSanitizer's marks, and its own later use of that stack would trip over them. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "use_sigaltstack=0";
}
#endif

static errint_t open_control(struct daemon *d)
{
	struct control_place place;
	char name[MOUNT_SOCKET_NAME];
	errint_t error;

	d->status = (struct figures_context){
		.fs = d->fs,
		.source = d->place.source,
		.mountpoint = d->place.mountpoint,
		.mount = &d->mount,
		.state = &d->state,
		.started = clock_now_ns() / NS_PER_S,
		.settings = &d->settings,
		.set = settings_answer,
		.settings_text = settings_text,
		.records = d->records,
	};
	mount_socket_name(&d->mount.entry, name);
	error = control_place_make(d->options.control, &place);
	if (!error)
		error = control_new(place.fd, name, control_requests, &d->status, &d->control);
	if (error && d->options.control)
		complain("cannot make the control socket in %s: %s.", d->options.control,
			 error == -EPERM ? "others may write there" : strerror(-error));
	else if (error)
		fuse_log(FUSE_LOG_WARNING,
			 "there is no control socket, so foldctl cannot ask this mount: %s: %s.\n",
			 place.path ? place.path : "no directory for it can be had",
			 error == -EPERM ? "others may write there" : strerror(-error));
	control_place_clear(&place);
	/* If what was asked for by name cannot be had, nothing is mounted. */
	return d->options.control ? error : 0;
}

static errint_t start_threads(struct daemon *d)
{
	errint_t error = d->control ? control_start(d->control) : 0;

	if (!error)
		error = -pthread_create(&d->end_thread, NULL, shutdown_wait, d);
	d->end_thread_runs = error == 0;
	if (!error)
		error = -pthread_create(&d->ready_thread, NULL, two_processes_ready, d);
	d->ready_thread_runs = error == 0;
	if (error)
		complain("cannot start a thread: %s.", strerror(-error));
	return error;
}

/* Report why the source cannot be followed, if ERROR says so. */
static errint_t check_watch(const struct daemon *d, errint_t error)
{
	char *problem = error ? settings_watch_problem(error, d->place.source) : NULL;

	if (!error)
		return 0;
	complain("%s", problem ? problem : "not enough memory.");
	free(problem);
	return -EINVAL;
}

static void prepare_settings(struct daemon *d)
{
	d->settings = (struct settings){
		.fs = d->fs,
		.state = &d->state,
		.mount = &d->mount,
		.records = d->records,
		.source = d->place.source,
		.source_fd = d->place.source_fd,
		.options = &d->options,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
}

/*
 * Give up what the daemon does without from here on. Capabilities belong to each thread, so they go
 * before there is a second thread. The attendant is made while processes can still be made. A plain
 * user's daemon has no capabilities, but still has to start fusermount3.
 */
static errint_t keep_privileges(struct daemon *d)
{
	errint_t error = attendant_start(&d->attendant);

	if (error)
		return complain("cannot start a process: %s.", strerror(-error));
	resources_raise_open_files();
	error = resources_raise_file_size(d->options.read_only);
	if (error)
		return error;
	error = privileges_keep_daemon();
	if (error == -EPERM)
		return complain("cannot act as other users: a locked securebit (no_setuid_fixup) "
				"keeps capabilities over a change of user.");
	if (!error && geteuid() == 0)
		error = privileges_freeze();
	return error ? complain("cannot give up privileges: %s.", strerror(-error)) : 0;
}

/* The mount stands, and nobody is served yet. The filter covers the threads that already exist,
 * too. */
static errint_t filter_syscalls(const struct daemon *d)
{
	const struct syscall_filter filter = {
		.user = SYSCALLS_DAEMON,
		.io_uring = d->options.transport == TRANSPORT_IO_URING,
		.children = {d->guardian, d->attendant.pid},
	};
	errint_t error = d->options.seccomp ? syscall_filter_install(&filter) : privileges_freeze();

	return error ? complain("cannot restrict system calls: %s. To mount without this: -o "
				"seccomp=off.",
				strerror(-error))
		     : 0;
}

/* What is done once: give up what nobody needs from here on, and mount. */
static errint_t prepare(struct daemon *d)
{
	char format[SESSION_FORMAT_BYTES];
	errint_t error = keep_privileges(d);

	if (error)
		return error;
	shutdown_block_signals(d);
	handover_format(format);
	if (session_new(format, &d->records))
		return complain("not enough memory.");
	state_place_open(&d->options, d->place.source, &d->state_place);
	d->place.view_fd = passthrough_open_view(d->place.source_fd);
	/* Nothing is mounted if what was asked for cannot be had. */
	if (d->options.watch && check_watch(d, fusefs_watch_check(d->place.source_fd)))
		return -EINVAL;
	error = connection_open(d);
	if (error)
		return error;
	d->records->survives = d->options.survive && connection_resends(d->records);
	if (d->options.words->survive && d->options.survive && !d->records->survives)
		fuse_log(FUSE_LOG_WARNING,
			 "survive=on needs Linux 6.9: if the daemon dies, the mount ends.\n");
	/* A client's new file gets the client's umask; the daemon's own must not add to it. */
	umask(0);
	resources_protect();
	d->place.claim_fd = source_claim(d->place.source_fd, d->place.source, d->options.read_only);
	return 0;
}

/* Make everything behind the mount. */
static errint_t build(struct daemon *d)
{
	const struct fusefs_parts parts = {
		.options = &d->options,
		.source_fd = d->place.source_fd,
		.view_fd = d->place.view_fd,
		.records = d->records,
		.takeover = &d->takeover,
	};
	errint_t error;

	if (settings_recall(d->records, &d->options))
		complain("what was set since the mount on %s is lost: it is as at its start.",
			 d->place.mountpoint);
	/* Before the pool, whose hash tables have a thread of their own. */
	state_open(&d->options, d->place.source, &d->state_place, &d->state);
	session_begin(d->records);
	error = fusefs_new(&parts, &d->fs);
	if (error)
		return complain("cannot set up the pool: %s.", strerror(-error));
	fusefs_use_state(d->fs, &d->state);
	prepare_settings(d);
	return d->options.watch ? check_watch(d, fusefs_watch(d->fs)) : 0;
}

/* Have the asker ask, if no earlier worker has. */
static errint_t call_asker(struct daemon *d)
{
	if (d->records->asked)
		return 0;
	d->records->asked = true;
	return send(d->asker, "", 1, MSG_NOSIGNAL) == 1
		       ? 0
		       : complain("the process that started the mount has ended.");
}

static errint_t start(struct daemon *d)
{
	errint_t error = build(d);

	if (!error)
		error = connection_serve(d);
	if (!error)
		error = open_control(d);
	if (error)
		return error;
	/* Without a guardian, the user has to abort a mount that hangs after kill -9. A keeper does
	 * what it does. */
	if (!d->records->survives)
		(void)guardian_start(d->mount.abort, &d->guardian);
	settings_limit_dirty(&d->settings);
	if (!d->records->asked)
		error = two_processes_detach(d);
	/* Before the threads start: one of them looks at the scan when the status is asked. */
	if (!error)
		state_start_scan(&d->options, d->place.source_fd, &d->state);
	if (!error)
		error = filter_syscalls(d);
	if (!error)
		error = start_threads(d);
	if (!error)
		error = call_asker(d);
	return error;
}

static void serves(void *arg)
{
	struct daemon *d = arg;

	/* In this order: a worker that serves is never one of an exchange that is still open. */
	if (d->records->survives)
		exchange_served(d->records);
	atomic_store(&d->records->serves, true);
}

/* Undo everything that prepare() and start() did, in reverse order, however far they came. */
static void stop(struct daemon *d)
{
	/* Tell all threads that may be at the source to end, before waiting for any: somebody may
	 * be about to unmount the source. */
	if (d->end_thread_runs)
		pthread_cancel(d->end_thread);
	control_end(d->control);
	/* Requests may still have to be answered. */
	if (d->fs)
		fusefs_quiesce(d->fs);
	/* Before the scan is stopped: a thread that answers a status request looks at the scan. */
	control_stop(d->control);
	/* A dead mount keeps its socket's name. The directory is let go of as soon as possible: it
	 * may be on a file system that is about to be unmounted. */
	if (!shutdown_may_leave_mount(d)) {
		control_free(d->control);
		d->control = NULL;
	}
	if (d->end_thread_runs)
		pthread_join(d->end_thread, NULL);
	state_stop_scan(&d->state);
	if (d->records && d->records->device >= 0)
		shutdown_unmount(d, false);
	if (d->session)
		fuse_session_destroy(d->session);
	/* From here the source can be unmounted, without waiting for the rest. */
	if (d->fs)
		fusefs_leave_source(d->fs);
	place_leave(&d->place);
	/* If the asker still waits for the mount, it has its answer now. */
	if (d->ready_thread_runs) {
		shutdown(d->asker, SHUT_WR);
		pthread_join(d->ready_thread, NULL);
	}
	if (d->fs)
		fusefs_finish(d->fs);
	state_close(&d->state);
	state_place_clear(&d->state_place);
	guardian_stop(d->guardian);
	attendant_stop(&d->attendant);
	/* Until here something may have waited for the source. */
	if (d->force_thread_runs) {
		pthread_cancel(d->force_thread);
		pthread_join(d->force_thread, NULL);
	}
	/* In the foreground, each refused call has been reported already. */
	if (log_is_to_system() && syscall_filter_refused() > 0)
		complain("%u system calls were refused.", syscall_filter_refused());
	close(d->asker);
}

/* Make way for another program. All that it needs is in the session and in the kernel. */
static _Noreturn void hand_over(struct daemon *d)
{
	control_stop(d->control);
	atomic_store(&d->records->made_way, true);
	_exit(EXIT_SUCCESS);
}

/* If this worker could not take over, another one is to try. Nothing of the mount may be
 * touched. */
static void leave_to_others(const struct daemon *d)
{
	if (!atomic_load(&d->records->serves) && session_continues(d->records))
		_exit(EXIT_FAILURE);
}

static int serve(struct daemon *d)
{
	errint_t error = start(d);

	if (!error) {
		error = fusefs_serve(d->fs, d->session, serves, d);
		if (!error && atomic_load(&d->hands_over))
			hand_over(d);
		sd_notify(0, "STOPPING=1");
		shutdown_limit(d);
		if (error)
			complain("serving %s on %s ended: %s.", d->place.source,
				 d->place.mountpoint, strerror(-error));
		leave_to_others(d);
		/* Requests that will not be answered any more must fail, not hang. For a plain
		 * user's daemon the kernel does this when the daemon ends. */
		if (error)
			shutdown_unmount(d, true);
	}
	leave_to_others(d);
	stop(d);
	if (!error) {
		error = shutdown_check_not_aborted(d);
		if (error)
			control_keep_name(d->control);
	}
	control_free(d->control);
	own_mount_clear(&d->mount);
	return error ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void daemon_clear(struct daemon *d)
{
	place_clear(&d->place);
	options_clear(&d->options);
}

static int keep(struct daemon *d, char *argv[])
{
	int status = keeper_run(d, argv, serve);

	own_mount_clear(&d->mount);
	state_place_clear(&d->state_place);
	return status;
}

/* Take the place of the program that keeps a mount, whose session is in the file MEMORY. */
static int take_place(struct daemon *d, int memory, char *argv[])
{
	errint_t error = handover_take(d, memory);

	if (error) {
		complain("cannot take over from another program: %s.", strerror(-error));
		return EXIT_FAILURE;
	}
	shutdown_block_signals(d);
	return keep(d, argv);
}

static int mount_and_serve(struct daemon *d, char *argv[])
{
	if (preflight(&d->options, &d->place) || two_processes_split(d))
		return EXIT_FAILURE;
	if (prepare(d)) {
		stop(d);
		return EXIT_FAILURE;
	}
	if (d->records->survives)
		return keep(d, argv);
	d->records->workers = 1;
	return serve(d);
}

/* For the keeper of a mount that is asked to exchange its program for this one. */
static int print_format(void)
{
	char format[SESSION_FORMAT_BYTES];

	handover_format(format);
	return puts(format) < 0 || fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char *argv[])
{
	struct daemon d = {
		.place = PLACE_NONE,
		.state_place = STATE_PLACE_NONE,
		.attendant.socket = -1,
		.mount = OWN_MOUNT_NONE,
	};
	int status = EXIT_SUCCESS;
	int taken = handover_begin();

	privileges_begin();
	memory_begin();
	if (argc > 1 && strcmp(argv[1], ESTIMATE_OPTION) == 0)
		return scan_estimate(argv + 2);
	if (argc == 2 && strcmp(argv[1], "--session-format") == 0)
		return print_format();
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
		status = taken < 0 ? mount_and_serve(&d, argv) : take_place(&d, taken, argv);
	daemon_clear(&d);
	return status;
}
