/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_scan.c - what a scan leaves in the catalogue: a record for each file that is there, no other
 *
 * Skipped, with a word, where stamps are so coarse that files as young as these are not recorded.
 */
#include "faults.h"
#include "helpers.h"
#include "scratch.h"

#include "foldfs/catalogue.h"
#include "foldfs/scan.h"

#include <ftw.h>

#define MAX_BYTES (UINT64_C(64) << 20)
/* A few pages of LMDB beside its tables. */
#define SMALL_BYTES (UINT64_C(96) << 10)
#define SAME_PAGES  3000u
#define OWN_PAGES   1000u

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
	assert_true(scratch_name(f->directory, "scan", SCRATCH_STAMPS));
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

/* Where a file is touched: before the READS-th read of its first page. */
struct touch {
	struct fixture *f;
	const char *name;
	ino_t inode;
	unsigned reads;
	atomic_uint met;
};

static ssize_t touch_at(void *context, const struct io_call *call)
{
	struct touch *touch = context;
	struct stat st;

	if (call->write || call->offset || fstat(call->fd, &st) || st.st_ino != touch->inode)
		return IO_AS_ASKED;
	if (atomic_fetch_add(&touch->met, 1) + 1 == touch->reads)
		expect(!utimensat(touch->f->root, touch->name, NULL, 0));
	return IO_AS_ASKED;
}

/* Files are read once for their digests and once more to be compared: what has another stamp at the
 * end of that has no class, whatever its bytes. The next scan compares it again. */
static void a_stamp_that_moves_while_files_are_compared_makes_no_class(void **state)
{
	struct fixture *f = *state;
	struct stat files[2] = {make_file(f, "a", 40, 0), make_file(f, "b", 40, 0)};
	struct catalogue_record record;

	for (unsigned i = 0; i < 2; i++) {
		struct touch touch = {
			.f = f, .name = i ? "b" : "a", .inode = files[i].st_ino, .reads = 2};
		struct scan_result result;

		/* The second round begins with files that were read before. */
		if (i)
			touch.reads = 1;
		faults_hook_io(touch_at, &touch);
		result = scan(f, SCAN_MEMORY_BYTES);
		faults_hook_io(NULL, NULL);
		assert_true(atomic_load(&touch.met) >= touch.reads);
		assert_true(result.complete);
		assert_int_equal(result.class_files, 0);
		for (unsigned file = 0; file < 2; file++) {
			assert_int_equal(find(f, &files[file], &record), 0);
			assert_int_equal(record.class, 0);
		}
	}
	assert_int_equal(scan(f, SCAN_MEMORY_BYTES).class_files, 2);
	for (unsigned file = 0; file < 2; file++) {
		assert_int_equal(find(f, &files[file], &record), 0);
		assert_true(record.class != 0);
	}
}

static void give(struct fixture *f, const char *name, uid_t user, mode_t mode)
{
	assert_int_equal(fchownat(f->root, name, user, user, 0), 0);
	assert_int_equal(fchmodat(f->root, name, mode, 0), 0);
}

static void need_root(void)
{
	if (geteuid() == 0)
		return;
	print_message("only root can give files away\n");
	skip();
}

static uint64_t class_of(struct fixture *f, const struct stat *st)
{
	struct catalogue_record record;

	assert_int_equal(find(f, st, &record), 0);
	return record.class;
}

/* 0: of none. */
static uint64_t family_of(struct fixture *f, const struct stat *st)
{
	struct catalogue_member *file = malloc(sizeof(*file));
	struct catalogue_record record;
	struct catalogue_run *runs = NULL;
	uint64_t family = 0;
	size_t count;

	assert_non_null(file);
	assert_int_equal(catalogue_get(f->catalogue, st->st_dev, st->st_ino, file, &record), 0);
	if (!catalogue_runs(f->catalogue, &file->stamp, &family, &runs, &count))
		free(runs);
	free(file);
	return family;
}

/* Two of one user, two of another, and two that anybody may write to. */
#define OWNED 6u
static const char *const owned[OWNED] = {"a1", "a2", "b1", "b2", "c1", "c2"};

static void make_owned(struct fixture *f, unsigned own, struct stat files[OWNED])
{
	for (unsigned i = 0; i < OWNED; i++) {
		files[i] = make_file(f, owned[i], 200, own);
		give(f, owned[i], 70001 + i / 2, i < 4 ? 0600 : 0666);
	}
}

