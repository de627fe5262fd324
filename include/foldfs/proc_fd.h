/* SPDX-License-Identifier: Apache-2.0 */
/* proc_fd.h - /proc/self/fd: a path that leads to an open file, and the kernel's name of it */
#ifndef FOLDFS_PROC_FD_H
#define FOLDFS_PROC_FD_H

#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

/* "/proc/self/fd/" and a number. */
#define PROC_FD_BYTES 32

/* Write to PATH the path that leads to what is open as FD. Returns PATH. */
static inline const char *proc_fd(char path[PROC_FD_BYTES], int fd)
{
	snprintf(path, PROC_FD_BYTES, "/proc/self/fd/%d", fd);
	return path;
}

/* The kernel's name of the file open as FD, cut to SIZE, which is above 0. Returns its length; 0:
 * the kernel does not tell. */
static inline size_t proc_fd_name(int fd, char *ret_name, size_t size)
{
	char path[PROC_FD_BYTES];
	ssize_t length = readlink(proc_fd(path, fd), ret_name, size - 1);

	ret_name[length > 0 ? length : 0] = '\0';
	return length > 0 ? (size_t)length : 0;
}

#endif
