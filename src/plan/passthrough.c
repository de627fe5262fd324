/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passthrough.c - files that the kernel serves by itself: kernel passthrough
 *
 * libfuse has fuse_passthrough_open(), which needs a request at hand and hides why it failed. A
 * file is also given up where there is none (an open whose answer did not arrive), and the cause
 * decides what the user is told, so the two ioctls are made here.
 *
 * What the kernel does for clients afterwards, it does with the rights that the registering thread
 * had (fs/fuse/backing.c), also for whoever opens the file for writing later, when it was
 * registered for a reader. So those are the opener's, where the thread is lent to him, or nobody's:
 * a write takes set-id bits away, and finds no block that is reserved for root.
 */
#include "foldfs/passthrough.h"

#include "foldfs/thread_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of <linux/fuse.h> since Linux 6.9; headers may be older than the kernel. */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define BACKING_OPEN  _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

/* All constant before the first request. */
struct passthrough {
	int session_fd; /* borrowed */
	int view_fd;    /* of the read-only view's root; -1: there is none */
};

/* A detached mount of the source that nobody can reach by a name, read-only. */
static int open_view(int source_fd)
{
	struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};
	int fd = open_tree(source_fd, "",
			   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);

	if (fd < 0)
		return -1;
	if (mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &read_only, sizeof(read_only)) == 0)
		return fd;
	close(fd);
	return -1;
}

errint_t passthrough_new(int source_fd, struct passthrough **ret_backing)
{
	struct passthrough *passthrough = malloc(sizeof(*passthrough));

	if (!passthrough)
		return -ENOMEM;
	passthrough->session_fd = -1;
	passthrough->view_fd = open_view(source_fd);
	*ret_backing = passthrough;
	return 0;
}

void passthrough_free(struct passthrough *passthrough)
{
	if (!passthrough)
		return;
	if (passthrough->view_fd >= 0)
		close(passthrough->view_fd);
	free(passthrough);
}

void passthrough_session(struct passthrough *passthrough, int session_fd)
{
	passthrough->session_fd = session_fd;
}

bool passthrough_permitted(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data) < 0)
		return false;
	return data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN);
}

int passthrough_register(struct passthrough *passthrough, int fd)
{
	struct backing_map map = {.fd = fd};
	bool own = identity_is_own;
	int id = identity_give_up_rights();

	if (id)
		return id;
	id = ioctl(passthrough->session_fd, BACKING_OPEN, &map);
	if (id < 0)
		id = -errno;
	if (own)
		identity_make_own();
	return id ? id : -EINVAL;
}

void passthrough_unregister(struct passthrough *passthrough, int id)
{
	uint32_t number = (uint32_t)id;

	/* Fails when the connection is gone, and all its numbers with it. */
	if (id > 0)
		(void)ioctl(passthrough->session_fd, BACKING_CLOSE, &number);
}

int passthrough_open_read_only(struct passthrough *passthrough, const char *path)
{
	struct open_how how = {
		.flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int fd;

	if (passthrough->view_fd < 0)
		return -ENOSYS;
	identity_make_own();
	fd = (int)syscall(SYS_openat2, passthrough->view_fd, path, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}
