/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_lease.c - opens of the source for a client, who may have to wait for somebody's lease
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
#include <time.h>
#include <unistd.h>

#define LEASE_SECONDS 45 /* the kernel's, where it does not tell */
#define RING_WAIT_MS  5
#define PAUSE_MS_MAX  64

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

/* inode_open(), again and again in growing pauses while there is a lease. */
static int open_after_lease(struct fusefs *fs, fuse_req_t req, struct inode *inode, int flags)
{
	uint64_t until = now_ms() + patience_ms();
	unsigned pause_ms = 1;
	int fd = -EAGAIN;

	while (fd == -EAGAIN && now_ms() < until) {
		struct timespec pause = {.tv_nsec = pause_ms * 1000000L};

		/* At the end of the session nobody waits for the answer any more. */
		if (fuse_req_interrupted(req) || fuse_session_exited(fs->session))
			return -EINTR;
		nanosleep(&pause, NULL);
		fd = inode_open(fs->inodes, inode, flags);
		if (pause_ms < PAUSE_MS_MAX)
			pause_ms *= 2;
	}
	return fd;
}

/* inode_open() for who does not wait. A lease of our own (source_check_unwritten()) is held for a
 * moment, under this lock, and is nothing to tell him of. */
static int open_without_ours(struct fusefs *fs, struct inode *inode, int flags)
{
	int fd;

	inode_lock(inode);
	fd = inode_open(fs->inodes, inode, flags);
	inode_unlock(inode);
	return fd;
}

int fusefs_open_source(struct fusefs *fs, fuse_req_t req, struct inode *inode, int flags, bool wait)
{
	int fd = inode_open(fs->inodes, inode, flags | O_NONBLOCK);

	if (fd == -EAGAIN && wait)
		fd = open_after_lease(fs, req, inode, flags | O_NONBLOCK);
	else if (fd == -EAGAIN)
		fd = open_without_ours(fs, inode, flags | O_NONBLOCK);
	/* A source that is a FUSE file system itself would see it with every read. */
	if (fd >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
		errint_t error = -errno;

		close(fd);
		return error;
	}
	return fd;
}
