/* SPDX-License-Identifier: Apache-2.0 */
/*
 * platter.c - what would be left of a directory if the power failed now
 *
 * PLATTER/data/ID holds the flushed content of each file, under an id that no other file ever has;
 * the names in PLATTER/tree are hard links to these. So content is flushed for all names of a file
 * at once, and a name may be flushed before the content (the file is then empty) or after it. One
 * mutex: a flush that copies must not put back what another has replaced meanwhile.
 */
#include "platter.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ID_LENGTH 64
#define CHUNK     65536

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int data_fd; /* PLATTER/data; constant once open */
static int tree_fd; /* PLATTER/tree; the same */

static int open_beneath(const char *path, const char *name)
{
	char whole[4096];

	if (snprintf(whole, sizeof(whole), "%s/%s", path, name) >= (int)sizeof(whole)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (mkdir(whole, 0755) && errno != EEXIST)
		return -1;
	return open(whole, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int platter_open(const char *path)
{
	data_fd = open_beneath(path, "data");
	tree_fd = open_beneath(path, "tree");
	return data_fd < 0 || tree_fd < 0 ? -errno : 0;
}

/* Inode numbers are given again, but not with the same time of birth. */
static int id_of(int fd, const char *name, char id[ID_LENGTH], mode_t *ret_mode)
{
	struct statx stx;

	if (statx(fd, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME,
		  &stx))
		return -errno;
	snprintf(id, ID_LENGTH, "%llu-%lld.%09u", (unsigned long long)stx.stx_ino,
		 (long long)stx.stx_btime.tv_sec, stx.stx_btime.tv_nsec);
	*ret_mode = stx.stx_mode;
	return 0;
}

/* The flushed content of file ID, made empty if there is none. A descriptor or -errno. */
static int open_data(const char *id)
{
	int fd = openat(data_fd, id, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	return fd < 0 ? -errno : fd;
}

static int copy(int from, int to, off_t offset, off_t end)
{
	static char buffer[CHUNK]; /* under mutex */

	while (offset < end) {
		size_t want = end - offset < CHUNK ? (size_t)(end - offset) : CHUNK;
		ssize_t got = pread(from, buffer, want, offset);

		if (got <= 0)
			return got < 0 ? -errno : 0;
		if (pwrite(to, buffer, (size_t)got, offset) != got)
			return -EIO;
		offset += got;
	}
	return 0;
}

static int content_locked(int fd, off_t offset, off_t length, bool whole)
{
	char path[32];
	char id[ID_LENGTH];
	struct stat st;
	mode_t mode;
	int from;
	int to;
	int error = id_of(fd, "", id, &mode);

	if (error)
		return error;
	/* The file may be open for writing only. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return -errno;
	to = open_data(id);
	if (to < 0)
		error = to;
	else if (fstat(from, &st))
		error = -errno;
	else
		error = copy(from, to, offset, whole ? st.st_size : offset + length);
	if (!error && whole && ftruncate(to, st.st_size))
		error = -errno;
	close(from);
	if (to >= 0)
		close(to);
	return error;
}

int platter_content(int fd, off_t offset, off_t length)
{
	int error;

	pthread_mutex_lock(&mutex);
	error = content_locked(fd, offset, length, false);
	pthread_mutex_unlock(&mutex);
	return error;
}

int platter_file(int fd)
{
	int error;

	pthread_mutex_lock(&mutex);
	error = content_locked(fd, 0, 0, true);
	pthread_mutex_unlock(&mutex);
	return error;
}

/* NAME in directory FROM_FD is durable as a name in TO_FD. */
static int flush_name(int from_fd, int to_fd, const char *name)
{
	char id[ID_LENGTH];
	struct stat has;
	struct stat wanted;
	mode_t mode;
	int error = id_of(from_fd, name, id, &mode);
	int fd;

	/* Gone meanwhile: the next flush tells. */
	if (error)
		return error == -ENOENT ? 0 : error;
	if (S_ISDIR(mode))
		return mkdirat(to_fd, name, 0755) && errno != EEXIST ? -errno : 0;
	fd = open_data(id);
	if (fd < 0)
		return fd;
	if (fstat(fd, &wanted))
		error = -errno;
	close(fd);
	if (error)
		return error;
	if (!fstatat(to_fd, name, &has, AT_SYMLINK_NOFOLLOW)) {
		if (has.st_ino == wanted.st_ino)
			return 0;
		if (unlinkat(to_fd, name, S_ISDIR(has.st_mode) ? AT_REMOVEDIR : 0))
			return -errno;
	}
	return linkat(data_fd, id, to_fd, name, 0) ? -errno : 0;
}

/* Call FLUSH for each name in directory FD. */
static int each_name(int fd, int from_fd, int to_fd,
		     int (*flush)(int from_fd, int to_fd, const char *name))
{
	int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = own < 0 ? NULL : fdopendir(own);
	const struct dirent *entry;
	int error = 0;

	if (!directory) {
		error = -errno;
		if (own >= 0)
			close(own);
		return error;
	}
	while (!error && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			error = flush(from_fd, to_fd, entry->d_name);
	closedir(directory);
	return error;
}

/* NAME, durable in TO_FD, goes unless FROM_FD has it. */
static int flush_absence(int from_fd, int to_fd, const char *name)
{
	struct stat st;

	if (!fstatat(from_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	if (!unlinkat(to_fd, name, 0) || (errno == EISDIR && !unlinkat(to_fd, name, AT_REMOVEDIR)))
		return 0;
	return -errno;
}

int platter_directory(int backing_fd, const char *path)
{
	int from = openat(backing_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int to = openat(tree_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = from < 0 || to < 0 ? -errno : 0;

	pthread_mutex_lock(&mutex);
	if (!error)
		error = each_name(to, from, to, flush_absence);
	if (!error)
		error = each_name(from, from, to, flush_name);
	pthread_mutex_unlock(&mutex);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return error;
}
