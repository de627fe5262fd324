/* SPDX-License-Identifier: Apache-2.0 */
/*
 * platter.h - what would be left of a directory if the power failed now
 *
 * A file system may lose whatever was not flushed: the content of a file until fsync(2) or a
 * synchronous write of it, the names in a directory until fsync(2) of that. The platter is a second
 * directory that holds exactly what was flushed, and nothing else: the worst disk that is allowed.
 * PLATTER/tree is what a machine would find after the power has failed, at any moment.
 *
 * Each returns 0 or -errno. Any thread.
 */
#ifndef FOLDFS_TEST_PLATTER_H
#define FOLDFS_TEST_PLATTER_H

#include <sys/types.h>

int platter_open(const char *path);

/* LENGTH bytes at OFFSET of the file open as FD are durable. */
int platter_content(int fd, off_t offset, off_t length);

/* All content of the file open as FD is durable, and its size. */
int platter_file(int fd);

/* The names in directory PATH below BACKING_FD are durable. */
int platter_directory(int backing_fd, const char *path);

#endif
