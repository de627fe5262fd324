/* SPDX-License-Identifier: Apache-2.0 */
/*
 * faulty.c - between foldfs and the C library: calls that fail when a test says so
 *
 * The test maps the file that FOLDFS_FAULTS names and writes a struct control to it. The N-th call
 * from then on, of the classes named, fails with an errno, or moves fewer bytes than requested. The
 * test tries N = 1, 2, ... until no fault applies any more: then every call has failed once.
 * `classes` is written last; zero switches all faults off.
 *
 * A call that fails is not made. What the kernel would have done before a real failure depends on
 * the source, and is not simulated.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* Of the same numbers in tests/mount/sweep.py. */
enum {
	CLASS_READ = 1,
	CLASS_WRITE = 2,
	CLASS_OPEN = 4,
	CLASS_OPEN_PATH = 8, /* O_PATH */
	CLASS_HANDLE = 16,
	CLASS_STAT = 32,
	CLASS_SIZE = 64,
	CLASS_COPY = 128,
	CLASS_SYNC = 256,
	CLASS_NAME = 512,
	CLASS_ATTRIBUTE = 1024,
	CLASS_DIRECTORY = 2048,
	CLASS_ALLOCATION = 4096,
	CLASS_THREAD = 8192,
	CLASS_BACKING = 16384,   /* what passthrough and comparing extents take, from ioctl(2) on */
	CLASS_REPORT = 32768,    /* of a watch, and whatever else is read by read(2) */
	CLASS_CATALOGUE = 65536, /* LMDB's, which fail with errors of its own, too */
	CLASS_START = 131072,    /* what is called at the start and the end of a mount */
};

struct control {
	_Atomic uint32_t classes; /* or-ed */
	uint32_t nth;             /* from 1 on */
	int32_t error;            /* 0: short, which only transfers can be */
	_Atomic uint32_t calls;   /* of these classes since the test has set it to 0 */
	_Atomic uint32_t applied; /* the same of faults */
	uint32_t hit;             /* class of the last one */
	_Atomic int64_t clock;    /* seconds that CLOCK_REALTIME is ahead */
};

static struct control *control; /* set before main(), constant; NULL: nothing ever fails */

__attribute__((constructor)) static void map_control(void)
{
	const char *path = getenv("FOLDFS_FAULTS");
	void *memory;
	int fd;

	if (!path)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	memory = fd < 0 ? MAP_FAILED
			: mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		perror("foldfs-faulty: FOLDFS_FAULTS");
		_exit(2);
	}
	close(fd);
	control = memory;
}

/* Whether this call of CLASS is the one. TRANSFER: it may be short. */
static bool applies(uint32_t class, bool transfer)
{
	if (!control || !(atomic_load(&control->classes) & class))
		return false;
	if (!control->error && !transfer)
		return false;
	if (atomic_fetch_add(&control->calls, 1) + 1 != control->nth)
		return false;
	control->hit = class;
	atomic_fetch_add(&control->applied, 1);
	return true;
}

static bool fails(uint32_t class)
{
	if (!applies(class, false))
		return false;
	errno = control->error;
	return true;
}

/* The same for a transfer of *LENGTH bytes, which becomes shorter where that is the fault. */
static bool transfer_fails(uint32_t class, size_t *length)
{
	if (!applies(class, true))
		return false;
	if (control->error) {
		errno = control->error;
		return true;
	}
	*length = *length > 1 ? *length / 2 : *length;
	return false;
}

/* CALL(class, type, name, (parameters), (arguments)): fails with -1. */
#define CALL(class, type, name, parameters, arguments)                                             \
	type faulty_##name parameters;                                                             \
	type faulty_##name parameters                                                              \
	{                                                                                          \
		return fails(class) ? (type)-1 : name arguments;                                   \
	}

CALL(CLASS_OPEN, int, open_by_handle_at, (int fd, struct file_handle *handle, int flags),
     (fd, handle, flags))
CALL(CLASS_HANDLE, int, name_to_handle_at,
     (int fd, const char *path, struct file_handle *handle, int *id, int flags),
     (fd, path, handle, id, flags))
