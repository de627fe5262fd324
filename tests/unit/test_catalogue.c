/* SPDX-License-Identifier: Apache-2.0 */
/* test_catalogue.c - what is known of files between mounts: kept, replaced, damaged, shared */
#include "helpers.h"
#include "scratch.h"

#include "foldfs/catalogue.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define MAX_BYTES (UINT64_C(4) << 20)

struct fixture {
	char directory[64];
	char data[96];
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

static void open_it(struct fixture *f)
{
	assert_int_equal(catalogue_open(f->directory, MAX_BYTES, &f->aside, &f->catalogue), 0);
}

static void open_again(struct fixture *f)
{
	catalogue_close(f->catalogue);
	f->catalogue = NULL;
	open_it(f);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_true(scratch_name(f->directory, "catalogue", SCRATCH_ANY));
	assert_non_null(mkdtemp(f->directory));
	strcat(f->directory, "/state/below");
	snprintf(f->data, sizeof(f->data), "%s/data.mdb", f->directory);
	open_it(f);
	assert_false(f->aside);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	catalogue_close(f->catalogue);
	*strstr(f->directory, "/state") = '\0';
	nftw(f->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static struct catalogue_member file_number(unsigned number)
{
	struct catalogue_member file = {
		.stamp = {.device = 7,
			  .inode = number,
			  .size = 100000 + number,
			  .mtime = {.tv_sec = 1000, .tv_nsec = number},
			  .ctime = {.tv_sec = 2000, .tv_nsec = 5}},
	};

	snprintf(file.path, sizeof(file.path), "directory/file %u", number);
	return file;
}

static void put(struct fixture *f, unsigned number, uint64_t class)
{
	const uint64_t digests[] = {number, number + 1, 99};
	struct catalogue_member file = file_number(number);
	struct catalogue_record record = {.content = {.low = number, .high = 1},
					  .pages = 3,
					  .pages_elsewhere = 2,
					  .pages_error = 1,
					  .class = class};
	struct catalogue_batch *batch;

	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_put(batch, &file, &record, digests, 3), 0);
	assert_int_equal(catalogue_commit(batch), 0);
}

static errint_t find(struct fixture *f, unsigned number, struct catalogue_record *record)
{
	struct catalogue_member file = file_number(number);

	return catalogue_find(f->catalogue, &file.stamp, record);
}

static void a_record_is_kept_and_found_by_its_stamp_alone(void **state)
{
	struct fixture *f = *state;
	struct catalogue_member file = file_number(5);
	struct catalogue_record record;
	uint64_t *digests;
	size_t count;

	assert_int_equal(find(f, 5, &record), -ENOENT);
	put(f, 5, 0);
	open_again(f);
	assert_false(f->aside);
	assert_int_equal(find(f, 5, &record), 0);
	assert_int_equal(record.content.low, 5);
	assert_int_equal(record.pages, 3);
	assert_int_equal(record.pages_elsewhere, 2);
	assert_int_equal(record.pages_error, 1);
	assert_int_equal(catalogue_digests(f->catalogue, &file.stamp, 0, &digests, &count), 0);
	assert_int_equal(count, 3);
	assert_int_equal(digests[0], 5);
	assert_int_equal(digests[2], 99);
	free(digests);
	for (unsigned field = 0; field < 6; field++) {
		struct source_stamp other = file.stamp;

		other.device += field == 0;
		other.inode += field == 1;
		other.size += field == 2;
		other.mtime.tv_nsec += field == 3;
		other.ctime.tv_nsec += field == 4;
		other.ctime.tv_sec += field == 5;
		assert_int_equal(catalogue_find(f->catalogue, &other, &record), -ENOENT);
		assert_int_equal(catalogue_digests(f->catalogue, &other, 0, &digests, &count),
				 -ENOENT);
	}
}

static void the_secret_is_the_databases(void **state)
{
	struct fixture *f = *state;
	uint8_t secret[CATALOGUE_SECRET_BYTES];
	const uint8_t none[CATALOGUE_SECRET_BYTES] = {0};

	memcpy(secret, catalogue_secret(f->catalogue), sizeof(secret));
	assert_memory_not_equal(secret, none, sizeof(secret));
	open_again(f);
	assert_memory_equal(secret, catalogue_secret(f->catalogue), sizeof(secret));
}

static void members_come_in_one_order_and_leave_with_their_record(void **state)
{
	struct fixture *f = *state;
	struct catalogue_batch *batch;
	struct catalogue_member member;
	uint64_t class;
	uint64_t other;

	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_new_class(batch, &class), 0);
	assert_int_equal(catalogue_new_class(batch, &other), 0);
	assert_int_equal(catalogue_commit(batch), 0);
	assert_true(class && other && class != other);
	put(f, 30, class);
	put(f, 10, class);
	put(f, 20, class);
	put(f, 40, other);
	for (unsigned n = 0; n < 3; n++) {
		struct catalogue_member wanted = file_number(10 * (n + 1));

		assert_int_equal(catalogue_any_member(f->catalogue, class, n, &member), 0);
		assert_string_equal(member.path, wanted.path);
		assert_true(source_stamp_equal(&member.stamp, &wanted.stamp));
	}
	assert_int_equal(catalogue_any_member(f->catalogue, class, 3, &member), -ENOENT);
	put(f, 10, 0);
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_remove(batch, 7, 20), 0);
	assert_int_equal(catalogue_remove(batch, 7, 21), 0);
	assert_int_equal(catalogue_commit(batch), 0);
	assert_int_equal(catalogue_any_member(f->catalogue, class, 0, &member), 0);
	assert_string_equal(member.path, "directory/file 30");
	assert_int_equal(catalogue_any_member(f->catalogue, class, 1, &member), -ENOENT);
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_new_class(batch, &class), 0);
	catalogue_abort(batch);
	assert_true(class > other);
}

