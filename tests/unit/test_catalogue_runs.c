/* SPDX-License-Identifier: Apache-2.0 */
/* test_catalogue_runs.c - which pages of a file are its family's: joined, kept, ended, damaged */
#include "helpers.h"
#include "scratch.h"

#include "catalogue/catalogue_internal.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#define MAX_BYTES (UINT64_C(4) << 20)
#define PAGES     1000u

struct fixture {
	char directory[64];
	struct catalogue *catalogue;
	bool aside;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_true(scratch_name(f->directory, "runs", SCRATCH_ANY));
	assert_non_null(mkdtemp(f->directory));
	assert_int_equal(catalogue_open(f->directory, MAX_BYTES, &f->aside, &f->catalogue), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	catalogue_close(f->catalogue);
	nftw(f->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static struct catalogue_member file_number(unsigned number)
{
	struct catalogue_member file = {
		.stamp = {.device = 7,
			  .inode = number,
			  .size = PAGES * FOLD_PAGE_SIZE - 100,
			  .mtime = {.tv_sec = 1000, .tv_nsec = number},
			  .ctime = {.tv_sec = 2000, .tv_nsec = 5}},
	};

	snprintf(file.path, sizeof(file.path), "file %u", number);
	return file;
}

static struct source_stamp stamp_of(unsigned number)
{
	struct catalogue_member file = file_number(number);

	return file.stamp;
}

static void put_file(struct fixture *f, const struct catalogue_member *file)
{
	const struct catalogue_record record = {.pages = PAGES};
	struct catalogue_batch *batch;

	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_put(batch, file, &record, NULL, 0), 0);
	assert_int_equal(catalogue_commit(batch), 0);
}

static errint_t put_runs(struct fixture *f, unsigned number, unsigned of,
			 const struct catalogue_run runs[], size_t count)
{
	struct source_stamp stamp = stamp_of(number);
	struct source_stamp other = stamp_of(of);
	struct catalogue_batch *batch;
	errint_t error;

	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	error = catalogue_put_runs(batch, &stamp, &other, runs, count);
	if (error)
		catalogue_abort(batch);
	else
		assert_int_equal(catalogue_commit(batch), 0);
	return error;
}

/* The file's family; its runs must be these. */
static uint64_t expect_runs(struct fixture *f, unsigned number, const struct catalogue_run runs[],
			    size_t count)
{
	struct source_stamp stamp = stamp_of(number);
	struct catalogue_run *found;
	uint64_t family;
	size_t found_count;

	assert_int_equal(catalogue_runs(f->catalogue, &stamp, &family, &found, &found_count), 0);
	assert_int_equal(found_count, count);
	assert_memory_equal(found, runs, count * sizeof(*runs));
	assert_int_not_equal(family, 0);
	free(found);
	return family;
}

static void expect_none(struct fixture *f, const struct source_stamp *stamp)
{
	struct catalogue_run *found;
	uint64_t family;
	size_t count;

	assert_int_equal(catalogue_runs(f->catalogue, stamp, &family, &found, &count), -ENOENT);
}

static const struct catalogue_run whole[] = {{.first = 0, .pages = PAGES}};

static void put_files(struct fixture *f, unsigned count)
{
	for (unsigned i = 1; i <= count; i++) {
		struct catalogue_member file = file_number(i);

		put_file(f, &file);
	}
}

static void who_is_compared_with_founds_and_who_compares_joins(void **state)
{
	static const struct catalogue_run runs[] = {{10, 5}, {100, 900}};
	struct fixture *f = *state;
	struct source_stamp stamp = stamp_of(2);
	uint64_t family;

	put_files(f, 2);
	expect_none(f, &stamp);
	assert_int_equal(put_runs(f, 2, 1, runs, 2), 0);
	family = expect_runs(f, 1, whole, 1);
	assert_int_equal(expect_runs(f, 2, runs, 2), family);
	catalogue_close(f->catalogue);
	assert_int_equal(catalogue_open(f->directory, MAX_BYTES, &f->aside, &f->catalogue), 0);
	assert_int_equal(expect_runs(f, 2, runs, 2), family);
}

/* Compared with a member: only what that one has of the family counts. */
static void through_a_member_only_its_own_pages_are_known(void **state)
{
	static const struct catalogue_run first[] = {{10, 10}, {30, 10}, {50, 1}};
	static const struct catalogue_run second[] = {{0, 12}, {19, 15}, {39, 12}, {60, 4}};
	static const struct catalogue_run common[] = {{10, 2}, {19, 1}, {30, 4}, {39, 1}, {50, 1}};
	static const struct catalogue_run apart[] = {{40, 5}};
	struct fixture *f = *state;
	struct source_stamp stamp;
	uint64_t family;

	put_files(f, 4);
	assert_int_equal(put_runs(f, 2, 1, first, 3), 0);
	assert_int_equal(put_runs(f, 3, 2, second, 4), 0);
	family = expect_runs(f, 1, whole, 1);
	assert_int_equal(expect_runs(f, 3, common, 5), family);
	/* Nothing in common: of no family. */
	assert_int_equal(put_runs(f, 4, 2, apart, 1), 0);
	stamp = stamp_of(4);
	expect_none(f, &stamp);
	/* Alone, and another family. */
	assert_int_equal(put_runs(f, 4, 4, NULL, 0), 0);
	assert_int_not_equal(expect_runs(f, 4, whole, 1), family);
}

/* That the founder is another file now, or is gone, means nothing to the members. */
static void a_member_is_true_by_itself(void **state)
{
	static const struct catalogue_run runs[] = {{10, 5}};
	struct fixture *f = *state;
	struct catalogue_member changed = file_number(1);
	struct source_stamp old = changed.stamp;
	struct catalogue_batch *batch;
	uint64_t family;

	put_files(f, 3);
	assert_int_equal(put_runs(f, 2, 1, runs, 1), 0);
	family = expect_runs(f, 2, runs, 1);
	changed.stamp.ctime.tv_sec++;
	put_file(f, &changed);
	expect_none(f, &changed.stamp);
	expect_none(f, &old);
	assert_int_equal(expect_runs(f, 2, runs, 1), family);
	assert_int_equal(put_runs(f, 3, 2, whole, 1), 0);
	assert_int_equal(expect_runs(f, 3, runs, 1), family);
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_remove(batch, 7, 2), 0);
	assert_int_equal(catalogue_commit(batch), 0);
	old = stamp_of(2);
	expect_none(f, &old);
	/* A file that comes back under its old number knows nothing of what was. */
	put_files(f, 3);
	expect_none(f, &old);
	assert_int_equal(expect_runs(f, 3, runs, 1), family);
}

static void amend_nothing(const void *context, struct catalogue_record *record)
{
	(void)context;
	record->pages_elsewhere++;
}

/* Another name, other counts: the content is the same. */
static void what_changes_no_stamp_ends_nothing(void **state)
{
	static const struct catalogue_run runs[] = {{10, 5}};
	struct fixture *f = *state;
	struct source_stamp stamp = stamp_of(2);
	struct catalogue_batch *batch;

	put_files(f, 2);
	assert_int_equal(put_runs(f, 2, 1, runs, 1), 0);
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_rename(batch, &stamp, "elsewhere", true), 0);
	assert_int_equal(catalogue_amend(batch, &stamp, amend_nothing, NULL), 0);
	assert_int_equal(catalogue_commit(batch), 0);
	(void)expect_runs(f, 2, runs, 1);
}

