/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_catalogue.c - libFuzzer target: a damaged catalogue is moved aside, or does no harm
 *
 * The input is damage to the database of a small catalogue. Each item has four bytes: three for the
 * place, and one to be exclusive-ored there. Then the catalogue is opened and read in every way. A
 * catalogue is advice, so its content need not be right; but nothing may crash, hang, or be
 * returned that is no record. The catalogue is written as well: LMDB's own asserts would end the
 * process if a damaged catalogue were accepted.
 */
#include "foldfs/catalogue.h"
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES     60u
#define MAX_BYTES (1u << 20)
#define DAMAGES   64u

/* The catalogue's directory, below the working directory, and its database without damage. One
 * thread. */
static char directory[64];
static uint8_t *whole;
static size_t whole_size;

static const char *name_in(const char *name)
{
	static char path[96];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return path;
}

static void clean_up(void)
{
	static const char *const names[] = {"data.mdb", "data.mdb.aside", "data.mdb.new",
					    "lock.mdb", "open.lock",      "clean"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlink(name_in(names[i]));
	rmdir(directory);
}

static struct source_stamp stamp_of(unsigned file)
{
	return (struct source_stamp){.device = 1, .inode = file + 1, .size = 4096 * file};
}

static errint_t put(struct catalogue *catalogue, unsigned file)
{
	static uint64_t digests[700];
	struct catalogue_record record = {.pages = file, .class = file % 3};
	struct catalogue_member member = {.stamp = stamp_of(file)};
	const struct catalogue_object object = {.class = record.class, .stamp = member.stamp};
	struct catalogue_batch *batch;
	errint_t error = catalogue_begin(catalogue, &batch);

	if (error)
		return error;
	snprintf(member.path, sizeof(member.path), "directory/file-%u", file);
	error = catalogue_put(batch, &member, &record, digests, file % 7 * 100);
	if (!error && record.class)
		error = catalogue_put_object(batch, &object);
	if (error) {
		catalogue_abort(batch);
		return error;
	}
	return catalogue_commit(batch);
}

/* Make the catalogue that is to be damaged. Each batch leaves pages that are free again. */
static void make_whole(void)
{
	struct catalogue *catalogue;
	struct stat st;
	bool moved;
	int fd;

	strcpy(directory, "./catalogue.XXXXXX");
	expect(mkdtemp(directory) && atexit(clean_up) == 0);
	expect(catalogue_open(directory, MAX_BYTES, &moved, &catalogue) == 0 && !moved);
	for (unsigned file = 0; file < FILES; file++)
		expect(put(catalogue, file) == 0);
	catalogue_close(catalogue);
	fd = open(name_in("data.mdb"), O_RDONLY | O_CLOEXEC);
	expect(fd >= 0 && fstat(fd, &st) == 0);
	whole_size = (size_t)st.st_size;
	whole = malloc(whole_size);
	expect(whole && pread(fd, whole, whole_size, 0) == (ssize_t)whole_size);
	close(fd);
}

static void damage(const uint8_t *data, size_t size)
{
	int fd = open(name_in("data.mdb"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	expect(fd >= 0 && pwrite(fd, whole, whole_size, 0) == (ssize_t)whole_size);
	for (size_t i = 0; i + 4 <= size && i < 4 * DAMAGES; i += 4) {
		size_t at = (data[i] | data[i + 1] << 8 | data[i + 2] << 16) % whole_size;
		uint8_t byte = whole[at] ^ data[i + 3];

		expect(pwrite(fd, &byte, 1, (off_t)at) == 1);
	}
	close(fd);
	unlink(name_in("lock.mdb"));
}

static void expect_member(errint_t error, const struct catalogue_member *member)
{
	expect(error <= 0);
	if (!error)
		expect(memchr(member->path, '\0', sizeof(member->path)) != NULL);
}

static void read_all(struct catalogue *catalogue)
{
	static struct catalogue_member member;
	struct catalogue_record record;
	struct source_stamp after;
	struct catalogue_object object;
	uint64_t *digests;
	errint_t error;
	size_t count;

	for (unsigned file = 0; file < FILES; file++) {
		struct source_stamp stamp = stamp_of(file);

		expect(catalogue_find(catalogue, &stamp, &record) <= 0);
		error = catalogue_get(catalogue, stamp.device, stamp.inode, &member, &record);
		expect_member(error, &member);
		error = catalogue_digests(catalogue, &stamp, 0, &digests, &count);
		expect(error <= 0);
		if (!error)
			free(digests);
	}
	for (uint64_t class = 1; class < 3; class ++)
		expect(catalogue_object(catalogue, class, &object) <= 0);
	for (unsigned n = 0; n < 8; n++)
		expect_member(catalogue_member(catalogue, 1, WRITERS_UNKNOWN, n, &member), &member);
	object.class = 0;
	for (unsigned n = 0; n < FILES && !catalogue_next_object(catalogue, object.class, &object);
	     n++)
		;
	for (uint64_t class = 1; class < 3; class ++)
		for (unsigned n = 0; n < FILES; n++)
			expect_member(catalogue_any_member(catalogue, class, n, &member), &member);
	error = catalogue_next(catalogue, NULL, &member, &record);
	for (unsigned files = 0; !error && files < 2 * FILES; files++) {
		expect_member(error, &member);
		after = member.stamp;
		error = catalogue_next(catalogue, &after, &member, &record);
	}
	expect(error < 0);
}

static void write_some(struct catalogue *catalogue)
{
	struct catalogue_batch *batch;
	uint64_t class;

	for (unsigned file = FILES / 2; file < FILES + 5; file++)
		expect(put(catalogue, file) <= 0);
	if (catalogue_begin(catalogue, &batch))
		return;
	expect(catalogue_new_class(batch, &class) <= 0);
	if (catalogue_remove(batch, 1, 3))
		catalogue_abort(batch);
	else
		expect(catalogue_commit(batch) <= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct catalogue *catalogue;
	bool moved;

	if (!whole)
		make_whole();
	damage(data, size);
	if (catalogue_open(directory, MAX_BYTES, &moved, &catalogue))
		return 0;
	expect(size >= 4 || !moved); /* what is sound stays */
	read_all(catalogue);
	write_some(catalogue);
	catalogue_close(catalogue);
	return 0;
}