/* Those of one word side by side, the trusted ones first; what not everybody may read backs
 * nobody's. */
static void members_are_found_by_whom_they_may_back(void **state)
{
	static const uint64_t writers[] = {5, WRITERS_TRUSTED, 5, WRITERS_TRUSTED, 5, 256};
	struct fixture *f = *state;
	struct catalogue_member member;
	struct catalogue_batch *batch;
	struct source_stamp stamp;

	for (unsigned i = 0; i < 6; i++) {
		struct catalogue_member file = file_number(i + 1);
		struct catalogue_record record = {
			.class = 9, .writers = writers[i], .readable = i != 2, .reachable = true};

		assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
		assert_int_equal(catalogue_put(batch, &file, &record, NULL, 0), 0);
		assert_int_equal(catalogue_commit(batch), 0);
	}
	assert_int_equal(catalogue_member(f->catalogue, 9, WRITERS_TRUSTED, 1, &member), 0);
	assert_int_equal(member.stamp.inode, 4);
	assert_int_equal(catalogue_member(f->catalogue, 9, WRITERS_TRUSTED, 2, &member), -ENOENT);
	assert_int_equal(catalogue_member(f->catalogue, 9, 5, 1, &member), 0);
	assert_int_equal(member.stamp.inode, 5);
	assert_int_equal(catalogue_member(f->catalogue, 9, 5, 2, &member), -ENOENT);
	assert_int_equal(catalogue_member(f->catalogue, 9, 6, 0, &member), -ENOENT);
	assert_int_equal(catalogue_member(f->catalogue, 9, WRITERS_UNKNOWN, 0, &member), 0);
	assert_int_equal(member.stamp.inode, 3);
	assert_int_equal(catalogue_any_member(f->catalogue, 9, 0, &member), 0);
	assert_int_equal(member.stamp.inode, 2);
	/* A directory above it was closed: known by the next scan. */
	stamp = file_number(2).stamp;
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_rename(batch, &stamp, member.path, false), 0);
	assert_int_equal(catalogue_commit(batch), 0);
	assert_int_equal(catalogue_member(f->catalogue, 9, WRITERS_TRUSTED, 0, &member), 0);
	assert_int_equal(member.stamp.inode, 4);
	assert_int_equal(catalogue_member(f->catalogue, 9, WRITERS_TRUSTED, 1, &member), -ENOENT);
}

