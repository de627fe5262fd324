/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passthrough.c - files that the kernel serves by itself: kernel passthrough
 *
 * libfuse has fuse_passthrough_open(), but it needs a request and hides the cause of a failure.
 * Here a file is also unregistered without a request (an open whose answer did not arrive). And the
 * cause decides what the user is told. So the two ioctls are made here.
 *
 * What the kernel does for clients afterwards, it does with the rights that the registering thread
 * had (fs/fuse/backing.c). That includes a later open for writing by another client, even if the
 * file was registered for a reader. So a thread registers with the rights of the opener that it is
 * lent to, or else with nobody's. Then a write removes set-id bits, and cannot use blocks that are
 * reserved for root.
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

/* From <linux/fuse.h> since Linux 6.9; the installed headers may be older than the kernel. */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define BACKING_OPEN  _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

/* All constant before the first request. */
struct passthrough {
	int session_fd;            /* borrowed */
	_Atomic uint32_t *last_id; /* the same. NULL: it is not noted */
	int view_fd;               /* root of the read-only view; -1: there is none */
};

/* A detached read-only mount, which has no name by which it can be reached. */
int passthrough_open_view(int directory_fd)
{
	struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};
	int fd = open_tree(directory_fd, "",
			   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);

	if (fd < 0)
		return -1;
	if (mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &read_only, sizeof(read_only)) == 0)
		return fd;
	close(fd);
	return -1;
}

errint_t passthrough_new(int view_fd, struct passthrough **ret_backing)
{
	struct passthrough *passthrough = malloc(sizeof(*passthrough));

	if (!passthrough) {
		if (view_fd >= 0)
			close(view_fd);
		return -ENOMEM;
	}
	passthrough->session_fd = -1;
	passthrough->last_id = NULL;
	passthrough->view_fd = view_fd;
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

void passthrough_session(struct passthrough *passthrough, int session_fd, _Atomic uint32_t *last_id)
{
	passthrough->session_fd = session_fd;
	passthrough->last_id = last_id;
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
	else if (passthrough->last_id)
		atomic_store_explicit(passthrough->last_id, (uint32_t)id, memory_order_relaxed);
	if (own)
		identity_make_own();
	return id ? id : -EINVAL;
}

void passthrough_unregister(struct passthrough *passthrough, int id)
{
	uint32_t number = (uint32_t)id;

	/* Fails if the connection is gone; then all its numbers are gone too. */
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
