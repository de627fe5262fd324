/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.c - one open descriptor of a source file, and I/O on it that leaves nothing behind
 *
 * The first call that uses RWF_DONTCACHE finds out whether the file system has it. The answer is
 * kept for this descriptor. Without RWF_DONTCACHE a range that was read is dropped at once with
 * posix_fadvise(2).
 *
 * With RWF_DONTCACHE a little still stays in the cache (measured on ext4, Linux 6.18). Written data
 * keeps its pages after write-back. Of data that was read, half a percent stays, where two readers
 * met. So after every DROP_EVERY bytes all clean pages are dropped. The advice starts write-back of
 * the dirty pages, and a later one drops them. It looks at all that is cached of the file, and may
 * wait for the file's disk. So reads and writes only say that a drop is due; the caller knows where
 * nobody waits for it.
 */
#include "foldfs/source.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x00000080 /* Linux 6.14, include/uapi/linux/fs.h */
#endif

/* A file system's coarse clock ticks at least every 10 ms (CONFIG_HZ=100); this is that with a
 * margin. */
#define RACY_NANOSECONDS 20000000
/* Some file systems keep whole seconds (ext4 with inodes of 128 bytes), or only every other one. */
#define COARSE_NANOSECONDS 2020000000

/* Writes of fewer bytes than this collect in the kernel's cache and are dropped later. */
#define SMALL_WRITE (64u << 10)
/* A file of fewer bytes than this is dropped by the thread that closes it. To wake another thread
 * would cost more. */
#define SMALL_FILE (1 << 20)
/* After this many bytes read or written, what is left in the kernel's cache is dropped. */
#define DROP_EVERY (16u << 20)

struct source {
	int fd; /* constant */
	_Atomic unsigned references;
	bool kept;                     /* set by source_keep_cache(); constant once shared */
	atomic_bool no_dontcache;      /* only ever goes from false to true */
	_Atomic unsigned flush_errors; /* how often the kernel reported one */
	_Atomic errint_t flush_error;  /* the last one; set before flush_errors is */
	_Atomic uint64_t undropped;    /* bytes moved since the last drop; relaxed */
	atomic_bool moved;             /* anything was ever read or written; relaxed */
	atomic_bool dropping;          /* JOB is queued, with a reference */
	struct worker_job job;
};

errint_t source_adopt(int fd, struct source **ret_source)
{
	struct source *source = calloc(1, sizeof(*source));

	if (!source)
		return -ENOMEM;
	source->fd = fd;
	/* We do the read-ahead. What the kernel read ahead would have to be copied and dropped
	 * again. */
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	atomic_init(&source->references, 1);
	*ret_source = source;
	return 0;
}

errint_t source_new(int fd, struct source **ret_source)
{
	errint_t error = source_adopt(fd, ret_source);

	if (error)
		close(fd);
	return error;
}

struct source *source_get(struct source *source)
{
	atomic_fetch_add_explicit(&source->references, 1, memory_order_relaxed);
	return source;
}

void source_put(struct source *source)
{
	if (atomic_fetch_sub_explicit(&source->references, 1, memory_order_acq_rel) != 1)
		return;
	/* If this description neither read nor wrote, it left nothing behind. */
	if (atomic_load_explicit(&source->moved, memory_order_relaxed))
		source_drop_cache(source);
	close(source->fd);
	free(source);
}

bool source_ends_slowly(const struct source *source)
{
	struct stat st;

	return !source->kept && atomic_load_explicit(&source->moved, memory_order_relaxed) &&
	       !fstat(source->fd, &st) && st.st_size >= SMALL_FILE;
}

void source_keep_cache(struct source *source)
{
	source->kept = true;
}

int source_fd(const struct source *source)
{
	return source->fd;
}

static bool has_dontcache(const struct source *source)
{
	return !atomic_load_explicit(&source->no_dontcache, memory_order_relaxed);
}

int source_flags(const struct source *source)
{
	return has_dontcache(source) ? RWF_DONTCACHE : 0;
}

