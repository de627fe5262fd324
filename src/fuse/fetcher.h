/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetcher.h - reads of source files that wait in the kernel and not each in a thread (io_uring)
 *
 * A thread that waits for the source is dear where many do: two changes of context and a call of
 * the disk for each read. A fetcher's few threads hand over to the kernel what has gathered, and
 * take what it has, many at a time.
 *
 * Only files of the device that it was made for are read so, and only if that file system's reads
 * wait for the disk outside of the call. For a lock of the file they may wait in it: so what a ring
 * reads at a time is one user's, and whoever makes it wait waits alone.
 */
#ifndef FOLDFS_FETCHER_H
#define FOLDFS_FETCHER_H

#include "foldfs/page.h"

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <urcu/list.h>

struct fetcher;
struct ring;
struct source;

/* One read of a source. The caller's, until it is done. */
struct fetch {
	struct cds_list_head link; /* the fetcher's, as the next three */
	struct ring *ring;
	uid_t user;
	int flags;
	struct source *source; /* the caller's from here on, constant until it is done */
	struct iovec *iov;
	int count;
	off_t offset;
	/* GOT bytes were read, fewer only if the file ends there or for another call to get the
	 * rest, or -errno. On a thread of the fetcher's, where others wait: not for another thread,
	 * nor for the source. */
	void (*done)(struct fetch *fetch, ssize_t got);
};

/* For the file system of ROOT_FD. Where the kernel has no io_uring for us, or the file system is
 * not one of those, the fetcher has no threads and takes nothing. Before syscall_filter_install():
 * its rings can do nothing but read, and are the only ones that there can be then. -ENOMEM. */
errint_t fetcher_new(int root_fd, struct fetcher **ret_fetcher);
/* Have its threads begin, as many as the system lets it have: without any it takes nothing. */
void fetcher_start(struct fetcher *fetcher);
/* Wait for what it has taken, and end the threads. Nobody hands over anything any more. */
void fetcher_stop(struct fetcher *fetcher);
/* Stopped, or never begun. */
void fetcher_free(struct fetcher *fetcher);

/* Have a place for FETCH, to be used for one read after the other of a file on DEVICE, for USER, who
 * has a share of the places. False: there is none. Any thread. */
bool fetcher_take(struct fetcher *fetcher, dev_t device, uid_t user, struct fetch *fetch);
/* Give it back: no read of it is under way. FETCH may have moved. */
void fetcher_give(struct fetcher *fetcher, const struct fetch *fetch);
/* Read FETCH, for which a place was taken. Any thread. */
void fetcher_read(struct fetch *fetch);

/* Places that are taken. */
uint64_t fetcher_taken(const struct fetcher *fetcher);
uint64_t fetcher_bytes(const struct fetcher *fetcher);

#endif
