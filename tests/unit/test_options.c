/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: every word is ours, libfuse's, somebody else's, or refused by name. */
#include "daemon/options_parse.h"

#include "foldfs/human.h"
#include "foldfs/memory_limit.h"
#include "foldfs/page_store.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmocka.h>

#define GIB (1ull << 30)

/* Parse a command line of words, what is said on stderr into SAID. */
static errint_t parse(const char *const words[], struct options *options, char *said, size_t size)
{
	char *argv[32];
	int argc = 0, saved = dup(STDERR_FILENO), pipe_ends[2];
	ssize_t got;
	errint_t error;

	argv[argc++] = strdup("foldfs");
	for (; *words; words++)
		argv[argc++] = strdup(*words);
	argv[argc] = NULL;
	assert_int_equal(pipe(pipe_ends), 0);
	fflush(stderr);
	dup2(pipe_ends[1], STDERR_FILENO);
	close(pipe_ends[1]);
	error = options_parse(argc, argv, options);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	got = read(pipe_ends[0], said, size - 1);
	close(pipe_ends[0]);
	said[got > 0 ? got : 0] = '\0';
	while (argc > 0)
		free(argv[--argc]);
	return error;
}

#define PARSE(options, said, ...)                                                                  \
	parse((const char *const[]){__VA_ARGS__, NULL}, options, said, sizeof(said))

/* Everything that goes to libfuse, with spaces between. */
static void joined(const struct options *options, char *text, size_t size)
{
	size_t length = 0;

	text[0] = '\0';
	for (int i = 1; i < options->fuse.argc; i++)
		length += (size_t)snprintf(text + length, size - length, "%s ",
					   options->fuse.argv[i]);
	assert_true(length < size);
}

/* WORD stands in LIST between commas, spaces or its ends. */
static bool has_word(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (const char *p = strstr(list, word); p; p = strstr(p + 1, word))
		if ((p == list || strchr(", ", p[-1]) ||
		     (p - list >= 2 && strncmp(p - 2, "-o", 2) == 0)) &&
		    (p[length] == '\0' || strchr(", ", p[length])))
			return true;
	return false;
}

static void sizes_are_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{"0", 0},
		{"4096", 4096},
		{"1K", 1024},
		{"1k", 1024},
		{"3M", 3ull << 20},
		{"2G", 2 * GIB},
		{"5T", 5ull << 40},
		{"007", 7},
		{"18446744073709551615", UINT64_MAX},
		{"16777215T", 16777215ull << 40},
		{"0%", 0},
		{"50%", 8 * GIB},
		{"100%", 16 * GIB},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 1;

		assert_int_equal(human_parse_size(cases[i].text, 16 * GIB, &bytes), 0);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void nonsense_sizes_are_refused(void **state)
{
	static const char *const invalid[] = {"",    " 1",  "1 ",   "-1",   "+1",   "K",
					      "%",   "1KB", "1KiB", "1.5G", "0x10", "1%%",
					      "1%K", "1X",  "1\n",  "ten"};
	static const char *const too_large[] = {"18446744073709551616", "16777216T", "101%",
						"99999999999999999999999K",
						"99999999999999999999999%"};
	uint64_t bytes = 42;

	(void)state;
	for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++)
		assert_int_equal(human_parse_size(invalid[i], GIB, &bytes), -EINVAL);
	for (size_t i = 0; i < sizeof(too_large) / sizeof(too_large[0]); i++)
		assert_int_equal(human_parse_size(too_large[i], GIB, &bytes), -ERANGE);
	assert_int_equal(bytes, 42); /* never touched on failure */
}

static void percent_of_much_memory_does_not_overflow(void **state)
{
	uint64_t bytes;

	(void)state;
	assert_int_equal(human_parse_size("100%", UINT64_MAX, &bytes), 0);
	assert_int_equal(bytes, UINT64_MAX);
	assert_int_equal(human_parse_size("33%", 199, &bytes), 0);
	assert_int_equal(bytes, 65);
}

static void defaults_follow_the_pool(void **state)
{
	struct options options;
	char said[512];

	(void)state;
	assert_int_equal(PARSE(&options, said, "/src", "/mnt"), 0);
	assert_string_equal(said, "");
	assert_string_equal(options.source, "/src");
	assert_string_equal(options.mountpoint, "/mnt");
	assert_true(options.pool_bytes >= PAGE_STORE_MIN_BYTES);
	assert_int_equal(options.window_bytes, options.pool_bytes / 8);
	assert_int_equal(options.maps_bytes, options.pool_bytes / 16);
	assert_int_equal(options.transport, TRANSPORT_AUTO);
	assert_int_equal(options.locks, LOCKS_AUTO);
	assert_true(options.attr_timeout > 0.99 && options.attr_timeout < 1.01);
	assert_true(options.entry_timeout > 0.99 && options.entry_timeout < 1.01);
	assert_false(options.foreground || options.debug || options.watch);
	options_clear(&options);

	/* Also where the pool comes last, and given twice. */
	assert_int_equal(PARSE(&options, said, "-o", "pool=1G", "/src", "/mnt", "-opool=64M"), 0);
	assert_int_equal(options.pool_bytes, 64ull << 20);
	assert_int_equal(options.window_bytes, 8ull << 20);
	assert_int_equal(options.maps_bytes, 4ull << 20);
	options_clear(&options);
}

