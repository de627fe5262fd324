/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_inode.c - the inode table on a temporary directory: look-up and forget, numbers that are not
 * inodes, descriptors that run out, objects that are replaced, threads that race
 */
#include "fuse/inode.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"

#define FILES       200
#define LOW_LIMIT   64 /* descriptors: the table keeps 16 for files */
#define THREADS     4
#define THREAD_RUNS 20000

struct fixture {
	char path[64];
	int root_fd;
	struct inode_table *table;
};

static void make_file(const struct fixture *fixture, const char *name)
{
	int fd = openat(fixture->root_fd, name, O_CREAT | O_WRONLY, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, name, strlen(name)), (ssize_t)strlen(name));
	close(fd);
}

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	assert_true(scratch_name(fixture->path, "inode", SCRATCH_ANY));
	assert_non_null(mkdtemp(fixture->path));
	fixture->root_fd = open(fixture->path, O_RDONLY | O_DIRECTORY);
	assert_true(fixture->root_fd >= 0);
	assert_int_equal(inode_table_new(fixture->root_fd, BORDER_NO_PSEUDO, NULL, &fixture->table),
			 0);
	make_file(fixture, "a");
	make_file(fixture, "b");
	assert_int_equal(mkdirat(fixture->root_fd, "d", 0755), 0);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;
	char name[32];

	inode_table_free(fixture->table);
	for (int index = 0; index < FILES; index++) {
		snprintf(name, sizeof(name), "f%d", index);
		unlinkat(fixture->root_fd, name, 0);
	}
	unlinkat(fixture->root_fd, "a", 0);
	unlinkat(fixture->root_fd, "b", 0);
	unlinkat(fixture->root_fd, "d", AT_REMOVEDIR);
	close(fixture->root_fd);
	assert_int_equal(rmdir(fixture->path), 0);
	free(fixture);
	return 0;
}

static struct inode *look_up(struct fixture *fixture, const char *name)
{
	struct inode *root = inode_of(fixture->table, FUSE_ROOT_ID);
	struct inode *inode = NULL;
	struct stat st;

	assert_int_equal(inode_lookup(fixture->table, root, name, &inode, &st), 0);
	return inode;
}

