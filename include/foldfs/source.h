/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.h - reads and writes the source without leaving a second copy in the kernel's cache
 *
 * RWF_DONTCACHE where the source file system has it (Linux 6.14: ext4, XFS); else the plain call,
 * and the range is dropped from the cache after it (reads) or after write-back (writes). Knows no
 * pool.
 *
 * A struct source is one open descriptor of a source file, shared by the handle that opened it and
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

/* What tells two states of a source file apart. */
struct source_stamp {
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec mtime;
	struct timespec ctime;
};

/* Wrap FD, which is the source's from now on, also on failure. One reference. -ENOMEM. */
errint_t source_new(int fd, struct source **ret_source);
struct source *source_get(struct source *source);
/* The last reference drops what the kernel's cache holds of the file, and closes the descriptor. */
void source_put(struct source *source);
/* Whether that may take milliseconds, because a large file was read or written: not for a thread
 * that answers requests. */
bool source_ends_slowly(const struct source *source);
/* Memory of one. */
uint64_t source_bytes(void);
int source_fd(const struct source *source);
/* What the kernel caches of the file is not a second copy, and stays. Before others use SOURCE. */
void source_keep_cache(struct source *source);

/*
 * Read from byte OFFSET into COUNT buffers, at most IOV_MAX. Bytes read, fewer only at the end of
 * the file or before an error; -errno if not a byte could be read. Blocks. IOV is used up. Any
 * thread.
 */
ssize_t source_read(struct source *source, struct iovec iov[], int count, off_t offset);

/* For who reads SOURCE by another call (fetcher.c): the flags of preadv2(2) to do it with; whether
 * RESULT of it, bytes or -errno, says to do it again, with what are the flags then; and to be told
 * of what was read. Any thread. */
int source_flags(const struct source *source);
bool source_is_to_repeat(struct source *source, int flags, ssize_t result);
void source_has_read(struct source *source, off_t offset, size_t bytes);

/* Write LENGTH bytes at OFFSET: all of them, fewer before an error, or -errno. Blocks. */
ssize_t source_write(struct source *source, const void *buffer, size_t length, off_t offset);

/* fsync(2), or fdatasync(2) if DATASYNC. The kernel tells of a failed write-back once for each
 * description; here each of those who share one is told, who keeps in *SEEN (at first: what
 * source_flush_errors() says) how many he was told of. 0 or -errno. */
errint_t source_flush(struct source *source, bool datasync, _Atomic unsigned *seen);
/* How many there were. */
unsigned source_flush_errors(const struct source *source);

/* BYTES went by the kernel's cache of the file in another way than by the two above. */
void source_moved(struct source *source, uint64_t bytes);

/* Drop what the kernel's cache holds of the file and is clean: now and then, after fsync, when all
 * of it is, and by itself at the last close. It may take milliseconds: not for a thread that
 * answers requests. */
void source_drop_cache(struct source *source);
/* Whether so much was read or written since the last drop that one is due; then it is the caller's
 * to do, now or later. */
bool source_wants_drop(struct source *source);
/* Both, for a thread that nobody waits for. */
void source_drop_cache_if_due(struct source *source);
/* Have one of WORKERS drop it. One drop at most waits to begin. */
void source_drop_cache_soon(struct source *source, struct workers *workers);

void source_stamp_of(const struct stat *st, struct source_stamp *ret_stamp);
bool source_stamp_equal(const struct source_stamp *a, const struct source_stamp *b);
/* Whether the ctime of STAMP is less than so long ago. */
bool source_stamp_is_young(const struct source_stamp *stamp, int64_t nanoseconds);
/* Whether STAMP, taken now, may be that of a later state too. MULTIGRAIN: it is of a file system of
 * which source_is_multigrain() says so (below). */
bool source_stamp_is_racy(const struct source_stamp *stamp, bool multigrain);
/* Whether nobody has the file open as FD open for writing, or mapped so: 0. If FD is for writing
 * itself: whether nobody has it open by another description. -EBUSY: somebody has; other -errno:
 * the kernel does not say (another's file, some file systems). Who opens it for writing at this
 * moment may wait for some microseconds. */
errint_t source_check_unwritten(int fd);

/* Whether the file system has multigrain timestamps (Linux 6.13: ext4, XFS, btrfs, tmpfs): one that
 * was looked at is never given again. */
bool source_is_multigrain(const struct statfs *fs);

/* Whether it is one of those (ext4, XFS and btrfs of Linux 5.18 or newer) that nobody changes from
 * another machine and that move a file's stamp before the first byte of a change: who read a file
 * and then finds the stamp that it had before has read what it was under that stamp. */
bool source_stamps_first(const struct statfs *fs);

/* Whether a read by io_uring waits for the disk outside of the call that hands it over, and needs
 * no thread of the kernel's meanwhile (FMODE_BUF_RASYNC: ext4, XFS and btrfs; Linux 6.1 for the
 * rest of what fetcher.c asks for). */
bool source_reads_aside(const struct statfs *fs);

#endif