static void own_options_are_taken(void **state)
{
	struct options options;
	char said[512];

	(void)state;
	assert_int_equal(PARSE(&options, said, "/src", "/mnt", "-f", "-o",
			       "pool=1M,window=1G,maps=64K,transport=dev,attr_timeout=0,"
			       "entry_timeout=2.5,watch,seccomp=off,locks=source"),
			 0);
	assert_int_equal(options.pool_bytes, 1u << 20);
	assert_int_equal(options.window_bytes, GIB); /* larger than the pool is fine */
	assert_int_equal(options.maps_bytes, 64u << 10);
	assert_int_equal(options.transport, TRANSPORT_DEV);
	assert_int_equal(options.locks, LOCKS_SOURCE);
	assert_true(options.attr_timeout < 0.01);
	assert_true(options.entry_timeout > 2.49 && options.entry_timeout < 2.51);
	assert_true(options.foreground && options.watch && !options.seccomp);
	assert_true(options.border == BORDER_NO_PSEUDO && !options.pseudo_filesystems);
	options_clear(&options);
	assert_int_equal(PARSE(&options, said, "/src", "/mnt", "-o", "seccomp=off,seccomp=on"), 0);
	assert_true(options.seccomp);
	options_clear(&options);
	assert_int_equal(PARSE(&options, said, "/src", "/mnt"), 0);
	assert_true(options.seccomp);
	options_clear(&options);

	assert_int_equal(PARSE(&options, said, "/src", "/mnt", "-o", "pseudo-filesystems"), 0);
	assert_true(options.border == BORDER_PSEUDO_TOO && options.pseudo_filesystems);
	options_clear(&options);
	/* The source itself may be one then. */
	assert_int_equal(
		PARSE(&options, said, "/src", "/mnt", "-o", "one-file-system,pseudo-filesystems"),
		0);
	assert_true(options.border == BORDER_ONE && options.pseudo_filesystems);
	options_clear(&options);

	assert_int_equal(PARSE(&options, said, "-d", "/src", "/mnt", "-o", "window=0,pool=90%"), 0);
	assert_int_equal(options.window_bytes, 0);
	assert_true(options.pool_bytes > memory_limit() / 10 * 8);
	assert_true(options.debug && options.foreground);
	options_clear(&options);
}

/* nowatch and nopassthrough take back what was said before them. */
static void what_no_takes_back(void **state)
{
	struct options options;
	char said[512];

	(void)state;
	assert_int_equal(PARSE(&options, said, "/src", "/mnt", "-o",
			       "watch,passthrough=a,passthrough=b,nowatch,nopassthrough"),
			 0);
	assert_false(options.watch);
	assert_null(options.passthrough);
	options_clear(&options);
	assert_int_equal(PARSE(&options, said, "/src", "/mnt", "-o",
			       "nowatch,passthrough=a,nopassthrough,passthrough=b,watch"),
			 0);
	assert_true(options.watch);
	assert_string_equal(options.passthrough[0], "b");
	assert_null(options.passthrough[1]);
	options_clear(&options);
}

static void fstab_words_are_accepted(void **state)
{
	struct options options;
	char said[512], fuse[2048];

	(void)state;
	assert_int_equal(PARSE(&options, said, "/src", "/mnt", "-o",
			       "rw,dev,suid,relatime,defaults,nofail,_netdev,noauto,user,user=bob,"
			       "x-systemd.automount,x-gvfs-hide,X-mount.mkdir,comment=a,nodev,"
			       "noatime,exec,nonempty,lazytime"),
			 0);
	assert_string_equal(said, "");
	joined(&options, fuse, sizeof(fuse));
	assert_true(has_word(fuse, "rw") && has_word(fuse, "dev") && has_word(fuse, "nodev"));
	assert_true(has_word(fuse, "noatime"));
	assert_null(strstr(fuse, "relatime"));
	assert_null(strstr(fuse, "x-"));
	assert_null(strstr(fuse, "user"));
	assert_null(strstr(fuse, "nofail"));
	options_clear(&options);
}

