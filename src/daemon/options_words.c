/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options_words.c - which words there are, and which of them were given
 *
 * Three callers use three dialects: a person (`foldfs SOURCE MOUNTPOINT -o …`), mount(8) through
 * mount.fuse3 (`… -o rw,dev,suid,…`), and an fstab line. Its generic words (relatime, nofail,
 * x-systemd.…) are meant for other programs, but arrive here all the same. `foldctl set` is a
 * fourth: its words are those of -o.
 *
 * Invariants:
 * A  Each word is ours, libfuse's (handed on unchanged), somebody else's (dropped), or refused by
 *    name: one table says which. What it has of words that a person types is in option_table.h.
 *    libfuse never sees a word that it would refuse itself.
 * B  Nothing is judged here: the last value given counts (options_judge.c).
 * C  The first word that is refused is reported in one sentence that names it.
 */
#include "options_words.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum key {
	KEY_KEEP, /* libfuse's own */
	KEY_DROP, /* has no meaning here, and dropping it loses nothing */
	KEY_READ_ONLY,
	KEY_RO,
	KEY_RW,
	KEY_PASSTHROUGH,
	KEY_NO_PASSTHROUGH,
	KEY_ALLOW_OTHER,
	KEY_DEFAULT_PERMISSIONS,
	KEY_FSNAME,
	KEY_SUBTYPE,
	KEY_IO_URING,
	KEY_NO_VALUE,
	KEY_REMOUNT,
	KEY_KERNEL, /* the kernel's own; mount(8) hands it on at a remount */
};

#define RAW(template, field)                                                                       \
	{                                                                                          \
		template, offsetof(struct option_words, field), 1                                  \
	}
#define DROP(template) FUSE_OPT_KEY(template, KEY_DROP)

static const struct fuse_opt table[] = {
/* clang-format off */
#define VALUE(name, ...) RAW(#name "=%s", name), FUSE_OPT_KEY(#name, KEY_NO_VALUE),
	OPTION_VALUES(VALUE)
#undef VALUE
#define FLAG(word, field) RAW(word, field),
	OPTION_FLAGS(FLAG)
#undef FLAG
#define SET(word, field, to, ...) {word, offsetof(struct option_words, field), to},
	OPTION_SETS(SET)
#undef SET
#define WORD(word, key, ...) FUSE_OPT_KEY(word, key),
	OPTION_WORDS(WORD)
#undef WORD
#define KEPT(word) FUSE_OPT_KEY(word, KEY_KEEP),
	OPTION_KEPT(KEPT)
#undef KEPT
	/* clang-format on */
	FUSE_OPT_KEY("passthrough", KEY_NO_VALUE),
	FUSE_OPT_KEY("user_id=", KEY_KERNEL),
	FUSE_OPT_KEY("group_id=", KEY_KERNEL),
	FUSE_OPT_KEY("rootmode=", KEY_KERNEL),
	FUSE_OPT_KEY("fd=", KEY_KERNEL),
	FUSE_OPT_KEY("max_read=", KEY_KERNEL),
	FUSE_OPT_KEY("blksize=", KEY_KERNEL),
	FUSE_OPT_KEY("seclabel", KEY_KERNEL),

	/* fstab's words for mount(8), systemd or the boot scripts. */
	DROP("-n"),
	DROP("-v"),
	DROP("defaults"),
	DROP("auto"),
	DROP("noauto"),
	DROP("user"),
	DROP("user="),
	DROP("nouser"),
	DROP("users"),
	DROP("owner"),
	DROP("group"),
	DROP("nofail"),
	DROP("_netdev"),
	DROP("comment="),
	DROP("uhelper="),
	/* The source decides whether access times are kept, by how it is mounted. */
	DROP("atime"),
	DROP("diratime"),
	DROP("relatime"),
	DROP("norelatime"),
	DROP("strictatime"),
	DROP("nostrictatime"),
	DROP("lazytime"),
	DROP("nolazytime"),
	DROP("iversion"),
	DROP("noiversion"),
	DROP("nomand"),
	DROP("silent"),
	DROP("loud"),
	/* libfuse 2 wanted this word before it mounted over files; libfuse 3 always does. */
	DROP("nonempty"),
	FUSE_OPT_END,
};

errint_t option_words_refuse(struct option_words *words, const char *format, ...)
{
	va_list args;

	/* One sentence is enough, even if several words are wrong. */
	if (words->refused)
		return -EINVAL;
	words->refused = true;
	va_start(args, format);
	if (vasprintf(&words->refusal, format, args) < 0)
		words->refusal = NULL;
	va_end(args);
	return -EINVAL;
}

/* What take_word() returns for a word that is refused: go on, the caller looks at `refused`. */
#define REFUSE_WORD(words, ...) ((void)option_words_refuse(words, __VA_ARGS__), 0)

