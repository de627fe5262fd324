/* SPDX-License-Identifier: Apache-2.0 */
/* test_file.c - what is known of a file: for how long it is kept, and when it is no longer true */
#include "fixture.h"

#define PAGES 32u
#define BYTES (PAGES * FOLD_PAGE_SIZE)

static void learn(struct fixture *fixture, struct subject *subject)
{
	uint8_t *buffer = malloc(BYTES);

	expect(buffer);
	expect(read_all(fixture, subject, buffer, BYTES) > 0);
	free(buffer);
}

static bool validate(struct subject *subject)
{
	bool unchanged = false;

	expect(!file_validate(subject->file, subject->fd, &unchanged));
	return unchanged;
}

static struct stat stat_of(int fd)
{
	struct stat st;

	expect(!fstat(fd, &st));
	return st;
}

static void one_source_file_is_one_file(void **state)
{
	struct fixture fixture;
	struct subject a;
	struct subject b;
	struct stat st;
	struct file *again;

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &a, "a", 1);
	subject_open(&fixture, &b, "bb", 2);
	assert_ptr_not_equal(a.file, b.file);
	st = stat_of(a.fd);
	expect(!file_table_get(fixture.files, &st, &again));
	assert_ptr_equal(again, a.file);
	file_put(again);
	again = file_table_find(fixture.files, st.st_dev, st.st_ino);
	assert_ptr_equal(again, a.file);
	file_put(again);
	assert_null(file_table_find(fixture.files, st.st_dev + 1, st.st_ino));
	assert_ptr_equal(file_get(a.file), a.file);
	file_put(a.file);
	assert_int_equal(file_size(a.file), 1);
	assert_int_equal(file_size(b.file), 2);
	assert_true(file_table_bytes(fixture.files) > 0);
	subject_close(&a);
	subject_close(&b);
	fixture_close(&fixture);
}

/* The same device and inode number in different places of the two numbers. */
static void files_are_told_apart_by_both_numbers(void **state)
{
	enum { N = 64 };
	struct fixture fixture;
	struct file *files[N][N];
	struct stat st = {.st_size = 1};

	(void)state;
	fixture_open(&fixture, MIB, true);
	for (unsigned d = 0; d < N; d++)
		for (unsigned i = 0; i < N; i++) {
			st.st_dev = d;
			st.st_ino = i;
			expect(!file_table_get(fixture.files, &st, &files[d][i]));
		}
	for (unsigned d = 0; d < N; d++)
		for (unsigned i = 0; i < N; i++) {
			struct file *found = file_table_find(fixture.files, d, i);

			assert_ptr_equal(found, files[d][i]);
			file_put(found);
			file_put(found);
		}
	fixture_close(&fixture);
}

static void what_is_known_outlives_close(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(PAGES, 1);
	struct stat st;
	int fd;

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, BYTES);
	learn(&fixture, &subject);
	st = stat_of(subject.fd);
	fd = reopen_file(subject.fd, O_RDWR);
	subject_close(&subject);
	subject_attach(&fixture, &subject, fd, O_RDWR);
	assert_true(validate(&subject));
	assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_FRAME), PAGES);
	assert_int_equal(stat_of(fd).st_ino, st.st_ino);
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

/* ---- truth ---- */

enum foreign { FOREIGN_WRITE, FOREIGN_GROW, FOREIGN_SHRINK, FOREIGN_TIMES, FOREIGNS };

static void change_behind(struct subject *subject, enum foreign foreign)
{
	switch (foreign) {
	case FOREIGN_WRITE:
		write_whole(subject->fd, "foreign", 7, 5000);
		touch_file(subject->fd);
		break;
	case FOREIGN_GROW:
		expect(!ftruncate(subject->fd, BYTES + 10));
		break;
	case FOREIGN_SHRINK:
		expect(!ftruncate(subject->fd, BYTES - 10));
		break;
	case FOREIGN_TIMES:
		touch_file(subject->fd);
		break;
	case FOREIGNS:
		break;
	}
}

