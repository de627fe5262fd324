/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change.c - operations that change content
 *
 * Each operation holds what it changes, starts the new versions in the model, does the change, and
 * ends the versions. If the file system says that it does not support an operation, that is
 * counted, and the model goes back.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIPE_BYTES (64u << 10)

void hold_all(struct worker *w, unsigned file, struct hold_range *ret_range)
{
	*ret_range = (struct hold_range){.file = file,
					 .last = FILE_PAGES - 1,
					 .pages = HOLD_EXCLUSIVE,
					 .size = HOLD_EXCLUSIVE};
	model_lock(w->shared, ret_range);
}

void hold_for_change(struct worker *w, unsigned file, uint64_t at, size_t length,
		     struct hold_range *ret_range)
{
	*ret_range = (struct hold_range){.file = file,
					 .first = (unsigned)(at / PAGE),
					 .last = (unsigned)((at + length - 1) / PAGE),
					 .pages = HOLD_EXCLUSIVE,
					 .size = HOLD_SHARED};
	model_lock(w->shared, ret_range);
	if (at + length <= model_size(w->shared, file))
		return;
	model_unlock(w->shared, ret_range);
	hold_all(w, file, ret_range);
}

/* ---- writes: all of LENGTH bytes, or -errno ---- */

static errint_t put_plain(int fd, const uint8_t *bytes, size_t length, off_t at)
{
	ssize_t done;

	for (; length; length -= (size_t)done, bytes += done, at += done) {
		done = pwrite(fd, bytes, length, at);
		if (done <= 0)
			return done ? -errno : -EIO;
	}
	return 0;
}

static errint_t put_flags(int fd, const uint8_t *bytes, size_t length, off_t at, unsigned how)
{
	static const int flags[] = {[WRITE_DSYNC] = RWF_DSYNC,
				    [WRITE_NOWAIT] = RWF_NOWAIT,
				    [WRITE_SYNC] = RWF_SYNC,
				    [WRITE_HIPRI] = RWF_HIPRI,
				    [WRITE_DONTCACHE] = RWF_DONTCACHE};
	struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
	ssize_t done = pwritev2(fd, &part, 1, at, flags[how]);

	if (done < 0 && ((how == WRITE_NOWAIT && errno == EAGAIN) || errno == EOPNOTSUPP))
		done = 0; /* not this way */
	if (done < 0)
		return -errno;
	return put_plain(fd, bytes + done, length - (size_t)done, at + done);
}

/* At its offset, though the descriptor appends. */
static errint_t put_not_appending(int fd, const uint8_t *bytes, size_t length, off_t at)
{
	struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
	ssize_t done;

	for (; length; length -= (size_t)done, at += done) {
		done = pwritev2(fd, &part, 1, at, RWF_NOAPPEND);
		if (done <= 0)
			return done ? -errno : -EIO;
		part.iov_base = (uint8_t *)part.iov_base + done;
		part.iov_len -= (size_t)done;
	}
	return 0;
}

static errint_t put_aio(struct worker *w, int fd, uint8_t *bytes, size_t length, off_t at)
{
	ssize_t done = aio_do(w, IOCB_CMD_PWRITE, fd, bytes, length, at);

	if (done < 0)
		return (errint_t)done;
	return put_plain(fd, bytes + done, length - (size_t)done, at + done);
}

static errint_t put_parts(int fd, uint8_t *bytes, size_t length, off_t at)
{
	size_t a = length / 3;
	size_t b = length / 2;
	const struct iovec parts[3] = {
		{.iov_base = bytes, .iov_len = a},
		{.iov_base = bytes + a, .iov_len = b - a},
		{.iov_base = bytes + b, .iov_len = length - b},
	};
	ssize_t done;

	if (lseek(fd, at, SEEK_SET) < 0)
		return -errno;
	done = writev(fd, parts, 3);
	if (done < 0)
		return -errno;
	return put_plain(fd, bytes + done, length - (size_t)done, at + done);
}

static errint_t put_uring(struct worker *w, int fd, const uint8_t *bytes, size_t length, off_t at)
{
	ssize_t done;

	if (!has_ring(w)) {
		atomic_fetch_add(&w->shared->refused, 1);
		return put_plain(fd, bytes, length, at);
	}
	memcpy(w->ring_buffer, bytes, length);
	done = uring_do(w, true, fd, length, at);
	if (done < 0)
		return (errint_t)done;
	return put_plain(fd, bytes + done, length - (size_t)done, at + done);
}

static errint_t put_sendfile(struct worker *w, int fd, const uint8_t *bytes, size_t length,
			     off_t at)
{
	ssize_t done;

	if (!memory_put(w, bytes, length))
		return -EIO;
	if (lseek(fd, at, SEEK_SET) < 0)
		return -errno;
	for (; length; length -= (size_t)done) {
		done = sendfile(fd, w->memory, NULL, length);
		if (done <= 0)
			return done ? -errno : -EIO;
	}
	return 0;
}