static errint_t keep(struct fixture *f, const struct source_stamp *was,
		     const struct source_stamp *stamp, const struct catalogue_run runs[],
		     size_t count)
{
	struct catalogue_batch *batch;
	errint_t error;

	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	error = catalogue_keep_runs(batch, was, stamp, runs, count);
	assert_int_equal(catalogue_commit(batch), 0);
	return error;
}

/* What is left of a file's runs is known under its new stamp alone, also to a scan that reads the
 * file under that; one that finds another stamp takes them out. */
static void what_is_left_is_kept_under_a_new_stamp(void **state)
{
	const struct catalogue_run left[] = {{0, 3}, {5, 2}};
	struct fixture *f = *state;
	struct catalogue_member file = file_number(2);
	struct source_stamp was = file.stamp;
	struct source_stamp now = was;
	struct source_stamp other = was;
	struct catalogue_run *runs;
	uint64_t family;
	uint64_t same;
	size_t count;

	now.ctime.tv_nsec++;
	other.ctime.tv_nsec += 2;
	put_files(f, 2);
	assert_int_equal(put_runs(f, 2, 1, whole, 1), 0);
	family = expect_runs(f, 2, whole, 1);
	assert_int_equal(keep(f, &other, &now, left, 2), -ENOENT);
	assert_int_equal(keep(f, &was, &now, left, 2), 0);
	assert_int_equal(catalogue_runs(f->catalogue, &was, &same, &runs, &count), -ENOENT);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(catalogue_runs(f->catalogue, &now, &same, &runs, &count), 0);
		assert_int_equal(same, family);
		assert_int_equal(count, 2);
		assert_memory_equal(runs, left, sizeof(left));
		free(runs);
		file.stamp = now;
		put_file(f, &file);
	}
	file.stamp = other;
	put_file(f, &file);
	assert_int_equal(catalogue_runs(f->catalogue, &now, &same, &runs, &count), -ENOENT);
}

