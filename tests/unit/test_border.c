/* SPDX-License-Identifier: Apache-2.0 */
/* test_border.c - attributes are those of fstat(2), and what is a pseudo file system */
#include "helpers.h"
#include "scratch.h"

#include "foldfs/border.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void on_the_roots_file_system_it_is_what_fstat_says(void **state)
{
	struct border border;
	struct stat expected;
	struct stat found;
	const char *place = scratch_place(SCRATCH_ANY);
	int root = open(place, O_RDONLY | O_DIRECTORY);
	int fd = open(place, O_TMPFILE | O_RDWR, 0640);

	(void)state;
	assert_true(root >= 0 && fd >= 0);
	assert_int_equal(ftruncate(fd, 12345), 0);
	assert_int_equal(border_init(&border, root, BORDER_ONE), 0);
	assert_int_equal(fstat(fd, &expected), 0);
	/* Bytes that belong to no field are not compared. */
	assert_int_equal(border_stat(&border, fd, "", expected.st_dev, &found), 0);
	assert_int_equal(found.st_dev, expected.st_dev);
	assert_int_equal(found.st_ino, expected.st_ino);
	assert_int_equal(found.st_mode, expected.st_mode);
	assert_int_equal(found.st_nlink, expected.st_nlink);
	assert_int_equal(found.st_uid, expected.st_uid);
	assert_int_equal(found.st_gid, expected.st_gid);
	assert_int_equal(found.st_rdev, expected.st_rdev);
	assert_int_equal(found.st_size, expected.st_size);
	assert_int_equal(found.st_blksize, expected.st_blksize);
	assert_int_equal(found.st_blocks, expected.st_blocks);
	assert_memory_equal(&found.st_atim, &expected.st_atim, sizeof(found.st_atim));
	assert_memory_equal(&found.st_mtim, &expected.st_mtim, sizeof(found.st_mtim));
	assert_memory_equal(&found.st_ctim, &expected.st_ctim, sizeof(found.st_ctim));
	assert_int_equal(border_stat(&border, root, "no such name", found.st_dev, &found), -ENOENT);
	close(fd);
	close(root);
}

/* From / to /proc; the second time by what was found the first time. */
static void a_border_is_crossed_as_it_is_asked_for(void **state)
{
	static const struct {
		enum border_way way;
		errint_t result;
	} ways[] = {{BORDER_NO_PSEUDO, -EXDEV}, {BORDER_PSEUDO_TOO, 0}, {BORDER_ONE, -EXDEV}};
	struct border border;
	struct stat root_stat;
	struct stat st;
	int root = open("/", O_RDONLY | O_DIRECTORY);

	(void)state;
	assert_true(root >= 0);
	assert_int_equal(fstat(root, &root_stat), 0);
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		assert_int_equal(border_init(&border, root, ways[i].way), 0);
		for (unsigned again = 0; again < 2; again++)
			assert_int_equal(border_stat(&border, root, "proc", root_stat.st_dev, &st),
					 ways[i].result);
	}
	close(root);
}

static void doors_of_the_kernel_are_known_by_type(void **state)
{
	(void)state;
	assert_true(border_is_pseudo("proc"));
	assert_true(border_is_pseudo("cgroup2"));
	assert_true(border_is_pseudo("autofs"));
	assert_false(border_is_pseudo("ext4"));
	assert_false(border_is_pseudo("tmpfs"));
	assert_false(border_is_pseudo("fuse.proc"));
	assert_false(border_is_pseudo(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_the_roots_file_system_it_is_what_fstat_says),
		cmocka_unit_test(a_border_is_crossed_as_it_is_asked_for),
		cmocka_unit_test(doors_of_the_kernel_are_known_by_type),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
