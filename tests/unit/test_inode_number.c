/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_inode_number.c - numbers that are shown: no two objects have one, whatever numbers they have
 * and in whatever order they are met, and the way back leads to the object
 */
#include "fuse/inode_number.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define DEVICES 300u

struct fixture {
	struct inode_numbers *numbers;
	dev_t device;
	int fd;
};

/* Every device is another name for one file system here, so it is told by its number. */
static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct stat st;

	assert_non_null(fixture);
	fixture->fd = open(".", O_RDONLY | O_DIRECTORY);
	assert_int_equal(fstat(fixture->fd, &st), 0);
	fixture->device = st.st_dev;
	assert_int_equal(inode_numbers_new(fixture->fd, st.st_dev, &fixture->numbers), 0);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	inode_numbers_free(fixture->numbers);
	close(fixture->fd);
	free(fixture);
	return 0;
}

/* Shown, and found again by that. */
static ino_t shown(struct fixture *fixture, dev_t device, ino_t number)
{
	dev_t found_device = 0;
	ino_t result = 0, found_number = 0;

	assert_int_equal(inode_numbers_meet(fixture->numbers, fixture->fd, device, false), 0);
	assert_int_equal(inode_numbers_show(fixture->numbers, device, number, &result), 0);
	assert_int_equal(inode_numbers_find(fixture->numbers, result, &found_device, &found_number),
			 0);
	assert_int_equal(found_device, device);
	assert_int_equal(found_number, number);
	return result;
}

static int compare(const void *a, const void *b)
{
	const ino_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

/* What one device shows may be what the root's has as its own: that one is shown otherwise. */
static void no_two_are_one(void **state)
{
	static const ino_t numbers[] = {1,          2,          (1u << 28) - 1, 1u << 28,
					UINT32_MAX, 1ull << 56, 1ull << 63,     UINT64_MAX};
	enum { EACH = sizeof(numbers) / sizeof(numbers[0]), ALL = 2 * EACH * DEVICES };
	struct fixture *fixture = *state;
	ino_t *all = calloc(ALL, sizeof(*all));
	size_t count = 0;

	assert_non_null(all);
	for (unsigned device = 0; device < DEVICES; device++) {
		for (size_t i = 0; i < EACH; i++) {
			all[count] = shown(fixture, fixture->device + device, numbers[i]);
			count++;
			all[count] = device ? shown(fixture, fixture->device, all[count - 1])
					    : shown(fixture, fixture->device, numbers[i] ^ 4);
			count++;
		}
	}
	qsort(all, count, sizeof(*all), compare);
	for (size_t i = 1; i < count; i++)
		assert_int_not_equal(all[i - 1], all[i]);
	free(all);
}

/* But for the first of those that are at one mount point: its directory is met before all else. */
static void numbers_do_not_go_by_the_order(void **state)
{
	struct fixture *fixture = *state;
	struct inode_numbers *first = fixture->numbers;
	ino_t forwards[DEVICES];

	for (unsigned i = 0; i < DEVICES; i++)
		forwards[i] = shown(fixture, fixture->device + i, 7);
	assert_int_equal(inode_numbers_new(fixture->fd, fixture->device, &fixture->numbers), 0);
	shown(fixture, fixture->device + 1, 7);
	for (unsigned i = DEVICES; i-- > 0;)
		assert_int_equal(shown(fixture, fixture->device + i, 7), forwards[i]);
	inode_numbers_free(first);
}

static void what_cannot_be_had_is_refused(void **state)
{
	struct fixture *fixture = *state;
	const dev_t other = fixture->device + 1;
	ino_t first, result = 0;
	dev_t device;

	assert_int_equal(inode_numbers_show(fixture->numbers, other, 1, &result), -EOVERFLOW);
	assert_int_equal(
		inode_numbers_find(fixture->numbers, UINT64_C(0x5f) << 56, &device, &result),
		-ENOENT);
	first = shown(fixture, other, 1);
	for (uint64_t upper = 1; upper < INODE_NUMBER_SPACES; upper++)
		assert_int_equal(inode_numbers_show(fixture->numbers, other, upper << 28, &result),
				 0);
	assert_int_equal(inode_numbers_show(fixture->numbers, other, UINT64_MAX, &result),
			 -EOVERFLOW);
	assert_int_equal(shown(fixture, other, 1), first);
	assert_int_equal(shown(fixture, fixture->device, 1), 1);
	assert_true(inode_numbers_bytes(fixture->numbers) <= 96ull * INODE_NUMBER_SPACES + 4096);
}

/* A border was crossed to a device whose number is another file system's by now. */
static void a_device_number_is_given_again(void **state)
{
	struct fixture *fixture = *state;
	const dev_t other = fixture->device + 1;
	int proc = open("/proc", O_RDONLY | O_DIRECTORY);
	ino_t before = shown(fixture, other, 1), after = 0;

	assert_true(proc >= 0);
	assert_int_equal(inode_numbers_meet(fixture->numbers, fixture->fd, other, true), 0);
	assert_int_equal(shown(fixture, other, 1), before);
	assert_int_equal(inode_numbers_meet(fixture->numbers, proc, other, true), 0);
	after = shown(fixture, other, 1);
	assert_int_not_equal(after, before);
	close(proc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_two_are_one, setup, teardown),
		cmocka_unit_test_setup_teardown(numbers_do_not_go_by_the_order, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_had_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_device_number_is_given_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