static void libfuse_gets_what_is_its(void **state)
{
	struct options options;
	char said[512], fuse[2048];

	(void)state;
	assert_int_equal(PARSE(&options, said, "/", "/mnt", "-r"), 0);
	joined(&options, fuse, sizeof(fuse));
	assert_true(has_word(fuse, "ro"));
	assert_true(has_word(fuse, "default_permissions"));
	assert_true(has_word(fuse, "fsname=/"));
	assert_true(has_word(fuse, "subtype=foldfs"));
	/* By default requests come by the fuse device. */
	assert_null(strstr(fuse, "io_uring"));
	assert_int_equal(has_word(fuse, "allow_other"), geteuid() == 0);
	options_clear(&options);

	assert_int_equal(PARSE(&options, said, "/", "/mnt", "-o",
			       "fsname=mine,subtype=other,transport=dev,allow_other"),
			 0);
	joined(&options, fuse, sizeof(fuse));
	assert_true(has_word(fuse, "fsname=mine") && has_word(fuse, "subtype=other"));
	assert_null(strstr(fuse, "fsname=/"));
	assert_null(strstr(fuse, "subtype=foldfs"));
	assert_null(strstr(fuse, "io_uring"));
	options_clear(&options);

	assert_int_equal(PARSE(&options, said, "/", "/mnt", "-o", "io_uring"), 0);
	assert_int_equal(options.transport, TRANSPORT_IO_URING);
	joined(&options, fuse, sizeof(fuse));
	assert_true(has_word(fuse, "io_uring"));
	options_clear(&options);
}

/* With and without an -o that is libfuse's: what we add comes behind where it was. */
static void nothing_is_left_of_two_dashes(void **state)
{
	struct options options;
	char said[512], fuse[2048];

	(void)state;
	assert_int_equal(PARSE(&options, said, "-o", "rw", "--", "/", "/mnt"), 0);
	assert_string_equal(options.mountpoint, "/mnt");
	joined(&options, fuse, sizeof(fuse));
	assert_false(has_word(fuse, "--"));
	assert_true(has_word(fuse, "rw") && has_word(fuse, "default_permissions"));
	options_clear(&options);
	assert_int_equal(PARSE(&options, said, "--", "/", "/mnt"), 0);
	joined(&options, fuse, sizeof(fuse));
	assert_false(has_word(fuse, "--"));
	options_clear(&options);
}

/* What fuse_opt makes of a fsname is the path again, commas and backslashes included. */
static void hard_source_names_survive(void **state)
{
	char directory[] = "/tmp/fold,a\\b XXXXXX", said[512], fuse[2048];
	struct options options;

	(void)state;
	assert_non_null(mkdtemp(directory));
	assert_int_equal(PARSE(&options, said, directory, "/mnt"), 0);
	joined(&options, fuse, sizeof(fuse));
	assert_non_null(strstr(fuse, "fsname=/tmp/fold\\,a\\\\b "));
	options_clear(&options);
	rmdir(directory);
}

static void a_comma_too_many_is_none(void **state)
{
	char said[512];
	struct options options;

	(void)state;
	assert_int_equal(PARSE(&options, said, "/", "/mnt", "-o", "pool=16M,,ro,"), 0);
	assert_string_equal(said, "");
	assert_int_equal(options.pool_bytes, 16 << 20);
	assert_true(options.read_only);
	options_clear(&options);
}

/* What mount(8) hands on at a remount: fstab's words, the list of mounts', then what is
 * asked for. */
static void a_remount_takes_what_the_kernel_says(void **state)
{
	char said[512];
	struct options options;

	(void)state;
	assert_int_equal(PARSE(&options, said, "none", "/mnt", "-o",
			       "rw,noexec,user_id=0,group_id=0,allow_other,max_read=4096,remount,"
			       "exec,nosuid,ro"),
			 0);
	assert_string_equal(said, "");
	assert_true(options.remount.asked);
	assert_int_equal(options.remount.set, MS_RDONLY | MS_NOSUID);
	assert_int_equal(options.remount.clear, MS_NOEXEC);
	assert_string_equal(options.mountpoint, "/mnt");
	assert_null(options.remount.words[0]);
	options_clear(&options);
}

/* foldfs's own words go to the daemon as they were given; it judges them. */
static void a_remount_hands_on_own_words(void **state)
{
	static const char *const expected[] = {"passthrough=a\\,b", "passthrough=*.img", "pool=1X",
					       "scan=off",          "one-file-system",   "nowatch"};
	const size_t count = sizeof(expected) / sizeof(expected[0]);
	char said[512];
	struct options options;

	(void)state;
	assert_int_equal(PARSE(&options, said, "none", "/mnt", "-o",
			       "remount,ro,pool=1G,watch,scan=off,one-file-system,nofail,"
			       "passthrough=a\\,b,passthrough=*.img,pool=1X,nowatch"),
			 0);
	assert_string_equal(said, "");
	for (size_t i = 0; i < count; i++) {
		bool found = false;

		for (char **word = options.remount.words; *word; word++)
			found = found || strcmp(*word, expected[i]) == 0;
		assert_true(found);
	}
	assert_null(options.remount.words[count]);
	options_clear(&options);
	/* What no program knows is refused here. */
	assert_int_equal(PARSE(&options, said, "none", "/mnt", "-o", "remount,bogus"), -EINVAL);
	assert_non_null(strstr(said, "'bogus'"));
}