/* Bytes into the pipe by write or vmsplice, and on by splice. */
static errint_t put_splice(struct worker *w, int fd, const uint8_t *bytes, size_t length, off_t at)
{
	while (length) {
		struct iovec part = {.iov_base = (void *)(uintptr_t)bytes,
				     .iov_len = length < PIPE_BYTES ? length : PIPE_BYTES};
		ssize_t in = w->op->kind == OP_VMSPLICE_IN
				     ? vmsplice(w->pipe[1], &part, 1, SPLICE_F_NONBLOCK)
				     : write(w->pipe[1], part.iov_base, part.iov_len);
		ssize_t done;

		if (in <= 0)
			return in ? -errno : -EIO;
		bytes += in;
		length -= (size_t)in;
		for (; in; in -= done) {
			done = splice(w->pipe[0], NULL, fd, &at, (size_t)in, 0);
			if (done <= 0)
				return done ? -errno : -EIO;
		}
	}
	return 0;
}

static errint_t put(struct worker *w, const struct op *op, int fd, size_t length)
{
	switch (op->kind) {
	case OP_WRITEV:
		return put_parts(fd, w->bytes, length, op->at);
	case OP_URING_WRITE:
		return put_uring(w, fd, w->bytes, length, op->at);
	case OP_AIO_WRITE:
		return put_aio(w, fd, w->bytes, length, op->at);
	case OP_SENDFILE_IN:
		return put_sendfile(w, fd, w->bytes, length, op->at);
	case OP_SPLICE_IN:
	case OP_VMSPLICE_IN:
		return put_splice(w, fd, w->bytes, length, op->at);
	default:
		if (op->how == WRITE_NOAPPEND)
			return put_not_appending(fd, w->bytes, length, op->at);
		return op->how ? put_flags(fd, w->bytes, length, op->at, op->how)
			       : put_plain(fd, w->bytes, length, op->at);
	}
}

void finish(struct worker *w, errint_t error, size_t bytes)
{
	if (error) {
		fail(w, "%s: %s", op_name(w->op->kind), strerror(-error));
		change_undo(&w->change);
		return;
	}
	change_done(&w->change);
	atomic_fetch_add(&w->shared->bytes_written, bytes);
}

void finish_or_refuse(struct worker *w, errint_t error, size_t bytes)
{
	if (error != -EOPNOTSUPP && error != -ENOSYS) {
		finish(w, error, bytes);
		return;
	}
	atomic_fetch_add(&w->shared->refused, 1);
	change_undo(&w->change);
}

void do_write(struct worker *w, const struct op *op)
{
	bool not_appending = op->kind == OP_WRITE && op->how == WRITE_NOAPPEND;
	size_t length = op->length;
	struct hold_range range;
	errint_t error;
	int fd;

	if (op->kind == OP_URING_WRITE && length > URING_BYTES)
		length = URING_BYTES;
	hold_for_change(w, op->file, op->at, length, &range);
	fd = file_open(w, op->file, not_appending && !w->shared->passthrough ? FD_APPEND : op->fd);
	if (fd >= 0) {
		content_fill(op->content, op->shift, op->at, w->bytes, length);
		change_begin(&w->change, w->shared, op->file);
		change_write(&w->change, op->at, w->bytes, length);
		error = put(w, op, fd, length);
		if (not_appending)
			finish_or_refuse(w, error, length);
		else
			finish(w, error, length);
	}
	model_unlock(w->shared, &range);
}

void do_append(struct worker *w, const struct op *op)
{
	struct iovec part = {.iov_base = w->bytes};
	struct hold_range range;
	uint64_t size;
	ssize_t done;
	int fd;

	hold_all(w, op->file, &range);
	size = model_size(w->shared, op->file);
	part.iov_len = op->length < FILE_BYTES - size ? op->length : FILE_BYTES - size;
	fd = file_open(w, op->file, op->how & 1 ? op->fd : FD_APPEND);
	if (fd >= 0 && part.iov_len) {
		content_fill(op->content, op->shift, size, w->bytes, part.iov_len);
		change_begin(&w->change, w->shared, op->file);
		change_write(&w->change, size, w->bytes, part.iov_len);
		done = op->how & 1 ? pwritev2(fd, &part, 1, 0, RWF_APPEND)
				   : write(fd, w->bytes, part.iov_len);
		finish(w,
		       done < 0                        ? -errno
		       : done == (ssize_t)part.iov_len ? 0
						       : -EIO,
		       part.iov_len);
	}
	model_unlock(w->shared, &range);
}

/* ---- stores through mappings ---- */

