/* SPDX-License-Identifier: Apache-2.0 */
/* test_shared_copies.c - copies of whole contents: made whole, or not at all */
#include "helpers.h"
#include "scratch.h"

#include "foldfs/content.h"
#include "foldfs/shared_copies.h"

#include <ftw.h>

#define MAX_BYTES (UINT64_C(4) << 20)
#define CONTENT   "what equal files hold"

struct fixture {
	char directory[64];
	char below[96];
	char path[96]; /* of a file with CONTENT */
	struct catalogue *catalogue;
	struct shared_copies *copies;
	struct source_stamp stamp; /* of the file */
	struct digest content;     /* the same */
	int fd;                    /* the same, for reading */
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void begin_objects(struct fixture *f)
{
	assert_int_equal(shared_copies_new(f->below, f->catalogue, &f->copies), 0);
}

/* Nobody has it open afterwards. */
static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, text, strlen(text), 0), (ssize_t)strlen(text));
	close(fd);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct stat st;
	bool aside;

	assert_non_null(f);
	assert_true(scratch_name(f->directory, "objects", SCRATCH_ANY));
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->below, sizeof(f->below), "%s/catalogue", f->directory);
	assert_int_equal(catalogue_open(f->below, MAX_BYTES, &aside, &f->catalogue), 0);
	snprintf(f->path, sizeof(f->path), "%s/file", f->directory);
	write_file(f->path, CONTENT);
	f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(fstat(f->fd, &st), 0);
	source_stamp_of(&st, &f->stamp);
	assert_int_equal(content_compare(f->fd, -1, strlen(CONTENT), catalogue_secret(f->catalogue),
					 NULL, NULL, &f->content),
			 0);
	snprintf(f->below, sizeof(f->below), "%s/objects", f->directory);
	begin_objects(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	shared_copies_free(f->copies);
	catalogue_close(f->catalogue);
	close(f->fd);
	assert_int_equal(nftw(f->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
	free(f);
	return 0;
}

static struct catalogue_record record_of(const struct fixture *f, uint64_t class)
{
	return (struct catalogue_record){.content = f->content, .class = class};
}

/* For a file of WRITERS. -ENOENT as long as there is none. Skips the test where the view cannot be
 * made. */
static int open_object_for(struct fixture *f, uint64_t class, uint64_t writers)
{
	const struct catalogue_record record = record_of(f, class);
	int fd = shared_copies_open(f->copies, &record, writers);

	if (fd == -ENOSYS) {
		print_message("no read-only view can be made here\n");
		skip();
	}
	return fd;
}

static int open_object(struct fixture *f, uint64_t class)
{
	return open_object_for(f, class, WRITERS_TRUSTED);
}

/* Of the file, as if it were one of WRITERS. */
static void make_object_of(struct fixture *f, uint64_t class, uint64_t writers)
{
	const struct catalogue_record record = record_of(f, class);
	const struct shared_copies_source source = {
		.fd = f->fd, .stamp = f->stamp, .writers = writers};

	shared_copies_make(f->copies, &record, &source);
}

static void make_object(struct fixture *f, uint64_t class, const struct source_stamp *stamp)
{
	const struct catalogue_record record = record_of(f, class);
	const struct shared_copies_source source = {.fd = f->fd, .stamp = *stamp};

	shared_copies_make(f->copies, &record, &source);
}

static int wait_for_object(struct fixture *f, uint64_t class)
{
	int fd;

	wait_for((fd = open_object(f, class)) >= 0);
	return fd;
}

static void object_has_the_content_and_takes_no_write(void **state)
{
	struct fixture *f = *state;
	char bytes[64] = "";
	char path[32];
	int fd;

	assert_int_equal(open_object(f, 1), -ENOENT);
	make_object(f, 1, &f->stamp);
	fd = wait_for_object(f, 1);
	assert_int_equal(read(fd, bytes, sizeof(bytes)), (ssize_t)strlen(CONTENT));
	assert_string_equal(bytes, CONTENT);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_int_equal(open(path, O_RDWR), -1);
	assert_int_equal(errno, EROFS);
	/* The file may go on changing: the copy is nobody's. */
	write_file(f->path, "WHAT");
	assert_int_equal(pread(fd, bytes, sizeof(bytes), 0), (ssize_t)strlen(CONTENT));
	assert_string_equal(bytes, CONTENT);
	close(fd);
}

/* Wishes are met in order: when the second is, the first has been. */
static void file_that_has_changed_makes_none(void **state)
{
	struct fixture *f = *state;
	struct source_stamp old = f->stamp;
	struct source_stamp larger = f->stamp;

	if (open_object(f, 1) >= 0)
		fail();
	old.mtime.tv_nsec ^= 1;
	larger.size++;
	make_object(f, 1, &old);
	make_object(f, 2, &larger);
	make_object(f, 3, &f->stamp);
	close(wait_for_object(f, 3));
	assert_int_equal(open_object(f, 1), -ENOENT);
	assert_int_equal(open_object(f, 2), -ENOENT);
}

/* The path of the object of class 1, which is made. */
static void make_and_find(struct fixture *f, char path[PATH_MAX])
{
	char link[PATH_MAX];
	ssize_t length;
	int fd;

	if (open_object(f, 1) >= 0)
		fail();
	make_object(f, 1, &f->stamp);
	fd = wait_for_object(f, 1);
	snprintf(path, PATH_MAX, "/proc/self/fd/%d", fd);
	length = readlink(path, link, sizeof(link) - 1);
	assert_true(length > 0);
	link[length] = '\0';
	close(fd);
	/* Its path is of the view; the directory that it shows has it by the same name. */
	snprintf(path, PATH_MAX, "%s%s", f->below, strrchr(link, '/'));
}

/* It is never served again, but made anew: as each open asks for it; the first making may not have
 * come to its end. */
static void expect_made_anew(struct fixture *f)
{
	char bytes[64] = "";
	int fd;

	assert_int_equal(open_object(f, 1), -ENOENT);
	wait_for((make_object(f, 1, &f->stamp), (fd = open_object(f, 1)) >= 0));
	assert_int_equal(read(fd, bytes, sizeof(bytes)), (ssize_t)strlen(CONTENT));
	assert_string_equal(bytes, CONTENT);
	close(fd);
}

static void object_of_another_size_is_made_anew(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX];

	make_and_find(f, path);
	assert_int_equal(truncate(path, 4), 0);
	expect_made_anew(f);
}

/* Whatever is done to hide it. */
static void object_with_another_byte_is_made_anew(void **state)
{
	struct fixture *f = *state;
	struct timespec times[2];
	char path[PATH_MAX];
	struct stat st;
	int fd;

	make_and_find(f, path);
	assert_int_equal(stat(path, &st), 0);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "W", 1, 0), 1);
	assert_int_equal(futimens(fd, times), 0);
	close(fd);
	expect_made_anew(f);
}

