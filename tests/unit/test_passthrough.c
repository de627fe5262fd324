/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_passthrough.c - what is opened through the read-only view cannot be written by any way
 *
 * Skipped, with a word, where the daemon could not make a view either.
 */
#include "foldfs/passthrough.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"

struct view {
	char path[64];
	int directory;
	struct passthrough *passthrough;
};

static int set_up(void **state)
{
	struct view *view = calloc(1, sizeof(*view));
	int fd;

	assert_non_null(view);
	assert_true(scratch_name(view->path, "backing", SCRATCH_ANY));
	assert_non_null(mkdtemp(view->path));
	view->directory = open(view->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(view->directory >= 0);
	assert_int_equal(mkdirat(view->directory, "d", 0700), 0);
	fd = openat(view->directory, "d/file", O_CREAT | O_RDWR | O_CLOEXEC, 0666);
	assert_int_equal(write(fd, "content", 7), 7);
	assert_int_equal(close(fd), 0);
	assert_int_equal(symlinkat("d/file", view->directory, "link"), 0);
	assert_int_equal(symlinkat("d", view->directory, "way"), 0);
	assert_int_equal(
		passthrough_new(passthrough_open_view(view->directory), &view->passthrough), 0);
	*state = view;
	return 0;
}

static int tear_down(void **state)
{
	struct view *view = *state;

	passthrough_free(view->passthrough);
	unlinkat(view->directory, "way", 0);
	unlinkat(view->directory, "link", 0);
	unlinkat(view->directory, "d/file", 0);
	unlinkat(view->directory, "d", AT_REMOVEDIR);
	close(view->directory);
	rmdir(view->path);
	free(view);
	return 0;
}

/* PATH, opened through the view. */
static int open_in(const struct view *view, const char *path)
{
	int fd = passthrough_open_read_only(view->passthrough, path);

	if (fd == -ENOSYS) {
		print_message("no read-only view can be made here\n");
		skip();
	}
	return fd;
}

/* What the kernel does for a client that opens the backing file with flags of its own. */
static int open_anew(int fd, int flags)
{
	char path[32];
	int anew;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	anew = open(path, flags | O_CLOEXEC);
	return anew < 0 ? -errno : anew;
}

static void view_takes_no_write(void **state)
{
	int fd = open_in(*state, "d/file");
	char bytes[8] = "";

	assert_true(fd >= 0);
	assert_int_equal(read(fd, bytes, sizeof(bytes)), 7);
	assert_string_equal(bytes, "content");
	assert_int_equal(open_anew(fd, O_RDWR), -EROFS);
	assert_int_equal(open_anew(fd, O_WRONLY), -EROFS);
	assert_int_equal(open_anew(fd, O_RDONLY | O_TRUNC), -EROFS);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(errno, EACCES);
	assert_int_equal(fchmod(fd, 0777), -1);
	assert_int_equal(errno, EROFS);
	close(fd);
}

/* The view is beside the source, not over it. */
static void source_takes_writes(void **state)
{
	const struct view *view = *state;
	int seen = open_in(view, "d/file");
	int fd = openat(view->directory, "d/file", O_RDWR | O_CLOEXEC);
	char bytes[8] = "";

	assert_true(seen >= 0);
	assert_int_equal(pwrite(fd, "CON", 3, 0), 3);
	assert_int_equal(pread(seen, bytes, sizeof(bytes), 0), 7);
	assert_string_equal(bytes, "CONtent");
	close(fd);
	close(seen);
}

static void view_is_not_left(void **state)
{
	assert_int_equal(open_in(*state, "link"), -ELOOP);
	assert_int_equal(open_in(*state, "way/file"), -ELOOP);
	assert_int_equal(open_in(*state, "../etc"), -EXDEV);
	assert_int_equal(open_in(*state, "/etc/passwd"), -EXDEV);
	assert_int_equal(open_in(*state, "none"), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(view_takes_no_write, set_up, tear_down),
		cmocka_unit_test_setup_teardown(source_takes_writes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(view_is_not_left, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
