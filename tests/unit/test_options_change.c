/* SPDX-License-Identifier: Apache-2.0 */
/* test_options_change.c - words said of a mount that stands: one rule with the start, all or none */
#include "daemon/option_table.h"
#include "daemon/options_change.h"
#include "daemon/options_parse.h"
#include "daemon/settings_text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB (1ull << 20)

/* A mount with these options; what is refused goes to SAID. */
static errint_t parse(const char *list, struct options *options, char said[512])
{
	char copy[1024];
	char *argv[] = {"foldfs", "/src", "/mnt", "-o", copy, NULL};
	int saved = dup(STDERR_FILENO);
	int ends[2];
	errint_t error;
	ssize_t got;

	snprintf(copy, sizeof(copy), "%s", list);
	assert_int_equal(pipe(ends), 0);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	error = options_parse(5, argv, options);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	got = read(ends[0], said, 511);
	close(ends[0]);
	said[got > 0 ? got : 0] = '\0';
	return error;
}

static void start(struct options *options, const char *list)
{
	char said[512];

	assert_int_equal(parse(list, options, said), 0);
}

/* Say WORDS of PRESENT. "" and it holds, or why it is refused. */
static const char *change(struct options *present, const char *words)
{
	static char said[512];
	struct options changed;
	char *refusal = NULL;

	said[0] = '\0';
	if (!options_change(present, &words, 1, &changed, &refusal)) {
		options_commit(present, &changed);
		return said;
	}
	assert_non_null(refusal);
	snprintf(said, sizeof(said), "%s", refusal);
	free(refusal);
	return said;
}

static void expect_text(const struct options *options, const char *expected)
{
	char *text = settings_words_text(options);

	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
}

static void what_is_named_changes_and_nothing_else(void **state)
{
	struct options options;

	(void)state;
	start(&options, "pool=64M,attr_timeout=7,passthrough=*.iso,scan=background");
	expect_text(&options, "pool=64M,window=8M,maps=4M,scan=background,nowatch,"
			      "passthrough=*.iso,passthrough_max=128M,attr_timeout=7,"
			      "entry_timeout=1,negative_timeout=0");
	assert_string_equal(change(&options, "window=3M,watch"), "");
	expect_text(&options, "pool=64M,window=3M,maps=4M,scan=background,watch,"
			      "passthrough=*.iso,passthrough_max=128M,attr_timeout=7,"
			      "entry_timeout=1,negative_timeout=0");
	assert_string_equal(change(&options, "passthrough=a\\,b,passthrough=c,passthrough_max=0"),
			    "");
	assert_string_equal(change(&options, "scan=off,nowatch,attr_timeout=0.25"), "");
	expect_text(&options, "pool=64M,window=3M,maps=4M,scan=off,nowatch,"
			      "passthrough=a\\,b,passthrough=c,passthrough_max=0,"
			      "attr_timeout=0.25,entry_timeout=1,negative_timeout=0");
	assert_string_equal(change(&options, "nopassthrough"), "");
	assert_null(options.passthrough);
	assert_string_equal(change(&options, ""), "");
	options_clear(&options);
}

/* Whether one of the words NAME=VALUE is refused because it cannot change. */
static bool refuses_to_change(const char *name, const char *value)
{
	const char *kind = strcmp(value, "DIR") == 0 ? "/elsewhere" : "3";
	const char *at = strchr(value, '|') ? value : kind;
	struct options options;
	bool refuses = false;

	start(&options, "pool=64M,window=8M");
	for (; *at; at += strcspn(at, "|"), at += *at == '|') {
		char word[64];
		const char *said;

		snprintf(word, sizeof(word), "%s=%.*s%s", name, (int)strcspn(at, "|"), at,
			 strcmp(value, "SIZE") == 0 ? "M" : "");
		said = change(&options, word);
		assert_true(!*said || strstr(said, "cannot change while it is mounted"));
		refuses = refuses || *said;
	}
	options_clear(&options);
	return refuses;
}

static void the_table_says_what_can_change(void **state)
{
	(void)state;
#define CHECK(name, value, changes) assert_int_equal(refuses_to_change(#name, value), !(changes));
	OPTION_VALUES(CHECK)
#undef CHECK
}

/* What nobody has said follows the pool, as at the start; what somebody has said stays. */
static void what_follows_the_pool_follows_it(void **state)
{
	struct options options;

	(void)state;
	start(&options, "pool=64M,maps=5M");
	assert_string_equal(change(&options, "pool=128M"), "");
	assert_int_equal(options.pool_bytes, 128 * MIB);
	assert_int_equal(options.window_bytes, 16 * MIB);
	assert_int_equal(options.maps_bytes, 5 * MIB);
	assert_string_equal(change(&options, "window=16M"), "");
	assert_string_equal(change(&options, "pool=64M"), "");
	assert_int_equal(options.window_bytes, 16 * MIB);
	options_clear(&options);
	/* The same for names that are not there. */
	start(&options, "ro,pool=64M");
	assert_string_equal(change(&options, "entry_timeout=9"), "");
	assert_true(options.negative_timeout > 8.9);
	options_clear(&options);
}

/* A size in % stays what it was when it was said. A default pool is of a size from then on. */
static void sizes_are_settled(void **state)
{
	struct options options;
	uint64_t pool;
	uint64_t maps;

	(void)state;
	start(&options, "maps=1%");
	pool = options.pool_bytes;
	maps = options.maps_bytes;
	assert_string_equal(change(&options, "attr_timeout=3"), "");
	assert_int_equal(options.pool_bytes, pool);
	assert_int_equal(options.maps_bytes, maps);
	options_clear(&options);
}

