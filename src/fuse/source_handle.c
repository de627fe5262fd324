/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_handle.c - file handles of a source: each names an object for as long as it exists
 *
 * A handle of another file system, mounted below the root, cannot be opened by the root's mount. It
 * is recognized by the mount's number, and treated as if there were no handle.
 */
#include "source_handle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long to wait for an inode that is being made. The pause doubles each time, 1.6 s in all.
 * Making an inode takes microseconds, or longer if its maker waits for a processor. */
#define MADE_PAUSE_MIN_NS 100000
#define MADE_PAUSE_MAX_NS (MADE_PAUSE_MIN_NS << 13)

/* How many bytes longer than the root's a handle may be. */
#define ROOM_SPARE 16u

union any_handle {
	struct file_handle handle;
	char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

bool source_handle_fill(const struct source_handles *handles, int fd, unsigned room,
			struct file_handle *handle)
{
	int mount_id;

	handle->handle_bytes = room;
	return handles->mount_fd >= 0 &&
	       name_to_handle_at(fd, "", handle, &mount_id, AT_EMPTY_PATH) == 0 &&
	       mount_id == handles->mount_id;
}

struct file_handle *source_handle_get(const struct source_handles *handles, int fd)
{
	union any_handle any;
	struct file_handle *handle;

	if (!source_handle_fill(handles, fd, MAX_HANDLE_SZ, &any.handle))
		return NULL;
	handle = malloc(source_handle_size(&any.handle));
	if (handle)
		memcpy(handle, &any, source_handle_size(&any.handle));
	return handle;
}

int source_handle_open(int mount_fd, struct file_handle *handle, int flags)
{
	struct timespec pause = {.tv_nsec = MADE_PAUSE_MIN_NS};
	int fd;

	while ((fd = open_by_handle_at(mount_fd, handle, flags)) < 0 && errno == ENOMEM &&
	       pause.tv_nsec <= MADE_PAUSE_MAX_NS) {
		nanosleep(&pause, NULL);
		pause.tv_nsec *= 2;
	}
	return fd;
}

size_t source_handle_size(const struct file_handle *handle)
{
	return sizeof(*handle) + handle->handle_bytes;
}

bool source_handle_equal(const struct file_handle *a, const struct file_handle *b)
{
	return a->handle_bytes == b->handle_bytes && a->handle_type == b->handle_type &&
	       memcmp(a->f_handle, b->f_handle, a->handle_bytes) == 0;
}

void source_handle_init(struct source_handles *handles, int root_fd)
{
	union any_handle any = {.handle.handle_bytes = MAX_HANDLE_SZ};
	struct file_handle *handle;
	int fd = -1;

	handles->mount_fd = -1;
	handles->room = 0;
	if (name_to_handle_at(root_fd, "", &any.handle, &handles->mount_id, AT_EMPTY_PATH) < 0)
		return;
	/* On overlayfs a handle's length depends on the layer that has the file. */
	handles->room = any.handle.handle_bytes + ROOM_SPARE;
	/* open_by_handle_at() does not take an O_PATH descriptor. */
	handles->mount_fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (handles->mount_fd < 0)
		return;
	handle = source_handle_get(handles, root_fd);
	if (handle)
		fd = source_handle_open(handles->mount_fd, handle, O_PATH | O_CLOEXEC);
	free(handle);
	if (fd >= 0)
		close(fd);
	else
		source_handle_close(handles);
}

void source_handle_close(struct source_handles *handles)
{
	if (handles->mount_fd >= 0)
		close(handles->mount_fd);
	handles->mount_fd = -1;
}
