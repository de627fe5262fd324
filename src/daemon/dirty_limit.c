/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty_limit.c - what the kernel allows to be set for one mount under /sys/class/bdi
 *
 * Linux: Documentation/ABI/testing/sysfs-class-bdi. FUSE mounts have strict_limit set, so their
 * max_bytes holds whatever the rest of the system does.
 */
#include "dirty_limit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The trimmer waits for the write-back of each changed page that it meets. */
#define DIRTY_PART 8u
/* If hardly any page may be dirty, the kernel makes writers sleep at each page. */
#define DIRTY_MIN (UINT64_C(128) << 10)

static errint_t write_number(int fd, uint64_t number)
{
	char text[24];
	ssize_t length = snprintf(text, sizeof(text), "%" PRIu64 "\n", number);
	ssize_t written = pwrite(fd, text, (size_t)length, 0);

	if (written == length)
		return 0;
	return written < 0 ? -errno : -EIO;
}

static errint_t read_number(int fd, uint64_t *ret_number)
{
	char text[24];
	ssize_t length = pread(fd, text, sizeof(text) - 1, 0);

	if (length < 0)
		return -errno;
	text[length] = '\0';
	*ret_number = strtoull(text, NULL, 10);
	return 0;
}

static errint_t set_within(int fd, uint64_t bytes, uint64_t *kernels)
{
	bool first = !*kernels;
	errint_t error = first ? read_number(fd, kernels) : 0;

	if (error || (first && *kernels <= bytes))
		return error;
	return write_number(fd, bytes < *kernels ? bytes : *kernels);
}

errint_t dirty_limit_set(unsigned major, unsigned minor, uint64_t window_bytes, uint64_t *kernels)
{
	uint64_t bytes = window_bytes / DIRTY_PART;
	char path[64];
	errint_t error;
	int fd;

	if (!window_bytes)
		return 0;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/max_bytes", major, minor);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	error = set_within(fd, bytes > DIRTY_MIN ? bytes : DIRTY_MIN, kernels);
	close(fd);
	return error;
}
