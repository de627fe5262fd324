/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foldctl_views.c - the mounts of this mount namespace, and what their daemons say
 *
 * Invariants:
 * A  No mount is touched: what is known comes from the list of mounts, from the control sockets and
 *    from fusectl. So a stuck or dead mount does not hold up anything.
 * B  All daemons are asked at the same time, with one deadline. A daemon that does not answer holds
 *    up nobody, and delays the end once, however many such daemons there are.
 * C  A mount is called dead only if its own socket was left behind. That of an earlier mount, which
 *    had the same device number, says nothing: it is older than the connection.
 */
#include "foldctl.h"

#include "foldfs/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define REQUEST "{\"request\":\"status\"}\n"
/* A status has some 4 KiB. A user may have a thousand mounts, with daemons that say anything. */
#define ANSWER_MAX  (1u << 16)
#define ANSWER_STEP (1u << 12)
/* How long to wait before another try at a queue that was full. */
#define RETRY_MS 20

/* ---- the list ---- */

struct reading {
	struct mount_views *views;
	uid_t owner;
	errint_t error;
};

/* "fusectl" is none. */
static bool is_fuse(const char *type)
{
	return strcmp(type, "fuse") == 0 || strncmp(type, "fuse.", strlen("fuse.")) == 0;
}

static bool is_whole(const struct mount_entry *entry)
{
	return strcmp(entry->root, "/") == 0;
}

static struct mount_view *find_connection(const struct mount_views *views,
					  const struct mount_entry *entry)
{
	for (size_t i = 0; i < views->count; i++)
		if (views->views[i].entry.device_major == entry->device_major &&
		    views->views[i].entry.device_minor == entry->device_minor)
			return &views->views[i];
	return NULL;
}

static errint_t add(struct mount_views *views, const struct mount_entry *entry)
{
	struct mount_view *grown =
		realloc(views->views, (views->count + 1) * sizeof(*views->views));

	if (!grown)
		return -ENOMEM;
	views->views = grown;
	grown[views->count] = (struct mount_view){.state = MOUNT_UNREACHABLE};
	if (mount_entry_copy(entry, &grown[views->count].entry))
		return -ENOMEM;
	views->count++;
	return 0;
}

static errint_t replace(struct mount_view *view, const struct mount_entry *entry)
{
	struct mount_entry copy;

	if (mount_entry_copy(entry, &copy))
		return -ENOMEM;
	mount_entry_clear(&view->entry);
	view->entry = copy;
	return 0;
}

static void see(void *context, const struct mount_entry *entry)
{
	struct reading *reading = context;
	struct mount_view *known;

	if (reading->error || !is_fuse(entry->type) ||
	    (reading->owner != (uid_t)-1 && entry->owner != reading->owner))
		return;
	known = find_connection(reading->views, entry);
	if (!known)
		reading->error = add(reading->views, entry);
	else if (is_whole(entry) && !is_whole(&known->entry))
		reading->error = replace(known, entry);
}

errint_t views_read(uid_t owner, struct mount_views *ret_views)
{
	struct mount_views views = {0};
	struct reading reading = {.views = &views, .owner = owner};
	errint_t error = mount_entries_visit(NULL, see, &reading);

	if (!error)
		error = reading.error;
	if (error)
		views_clear(&views);
	else
		*ret_views = views;
	return error;
}

static void view_clear(struct mount_view *view)
{
	mount_entry_clear(&view->entry);
	json_decref(view->status);
}

void views_clear(struct mount_views *views)
{
	for (size_t i = 0; i < views->count; i++)
		view_clear(&views->views[i]);
	free(views->views);
	*views = (struct mount_views){0};
}

/* ---- the question to one daemon ---- */

struct inquiry {
	struct mount_view *view;
	bool done;
	bool refused; /* nobody listened, once */
	int fd;       /* the connection; -1: there is none, or none yet */
	char *text;
	size_t length;
	size_t size;
};

static void settle(struct inquiry *inquiry, enum mount_state state)
{
	inquiry->view->state = state;
	inquiry->done = true;
	if (inquiry->fd >= 0)
		close(inquiry->fd);
	inquiry->fd = -1;
	free(inquiry->text);
	inquiry->text = NULL;
}

static bool is_before(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

/* Whether the socket that nobody listens on was made by the daemon of ENTRY. The kernel makes the
 * connection's directory first. Where there is no fusectl, the socket is taken for the mount's. */
static bool is_left_behind(const struct mount_entry *entry, const struct control_tried *tried)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u", entry->device_minor);
	return entry->device_major != 0 || stat(path, &st) != 0 ||
	       !is_before(tried->made, st.st_ctim);
}

static enum mount_state state_without(errint_t error, const struct mount_entry *entry,
				      const struct control_tried *tried)
{
	switch (error) {
	case -ECONNREFUSED:
		return is_left_behind(entry, tried) ? MOUNT_DEAD : MOUNT_UNREACHABLE;
	case -EACCES:
		return MOUNT_PRIVATE;
	default:
		return MOUNT_UNREACHABLE;
	}
}

/* Connect, and send the request. It is tried again later if the daemon's queue is full, and once if
 * nobody listens: a daemon that starts has a socket for a moment before it listens. */
