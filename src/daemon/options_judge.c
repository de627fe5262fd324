/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options_judge.c - what the words mean, or why they are refused
 *
 * One rule for the start, for `foldctl set` and for mount -o remount: all three come here, with all
 * words that hold then.
 *
 * Invariants:
 * A  Values are judged after all words have been read: the last one given counts, and defaults that
 *    depend on another option see its final value.
 * B  Each error is reported in one sentence that names the option and the value.
 */
#include "options_judge.h"

#include "foldfs/human.h"
#include "foldfs/memory_limit.h"
#include "foldfs/page_store.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For survive=on, in seconds. A process that is short of memory or processors may read nothing for
 * a while, and to replace it would not help. */
#define DEFAULT_SURVIVE_WAIT 60.0
#define DEFAULT_WATCHDOG     60.0
#define DEFAULT_TIMEOUT      1.0
/* With less, the map of one large file would not fit, and every read would miss. */
#define MAPS_MIN_BYTES (64u << 10)
/* Larger files are taken for disk images, whose pages are worth sharing one by one. */
#define PASSTHROUGH_MAX_BYTES (128u << 20)
/* The kernel takes whole seconds as 64 bits; nobody means more than a century. */
#define TIMEOUT_MAX 3153600000.0

static errint_t judge_size(struct option_words *words, const char *name, const char *text,
			   uint64_t memory, uint64_t lowest, uint64_t highest, uint64_t *bytes)
{
	errint_t error;

	if (!text)
		return 0;
	error = human_parse_size(text, memory, bytes);
	if (error == -ERANGE && strchr(text, '%'))
		return option_words_refuse(
			words, "%s=%s is more than all of the memory that there is.", name, text);
	if (error == -EINVAL)
		return option_words_refuse(
			words,
			"%s=%s is not a size: write a number, with K, M, G, T or %% behind "
			"it if you like.",
			name, text);
	if (error || *bytes > highest)
		return option_words_refuse(words, "%s=%s is too large: the most is %llu T.", name,
					   text, (unsigned long long)(highest >> 40));
	if (*bytes < lowest)
		return option_words_refuse(words, "%s=%s is too small: the least is %llu K.", name,
					   text, (unsigned long long)(lowest >> 10));
	return 0;
}

static uint64_t clamp(uint64_t value, uint64_t lowest, uint64_t highest)
{
	return value < lowest ? lowest : value > highest ? highest : value;
}

uint64_t options_sum(const struct options *options)
{
	uint64_t sum;

	if (__builtin_add_overflow(options->pool_bytes, options->window_bytes, &sum) ||
	    __builtin_add_overflow(sum, options->maps_bytes, &sum))
		return UINT64_MAX;
	return sum;
}

/* Each of the three may fill up, and none of them is given back when memory is short. What is no
 * more than STANDING is taken already. */
static errint_t judge_sum(struct option_words *words, uint64_t memory, uint64_t standing,
			  const struct options *options)
{
	struct human_buffer pool, window, maps, all;
	uint64_t sum = options_sum(options);

	if (!memory || sum <= memory || sum <= standing)
		return 0;
	return option_words_refuse(
		words,
		"pool (%s), window (%s) and maps (%s) are together more than all of the "
		"memory: %s.",
		human_size((int64_t)options->pool_bytes, &pool),
		human_size((int64_t)options->window_bytes, &window),
		human_size((int64_t)options->maps_bytes, &maps), human_size((int64_t)memory, &all));
}