CALL(CLASS_STAT, int, fstat, (int fd, struct stat *st), (fd, st))
CALL(CLASS_STAT, int, fstatat, (int fd, const char *path, struct stat *st, int flags),
     (fd, path, st, flags))
CALL(CLASS_STAT, int, statx,
     (int fd, const char *path, int flags, unsigned int mask, struct statx *stx),
     (fd, path, flags, mask, stx))
CALL(CLASS_STAT, int, fstatvfs, (int fd, struct statvfs *st), (fd, st))
CALL(CLASS_STAT, int, fstatfs, (int fd, struct statfs *fs), (fd, fs))
CALL(CLASS_SIZE, int, ftruncate, (int fd, off_t size), (fd, size))
CALL(CLASS_SIZE, int, truncate, (const char *path, off_t size), (path, size))
CALL(CLASS_SIZE, int, fallocate, (int fd, int mode, off_t offset, off_t length),
     (fd, mode, offset, length))
CALL(CLASS_SYNC, int, fsync, (int fd), (fd))
CALL(CLASS_SYNC, int, fdatasync, (int fd), (fd))
CALL(CLASS_OPEN_PATH, int, dup, (int fd), (fd))
CALL(CLASS_DIRECTORY, off_t, lseek, (int fd, off_t offset, int whence), (fd, offset, whence))
CALL(CLASS_NAME, int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
CALL(CLASS_NAME, int, mknodat, (int fd, const char *path, mode_t mode, dev_t dev),
     (fd, path, mode, dev))
CALL(CLASS_NAME, int, symlinkat, (const char *target, int fd, const char *path), (target, fd, path))
CALL(CLASS_NAME, int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
CALL(CLASS_NAME, int, renameat2,
     (int from, const char *old, int to, const char *new, unsigned int flags),
     (from, old, to, new, flags))
CALL(CLASS_NAME, int, linkat, (int from, const char *old, int to, const char *new, int flags),
     (from, old, to, new, flags))
CALL(CLASS_NAME, ssize_t, readlinkat, (int fd, const char *path, char *buffer, size_t size),
     (fd, path, buffer, size))
CALL(CLASS_ATTRIBUTE, int, chmod, (const char *path, mode_t mode), (path, mode))
CALL(CLASS_ATTRIBUTE, int, fchownat, (int fd, const char *path, uid_t uid, gid_t gid, int flags),
     (fd, path, uid, gid, flags))
CALL(CLASS_ATTRIBUTE, int, utimensat,
     (int fd, const char *path, const struct timespec times[2], int flags),
     (fd, path, times, flags))
CALL(CLASS_ATTRIBUTE, ssize_t, getxattr,
     (const char *path, const char *name, void *value, size_t size), (path, name, value, size))
CALL(CLASS_ATTRIBUTE, ssize_t, listxattr, (const char *path, char *list, size_t size),
     (path, list, size))
CALL(CLASS_ATTRIBUTE, int, setxattr,
     (const char *path, const char *name, const void *value, size_t size, int flags),
     (path, name, value, size, flags))
CALL(CLASS_ATTRIBUTE, int, removexattr, (const char *path, const char *name), (path, name))

CALL(CLASS_REPORT, ssize_t, read, (int fd, void *buffer, size_t size), (fd, buffer, size))
CALL(CLASS_START, int, mkdir, (const char *path, mode_t mode), (path, mode))
CALL(CLASS_START, int, rename, (const char *old, const char *new), (old, new))
CALL(CLASS_START, int, unlink, (const char *path), (path))
CALL(CLASS_START, int, flock, (int fd, int operation), (fd, operation))
CALL(CLASS_START, int, eventfd, (unsigned int value, int flags), (value, flags))
CALL(CLASS_START, int, fanotify_init, (unsigned int flags, unsigned int event_flags),
     (flags, event_flags))
CALL(CLASS_START, int, fanotify_mark,
     (int fd, unsigned int flags, uint64_t mask, int directory, const char *path),
     (fd, flags, mask, directory, path))
CALL(CLASS_START, int, open_tree, (int fd, const char *path, unsigned int flags), (fd, path, flags))
CALL(CLASS_START, int, mount_setattr,
     (int fd, const char *path, unsigned int flags, struct mount_attr *attr, size_t size),
     (fd, path, flags, attr, size))
CALL(CLASS_START, ssize_t, getrandom, (void *buffer, size_t size, unsigned int flags),
     (buffer, size, flags))

/* ---- directories, by the C library ---- */

DIR *faulty_fdopendir(int fd);
DIR *faulty_fdopendir(int fd)
{
	return fails(CLASS_DIRECTORY) ? NULL : fdopendir(fd);
}

struct dirent *faulty_readdir(DIR *directory);
struct dirent *faulty_readdir(DIR *directory)
{
	return fails(CLASS_DIRECTORY) ? NULL : readdir(directory);
}

/* ---- calls with a variable number of arguments ---- */

int faulty_ioctl(int fd, unsigned long request, void *argument);
int faulty_ioctl(int fd, unsigned long request, void *argument)
{
	return fails(CLASS_BACKING) ? -1 : ioctl(fd, request, argument);
}

int faulty_fcntl(int fd, int command, long argument);
int faulty_fcntl(int fd, int command, long argument)
{
	if (command == F_DUPFD_CLOEXEC && fails(CLASS_OPEN_PATH))
		return -1;
	if (command == F_SETLEASE && argument != F_UNLCK && fails(CLASS_BACKING))
		return -1;
	return fcntl(fd, command, argument);
}

static uint32_t class_of_open(int flags)
{
	return flags & O_PATH ? CLASS_OPEN_PATH : CLASS_OPEN;
}

int faulty_open(const char *path, int flags, mode_t mode);
int faulty_open(const char *path, int flags, mode_t mode)
{
	return fails(class_of_open(flags)) ? -1 : open(path, flags, mode);
}

int faulty_openat(int fd, const char *path, int flags, mode_t mode);
int faulty_openat(int fd, const char *path, int flags, mode_t mode)
{
	return fails(class_of_open(flags)) ? -1 : openat(fd, path, flags, mode);
}

/* What the headers make of the two above where flags are not known and there is no mode. */
int faulty___open_2(const char *path, int flags);
int faulty___open_2(const char *path, int flags)
{
	return faulty_open(path, flags, 0);
}

int faulty___openat_2(int fd, const char *path, int flags);
int faulty___openat_2(int fd, const char *path, int flags)
{
	return faulty_openat(fd, path, flags, 0);
}

long faulty_syscall(long number, long a, long b, long c, long d, long e, long f);
long faulty_syscall(long number, long a, long b, long c, long d, long e, long f)
{
	if (number == SYS_getdents64 && fails(CLASS_DIRECTORY))
		return -1;
	if (number == SYS_openat2 && fails(CLASS_BACKING))
		return -1;
	return syscall(number, a, b, c, d, e, f);
}

/* ---- transfers ---- */

/* The first LENGTH bytes of IOV, as PART. Returns how many parts. */
static int cut(const struct iovec *iov, int count, size_t length, struct iovec part[])
{
	int parts = 0;

	for (; parts < count && length; length -= part[parts++].iov_len) {
		part[parts] = iov[parts];
		if (part[parts].iov_len > length)
			part[parts].iov_len = length;
	}
	return parts;
}

static size_t bytes_of(const struct iovec *iov, int count)
{
	size_t bytes = 0;

	for (int i = 0; i < count; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

ssize_t faulty_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags);
ssize_t faulty_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	struct iovec part[IOV_MAX];
	size_t length = bytes_of(iov, count);

	if (transfer_fails(CLASS_READ, &length))
		return -1;
	return preadv2(fd, part, cut(iov, count, length, part), offset, flags);
}

ssize_t faulty_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags);
ssize_t faulty_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	struct iovec part[IOV_MAX];
	size_t length = bytes_of(iov, count);

	if (transfer_fails(CLASS_WRITE, &length))
		return -1;
	return pwritev2(fd, part, cut(iov, count, length, part), offset, flags);
}

