/* SPDX-License-Identifier: Apache-2.0 */
/* test_writers.c - who may write to a file, and whose word counts for whose */
#include "helpers.h"
#include "scratch.h"

#include "foldfs/writers.h"

#include <sys/xattr.h>

#define USER  70001u
#define GROUP 70002u

#define OWNER_ALONE ((uint64_t)USER << 32)
#define WITH_GROUP  (OWNER_ALONE | (GROUP + 1))

/* An ACL of what the mode 0664 says, and a user that may write. */
static const uint8_t acl[] = {
	2,   0,   0,   0,                /* version */
	1,   0,   6,   0,                /* the owner */
	255, 255, 255, 255, 2,  0, 6, 0, /* a user */
	113, 17,  1,   0,   4,  0, 6, 0, /* the group */
	255, 255, 255, 255, 16, 0, 6, 0, /* the mask */
	255, 255, 255, 255, 32, 0, 4, 0, /* others */
	255, 255, 255, 255,
};

struct subject {
	char path[64];
	int fd;
	struct writers_view view;
};

static int setup(void **state)
{
	struct subject *subject = calloc(1, sizeof(*subject));

	assert_non_null(subject);
	assert_true(scratch_name(subject->path, "writers", SCRATCH_ANY));
	subject->fd = mkstemp(subject->path);
	assert_true(subject->fd >= 0);
	assert_int_equal(writers_view_of(subject->fd, &subject->view), 0);
	*state = subject;
	return 0;
}

static int teardown(void **state)
{
	struct subject *subject = *state;

	close(subject->fd);
	unlink(subject->path);
	free(subject);
	return 0;
}

static uint64_t writers(const struct subject *subject)
{
	struct stat st;

	assert_int_equal(fstat(subject->fd, &st), 0);
	return writers_of(&subject->view, subject->fd, &st);
}

static void need_root(void)
{
	if (geteuid() == 0)
		return;
	print_message("only root can give files away\n");
	skip();
}

static uint64_t writers_with(const struct subject *subject, uid_t user, mode_t mode)
{
	assert_int_equal(fchown(subject->fd, user, GROUP), 0);
	assert_int_equal(fchmod(subject->fd, mode), 0);
	return writers(subject);
}

static void owner_and_mode_say_who_may_write(void **state)
{
	struct subject *subject = *state;
	struct stat st;

	need_root();
	assert_int_equal(writers_with(subject, 0, 0644), WRITERS_TRUSTED);
	assert_int_equal(writers_with(subject, 0, 06755), WRITERS_TRUSTED);
	assert_int_equal(writers_with(subject, 0, 0664), GROUP + 1);
	assert_int_equal(writers_with(subject, 0, 0666), WRITERS_UNKNOWN);
	assert_int_equal(writers_with(subject, 0, 0602), WRITERS_UNKNOWN);
	assert_int_equal(writers_with(subject, USER, 0644), OWNER_ALONE);
	assert_int_equal(writers_with(subject, USER, 0400), OWNER_ALONE);
	assert_int_equal(writers_with(subject, USER, 0660), WITH_GROUP);
	assert_int_equal(writers_with(subject, USER, 0662), WRITERS_UNKNOWN);
	assert_int_equal(writers_with(subject, 65534, 0644), WRITERS_UNKNOWN);
	/* The daemon's own user is as good as root to it. */
	subject->view.user = USER;
	assert_int_equal(writers_with(subject, USER, 0644), WRITERS_TRUSTED);
	assert_int_equal(writers_with(subject, USER, 0660), WITH_GROUP);
	assert_int_equal(writers_with(subject, 0, 0600), WRITERS_TRUSTED);
	/* On another device an owner is what the one who mounted it says. */
	assert_int_equal(fstat(subject->fd, &st), 0);
	st.st_dev++;
	assert_int_equal(writers_of(&subject->view, subject->fd, &st), WRITERS_UNKNOWN);
}

/* An ACL counts where the mode, its mask, lets it give a right; and where it may take one. */
static void an_acl_may_name_anybody(void **state)
{
	struct subject *subject = *state;
	struct stat st;

	need_root();
	assert_int_equal(writers_with(subject, USER, 0664), WITH_GROUP);
	assert_int_equal(fstat(subject->fd, &st), 0);
	assert_true(writers_all_may_read(subject->fd, &st));
	if (fsetxattr(subject->fd, "system.posix_acl_access", acl, sizeof(acl), 0)) {
		print_message("no ACLs here\n");
		skip();
	}
	assert_int_equal(writers(subject), WRITERS_UNKNOWN);
	assert_int_equal(writers_with(subject, USER, 0644), OWNER_ALONE);
	assert_int_equal(writers_with(subject, 0, 0644), WRITERS_TRUSTED);
	assert_int_equal(fstat(subject->fd, &st), 0);
	assert_false(writers_all_may_read(subject->fd, &st));
}

static void all_is_everybody(void **state)
{
	struct subject *subject = *state;
	struct stat st;

	assert_int_equal(fstat(subject->fd, &st), 0);
	for (unsigned mode = 0; mode < 01000; mode++) {
		st.st_mode = S_IFREG | mode;
		assert_int_equal(writers_all_may_read(subject->fd, &st), (mode & 0444) == 0444);
		assert_int_equal(writers_all_may_pass(subject->fd, &st), (mode & 0111) == 0111);
	}
}

static void who_may_speak_for_whom(void **state)
{
	static const uint64_t all[] = {WRITERS_TRUSTED, OWNER_ALONE, WITH_GROUP,
				       OWNER_ALONE + (UINT64_C(1) << 32), WRITERS_UNKNOWN};

	(void)state;
	for (unsigned speaker = 0; speaker < 5; speaker++)
		for (unsigned listener = 0; listener < 5; listener++)
			assert_int_equal(writers_may_speak(all[speaker], all[listener]),
					 speaker == 0 || (speaker == listener && speaker != 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(owner_and_mode_say_who_may_write, setup, teardown),
		cmocka_unit_test_setup_teardown(an_acl_may_name_anybody, setup, teardown),
		cmocka_unit_test_setup_teardown(all_is_everybody, setup, teardown),
		cmocka_unit_test(who_may_speak_for_whom),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