static void a_walk_meets_every_file_once(void **state)
{
	struct fixture *f = *state;
	struct catalogue_member file;
	struct catalogue_record record;
	struct source_stamp last;
	struct catalogue_batch *batch;
	unsigned met = 0;

	assert_int_equal(catalogue_next(f->catalogue, NULL, &file, &record), -ENOENT);
	for (unsigned number = 1; number < 60; number++)
		put(f, number, 0);
	for (errint_t error = catalogue_next(f->catalogue, NULL, &file, &record); !error;
	     error = catalogue_next(f->catalogue, &last, &file, &record)) {
		assert_int_equal(file.stamp.inode, record.content.low);
		assert_string_equal(file.path, file_number((unsigned)file.stamp.inode).path);
		met++;
		/* The one that a walk stands on may go. */
		last = file.stamp;
		assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
		assert_int_equal(catalogue_remove(batch, last.device, last.inode), 0);
		assert_int_equal(catalogue_commit(batch), 0);
	}
	assert_int_equal(met, 59);
	assert_int_equal(catalogue_next(f->catalogue, NULL, &file, &record), -ENOENT);
}

static void a_file_is_found_by_its_inode_whatever_its_stamp(void **state)
{
	struct fixture *f = *state;
	struct catalogue_member file;
	struct catalogue_record record;

	put(f, 5, 0);
	assert_int_equal(catalogue_get(f->catalogue, 7, 6, &file, &record), -ENOENT);
	assert_int_equal(catalogue_get(f->catalogue, 7, 5, &file, &record), 0);
	assert_string_equal(file.path, "directory/file 5");
	assert_int_equal(file.stamp.size, 100005);
	assert_int_equal(record.pages, 3);
}

static void digests_of_a_large_file_are_in_parts(void **state)
{
	struct fixture *f = *state;
	struct catalogue_member file = file_number(5);
	struct catalogue_batch *batch;
	uint64_t *digests;
	size_t count;

	put(f, 5, 0);
	put(f, 6, 0);
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	for (uint64_t part = 1; part < 4; part++)
		assert_int_equal(catalogue_put_digests(batch, 7, 5, part, &part, 1), 0);
	assert_int_equal(catalogue_commit(batch), 0);
	for (uint64_t part = 1; part < 4; part++) {
		assert_int_equal(
			catalogue_digests(f->catalogue, &file.stamp, part, &digests, &count), 0);
		assert_int_equal(count, 1);
		assert_int_equal(digests[0], part);
		free(digests);
	}
	assert_int_equal(catalogue_digests(f->catalogue, &file.stamp, 4, &digests, &count),
			 -ENOENT);
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_remove(batch, 7, 5), 0);
	assert_int_equal(catalogue_commit(batch), 0);
	/* None is left for a file that gets this inode later. */
	put(f, 5, 0);
	assert_int_equal(catalogue_digests(f->catalogue, &file.stamp, 1, &digests, &count),
			 -ENOENT);
	file = file_number(6);
	assert_int_equal(catalogue_digests(f->catalogue, &file.stamp, 0, &digests, &count), 0);
	free(digests);
}

static void set_class(const void *context, struct catalogue_record *record)
{
	record->class = *(const uint64_t *)context;
}