static int take_positional(struct option_words *words, const char *word)
{
	char **place = !words->source       ? &words->source
		       : !words->mountpoint ? &words->mountpoint
					    : NULL;

	if (!place)
		return REFUSE_WORD(words,
				   "'%s' is one argument too many: foldfs takes SOURCE and "
				   "MOUNTPOINT.",
				   word);
	if (!*word)
		return REFUSE_WORD(words, "%s must not be empty.",
				   place == &words->source ? "SOURCE" : "MOUNTPOINT");
	*place = strdup(word);
	return *place ? 0 : -1;
}

static int take_unknown(struct option_words *words, const char *word)
{
	/* A superfluous comma is ignored. */
	if (!*word || strncmp(word, "x-", 2) == 0 || strncmp(word, "X-", 2) == 0)
		return 0;
	return REFUSE_WORD(words, "unknown option '%s'.", word);
}

static int set_transport_io_uring(struct option_words *words)
{
	free(words->transport);
	words->transport = strdup("io_uring");
	return words->transport ? 0 : -1;
}

/* Add one GLOB of -o passthrough=GLOB. */
static int take_glob(struct option_words *words, const char *glob)
{
	char **globs;

	if (!*glob)
		return REFUSE_WORD(words, "the option 'passthrough' needs a value.");
	globs = realloc(words->passthrough, (words->passthrough_count + 2) * sizeof(*globs));
	if (!globs)
		return -1;
	words->passthrough = globs;
	globs[words->passthrough_count] = strdup(glob);
	if (!globs[words->passthrough_count])
		return -1;
	globs[++words->passthrough_count] = NULL;
	return 0;
}

/* Keep WORD in *PLACE if it is the first of its kind. */
static int note_first(char **place, const char *word)
{
	if (*place)
		return 0;
	*place = strdup(word);
	return *place ? 0 : -1;
}

static void take_no_passthrough(struct option_words *words)
{
	option_list_free(words->passthrough);
	words->passthrough = NULL;
	words->passthrough_count = 0;
	words->no_passthrough = true;
}

static bool is_own(int key)
{
	return key == FUSE_OPT_KEY_OPT || key == FUSE_OPT_KEY_NONOPT || key == KEY_PASSTHROUGH ||
	       key == KEY_NO_PASSTHROUGH || key == KEY_IO_URING || key == KEY_NO_VALUE;
}

/* fuse_opt calls it for each word: 1 keeps the word for libfuse, 0 drops it, -1 gives up. */
static int take_word(void *data, const char *word, int key, struct fuse_args *kept)
{
	struct option_words *words = data;

	if (key != FUSE_OPT_KEY_NONOPT)
		remount_take_word(&words->remount, word);
	if (!is_own(key) && note_first(&words->foreign, word))
		return -1;
	switch (key) {
	case FUSE_OPT_KEY_NONOPT:
		return take_positional(words, word);
	case FUSE_OPT_KEY_OPT:
		return take_unknown(words, word);
	case KEY_KEEP:
		return 1;
	case KEY_ALLOW_OTHER:
		words->allow_other = 1;
		return 1;
	case KEY_DEFAULT_PERMISSIONS:
		words->default_permissions = 1;
		return 1;
	case KEY_FSNAME:
		words->has_fsname = 1;
		return 1;
	case KEY_SUBTYPE:
		words->has_subtype = 1;
		return 1;
	case KEY_RO:
	case KEY_RW:
		words->read_only = key == KEY_RO;
		return 1;
	case KEY_PASSTHROUGH:
		return take_glob(words, strchr(word, '=') + 1);
	case KEY_NO_PASSTHROUGH:
		take_no_passthrough(words);
		return 0;
	case KEY_READ_ONLY:
		words->read_only = 1;
		return fuse_opt_add_arg(kept, "-oro");
	case KEY_IO_URING:
		return set_transport_io_uring(words);
	case KEY_NO_VALUE:
		return REFUSE_WORD(words, "the option '%s' needs a value.", word);
	case KEY_REMOUNT:
		words->remount.asked = true;
		return 0;
	case KEY_KERNEL:
		return note_first(&words->kernels, word);
	default:
		return 0;
	}
}

errint_t option_words_take(struct fuse_args *args, struct option_words *words)
{
	/* fuse_opt itself reports what it refuses (an -o without a word behind it). */
	return fuse_opt_parse(args, words, table, take_word) == 0 ? 0 : -EINVAL;
}

/* ---- words that were taken ---- */

void option_list_free(char **list)
{
	for (char **word = list; word && *word; word++)
		free(*word);
	free(list);
}

static size_t length_of(char *const *list)
{
	size_t length = 0;

	while (list && list[length])
		length++;
	return length;
}

