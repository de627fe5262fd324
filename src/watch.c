/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch.c - what others change in the source, as the kernel reports it
 *
 * Reports name an object by its file handle, and an entry by the directory's handle and the name.
 * The handle is opened (O_PATH, nothing is read) to learn device and inode number, by which all
 * else here is known.
 *
 * Bounds. The queue is the kernel's, which joins reports of one object by one process that nobody
 * has read yet and holds at most fs.fanotify.max_queued_events; what does not fit is lost, and said
 * to be. Here is one buffer. So a busy writer costs one call for each time that the queue is read,
 * not for each write.
 *
 * Invariants:
 *   W.1 what is reported after a call began leads to another call: a report is taken from the queue
 *       before it is acted upon, and the change was made before it was reported;
 *   W.2 a report that cannot be followed up is either of an object that is gone, or counts as lost.
 */
#include "foldfs/watch.h"

#include "foldfs/rcu.h"
#include "foldfs/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <unistd.h>

#define BUFFER_BYTES 16384u

/* A store through a mapping is not reported; the close of the file that was mapped is. */
#define CONTENT_EVENTS (FAN_MODIFY | FAN_CLOSE_WRITE)
#define NAME_EVENTS    (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO)

/* Constant after watch_new(), but what is marked. */
struct watch {
	const struct watch_calls *calls;
	void *context;
	struct stats *stats;
	int source_fd; /* borrowed */
	int fd;        /* fanotify's */
	int stop_fd;   /* an eventfd: readable when the thread is to end */
	pid_t self;
	pthread_mutex_t stop_lock;
	bool running;     /* under stop_lock */
	pthread_t thread; /* under stop_lock */
	/* the thread's */
	_Alignas(struct fanotify_event_info_fid) char buffer[BUFFER_BYTES];
};

/* What one report says; pointers into the buffer. */
struct report {
	uint64_t mask;
	struct file_handle *object;    /* NULL: it is of the directory itself, or of an entry */
	struct file_handle *directory; /* NULL: the kernel does not know where the object is */
	const char *name;              /* NULL: none */
};

/* ---- start and end ---- */

/* Whether handles of this file system lead back to their objects, and we may follow them. */
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
	fd = open_by_handle_at(source_fd, &any.handle, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return errno == EPERM ? -EPERM : -EOPNOTSUPP;
	close(fd);
	return 0;
}

static errint_t open_queue(struct watch *watch)
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

errint_t watch_new(int source_fd, const struct watch_calls *calls, void *context,
		   struct stats *stats, struct watch **ret_watch)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	errint_t error;

	if (!watch)
		return -ENOMEM;
	watch->calls = calls;
	watch->context = context;
	watch->stats = stats;
	watch->source_fd = source_fd;
	watch->fd = -1;
	watch->self = getpid();
	pthread_mutex_init(&watch->stop_lock, NULL);
	watch->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	error = watch->stop_fd < 0 ? -errno : try_handles(source_fd);
	if (!error)
		error = open_queue(watch);
	if (error) {
		watch_free(watch);
		return error;
	}
	*ret_watch = watch;
	return 0;
}

void watch_stop(struct watch *watch)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&watch->stop_lock);
	if (watch->running) {
		/* Cannot fail: the counter is far from its end, and blocks nobody. */
		(void)!write(watch->stop_fd, &one, sizeof(one));
		pthread_join(watch->thread, NULL);
	}
	watch->running = false;
	pthread_mutex_unlock(&watch->stop_lock);
}

void watch_free(struct watch *watch)
{
	if (!watch)
		return;
	watch_stop(watch);
	if (watch->fd >= 0)
		close(watch->fd);
	if (watch->stop_fd >= 0)
		close(watch->stop_fd);
	pthread_mutex_destroy(&watch->stop_lock);
	free(watch);
}

/* ---- reports ---- */

/* Take what INFO says into REPORT. */
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
	default: /* a kind that was not asked for */
		break;
	}
}

/* EVENT stands at AT in the buffer. */
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

static void lose(struct watch *watch)
{
	stats_add(watch->stats, STAT_WATCH_OVERFLOWS, 1);
	watch->calls->everything(watch->context);
}

/* What HANDLE leads to. False: the object is gone, and nobody has to know. */
static bool find(struct watch *watch, struct file_handle *handle, struct stat *ret_stat)
{
	int fd = open_by_handle_at(watch->source_fd, handle, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	bool found = fd >= 0 && !fstat(fd, ret_stat);

	if (!found && errno != ESTALE && errno != ENOENT)
		lose(watch);
	if (fd >= 0)
		close(fd);
	return found;
}

static void follow(struct watch *watch, const struct report *report)
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

/* One event of the queue, at AT in the buffer. */
static void take_event(struct watch *watch, const struct fanotify_event_metadata *event,
		       const char *at)
{
	struct report report;

	if (event->mask & FAN_Q_OVERFLOW) {
		lose(watch);
	} else if (event->pid == watch->self) {
		stats_add(watch->stats, STAT_WATCH_OWN, 1);
	} else {
		take_report(event, at, &report);
		follow(watch, &report);
	}
}

/* Read the queue once. */
static void take_events(struct watch *watch)
{
	struct fanotify_event_metadata event;
	const char *at = watch->buffer;
	ssize_t left = read(watch->fd, watch->buffer, sizeof(watch->buffer));

	if (left < 0 && errno != EAGAIN && errno != EINTR)
		lose(watch);
	/* The kernel aligns events to 4 bytes only, hence the copy. */
	for (; left >= (ssize_t)sizeof(event); at += event.event_len, left -= event.event_len) {
		memcpy(&event, at, sizeof(event));
		if (!FAN_EVENT_OK(&event, left))
			break;
		take_event(watch, &event, at);
	}
}

static void *watch_source(void *argument)
{
	struct watch *watch = argument;
	struct pollfd polls[2] = {
		{.fd = watch->stop_fd, .events = POLLIN},
		{.fd = watch->fd, .events = POLLIN},
	};

	fold_rcu_register();
	do {
		if (polls[1].revents)
			take_events(watch);
		/* An interrupted call leaves what it said before, which does no harm. */
		(void)poll(polls, 2, -1);
	} while (!polls[0].revents);
	return NULL;
}

errint_t watch_start(struct watch *watch)
{
	int error;

	pthread_mutex_lock(&watch->stop_lock);
	error = pthread_create(&watch->thread, NULL, watch_source, watch);
	watch->running = !error;
	pthread_mutex_unlock(&watch->stop_lock);
	return -error;
}
