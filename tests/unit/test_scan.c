/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_scan.c - what a scan leaves in the catalogue: a record for each file that is there, no other
 *
 * Skipped, with a word, where stamps are so coarse that files as young as these are not recorded.
 */
#include "helpers.h"

#include "foldfs/catalogue.h"
#include "foldfs/scan.h"

#include <ftw.h>

#define MAX_BYTES  (UINT64_C(64) << 20)
#define SAME_PAGES 3000u
#define OWN_PAGES  1000u

struct fixture {
	char directory[64];
	int root;
	struct catalogue *catalogue;
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
	char path[96];
	bool aside;

	assert_non_null(f);
	strcpy(f->directory, "/tmp/foldfs-scan-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(path, sizeof(path), "%s/state", f->directory);
	assert_int_equal(catalogue_open(path, MAX_BYTES, &aside, &f->catalogue), 0);
	snprintf(path, sizeof(path), "%s/source", f->directory);
	assert_int_equal(mkdir(path, 0700), 0);
	f->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->root >= 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	catalogue_close(f->catalogue);
	close(f->root);
	assert_int_equal(nftw(f->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
	free(f);
	return 0;
}

/* A file of SAME pages that all files have, and OWN ones that are its own. Its attributes. */
static struct stat make_file(struct fixture *f, const char *name, unsigned same, unsigned own)
{
	struct rng common = {.state = 1};
	struct rng rng = {.state = (uint64_t)name[0]};
	int fd = openat(f->root, name, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	uint64_t page[FOLD_PAGE_SIZE / sizeof(uint64_t)];
	struct stat st;

	assert_true(fd >= 0);
	for (unsigned i = 0; i < same + own; i++) {
		for (size_t word = 0; word < FOLD_PAGE_SIZE / sizeof(uint64_t); word++)
			page[word] = rng_next(i < same ? &common : &rng);
		assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	}
	assert_int_equal(fstat(fd, &st), 0);
	close(fd);
	return st;
}

static struct scan_result scan(struct fixture *f, uint64_t memory)
{
	const struct scan_options options = {.catalogue = f->catalogue, .memory = memory};
	struct scan_result result;
	struct scan *scan;

	assert_int_equal(scan_new(f->root, &options, &scan), 0);
	assert_int_equal(scan_run(scan, &result), 0);
	scan_free(scan);
	if (result.too_young) {
		print_message("stamps are too coarse here\n");
		skip();
	}
	return result;
}

static errint_t find(struct fixture *f, const struct stat *st, struct catalogue_record *ret_record)
{
	struct catalogue_member *file = malloc(sizeof(*file));
	errint_t error;

	assert_non_null(file);
	error = catalogue_get(f->catalogue, st->st_dev, st->st_ino, file, ret_record);
	free(file);
	return error;
}

static void what_is_gone_is_forgotten(void **state)
{
	struct fixture *f = *state;
	struct stat stays = make_file(f, "stays", 3, 2);
	struct stat gone = make_file(f, "gone", 3, 4);
	struct catalogue_record record;

	scan(f, SCAN_MEMORY_BYTES);
	assert_int_equal(find(f, &gone, &record), 0);
	assert_int_equal(find(f, &stays, &record), 0);
	assert_int_equal(record.pages, 5);
	assert_int_equal(record.pages_elsewhere, 3);
	assert_int_equal(unlinkat(f->root, "gone", 0), 0);
	scan(f, SCAN_MEMORY_BYTES);
	assert_int_equal(find(f, &gone, &record), -ENOENT);
	assert_int_equal(find(f, &stays, &record), 0);
	assert_int_equal(record.pages_elsewhere, 0);
}

static void shared_pages_are_estimated(void **state)
{
	struct fixture *f = *state;
	struct stat files[2] = {make_file(f, "a", SAME_PAGES, OWN_PAGES),
				make_file(f, "b", SAME_PAGES, OWN_PAGES)};
	struct scan_result result = scan(f, SCAN_MEMORY_MIN);
	struct catalogue_record record;

	assert_true(result.share < 1);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(find(f, &files[i], &record), 0);
		assert_int_equal(record.pages, SAME_PAGES + OWN_PAGES);
		assert_true(record.pages_error > 0 && record.pages_error < OWN_PAGES / 5);
		assert_in_range(record.pages_elsewhere, SAME_PAGES - 5 * record.pages_error,
				SAME_PAGES + 5 * record.pages_error);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_gone_is_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(shared_pages_are_estimated, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
