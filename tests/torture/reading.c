/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reading.c - operations that read, each compared with the model
 *
 * Most readers hold what they read and must find the newest version. The others (HOW_UNLOCKED) hold
 * nothing, and read beside whatever changes are under way. Byte by byte, they must find some
 * version that existed meanwhile.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIPE_BYTES (64u << 10)

/* ---- ways to read: bytes that came, fewer at the end of the file, or -errno ---- */

static ssize_t get_plain(int fd, uint8_t *bytes, size_t length, off_t at)
{
	size_t got = 0;
	ssize_t part = 1;

	while (got < length && part > 0) {
		part = pread(fd, bytes + got, length - got, at + (off_t)got);
		if (part < 0)
			return -errno;
		got += (size_t)part;
	}
	return (ssize_t)got;
}

/* What is missing after GOT bytes, or after an error that only says "not this way". */
static ssize_t get_rest(int fd, uint8_t *bytes, size_t length, off_t at, ssize_t got)
{
	ssize_t rest;

	if (got < 0)
		return -errno;
	rest = get_plain(fd, bytes + got, length - (size_t)got, at + got);
	return rest < 0 ? rest : got + rest;
}

static ssize_t get_flags(int fd, uint8_t *bytes, size_t length, off_t at, unsigned how)
{
	struct iovec part = {.iov_base = bytes, .iov_len = length};
	ssize_t got = preadv2(fd, &part, 1, at, how == 2 ? RWF_NOWAIT : how == 3 ? RWF_HIPRI : 0);

	if (got < 0 && how == 2 && (errno == EAGAIN || errno == EOPNOTSUPP))
		got = 0;
	return get_rest(fd, bytes, length, at, got);
}

static ssize_t get_parts(int fd, uint8_t *bytes, size_t length, off_t at)
{
	size_t a = length / 5;
	size_t b = length / 2;
	const struct iovec parts[3] = {
		{.iov_base = bytes, .iov_len = a},
		{.iov_base = bytes + a, .iov_len = b - a},
		{.iov_base = bytes + b, .iov_len = length - b},
	};

	if (lseek(fd, at, SEEK_SET) < 0)
		return -errno;
	return get_rest(fd, bytes, length, at, readv(fd, parts, 3));
}

/* By a mapping of its own or the lasting one; SIZE is what the file may have. */
static ssize_t get_mapped(struct worker *w, const struct op *op, int fd, size_t length,
			  uint64_t size)
{
	uint64_t first = op->at & ~(uint64_t)(PAGE - 1);
	bool lasting = op->how & 1;
	uint8_t *address;
	size_t got;

	if (op->at >= size)
		return 0;
	if (length > size - op->at)
		length = (size_t)(size - op->at);
	address = lasting ? w->mappings[op->file].address
			  : mmap(NULL, op->at + length - first, PROT_READ, MAP_SHARED, fd,
				 (off_t)first);
	if (address == MAP_FAILED)
		return -errno;
	got = guarded_copy(w->bytes, address + op->at - (lasting ? 0 : first), length);
	if (!lasting)
		munmap(address, op->at + length - first);
	return (ssize_t)got;
}

static ssize_t get_uring(struct worker *w, int fd, size_t length, off_t at)
{
	ssize_t got;

	if (!has_ring(w)) {
		atomic_fetch_add(&w->shared->refused, 1);
		return get_plain(fd, w->bytes, length, at);
	}
	got = uring_do(w, false, fd, length, at);
	if (got < 0)
		return got;
	memcpy(w->bytes, w->ring_buffer, (size_t)got);
	return get_rest(fd, w->bytes, length, at, got);
}

static ssize_t get_aio(struct worker *w, int fd, size_t length, off_t at)
{
	ssize_t got = aio_do(w, IOCB_CMD_PREAD, fd, w->bytes, length, at);

	return got < 0 ? got : get_rest(fd, w->bytes, length, at, got);
}