ssize_t faulty_copy_file_range(int in, off_t *from, int out, off_t *to, size_t length,
			       unsigned int flags);
ssize_t faulty_copy_file_range(int in, off_t *from, int out, off_t *to, size_t length,
			       unsigned int flags)
{
	if (transfer_fails(CLASS_COPY, &length))
		return -1;
	return copy_file_range(in, from, out, to, length, flags);
}

/* ---- the catalogue's database, whose calls return what failed ---- */

#define DATABASE_CALL(name, parameters, arguments)                                                 \
	int faulty_##name parameters;                                                              \
	int faulty_##name parameters                                                               \
	{                                                                                          \
		return fails(CLASS_CATALOGUE) ? control->error : name arguments;                   \
	}

DATABASE_CALL(mdb_env_create, (MDB_env * *env), (env))
DATABASE_CALL(mdb_env_open, (MDB_env * env, const char *path, unsigned flags, mdb_mode_t mode),
	      (env, path, flags, mode))
DATABASE_CALL(mdb_env_sync, (MDB_env * env, int force), (env, force))
DATABASE_CALL(mdb_dbi_open, (MDB_txn * txn, const char *name, unsigned flags, MDB_dbi *dbi),
	      (txn, name, flags, dbi))
DATABASE_CALL(mdb_txn_begin, (MDB_env * env, MDB_txn *parent, unsigned flags, MDB_txn **txn),
	      (env, parent, flags, txn))
