/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.c - a worker's descriptors, mappings and buffers
 *
 * Each file has two names, fN and fN.b, hard links of one inode. A worker opens the file by both
 * names and with different flags, and keeps the descriptors. When another inode takes the name, the
 * epoch changes. What was opened before is then closed and opened again, but only when it is next
 * needed: until then it is one more user of an inode that has no name.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int open_flags[FD_KINDS] = {
	[FD_PLAIN] = O_RDWR,
	[FD_LINK] = O_RDWR,
	[FD_DIRECT] = O_RDWR | O_DIRECT,
	[FD_APPEND] = O_RDWR | O_APPEND,
	[FD_READ] = O_RDONLY,
};

void file_path(const struct worker *w, unsigned file, const char *suffix, char *path, size_t room)
{
	snprintf(path, room, "%s/f%u%s", w->shared->mount, file, suffix);
}

void source_path(const struct worker *w, unsigned file, const char *suffix, char *path, size_t room)
{
	snprintf(path, room, "%s/f%u%s", w->shared->source, file, suffix);
}

int file_open(struct worker *w, unsigned file, enum fd_kind kind)
{
	uint64_t epoch = atomic_load(&w->shared->models[file].epoch);
	int *fd = &w->fds[file][kind];
	char path[4200];
	int flags;

	if (*fd >= 0 && w->epochs[file][kind] == epoch)
		return *fd;
	if (*fd >= 0)
		close(*fd);
	file_path(w, file, kind == FD_LINK ? ".b" : "", path, sizeof(path));
	flags = open_flags[kind] | O_CLOEXEC;
	*fd = open(path, w->shared->passthrough ? flags & ~O_DIRECT : flags);
	w->epochs[file][kind] = epoch;
	if (*fd < 0)
		fail(w, "open %s: %s", path, strerror(errno));
	return *fd;
}

errint_t file_write_back(int fd)
{
	const unsigned all =
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;

	return sync_file_range(fd, 0, 0, all) ? -errno : 0;
}

void file_unmap(struct worker *w, unsigned file)
{
	struct mapping *mapping = &w->mappings[file];

	if (mapping->address)
		munmap(mapping->address, FILE_BYTES);
	mapping->address = NULL;
}

void file_close(struct worker *w, unsigned file)
{
	unsigned kind;

	for (kind = 0; kind < FD_KINDS; kind++) {
		if (w->fds[file][kind] >= 0)
			close(w->fds[file][kind]);
		w->fds[file][kind] = -1;
	}
}

uint8_t *file_map(struct worker *w, unsigned file)
{
	uint64_t epoch = atomic_load(&w->shared->models[file].epoch);
	struct mapping *mapping = &w->mappings[file];
	void *address;
	int fd;

	if (mapping->address && mapping->epoch == epoch)
		return mapping->address;
	file_unmap(w, file);
	fd = file_open(w, file, FD_PLAIN);
	if (fd < 0)
		return NULL;
	address = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (address == MAP_FAILED) {
		fail(w, "mmap of file %u: %s", file, strerror(errno));
		return NULL;
	}
	mapping->address = address;
	mapping->epoch = epoch;
	return address;
}

/* ---- buffers ---- */

errint_t worker_init(struct worker *w, struct shared *shared, unsigned number)
{
	memset(w, 0, sizeof(*w));
	memset(w->fds, -1, sizeof(w->fds));
	w->memory = w->pipe[0] = w->pipe[1] = -1;
	w->shared = shared;
	w->number = number;
	w->bytes = aligned_alloc(PAGE, FILE_BYTES);
	w->ring_buffer = aligned_alloc(PAGE, URING_BYTES);
	w->memory = memfd_create("torture", MFD_CLOEXEC);
	if (!w->bytes || !w->ring_buffer)
		return -ENOMEM;
	if (w->memory < 0 || ftruncate(w->memory, FILE_BYTES) || pipe2(w->pipe, O_CLOEXEC))
		return -errno;
	return 0;
}

void worker_free(struct worker *w)
{
	unsigned file;

	for (file = 0; file < FILES_MAX; file++) {
		file_unmap(w, file);
		file_close(w, file);
	}
	if (w->ring_state > 0)
		io_uring_queue_exit(&w->ring);
	if (w->aio)
		syscall(SYS_io_destroy, w->aio);
	if (w->memory >= 0)
		close(w->memory);
	if (w->pipe[0] >= 0) {
		close(w->pipe[0]);
		close(w->pipe[1]);
	}
	free(w->ring_buffer);
	free(w->bytes);
}

bool memory_put(struct worker *w, const void *bytes, size_t length)
{
	if (pwrite(w->memory, bytes, length, 0) == (ssize_t)length &&
	    !lseek(w->memory, 0, SEEK_SET))
		return true;
	fail(w, "memory file: %s", strerror(errno));
	return false;
}