static void a_change_behind_the_mount_is_found(void **state)
{
	struct test_page *pages = pages_new(PAGES, 1);

	(void)state;
	for (enum foreign foreign = 0; foreign < FOREIGNS; foreign++) {
		struct fixture fixture;
		struct subject subject;
		uint64_t edition;

		fixture_open(&fixture, MIB, true);
		subject_open(&fixture, &subject, pages, BYTES);
		learn(&fixture, &subject);
		assert_true(validate(&subject));
		edition = file_edition(subject.file);
		change_behind(&subject, foreign);
		assert_false(validate(&subject));
		assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_NOTHING), PAGES);
		assert_int_equal(file_size(subject.file), stat_of(subject.fd).st_size);
		assert_true(file_edition(subject.file) > edition);
		edition = file_edition(subject.file);
		assert_true(validate(&subject));
		assert_int_equal(file_edition(subject.file), edition);
		learn(&fixture, &subject);
		check_known(&subject, PAGES);
		subject_close(&subject);
		fixture_close(&fixture);
	}
	free(pages);
}

/* B.2 across a foreign change: a fill from before it was noticed is not published after. */
static void forgetting_voids_fills_under_way(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct page_look look;
	struct test_page *pages = pages_new(PAGES, 1);

	(void)state;
	for (unsigned way = 0; way < 2; way++) {
		fixture_open(&fixture, MIB, true);
		subject_open(&fixture, &subject, pages, BYTES);
		fold_rcu_read_lock();
		page_map_look(file_map(subject.file), 3, 1, &look);
		fold_rcu_read_unlock();
		if (way) {
			file_forget(subject.file);
		} else {
			change_behind(&subject, FOREIGN_WRITE);
			assert_false(validate(&subject));
		}
		fold_rcu_read_lock();
		expect(!page_map_publish_zero(file_map(subject.file), 3, look.ticket));
		fold_rcu_read_unlock();
		subject_close(&subject);
		fixture_close(&fixture);
	}
	free(pages);
}

static void an_own_change_is_not_foreign(void **state)
{
	struct fixture fixture;
	struct subject subject;
	uint64_t edition;
	struct test_page *pages = pages_new(PAGES, 1);

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, BYTES);
	learn(&fixture, &subject);
	edition = file_edition(subject.file);
	for (unsigned i = 0; i < 5; i++) {
		expect(!file_change_begin(subject.file, subject.fd, NULL));
		write_whole(subject.fd, &pages[3], FOLD_PAGE_SIZE, 3 * FOLD_PAGE_SIZE);
		touch_file(subject.fd);
		expect(!ftruncate(subject.fd, BYTES + i));
		file_change_end(subject.file, subject.fd);
		assert_int_equal(file_size(subject.file), BYTES + i);
		assert_true(validate(&subject));
	}
	assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_FRAME), PAGES);
	assert_int_equal(file_edition(subject.file), edition);
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

static void own_changes_may_overlap(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(PAGES, 1);

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, BYTES);
	learn(&fixture, &subject);
	expect(!file_change_begin(subject.file, subject.fd, NULL));
	touch_file(subject.fd);
	assert_true(validate(&subject)); /* judged at the end */
	expect(!file_change_begin(subject.file, subject.fd, NULL));
	file_change_end(subject.file, subject.fd);
	touch_file(subject.fd);
	assert_true(validate(&subject));
	file_change_end(subject.file, subject.fd);
	assert_true(validate(&subject));
	assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_FRAME), PAGES);
	/* After the last of them every change is foreign again. */
	touch_file(subject.fd);
	assert_false(validate(&subject));
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

static void an_own_change_finds_the_foreign_one_before_it(void **state)
{
	struct test_page *pages = pages_new(PAGES, 1);

	(void)state;
	for (enum foreign foreign = 0; foreign < FOREIGNS; foreign++) {
		struct fixture fixture;
		struct subject subject;
		uint64_t edition;

		fixture_open(&fixture, MIB, true);
		subject_open(&fixture, &subject, pages, BYTES);
		learn(&fixture, &subject);
		edition = file_edition(subject.file);
		change_behind(&subject, foreign);
		expect(!file_change_begin(subject.file, subject.fd, NULL));
		assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_NOTHING), PAGES);
		file_change_end(subject.file, subject.fd);
		assert_true(file_edition(subject.file) > edition);
		assert_true(validate(&subject));
		subject_close(&subject);
		fixture_close(&fixture);
	}
	free(pages);
}

/* What a change that is under way puts back after somebody told of a foreign one (here a fill
 * stands for it) does not outlive it, be it the first or the last of several. */