static unsigned open_descriptors(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* What INODE leads to has NAME for its content. */
static void assert_content(struct fixture *fixture, struct inode *inode, const char *name)
{
	char content[32] = "";
	int fd = inode_open(fixture->table, inode, O_RDONLY);

	assert_true(fd >= 0);
	assert_true(read(fd, content, sizeof(content) - 1) >= 0);
	close(fd);
	assert_string_equal(content, name);
}

static void root_is_permanent(void **state)
{
	struct fixture *fixture = *state;
	struct inode *root = inode_of(fixture->table, FUSE_ROOT_ID);

	assert_non_null(root);
	assert_int_equal(inode_node(root), FUSE_ROOT_ID);
	inode_forget(fixture->table, root, 1000);
	assert_ptr_equal(inode_of(fixture->table, FUSE_ROOT_ID), root);
	assert_int_equal(inode_path_begin(fixture->table, root), fixture->root_fd);
	inode_path_end(root);
	assert_int_equal(inode_table_count(fixture->table), 1);
}

static void same_object_same_inode(void **state)
{
	struct fixture *fixture = *state;
	struct inode *a = look_up(fixture, "a");
	struct inode *by_fd;
	struct stat st;
	int fd = openat(fixture->root_fd, "a", O_RDONLY);

	assert_ptr_equal(look_up(fixture, "a"), a);
	assert_ptr_not_equal(look_up(fixture, "b"), a);
	assert_int_equal(inode_lookup_fd(fixture->table, fd, &by_fd, &st), 0);
	assert_ptr_equal(by_fd, a);
	assert_int_equal(st.st_size, 1);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	close(fd);
	assert_content(fixture, a, "a");
	assert_ptr_equal(inode_of(fixture->table, inode_node(a)), a);
	assert_int_equal(inode_table_count(fixture->table), 3);
}

static void last_forget_frees(void **state)
{
	struct fixture *fixture = *state;
	unsigned before = open_descriptors();
	struct inode *a = look_up(fixture, "a");
	fuse_ino_t node = inode_node(a);

	look_up(fixture, "a");
	inode_forget(fixture->table, a, 1);
	assert_ptr_equal(inode_of(fixture->table, node), a);
	inode_forget(fixture->table, a, 1);
	assert_null(inode_of(fixture->table, node));
	assert_int_equal(open_descriptors(), before);
	assert_int_equal(inode_table_count(fixture->table), 1);
	assert_int_not_equal(inode_node(look_up(fixture, "a")), node);
}

static void who_found_an_inode_keeps_it(void **state)
{
	struct fixture *fixture = *state;
	struct inode *a = look_up(fixture, "a");
	fuse_ino_t node = inode_node(a);
	struct stat st;

	assert_int_equal(fstatat(fixture->root_fd, "a", &st, 0), 0);
	assert_ptr_equal(inode_find(fixture->table, st.st_dev, st.st_ino, S_IFREG), a);
	assert_null(inode_find(fixture->table, st.st_dev + 1, st.st_ino, S_IFREG));
	assert_null(inode_find(fixture->table, st.st_dev, st.st_ino, S_IFDIR));
	inode_forget(fixture->table, a, 1);
	assert_ptr_equal(inode_of(fixture->table, node), a);
	inode_put(fixture->table, a);
	assert_null(inode_of(fixture->table, node));
	assert_null(inode_find(fixture->table, st.st_dev, st.st_ino, S_IFREG));
	/* The root, too, and for ever. */
	assert_int_equal(fstat(fixture->root_fd, &st), 0);
	a = inode_find(fixture->table, st.st_dev, st.st_ino, S_IFDIR);
	assert_int_equal(inode_node(a), FUSE_ROOT_ID);
	inode_put(fixture->table, a);
	assert_ptr_equal(inode_find(fixture->table, st.st_dev, st.st_ino, S_IFDIR), a);
}

static void bogus_nodes_are_refused(void **state)
{
	struct fixture *fixture = *state;
	fuse_ino_t node = inode_node(look_up(fixture, "a"));
	int on_stack = 0;
	const fuse_ino_t bogus[] = {
		0,
		2,
		node + 1,
		node - 1,
		node >> 32,
		(uint32_t)node,
		node ^ UINT64_C(1) << 63,
		UINT64_MAX,
		UINT32_MAX,
		UINT64_MAX << 32,
		(uintptr_t)&on_stack,
	};

	for (size_t index = 0; index < sizeof(bogus) / sizeof(bogus[0]); index++)
		if (bogus[index] != FUSE_ROOT_ID)
			assert_null(inode_of(fixture->table, bogus[index]));
}

static void names_stay_below(void **state)
{
	struct fixture *fixture = *state;
	struct inode *root = inode_of(fixture->table, FUSE_ROOT_ID);
	struct inode *inode;
	struct stat st;

	assert_int_equal(inode_lookup(fixture->table, root, "..", &inode, &st), -EINVAL);
	assert_int_equal(inode_lookup(fixture->table, root, ".", &inode, &st), -EINVAL);
	assert_int_equal(inode_lookup(fixture->table, root, "../a", &inode, &st), -EINVAL);
	assert_int_equal(inode_lookup(fixture->table, root, "none", &inode, &st), -ENOENT);
	assert_int_equal(inode_lookup(fixture->table, look_up(fixture, "a"), "x", &inode, &st),
			 -ENOTDIR);
	assert_int_equal(inode_table_count(fixture->table), 2);
}

static void special_files_are_not_opened(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(mkfifoat(fixture->root_fd, "f0", 0644), 0);
	assert_int_equal(inode_open(fixture->table, look_up(fixture, "f0"), O_RDONLY), -ENXIO);
}

static errint_t look_up_new(struct fixture *fixture, int number, struct inode **ret_inode)
{
	struct inode *root = inode_of(fixture->table, FUSE_ROOT_ID);
	struct stat st;
	char name[32];

	snprintf(name, sizeof(name), "f%d", number);
	make_file(fixture, name);
	return inode_lookup(fixture->table, root, name, ret_inode, &st);
}

/*
 * With few descriptors, inodes live on handles. False if this file system or user has none. The
 * limit stays low: raising it again is not for every root.
 */
static bool exhaust_descriptors(struct fixture *fixture, struct inode *inodes[FILES],
				unsigned *ret_more)
{
	const struct rlimit low = {.rlim_cur = LOW_LIMIT, .rlim_max = LOW_LIMIT};
	unsigned before;

	inode_table_free(fixture->table);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(inode_table_new(fixture->root_fd, BORDER_NO_PSEUDO, NULL, &fixture->table),
			 0);
	before = open_descriptors();
	for (int index = 0; index < FILES; index++) {
		/* Without handles the table may take all that there are, and leaves none to us. */
		if (open_descriptors() > LOW_LIMIT - 8)
			return false;
		assert_int_equal(look_up_new(fixture, index, &inodes[index]), 0);
	}
	*ret_more = open_descriptors() - before;
	return true;
}

static void handles_replace_descriptors(void **state)
{
	struct fixture *fixture = *state;
	struct inode *inodes[FILES];
	unsigned more;
	char name[32];

	if (!exhaust_descriptors(fixture, inodes, &more))
		skip();
	assert_in_range(more, 1, LOW_LIMIT / 2);
	for (int index = 0; index < FILES; index++) {
		unsigned before = open_descriptors();
		struct stat st;
		int fd = inode_path_begin(fixture->table, inodes[index]);

		snprintf(name, sizeof(name), "f%d", index);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		inode_path_end(inodes[index]);
		assert_int_equal(open_descriptors(), before);
		assert_content(fixture, inodes[index], name);
		assert_ptr_equal(look_up(fixture, name), inodes[index]);
	}
	for (int index = 0; index < FILES; index++)
		inode_forget(fixture->table, inodes[index], 2);
	assert_int_equal(inode_table_count(fixture->table), 1);
}

static void replaced_object_is_stale(void **state)
{
	struct fixture *fixture = *state;
	struct inode *inodes[FILES];
	struct inode *again;
	unsigned more;
	int fd;

	if (!exhaust_descriptors(fixture, inodes, &more))
		skip();
	/* A file of a new generation, often with the same inode number. */
	assert_int_equal(unlinkat(fixture->root_fd, "f0", 0), 0);
	make_file(fixture, "f0");
	again = look_up(fixture, "f0");
	assert_content(fixture, again, "f0");
	fd = inode_path_begin(fixture->table, inodes[0]);
	assert_true(fd == -ESTALE || fd == -ENOENT);
	assert_ptr_not_equal(again, inodes[0]);
	inode_forget(fixture->table, inodes[0], 1);
	assert_content(fixture, again, "f0");
	assert_ptr_equal(look_up(fixture, "f0"), again);
}

static void keep(struct fixture *fixture, const char *name)
{
	int fd = openat(fixture->root_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	inode_keep(fixture->table, fd, &st);
	close(fd);
}

static void kept_object_survives_unlink(void **state)
{
	struct fixture *fixture = *state;
	struct inode *inodes[FILES];
	unsigned before;
	unsigned more;

	if (!exhaust_descriptors(fixture, inodes, &more))
		skip();
	before = open_descriptors();
	keep(fixture, "f0");
	keep(fixture, "f0");
	assert_int_equal(open_descriptors(), before + 1);
	assert_int_equal(unlinkat(fixture->root_fd, "f0", 0), 0);
	assert_content(fixture, inodes[0], "f0");
	inode_forget(fixture->table, inodes[0], 1);
	assert_int_equal(open_descriptors(), before);
}

static void numbers_of_other_devices_differ(void **state)
{
	struct fixture *fixture = *state;
	const int fd = fixture->root_fd;
	struct stat st;
	ino_t own, other, again;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(inode_number_shown(fixture->table, fd, st.st_dev, 2, &own), 0);
	assert_int_equal(own, 2);
	assert_int_equal(inode_number_shown(fixture->table, fd, st.st_dev + 1, 2, &other), 0);
	assert_int_not_equal(other, 2);
	assert_int_equal(inode_number_shown(fixture->table, fd, st.st_dev + 1, 2, &again), 0);
	assert_int_equal(again, other);
}

static unsigned forgotten;

static void count_forget(struct window_file *file)
{
	assert_non_null(file);
	forgotten++;
}

static void window_files_are_given_back(void **state)
{
	struct fixture *fixture = *state;
	struct inode *a = look_up(fixture, "a");
	struct inode *b = look_up(fixture, "b");

	forgotten = 0;
	inode_table_on_forget(fixture->table, count_forget);
	inode_lock(a);
	*inode_window_file(a) = (struct window_file *)fixture;
	inode_unlock(a);
	*inode_window_file(b) = (struct window_file *)fixture;
	inode_forget(fixture->table, a, 1);
	assert_int_equal(forgotten, 1);
	inode_table_free(fixture->table);
	fixture->table = NULL;
	assert_int_equal(forgotten, 2);
}

/* Look up, use and forget the same three objects: an inode must never be seen half made or gone. */
static void *race(void *argument)
{
	static const char *const names[] = {"a", "b", "d"};
	struct fixture *fixture = argument;
	struct inode *root = inode_of(fixture->table, FUSE_ROOT_ID);

	for (int run = 0; run < THREAD_RUNS; run++) {
		struct inode *inode;
		struct stat st;
		struct stat again;
		int fd;

		if (inode_lookup(fixture->table, root, names[run % 3], &inode, &st) != 0)
			return "look-up";
		if (inode_of(fixture->table, inode_node(inode)) != inode)
			return "node";
		fd = inode_path_begin(fixture->table, inode);
		if (fd < 0 || fstat(fd, &again) < 0 || again.st_ino != st.st_ino)
			return "object";
		inode_path_end(inode);
		inode_forget(fixture->table, inode, 1);
	}
	return NULL;
}

static void lookup_races_forget(void **state)
{
	struct fixture *fixture = *state;
	unsigned before = open_descriptors();
	pthread_t threads[THREADS];

	for (int index = 0; index < THREADS; index++)
		assert_int_equal(pthread_create(&threads[index], NULL, race, fixture), 0);
	for (int index = 0; index < THREADS; index++) {
		void *failed;

		pthread_join(threads[index], &failed);
		assert_null(failed);
	}
	assert_int_equal(inode_table_count(fixture->table), 1);
	assert_int_equal(open_descriptors(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(root_is_permanent, setup, teardown),
		cmocka_unit_test_setup_teardown(same_object_same_inode, setup, teardown),
		cmocka_unit_test_setup_teardown(last_forget_frees, setup, teardown),
		cmocka_unit_test_setup_teardown(who_found_an_inode_keeps_it, setup, teardown),
		cmocka_unit_test_setup_teardown(bogus_nodes_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(names_stay_below, setup, teardown),
		cmocka_unit_test_setup_teardown(special_files_are_not_opened, setup, teardown),
		cmocka_unit_test_setup_teardown(numbers_of_other_devices_differ, setup, teardown),
		cmocka_unit_test_setup_teardown(window_files_are_given_back, setup, teardown),
		cmocka_unit_test_setup_teardown(lookup_races_forget, setup, teardown),
		/* These lower the limit of descriptors for good. */
		cmocka_unit_test_setup_teardown(handles_replace_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(replaced_object_is_stale, setup, teardown),
		cmocka_unit_test_setup_teardown(kept_object_survives_unlink, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
