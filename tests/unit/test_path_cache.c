/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_path_cache.c - descriptors come and go with their use, on a temporary directory: what is
 * used stays, what is too much or idle goes, what is pinned stays for good
 */
#include "fuse/path_cache.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SLOTS   40
#define SHARED  16
#define OPENED  8 /* by others */
#define LEFT    (SHARED - OPENED)
#define THREADS 4
#define RUNS    20000

/* The linker's names. */
int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __real_pthread_cond_signal(pthread_cond_t *condition);

static unsigned signals;

struct roomy_slot {
	struct path_slot slot;
	char handle_bytes[MAX_HANDLE_SZ];
};

struct fixture {
	char path[64];
	int root_fd;
	struct path_cache cache;
	struct roomy_slot slots[SLOTS];
	ino_t numbers[SLOTS];
};

int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
	signals++;
	return __real_pthread_cond_signal(condition);
}

static void close_if(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void name_of(char name[16], int index)
{
	snprintf(name, 16, "f%d", index);
}

static int open_path(const struct fixture *fixture, int index)
{
	char name[16];
	int fd;

	name_of(name, index);
	fd = openat(fixture->root_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static ino_t number_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

/* Every tenth is a directory. */
static void make_slot(struct fixture *fixture, int index)
{
	bool directory = index % 10 == 9;
	char name[16];
	int fd;

	name_of(name, index);
	if (directory)
		assert_int_equal(mkdirat(fixture->root_fd, name, 0755), 0);
	else
		close(openat(fixture->root_fd, name, O_CREAT | O_WRONLY, 0644));
	fd = open_path(fixture, index);
	fixture->numbers[index] = number_of(fd);
	close_if(path_slot_begin(&fixture->cache, &fixture->slots[index].slot, fd, directory));
}

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	strcpy(fixture->path, "/var/tmp/foldfs-path-XXXXXX");
	assert_non_null(mkdtemp(fixture->path));
	fixture->root_fd = open(fixture->path, O_RDONLY | O_DIRECTORY);
	path_cache_init(&fixture->cache, fixture->root_fd, SHARED);
	path_cache_make_room(&fixture->cache, OPENED);
	for (int index = 0; index < SLOTS; index++)
		make_slot(fixture, index);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;
	char name[16];

	for (int index = 0; index < SLOTS; index++) {
		close_if(path_slot_end(&fixture->cache, &fixture->slots[index].slot));
		name_of(name, index);
		if (unlinkat(fixture->root_fd, name, 0))
			(void)unlinkat(fixture->root_fd, name, AT_REMOVEDIR);
	}
	assert_int_equal(fixture->cache.kept, 0);
	assert_int_equal(fixture->cache.linked, 0);
	path_cache_end(&fixture->cache);
	close(fixture->root_fd);
	assert_int_equal(rmdir(fixture->path), 0);
	free(fixture);
	return 0;
}

/* A file system without handles, or a user without the right: then all stay. */
static void need_handles(const struct fixture *fixture)
{
	if (fixture->cache.objects.mount_fd < 0)
		skip();
}

static void use(struct fixture *fixture, int index)
{
	int fd = path_get(&fixture->cache, &fixture->slots[index].slot);

	assert_true(fd >= 0);
	assert_int_equal(number_of(fd), fixture->numbers[index]);
	path_put(&fixture->slots[index].slot);
}

static void no_more_than_the_budget(void **state)
{
	struct fixture *fixture = *state;

	need_handles(fixture);
	for (int round = 0; round < 3; round++)
		for (int index = 0; index < SLOTS; index++) {
			use(fixture, index);
			assert_in_range(fixture->cache.kept, 1, LEFT + 1);
		}
}

static void open_files_go_first(void **state)
{
	struct fixture *fixture = *state;

	need_handles(fixture);
	path_cache_make_room(&fixture->cache, 0);
	for (int index = 0; index < SLOTS; index++)
		use(fixture, index);
	assert_in_range(fixture->cache.kept, LEFT + 1, SHARED);
	path_cache_make_room(&fixture->cache, path_cache_spare(&fixture->cache));
	assert_in_range(fixture->cache.kept, 0, SHARED - path_cache_spare(&fixture->cache));
	use(fixture, 0);
}

static void what_is_used_stays(void **state)
{
	struct fixture *fixture = *state;

	need_handles(fixture);
	for (int index = 0; index < SLOTS; index++) {
		use(fixture, 0);
		use(fixture, index);
	}
	assert_true(path_is_open(&fixture->slots[0].slot));
	assert_false(path_is_open(&fixture->slots[1].slot));
}

static void what_is_in_use_is_not_closed(void **state)
{
	struct fixture *fixture = *state;
	int fd = path_get(&fixture->cache, &fixture->slots[0].slot);

	for (int index = 1; index < SLOTS; index++)
		use(fixture, index);
	for (int round = 0; round < 4; round++)
		path_cache_sweep(&fixture->cache);
	path_let_go(&fixture->cache, &fixture->slots[0].slot);
	assert_int_equal(number_of(fd), fixture->numbers[0]);
	path_put(&fixture->slots[0].slot);
}

static void what_is_idle_goes(void **state)
{
	struct fixture *fixture = *state;

	need_handles(fixture);
	use(fixture, 0);
	use(fixture, 9);
	path_cache_sweep(&fixture->cache);
	assert_true(path_is_open(&fixture->slots[0].slot));
	path_cache_sweep(&fixture->cache);
	assert_false(path_is_open(&fixture->slots[0].slot));
	assert_int_equal(fixture->cache.files, 0);
	/* A directory keeps no blocks to speak of. */
	assert_true(path_is_open(&fixture->slots[9].slot));
	use(fixture, 0);
}

static void what_is_let_go_goes_at_once(void **state)
{
	struct fixture *fixture = *state;

	need_handles(fixture);
	use(fixture, 0);
	assert_int_equal(unlinkat(fixture->root_fd, "f0", 0), 0);
	path_let_go(&fixture->cache, &fixture->slots[0].slot);
	assert_false(path_is_open(&fixture->slots[0].slot));
	assert_true(path_get(&fixture->cache, &fixture->slots[0].slot) < 0);
}

static void what_is_pinned_stays(void **state)
{
	struct fixture *fixture = *state;

	close_if(path_pin(&fixture->cache, &fixture->slots[0].slot, open_path(fixture, 0)));
	assert_int_equal(unlinkat(fixture->root_fd, "f0", 0), 0);
	path_let_go(&fixture->cache, &fixture->slots[0].slot);
	for (int index = 1; index < SLOTS; index++)
		use(fixture, index);
	for (int round = 0; round < 4; round++)
		path_cache_sweep(&fixture->cache);
	use(fixture, 0);
}

static void what_is_offered_is_taken_once(void **state)
{
	struct fixture *fixture = *state;
	int fd = open_path(fixture, 0);

	need_handles(fixture);
	path_cache_sweep(&fixture->cache);
	path_cache_sweep(&fixture->cache);
	assert_int_equal(path_offer(&fixture->cache, &fixture->slots[0].slot, fd), -1);
	fd = open_path(fixture, 0);
	assert_int_equal(path_offer(&fixture->cache, &fixture->slots[0].slot, fd), fd);
	close(fd);
}

/* Uses, offers and sweeps at once: whoever has a descriptor has that of his slot. */
static void *race(void *argument)
{
	struct fixture *fixture = argument;
	unsigned seed = (unsigned)(uintptr_t)&seed;

	for (int run = 0; run < RUNS; run++) {
		int index = rand_r(&seed) % SLOTS;
		struct stat st;
		int fd = path_get(&fixture->cache, &fixture->slots[index].slot);

		if (fd < 0 || fstat(fd, &st) || st.st_ino != fixture->numbers[index])
			return "another one's";
		path_put(&fixture->slots[index].slot);
		if (run % 64 == 0)
			path_cache_sweep(&fixture->cache);
	}
	return NULL;
}

static void uses_race_sweeps(void **state)
{
	struct fixture *fixture = *state;
	pthread_t threads[THREADS];

	for (int index = 0; index < THREADS; index++)
		assert_int_equal(pthread_create(&threads[index], NULL, race, fixture), 0);
	for (int index = 0; index < THREADS; index++) {
		void *failed;

		pthread_join(threads[index], &failed);
		assert_null(failed);
	}
}

static void wait_until_idle(struct path_cache *cache)
{
	bool idle = false;

	while (!idle) {
		sched_yield();
		pthread_mutex_lock(&cache->lock);
		idle = cache->idle;
		pthread_mutex_unlock(&cache->lock);
	}
}

/* As of a directory whose files are removed: each is looked up, removed and forgotten. */
static void files_that_come_and_go_wake_the_sweeper_once(void **state)
{
	struct fixture *fixture = *state;
	struct path_cache cache = {0};
	struct roomy_slot roomy = {0};
	struct path_slot *slot = &roomy.slot;

	path_cache_init(&cache, fixture->root_fd, SHARED);
	assert_int_equal(path_cache_start(&cache), 0);
	wait_until_idle(&cache);
	signals = 0;
	for (unsigned run = 0; run < RUNS; run++) {
		close_if(path_slot_begin(&cache, slot, open_path(fixture, 0), false));
		close_if(path_slot_end(&cache, slot));
	}
	if (cache.objects.mount_fd >= 0)
		assert_int_equal(signals, 1);
	path_cache_end(&cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_more_than_the_budget, setup, teardown),
		cmocka_unit_test_setup_teardown(open_files_go_first, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_used_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_in_use_is_not_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_idle_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_let_go_goes_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_pinned_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_offered_is_taken_once, setup, teardown),
		cmocka_unit_test_setup_teardown(uses_race_sweeps, setup, teardown),
		cmocka_unit_test_setup_teardown(files_that_come_and_go_wake_the_sweeper_once, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
