/* SPDX-License-Identifier: Apache-2.0 */
/* test_trusted_path.c - which directories are believed, by who could put something in
 * their place */
#include "helpers.h"
#include "scratch.h"

#include "foldfs/trusted_path.h"

#include <ftw.h>

#define STRANGER 70001u

struct fixture {
	char directory[64];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_true(scratch_name(f->directory, "trusted", SCRATCH_ANY));
	assert_non_null(mkdtemp(f->directory));
	assert_int_equal(chdir(f->directory), 0);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(chdir("/"), 0);
	assert_int_equal(nftw(f->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
	free(f);
	return 0;
}

/* 0, or what it fails with. */
static errint_t open_path(const char *path, bool make)
{
	int fd = trusted_path_open(path, geteuid(), make, 0700);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	return st.st_mode & 07777;
}

static void what_is_missing_is_made(void **state)
{
	struct fixture *f = *state;
	char path[128];

	assert_int_equal(open_path("a/b/c", false), -ENOENT);
	assert_int_equal(open_path("a//./b/c/", true), 0);
	assert_int_equal(mode_of("a"), 0755);
	assert_int_equal(mode_of("a/b"), 0755);
	assert_int_equal(mode_of("a/b/c"), 0700);
	assert_int_equal(open_path("a/b/../b/c", false), 0);
	snprintf(path, sizeof(path), "%s/a/b", f->directory);
	assert_int_equal(open_path(path, false), 0);
	close(creat("file", 0600));
	assert_int_equal(open_path("file", true), -ENOTDIR);
	assert_int_equal(open_path("file/below", true), -ENOTDIR);
}

static void what_others_may_write_to_is_refused(void **state)
{
	static const mode_t bad[] = {0777, 0770, 0702, 0720};

	(void)state;
	assert_int_equal(open_path("a/b/c", true), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(chmod("a/b/c", bad[i]), 0);
		assert_int_equal(open_path("a/b/c", false), -EPERM);
		assert_int_equal(chmod("a/b/c", 0700), 0);
		assert_int_equal(chmod("a", bad[i]), 0);
		assert_int_equal(open_path("a/b/c", true), -EPERM);
		assert_int_equal(chmod("a", 0755), 0);
	}
	/* Where nobody can rename what is another's, but they could put something in. */
	assert_int_equal(chmod("a", 01777), 0);
	assert_int_equal(open_path("a/b/c", false), 0);
	assert_int_equal(open_path("a", false), -EPERM);
}

static void what_is_anothers_is_refused(void **state)
{
	(void)state;
	if (geteuid())
		skip();
	assert_int_equal(open_path("a/b", true), 0);
	assert_int_equal(chown("a", STRANGER, STRANGER), 0);
	assert_int_equal(open_path("a/b", true), -EPERM);
	assert_int_equal(trusted_path_open("a/b", STRANGER + 1, false, 0), -EPERM);
	close(trusted_path_open("a/b", STRANGER, false, 0));
	assert_int_equal(chown("a", 0, 0), 0);
	/* A link that a stranger has put into a directory for all. */
	assert_int_equal(mkdir("all", 0777), 0);
	assert_int_equal(chmod("all", 01777), 0);
	assert_int_equal(symlink("../a/b", "all/link"), 0);
	assert_int_equal(open_path("all/link", false), 0);
	assert_int_equal(lchown("all/link", STRANGER, STRANGER), 0);
	assert_int_equal(open_path("all/link", false), -EPERM);
}

static void symbolic_links_lead_on(void **state)
{
	struct fixture *f = *state;
	char target[128];

	assert_int_equal(open_path("a/b/c", true), 0);
	assert_int_equal(symlink("a/b", "relative"), 0);
	assert_int_equal(open_path("relative/c", false), 0);
	assert_int_equal(open_path("relative/d", true), 0);
	assert_int_equal(mode_of("a/b/d"), 0700);
	snprintf(target, sizeof(target), "%s/a", f->directory);
	assert_int_equal(symlink(target, "absolute"), 0);
	assert_int_equal(open_path("absolute/b/c", false), 0);
	assert_int_equal(chmod("a", 0777), 0);
	assert_int_equal(open_path("relative/c", false), -EPERM);
	assert_int_equal(open_path("absolute/b/c", false), -EPERM);
	assert_int_equal(symlink("round", "round"), 0);
	assert_int_equal(open_path("round", true), -ELOOP);
}

static void too_long_a_path_is_an_error(void **state)
{
	char path[5000];

	(void)state;
	memset(path, 'n', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(open_path(path, true), -ENAMETOOLONG);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FIXTURE(what_is_missing_is_made),
		WITH_FIXTURE(what_others_may_write_to_is_refused),
		WITH_FIXTURE(what_is_anothers_is_refused),
		WITH_FIXTURE(symbolic_links_lead_on),
		WITH_FIXTURE(too_long_a_path_is_an_error),
	};

	umask(022);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