static errint_t judge_sizes(struct option_words *words, uint64_t standing, struct options *options)
{
	uint64_t memory = memory_limit();
	errint_t error;

	options->pool_bytes = clamp(memory / 4, PAGE_STORE_MIN_BYTES, PAGE_STORE_MAX_BYTES);
	error = judge_size(words, "pool", words->pool, memory, PAGE_STORE_MIN_BYTES,
			   PAGE_STORE_MAX_BYTES, &options->pool_bytes);
	if (error)
		return error;
	options->window_bytes = options->pool_bytes / 8;
	error = judge_size(words, "window", words->window, memory, 0, INT64_MAX,
			   &options->window_bytes);
	if (error)
		return error;
	options->maps_bytes = options->pool_bytes / 16;
	error = judge_size(words, "maps", words->maps, memory, MAPS_MIN_BYTES, PAGE_STORE_MAX_BYTES,
			   &options->maps_bytes);
	if (error)
		return error;
	error = judge_sum(words, memory, standing, options);
	if (error)
		return error;
	options->passthrough_max = PASSTHROUGH_MAX_BYTES;
	return judge_size(words, "passthrough_max", words->passthrough_max, memory, 0, INT64_MAX,
			  &options->passthrough_max);
}

/* Where TEXT stands among CHOICES, which have | between; -1: nowhere. */
static int place_among(const char *choices, const char *text)
{
	size_t length = strlen(text);

	for (int place = 0;; place++) {
		size_t end = strcspn(choices, "|");

		if (end == length && memcmp(choices, text, length) == 0)
			return place;
		if (!choices[end])
			return -1;
		choices += end + 1;
	}
}

/* CHOICES as a sentence names them: "a, b and c". */
static void name_choices(const char *choices, char *text, size_t size)
{
	const char *last = strrchr(choices, '|');
	FILE *stream = fmemopen(text, size, "w");

	if (!stream)
		return;
	for (; *choices; choices++)
		if (*choices == '|')
			fputs(choices == last ? " and " : ", ", stream);
		else
			fputc(*choices, stream);
	fclose(stream);
}

/*
 * Where the value TEXT of the option NAME stands among those that the table of options has, which
 * is also where the enumerations have them. NULL: it was not given, and *RET_PLACE is BY_DEFAULT.
 */
static errint_t judge_choice(struct option_words *words, const char *name, const char *text,
			     int by_default, int *ret_place)
{
#define ROW(name, choices, ...) {#name, choices},
	static const struct {
		const char *name, *choices;
	} rows[] = {OPTION_VALUES(ROW)};
#undef ROW
	char named[64] = "";
	size_t row = 0;

	*ret_place = by_default;
	if (!text)
		return 0;
	while (strcmp(rows[row].name, name) != 0)
		row++;
	*ret_place = place_among(rows[row].choices, text);
	if (*ret_place >= 0)
		return 0;
	name_choices(rows[row].choices, named, sizeof(named));
	return option_words_refuse(words, "%s=%s is not one of %s.", name, text, named);
}

static errint_t judge_transport(struct option_words *words, enum transport_choice *transport)
{
	int place;
	errint_t error = judge_choice(words, "transport", words->transport, TRANSPORT_AUTO, &place);

	*transport = error ? TRANSPORT_AUTO : (enum transport_choice)place;
	return error;
}

/* An option of two words. *RET_FIRST: it is the first of them. */
static errint_t judge_either(struct option_words *words, const char *name, const char *text,
			     bool by_default, bool *ret_first)
{
	int place;
	errint_t error = judge_choice(words, name, text, by_default ? 0 : 1, &place);

	*ret_first = place == 0;
	return error;
}

/* The transport has been judged. */
static errint_t judge_locks(struct option_words *words, struct options *options)
{
	int place;
	errint_t error = judge_choice(words, "locks", words->locks, -1, &place);

	options->locks = place < 0 ? LOCKS_AUTO : place == 0 ? LOCKS_SOURCE : LOCKS_MOUNT;
	if (!error && options->locks == LOCKS_SOURCE && options->transport == TRANSPORT_IO_URING)
		return option_words_refuse(
			words, "locks=source is not possible with transport=io_uring, where a "
			       "request that waits for a lock would hold up others.");
	return error;
}

/* *SECONDS holds the default before the call. */
static errint_t judge_timeout(struct option_words *words, const char *name, const char *text,
			      double *seconds)
{
	char *end;

	if (!text)
		return 0;
	*seconds = strtod(text, &end);
	if (!isdigit((unsigned char)*text) || *end || !isfinite(*seconds))
		return option_words_refuse(words, "%s=%s is not a number of seconds.", name, text);
	if (*seconds > TIMEOUT_MAX)
		return option_words_refuse(words, "%s=%s is too long: the most is a hundred years.",
					   name, text);
	return 0;
}

