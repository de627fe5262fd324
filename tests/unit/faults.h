/* SPDX-License-Identifier: Apache-2.0 */
/*
 * faults.h - failing, short and slow system calls, and memory that runs out
 *
 * The linker sends the library's calls of pread, preadv, preadv2, pwrite, pwritev, pwritev2, malloc
 * and its relatives here (--wrap). So a test can make the source fail for one range, count what is
 * read, or hold a call while it does something else: no sleeping, no luck.
 */
#ifndef FOLDFS_TEST_FAULTS_H
#define FOLDFS_TEST_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct io_call {
	bool write;
	int fd;
	off_t offset;
	size_t length;
};

#define IO_AS_ASKED (-1000000)

/* Called before each transfer, in the thread that makes it. May block. IO_AS_ASKED, or -errno to
 * fail with, or how many bytes at most to transfer (0: end of file, or nothing written). */
typedef ssize_t (*io_hook_fn)(void *context, const struct io_call *call);

/* While no transfer is under way. NULL: none. */
void faults_hook_io(io_hook_fn hook, void *context);

/* In the calling thread: let AFTER allocations succeed, then fail all. Negative: none fails. */
void faults_fail_allocations(long after);

#endif