bool source_is_to_repeat(struct source *source, int flags, ssize_t result)
{
	if (result == -EOPNOTSUPP && flags) {
		atomic_store_explicit(&source->no_dontcache, true, memory_order_relaxed);
		return true;
	}
	return result == -EINTR;
}

/* One preadv2 or pwritev2, with RWF_DONTCACHE unless the file system has refused it. */
static ssize_t transfer(struct source *source, bool write, const struct iovec iov[], int count,
			off_t offset)
{
	ssize_t done;
	int flags;

	do {
		/* RWF_DONTCACHE starts write-back within the call, which is half the cost of a
		 * small write. */
		bool small = write && count == 1 && iov->iov_len < SMALL_WRITE;

		flags = small ? 0 : source_flags(source);
		done = write ? pwritev2(source->fd, iov, count, offset, flags)
			     : preadv2(source->fd, iov, count, offset, flags);
		if (done < 0)
			done = -errno;
	} while (source_is_to_repeat(source, flags, done));
	return done;
}

/* Advance IOV by DONE bytes. */
static void advance(struct iovec **iov, int *count, size_t done)
{
	while (*count && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (*count) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
}

void source_moved(struct source *source, uint64_t bytes)
{
	atomic_fetch_add_explicit(&source->undropped, bytes, memory_order_relaxed);
	if (!atomic_load_explicit(&source->moved, memory_order_relaxed))
		atomic_store_explicit(&source->moved, true, memory_order_relaxed);
}

bool source_wants_drop(struct source *source)
{
	uint64_t moved = atomic_load_explicit(&source->undropped, memory_order_relaxed);

	/* The caller that resets the count is the one to drop. */
	return moved >= DROP_EVERY && atomic_compare_exchange_strong(&source->undropped, &moved, 0);
}

void source_has_read(struct source *source, off_t offset, size_t bytes)
{
	bool dontcache = has_dontcache(source);

	if (!dontcache)
		(void)posix_fadvise(source->fd, offset, (off_t)bytes, POSIX_FADV_DONTNEED);
	source_moved(source, dontcache ? bytes : 0);
}

ssize_t source_read(struct source *source, struct iovec iov[], int count, off_t offset)
{
	off_t at = offset;
	ssize_t done = 0;

	while (count) {
		done = transfer(source, false, iov, count, at);
		if (done <= 0)
			break;
		at += done;
		advance(&iov, &count, (size_t)done);
	}
	if (at > offset)
		source_has_read(source, offset, (size_t)(at - offset));
	return at > offset ? at - offset : done;
}

ssize_t source_write(struct source *source, const void *buffer, size_t length, off_t offset)
{
	struct iovec part = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = length};
	struct iovec *iov = &part;
	int count = length ? 1 : 0;
	off_t at = offset;
	ssize_t done = 0;

	while (count) {
		done = transfer(source, true, iov, count, at);
		if (done <= 0)
			break;
		at += done;
		advance(&iov, &count, (size_t)done);
	}
	if (at > offset)
		source_moved(source, (uint64_t)(at - offset));
	return at > offset ? at - offset : done;
}

unsigned source_flush_errors(const struct source *source)
{
	return atomic_load(&source->flush_errors);
}

errint_t source_flush(struct source *source, bool datasync, _Atomic unsigned *seen)
{
	unsigned errors;

	if (TEMP_FAILURE_RETRY(datasync ? fdatasync(source->fd) : fsync(source->fd))) {
		atomic_store(&source->flush_error, -errno);
		atomic_fetch_add(&source->flush_errors, 1);
	}
	errors = atomic_load(&source->flush_errors);
	/* This includes errors that another user was told of meanwhile: the lost write may be this
	 * user's. */
	return atomic_exchange(seen, errors) == errors ? 0 : atomic_load(&source->flush_error);
}

void source_drop_cache(struct source *source)
{
	if (source->kept)
		return;
	atomic_store_explicit(&source->undropped, 0, memory_order_relaxed);
	/* Only advice: where it is refused, the kernel's own reclaim does the work. */
	(void)posix_fadvise(source->fd, 0, 0, POSIX_FADV_DONTNEED);
}