static void what_is_distrusted_is_forgotten_until_the_last_change_ends(void **state)
{
	struct fixture fixture;
	struct subject subject;
	uint64_t edition;
	struct test_page *pages = pages_new(PAGES, 1);

	(void)state;
	for (unsigned lost = 0; lost < 2; lost++) {
		fixture_open(&fixture, MIB, true);
		subject_open(&fixture, &subject, pages, BYTES);
		learn(&fixture, &subject);
		edition = file_edition(subject.file);
		expect(!file_change_begin(subject.file, subject.fd, NULL));
		expect(!file_change_begin(subject.file, subject.fd, NULL));
		if (lost)
			assert_false(file_recheck(subject.file, subject.fd, INT64_MAX));
		else
			file_distrust(subject.file);
		assert_true(file_edition(subject.file) > edition);
		edition = file_edition(subject.file);
		assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_NOTHING), PAGES);
		for (unsigned change = 0; change < 2; change++) {
			learn(&fixture, &subject);
			assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_FRAME), PAGES);
			file_change_end(subject.file, subject.fd);
			assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_NOTHING), PAGES);
		}
		learn(&fixture, &subject);
		expect(!file_change_begin(subject.file, subject.fd, NULL));
		file_change_end(subject.file, subject.fd);
		assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_FRAME), PAGES);
		subject_close(&subject);
		fixture_close(&fixture);
	}
	free(pages);
}

/* Reports were lost. A stamp that was old when it was taken tells whether the file was changed; a
 * young one does if nothing was lost for some time after it. */
static void what_may_have_been_lost_is_compared_by_stamp(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(PAGES, 1);
	struct timespec now;
	int64_t then;
	uint64_t edition;

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, BYTES);
	learn(&fixture, &subject);
	expect(!clock_gettime(CLOCK_MONOTONIC, &now));
	then = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	edition = file_edition(subject.file);
	/* Whatever its stamp is worth by itself, it is that of this moment. */
	while (!validate(&subject))
		;
	learn(&fixture, &subject);
	edition = file_edition(subject.file);
	assert_true(file_recheck(subject.file, subject.fd, then + 10 * FILE_SETTLED_NS));
	assert_int_equal(file_edition(subject.file), edition);
	assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_FRAME), PAGES);
	/* It is young, and what was lost may be of the time before it was taken. */
	assert_false(file_recheck(subject.file, subject.fd, then));
	assert_true(file_edition(subject.file) > edition);
	assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_NOTHING), PAGES);
	while (!validate(&subject))
		;
	learn(&fixture, &subject);
	expect(pwrite(subject.fd, "x", 1, 0) == 1);
	assert_false(file_recheck(subject.file, subject.fd, INT64_MAX));
	assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_NOTHING), PAGES);
	learn(&fixture, &subject);
	assert_false(file_recheck(subject.file, -1, INT64_MAX));
	assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_NOTHING), PAGES);
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

/* A file that nobody has open is compared when it is opened. */
static void a_file_rests_that_nobody_has_open(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct file *file;

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, "a", 1);
	assert_true(file_rests(subject.file, INT64_MAX));
	assert_false(file_rests(subject.file, 0));
	file = file_get(subject.file);
	assert_false(file_rests(subject.file, INT64_MAX));
	file_put(file);
	subject_close(&subject);
	fixture_close(&fixture);
}

/* An inode number that comes back is another file. */
static void another_file_under_the_same_number_is_not_believed(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(PAGES, 1);
	struct stat st;
	struct file *file;

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, BYTES);
	learn(&fixture, &subject);
	st = stat_of(subject.fd);
	subject_close(&subject);
	/* The same number, other times: as a new file would have. */
	subject.fd = temp_file();
	write_whole(subject.fd, &pages[1], FOLD_PAGE_SIZE, 0);
	expect(!source_new(reopen_file(subject.fd, O_RDWR), &subject.source));
	expect(!file_table_get(fixture.files, &st, &file));
	subject.file = file;
	assert_false(validate(&subject));
	assert_int_equal(count_known(&subject, 0, PAGES, KNOWS_NOTHING), PAGES);
	assert_int_equal(file_size(file), FOLD_PAGE_SIZE);
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

static void a_bad_descriptor_is_an_error(void **state)
{
	struct fixture fixture;
	struct subject subject;
	bool unchanged;

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, "a", 1);
	assert_int_equal(file_validate(subject.file, -1, &unchanged), -EBADF);
	assert_int_equal(file_change_begin(subject.file, -1, NULL), -EBADF);
	/* There was no beginning: a foreign change is seen. */
	touch_file(subject.fd);
	assert_false(validate(&subject));
	subject_close(&subject);
	fixture_close(&fixture);
}

