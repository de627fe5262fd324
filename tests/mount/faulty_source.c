/* SPDX-License-Identifier: Apache-2.0 */
/*
 * faulty_source.c - a file system that passes a directory through and fails on demand
 *
 * The tests mount it as foldfs's source, to see what foldfs does with a source whose disk fails,
 * fills up or hangs. Nothing is cached between the two (direct I/O, no attribute timeout), so a
 * fault reaches foldfs at the call it is meant for.
 *
 * Faults stand in a file that the test maps and writes: FAULTS records of struct fault. The server
 * only reads them, and counts how often each applied. A record is written with `kind` last.
 *
 * With a platter it also keeps what would be left if the power failed now: see platter.h.
 */
#define FUSE_USE_VERSION 318
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <fuse.h>

#include "platter.h"

#define FAULTS 16

enum fault_kind { FAULT_NONE, FAULT_ERROR, FAULT_HANG };
enum fault_call {
	CALL_READ = 1,
	CALL_WRITE = 2,
	CALL_FSYNC = 4,
	CALL_GETATTR = 8,
	CALL_OPEN = 16,
	CALL_CREATE = 32,
	CALL_TRUNCATE = 64,
	CALL_FALLOCATE = 128,
	CALL_RENAME = 256,
	CALL_UNLINK = 512,
	CALL_READDIR = 1024,
	CALL_FLUSH = 2048,
};

struct fault {
	_Atomic uint32_t kind;
	uint32_t calls; /* of enum fault_call, or-ed */
	uint64_t first; /* bytes it is about, for reads and writes */
	uint64_t last;  /* inclusive */
	uint32_t error; /* errno of FAULT_ERROR */
	_Atomic uint32_t applied;
	char under[32]; /* begin of the paths that it is about; empty: all */
};

static struct fault *faults;
static int backing_fd;
static bool has_platter; /* constant once it serves */

/* Paths come as "/a/b"; the calls are made beneath the backing directory. */
static const char *beneath(const char *path)
{
	return path[1] ? path + 1 : ".";
}

static int result_of(int result)
{
	return result < 0 ? -errno : 0;
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static bool is_under(const char *path, const struct fault *fault)
{
	return !strncmp(path, fault->under, strnlen(fault->under, sizeof(fault->under)));
}

/* Wait while a fault says so; the error that one demands, negative, or 0. */
static int fault_for(uint32_t call, const char *path, uint64_t first, uint64_t length)
{
	uint64_t last = length ? first + length - 1 : first;

	for (int i = 0; i < FAULTS; i++) {
		struct fault *fault = &faults[i];
		uint32_t kind = atomic_load(&fault->kind);

		if (kind == FAULT_NONE || !(fault->calls & call) || first > fault->last ||
		    last < fault->first || !is_under(path, fault))
			continue;
		atomic_fetch_add(&fault->applied, 1);
		while (atomic_load(&fault->kind) == FAULT_HANG)
			nap();
		if (kind == FAULT_ERROR)
			return -(int)fault->error;
	}
	return 0;
}

/* The same for calls that are about no bytes. */
static int fault_of(uint32_t call, const char *path)
{
	return fault_for(call, path, 0, UINT64_MAX);
}

/* Bytes before the first one that a read error is set for: a disk gives what precedes a
 * bad block. */
static uint64_t before_fault(uint64_t first, uint64_t length)
{
	for (int i = 0; i < FAULTS; i++) {
		struct fault *fault = &faults[i];

		if (atomic_load(&fault->kind) == FAULT_ERROR && (fault->calls & CALL_READ) &&
		    fault->first > first && fault->first < first + length)
			length = fault->first - first;
	}
	return length;
}

static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	int error = fault_of(CALL_GETATTR, path);

	if (error)
		return error;
	if (fi)
		return result_of(fstat((int)fi->fh, st));
	return result_of(fstatat(backing_fd, beneath(path), st, AT_SYMLINK_NOFOLLOW));
}

static int fs_open(const char *path, struct fuse_file_info *fi)
{
	int error = fault_of(CALL_OPEN, path);
	int fd;

	if (error)
		return error;
	fd = openat(backing_fd, beneath(path), fi->flags & ~(O_DIRECT | O_APPEND));
	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	fi->direct_io = 1;
	return 0;
}

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	int error = fault_of(CALL_CREATE, path);
	int fd;

	if (error)
		return error;
	fd = openat(backing_fd, beneath(path), (fi->flags & ~(O_DIRECT | O_APPEND)) | O_CREAT,
		    mode);
	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	fi->direct_io = 1;
	return 0;
}

static int fs_flush(const char *path, struct fuse_file_info *fi)
{
	(void)fi;
	return fault_of(CALL_FLUSH, path);
}

static int fs_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	close((int)fi->fh);
	return 0;
}

static int fs_read(const char *path, char *buffer, size_t size, off_t offset,
		   struct fuse_file_info *fi)
{
	uint64_t length = before_fault((uint64_t)offset, size);
	int error = fault_for(CALL_READ, path, (uint64_t)offset, length);
	ssize_t done;

	if (error)
		return error;
	done = pread((int)fi->fh, buffer, length, offset);
	return done < 0 ? -errno : (int)done;
}

static int fs_write(const char *path, const char *buffer, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	int error = fault_for(CALL_WRITE, path, (uint64_t)offset, size);
	ssize_t done;

	if (error)
		return error;
	done = pwrite((int)fi->fh, buffer, size, offset);
	if (done < 0)
		return -errno;
	/* The kernel sends no fsync after direct I/O. */
	if (has_platter && fi->flags & O_DSYNC)
		error = platter_content((int)fi->fh, offset, done);
	return error ? error : (int)done;
}

