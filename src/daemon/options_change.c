/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options_change.c - what words change of a mount that stands, or why they are refused
 *
 * The words are taken and judged by the code that takes and judges those of a start
 * (options_words.c, options_judge.c). A word that says what holds already changes nothing, so all
 * words of an fstab line can be said again. A word that differs is refused by name if what it
 * concerns was settled with the mount.
 */
#include "options_change.h"

#include "options_judge.h"
#include "options_parse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* auto is dev. */
static bool same_transport(const struct options *a, const struct options *b)
{
	return (a->transport == TRANSPORT_IO_URING) == (b->transport == TRANSPORT_IO_URING);
}

/* What a mount has for good: X(word, whether it stays the same, why it cannot change). */
#define FIXED(X)                                                                                   \
	X("transport", same_transport(from, to),                                                   \
	  "it was agreed with the kernel how requests come")                                       \
	X("seccomp", from->seccomp == to->seccomp,                                                 \
	  "a filter of system calls is never taken off, and goes before the first request")        \
	X("survive", from->survive == to->survive, "it takes another process from the start")      \
	X("survive_wait", from->survive_wait == to->survive_wait, "it is the keeper's")            \
	X("watchdog", from->watchdog == to->watchdog, "it is the keeper's")                        \
	X("locks", from->locks == to->locks, "clients may hold some")                              \
	X("state", same_text(from->state, to->state),                                              \
	  "the catalogue is open, and what is served rests on it")                                 \
	X("control", same_text(from->control, to->control), "the socket is where it was made")     \
	X("coherence", from->coherence_overlay == to->coherence_overlay,                           \
	  "files that are open rest on what was promised to their readers")                        \
	X("source-stacked", from->source_stacked == to->source_stacked,                            \
	  "the kernel was told how many file systems are stacked")                                 \
	X("one-file-system", (from->border == BORDER_ONE) == (to->border == BORDER_ONE),           \
	  "clients may have open what is mounted below the source")                                \
	X("pseudo-filesystems", from->pseudo_filesystems == to->pseudo_filesystems,                \
	  "clients may have open what is mounted below the source")                                \
	X("window", !from->window_bytes == !to->window_bytes,                                      \
	  "window=0 is direct I/O, which holds for a file as long as it is open")

static errint_t refuse_fixed(struct option_words *words, const char *word, const char *why)
{
	return option_words_refuse(words, "%s cannot change while it is mounted: %s.", word, why);
}

static errint_t judge_fixed(struct option_words *words, const struct options *from,
			    const struct options *to)
{
#define REFUSE(word, same, why)                                                                    \
	if (!(same))                                                                               \
		return refuse_fixed(words, word, why);
	FIXED(REFUSE)
#undef REFUSE
	return 0;
}

/* Words that mean nothing to the daemon of a mount that stands. */
static errint_t judge_foreign(struct option_words *words)
{
	if (words->refused)
		return -EINVAL;
	if (words->foreground || words->debug || words->help || words->version)
		return option_words_refuse(words, "-d, -f, -h and -V are for a start alone.");
	if (words->replace)
		return refuse_fixed(words, "replace", "it is about what was mounted before");
	if (words->foreign && remount_is_word(words->foreign))
		return option_words_refuse(words,
					   "%s is the kernel's: mount -o remount,%s changes it.",
					   words->foreign, words->foreign);
	if (words->foreign)
		return refuse_fixed(words, words->foreign, "it is for other programs than foldfs");
	return 0;
}

/* Take COUNT words of -o. */
static errint_t take(const char *const list[], size_t count, struct option_words *words)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	bool failed = fuse_opt_add_arg(&args, "foldfs") != 0;
	errint_t error;

	for (size_t i = 0; i < count; i++)
		failed =
			failed || fuse_opt_add_arg(&args, "-o") || fuse_opt_add_arg(&args, list[i]);
	error = failed ? -ENOMEM : option_words_take(&args, words);
	fuse_opt_free_args(&args);
	return error;
}

/* Judge what holds once GIVEN is said, too. */
static errint_t judge(const struct options *present, struct option_words *given,
		      struct options *ret_changed)
{
	struct option_words merged = {0};
	struct options changed = {.read_only = present->read_only};
	errint_t error = option_words_merge(present->words, given, &merged);

	if (!error)
		error = options_judge(&merged, options_sum(present), &changed);
	if (!error)
		error = judge_fixed(&merged, present, &changed);
	if (!error)
		error = option_words_settle(&merged, &changed);
	if (!error && !(changed.words = malloc(sizeof(*changed.words))))
		error = -ENOMEM;
	if (error) {
		if (merged.refused && merged.refusal)
			option_words_refuse(given, "%s", merged.refusal);
		option_words_clear(&merged);
		options_clear(&changed);
		return error;
	}
	*changed.words = merged;
	*ret_changed = changed;
	return 0;
}

errint_t options_change(const struct options *present, const char *const words[], size_t count,
			struct options *ret_changed, char **ret_refusal)
{
	struct option_words given = {0};
	errint_t error = take(words, count, &given);

	if (!error)
		error = judge_foreign(&given);
	if (!error)
		error = judge(present, &given, ret_changed);
	if (error) {
		*ret_refusal = given.refusal ? given.refusal : strdup("not enough memory.");
		given.refusal = NULL;
		error = -EINVAL;
	}
	option_words_clear(&given);
	return error;
}

/* Exchange two values of one type. */
#define EXCHANGE(a, b)                                                                             \
	do {                                                                                       \
		__typeof__(a) kept_ = (a);                                                         \
		(a) = (b);                                                                         \
		(b) = kept_;                                                                       \
	} while (0)

void options_commit(struct options *present, struct options *changed)
{
	present->pool_bytes = changed->pool_bytes;
	present->window_bytes = changed->window_bytes;
	present->maps_bytes = changed->maps_bytes;
	present->passthrough_max = changed->passthrough_max;
	present->scan_background = changed->scan_background;
	present->watch = changed->watch;
	present->attr_timeout = changed->attr_timeout;
	present->entry_timeout = changed->entry_timeout;
	present->negative_timeout = changed->negative_timeout;
	EXCHANGE(present->passthrough, changed->passthrough);
	EXCHANGE(present->words, changed->words);
	options_clear(changed);
}