/* ---- memory ---- */

static void the_last_user_of_a_file_without_a_name_takes_all_along(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(PAGES, 1);
	struct stat st;

	(void)state;
	fixture_open(&fixture, MIB, true);
	subject_open(&fixture, &subject, pages, BYTES); /* has no name */
	learn(&fixture, &subject);
	st = stat_of(subject.fd);
	file_get(subject.file);
	file_put_or_drop(subject.file, subject.fd); /* another reference is left */
	assert_int_equal(pool_usage(&fixture.pool).frames_used, PAGES);
	file_put_or_drop(subject.file, subject.fd);
	wait_for(!pool_usage(&fixture.pool).frames_used);
	assert_null(file_table_find(fixture.files, st.st_dev, st.st_ino));
	source_put(subject.source);
	close(subject.fd);
	fixture_close(&fixture);
	free(pages);
}

/* What the kernel caches was read under a struct file that had to go: nobody can tell whether the
 * source has changed since, so it is not of the edition that another one begins with. */
static void a_file_that_was_dropped_comes_back_as_another_edition(void **state)
{
	struct fixture fixture;
	struct file_table *files;
	struct file *file;
	struct stat st = {.st_dev = 1, .st_ino = 1, .st_size = 1};
	uint64_t edition;

	(void)state;
	fixture_open(&fixture, MIB, true);
	expect(!file_table_new(fixture.memory, 0, &files));
	expect(!file_table_get(files, &st, &file));
	edition = file_edition(file);
	assert_true(edition > 0);
	file_put(file);
	file_table_trim(files);
	assert_null(file_table_find(files, 1, 1));
	expect(!file_table_get(files, &st, &file));
	assert_true(file_edition(file) > edition);
	file_put(file);
	file_table_free(files);
	fixture_close(&fixture);
}

/* Maps are kept within their budget, least recently used first; what is open keeps right. */
static void maps_are_held_to_their_budget(void **state)
{
	enum { FILES = 200, ZEROES = 64 * 8 };
	const uint64_t budget = 64 * 1024;
	struct pool pool;
	struct page_map_memory *memory;
	struct file_table *files;
	struct stat st = {.st_size = ZEROES * FOLD_PAGE_SIZE, .st_dev = 1};
	struct file *open_file = NULL;
	uint64_t highest = 0;

	(void)state;
	pool_open(&pool, MIB, true);
	expect(!page_map_memory_new(pool.store, &memory));
	expect(!file_table_new(memory, budget, &files));
	for (unsigned i = 0; i < FILES; i++) {
		struct file *file;

		st.st_ino = i + 1;
		expect(!file_table_get(files, &st, &file));
		/* Every second page: nothing that one word could say. */
		for (uint64_t page = 0; page < ZEROES; page += 2) {
			struct page_look look;

			fold_rcu_read_lock();
			page_map_look(file_map(file), page, 1, &look);
			expect(page_map_publish_zero(file_map(file), page, look.ticket));
			fold_rcu_read_unlock();
		}
		file_table_trim(files);
		wait_for(page_map_memory_bytes(memory) <= budget + 16 * 1024);
		if (page_map_memory_bytes(memory) > highest)
			highest = page_map_memory_bytes(memory);
		if (i == 0)
			open_file = file;
		else
			file_put(file);
	}
	/* It is used, too. */
	assert_true(highest > budget / 2);
	/* The newest is known, the oldest is not. */
	open_file = (file_put(open_file), file_table_find(files, 1, FILES));
	assert_non_null(open_file);
	file_put(open_file);
	assert_null(file_table_find(files, 1, 2));
	file_table_free(files);
	wait_for(!page_map_memory_zero_pages(memory));
	page_map_memory_free(memory);
	pool_close(&pool);
}

/* ---- all at once ---- */

#define CROWD_FILES 8u

struct crowd {
	struct fixture fixture;
	int fds[CROWD_FILES];
	struct file_table *small; /* a budget of nothing: every trim drops what nobody holds */
};