/* One that has its name and of which nothing was told, as after a crash between the two. */
static void object_that_was_not_told_of_is_made_anew(void **state)
{
	struct fixture *f = *state;
	struct catalogue_batch *batch;
	char path[PATH_MAX];

	make_and_find(f, path);
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_remove_object(batch, 1), 0);
	assert_int_equal(catalogue_commit(batch), 0);
	expect_made_anew(f);
}

/* An object of a class that the catalogue does not have is removed at the start. */
static void unknown_objects_are_removed(void **state)
{
	struct fixture *f = *state;

	if (open_object(f, 1) >= 0)
		fail();
	make_object(f, 1, &f->stamp);
	close(wait_for_object(f, 1));
	shared_copies_free(f->copies);
	begin_objects(f);
	assert_int_equal(open_object(f, 1), -ENOENT);
}

/* Whatever its stamp says: a copy that is not what the class holds gets no name. */
static void file_that_does_not_hold_what_its_class_does_makes_none(void **state)
{
	struct fixture *f = *state;
	struct digest right = f->content;

	if (open_object(f, 1) >= 0)
		fail();
	f->content.low ^= 1;
	make_object(f, 1, &f->stamp);
	f->content = right;
	make_object(f, 2, &f->stamp);
	close(wait_for_object(f, 2));
	f->content.low ^= 1;
	assert_int_equal(open_object(f, 1), -ENOENT);
}

static void file_that_is_open_for_writing_makes_none(void **state)
{
	struct fixture *f = *state;
	int fd = open(f->path, O_WRONLY | O_CLOEXEC);

	if (open_object(f, 1) >= 0)
		fail();
	make_object(f, 1, &f->stamp);
	/* The maker is at it only while it is a wish: as soon as another one is made, it
	 * was tried. */
	make_object(f, 2, &f->stamp);
	shared_copies_free(f->copies);
	close(fd);
	begin_objects(f);
	assert_int_equal(open_object(f, 1), -ENOENT);
	make_object(f, 1, &f->stamp);
	close(wait_for_object(f, 1));
}

#define SOMEBODY (UINT64_C(70001) << 32)
#define ANOTHER  (UINT64_C(70002) << 32)

