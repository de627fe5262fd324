/* SPDX-License-Identifier: Apache-2.0 */
/*
 * whole_ops.c - operations on files that are equal as a whole
 *
 * A read by a descriptor that shows old content holds nothing. It runs beside whatever happens to
 * the file, and beside changes of its equals, and must find every byte of that content. A read by a
 * descriptor that shows, or may show, the present content holds the file, so that the content is
 * definite.
 */
#include "whole.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Of a hundred operations. */
#define READS        70u
#define OPENS        88u /* the rest: what changes something */
#define WRITER_OF    8u  /* of so many opens one is for writing */
#define REPLACE_OF   4u  /* of so many changes by name one gives the name away */
#define CHANGE_BYTES (8u * PAGE)

/* ---- reading ---- */

enum way { WAY_READ, WAY_VECTOR, WAY_SENDFILE, WAY_MAPPED, WAYS };

static const char *const way_names[WAYS] = {"read", "readv", "sendfile", "mapped read"};

static ssize_t get_vector(struct player *p, int fd, size_t at, size_t length)
{
	const struct iovec parts[2] = {
		{.iov_base = p->bytes, .iov_len = length / 3},
		{.iov_base = p->bytes + length / 3, .iov_len = length - length / 3},
	};
	ssize_t got = preadv(fd, parts, 2, (off_t)at);

	return got < 0 ? -errno : got;
}

static ssize_t get_sendfile(struct player *p, int fd, size_t at, size_t length)
{
	off_t from = (off_t)at;
	size_t got = 0;
	ssize_t part = 1;

	if (lseek(p->memory, 0, SEEK_SET))
		return -errno;
	while (got < length && part > 0) {
		part = sendfile(p->memory, fd, &from, length - got);
		if (part < 0)
			return -errno;
		got += (size_t)part;
	}
	return pread(p->memory, p->bytes, got, 0) == (ssize_t)got ? (ssize_t)got : -EIO;
}

static bool map(struct player *p, struct descriptor *d)
{
	bool writes = (d->flags & O_ACCMODE) != O_RDONLY;
	void *address;

	if (d->map)
		return true;
	if (d->fd < 0)
		return false;
	address = mmap(NULL, WHOLE_BYTES, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
		       d->fd, 0);
	if (address == MAP_FAILED) {
		complain(p, "mmap of file %u, flags %#x: %s", d->name, (unsigned)d->flags,
			 strerror(errno));
		return false;
	}
	d->map = address;
	return true;
}

static void read_by(struct player *p, struct descriptor *d, enum way way, size_t at, size_t length)
{
	struct whole *file;
	ssize_t got;

	if (way == WAY_MAPPED ? !map(p, d) : d->fd < 0)
		return;
	if (d->flags & O_DIRECT && way != WAY_MAPPED) {
		way = WAY_READ;
		at &= ~(size_t)(PAGE - 1);
		length = (length + PAGE - 1) / PAGE * PAGE;
	}
	file = descriptor_follows(d);
	if (file)
		pthread_rwlock_rdlock(&file->lock);
	if (way == WAY_READ) {
		got = pread(d->fd, p->bytes, length, (off_t)at);
		got = got < 0 ? -errno : got;
	} else {
		got = way == WAY_VECTOR     ? get_vector(p, d->fd, at, length)
		      : way == WAY_SENDFILE ? get_sendfile(p, d->fd, at, length)
					    : (ssize_t)guarded_copy(p->bytes, d->map + at, length);
	}
	descriptor_seen(p, d, way_names[way], way == WAY_MAPPED, at, length, got);
	if (file)
		pthread_rwlock_unlock(&file->lock);
}

void read_whole(struct player *p, struct descriptor *d)
{
	unsigned way;

	for (way = 0; way < WAYS; way++)
		read_by(p, d, way, 0, WHOLE_BYTES);
}

static void play_read(struct player *p, struct descriptor *d)
{
	size_t at = draw(p, WHOLE_BYTES);
	size_t length = 1 + draw(p, draw(p, 2) ? WHOLE_BYTES : 3 * PAGE);

	if (at + length > WHOLE_BYTES)
		length = WHOLE_BYTES - at;
	read_by(p, d, draw(p, WAYS), at, length);
}

/* ---- opening ---- */

/* One that was closed and is mapped still is left so every other time. */
static void play_open(struct player *p, struct descriptor *d)
{
	static const int readers[] = {O_RDONLY, O_RDONLY, O_RDONLY | O_DIRECT};
	static const int writers[] = {O_RDWR, O_RDWR, O_RDWR | O_SYNC};
	bool writes = !p->play->behind && !draw(p, WRITER_OF);

	if (d->fd >= 0 && draw(p, 2)) {
		descriptor_close(d, draw(p, 2));
		return;
	}
	descriptor_close(d, false);
	descriptor_open(p, d, draw(p, p->play->names),
			writes ? writers[draw(p, 3)] : readers[draw(p, 3)]);
}