static void a_file_that_is_not_known_joins_nothing(void **state)
{
	struct fixture *f = *state;

	put_files(f, 1);
	assert_int_equal(put_runs(f, 2, 1, whole, 1), -ENOENT);
	assert_int_equal(put_runs(f, 1, 2, whole, 1), -ENOENT);
}

/* Written as they are: what a damaged database might hold. */
static void put_raw(struct fixture *f, unsigned number, uint64_t family,
		    const struct catalogue_run runs[], size_t bytes)
{
	struct source_stamp stamp = stamp_of(number);
	struct runs_value fixed = {
		.stamp = {.key = {.device = 7, .inode = number},
			  .size = stamp.size,
			  .mtime = stamp.mtime.tv_sec,
			  .mtime_ns = stamp.mtime.tv_nsec,
			  .ctime = stamp.ctime.tv_sec,
			  .ctime_ns = stamp.ctime.tv_nsec},
		.family = family,
	};
	uint8_t room[sizeof(fixed) + 8 * sizeof(runs[0])];
	MDB_val key = catalogue_value_of(&fixed.stamp.key, sizeof(fixed.stamp.key));
	MDB_val value = catalogue_value_of(room, sizeof(fixed) + bytes);
	struct catalogue_batch *batch;

	memcpy(room, &fixed, sizeof(fixed));
	memcpy(room + sizeof(fixed), runs, bytes);
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(mdb_put(batch->txn, f->catalogue->runs, &key, &value, 0), 0);
	assert_int_equal(catalogue_commit(batch), 0);
}

static void runs_that_make_no_sense_are_not_handed_on(void **state)
{
	static const struct {
		uint64_t family;
		size_t bytes;
		struct catalogue_run runs[3];
	} wrong[] = {
		{0, 16, {{0, 1}}},                  /* no family */
		{1, 0, {{0, 0}}},                   /* no run */
		{1, 24, {{0, 1}, {5, 1}}},          /* half a run */
		{1, 16, {{5, 0}}},                  /* an empty one */
		{1, 32, {{5, 5}, {9, 2}}},          /* they overlap */
		{1, 32, {{5, 5}, {10, 2}}},         /* they touch */
		{1, 32, {{50, 5}, {10, 2}}},        /* in disorder */
		{1, 16, {{0, PAGES + 1}}},          /* beyond the file */
		{1, 16, {{UINT64_MAX - 1, 5}}},     /* beyond all files */
		{1, 32, {{1, UINT64_MAX}, {5, 1}}}, /* round the end */
	};
	struct fixture *f = *state;
	struct source_stamp stamp = stamp_of(1);
	struct catalogue_run *runs;
	uint64_t family;
	size_t count;

	put_files(f, 1);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		put_raw(f, 1, wrong[i].family, wrong[i].runs, wrong[i].bytes);
		assert_int_equal(catalogue_runs(f->catalogue, &stamp, &family, &runs, &count),
				 -EIO);
	}
	put_raw(f, 1, 1, (struct catalogue_run[]){{0, 1}, {2, 1}}, 32);
	(void)expect_runs(f, 1, (struct catalogue_run[]){{0, 1}, {2, 1}}, 2);
}