/* LENGTH bytes of w->bytes to AT of the mapping at ADDRESS, by a process of its own that ends with
 * the pages still dirty. */
static size_t store_and_exit(struct worker *w, uint8_t *address, size_t length)
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(guarded_copy(address, w->bytes, length) != length);
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		return 0;
	return length;
}

/* LENGTH bytes of w->bytes to ADDRESS, which is mapped: by us, by a process that ends, or by a
 * read(2) that has its buffer there. Bytes that are there then. */
static size_t store_bytes(struct worker *w, const struct op *op, uint8_t *address, size_t length)
{
	ssize_t got;

	if (op->kind == OP_STORE_EXIT)
		return store_and_exit(w, address, length);
	if (!(op->how & STORE_READ))
		return guarded_copy(address, w->bytes, length);
	if (!memory_put(w, w->bytes, length))
		return 0;
	got = pread(w->memory, address, length, 0);
	return got < 0 ? 0 : (size_t)got;
}

/* The store itself, by a mapping of its own or the lasting one. */
static errint_t store(struct worker *w, const struct op *op, int fd, size_t length)
{
	uint64_t first = op->at & ~(uint64_t)(PAGE - 1);
	size_t span = op->at + length - first;
	bool lasting = op->how & 2;
	uint8_t *address =
		lasting ? file_map(w, op->file)
			: mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)first);
	errint_t error = 0;

	if (!address || address == MAP_FAILED)
		return -errno;
	if (lasting)
		address += first;
	if (store_bytes(w, op, address + op->at - first, length) != length)
		error = -EFAULT;
	if (!error && (op->how & 1) && msync(address, span, MS_SYNC))
		error = -errno;
	if (!lasting)
		munmap(address, span);
	return error;
}

/* Hold the part of W's range that the file has, to change it in place. Bytes of it; nothing is held
 * where there are none. */
static size_t hold_in_place(struct worker *w, const struct op *op, struct hold_range *ret_range)
{
	uint64_t size;

	*ret_range = (struct hold_range){.file = op->file,
					 .first = op->at / PAGE,
					 .last = (op->at + op->length - 1) / PAGE,
					 .pages = HOLD_EXCLUSIVE,
					 .size = HOLD_SHARED};
	model_lock(w->shared, ret_range);
	size = model_size(w->shared, op->file);
	if (op->at < size)
		return op->length < size - op->at ? op->length : (size_t)(size - op->at);
	model_unlock(w->shared, ret_range);
	return 0;
}

void do_store(struct worker *w, const struct op *op)
{
	struct hold_range range;
	size_t length = hold_in_place(w, op, &range);
	int fd;

	if (!length)
		return;
	fd = file_open(w, op->file, op->fd);
	if (fd >= 0) {
		content_fill(op->content, op->shift, op->at, w->bytes, length);
		change_begin(&w->change, w->shared, op->file);
		change_write(&w->change, op->at, w->bytes, length);
		finish(w, store(w, op, fd, length), length);
	}
	model_unlock(w->shared, &range);
}

/* What is stored through a private mapping is there, and nowhere else. */
void do_store_private(struct worker *w, const struct op *op)
{
	uint64_t first = op->at & ~(uint64_t)(PAGE - 1);
	struct hold_range range;
	size_t length = hold_in_place(w, op, &range);
	size_t span = op->at + length - first;
	uint8_t *address;
	int fd;

	if (!length)
		return;
	fd = file_open(w, op->file, op->fd);
	address = fd < 0 ? MAP_FAILED
			 : mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, (off_t)first);
	if (address == MAP_FAILED) {
		fail(w, "private mapping: %s", strerror(errno));
	} else {
		content_fill(op->content, op->shift, op->at, w->bytes, length);
		if (guarded_copy(address + op->at - first, w->bytes, length) != length)
			fail(w, "store to a private mapping: bus error");
		else if (memcmp(address + op->at - first, w->bytes, length))
			fail(w, "a private mapping does not hold what was stored there");
		munmap(address, span);
		if (pread(fd, w->bytes, length, op->at) != (ssize_t)length)
			fail(w, "read after a store to a private mapping: %s", strerror(errno));
		else
			check_held(w, op->file, op->at, w->bytes, length,
				   "read after a store to a private mapping");
	}
	model_unlock(w->shared, &range);
}

/* ---- sizes and holes ---- */

static errint_t set_size(struct worker *w, const struct op *op, int fd, uint64_t size)
{
	char path[4200];

	if (op->kind != OP_TRUNCATE_PATH)
		return ftruncate(fd, (off_t)size) ? -errno : 0;
	file_path(w, op->file, op->how & 1 ? ".b" : "", path, sizeof(path));
	return truncate(path, (off_t)size) ? -errno : 0;
}