static ssize_t get_sendfile(struct worker *w, int fd, size_t length, off_t at)
{
	size_t got = 0;
	ssize_t part = 1;

	if (lseek(w->memory, 0, SEEK_SET))
		return -errno;
	while (got < length && part > 0) {
		part = sendfile(w->memory, fd, &at, length - got);
		if (part < 0)
			return -errno;
		got += (size_t)part;
	}
	return memory_get(w, w->bytes, got) ? (ssize_t)got : -EIO;
}

/* Out of the pipe by read or vmsplice. */
static bool drain(struct worker *w, uint8_t *bytes, size_t length)
{
	while (length) {
		struct iovec part = {.iov_base = bytes, .iov_len = length};
		ssize_t got = w->op->kind == OP_VMSPLICE_OUT ? vmsplice(w->pipe[0], &part, 1, 0)
							     : read(w->pipe[0], bytes, length);

		if (got <= 0)
			return false;
		bytes += got;
		length -= (size_t)got;
	}
	return true;
}

static ssize_t get_splice(struct worker *w, int fd, size_t length, off_t at)
{
	size_t got = 0;
	ssize_t part = 1;

	while (got < length && part > 0) {
		size_t want = length - got < PIPE_BYTES ? length - got : PIPE_BYTES;

		part = splice(fd, &at, w->pipe[1], NULL, want, 0);
		if (part < 0 || (part && !drain(w, w->bytes + got, (size_t)part)))
			return -errno;
		got += (size_t)part;
	}
	return (ssize_t)got;
}

static ssize_t get(struct worker *w, const struct op *op, int fd, size_t length, uint64_t size)
{
	if (op->how & HOW_DROP)
		(void)posix_fadvise(fd, op->at & ~(PAGE - 1), (off_t)length + PAGE,
				    POSIX_FADV_DONTNEED);
	switch (op->kind) {
	case OP_READV:
		return get_parts(fd, w->bytes, length, op->at);
	case OP_MAPPED_READ:
		return get_mapped(w, op, fd, length, size);
	case OP_URING_READ:
		return get_uring(w, fd, length, op->at);
	case OP_AIO_READ:
		return get_aio(w, fd, length, op->at);
	case OP_SENDFILE_OUT:
		return get_sendfile(w, fd, length, op->at);
	case OP_SPLICE_OUT:
	case OP_VMSPLICE_OUT:
		return get_splice(w, fd, length, op->at);
	default:
		return op->how & 3 ? get_flags(fd, w->bytes, length, op->at, op->how & 3)
				   : get_plain(fd, w->bytes, length, op->at);
	}
}

/* ---- comparing ---- */

static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t length)
{
	size_t i = 0;

	while (i < length && a[i] == b[i])
		i++;
	return i;
}

/* Bytes of the page at AT of FILE, by one way; as many as there are, or -1. The first two open
 * nothing, which might have the kernel drop what it caches; the second needs an operation, whose
 * descriptor it takes, and there is none any more when all files are compared at the end. */
static ssize_t look_by(struct worker *w, unsigned file, unsigned way, off_t at, uint8_t *page)
{
	const uint8_t *mapped = w->mappings[file].address;
	char path[4200];
	ssize_t got;
	int fd;

	if (way == 0)
		return mapped ? (ssize_t)guarded_copy(page, mapped + at, PAGE) : -1;
	if (way == 1)
		return w->op && sendfile(w->memory, w->fds[file][w->op->fd], &at, PAGE) > 0 &&
				       memory_get(w, page, PAGE)
			       ? (ssize_t)PAGE
			       : -1;
	if (way == 2)
		file_path(w, file, "", path, sizeof(path));
	else
		source_path(w, file, "", path, sizeof(path));
	fd = open(path, way == 2 ? O_RDONLY | O_DIRECT : O_RDONLY);
	got = fd < 0 ? -1 : pread(fd, page, PAGE, at);
	if (fd >= 0)
		close(fd);
	return got;
}

/* What is at byte AT of FILE now, read once more: whether it was the kernel's cache, the pool or
 * the source that was wrong. */
