/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_source.c - opens of the source for a client: as the caller, who may have to wait
 *
 * As the caller, so that the source says who may (identity.h). Root's are made as the daemon.
 *
 * A lease (F_SETLEASE) lets a user keep others waiting who open his file, for lease-break-time. The
 * daemon opens nothing in a way that waits in the kernel, where no interrupt of the client reaches.
 * Who has to wait does so here, on the thread of his request: that holds nobody up but requests of
 * the same user beyond his share (serve.c). A thread of a ring has other requests to answer, and
 * waits for some milliseconds only.
 *
 * The first attempt has begun to break the lease, so the kernel takes it away in time.
 */
#include "foldfs/fusefs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LEASE_SECONDS 45 /* the kernel's, where it does not tell */
#define RING_WAIT_MS  5
#define PAUSE_MS_MAX  64
/* The open(2) flag of execve(2), which the kernel hands on (__FMODE_EXEC, include/linux/fs.h). */
#define O_FOR_EXEC 0x20

/* What is to be opened, for whom. */
struct opening {
	struct fusefs *fs;
	fuse_req_t req;
	struct inode *inode;
	int flags;     /* for the source */
	bool for_exec; /* to be run, which asks for no right to read */
};

/* ---- one attempt ---- */

/* The object open as PATH_FD, or whether it may be run: 0. */
static int open_path(const struct opening *opening, int path_fd)
{
	struct identity identity;
	char path[32];
	int fd = identity_assume(opening->req, path_fd, false, &identity);

	if (fd)
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
	do {
		fd = opening->for_exec ? (int)syscall(SYS_faccessat2, path_fd, "", X_OK,
						      AT_EACCESS | AT_EMPTY_PATH)
				       : TEMP_FAILURE_RETRY(open(path, opening->flags));
		if (fd < 0)
			fd = -errno;
	} while (identity_insist(&identity, fd));
	identity_leave_lent();
	return fd;
}

static int open_once(const struct opening *opening)
{
	struct inode_table *inodes = opening->fs->inodes;
	int path_fd;
	int fd;

	if (fuse_req_ctx(opening->req)->uid == 0)
		return inode_open(inodes, opening->inode, opening->flags);
	if (!inode_may_be_opened(opening->inode))
		return -ENXIO;
	path_fd = inode_path_begin(inodes, opening->inode);
	if (path_fd < 0)
		return path_fd;
	fd = open_path(opening, path_fd);
	inode_path_end(opening->inode);
	/* A program is read on the kernel's account. */
	return opening->for_exec && !fd ? inode_open(inodes, opening->inode, opening->flags) : fd;
}

/* ---- leases ---- */

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Twice the time after which the kernel takes a lease away. */
static uint64_t patience_ms(void)
{
	FILE *file;
	unsigned seconds = LEASE_SECONDS;

	if (fusefs_on_ring)
		return RING_WAIT_MS;
	file = fopen("/proc/sys/fs/lease-break-time", "re");
	if (file) {
		if (fscanf(file, "%u", &seconds) != 1)
			seconds = LEASE_SECONDS;
		fclose(file);
	}
	return (uint64_t)seconds * 2000;
}

/* Again and again, in growing pauses, while there is a lease. */
static int open_after_lease(const struct opening *opening)
{
	uint64_t until = now_ms() + patience_ms();
	unsigned pause_ms = 1;
	int fd = -EAGAIN;

	while (fd == -EAGAIN && now_ms() < until) {
		struct timespec pause = {.tv_nsec = pause_ms * 1000000L};

		/* At the end of the session nobody waits for the answer any more. */
		if (fuse_req_interrupted(opening->req) || fuse_session_exited(opening->fs->session))
			return -EINTR;
		nanosleep(&pause, NULL);
		fd = open_once(opening);
		if (pause_ms < PAUSE_MS_MAX)
			pause_ms *= 2;
	}
	return fd;
}

/* For who does not wait. A lease of our own (source_check_unwritten()) is held for a moment, under
 * this lock, and is nothing to tell him of. */
static int open_without_ours(const struct opening *opening)
{
	int fd;

	inode_lock(opening->inode);
	fd = open_once(opening);
	inode_unlock(opening->inode);
	return fd;
}

int fusefs_open_as_caller(struct fusefs *fs, fuse_req_t req, struct inode *inode, int client_flags,
			  bool wait)
{
	int flags = plan_source_flags(client_flags) | (client_flags & O_DIRECTORY);
	struct opening opening = {
		.fs = fs,
		.req = req,
		.inode = inode,
		.flags = flags | O_NONBLOCK,
		.for_exec = client_flags & O_FOR_EXEC,
	};
	int fd = open_once(&opening);

	/* A file that may only be appended to (chattr +a) is not opened for writing otherwise. */
	if (fd == -EPERM && client_flags & O_APPEND) {
		flags |= O_APPEND;
		opening.flags |= O_APPEND;
		fd = open_once(&opening);
	}
	if (fd == -EAGAIN)
		fd = wait ? open_after_lease(&opening) : open_without_ours(&opening);
	/* A source that is a FUSE file system itself would see it with every read. */
	if (fd >= 0 && fcntl(fd, F_SETFL, flags) < 0) {
		errint_t error = -errno;

		close(fd);
		return error;
	}
	return fd;
}
