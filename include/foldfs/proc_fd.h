/* SPDX-License-Identifier: Apache-2.0 */
/* proc_fd.h - /proc/self/fd: a path that leads to what is open, and what the kernel calls it */
#ifndef FOLDFS_PROC_FD_H
#define FOLDFS_PROC_FD_H

#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

/* "/proc/self/fd/" and a number. */
#define PROC_FD_BYTES 32

/* The path that leads to what is open as FD, written to PATH, which is returned. */
static inline const char *proc_fd(char path[PROC_FD_BYTES], int fd)
{
	snprintf(path, PROC_FD_BYTES, "/proc/self/fd/%d", fd);
	return path;
}

/* What the kernel calls the file open as FD, cut to SIZE, more than 0. Its length; 0: it does not
 * tell. */
static inline size_t proc_fd_name(int fd, char *ret_name, size_t size)
{
	char path[PROC_FD_BYTES];
	ssize_t length = readlink(proc_fd(path, fd), ret_name, size - 1);

	ret_name[length > 0 ? length : 0] = '\0';
	return length > 0 ? (size_t)length : 0;
}

#endif