static void look_again(struct worker *w, unsigned file, uint64_t at, char *text, size_t room)
{
	static const char *const ways[] = {"mapped", "by sendfile", "directly", "in the source"};
	uint8_t *page = w->ring_buffer;
	char is[128];
	size_t used = 0;
	unsigned way;
	ssize_t got;

	(void)lseek(w->memory, 0, SEEK_SET);
	for (way = 0; way < 4 && used < room; way++) {
		got = look_by(w, file, way, (off_t)(at & ~(uint64_t)(PAGE - 1)), page);
		snprintf(is, sizeof(is), "nothing");
		if (got > (ssize_t)(at % PAGE))
			content_describe(page, (size_t)got, at % PAGE, is, sizeof(is));
		used += (size_t)snprintf(text + used, room - used, "; then %s: %s", ways[way], is);
	}
}

/* W found BYTES of a page, from WITHIN on, and not what EXPECTED is. */
static void report_page(struct worker *w, unsigned file, uint64_t at, size_t where,
			const uint8_t *found, const uint8_t *expected, size_t within, size_t length,
			const char *how)
{
	char is[128];
	char should_be[128];
	char again[512];

	look_again(w, file, at + where, again, sizeof(again));
	content_describe(found, length, where, is, sizeof(is));
	content_describe(expected, PAGE, within + where, should_be, sizeof(should_be));
	fail(w, "%s: file %u, byte %llu (page %llu, byte %zu of it): found %s; expected %s%s%s",
	     how, file, (unsigned long long)(at + where), (unsigned long long)(at / PAGE),
	     within + where, is, should_be,
	     model_size(w->shared, file) <= at + where ? " (behind the end)" : "", again);
}

void check_held(struct worker *w, unsigned file, uint64_t at, const uint8_t *bytes, size_t length,
		const char *how)
{
	atomic_fetch_add(&w->shared->bytes_read, length);
	while (length) {
		size_t within = at % PAGE;
		size_t part = PAGE - within < length ? PAGE - within : length;
		const uint8_t *page = model_page(w->shared, file, (unsigned)(at / PAGE));

		if (memcmp(bytes, page + within, part)) {
			report_page(w, file, at, first_difference(bytes, page + within, part),
				    bytes, page, within, part, how);
			return;
		}
		bytes += part;
		at += part;
		length -= part;
	}
}

/* Where none of the page's versions from FIRST to LAST has the byte found; LENGTH: nowhere. */
static size_t first_of_none(struct page_model *page, uint64_t first, uint64_t last, size_t within,
			    const uint8_t *bytes, size_t length)
{
	uint64_t number;
	size_t i;

	for (number = first; number <= last; number++)
		if (!memcmp(bytes, page->versions[number % VERSIONS] + within, length))
			return length;
	for (i = 0; i < length; i++) {
		for (number = first; number <= last; number++)
			if (bytes[i] == page->versions[number % VERSIONS][within + i])
				break;
		if (number > last)
			break;
	}
	return i;
}

/* A part of one page that was read by a worker that held nothing. False: wrong, and reported. */
static bool check_page_beside(struct worker *w, unsigned file, uint64_t at, const uint8_t *bytes,
			      size_t length, const char *how)
{
	struct page_model *page = &w->shared->models[file].pages[at / PAGE];
	uint64_t first = w->sight.pages[at / PAGE];
	uint64_t last = atomic_load(&page->started);
	size_t within = at % PAGE;
	size_t where;

	if (last - first >= VERSIONS) {
		atomic_fetch_add(&w->shared->outrun, 1);
		return true;
	}
	where = first_of_none(page, first, last, within, bytes, length);
	if (where == length) {
		atomic_fetch_add(&w->shared->beside, 1);
		return true;
	}
	/* The ring may have gone round while we compared. */
	if (atomic_load(&page->started) - first >= VERSIONS ||
	    atomic_load(&w->shared->models[file].epoch) != w->sight.epoch)
		return true;
	report_page(w, file, at, where, bytes, page->versions[last % VERSIONS], within, length,
		    how);
	return false;
}