static void a_record_is_amended_only_under_its_stamp(void **state)
{
	struct fixture *f = *state;
	const uint64_t class = 12;
	struct catalogue_member file = file_number(5);
	struct catalogue_member member;
	struct source_stamp other = file.stamp;
	struct catalogue_record record;
	struct catalogue_batch *batch;
	uint64_t *digests;
	size_t count;

	put(f, 5, 11);
	other.ctime.tv_nsec++;
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_amend(batch, &other, set_class, &class), -ENOENT);
	assert_int_equal(catalogue_amend(batch, &file.stamp, set_class, &class), 0);
	assert_int_equal(catalogue_commit(batch), 0);
	assert_int_equal(find(f, 5, &record), 0);
	assert_int_equal(record.class, 12);
	assert_int_equal(record.pages_elsewhere, 2);
	assert_int_equal(catalogue_any_member(f->catalogue, 11, 0, &member), -ENOENT);
	assert_int_equal(catalogue_any_member(f->catalogue, 12, 0, &member), 0);
	assert_string_equal(member.path, file.path);
	assert_int_equal(catalogue_digests(f->catalogue, &file.stamp, 0, &digests, &count), 0);
	free(digests);
}

static void what_is_aborted_was_never_there(void **state)
{
	struct fixture *f = *state;
	struct catalogue_member file = file_number(3);
	struct catalogue_record record = {.pages = 1};
	struct catalogue_batch *batch;

	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_put(batch, &file, &record, NULL, 0), 0);
	assert_int_equal(find(f, 3, &record), -ENOENT);
	catalogue_abort(batch);
	assert_int_equal(find(f, 3, &record), -ENOENT);
}

/* Damage the database and open it: it is moved aside and begun anew. */
static void expect_aside(struct fixture *f)
{
	struct catalogue_record record;
	char aside[128];

	snprintf(aside, sizeof(aside), "%s.aside", f->data);
	open_it(f);
	assert_true(f->aside);
	assert_int_equal(access(aside, F_OK), 0);
	assert_int_equal(find(f, 5, &record), -ENOENT);
	put(f, 5, 0);
	open_again(f);
	assert_false(f->aside);
	assert_int_equal(find(f, 5, &record), 0);
}

static void write_at(struct fixture *f, off_t offset, const void *bytes, size_t count)
{
	int fd = open(f->data, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, count, offset), count);
	close(fd);
}

static void a_damaged_database_is_moved_aside(void **state)
{
	struct fixture *f = *state;
	uint8_t noise[4096];
	struct stat st;

	for (unsigned kind = 0; kind < 4; kind++) {
		for (unsigned number = 1; number < 400; number++)
			put(f, number, 0);
		catalogue_close(f->catalogue);
		f->catalogue = NULL;
		assert_int_equal(stat(f->data, &st), 0);
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)(i * 7 + kind);
		if (kind == 0) /* not LMDB's */
			for (off_t at = 0; at < st.st_size; at += 4096)
				write_at(f, at, noise, sizeof(noise));
		else if (kind == 1) /* every page but the two heads */
			for (off_t at = 8192; at < st.st_size; at += 4096)
				write_at(f, at, noise, sizeof(noise));
		else if (kind == 2)
			assert_int_equal(truncate(f->data, st.st_size / 3), 0);
		else
			assert_int_equal(truncate(f->data, 100), 0);
		expect_aside(f);
	}
}

static void a_foreign_database_is_moved_aside(void **state)
{
	struct fixture *f = *state;
	char *found;
	char bytes[65536];
	int fd;
	ssize_t length;

	put(f, 5, 0);
	catalogue_close(f->catalogue);
	f->catalogue = NULL;
	/* The magic number, wherever LMDB keeps it. */
	fd = open(f->data, O_RDWR);
	length = read(fd, bytes, sizeof(bytes));
	assert_true(length > 0);
	for (found = bytes;
	     (found = memmem(found, (size_t)(bytes + length - found), "atacdlof", 8)); found++)
		assert_int_equal(pwrite(fd, "another!", 8, found - bytes), 8);
	close(fd);
	expect_aside(f);
}

/* Full, and closed in order. */
static void expect_begun_anew(struct fixture *f)
{
	struct catalogue_record record;

	assert_int_equal(find(f, 1, &record), 0);
	open_again(f);
	assert_true(f->aside);
	assert_int_equal(find(f, 1, &record), -ENOENT);
}

