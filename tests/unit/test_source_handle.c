/* SPDX-License-Identifier: Apache-2.0 */
/* test_source_handle.c - a file is found again by its handle, and what is gone is said to be
 * gone */
#include "scratch.h"

#include "fuse/source_handle.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include <cmocka.h>

#define OPENS 20000

struct fixture {
	char path[64];
	int fd;
	struct source_handles handles;
	atomic_bool stop;
};

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	assert_true(scratch_name(fixture->path, "handles", SCRATCH_STAMPS));
	assert_non_null(mkdtemp(fixture->path));
	fixture->fd = open(fixture->path, O_RDONLY | O_DIRECTORY);
	assert_true(fixture->fd >= 0);
	source_handle_init(&fixture->handles, fixture->fd);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	source_handle_close(&fixture->handles);
	close(fixture->fd);
	assert_int_equal(rmdir(fixture->path), 0);
	free(fixture);
	return 0;
}

static void make(const struct fixture *fixture, const char *name)
{
	int fd = openat(fixture->fd, name, O_CREAT | O_EXCL | O_WRONLY, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static struct file_handle *handle_of(const struct fixture *fixture, const char *name)
{
	int fd = openat(fixture->fd, name, O_PATH);
	struct file_handle *handle = source_handle_get(&fixture->handles, fd);

	close(fd);
	assert_non_null(handle);
	return handle;
}

/* Without the right there are no handles, which is no fault. */
static void need_handles(const struct fixture *fixture)
{
	if (fixture->handles.mount_fd < 0)
		skip();
}

static void a_file_is_found_again(void **state)
{
	struct fixture *fixture = *state;
	struct file_handle *handle, *again;
	int fd;

	need_handles(fixture);
	make(fixture, "first");
	handle = handle_of(fixture, "first");
	assert_int_equal(renameat(fixture->fd, "first", fixture->fd, "second"), 0);
	fd = source_handle_open(fixture->handles.mount_fd, handle, O_PATH);
	assert_true(fd >= 0);
	again = source_handle_get(&fixture->handles, fd);
	assert_non_null(again);
	assert_true(source_handle_equal(handle, again));
	close(fd);
	assert_int_equal(unlinkat(fixture->fd, "second", 0), 0);
	assert_int_equal(source_handle_open(fixture->handles.mount_fd, handle, O_PATH), -1);
	assert_int_equal(errno, ESTALE);
	free(again);
	free(handle);
}

static void *make_and_remove(void *argument)
{
	struct fixture *fixture = argument;

	while (!atomic_load(&fixture->stop)) {
		int fd = openat(fixture->fd, "next", O_CREAT | O_EXCL | O_WRONLY, 0600);

		if (fd < 0 || close(fd) || unlinkat(fixture->fd, "next", 0))
			return fixture;
	}
	return NULL;
}

/* open_by_handle_at() says ENOMEM of it some 14 times of a thousand on ext4. */
static void what_is_gone_while_its_number_is_given_again(void **state)
{
	struct fixture *fixture = *state;
	struct file_handle *handle;
	pthread_t maker;
	int opened = 0, stale = 0;
	void *failed;

	need_handles(fixture);
	make(fixture, "old");
	handle = handle_of(fixture, "old");
	assert_int_equal(unlinkat(fixture->fd, "old", 0), 0);
	assert_int_equal(pthread_create(&maker, NULL, make_and_remove, fixture), 0);
	for (int i = 0; i < OPENS; i++) {
		int fd = source_handle_open(fixture->handles.mount_fd, handle, O_PATH);

		opened += fd >= 0;
		stale += fd < 0 && errno == ESTALE;
		if (fd >= 0)
			close(fd);
	}
	atomic_store(&fixture->stop, true);
	assert_int_equal(pthread_join(maker, &failed), 0);
	assert_null(failed);
	assert_int_equal(opened, 0);
	assert_int_equal(stale, OPENS);
	free(handle);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_file_is_found_again, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_gone_while_its_number_is_given_again, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
