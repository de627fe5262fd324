/* SPDX-License-Identifier: Apache-2.0 */
/* test_file_set.c - each file counts once, in bounded memory */
#include "helpers.h"

#include "plan/file_set.h"

static void each_file_counts_once(void **state)
{
	struct file_set set = {0};

	(void)state;
	for (int round = 0; round < 3; round++)
		for (ino_t inode = 0; inode < 5000; inode++)
			for (dev_t device = 0; device < 2; device++)
				file_set_add(&set, device, inode, 10);
	assert_int_equal(set.files, 10000);
	assert_int_equal(set.bytes, 100000);
	assert_int_equal(file_set_memory(&set), 16384 * sizeof(uint64_t));
	file_set_clear(&set);
	assert_int_equal(set.files + set.bytes + file_set_memory(&set), 0);
	file_set_add(&set, 1, 1, 7);
	assert_int_equal(set.bytes, 7);
	file_set_clear(&set);
}

static void memory_is_bounded(void **state)
{
	struct file_set set = {0};
	ino_t inode;

	(void)state;
	for (inode = 0; inode < FILE_SET_MAX_PLACES; inode++)
		file_set_add(&set, 1, inode, 1);
	assert_int_equal(set.files, FILE_SET_MAX_PLACES / 4 * 3);
	assert_int_equal(set.bytes, set.files);
	assert_int_equal(file_set_memory(&set), FILE_SET_MAX_PLACES * sizeof(uint64_t));
	/* What is in it stays known. */
	file_set_add(&set, 1, 0, 1);
	assert_int_equal(set.bytes, set.files);
	file_set_clear(&set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_file_counts_once),
		cmocka_unit_test(memory_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