void source_drop_cache_if_due(struct source *source)
{
	if (source_wants_drop(source))
		source_drop_cache(source);
}

static void drop_job(struct worker_job *job, bool wanted)
{
	struct source *source = caa_container_of(job, struct source, job);

	/* Not WANTED makes no difference. The last reference drops the cache anyway, but others may
	 * keep the source open. */
	(void)wanted;
	/* A request from here on gets a new drop, which begins after the request. */
	atomic_store(&source->dropping, false);
	source_drop_cache(source);
	source_put(source);
}

void source_drop_cache_soon(struct source *source, struct workers *workers)
{
	if (source->kept || atomic_exchange(&source->dropping, true))
		return;
	source_get(source)->job.run = drop_job;
	workers_add(workers, &source->job);
}

void source_stamp_of(const struct stat *st, struct source_stamp *ret_stamp)
{
	ret_stamp->device = st->st_dev;
	ret_stamp->inode = st->st_ino;
	ret_stamp->size = st->st_size;
	ret_stamp->mtime = st->st_mtim;
	ret_stamp->ctime = st->st_ctim;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool source_stamp_equal(const struct source_stamp *a, const struct source_stamp *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size &&
	       same_time(&a->mtime, &b->mtime) && same_time(&a->ctime, &b->ctime);
}

bool source_stamp_is_young(const struct source_stamp *stamp, int64_t nanoseconds)
{
	struct timespec now;
	int64_t age;

	clock_gettime(CLOCK_REALTIME, &now);
	age = (int64_t)(now.tv_sec - stamp->ctime.tv_sec) * 1000000000 + now.tv_nsec -
	      stamp->ctime.tv_nsec;
	return age < nanoseconds;
}

/* A time of whole seconds is seldom a coincidence. So the file system probably keeps only whole
 * seconds, whatever its type promises. */
bool source_stamp_is_racy(const struct source_stamp *stamp, bool multigrain)
{
	bool coarse = !stamp->ctime.tv_nsec;

	if (multigrain && !coarse)
		return false;
	return source_stamp_is_young(stamp, coarse ? COARSE_NANOSECONDS : RACY_NANOSECONDS);
}

errint_t source_check_unwritten(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	bool writes = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;

	/* If an opener has to wait for a moment, the kernel sends a signal. SIGURG is ignored by
	 * default; SIGIO would end the process. */
	if (fcntl(fd, F_SETSIG, SIGURG))
		return -errno;
	if (fcntl(fd, F_SETLEASE, writes ? F_WRLCK : F_RDLCK))
		return errno == EAGAIN ? -EBUSY : -errno;
	(void)fcntl(fd, F_SETLEASE, F_UNLCK);
	return 0;
}

static bool kernel_is_from(unsigned major, unsigned minor)
{
	struct utsname name;
	unsigned this_major;
	unsigned this_minor;

	return !uname(&name) && sscanf(name.release, "%u.%u", &this_major, &this_minor) == 2 &&
	       (this_major > major || (this_major == major && this_minor >= minor));
}

static bool is_one_of_the_disk(const struct statfs *fs)
{
	return fs->f_type == EXT4_SUPER_MAGIC || fs->f_type == XFS_SUPER_MAGIC ||
	       fs->f_type == BTRFS_SUPER_MAGIC;
}

bool source_is_multigrain(const struct statfs *fs)
{
	return (is_one_of_the_disk(fs) || fs->f_type == TMPFS_MAGIC) && kernel_is_from(6, 13);
}

bool source_stamps_first(const struct statfs *fs)
{
	return is_one_of_the_disk(fs) && kernel_is_from(5, 18);
}

bool source_reads_aside(const struct statfs *fs)
{
	return is_one_of_the_disk(fs) && kernel_is_from(6, 1);
}

uint64_t source_bytes(void)
{
	return sizeof(struct source);
}