/* What the kernel has given to a ring is lost with its process. */
static errint_t judge_survive(struct option_words *words, struct options *options)
{
	bool possible = options->transport != TRANSPORT_IO_URING;
	errint_t error =
		judge_either(words, "survive", words->survive, possible, &options->survive);

	if (!error && options->survive && options->transport == TRANSPORT_IO_URING)
		return option_words_refuse(words, "survive=on needs transport=dev: a crash of a "
						  "daemon that uses io_uring cannot be survived.");
	options->survive_wait = DEFAULT_SURVIVE_WAIT;
	options->watchdog = DEFAULT_WATCHDOG;
	if (!error)
		error = judge_timeout(words, "survive_wait", words->survive_wait,
				      &options->survive_wait);
	return error ? error
		     : judge_timeout(words, "watchdog", words->watchdog, &options->watchdog);
}

static errint_t judge_coherence(struct option_words *words, bool *overlay)
{
	bool strict;
	errint_t error = judge_either(words, "coherence", words->coherence, true, &strict);

	*overlay = !error && !strict;
	return error;
}

static errint_t judge_timeouts(struct option_words *words, struct options *options)
{
	errint_t error;

	options->attr_timeout = DEFAULT_TIMEOUT;
	error = judge_timeout(words, "attr_timeout", words->attr_timeout, &options->attr_timeout);
	if (error)
		return error;
	options->entry_timeout = DEFAULT_TIMEOUT;
	error = judge_timeout(words, "entry_timeout", words->entry_timeout,
			      &options->entry_timeout);
	if (error)
		return error;
	/* On a writable mount, others also make files behind the mount: lock files, results of
	 * builds. */
	options->negative_timeout = options->read_only ? options->entry_timeout : 0;
	return judge_timeout(words, "negative_timeout", words->negative_timeout,
			     &options->negative_timeout);
}

static errint_t judge_directory(struct option_words *words, const char *option, const char *path)
{
	/* The daemon works in /, so a relative path would be resolved from there. */
	return path && *path != '/'
		       ? option_words_refuse(words, "%s=%s is not an absolute path.", option, path)
		       : 0;
}

static errint_t judge_directories(struct option_words *words, struct options *options)
{
	errint_t error = judge_directory(words, "state", words->state);

	if (!error)
		error = judge_directory(words, "control", words->control);
	if (!error && words->state && !(options->state = strdup(words->state)))
		error = -ENOMEM;
	if (!error && words->control && !(options->control = strdup(words->control)))
		error = -ENOMEM;
	return error;
}

static void take_flags(const struct option_words *words, struct options *options)
{
	options->source_stacked = words->source_stacked;
	options->pseudo_filesystems = words->pseudo_filesystems;
	options->border = words->one_file_system      ? BORDER_ONE
			  : words->pseudo_filesystems ? BORDER_PSEUDO_TOO
						      : BORDER_NO_PSEUDO;
	options->read_only = words->read_only;
	options->watch = words->watch == WATCH_ON;
}

errint_t options_judge(struct option_words *words, uint64_t standing, struct options *options)
{
	errint_t error;

	take_flags(words, options);
	error = judge_sizes(words, standing, options);
	if (!error)
		error = judge_transport(words, &options->transport);
	if (!error)
		error = judge_either(words, "seccomp", words->seccomp, true, &options->seccomp);
	if (!error)
		error = judge_locks(words, options);
	if (!error)
		error = judge_survive(words, options);
	if (!error)
		error = judge_directories(words, options);
	if (!error)
		error = judge_either(words, "scan", words->scan, false, &options->scan_background);
	if (!error)
		error = judge_coherence(words, &options->coherence_overlay);
	if (!error)
		error = judge_timeouts(words, options);
	if (!error)
		error = option_list_copy(words->passthrough, &options->passthrough);
	if (error == -ENOMEM)
		error = option_words_refuse(words, "not enough memory.");
	return error;
}