static void bad_words_are_refused_by_name(void **state)
{
	static const struct {
		const char *word;
		const char *said;
	} cases[] = {
		{"-obogus", "unknown option 'bogus'"},
		{"-orw,bogus=3,ro", "unknown option 'bogus=3'"},
		{"-q", "unknown option '-q'"},
		{"--foreground=2", "unknown option '--foreground=2'"},
		{"-omax_read=4096", "'max_read=4096'"},
		{"-ouser_id=0", "'user_id=0'"},
		{"-omand", "'mand'"},
		{"-opool", "'pool'"},
		{"-opool=", "pool="},
		{"-opool=1023K", "pool=1023K"},
		{"-opool=3T", "pool=3T"},
		{"-opool=101%", "pool=101%"},
		{"-opool=2T", "pool (2.00 TiB)"},
		{"-owindow=1000T", "window (1000 TiB)"},
		{"-owindow=100%", "more than all of the memory"},
		{"-omaps=100%", "more than all of the memory"},
		{"-opool=60%,maps=50%", "more than all of the memory"},
		{"-owindow=9223372036854775807,pool=2T", "more than all of the memory"},
		{"-opool=-1G", "pool=-1G"},
		{"-opool=99999999999999999999", "pool=99999999999999999999"},
		{"-owindow=1Q", "window=1Q"},
		{"-owindow=101%", "window=101%"},
		{"-omaps=1K", "maps=1K"},
		{"-otransport=tcp", "transport=tcp"},
		{"-olocks=kernel", "locks=kernel"},
		{"-olocks", "'locks'"},
		{"-olocks=source,io_uring", "locks=source is not possible"},
		{"-oseccomp=log", "seccomp=log"},
		{"-ostate=here", "state=here"},
		{"-ocontrol=here", "control=here"},
		{"-ocontrol", "control"},
		{"-oattr_timeout=-1", "attr_timeout=-1"},
		{"-oattr_timeout=nan", "attr_timeout=nan"},
		{"-oentry_timeout=1s", "entry_timeout=1s"},
		{"-oentry_timeout=1e300", "entry_timeout=1e300"},
		{"third", "'third'"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct options options;
		char said[512];

		assert_int_equal(PARSE(&options, said, "/src", "/mnt", cases[i].word), -EINVAL);
		assert_non_null(strstr(said, cases[i].said));
		/* One sentence: one line, and nothing behind it. */
		assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
		assert_int_equal(strncmp(said, "foldfs: ", strlen("foldfs: ")), 0);
	}
}

static void what_is_missing_is_said(void **state)
{
	struct options options;
	char said[512];

	(void)state;
	assert_int_equal(PARSE(&options, said, "-f"), -EINVAL);
	assert_non_null(strstr(said, "SOURCE"));
	assert_int_equal(PARSE(&options, said, "/src"), -EINVAL);
	assert_non_null(strstr(said, "MOUNTPOINT"));
	assert_int_equal(PARSE(&options, said, "", "/mnt"), -EINVAL);
	assert_int_equal(PARSE(&options, said, "/src", "/mnt", "-o"), -EINVAL);
}

static void help_and_version_need_nothing_else(void **state)
{
	struct options options;
	char said[512];

	(void)state;
	assert_int_equal(PARSE(&options, said, "--help"), 0);
	assert_true(options.show_help);
	options_clear(&options);
	assert_int_equal(PARSE(&options, said, "-V"), 0);
	assert_true(options.show_version);
	options_clear(&options);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_read),
		cmocka_unit_test(nonsense_sizes_are_refused),
		cmocka_unit_test(percent_of_much_memory_does_not_overflow),
		cmocka_unit_test(defaults_follow_the_pool),
		cmocka_unit_test(own_options_are_taken),
		cmocka_unit_test(fstab_words_are_accepted),
		cmocka_unit_test(libfuse_gets_what_is_its),
		cmocka_unit_test(nothing_is_left_of_two_dashes),
		cmocka_unit_test(hard_source_names_survive),
		cmocka_unit_test(a_comma_too_many_is_none),
		cmocka_unit_test(a_remount_takes_what_the_kernel_says),
		cmocka_unit_test(a_remount_hands_on_own_words),
		cmocka_unit_test(what_no_takes_back),
		cmocka_unit_test(bad_words_are_refused_by_name),
		cmocka_unit_test(what_is_missing_is_said),
		cmocka_unit_test(help_and_version_need_nothing_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