/* The same words, at the start and later: the same sentence. */
static void nonsense_has_one_rule(void **state)
{
	static const char *const words[] = {
		"pool=nonsense",
		"pool=1023K",
		"pool=3T",
		"pool",
		"pool=2T",
		"window=1Q",
		"window=101%",
		"maps=1K",
		"maps=100%",
		"scan=sometimes",
		"scan",
		"attr_timeout=-1",
		"entry_timeout=1e300",
		"negative_timeout=x",
		"passthrough=",
		"passthrough_max=much",
		"bogus",
		"bogus=3",
		"transport=tcp",
		"seccomp=log",
		"state=here",
		"control=here",
		"coherence=loose",
		"watch=on",
	};
	struct options options;

	(void)state;
	start(&options, "pool=64M");
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct options fresh;
		char list[256];
		char said[512];

		snprintf(list, sizeof(list), "pool=64M,%s", words[i]);
		assert_int_equal(parse(list, &fresh, said), -EINVAL);
		assert_true(strlen(said) > strlen("foldfs: \n"));
		said[strlen(said) - 1] = '\0';
		assert_string_equal(change(&options, words[i]), said + strlen("foldfs: "));
	}
	options_clear(&options);
}

static void what_cannot_change_is_refused_by_name(void **state)
{
	static const char *const cases[][2] = {
		{"transport=io_uring", "transport cannot change while it is mounted: "},
		{"io_uring", "transport cannot change while it is mounted: "},
		{"seccomp=off", "seccomp cannot change while it is mounted: "},
		{"state=/elsewhere", "state cannot change while it is mounted: "},
		{"control=/elsewhere", "control cannot change while it is mounted: "},
		{"coherence=overlay", "coherence cannot change while it is mounted: "},
		{"source-stacked", "source-stacked cannot change while it is mounted: "},
		{"one-file-system", "one-file-system cannot change while it is mounted: "},
		{"pseudo-filesystems", "pseudo-filesystems cannot change while it is mounted: "},
		{"window=0", "window cannot change while it is mounted: "},
		{"replace", "replace cannot change while it is mounted: "},
		{"fsname=x", "fsname=x cannot change while it is mounted: "},
		{"allow_other", "allow_other cannot change while it is mounted: "},
		{"nofail", "nofail cannot change while it is mounted: "},
		{"ro", "ro is the kernel's: mount -o remount,ro changes it."},
		{"nosuid", "nosuid is the kernel's: mount -o remount,nosuid changes it."},
		{"debug", "-d, -f, -h and -V are for a start alone."},
	};
	struct options options;

	(void)state;
	start(&options, "pool=64M");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char words[64];

		/* All or nothing: what stands beside it does not change either. */
		snprintf(words, sizeof(words), "pool=32M,%s", cases[i][0]);
		assert_int_equal(strncmp(change(&options, words), cases[i][1], strlen(cases[i][1])),
				 0);
		assert_int_equal(options.pool_bytes, 64 * MIB);
	}
	options_clear(&options);
	start(&options, "window=0");
	assert_non_null(strstr(change(&options, "window=1M"), "window cannot change"));
	options_clear(&options);
}

/* All words of an fstab line may be said again. */
static void what_holds_already_is_no_change(void **state)
{
	static const char list[] = "pool=64M,window=8M,maps=4M,transport=dev,seccomp=on,"
				   "state=/s,control=/c,coherence=overlay,source-stacked,"
				   "one-file-system,pseudo-filesystems,scan=off,watch,"
				   "passthrough=*.iso,passthrough_max=1M,attr_timeout=2,"
				   "entry_timeout=3,negative_timeout=4";
	struct options options;
	char *before;

	(void)state;
	start(&options, list);
	before = settings_words_text(&options);
	assert_string_equal(change(&options, list), "");
	expect_text(&options, before);
	/* auto is dev. */
	assert_string_equal(change(&options, "transport=auto"), "");
	free(before);
	options_clear(&options);
}

/* More than there is may get less, though it is still too much. */
static void too_much_may_get_less(void **state)
{
	struct options options;

	(void)state;
	start(&options, "pool=64M");
	options.pool_bytes = 1ull << 50; /* as if memory had been taken away */
	options.window_bytes = options.maps_bytes = MIB;
	assert_string_equal(change(&options, "pool=2T"), "");
	assert_int_equal(options.pool_bytes, 2ull << 40);
	assert_non_null(strstr(change(&options, "maps=1T"), "more than all of the memory"));
	options_clear(&options);
}

static void changes_are_told(void **state)
{
	struct options from;
	struct options to;
	const char *words = "pool=96M,watch,attr_timeout=2";
	char *refusal;
	char *text;

	(void)state;
	start(&from, "pool=64M");
	assert_int_equal(options_change(&from, &words, 1, &to, &refusal), 0);
	text = settings_changes_text(&from, &to);
	assert_string_equal(text, "pool=64M to pool=96M, window=8M to window=12M, "
				  "maps=4M to maps=6M, nowatch to watch, "
				  "attr_timeout=1 to attr_timeout=2");
	free(text);
	options_clear(&to);
	options_clear(&from);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_named_changes_and_nothing_else),
		cmocka_unit_test(the_table_says_what_can_change),
		cmocka_unit_test(what_follows_the_pool_follows_it),
		cmocka_unit_test(sizes_are_settled),
		cmocka_unit_test(nonsense_has_one_rule),
		cmocka_unit_test(what_cannot_change_is_refused_by_name),
		cmocka_unit_test(what_holds_already_is_no_change),
		cmocka_unit_test(too_much_may_get_less),
		cmocka_unit_test(changes_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
