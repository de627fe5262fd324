/* SPDX-License-Identifier: Apache-2.0 */
/* faults.c - what stands between the library under test and the C library; see faults.h */
#include "faults.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

/* The linker's names. */
ssize_t __wrap_pread(int fd, void *buffer, size_t length, off_t offset);
ssize_t __wrap_preadv(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __wrap_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags);
ssize_t __wrap_pwrite(int fd, const void *buffer, size_t length, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __wrap_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags);
ssize_t __real_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags);
ssize_t __real_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **ret_memory, size_t alignment, size_t size);
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **ret_memory, size_t alignment, size_t size);

static _Atomic(io_hook_fn) current_hook;
static void *_Atomic current_context;
static _Thread_local long allocations_left = -1;

void faults_hook_io(io_hook_fn hook, void *context)
{
	atomic_store(&current_context, context);
	atomic_store(&current_hook, hook);
}

void faults_fail_allocations(long after)
{
	allocations_left = after;
}

static bool allocation_fails(void)
{
	if (allocations_left < 0)
		return false;
	if (allocations_left > 0) {
		allocations_left--;
		return false;
	}
	errno = ENOMEM;
	return true;
}

/* The parts of IOV up to LIMIT bytes. Returns how many parts. */
static int cut(const struct iovec *iov, int count, size_t limit, struct iovec part[])
{
	int parts = 0;

	while (parts < count && parts < IOV_MAX && limit) {
		part[parts] = iov[parts];
		if (part[parts].iov_len > limit)
			part[parts].iov_len = limit;
		limit -= part[parts++].iov_len;
	}
	return parts;
}

static ssize_t transfer(bool write, int fd, const struct iovec *iov, int count, off_t offset,
			int flags)
{
	io_hook_fn hook = atomic_load(&current_hook);
	struct io_call call = {.write = write, .fd = fd, .offset = offset};
	struct iovec part[IOV_MAX];
	ssize_t verdict = IO_AS_ASKED;

	for (int i = 0; i < count; i++)
		call.length += iov[i].iov_len;
	if (hook)
		verdict = hook(atomic_load(&current_context), &call);
	if (verdict < 0 && verdict != IO_AS_ASKED) {
		errno = (int)-verdict;
		return -1;
	}
	if (!verdict)
		return 0;
	count = cut(iov, count, verdict == IO_AS_ASKED ? SIZE_MAX : (size_t)verdict, part);
	return write ? __real_pwritev2(fd, part, count, offset, flags)
		     : __real_preadv2(fd, part, count, offset, flags);
}

ssize_t __wrap_pread(int fd, void *buffer, size_t length, off_t offset)
{
	struct iovec iov = {.iov_base = buffer, .iov_len = length};

	return transfer(false, fd, &iov, 1, offset, 0);
}

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
	return transfer(false, fd, iov, count, offset, 0);
}

ssize_t __wrap_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return transfer(false, fd, iov, count, offset, flags);
}

ssize_t __wrap_pwrite(int fd, const void *buffer, size_t length, off_t offset)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = length};

	return transfer(true, fd, &iov, 1, offset, 0);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	return transfer(true, fd, iov, count, offset, 0);
}

ssize_t __wrap_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return transfer(true, fd, iov, count, offset, flags);
}

void *__wrap_malloc(size_t size)
{
	return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return allocation_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
	return allocation_fails() ? NULL : __real_realloc(memory, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	return allocation_fails() ? NULL : __real_aligned_alloc(alignment, size);
}

int __wrap_posix_memalign(void **ret_memory, size_t alignment, size_t size)
{
	return allocation_fails() ? ENOMEM : __real_posix_memalign(ret_memory, alignment, size);
}
