/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_watch.c - changes that others make in the source, as the kernel reports them
 *
 * A report names an object by its file handle, and a directory entry by the directory's handle and
 * the name. The handle is opened (O_PATH, nothing is read) to learn device and inode number.
 * Everything else here uses those two as the key.
 *
 * Bounds. The kernel holds the queue. It merges unread reports of one object by one process, and
 * keeps at most fs.fanotify.max_queued_events. Reports that do not fit are lost, and the kernel
 * says so. This file holds one buffer. So a busy writer costs one call for each time that the queue
 * is read, not for each write.
 *
 * Lost reports. The kernel says once that its queue is full, and does not say so again until that
 * message was read. So everything lost before then was reported before the message was read. A
 * sweep (the call `everything`) that begins afterwards covers it. For later losses there is a new
 * message. As long as a sweep is due, reports are read only to be skipped, if at all: the sweep
 * covers them too.
 *
 * Cost. Any user who may write to the file system can cause more reports than this thread can
 * follow. While the queue does not get empty, the thread rests for three quarters of the time. If
 * that makes the queue overflow, sweeps come later and later (PAUSE_*). Until the next sweep
 * nothing is read at all.
 *
 * Invariants:
 *  W.1 What is reported after a call began leads to another call. The reason: a report is taken
 *      from the queue before it is acted upon, and the change was made before it was reported.
 *  W.2 A report that cannot be followed up either is of an object that is gone, or counts as lost.
 *  W.3 Reports that are lost, or skipped because others were lost, lead to a sweep that begins
 *      later.
 *  W.4 All reports from before `calm` were followed, and none of them was lost.
 */
#include "source_watch.h"

#include "foldfs/clock.h"
#include "foldfs/counters.h"
#include "foldfs/rcu.h"
#include "source_handle.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_BYTES 16384u

/* Pause between two sweeps: the first one, and the longest. The pause doubles each time, except for
 * a sweep that comes at least PAUSE_QUIET after the last one, when the flood is over. If very many
 * files are known, the pause is longer: PAUSE_PARTS times the processor time that a sweep takes. */
#define PAUSE_MIN   (100 * NS_PER_MS)
#define PAUSE_MAX   (3200 * NS_PER_MS)
#define PAUSE_QUIET (5000 * NS_PER_MS)
#define PAUSE_PARTS 4
/* While the queue does not get empty, this thread works for SPELL, then rests for REST. */
#define SPELL (10 * NS_PER_MS)
#define REST  (30 * NS_PER_MS)
/* Number of buffers that are read and skipped before a sweep: more than a queue of the usual length
 * holds. */
#define PASSED_OVER 1024

/* The kernel does not report a store through a mapping. It does report the close of the file that
 * was mapped. */
#define CONTENT_EVENTS (FAN_MODIFY | FAN_CLOSE_WRITE)
#define NAME_EVENTS    (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO)

/* All fields are constant after source_watch_new(), except where marked. */
struct source_watch {
	const struct source_watch_calls *calls;
	void *context;
	struct counters *counters;
	int source_fd; /* borrowed */
	int fd;        /* fanotify's */
	int stop_fd;   /* an eventfd: readable when the thread is to end */
	pid_t self;
	pthread_mutex_t stop_lock;
	bool running;     /* under stop_lock */
	pthread_t thread; /* under stop_lock */
	/* the thread's own; times are of CLOCK_MONOTONIC, in nanoseconds */
	bool lost;       /* reports were lost or skipped: a sweep is due */
	bool drained;    /* the queue was empty at the last read */
	int64_t calm;    /* see W.4 */
	int64_t read_at; /* when reports were last read */
	int64_t spell;   /* when the thread began to work without a rest */
	int64_t swept;   /* when the last sweep ended */
	int64_t pause;   /* how long after swept the next sweep may begin */
	_Alignas(struct fanotify_event_info_fid) char buffer[BUFFER_BYTES];
};

/* What one report says. All pointers point into the buffer. */
struct report {
	uint64_t mask;
	struct file_handle *object;    /* NULL: it is of the directory itself, or of an entry */
	struct file_handle *directory; /* NULL: the kernel does not know where the object is */
	const char *name;              /* NULL: no name */
};

/* Processor time of this thread. */
static int64_t spent_ns(void)
{
	struct timespec spent;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
	return (int64_t)spent.tv_sec * NS_PER_S + spent.tv_nsec;
}

/* ---- start and end ---- */