static void a_full_database_says_so_and_is_moved_aside(void **state)
{
	struct fixture *f = *state;
	uint64_t *digests = calloc(8192, sizeof(*digests));
	struct catalogue_batch *batch;
	errint_t error = 0;
	unsigned number;

	assert_non_null(digests);
	for (number = 1; !error && number < 1000; number++) {
		struct catalogue_member file = file_number(number);
		struct catalogue_record record = {.pages = 1};

		assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
		error = catalogue_put(batch, &file, &record, digests, 8192);
		if (error)
			catalogue_abort(batch);
		else
			error = catalogue_commit(batch);
	}
	free(digests);
	assert_int_equal(error, -ENOSPC);
	assert_true(number > 20);
	expect_begun_anew(f);
}

/* ---- closed in order, or not ---- */

/* Everything of a catalogue with classes and parts of digests, to be compared. */
struct content {
	uint8_t secret[CATALOGUE_SECRET_BYTES];
	struct catalogue_record records[20];
	uint64_t members[20];
	unsigned member_count;
	uint64_t parts[3];
};

static void content_put(struct fixture *f)
{
	struct catalogue_batch *batch;

	for (unsigned number = 1; number <= 20; number++)
		put(f, number, number % 3);
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	for (uint64_t part = 1; part < 3; part++)
		assert_int_equal(catalogue_put_digests(batch, 7, 5, part, &part, 1), 0);
	assert_int_equal(catalogue_commit(batch), 0);
}

static struct content content_of(struct fixture *f)
{
	struct catalogue_member file = file_number(5);
	struct catalogue_member member;
	struct content content = {0};
	uint64_t *digests;
	size_t count;

	memcpy(content.secret, catalogue_secret(f->catalogue), sizeof(content.secret));
	for (unsigned number = 1; number <= 20; number++)
		assert_int_equal(find(f, number, &content.records[number - 1]), 0);
	for (uint64_t class = 1; class < 3; class ++)
		for (unsigned n = 0; !catalogue_any_member(f->catalogue, class, n, &member); n++)
			content.members[content.member_count++] = member.stamp.inode;
	for (uint64_t part = 0; part < 3; part++) {
		assert_int_equal(
			catalogue_digests(f->catalogue, &file.stamp, part, &digests, &count), 0);
		content.parts[part] = count << 32 | digests[0];
		free(digests);
	}
	return content;
}

static ino_t database_of(const struct fixture *f)
{
	struct stat st;

	assert_int_equal(stat(f->data, &st), 0);
	return st.st_ino;
}

static void a_database_that_was_closed_in_order_is_used_as_it_is(void **state)
{
	struct fixture *f = *state;
	struct catalogue_record record;
	ino_t database;

	put(f, 5, 0);
	database = database_of(f);
	for (unsigned i = 0; i < 3; i++) {
		open_again(f);
		assert_false(f->aside);
		assert_int_equal(database_of(f), database);
		assert_int_equal(find(f, 5, &record), 0);
	}
}