static void begin(struct inquiry *inquiry)
{
	const struct mount_entry *entry = &inquiry->view->entry;
	struct control_tried tried;
	int fd = control_connect(entry, 0, &tried);
	ssize_t sent;

	if (fd == -ECONNREFUSED && !inquiry->refused)
		inquiry->refused = true;
	else if (fd < 0 && fd != -ETIMEDOUT)
		settle(inquiry, state_without(fd, entry, &tried));
	free(tried.path);
	if (fd < 0)
		return;
	inquiry->fd = fd;
	inquiry->view->pid = control_peer(fd);
	/* The buffer of a new socket has room for this. */
	sent = send(fd, REQUEST, strlen(REQUEST), MSG_NOSIGNAL);
	if (sent != (ssize_t)strlen(REQUEST))
		settle(inquiry, MOUNT_SILENT);
}

/* The connection has ended: judge what came. */
static void conclude(struct inquiry *inquiry)
{
	json_t *answer =
		inquiry->length ? json_loadb(inquiry->text, inquiry->length, 0, NULL) : NULL;

	if (json_is_object(answer)) {
		inquiry->view->status = answer;
		settle(inquiry, MOUNT_SERVING);
	} else {
		json_decref(answer);
		settle(inquiry, MOUNT_SILENT);
	}
}

static errint_t make_room(struct inquiry *inquiry)
{
	char *grown;

	if (inquiry->length < inquiry->size)
		return 0;
	if (inquiry->size >= ANSWER_MAX)
		return -EMSGSIZE;
	grown = realloc(inquiry->text, inquiry->size + ANSWER_STEP);
	if (!grown)
		return -ENOMEM;
	inquiry->text = grown;
	inquiry->size += ANSWER_STEP;
	return 0;
}

/* There is something to receive. */
static void receive(struct inquiry *inquiry)
{
	ssize_t got;

	if (make_room(inquiry)) {
		settle(inquiry, MOUNT_SILENT);
		return;
	}
	got = recv(inquiry->fd, inquiry->text + inquiry->length, inquiry->size - inquiry->length,
		   0);
	if (got > 0)
		inquiry->length += (size_t)got;
	else if (got == 0)
		conclude(inquiry);
	else if (errno != EAGAIN && errno != EINTR)
		settle(inquiry, MOUNT_SILENT);
}

/* ---- all at once ---- */

/* A plain user may ask only their own daemons, and does not try others. */
static bool may_ask(const struct mount_entry *entry)
{
	return geteuid() == 0 || geteuid() == entry->owner;
}

static void begin_all(struct inquiry *inquiries, const struct mount_views *views)
{
	for (size_t i = 0; i < views->count; i++) {
		inquiries[i] = (struct inquiry){.view = &views->views[i], .fd = -1};
		if (may_ask(&views->views[i].entry))
			begin(&inquiries[i]);
		else
			settle(&inquiries[i], MOUNT_PRIVATE);
	}
}

/* Wait until something comes, or a queue is worth another try. False: all is settled, or the time
 * is over. */
static bool wait_for_some(const struct inquiry *inquiries, struct pollfd *polled, size_t count,
			  int64_t deadline)
{
	int left = clock_left_ms(deadline);
	bool open = false;

	for (size_t i = 0; i < count; i++) {
		polled[i] = (struct pollfd){.fd = inquiries[i].fd, .events = POLLIN};
		open |= !inquiries[i].done;
		if (!inquiries[i].done && inquiries[i].fd < 0 && left > RETRY_MS)
			left = RETRY_MS;
	}
	if (!open || clock_left_ms(deadline) == 0)
		return false;
	return poll(polled, (nfds_t)count, left) >= 0 || errno == EINTR;
}

static void converse_all(struct inquiry *inquiries, struct pollfd *polled, size_t count,
			 int64_t deadline)
{
	while (wait_for_some(inquiries, polled, count, deadline)) {
		for (size_t i = 0; i < count; i++) {
			if (!inquiries[i].done && inquiries[i].fd < 0)
				begin(&inquiries[i]);
			else if (!inquiries[i].done && polled[i].revents)
				receive(&inquiries[i]);
		}
	}
	for (size_t i = 0; i < count; i++)
		if (!inquiries[i].done)
			settle(&inquiries[i], MOUNT_SILENT);
}

/* With -o subtype= the type of our mount is whatever the user chose: only the socket tells. A mount
 * that ended while it was asked is not dead. */
static bool is_left_out(const struct mount_view *view)
{
	bool listens = view->state == MOUNT_SERVING || view->state == MOUNT_SILENT;
	struct mount_entry again = {0};

	if (!listens && strcmp(view->entry.type, "fuse.foldfs") != 0)
		return true;
	if (view->state == MOUNT_SERVING || view->state == MOUNT_PRIVATE)
		return false;
	if (mount_entry_find_again(&view->entry, true, &again) == -ENOENT)
		return true;
	mount_entry_clear(&again);
	return false;
}

static void leave_out(struct mount_views *views)
{
	size_t kept = 0;

	for (size_t i = 0; i < views->count; i++) {
		if (is_left_out(&views->views[i]))
			view_clear(&views->views[i]);
		else
			views->views[kept++] = views->views[i];
	}
	views->count = kept;
}

errint_t views_ask(struct mount_views *views, int64_t within_ms)
{
	int64_t deadline = clock_now_ms() + within_ms;
	struct inquiry *inquiries = calloc(views->count + 1, sizeof(*inquiries));
	struct pollfd *polled = calloc(views->count + 1, sizeof(*polled));
	errint_t error = inquiries && polled ? 0 : -ENOMEM;

	if (!error) {
		begin_all(inquiries, views);
		converse_all(inquiries, polled, views->count, deadline);
		leave_out(views);
	}
	free(inquiries);
	free(polled);
	return error;
}