/* Whether handles of this file system lead back to their objects, and the daemon may open them. */
static errint_t try_handles(int source_fd)
{
	union {
		struct file_handle handle;
		char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} any = {.handle.handle_bytes = MAX_HANDLE_SZ};
	int mount_id;
	int fd;

	if (name_to_handle_at(source_fd, "", &any.handle, &mount_id, AT_EMPTY_PATH))
		return -EOPNOTSUPP;
	fd = source_handle_open(source_fd, &any.handle, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return errno == EPERM ? -EPERM : -EOPNOTSUPP;
	close(fd);
	return 0;
}

static errint_t open_queue(struct source_watch *watch)
{
	const unsigned kind = FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_REPORT_DFID_NAME;
	const uint64_t events = CONTENT_EVENTS | NAME_EVENTS | FAN_ATTRIB | FAN_ONDIR;

	watch->fd = fanotify_init(kind | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY);
	if (watch->fd < 0)
		return errno == EINVAL ? -ENOSYS : -errno;
	if (!fanotify_mark(watch->fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, events, watch->source_fd,
			   NULL))
		return 0;
	switch (errno) {
	case ENODEV:
	case EXDEV:
	case EOPNOTSUPP:
		return -EOPNOTSUPP;
	case EINVAL:
		return -ENOSYS;
	default:
		return -errno;
	}
}

errint_t source_watch_new(int source_fd, const struct source_watch_calls *calls, void *context,
			  struct counters *counters, struct source_watch **ret_watch)
{
	struct source_watch *watch = calloc(1, sizeof(*watch));
	errint_t error;

	if (!watch)
		return -ENOMEM;
	watch->calls = calls;
	watch->context = context;
	watch->counters = counters;
	watch->source_fd = source_fd;
	watch->fd = -1;
	watch->self = getpid();
	watch->swept = -PAUSE_QUIET;
	pthread_mutex_init(&watch->stop_lock, NULL);
	watch->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	error = watch->stop_fd < 0 ? -errno : try_handles(source_fd);
	if (!error)
		error = open_queue(watch);
	if (error) {
		source_watch_free(watch);
		return error;
	}
	*ret_watch = watch;
	return 0;
}

void source_watch_stop(struct source_watch *watch)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&watch->stop_lock);
	if (watch->running) {
		/* Cannot fail: the counter is far from its maximum, and the write does not
		 * block. */
		(void)!write(watch->stop_fd, &one, sizeof(one));
		pthread_join(watch->thread, NULL);
	}
	watch->running = false;
	pthread_mutex_unlock(&watch->stop_lock);
}

void source_watch_free(struct source_watch *watch)
{
	if (!watch)
		return;
	source_watch_stop(watch);
	if (watch->fd >= 0)
		close(watch->fd);
	if (watch->stop_fd >= 0)
		close(watch->stop_fd);
	pthread_mutex_destroy(&watch->stop_lock);
	free(watch);
}

/* ---- reports ---- */

/* Copy what INFO says into REPORT. */
static void take_info(const struct fanotify_event_info_header *info, struct report *report)
{
	const struct fanotify_event_info_fid *fid = (const void *)info;
	struct file_handle *handle = (struct file_handle *)(uintptr_t)fid->handle;

	switch (info->info_type) {
	case FAN_EVENT_INFO_TYPE_FID:
		report->object = handle;
		break;
	case FAN_EVENT_INFO_TYPE_DFID_NAME:
		report->directory = handle;
		report->name = (const char *)handle->f_handle + handle->handle_bytes;
		break;
	case FAN_EVENT_INFO_TYPE_DFID:
		report->directory = handle;
		break;
	default: /* a kind that was not requested */
		break;
	}
}

/* Parse EVENT, which is at AT in the buffer. */
static void take_report(const struct fanotify_event_metadata *event, const char *at,
			struct report *ret_report)
{
	const char *end = at + event->event_len;

	*ret_report = (struct report){.mask = event->mask};
	at += event->metadata_len;
	while (at + sizeof(struct fanotify_event_info_fid) <= end) {
		const struct fanotify_event_info_header *info = (const void *)at;

		take_info(info, ret_report);
		at += info->len;
	}
}

/* Make a sweep due: at once, if the last one was long ago. */
static void lose(struct source_watch *watch)
{
	counters_add(watch->counters, COUNTER_WATCH_OVERFLOWS, 1);
	if (watch->lost)
		return;
	watch->lost = true;
	if (clock_now_ns() - watch->swept >= PAUSE_QUIET)
		watch->pause = 0;
	else if (watch->pause < PAUSE_MIN)
		watch->pause = PAUSE_MIN;
	else if (watch->pause < PAUSE_MAX / 2)
		watch->pause *= 2;
	else if (watch->pause < PAUSE_MAX)
		watch->pause = PAUSE_MAX;
}

/* Stat the object that HANDLE leads to. False: it is gone, which needs no action, or the report now
 * counts as lost. */