DATABASE_CALL(mdb_get, (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *value),
	      (txn, dbi, key, value))
DATABASE_CALL(mdb_put, (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *value, unsigned flags),
	      (txn, dbi, key, value, flags))
DATABASE_CALL(mdb_del, (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *value),
	      (txn, dbi, key, value))
DATABASE_CALL(mdb_cursor_open, (MDB_txn * txn, MDB_dbi dbi, MDB_cursor **cursor),
	      (txn, dbi, cursor))
DATABASE_CALL(mdb_cursor_get,
	      (MDB_cursor * cursor, MDB_val *key, MDB_val *value, MDB_cursor_op operation),
	      (cursor, key, value, operation))

/* A transaction is gone after its commit, however that ends. */
int faulty_mdb_txn_commit(MDB_txn *txn);
int faulty_mdb_txn_commit(MDB_txn *txn)
{
	if (!fails(CLASS_CATALOGUE))
		return mdb_txn_commit(txn);
	mdb_txn_abort(txn);
	return control->error;
}

/* ---- memory, threads, the clock ---- */

void *faulty_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *faulty_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	return fails(CLASS_ALLOCATION) ? MAP_FAILED
				       : mmap(address, length, protection, flags, fd, offset);
}

void *faulty_malloc(size_t size);
void *faulty_malloc(size_t size)
{
	return fails(CLASS_ALLOCATION) ? NULL : malloc(size);
}

void *faulty_calloc(size_t count, size_t size);
void *faulty_calloc(size_t count, size_t size)
{
	return fails(CLASS_ALLOCATION) ? NULL : calloc(count, size);
}

void *faulty_realloc(void *memory, size_t size);
void *faulty_realloc(void *memory, size_t size)
{
	return fails(CLASS_ALLOCATION) ? NULL : realloc(memory, size);
}

void *faulty_aligned_alloc(size_t alignment, size_t size);
void *faulty_aligned_alloc(size_t alignment, size_t size)
{
	return fails(CLASS_ALLOCATION) ? NULL : aligned_alloc(alignment, size);
}

int faulty_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*function)(void *), void *argument);
int faulty_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*function)(void *), void *argument)
{
	return fails(CLASS_THREAD) ? errno : pthread_create(thread, attributes, function, argument);
}

/* CLOCK_MONOTONIC never jumps. */
int faulty_clock_gettime(clockid_t clock, struct timespec *ret_time);
int faulty_clock_gettime(clockid_t clock, struct timespec *ret_time)
{
	int result = clock_gettime(clock, ret_time);

	if (!result && control && clock == CLOCK_REALTIME)
		ret_time->tv_sec += atomic_load(&control->clock);
	return result;
}