/* Whose word the copy is decides whom it serves; a trusted one takes its place, and keeps it. */
static void object_serves_those_for_whom_it_may_speak(void **state)
{
	struct fixture *f = *state;
	struct catalogue_object object;
	int fd;

	if (open_object(f, 1) >= 0)
		fail();
	make_object_of(f, 1, SOMEBODY);
	wait_for((fd = open_object_for(f, 1, SOMEBODY)) >= 0);
	close(fd);
	assert_int_equal(open_object_for(f, 1, ANOTHER), -EPERM);
	assert_int_equal(open_object_for(f, 1, WRITERS_UNKNOWN), -EPERM);
	assert_int_equal(open_object(f, 1), -EPERM);
	make_object_of(f, 1, ANOTHER);
	make_object_of(f, 2, ANOTHER);
	wait_for((fd = open_object_for(f, 2, ANOTHER)) >= 0);
	close(fd);
	assert_int_equal(open_object_for(f, 1, ANOTHER), -EPERM);
	make_object_of(f, 1, WRITERS_TRUSTED);
	close(wait_for_object(f, 1));
	make_object_of(f, 1, SOMEBODY);
	make_object_of(f, 3, SOMEBODY);
	wait_for((fd = open_object_for(f, 3, SOMEBODY)) >= 0);
	close(fd);
	assert_int_equal(catalogue_object(f->catalogue, 1, &object), 0);
	assert_int_equal(object.writers, WRITERS_TRUSTED);
	close(open_object_for(f, 1, SOMEBODY));
}

static void put_member(struct fixture *f, uint64_t class, ino_t inode)
{
	struct catalogue_member member = {.stamp = f->stamp, .path = "file"};
	struct catalogue_record record = record_of(f, class);
	struct catalogue_batch *batch;

	member.stamp.inode = inode;
	assert_int_equal(catalogue_begin(f->catalogue, &batch), 0);
	assert_int_equal(catalogue_put(batch, &member, &record, NULL, 0), 0);
	assert_int_equal(catalogue_commit(batch), 0);
}

static void go(struct fixture *f, ino_t inode, int later)
{
	struct source_stamp stamp = f->stamp;

	stamp.inode = inode;
	stamp.ctime.tv_sec += later;
	shared_copies_member_gone(f->copies, &stamp);
}

/* With the last member of its class the object goes, and not before; others stay. */
static void object_goes_with_the_last_member(void **state)
{
	struct fixture *f = *state;
	uint64_t count;
	uint64_t bytes;

	if (open_object(f, 1) >= 0)
		fail();
	for (ino_t inode = 1; inode <= 2; inode++) {
		put_member(f, 1, inode);
		put_member(f, 2, inode + 2);
	}
	for (uint64_t class = 1; class <= 2; class ++) {
		make_object(f, class, &f->stamp);
		close(wait_for_object(f, class));
	}
	catalogue_count_objects(f->catalogue, &count, &bytes);
	assert_int_equal(count, 2);
	assert_int_equal(bytes, 2 * strlen(CONTENT));
	/* Those that are gone are looked at last come first. One had the numbers that a member has
	 * now, which is another file. */
	go(f, 1, 0);
	go(f, 2, -1);
	go(f, 3, 0);
	go(f, 4, 0);
	wait_for(open_object(f, 2) == -ENOENT);
	close(wait_for_object(f, 1));
	wait_for((catalogue_count_objects(f->catalogue, &count, &bytes), count == 1));
	go(f, 2, 0);
	wait_for(open_object(f, 1) == -ENOENT);
	wait_for((catalogue_count_objects(f->catalogue, &count, &bytes), count == 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(object_has_the_content_and_takes_no_write, setup,
						teardown),
		cmocka_unit_test_setup_teardown(file_that_has_changed_makes_none, setup, teardown),
		cmocka_unit_test_setup_teardown(object_of_another_size_is_made_anew, setup,
						teardown),
		cmocka_unit_test_setup_teardown(object_with_another_byte_is_made_anew, setup,
						teardown),
		cmocka_unit_test_setup_teardown(object_that_was_not_told_of_is_made_anew, setup,
						teardown),
		cmocka_unit_test_setup_teardown(unknown_objects_are_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(
			file_that_does_not_hold_what_its_class_does_makes_none, setup, teardown),
		cmocka_unit_test_setup_teardown(file_that_is_open_for_writing_makes_none, setup,
						teardown),
		cmocka_unit_test_setup_teardown(object_serves_those_for_whom_it_may_speak, setup,
						teardown),
		cmocka_unit_test_setup_teardown(object_goes_with_the_last_member, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