/* Equal files are of one class if each was compared with one that may speak for it. */
static void who_may_write_to_equal_files_makes_their_classes(void **state)
{
	struct fixture *f = *state;
	struct stat files[OWNED];
	struct stat root;

	need_root();
	make_owned(f, 0, files);
	scan(f, SCAN_MEMORY_BYTES);
	assert_true(class_of(f, &files[0]) != 0);
	assert_int_equal(class_of(f, &files[1]), class_of(f, &files[0]));
	assert_true(class_of(f, &files[2]) != 0);
	assert_int_equal(class_of(f, &files[3]), class_of(f, &files[2]));
	assert_true(class_of(f, &files[2]) != class_of(f, &files[0]));
	assert_int_equal(class_of(f, &files[4]), 0);
	assert_int_equal(class_of(f, &files[5]), 0);
	/* A trusted one is what all are compared with. */
	root = make_file(f, "z", 200, 0);
	scan(f, SCAN_MEMORY_BYTES);
	assert_true(class_of(f, &root) != 0);
	for (unsigned i = 0; i < OWNED; i++)
		assert_int_equal(class_of(f, &files[i]), class_of(f, &root));
}

/* The same of pages. */
static void who_may_write_to_files_makes_their_families(void **state)
{
	struct fixture *f = *state;
	struct stat files[OWNED];
	struct stat root;

	need_root();
	make_owned(f, 10, files);
	scan(f, SCAN_MEMORY_BYTES);
	assert_true(family_of(f, &files[0]) != 0);
	assert_int_equal(family_of(f, &files[1]), family_of(f, &files[0]));
	assert_true(family_of(f, &files[2]) != 0);
	assert_int_equal(family_of(f, &files[3]), family_of(f, &files[2]));
	assert_true(family_of(f, &files[2]) != family_of(f, &files[0]));
	assert_int_equal(family_of(f, &files[4]), 0);
	assert_int_equal(family_of(f, &files[5]), 0);
	root = make_file(f, "z", 200, 10);
	scan(f, SCAN_MEMORY_BYTES);
	assert_true(family_of(f, &root) != 0);
	assert_int_equal(family_of(f, &files[4]), family_of(f, &root));
	assert_int_equal(family_of(f, &files[5]), family_of(f, &root));
	assert_true(family_of(f, &files[0]) != family_of(f, &root));
}

/* The scan goes on, counts all, and says why not all of it is kept; what was kept holds. */
static void a_full_catalogue_ends_no_scan(void **state)
{
	struct fixture *f = *state;
	struct catalogue_record record;
	struct scan_result result;
	char path[96];
	char name[] = "a";
	unsigned kept = 0;
	unsigned long long inodes[26];
	bool aside;
	dev_t device = 0;

	catalogue_close(f->catalogue);
	snprintf(path, sizeof(path), "%s/small", f->directory);
	assert_int_equal(catalogue_open(path, SMALL_BYTES, &aside, &f->catalogue), 0);
	for (unsigned i = 0; i < 26; i++, name[0]++) {
		struct stat st = make_file(f, name, 0, 600);

		inodes[i] = st.st_ino;
		device = st.st_dev;
	}
	result = scan(f, SCAN_MEMORY_BYTES);
	assert_true(result.complete);
	assert_int_equal(result.catalogue_error, -ENOSPC);
	assert_int_equal(result.files, 26);
	assert_int_equal(result.data_pages, 26 * 600);
	assert_true(result.unique_pages == 26 * 600.0);
	for (unsigned i = 0; i < 26; i++) {
		struct stat st = {.st_dev = device, .st_ino = inodes[i]};

		if (find(f, &st, &record))
			continue;
		assert_int_equal(record.pages, 600);
		kept++;
	}
	assert_true(kept < 26);
}

static void stamps_prove_nothing_here(void **state)
{
	(void)state;
	skip();
}

int main(void)
{
	static const struct CMUnitTest none[] = {cmocka_unit_test(stamps_prove_nothing_here)};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_stamp_that_moves_while_files_are_compared_makes_no_class, setup,
			teardown),
		cmocka_unit_test_setup_teardown(a_full_catalogue_ends_no_scan, setup, teardown),
		cmocka_unit_test_setup_teardown(who_may_write_to_equal_files_makes_their_classes,
						setup, teardown),
		cmocka_unit_test_setup_teardown(who_may_write_to_files_makes_their_families, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_is_gone_is_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(shared_pages_are_estimated, setup, teardown),
	};

	/* Scans take stamps for proof on local file systems with a disk alone. */
	if (!scratch_place(SCRATCH_STAMPS))
		return cmocka_run_group_tests(none, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