/* ---- changes, by a descriptor ---- */

/* What P writes next. */
static void new_bytes(struct player *p, size_t at, size_t length)
{
	content_fill(UNIQUE | p->number << 24 | ((uint32_t)p->index & 0xffffff), 0, at, p->bytes,
		     length);
}

static void put(struct whole *file, size_t at, const uint8_t *bytes, size_t length)
{
	if (bytes)
		memcpy(file->now + at, bytes, length);
	else
		memset(file->now + at, 0, length);
	if (at + length > file->size)
		file->size = at + length;
}

static void resize(struct whole *file, size_t size)
{
	if (size < file->size)
		memset(file->now + size, 0, file->size - size);
	if (size != file->size)
		whole_changed(file);
	file->size = size;
}

/* FLAGS: RWF_APPEND, or none. */
static bool by_write(struct player *p, struct descriptor *d, struct whole *file, int flags)
{
	size_t at = flags ? file->size : draw(p, WHOLE_BYTES);
	size_t length = 1 + draw(p, CHANGE_BYTES);
	struct iovec part = {.iov_base = p->bytes};

	if (length > WHOLE_BYTES - at)
		length = WHOLE_BYTES - at;
	if (!length)
		return true;
	new_bytes(p, at, length);
	part.iov_len = length;
	if (pwritev2(d->fd, &part, 1, (off_t)at, flags) != (ssize_t)length)
		return false;
	put(file, at, p->bytes, length);
	atomic_fetch_add(&p->play->figures.bytes_written, length);
	whole_changed(file);
	return true;
}

static bool by_store(struct player *p, struct descriptor *d, struct whole *file)
{
	size_t at = draw(p, WHOLE_BYTES);
	size_t length = 1 + draw(p, CHANGE_BYTES);

	if (at >= file->size || !map(p, d))
		return true;
	if (length > file->size - at)
		length = file->size - at;
	new_bytes(p, at, length);
	if (guarded_copy(d->map + at, p->bytes, length) != length)
		return false;
	put(file, at, p->bytes, length);
	atomic_fetch_add(&p->play->figures.bytes_written, length);
	/* Until the kernel writes it back the source, and its ctime, are what they were; but as
	 * long as that may be, somebody has the file open for writing. */
	file->dirty = draw(p, 2);
	whole_changed(file);
	return file->dirty || !msync(d->map, WHOLE_BYTES, MS_SYNC);
}

static bool by_punch(struct player *p, struct descriptor *d, struct whole *file)
{
	size_t at = draw(p, WHOLE_BYTES);
	size_t length = 1 + draw(p, CHANGE_BYTES);

	if (at >= file->size)
		return true;
	if (length > file->size - at)
		length = file->size - at;
	if (fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)length))
		return false;
	put(file, at, NULL, length);
	whole_changed(file);
	return true;
}

static bool by_size(struct player *p, struct descriptor *d, struct whole *file)
{
	size_t size = draw(p, WHOLE_BYTES + 1);

	if (ftruncate(d->fd, (off_t)size))
		return false;
	resize(file, size);
	return true;
}

static void change(struct player *p, struct descriptor *d)
{
	static const char *const names[] = {"write", "append", "store", "punch", "ftruncate"};
	struct whole *file = descriptor_follows(d);
	unsigned kind = draw(p, 5);
	bool done;

	pthread_rwlock_wrlock(&file->lock);
	errno = 0;
	done = kind == 0   ? by_write(p, d, file, 0)
	       : kind == 1 ? by_write(p, d, file, RWF_APPEND)
	       : kind == 2 ? by_store(p, d, file)
	       : kind == 3 ? by_punch(p, d, file)
			   : by_size(p, d, file);
	if (!done)
		complain(p, "%s, file %u: %s", names[kind], d->name, strerror(errno));
	pthread_rwlock_unlock(&file->lock);
}

/* ---- changes, by a name ---- */