static void use_files(void *context, unsigned index)
{
	struct crowd *crowd = context;
	struct rng rng = {.state = mix64(index)};

	for (unsigned round = 0; round < ROUNDS(8000); round++) {
		unsigned i = (unsigned)rng_below(&rng, CROWD_FILES);
		struct stat st = stat_of(crowd->fds[i]);
		struct page_look look;
		struct file *file;
		bool unchanged;

		expect(!file_table_get(crowd->small, &st, &file));
		expect(!file_validate(file, crowd->fds[i], &unchanged));
		fold_rcu_read_lock();
		page_map_look(file_map(file), rng_below(&rng, 1000), 1, &look);
		if (!look.data)
			page_map_publish_zero(file_map(file), rng_below(&rng, 1000), look.ticket);
		fold_rcu_read_unlock();
		switch (rng_below(&rng, 8)) {
		case 0:
			file_table_trim(crowd->small);
			break;
		case 1:
			expect(!file_change_begin(file, crowd->fds[i], NULL));
			touch_file(crowd->fds[i]);
			file_change_end(file, crowd->fds[i]);
			break;
		case 2:
			file_forget(file);
			break;
		}
		if (rng_below(&rng, 4))
			file_put(file);
		else
			file_put_or_drop(file, crowd->fds[i]);
	}
}

static void files_come_and_go_under_many_hands(void **state)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));

	(void)state;
	expect(crowd);
	fixture_open(&crowd->fixture, MIB, true);
	expect(!file_table_new(crowd->fixture.memory, 0, &crowd->small));
	for (unsigned i = 0; i < CROWD_FILES; i++) {
		crowd->fds[i] = temp_file();
		expect(!ftruncate(crowd->fds[i], MIB));
	}
	crew_run(4, use_files, crowd);
	file_table_trim(crowd->small);
	file_table_free(crowd->small);
	for (unsigned i = 0; i < CROWD_FILES; i++)
		close(crowd->fds[i]);
	fixture_close(&crowd->fixture);
	free(crowd);
}

/* What was seen before the change shows that others were there: all is forgotten as without it. */
static void a_look_before_a_change_finds_a_foreign_one(void **state)
{
	struct fixture fixture;
	struct subject subject;
	struct test_page *pages = pages_new(4, 1);
	struct stat seen;

	(void)state;
	fixture_open(&fixture, 2 * MIB, true);
	subject_open(&fixture, &subject, pages, 4 * FOLD_PAGE_SIZE);
	for (unsigned late = 0; late < 2; late++) {
		expect(read_all(&fixture, &subject, pages, 4 * FOLD_PAGE_SIZE) ==
		       4 * FOLD_PAGE_SIZE);
		/* Late: one that was seen before the foreign change says nothing of it. */
		expect(!fstat(subject.fd, &seen));
		write_whole(subject.fd, "x", 1, 4 * FOLD_PAGE_SIZE + late);
		if (!late)
			expect(!fstat(subject.fd, &seen));
		expect(!file_change_begin(subject.file, subject.fd, &seen));
		assert_int_equal(count_known(&subject, 0, 4, KNOWS_FRAME), late ? 4 : 0);
		file_change_end(subject.file, subject.fd);
	}
	subject_close(&subject);
	fixture_close(&fixture);
	free(pages);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_source_file_is_one_file),
		cmocka_unit_test(files_are_told_apart_by_both_numbers),
		cmocka_unit_test(what_is_known_outlives_close),
		cmocka_unit_test(a_change_behind_the_mount_is_found),
		cmocka_unit_test(forgetting_voids_fills_under_way),
		cmocka_unit_test(an_own_change_is_not_foreign),
		cmocka_unit_test(own_changes_may_overlap),
		cmocka_unit_test(an_own_change_finds_the_foreign_one_before_it),
		cmocka_unit_test(what_is_distrusted_is_forgotten_until_the_last_change_ends),
		cmocka_unit_test(what_may_have_been_lost_is_compared_by_stamp),
		cmocka_unit_test(a_file_rests_that_nobody_has_open),
		cmocka_unit_test(another_file_under_the_same_number_is_not_believed),
		cmocka_unit_test(a_bad_descriptor_is_an_error),
		cmocka_unit_test(the_last_user_of_a_file_without_a_name_takes_all_along),
		cmocka_unit_test(a_file_that_was_dropped_comes_back_as_another_edition),
		cmocka_unit_test(maps_are_held_to_their_budget),
		cmocka_unit_test(files_come_and_go_under_many_hands),
		cmocka_unit_test(a_look_before_a_change_finds_a_foreign_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