/* GOT bytes of LENGTH at AT: is there a size that the file had meanwhile that makes it so? */
static void check_size_beside(struct worker *w, unsigned file, uint64_t at, size_t got,
			      size_t length)
{
	struct file_model *model = &w->shared->models[file];
	uint64_t last = atomic_load(&model->size_started);
	uint64_t smallest = UINT64_MAX;
	uint64_t largest = 0;
	uint64_t number;

	for (number = w->sight.size; number <= last; number++) {
		uint64_t size = atomic_load(&model->sizes[number % SIZES]);

		smallest = size < smallest ? size : smallest;
		largest = size > largest ? size : largest;
	}
	if (atomic_load(&model->size_started) - w->sight.size >= SIZES / 2 ||
	    atomic_load(&model->epoch) != w->sight.epoch)
		return;
	if ((got && at + got > largest) || (got < length && at + got < smallest))
		fail(w,
		     "read beside a change: %zu bytes of %zu at %llu, sizes meanwhile %llu to "
		     "%llu",
		     got, length, (unsigned long long)at, (unsigned long long)smallest,
		     (unsigned long long)largest);
}

static void check_beside(struct worker *w, const struct op *op, size_t got, size_t length)
{
	size_t done = 0;
	char how[64];

	snprintf(how, sizeof(how), "%s beside changes", op_name(op->kind));
	check_size_beside(w, op->file, op->at, got, length);
	if (atomic_load(&w->shared->models[op->file].epoch) != w->sight.epoch)
		return;
	while (done < got) {
		uint64_t at = op->at + done;
		size_t part = PAGE - at % PAGE < got - done ? PAGE - at % PAGE : got - done;

		if (!check_page_beside(w, op->file, at, w->bytes + done, part, how))
			return;
		done += part;
	}
	atomic_fetch_add(&w->shared->bytes_read, got);
}

/* ---- the operations ---- */

/* A descriptor, and the lasting mapping where it is asked for, of the inode that has the name
 * now. */
static int open_for_read(struct worker *w, const struct op *op)
{
	int fd = file_open(w, op->file, op->fd);

	if (fd >= 0 && op->kind == OP_MAPPED_READ && (op->how & 1) && !file_map(w, op->file))
		return -1;
	return fd;
}

static void read_held(struct worker *w, const struct op *op, size_t length)
{
	uint64_t size = model_size(w->shared, op->file);
	size_t expected = op->at >= size           ? 0
			  : length < size - op->at ? length
						   : (size_t)(size - op->at);
	int fd = open_for_read(w, op);
	ssize_t got;

	if (fd < 0)
		return;
	got = get(w, op, fd, length, size);
	if (got < 0)
		fail(w, "%s: %s", op_name(op->kind), strerror((int)-got));
	else if ((size_t)got != expected)
		fail(w, "%s of file %u: %zd bytes at %u, expected %zu (the file has %llu)",
		     op_name(op->kind), op->file, got, op->at, expected, (unsigned long long)size);
	else
		check_held(w, op->file, op->at, w->bytes, expected, op_name(op->kind));
}

static void read_beside(struct worker *w, const struct op *op, size_t length,
			const struct hold_range *range)
{
	const struct hold_range size_only = {
		.file = op->file, .first = 1, .last = 0, .size = HOLD_SHARED};
	uint64_t size;
	ssize_t got;
	int fd;

	model_lock(w->shared, &size_only);
	fd = open_for_read(w, op);
	sight_take(w->shared, op->file, range->first, range->last, &w->sight);
	size = model_size(w->shared, op->file);
	model_unlock(w->shared, &size_only);
	if (fd < 0)
		return;
	got = get(w, op, fd, length, size);
	if (got < 0)
		fail(w, "%s beside changes: %s", op_name(op->kind), strerror((int)-got));
	else if (op->kind == OP_MAPPED_READ && op->at + length > size)
		check_beside(w, op, (size_t)got, op->at < size ? (size_t)(size - op->at) : 0);
	else
		check_beside(w, op, (size_t)got, length);
}

