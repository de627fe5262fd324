/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dies.c - has foldfs die at a given call to its source, once; preloaded (LD_PRELOAD)
 *
 * FOLDFS_DIES is "CALL MOMENT FILE". The process that removes FILE at that call dies of SIGKILL:
 * before the call, after it, or when it is about to answer the request that made it.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

static char call[32], moment[16], file[256];
/* The calling thread has made the call, and is to die when it answers. */
static __thread bool answers;

static void __attribute__((constructor)) begin(void)
{
	const char *what = getenv("FOLDFS_DIES");

	if (what && sscanf(what, "%31s %15s %255s", call, moment, file) != 3)
		abort();
}

static bool is_due(const char *name, const char *when)
{
	return strcmp(call, name) == 0 && strcmp(moment, when) == 0 && access(file, F_OK) == 0;
}

static void die(void)
{
	if (unlink(file) == 0)
		(void)raise(SIGKILL);
}

static void before(const char *name)
{
	if (is_due(name, "before"))
		die();
}

static void after(const char *name, bool done)
{
	if (done && is_due(name, "after"))
		die();
	answers = answers || (done && is_due(name, "answer"));
}

/* SYMBOL with the C library's own function behind it, under the name of NAME. */
#define NAMED(type, name, symbol, parameters, arguments)                                           \
	type symbol parameters;                                                                    \
	type symbol parameters                                                                     \
	{                                                                                          \
		static type(*real) parameters;                                                     \
		type result;                                                                       \
		if (!real)                                                                         \
			*(void **)&real = dlsym(RTLD_NEXT, #symbol);                               \
		before(name);                                                                      \
		result = real arguments;                                                           \
		after(name, result >= 0);                                                          \
		return result;                                                                     \
	}
#define CALL(type, name, parameters, arguments) NAMED(type, #name, name, parameters, arguments)

CALL(int, mkdirat, (int d, const char *n, mode_t m), (d, n, m))
CALL(int, mknodat, (int d, const char *n, mode_t m, dev_t r), (d, n, m, r))
CALL(int, symlinkat, (const char *t, int d, const char *n), (t, d, n))
CALL(int, linkat, (int a, const char *n, int b, const char *m, int f), (a, n, b, m, f))
CALL(int, unlinkat, (int d, const char *n, int f), (d, n, f))
CALL(int, renameat2, (int a, const char *n, int b, const char *m, unsigned f), (a, n, b, m, f))
CALL(int, setxattr, (const char *p, const char *n, const void *v, size_t s, int f), (p, n, v, s, f))
CALL(int, removexattr, (const char *p, const char *n), (p, n))
CALL(int, fallocate, (int d, int m, off_t o, off_t l), (d, m, o, l))
CALL(int, ftruncate, (int d, off_t l), (d, l))
NAMED(int, "fallocate", fallocate64, (int d, int m, off64_t o, off64_t l), (d, m, o, l))
NAMED(int, "ftruncate", ftruncate64, (int d, off64_t l), (d, l))
NAMED(ssize_t, "pwritev2", pwritev64v2, (int d, const struct iovec *v, int c, off64_t o, int f),
      (d, v, c, o, f))
CALL(int, fchmod, (int d, mode_t m), (d, m))
CALL(int, chmod, (const char *p, mode_t m), (p, m))
CALL(int, fsync, (int d), (d))
CALL(ssize_t, pwritev2, (int d, const struct iovec *v, int c, off_t o, int f), (d, v, c, o, f))
CALL(ssize_t, copy_file_range, (int a, off_t *x, int b, off_t *y, size_t l, unsigned f),
     (a, x, b, y, l, f))

CALL(int, flock, (int d, int o), (d, o))

/* Of the commands only those that lock. */
int fcntl(int descriptor, int command, ...)
{
	static int (*real)(int descriptor, int command, ...);
	bool locks = command == F_OFD_SETLK;
	va_list arguments;
	void *argument;
	int result;

	va_start(arguments, command);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "fcntl");
	if (locks)
		before("fcntl");
	result = real(descriptor, command, argument);
	if (locks)
		after("fcntl", result >= 0);
	return result;
}

/* Of the opens only those that make a file, under the name of "create" or "tmpfile", and those of a
 * descriptor's file, under the name of "open". */
static const char *open_name(const char *path, int flags)
{
	if ((flags & O_TMPFILE) == O_TMPFILE)
		return "tmpfile";
	if (flags & O_CREAT)
		return "create";
	if (strncmp(path, "/proc/self/fd/", 14) == 0 && !(flags & O_PATH))
		return flags & O_DIRECTORY ? "opendir" : "open";
	return "";
}

static int do_open(int directory, const char *path, int flags, mode_t mode)
{
	static int (*real)(int directory, const char *path, int flags, ...);
	const char *name = open_name(path, flags);
	int result;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "openat");
	before(name);
	result = real(directory, path, flags, mode);
	after(name, result >= 0);
	return result;
}

#define MODE(flags)                                                                                \
	mode_t mode = 0;                                                                           \
	if ((flags)&O_CREAT || ((flags)&O_TMPFILE) == O_TMPFILE) {                                 \
		va_list arguments;                                                                 \
		va_start(arguments, flags);                                                        \
		mode = va_arg(arguments, mode_t);                                                  \
		va_end(arguments);                                                                 \
	}

int openat(int directory, const char *path, int flags, ...)
{
	MODE(flags)
	return do_open(directory, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	MODE(flags)
	return do_open(AT_FDCWD, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
	MODE(flags)
	return do_open(directory, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	MODE(flags)
	return do_open(AT_FDCWD, path, flags, mode);
}

int __openat64_2(int directory, const char *path, int flags);
int __openat64_2(int directory, const char *path, int flags)
{
	return do_open(directory, path, flags, 0);
}

int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags)
{
	return do_open(AT_FDCWD, path, flags, 0);
}

int __openat_2(int directory, const char *path, int flags);
int __openat_2(int directory, const char *path, int flags)
{
	return do_open(directory, path, flags, 0);
}

int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags)
{
	return do_open(AT_FDCWD, path, flags, 0);
}

/* libfuse answers by it. */
ssize_t writev(int fd, const struct iovec *iov, int count)
{
	static ssize_t (*real)(int fd, const struct iovec *iov, int count);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "writev");
	if (answers)
		die();
	answers = false;
	return real(fd, iov, count);
}