/* Without its mark the database is copied record by record. */
static void renew(struct fixture *f)
{
	char mark[96];

	catalogue_close(f->catalogue);
	snprintf(mark, sizeof(mark), "%s/clean", f->directory);
	assert_int_equal(unlink(mark), 0);
	assert_int_equal(catalogue_open(f->directory, MAX_BYTES, &f->aside, &f->catalogue), 0);
	assert_false(f->aside);
}

static void runs_outlive_a_renewal(void **state)
{
	static const struct catalogue_run runs[] = {{10, 5}, {100, 900}};
	struct fixture *f = *state;

	put_files(f, 2);
	assert_int_equal(put_runs(f, 2, 1, runs, 2), 0);
	renew(f);
	(void)expect_runs(f, 2, runs, 2);
}

static void put_object(struct fixture *f, uint64_t class, const struct source_stamp *stamp)
{
	const struct catalogue_object object = {.class = class,
						.writers = class + 100,
						.content = {.low = class, .high = 7},
						.stamp = stamp ? *stamp : (struct source_stamp){0}};
	struct catalogue_batch *batch;

	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(stamp ? catalogue_put_object(batch, &object)
			       : catalogue_remove_object(batch, class),
			 0);
	assert_int_equal(catalogue_commit(batch), 0);
}

/* What is told of a class's copy: as it was put, but for the device. */
static void stamps_of_objects_are_kept(void **state)
{
	const struct source_stamp stamp = {.inode = 3, .size = 4, .mtime = {5, 6}, .ctime = {7, 8}};
	struct source_stamp other = stamp;
	struct catalogue_object found;
	struct fixture *f = *state;
	uint64_t count;
	uint64_t bytes;

	other.device = 9;
	other.ctime.tv_nsec++;
	assert_int_equal(catalogue_object(f->catalogue, 1, &found), -ENOENT);
	put_object(f, 1, &other);
	put_object(f, 1, &stamp);
	put_object(f, 2, &other);
	put_object(f, 3, &stamp);
	put_object(f, 3, NULL);
	put_object(f, 3, NULL);
	renew(f);
	assert_int_equal(catalogue_object(f->catalogue, 1, &found), 0);
	assert_true(source_stamp_equal(&found.stamp, &stamp));
	assert_int_equal(catalogue_object(f->catalogue, 2, &found), 0);
	other.device = 0;
	assert_true(source_stamp_equal(&found.stamp, &other));
	assert_int_equal(found.writers, 102);
	assert_int_equal(found.content.low, 2);
	assert_int_equal(catalogue_object(f->catalogue, 3, &found), -ENOENT);
	catalogue_count_objects(f->catalogue, &count, &bytes);
	assert_int_equal(count, 2);
	assert_int_equal(bytes, 8);
	assert_int_equal(catalogue_next_object(f->catalogue, 0, &found), 0);
	assert_int_equal(found.class, 1);
	assert_int_equal(catalogue_next_object(f->catalogue, 1, &found), 0);
	assert_int_equal(found.class, 2);
	assert_int_equal(catalogue_next_object(f->catalogue, 2, &found), -ENOENT);
	/* One that is gone since. */
	put_object(f, 1, NULL);
	assert_int_equal(catalogue_next_object(f->catalogue, 1, &found), 0);
	assert_int_equal(found.class, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(who_is_compared_with_founds_and_who_compares_joins),
		TEST(through_a_member_only_its_own_pages_are_known),
		TEST(a_member_is_true_by_itself),
		TEST(what_changes_no_stamp_ends_nothing),
		TEST(what_is_left_is_kept_under_a_new_stamp),
		TEST(a_file_that_is_not_known_joins_nothing),
		TEST(runs_that_make_no_sense_are_not_handed_on),
		TEST(runs_outlive_a_renewal),
		TEST(stamps_of_objects_are_kept),
#undef TEST
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