static bool open_truncating(const char *path, int flags)
{
	int fd = open(path, flags | O_TRUNC | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* The file keeps its name, held by the caller. */
static void change_named(struct player *p, unsigned name, const char *path)
{
	static const char *const names[] = {"truncate", "O_TRUNC", "O_RDONLY with O_TRUNC",
					    "chmod"};
	struct whole *file = whole_named(p->play, name);
	size_t size = draw(p, WHOLE_BYTES + 1);
	unsigned kind = draw(p, 4);
	bool done;

	whole_opened(file);
	pthread_rwlock_wrlock(&file->lock);
	done = kind == 0   ? !truncate(path, (off_t)size)
	       : kind == 1 ? open_truncating(path, O_WRONLY)
	       : kind == 2 ? open_truncating(path, O_RDONLY)
			   : !chmod(path, 0600 + draw(p, 0100));
	if (!done)
		complain(p, "%s, file %u: %s", names[kind], name, strerror(errno));
	else if (kind == 3)
		whole_changed(file); /* as far as its ctime tells */
	else
		resize(file, kind == 0 ? size : 0);
	pthread_rwlock_unlock(&file->lock);
}

/* Bytes of a new file: one of a class, which nobody knows to be of it, or what no other has. */
static size_t new_file(struct player *p)
{
	size_t length = 1 + draw(p, WHOLE_BYTES);

	if (draw(p, 2))
		return class_content(p->play, draw(p, p->play->classes), p->bytes);
	new_bytes(p, 0, length);
	return length;
}

static bool write_new(const char *path, const uint8_t *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	bool written = fd >= 0 && pwrite(fd, bytes, length, 0) == (ssize_t)length;

	if (fd >= 0)
		close(fd);
	return written;
}

/* Another file gets the name, whose lock the caller holds. */
static void give_away(struct player *p, unsigned name, const char *path)
{
	const char *directory = p->play->behind ? p->play->source : p->play->mount;
	struct name *entry = &p->play->table[name];
	unsigned version = atomic_load(&entry->started) + 1;
	size_t length = new_file(p);
	struct whole *file;
	char fresh[4200];
	bool unlinks = !p->play->behind && !draw(p, 3);

	if (version == VERSIONS_MAX)
		return;
	file = whole_new(p->bytes, length);
	if (!file) {
		complain(p, "no memory");
		return;
	}
	path_in(directory, name, ".new", fresh, sizeof(fresh));
	atomic_store(&entry->versions[version], file);
	atomic_store(&entry->started, version);
	if ((unlinks && unlink(path)) || !write_new(unlinks ? path : fresh, p->bytes, length) ||
	    (!unlinks && rename(fresh, path)))
		complain(p, "file %u, in the place of another: %s", name, strerror(errno));
	atomic_store(&entry->done, version);
	atomic_fetch_add(&p->play->figures.replaced, 1);
}

static void play_named(struct player *p)
{
	unsigned name = draw(p, p->play->names);
	struct name *entry = &p->play->table[name];
	bool gives = p->play->behind || !draw(p, REPLACE_OF);
	char path[4200];

	path_in(p->play->behind ? p->play->source : p->play->mount, name, "", path, sizeof(path));
	if (gives) {
		pthread_rwlock_wrlock(&entry->lock);
		give_away(p, name, path);
	} else {
		pthread_rwlock_rdlock(&entry->lock);
		change_named(p, name, path);
	}
	pthread_rwlock_unlock(&entry->lock);
}

/* ---- the source ---- */

/* It holds what was written. */
static void play_source(struct player *p)
{
	unsigned name = draw(p, p->play->names);
	struct name *entry = &p->play->table[name];
	struct descriptor source = {.fd = -1, .name = name, .count = 1};
	struct whole *file;
	char path[4200];

	path_in(p->play->source, name, "", path, sizeof(path));
	pthread_rwlock_rdlock(&entry->lock);
	file = whole_named(p->play, name);
	pthread_rwlock_rdlock(&file->lock);
	source.shown[0] = (struct shown){.file = file, .now = true};
	source.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (!file->dirty)
		descriptor_seen(p, &source, "read of the source", false, 0, WHOLE_BYTES,
				source.fd < 0 ? -errno
					      : pread(source.fd, p->bytes, WHOLE_BYTES, 0));
	if (source.fd >= 0)
		close(source.fd);
	pthread_rwlock_unlock(&file->lock);
	pthread_rwlock_unlock(&entry->lock);
}

/* ---- which one ---- */

void play_one(struct player *p)
{
	struct descriptor *d = &p->descriptors[draw(p, DESCRIPTORS)];
	uint32_t kind = draw(p, 100);

	if (kind < READS)
		play_read(p, d);
	else if (kind < OPENS)
		play_open(p, d);
	else if (d->fd >= 0 && (d->flags & O_ACCMODE) != O_RDONLY)
		change(p, d);
	else if (!draw(p, p->play->behind ? 2 : 6))
		play_named(p);
	else if (!p->play->behind)
		play_source(p);
}