static bool find(struct source_watch *watch, struct file_handle *handle, struct stat *ret_stat)
{
	int fd = source_handle_open(watch->source_fd, handle, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	bool found = fd >= 0 && !fstat(fd, ret_stat);

	if (!found && errno != ESTALE && errno != ENOENT)
		lose(watch);
	if (fd >= 0)
		close(fd);
	return found;
}

static void follow(struct source_watch *watch, const struct report *report)
{
	struct file_handle *object = report->object ? report->object : report->directory;
	struct stat st;

	if (report->mask & (CONTENT_EVENTS | FAN_ATTRIB) && object && find(watch, object, &st)) {
		if (report->mask & CONTENT_EVENTS && S_ISREG(st.st_mode))
			watch->calls->content(watch->context, &st);
		else
			watch->calls->attributes(watch->context, &st);
	}
	if (report->mask & NAME_EVENTS && report->name && find(watch, report->directory, &st))
		watch->calls->name(watch->context, &st, report->name);
}

/* Handle one event of the queue, at AT in the buffer. */
static void take_event(struct source_watch *watch, const struct fanotify_event_metadata *event,
		       const char *at)
{
	struct report report;

	if (event->mask & FAN_Q_OVERFLOW) {
		lose(watch);
	} else if (event->pid == watch->self) {
		counters_add(watch->counters, COUNTER_WATCH_OWN, 1);
	} else if (!watch->lost) {
		take_report(event, at, &report);
		follow(watch, &report);
	}
}

/* Read the queue once. False: it was empty. */
static bool take_events(struct source_watch *watch)
{
	struct fanotify_event_metadata event;
	const char *at = watch->buffer;
	int64_t began = clock_now_ns();
	ssize_t left = read(watch->fd, watch->buffer, sizeof(watch->buffer));

	watch->drained = left < 0 && errno == EAGAIN;
	if (watch->drained && !watch->lost)
		watch->calm = began;
	if (left < 0 && errno != EAGAIN && errno != EINTR)
		lose(watch);
	if (left > 0)
		watch->read_at = began;
	/* The kernel aligns events to 4 bytes only, hence the copy. */
	for (; left >= (ssize_t)sizeof(event); at += event.event_len, left -= event.event_len) {
		memcpy(&event, at, sizeof(event));
		if (!FAN_EVENT_OK(&event, left))
			break;
		take_event(watch, &event, at);
	}
	return !watch->drained;
}

/* Do a sweep. First skip what is in the queue, because the sweep covers it. */
static void catch_up(struct source_watch *watch)
{
	int64_t before;
	int64_t cost;

	for (unsigned i = 0; i < PASSED_OVER && take_events(watch); i++)
		;
	before = spent_ns();
	watch->lost = watch->calls->everything(watch->context, watch->calm) != 0;
	watch->swept = clock_now_ns();
	cost = spent_ns() - before;
	if (watch->pause < PAUSE_PARTS * cost)
		watch->pause = PAUSE_PARTS * cost;
	if (watch->lost && watch->pause < PAUSE_MIN)
		watch->pause = PAUSE_MIN;
}

/* ---- the thread ---- */

/* Wait for up to TIMEOUT nanoseconds (-1: without limit), also for reports if WANTED. Returns
 * whether the thread is to end. */
static bool wait_or_end(const struct source_watch *watch, bool wanted, int64_t timeout)
{
	struct pollfd polls[2] = {
		{.fd = watch->stop_fd, .events = POLLIN},
		{.fd = wanted ? watch->fd : -1, .events = POLLIN},
	};
	const struct timespec limit = clock_at(timeout < 0 ? 0 : timeout);

	/* An interrupted call changes nothing, and the caller waits again. */
	return ppoll(polls, 2, timeout < 0 ? NULL : &limit, NULL) > 0 && polls[0].revents;
}

bool source_watch_is_ending(const struct source_watch *watch)
{
	return wait_or_end(watch, false, 0);
}

/* Wait for something to do. Returns whether the thread is to end. */
static bool wait_for_work(struct source_watch *watch)
{
	int64_t now = clock_now_ns();
	int64_t due = watch->swept + watch->pause;

	if (watch->lost)
		return wait_or_end(watch, false, due > now ? due - now : 0);
	if (!watch->drained && now - watch->spell < SPELL)
		return source_watch_is_ending(watch);
	if (watch->drained) {
		bool settled = watch->calm - watch->read_at >= SOURCE_WATCH_CALM_NS;
		bool ends = wait_or_end(watch, true, settled ? -1 : SOURCE_WATCH_CALM_NS);

		watch->spell = clock_now_ns();
		return ends;
	}
	watch->spell = now + REST;
	return wait_or_end(watch, false, REST);
}

static void *watch_source(void *argument)
{
	struct source_watch *watch = argument;

	fold_rcu_register();
	watch->spell = clock_now_ns();
	while (!wait_for_work(watch)) {
		if (watch->lost)
			catch_up(watch);
		else
			(void)take_events(watch);
	}
	return NULL;
}

errint_t source_watch_start(struct source_watch *watch, bool known)
{
	int error;

	/* What changed before was not reported, which is as good as lost. */
	watch->lost = known;
	pthread_mutex_lock(&watch->stop_lock);
	error = pthread_create(&watch->thread, NULL, watch_source, watch);
	watch->running = !error;
	pthread_mutex_unlock(&watch->stop_lock);
	return -error;
}