void do_read(struct worker *w, const struct op *op)
{
	size_t length = op->length;
	struct hold_range range;

	if (op->kind == OP_URING_READ && length > URING_BYTES)
		length = URING_BYTES;
	range = (struct hold_range){.file = op->file,
				    .first = op->at / PAGE,
				    .last = (unsigned)((op->at + length - 1) / PAGE),
				    .pages = HOLD_SHARED,
				    .size = HOLD_SHARED};
	if (op->how & HOW_UNLOCKED) {
		read_beside(w, op, length, &range);
		return;
	}
	model_lock(w->shared, &range);
	read_held(w, op, length);
	model_unlock(w->shared, &range);
}

/* Whether the held bytes from AT up to END are zeroes in the model. */
static bool is_zero(struct worker *w, unsigned file, uint64_t at, uint64_t end)
{
	for (; at < end; at++)
		if (model_page(w->shared, file, (unsigned)(at / PAGE))[at % PAGE])
			return false;
	return true;
}

/* What is told to be a hole holds zeroes. The source knows of stores only once they are written
 * back, and FUSE does not do that by itself. */
void do_seek(struct worker *w, const struct op *op)
{
	const struct hold_range range = {.file = op->file,
					 .first = op->at / PAGE,
					 .last = (op->at + op->length - 1) / PAGE,
					 .pages = HOLD_SHARED,
					 .size = HOLD_SHARED};
	uint64_t size;
	uint64_t end;
	off_t data;
	off_t hole;
	errint_t error;
	int fd;

	model_lock(w->shared, &range);
	fd = file_open(w, op->file, FD_PLAIN);
	size = model_size(w->shared, op->file);
	if (fd >= 0 && op->at < size) {
		end = op->at + op->length < size ? op->at + op->length : size;
		error = file_write_back(fd);
		if (error)
			fail(w, "write-back before a seek: %s", strerror(-error));
		data = lseek(fd, op->at, SEEK_DATA);
		hole = lseek(fd, op->at, SEEK_HOLE);
		if (data < 0 && errno != ENXIO)
			fail(w, "SEEK_DATA: %s", strerror(errno));
		if (hole < (off_t)op->at || hole > (off_t)size)
			fail(w, "SEEK_HOLE from %u: %lld in a file of %llu", op->at,
			     (long long)hole, (unsigned long long)size);
		if (data >= 0 && data < (off_t)end)
			end = (uint64_t)data;
		if (!is_zero(w, op->file, op->at, end))
			fail(w, "file %u: told to be a hole from %u to %llu, but there is data",
			     op->file, op->at, (unsigned long long)end);
	}
	model_unlock(w->shared, &range);
}

/* The source is whole: it holds what the model holds, but for stores that are not written back. */
void do_source(struct worker *w, const struct op *op)
{
	const struct hold_range range = {.file = op->file,
					 .last = FILE_PAGES - 1,
					 .pages = HOLD_SHARED,
					 .size = HOLD_SHARED};
	uint64_t size;
	char path[4200];
	errint_t error;
	ssize_t got;
	int source;
	int fd;

	model_lock(w->shared, &range);
	fd = file_open(w, op->file, FD_PLAIN);
	if (fd >= 0) {
		size = model_size(w->shared, op->file);
		error = op->how ? file_write_back(fd) : fsync(fd) ? -errno : 0;
		if (error)
			fail(w, "write-back: %s", strerror(-error));
		source_path(w, op->file, "", path, sizeof(path));
		source = open(path, O_RDONLY | O_CLOEXEC);
		got = source < 0 ? -errno : get_plain(source, w->bytes, FILE_BYTES, 0);
		if (got != (ssize_t)size)
			fail(w, "source of file %u: %zd bytes, expected %llu", op->file, got,
			     (unsigned long long)size);
		else
			check_held(w, op->file, 0, w->bytes, size, "source");
		if (source >= 0)
			close(source);
	}
	model_unlock(w->shared, &range);
}
