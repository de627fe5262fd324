/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_file_trim.c - what a trim of the table of files walks past, and how its files are hashed
 *
 * The sources of the table are in this file, with every step of a walk over its lists counted.
 */
#include "helpers.h"

#include <sys/sysmacros.h>

#include <urcu/list.h>

static unsigned long steps;

#undef cds_list_for_each_entry
#define cds_list_for_each_entry(pos, head, member)                                                 \
	for (pos = cds_list_entry((head)->next, __typeof__(*(pos)), member);                       \
	     steps++, &(pos)->member != (head);                                                    \
	     pos = cds_list_entry((pos)->member.next, __typeof__(*(pos)), member))

#include "../../src/file.c"
#include "../../src/file_trim.c"

/* A trim frees idle files, oldest first, past any number of open ones. */
static void a_trim_walks_past_no_open_file(void **state)
{
	enum { OPEN = 2000, IDLE = 2000 };
	static struct file *files[OPEN];
	struct stat st = {.st_dev = 1};
	struct file_table *table;
	struct page_map_memory *memory;
	struct pool pool;
	struct file *file;

	(void)state;
	pool_open(&pool, 1 << 20, true);
	expect(!page_map_memory_new(pool.store, &memory));
	expect(!file_table_new(memory, 1, &table));
	for (unsigned i = 0; i < OPEN + IDLE; i++) {
		st.st_ino = i + 1;
		expect(!file_table_get(table, &st, &file));
		if (i < OPEN)
			files[i] = file;
		else
			file_put(file);
	}
	steps = 0;
	file_table_trim(table);
	assert_in_range(steps, IDLE, 2 * IDLE);
	for (unsigned i = 0; i < IDLE; i++)
		assert_null(file_table_find(table, 1, OPEN + 1 + i));
	for (unsigned i = 0; i < OPEN; i++)
		file_put(files[i]);
	file_table_free(table);
	page_map_memory_free(memory);
	pool_close(&pool);
}

/* One inode number in many snapshots, or many inodes of one disk: no two in ten share a place. */
static void objects_are_spread_by_device_and_by_inode(void **state)
{
	enum { OBJECTS = 8192 };
	static unsigned char places[OBJECTS];

	(void)state;
	for (unsigned way = 0; way < 3; way++) {
		unsigned most = 0;

		memset(places, 0, sizeof(places));
		for (unsigned i = 0; i < OBJECTS; i++) {
			dev_t device = way == 0 ? makedev(0, i) : way == 1 ? 42 : i % 64;
			uint64_t hash = fold_object_hash(device, way == 0 ? 257 : i);
			unsigned in = ++places[hash % OBJECTS];

			most = in > most ? in : most;
		}
		/* Of balls thrown at random the fullest of 8192 places has about seven. */
		assert_in_range(most, 1, 12);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_trim_walks_past_no_open_file),
		cmocka_unit_test(objects_are_spread_by_device_and_by_inode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