static int fs_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	int error = fault_of(CALL_FSYNC, path);

	(void)datasync;
	if (!error)
		error = result_of(fsync((int)fi->fh));
	if (!error && has_platter)
		error = platter_file((int)fi->fh);
	return error;
}

static int fs_fsyncdir(const char *path, int datasync, struct fuse_file_info *fi)
{
	int error = fault_of(CALL_FSYNC, path);

	(void)datasync;
	(void)fi;
	if (!error && has_platter)
		error = platter_directory(backing_fd, beneath(path));
	return error;
}

static int fs_fallocate(const char *path, int mode, off_t offset, off_t length,
			struct fuse_file_info *fi)
{
	int error = fault_of(CALL_FALLOCATE, path);

	return error ? error : result_of(fallocate((int)fi->fh, mode, offset, length));
}

static int fs_link(const char *from, const char *to)
{
	return result_of(linkat(backing_fd, beneath(from), backing_fd, beneath(to), 0));
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	int error = fault_of(CALL_TRUNCATE, path);
	int fd;

	if (error)
		return error;
	if (fi)
		return result_of(ftruncate((int)fi->fh, size));
	fd = openat(backing_fd, beneath(path), O_WRONLY);
	if (fd < 0)
		return -errno;
	error = result_of(ftruncate(fd, size));
	close(fd);
	return error;
}

static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
		      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	int error = fault_of(CALL_READDIR, path);
	int fd = error ? -1 : openat(backing_fd, beneath(path), O_RDONLY | O_DIRECTORY);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	(void)offset;
	(void)fi;
	(void)flags;
	if (error)
		return error;
	if (!directory)
		return -errno;
	while ((entry = readdir(directory)))
		fill(buffer, entry->d_name, NULL, 0, 0);
	closedir(directory);
	return 0;
}

static int fs_mkdir(const char *path, mode_t mode)
{
	return result_of(mkdirat(backing_fd, beneath(path), mode));
}

static int fs_unlink(const char *path)
{
	int error = fault_of(CALL_UNLINK, path);

	return error ? error : result_of(unlinkat(backing_fd, beneath(path), 0));
}

static int fs_rmdir(const char *path)
{
	return result_of(unlinkat(backing_fd, beneath(path), AT_REMOVEDIR));
}

static int fs_rename(const char *from, const char *to, unsigned int flags)
{
	int error = fault_of(CALL_RENAME, from);

	if (error || flags)
		return error ? error : -EINVAL;
	return result_of(renameat(backing_fd, beneath(from), backing_fd, beneath(to)));
}

static int fs_statfs(const char *path, struct statvfs *st)
{
	(void)path;
	return result_of(fstatvfs(backing_fd, st));
}

static int fs_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *fi)
{
	(void)fi;
	return result_of(utimensat(backing_fd, beneath(path), times, AT_SYMLINK_NOFOLLOW));
}

static void *fs_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
	/* A look-up that hangs holds up no other in its directory. */
	fuse_set_feature_flag(connection, FUSE_CAP_PARALLEL_DIROPS);
	/* Files of foldfs in passthrough are mapped through ours. */
	fuse_set_feature_flag(connection, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
	config->use_ino = 1;
	config->entry_timeout = config->attr_timeout = config->negative_timeout = 0;
	return NULL;
}

static const struct fuse_operations operations = {
	.init = fs_init,
	.getattr = fs_getattr,
	.open = fs_open,
	.create = fs_create,
	.flush = fs_flush,
	.release = fs_release,
	.read = fs_read,
	.write = fs_write,
	.fsync = fs_fsync,
	.fsyncdir = fs_fsyncdir,
	.fallocate = fs_fallocate,
	.link = fs_link,
	.truncate = fs_truncate,
	.readdir = fs_readdir,
	.mkdir = fs_mkdir,
	.unlink = fs_unlink,
	.rmdir = fs_rmdir,
	.rename = fs_rename,
	.statfs = fs_statfs,
	.utimens = fs_utimens,
};

/* faulty_source BACKING FAULTS-FILE PLATTER MOUNTPOINT [libfuse options]; an empty PLATTER: none */
int main(int argc, char *argv[])
{
	int error;
	int fd;

	if (argc < 5) {
		fprintf(stderr, "usage: %s BACKING FAULTS-FILE PLATTER MOUNTPOINT [options]\n",
			argv[0]);
		return 2;
	}
	backing_fd = open(argv[1], O_RDONLY | O_DIRECTORY);
	fd = open(argv[2], O_RDWR | O_CREAT, 0600);
	if (backing_fd < 0 || fd < 0 || ftruncate(fd, sizeof(struct fault) * FAULTS)) {
		perror("faulty_source");
		return 1;
	}
	faults = mmap(NULL, sizeof(struct fault) * FAULTS, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		      0);
	if (faults == MAP_FAILED) {
		perror("faulty_source: mmap");
		return 1;
	}
	has_platter = argv[3][0] != '\0';
	error = has_platter ? platter_open(argv[3]) : 0;
	if (error) {
		fprintf(stderr, "faulty_source: %s: %s\n", argv[3], strerror(-error));
		return 1;
	}
	umask(0);
	argv[3] = argv[0];
	return fuse_main(argc - 3, argv + 3, &operations, NULL);
}