void do_truncate(struct worker *w, const struct op *op)
{
	struct hold_range range;
	int fd;

	hold_all(w, op->file, &range);
	fd = file_open(w, op->file, op->fd);
	if (fd >= 0) {
		change_begin(&w->change, w->shared, op->file);
		change_size(&w->change, op->at);
		finish(w, set_size(w, op, fd, op->at), 0);
	}
	model_unlock(w->shared, &range);
}

void do_down_up(struct worker *w, const struct op *op)
{
	uint64_t up = op->at + op->length;
	struct hold_range range;
	int fd;

	hold_all(w, op->file, &range);
	fd = file_open(w, op->file, op->fd);
	if (fd >= 0) {
		change_begin(&w->change, w->shared, op->file);
		change_size(&w->change, op->at);
		finish(w, set_size(w, op, fd, op->at), 0);
		change_begin(&w->change, w->shared, op->file);
		change_size(&w->change, up);
		finish(w, set_size(w, op, fd, up), 0);
	}
	model_unlock(w->shared, &range);
}

/* What is behind the range moves to its beginning, or the other way round. */
static void change_move(struct worker *w, const struct op *op)
{
	uint64_t size = model_size(w->shared, op->file);
	uint64_t from = op->how & FALLOC_FL_COLLAPSE_RANGE ? op->at + op->length : op->at;
	uint64_t to = op->how & FALLOC_FL_COLLAPSE_RANGE ? op->at : op->at + op->length;
	uint64_t at;
	size_t rest;

	if (from >= size || to >= FILE_BYTES)
		return;
	rest = (size_t)(size - from < FILE_BYTES - to ? size - from : FILE_BYTES - to);
	for (at = from & ~(uint64_t)(PAGE - 1); at < size; at += PAGE)
		memcpy(w->bytes + at, model_page(w->shared, op->file, (unsigned)(at / PAGE)), PAGE);
	change_size(&w->change, to + rest > size ? to + rest : size);
	change_write(&w->change, to, w->bytes + from, rest);
	if (to > from)
		change_zero(&w->change, from, op->length);
	else
		change_size(&w->change, to + rest);
}

static void change_of_fallocate(struct worker *w, const struct op *op)
{
	uint64_t end = op->at + op->length;

	if (op->how & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) {
		change_move(w, op);
		return;
	}
	if (op->how & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		change_zero(&w->change, op->at, op->length);
	if (!(op->how & FALLOC_FL_KEEP_SIZE) && end > model_size(w->shared, op->file))
		change_size(&w->change, end);
}

/* MADV_REMOVE of a mapping punches a hole into its file. */
static errint_t remove_mapped(int fd, uint64_t at, size_t length)
{
	void *address = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)at);
	errint_t error = 0;

	if (address == MAP_FAILED)
		return -errno;
	if (madvise(address, length, MADV_REMOVE))
		error = -errno;
	munmap(address, length);
	return error;
}

/* What XFS had before there was fallocate(2); Linux has it for all file systems, and shows it to
 * none but itself (its include/linux/falloc.h). */
struct space_resv {
	int16_t l_type;
	int16_t l_whence;
	int64_t l_start;
	int64_t l_len;
	int32_t l_sysid;
	uint32_t l_pid;
	int32_t l_pad[4];
};

#define FS_IOC_RESVSP64   _IOW('X', 42, struct space_resv)
#define FS_IOC_UNRESVSP64 _IOW('X', 43, struct space_resv)
#define FS_IOC_ZERO_RANGE _IOW('X', 57, struct space_resv)

static errint_t space_ioctl(int fd, const struct op *op)
{
	const struct space_resv space = {.l_start = op->at, .l_len = op->length};
	unsigned long request = op->how & FALLOC_FL_PUNCH_HOLE   ? FS_IOC_UNRESVSP64
				: op->how & FALLOC_FL_ZERO_RANGE ? FS_IOC_ZERO_RANGE
								 : FS_IOC_RESVSP64;

	return ioctl(fd, request, &space) ? -errno : 0;
}

static errint_t allocate(int fd, const struct op *op)
{
	if (op->kind == OP_MADV_REMOVE)
		return remove_mapped(fd, op->at, op->length);
	if (op->kind == OP_SPACE_IOCTL)
		return space_ioctl(fd, op);
	return fallocate(fd, (int)op->how, op->at, op->length) ? -errno : 0;
}

void do_fallocate(struct worker *w, const struct op *op)
{
	struct hold_range range;
	int fd;

	if (op->how & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE))
		hold_all(w, op->file, &range);
	else
		hold_for_change(w, op->file, op->at, op->length, &range);
	fd = file_open(w, op->file, op->fd);
	if (fd >= 0) {
		change_begin(&w->change, w->shared, op->file);
		change_of_fallocate(w, op);
		finish_or_refuse(w, allocate(fd, op), 0);
	}
	model_unlock(w->shared, &range);
}