bool memory_get(struct worker *w, void *bytes, size_t length)
{
	if (pread(w->memory, bytes, length, 0) == (ssize_t)length)
		return true;
	fail(w, "memory file: %s", strerror(errno));
	return false;
}

bool has_ring(struct worker *w)
{
	struct iovec buffer = {.iov_base = w->ring_buffer, .iov_len = URING_BYTES};
	int none = -1;
	int error;

	if (!w->ring_state) {
		error = io_uring_queue_init(4, &w->ring, 0);
		if (!error) {
			error = io_uring_register_buffers(&w->ring, &buffer, 1);
			if (!error)
				error = io_uring_register_files(&w->ring, &none, 1);
			if (error)
				io_uring_queue_exit(&w->ring);
		}
		w->ring_state = error ? error : 1;
	}
	return w->ring_state > 0;
}

/* The only place of the ring's table: a registered file stays open. */
static errint_t ring_register(struct worker *w, int fd)
{
	int done = io_uring_register_files_update(&w->ring, 0, &fd, 1);

	return done < 0 ? done : 0;
}

ssize_t uring_do(struct worker *w, bool write, int fd, size_t length, off_t at)
{
	bool registered = at & 1;
	int file = registered ? 0 : fd;
	ssize_t done = registered ? ring_register(w, fd) : 0;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;

	if (done < 0)
		return done;
	sqe = io_uring_get_sqe(&w->ring);
	if (write)
		io_uring_prep_write_fixed(sqe, file, w->ring_buffer, (unsigned)length, (uint64_t)at,
					  0);
	else
		io_uring_prep_read_fixed(sqe, file, w->ring_buffer, (unsigned)length, (uint64_t)at,
					 0);
	if (registered)
		sqe->flags |= IOSQE_FIXED_FILE;
	done = io_uring_submit_and_wait(&w->ring, 1);
	if (done >= 0)
		done = io_uring_wait_cqe(&w->ring, &cqe);
	if (done >= 0) {
		done = cqe->res;
		io_uring_cqe_seen(&w->ring, cqe);
	}
	if (registered && ring_register(w, -1) < 0)
		return -EIO;
	return done;
}

ssize_t aio_do(struct worker *w, unsigned command, int fd, void *bytes, size_t length, off_t at)
{
	struct iocb block = {
		.aio_lio_opcode = (uint16_t)command,
		.aio_fildes = (uint32_t)fd,
		.aio_buf = (uintptr_t)bytes,
		.aio_nbytes = length,
		.aio_offset = at,
	};
	struct iocb *blocks[1] = {&block};
	struct io_event event;

	if (!w->aio && syscall(SYS_io_setup, 1, &w->aio))
		return -errno;
	if (syscall(SYS_io_submit, w->aio, 1, blocks) != 1 ||
	    syscall(SYS_io_getevents, w->aio, 1, 1, &event, NULL) != 1)
		return -errno;
	return (ssize_t)event.res;
}

/* ---- the first content ---- */

static errint_t write_whole(const char *path, const uint8_t *bytes, size_t length)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	errint_t error = 0;

	if (fd < 0)
		return -errno;
	if (pwrite(fd, bytes, length, 0) != (ssize_t)length)
		error = -EIO;
	close(fd);
	return error;
}

/* One file: pages of letters that all files have at the same places but for a few, and a ragged
 * end. */
static errint_t create_file(struct shared *shared, struct worker *w, uint64_t seed, unsigned file)
{
	uint64_t size = FILE_BYTES - random_of(seed, 1000 + file, 0) % (FILE_BYTES / 3);
	char path[4200];
	char link_path[4200];
	unsigned page;

	for (page = 0; page < FILE_PAGES; page++) {
		uint64_t pick = random_of(seed, 2000 + file, page);
		uint64_t base = random_of(seed, 1, page / 4);
		uint32_t id =
			pick % 8 ? 1 + (uint32_t)(base % LETTERS) : (uint32_t)(pick >> 32) % 5;

		content_fill(id, 0, (uint64_t)page * PAGE, w->bytes + page * PAGE, PAGE);
	}
	change_begin(&w->change, shared, file);
	change_write(&w->change, 0, w->bytes, size);
	change_done(&w->change);
	source_path(w, file, "", path, sizeof(path));
	source_path(w, file, ".b", link_path, sizeof(link_path));
	if (write_whole(path, w->bytes, size))
		return -EIO;
	return link(path, link_path) ? -errno : 0;
}

errint_t files_create(struct shared *shared, uint64_t seed)
{
	struct worker *w = malloc(sizeof(*w));
	errint_t error = w ? worker_init(w, shared, 0) : -ENOMEM;
	unsigned file;

	for (file = 0; !error && file < shared->files; file++)
		error = create_file(shared, w, seed, file);
	if (w)
		worker_free(w);
	free(w);
	return error;
}
