/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_file_trim.c - what a trim of the table of files walks past, and how its files are hashed
 *
 * The sources of the table are in this file, with every step of a walk over its lists counted.
 */
#include "helpers.h"

#include <sys/mman.h>
#include <sys/sysmacros.h>

#include <urcu/list.h>

static unsigned long steps;

#undef cds_list_for_each_entry
#define cds_list_for_each_entry(pos, head, member)                                                 \
	for (pos = cds_list_entry((head)->next, __typeof__(*(pos)), member);                       \
	     steps++, &(pos)->member != (head);                                                    \
	     pos = cds_list_entry((pos)->member.next, __typeof__(*(pos)), member))

#undef cds_list_for_each_entry_safe
#define cds_list_for_each_entry_safe(pos, p, head, member)                                         \
	for (pos = cds_list_entry((head)->next, __typeof__(*(pos)), member),                       \
	    p = cds_list_entry((pos)->member.next, __typeof__(*(pos)), member);                    \
	     steps++, &(pos)->member != (head);                                                    \
	     pos = p, p = cds_list_entry((pos)->member.next, __typeof__(*(pos)), member))

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

/* A smaller budget is kept to before the call returns. */
static void a_smaller_budget_is_trimmed_to(void **state)
{
	enum { IDLE = 1000 };
	struct stat st = {.st_dev = 1};
	struct file_table *table;
	struct page_map_memory *memory;
	struct pool pool;
	struct file *file;
	uint64_t all;

	(void)state;
	pool_open(&pool, 1 << 20, true);
	expect(!page_map_memory_new(pool.store, &memory));
	expect(!file_table_new(memory, 64 << 20, &table));
	for (unsigned i = 0; i < IDLE; i++) {
		st.st_ino = i + 1;
		expect(!file_table_get(table, &st, &file));
		file_put(file);
	}
	all = file_table_bytes(table) + page_map_memory_in_use(memory);
	file_table_set_budget(table, all / 2);
	assert_true(file_table_bytes(table) + page_map_memory_in_use(memory) <= all / 2);
	assert_null(file_table_find(table, 1, 1));
	file = file_table_find(table, 1, IDLE);
	assert_non_null(file);
	file_put(file);
	file_table_set_budget(table, 64 << 20);
	file_table_free(table);
	page_map_memory_free(memory);
	pool_close(&pool);
}

/* What one kin needs that is true of the file open as FD. */
static struct kin *make_kin(struct family_table *families, int fd)
{
	const struct catalogue_run run = {.first = 0, .pages = 1};
	struct source_stamp stamp;
	struct stat st;
	struct kin *kin;

	expect(!fstat(fd, &st));
	source_stamp_of(&st, &stamp);
	kin = kin_new(families, &stamp, WRITERS_TRUSTED, 7, &run, 1);
	expect(kin);
	return kin;
}

/* Kins that are too much are found past any number of open files that have none. The eldest go
 * first; one that was opened again is not the eldest. */
static void kins_are_found_past_no_other_file(void **state)
{
	enum { OPEN = 2000, KINS = 20 };
	static struct file *files[OPEN];
	struct family_table *families;
	struct page_map_memory *memory;
	struct file_table *table;
	struct stat st = {.st_dev = 1};
	struct file *again;
	struct pool pool;
	int fd = memfd_create("kin", 0);

	(void)state;
	expect(fd >= 0 && !ftruncate(fd, FOLD_PAGE_SIZE));
	pool_open(&pool, 1 << 20, true);
	expect(!page_map_memory_new(pool.store, &memory));
	expect(!family_table_new(pool.store, &families));
	expect(!file_table_new(memory, 1, &table));
	file_table_use_families(table, families);
	for (unsigned i = 0; i < OPEN; i++) {
		st.st_ino = i + 1;
		expect(!file_table_get(table, &st, &files[i]));
	}
	for (unsigned i = OPEN - KINS; i < OPEN; i++)
		file_set_kin(files[i], make_kin(families, fd), fd);
	/* Two that have lost theirs otherwise, and one that is opened again. */
	file_drop_kin(files[OPEN - KINS]);
	file_drop_kin(files[OPEN - 1]);
	again = file_table_find(table, 1, OPEN - KINS + 2);
	expect(again == files[OPEN - KINS + 1]);
	steps = 0;
	pthread_mutex_lock(&table->lock);
	fold_rcu_read_lock();
	(void)drop_kins_locked(table, 1);
	fold_rcu_read_unlock();
	pthread_mutex_unlock(&table->lock);
	assert_in_range(steps, 1, 4);
	assert_non_null(file_kin(again));
	assert_null(file_kin(files[OPEN - KINS + 2]));
	assert_non_null(file_kin(files[OPEN - KINS + 3]));
	steps = 0;
	assert_true(drop_kins(table) > 0);
	assert_in_range(steps, 1, KINS + 1);
	for (unsigned i = 0; i < OPEN; i++)
		assert_null(file_kin(files[i]));
	file_put(again);
	for (unsigned i = 0; i < OPEN; i++)
		file_put(files[i]);
	file_table_free(table);
	family_table_free(families);
	page_map_memory_free(memory);
	pool_close(&pool);
	close(fd);
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
		cmocka_unit_test(a_smaller_budget_is_trimmed_to),
		cmocka_unit_test(kins_are_found_past_no_other_file),
		cmocka_unit_test(objects_are_spread_by_device_and_by_inode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
