/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_options.c - libFuzzer target: a command line is refused, or its options can be used
 *
 * The input is the words, one a line. Accepted options are complete and within their limits, and
 * libfuse accepts the words that are left for it. Sizes are compared with a second parser that uses
 * 128 bits.
 */
#include "daemon/options_change.h"
#include "daemon/options_parse.h"

#include "foldfs/human.h"
#include "foldfs/page_store.h"
#include "fuzz.h"

#include <ctype.h>
#include <errno.h>
#include <fuse_lowlevel.h>
#include <math.h>
#include <string.h>

#define WORDS_MAX 32
#define MEMORY    (3ull << 30)

/* The size that TEXT means, or -1 for what is no size; anything too large is UINT64_MAX
 * and more. */
static __int128 model_size(const char *text)
{
	static const char units[] = "KMGT";
	size_t digits = strspn(text, "0123456789");
	const char *unit = text + digits;
	__int128 number = 0;

	if (!digits || (*unit && unit[1]))
		return -1;
	for (size_t i = 0; i < digits; i++)
		if (number <= UINT64_MAX)
			number = number * 10 + (text[i] - '0');
	if (*unit == '%')
		return number <= 100 ? (__int128)MEMORY * number / 100 : (__int128)UINT64_MAX + 1;
	if (!*unit)
		return number;
	for (int i = 0; units[i]; i++)
		if (toupper((unsigned char)*unit) == units[i])
			return number << 10 * (i + 1);
	return -1;
}

static void check_size(const char *text)
{
	uint64_t bytes = 12345;
	errint_t error = human_parse_size(text, MEMORY, &bytes);
	__int128 expected = model_size(text);

	expect(error == (expected < 0 ? -EINVAL : expected > UINT64_MAX ? -ERANGE : 0));
	expect(bytes == (error ? 12345 : (uint64_t)expected));
}

/* libfuse refuses a number that is none by itself; all else it has to accept. */
static void check_for_libfuse(struct options *options)
{
	static const struct fuse_lowlevel_ops none;
	struct fuse_session *session;
	bool bad_depth = false, both_allow = false, allow_root = false, allow_other = false;

	for (int i = 0; i < options->fuse.argc; i++) {
		const char *word = options->fuse.argv[i];

		expect(word);
		bad_depth |= strstr(word, "io_uring_q_depth=") != NULL;
		allow_root |= strstr(word, "allow_root") != NULL;
		allow_other |= strstr(word, "allow_other") != NULL;
	}
	expect(!options->fuse.argv[options->fuse.argc]);
	both_allow = allow_root && allow_other;
	session = fuse_session_new(&options->fuse, &none, sizeof(none), NULL);
	expect(session || bad_depth || both_allow);
	if (session)
		fuse_session_destroy(session);
}

static void check_options(struct options *options)
{
	if (options->show_help || options->show_version)
		return;
	expect(options->source && *options->source);
	expect(options->mountpoint && *options->mountpoint);
	expect(!(options->remount.set & options->remount.clear));
	if (options->remount.asked)
		return;
	expect(options->pool_bytes >= PAGE_STORE_MIN_BYTES);
	expect(options->pool_bytes <= PAGE_STORE_MAX_BYTES);
	expect(options->window_bytes <= INT64_MAX);
	expect(options->maps_bytes > 0 && options->maps_bytes <= PAGE_STORE_MAX_BYTES);
	expect(isfinite(options->attr_timeout) && options->attr_timeout >= 0);
	expect(isfinite(options->entry_timeout) && options->entry_timeout >= 0);
	for (char **glob = options->passthrough; glob && *glob; glob++)
		expect(**glob);
	check_for_libfuse(options);
}

/* The same words said of a mount that stands: refused with a reason, or within the same limits. */
static void check_change(char *const words[], int count)
{
	static struct options present;
	struct options changed;
	char *refusal = NULL;

	if (!present.source) {
		char *argv[] = {"foldfs", "/src", "/mnt", "-o", "pool=64M,window=8M", NULL};

		expect(!options_parse(5, argv, &present));
	}
	if (options_change(&present, (const char *const *)words, (size_t)count, &changed,
			   &refusal)) {
		expect(refusal && *refusal);
		free(refusal);
		return;
	}
	expect(changed.pool_bytes >= PAGE_STORE_MIN_BYTES);
	expect(changed.pool_bytes <= PAGE_STORE_MAX_BYTES);
	expect(changed.window_bytes > 0 && changed.window_bytes <= INT64_MAX);
	expect(changed.transport != TRANSPORT_IO_URING && changed.seccomp);
	options_clear(&changed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *argv[WORDS_MAX + 2] = {"foldfs"}, *text = malloc(size + 1), *rest = text;
	struct options options;
	int argc = 1;
	errint_t error;

	expect(text);
	memcpy(text, data, size);
	text[size] = '\0';
	while (rest && argc <= WORDS_MAX)
		argv[argc++] = strsep(&rest, "\n");
	check_size(argv[1]);
	check_change(argv + 1, argc - 1);
	error = options_parse(argc, argv, &options);
	expect(error == 0 || error == -EINVAL);
	if (!error) {
		check_options(&options);
		options_clear(&options);
	}
	free(text);
	return 0;
}