/* A process that is killed leaves no mark, and takes away the one that was there. */
static void a_database_whose_user_was_killed_is_written_anew(void **state)
{
	struct fixture *f = *state;
	struct content before;
	struct content after;
	ino_t database;
	int status;
	pid_t pid;

	catalogue_close(f->catalogue);
	f->catalogue = NULL;
	database = database_of(f);
	pid = fork();
	if (pid == 0) {
		open_it(f);
		content_put(f);
		_exit(f->aside ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(database_of(f), database);
	open_it(f);
	assert_false(f->aside);
	assert_int_not_equal(database_of(f), database);
	before = content_of(f);
	assert_int_equal(before.member_count, 14);
	assert_int_equal(before.parts[2], UINT64_C(1) << 32 | 2);

	catalogue_close(f->catalogue);
	f->catalogue = NULL;
	database = database_of(f);
	assert_int_equal(utimensat(AT_FDCWD, f->data, NULL, 0), 0);
	open_it(f);
	assert_false(f->aside);
	assert_int_not_equal(database_of(f), database);
	after = content_of(f);
	assert_memory_equal(&before, &after, sizeof(before));
	put(f, 30, 1);
}

static void a_directory_that_cannot_be_made_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct catalogue *other = NULL;
	char path[128];
	bool aside;

	snprintf(path, sizeof(path), "%s/below", f->data); /* below a file */
	assert_int_equal(catalogue_open(path, MAX_BYTES, &aside, &other), -ENOTDIR);
	assert_null(other);
}

static void a_directory_that_others_may_write_to_is_not_believed(void **state)
{
	struct fixture *f = *state;
	struct catalogue *other = NULL;
	bool aside;

	catalogue_close(f->catalogue);
	f->catalogue = NULL;
	assert_int_equal(chmod(f->directory, 0702), 0);
	assert_int_equal(catalogue_open(f->directory, MAX_BYTES, &aside, &other), -EPERM);
	assert_int_equal(chmod(f->directory, 0720), 0);
	assert_int_equal(catalogue_open(f->directory, MAX_BYTES, &aside, &other), -EPERM);
	assert_int_equal(chmod(f->directory, 0700), 0);
	if (!geteuid()) {
		assert_int_equal(chown(f->directory, 65534, 65534), 0);
		assert_int_equal(catalogue_open(f->directory, MAX_BYTES, &aside, &other), -EPERM);
		assert_int_equal(chown(f->directory, 0, 0), 0);
	}
	assert_null(other);
	open_it(f);
	assert_false(f->aside);
}

static void two_processes_have_it_at_once(void **state)
{
	struct fixture *f = *state;
	struct catalogue_record record;
	int status;
	pid_t pid;
	ino_t database;

	/* A process opens it anew: LMDB's environments do not outlive fork. */
	catalogue_close(f->catalogue);
	f->catalogue = NULL;
	pid = fork();
	if (pid == 0) {
		open_it(f);
		for (unsigned number = 1000; number < 1100; number++)
			put(f, number, 0);
		catalogue_close(f->catalogue);
		_exit(f->aside ? 1 : 0);
	}
	open_it(f);
	assert_false(f->aside);
	database = database_of(f);
	for (unsigned number = 1; number < 100; number++)
		put(f, number, 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	for (unsigned number = 1; number < 100; number++) {
		assert_int_equal(find(f, number, &record), 0);
		assert_int_equal(find(f, 999 + number, &record), 0);
	}
	/* Whoever came second has joined in. */
	assert_int_equal(database_of(f), database);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_record_is_kept_and_found_by_its_stamp_alone,
						setup, teardown),
		cmocka_unit_test_setup_teardown(the_secret_is_the_databases, setup, teardown),
		cmocka_unit_test_setup_teardown(
			members_come_in_one_order_and_leave_with_their_record, setup, teardown),
		cmocka_unit_test_setup_teardown(members_are_found_by_whom_they_may_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_walk_meets_every_file_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_is_found_by_its_inode_whatever_its_stamp,
						setup, teardown),
		cmocka_unit_test_setup_teardown(digests_of_a_large_file_are_in_parts, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_record_is_amended_only_under_its_stamp, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_is_aborted_was_never_there, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_database_is_moved_aside, setup, teardown),
		cmocka_unit_test_setup_teardown(a_foreign_database_is_moved_aside, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_database_says_so_and_is_moved_aside, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_directory_that_cannot_be_made_is_an_error, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			a_directory_that_others_may_write_to_is_not_believed, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_database_that_was_closed_in_order_is_used_as_it_is, setup, teardown),
		cmocka_unit_test_setup_teardown(a_database_whose_user_was_killed_is_written_anew,
						setup, teardown),
		cmocka_unit_test_setup_teardown(two_processes_have_it_at_once, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