errint_t option_list_copy(char *const *list, char ***ret_copy)
{
	size_t length = length_of(list);
	char **copy = length ? calloc(length + 1, sizeof(*copy)) : NULL;

	for (size_t i = 0; copy && i < length; i++) {
		copy[i] = strdup(list[i]);
		if (!copy[i]) {
			option_list_free(copy);
			copy = NULL;
		}
	}
	if (length && !copy)
		return -ENOMEM;
	*ret_copy = copy;
	return 0;
}

bool option_lists_equal(char *const *a, char *const *b)
{
	size_t length = length_of(a);

	if (length != length_of(b))
		return false;
	for (size_t i = 0; i < length; i++)
		if (strcmp(a[i], b[i]) != 0)
			return false;
	return true;
}

void option_words_clear(struct option_words *words)
{
#define FREE(name, ...) free(words->name);
	OPTION_VALUES(FREE)
#undef FREE
	option_list_free(words->passthrough);
	free(words->source);
	free(words->mountpoint);
	free(words->kernels);
	free(words->foreign);
	free(words->refusal);
	*words = (struct option_words){0};
}

/* Copy GIVEN to *PLACE, or else PRESENT, which may be NULL too. */
static errint_t choose(const char *given, const char *present, char **place)
{
	const char *text = given ? given : present;

	*place = text ? strdup(text) : NULL;
	return text && !*place ? -ENOMEM : 0;
}

errint_t option_words_merge(const struct option_words *present, const struct option_words *given,
			    struct option_words *ret_words)
{
	struct option_words words = {.read_only = present->read_only};
	bool keeps = !given->passthrough && !given->no_passthrough;
	errint_t error = option_list_copy(keeps ? present->passthrough : given->passthrough,
					  &words.passthrough);

#define CHOOSE(name, ...)                                                                          \
	if (!error)                                                                                \
		error = choose(given->name, present->name, &words.name);
	OPTION_VALUES(CHOOSE)
#undef CHOOSE
#define EITHER(word, field) words.field = present->field || given->field;
	OPTION_FLAGS(EITHER)
#undef EITHER
	words.watch = given->watch ? given->watch : present->watch;
	words.passthrough_count = length_of(words.passthrough);
	if (error)
		option_words_clear(&words);
	else
		*ret_words = words;
	return error;
}

/* Put the number BYTES in the place of a size that was given in another way. */
static errint_t settle(char **size, uint64_t bytes)
{
	char *number = NULL;

	if (asprintf(&number, "%" PRIu64, bytes) < 0)
		return -ENOMEM;
	free(*size);
	*size = number;
	return 0;
}

errint_t option_words_settle(struct option_words *words, const struct options *options)
{
	errint_t error = settle(&words->pool, options->pool_bytes);

	if (!error && words->window)
		error = settle(&words->window, options->window_bytes);
	if (!error && words->maps)
		error = settle(&words->maps, options->maps_bytes);
	if (!error && words->passthrough_max)
		error = settle(&words->passthrough_max, options->passthrough_max);
	return error;
}

char *option_word(const char *name, const char *value)
{
	char *word = malloc(strlen(name) + 1 + 2 * strlen(value) + 1);
	char *at = word ? stpcpy(stpcpy(word, name), "=") : NULL;

	for (; at && *value; *at++ = *value++)
		if (*value == ',' || *value == '\\')
			*at++ = '\\';
	if (at)
		*at = '\0';
	return word;
}

/* Add WORD, malloced and taken over, to the LIST of *LENGTH words. NULL: no memory. */
static errint_t add(char **list, size_t *length, char *word)
{
	if (!word)
		return -ENOMEM;
	list[(*length)++] = word;
	return 0;
}

errint_t option_words_list(const struct option_words *words, char ***ret_list)
{
	/* Values, flags, watch and nopassthrough are fewer. */
	char **list = calloc(words->passthrough_count + 32, sizeof(*list));
	errint_t error = list ? 0 : -ENOMEM;
	size_t length = 0;

	if (!error && words->no_passthrough)
		error = add(list, &length, strdup("nopassthrough"));
	for (size_t i = 0; !error && i < words->passthrough_count; i++)
		error = add(list, &length, option_word("passthrough", words->passthrough[i]));
#define ADD_VALUE(name, ...)                                                                       \
	if (!error && words->name)                                                                 \
		error = add(list, &length, option_word(#name, words->name));
	OPTION_VALUES(ADD_VALUE)
#undef ADD_VALUE
#define ADD_FLAG(word, field)                                                                      \
	if (!error && words->field)                                                                \
		error = add(list, &length, strdup(word));
	OPTION_FLAGS(ADD_FLAG)
#undef ADD_FLAG
	if (!error && words->watch)
		error = add(list, &length, strdup(words->watch == WATCH_ON ? "watch" : "nowatch"));
	if (error)
		option_list_free(list);
	else
		*ret_list = list;
	return error;
}
