/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetcher.h - reads of source files that wait in the kernel and not each in a thread (io_uring)
 *
 * If many threads each wait for the source, that is expensive: each read takes two context switches
 * and a call of the disk. The few threads of a fetcher hand all reads that have gathered to the
 * kernel in one call. They also collect many finished reads at a time.
 *
 * The fetcher reads only files of the device that it was made for. It does so only if that file
 * system's reads wait for the disk outside of the call. Inside the call they may still wait for a
 * lock of the file. So one ring reads for one user at a time, and a user who causes such a wait
 * delays only himself.
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

/* One read of a source. The caller owns it until it is done. */
struct fetch {
	struct cds_list_head link; /* the fetcher's, like the next three fields */
	struct ring *ring;
	uid_t user;
	int flags;
	struct source *source; /* from here on the caller's; constant until it is done */
	struct iovec *iov;
	int count;
	off_t offset;
	/* GOT is the number of bytes read, or -errno. It is smaller than asked only at the end of
	 * the file, or if another call will get the rest. Called on a thread of the fetcher, where
	 * other reads wait: it must wait neither for another thread nor for the source. */
	void (*done)(struct fetch *fetch, ssize_t got);
};

/* For the file system of ROOT_FD. The fetcher has no threads and takes nothing if the kernel offers
 * us no io_uring, or if the file system is not a suitable one. Call it before
 * syscall_filter_install(): its rings can do nothing but read, and after the filter no other ring
 * can be made. -ENOMEM. */
errint_t fetcher_new(int root_fd, struct fetcher **ret_fetcher);
/* Start its threads, as many as the system allows. Without any it takes nothing. */
void fetcher_start(struct fetcher *fetcher);
/* Wait for all reads that it has taken, and end the threads. Nothing may be handed over any
 * more. */
void fetcher_stop(struct fetcher *fetcher);
/* The fetcher is stopped, or was never started. */
void fetcher_free(struct fetcher *fetcher);

/* Take a place for FETCH, for one read after the other of a file on DEVICE. The place counts to the
 * share that USER has of all places. False: no place is free. Any thread. */
bool fetcher_take(struct fetcher *fetcher, dev_t device, uid_t user, struct fetch *fetch);
/* Give the place back. No read of it is under way. FETCH may have moved in memory. */
void fetcher_give(struct fetcher *fetcher, const struct fetch *fetch);
/* Start the read FETCH, for which a place was taken. Any thread. */
void fetcher_read(struct fetch *fetch);

/* Number of places that are taken. */
uint64_t fetcher_taken(const struct fetcher *fetcher);
uint64_t fetcher_bytes(const struct fetcher *fetcher);

#endif
