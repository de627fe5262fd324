/* SPDX-License-Identifier: Apache-2.0 */
/* handover.c - what the keeper of a mount hands on to the program that takes its place */
#include "handover.h"

#include "daemon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

_Static_assert(sizeof(struct handover) <= SESSION_KEEPER_BYTES, "it has room in the session");

void handover_format(char ret_format[SESSION_FORMAT_BYTES])
{
	session_format(sizeof(struct handover) + takeover_bytes(), ret_format);
}

struct handover *handover_of(struct session *session)
{
	return (struct handover *)session->keeper;
}

static errint_t copy(char *to, const char *text)
{
	if (text && strlen(text) >= PATH_MAX)
		return -ENAMETOOLONG;
	strcpy(to, text ? text : "");
	return 0;
}

errint_t handover_note(const struct daemon *d)
{
	struct handover *handover = handover_of(d->records);
	errint_t error;

	*handover = (struct handover){
		.source = d->place.source_fd,
		.view = d->place.view_fd,
		.claim = d->place.claim_fd,
		.state = d->state_place.fd,
		.waiting = d->mount.waiting,
		.abort = d->mount.abort,
		.asker = d->asker,
		.attendant = d->attendant.socket,
		.attendant_pid = d->attendant.pid,
		.signals = -1,
		.bell = -1,
		.program = -1,
		.previous = -1,
		.mount_id = d->mount.entry.id,
		.device_major = d->mount.entry.device_major,
		.device_minor = d->mount.entry.device_minor,
		.owner = d->mount.entry.owner,
		.group = d->mount.entry.group,
		.unique_id = d->mount.unique_id,
	};
	error = copy(handover->source_name, d->place.source);
	if (!error)
		error = copy(handover->mountpoint, d->place.mountpoint);
	if (!error)
		error = copy(handover->state_name, d->state_place.path);
	return error;
}

int handover_begin(void)
{
	const char *value = getenv(HANDOVER_VARIABLE);
	int memory = value ? atoi(value) : -1;

	unsetenv(HANDOVER_VARIABLE);
	return memory > STDERR_FILENO ? memory : -1;
}

/* The mount, wherever it is by now. */
static errint_t find_mount(const struct handover *handover, struct own_mount *ret_mount)
{
	char none[] = "";
	const struct mount_entry like = {
		.id = handover->mount_id,
		.device_major = handover->device_major,
		.device_minor = handover->device_minor,
		.root = none,
		.source = none,
		.mountpoint = none,
		.type = none,
		.options = none,
		.super_options = none,
	};
	errint_t error = mount_entry_find_again(&like, true, &ret_mount->entry);

	ret_mount->waiting = handover->waiting;
	ret_mount->abort = handover->abort;
	ret_mount->unique_id = handover->unique_id;
	/* A mount that was moved to another namespace, or covered, is served all the same. */
	if (error == -ENOENT)
		error = mount_entry_copy(&like, &ret_mount->entry);
	ret_mount->entry.id = handover->mount_id;
	ret_mount->entry.owner = handover->owner;
	ret_mount->entry.group = handover->group;
	return error;
}

errint_t handover_take(struct daemon *d, int memory)
{
	char format[SESSION_FORMAT_BYTES];
	const struct handover *handover;
	errint_t error;

	/* The name that an exec by descriptor gives is that of the descriptor. */
	(void)prctl(PR_SET_NAME, "foldfs", 0, 0, 0);
	/* They had to outlive the exec; from here on no other program gets them. */
	if (close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC))
		return -errno;
	handover_format(format);
	error = session_adopt(memory, format, &d->records);
	if (error)
		return error;
	handover = handover_of(d->records);
	d->place = (struct place){
		.source = strdup(handover->source_name),
		.mountpoint = strdup(handover->mountpoint),
		.source_fd = handover->source,
		.view_fd = handover->view,
		.claim_fd = handover->claim,
	};
	d->state_place.fd = handover->state;
	d->state_place.path = *handover->state_name ? strdup(handover->state_name) : NULL;
	d->asker = handover->asker;
	d->attendant = (struct attendant){handover->attendant, handover->attendant_pid};
	d->mount.device = d->records->device;
	error = find_mount(handover, &d->mount);
	return error || (d->place.source && d->place.mountpoint) ? error : -ENOMEM;
}
