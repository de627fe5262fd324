/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.h - reads and writes the source without leaving a second copy in the kernel's cache
 *
 * Uses RWF_DONTCACHE where the source file system has it (Linux 6.14: ext4, XFS). Elsewhere it
 * makes the plain call and then drops the range from the cache: after the call (reads) or after
 * write-back (writes). Knows nothing of the pool.
 *
 * A struct source is one open descriptor of a source file. The handle that opened it shares it with
 * the workers that read ahead for it.
 */
#ifndef FOLDFS_SOURCE_H
#define FOLDFS_SOURCE_H

#include "foldfs/workers.h"

#include <stdatomic.h>

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

struct source;
struct statfs;

/* The fields that tell two states of a source file apart. */
struct source_stamp {
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec mtime;
	struct timespec ctime;
};

/* Wrap FD. From then on FD belongs to the source, also on failure. One reference. -ENOMEM. */
errint_t source_new(int fd, struct source **ret_source);
/* The same for an FD that a process opened that has died. On failure it stays the caller's. */
errint_t source_adopt(int fd, struct source **ret_source);
struct source *source_get(struct source *source);
/* Putting the last reference closes the descriptor. If the source read or wrote by it, what the
 * kernel's cache holds of the file is dropped first (source_drop_cache()). */
void source_put(struct source *source);
/* Whether putting the last reference may take milliseconds, because a large file was read or
 * written. If so, not on a thread that answers requests. */
bool source_ends_slowly(const struct source *source);
/* Memory of one struct source. */
uint64_t source_bytes(void);
int source_fd(const struct source *source);
/* What the kernel caches of this file is not a second copy: keep it. To be called before others use
 * SOURCE. */
void source_keep_cache(struct source *source);

/*
 * Read from byte OFFSET into COUNT buffers, at most IOV_MAX. Returns the bytes read; fewer than
 * asked only at the end of the file or before an error. -errno if no byte could be read. Blocks.
 * Changes IOV. Any thread.
 */
ssize_t source_read(struct source *source, struct iovec iov[], int count, off_t offset);

/* For a caller that reads SOURCE by another call (fetcher.c). source_flags() gives the flags of
 * preadv2(2) for it. source_is_to_repeat() says whether RESULT (bytes or -errno) means to read
 * again, with what source_flags() gives then. source_has_read() takes note of what was read. Any
 * thread. */
int source_flags(const struct source *source);
bool source_is_to_repeat(struct source *source, int flags, ssize_t result);
void source_has_read(struct source *source, off_t offset, size_t bytes);

/* Write LENGTH bytes at OFFSET. Returns LENGTH, fewer before an error, or -errno. Blocks. */
ssize_t source_write(struct source *source, const void *buffer, size_t length, off_t offset);

/* fsync(2), or fdatasync(2) if DATASYNC. The kernel reports a failed write-back once for each
 * description. Here every user of a shared description gets the report. Each keeps in *SEEN how
 * many reports it has had; *SEEN begins as source_flush_errors(). 0 or -errno. */
errint_t source_flush(struct source *source, bool datasync, _Atomic unsigned *seen);
/* How many failed write-backs the kernel has reported. */
unsigned source_flush_errors(const struct source *source);

/* BYTES went through the kernel's cache of the file by another way than source_read() and
 * source_write(). */
void source_moved(struct source *source, uint64_t bytes);

/* Drop the clean part of what the kernel's cache holds of the file. To be called now and then, and
 * after fsync, when all of it is clean; the last close does it by itself. It may take milliseconds:
 * not on a thread that answers requests. */
void source_drop_cache(struct source *source);
/* Whether so much was read or written since the last drop that one is due. If true, the drop is
 * left to the caller, now or later. */
bool source_wants_drop(struct source *source);
/* source_wants_drop() and source_drop_cache(), for a thread that nobody waits for. */
void source_drop_cache_if_due(struct source *source);
/* Have one of WORKERS drop it. At most one drop is queued and not yet begun. */
void source_drop_cache_soon(struct source *source, struct workers *workers);

void source_stamp_of(const struct stat *st, struct source_stamp *ret_stamp);
bool source_stamp_equal(const struct source_stamp *a, const struct source_stamp *b);
/* Whether the ctime of STAMP is less than NANOSECONDS ago. */
bool source_stamp_is_young(const struct source_stamp *stamp, int64_t nanoseconds);
/* Whether STAMP, taken now, may also be the stamp of a later state. MULTIGRAIN:
 * source_is_multigrain() (below) is true of its file system. */
bool source_stamp_is_racy(const struct source_stamp *stamp, bool multigrain);
/* 0 if nobody has the file of FD open for writing, or mapped for writing. If FD itself is for
 * writing: 0 if nobody has it open by another description. -EBUSY: somebody has. Other -errno: the
 * kernel does not say (another user's file, some file systems). An open for writing at this moment
 * may have to wait for some microseconds. */
errint_t source_check_unwritten(int fd);

/* Whether the file system has multigrain timestamps (Linux 6.13: ext4, XFS, btrfs, tmpfs). There a
 * timestamp that was looked at is never given again. */
bool source_is_multigrain(const struct statfs *fs);

/* Whether the file system is ext4, XFS or btrfs of Linux 5.18 or newer. No other machine can change
 * these, and they move a file's stamp before the first byte of a change. So after reading a file,
 * if the stamp is the same as before, what was read is the content under that stamp. */
bool source_stamps_first(const struct statfs *fs);

/* Whether a read by io_uring waits for the disk outside of the call that submits it, and needs no
 * kernel thread meanwhile (FMODE_BUF_RASYNC: ext4, XFS and btrfs; Linux 6.1 for the rest of what
 * fetcher.c asks for). */
bool source_reads_aside(const struct statfs *fs);

#endif
