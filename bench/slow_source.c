/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slow_source.c - preloaded into a daemon: reads of the source take SLOW_US microseconds longer
 *
 * They are slowed as a disk's reads are: concurrent reads are delayed concurrently. A machine's own
 * disk is no measure: caches hide its latency, which differs from one machine to the next.
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	const char *us = getenv("SLOW_US");

	if (us)
		usleep((useconds_t)strtoul(us, NULL, 10));
	return syscall(SYS_preadv2, fd, iov, (long)count, (long)offset, 0L, flags);
}

ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
	__attribute__((alias("preadv64v2")));
