/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options_words.h - which words there are, and which of them were given: for the options_*.c files
 *
 * The words of the command line, of -o, of mount(8) and of `foldctl set` are taken here, as text.
 * options_judge.c judges them.
 */
#ifndef FOLDFS_OPTIONS_WORDS_H
#define FOLDFS_OPTIONS_WORDS_H

#include "foldfs/options.h"
#include "option_table.h"
#include "remount.h"

enum { WATCH_UNSAID, WATCH_ON, WATCH_OFF };

/* The words as they were given, before they are judged. All zero: none. */
struct option_words {
	char *source;
	char *mountpoint;
#define OPTION_FIELD(name, ...) char *name;
	OPTION_VALUES(OPTION_FIELD)
#undef OPTION_FIELD
#define OPTION_FIELD(word, field) int field;
	OPTION_FLAGS(OPTION_FIELD)
#undef OPTION_FIELD
	char **passthrough; /* globs, NULL at the end */
	size_t passthrough_count;
	bool no_passthrough; /* what was named before does not count */
	int watch;
	int read_only;
	int replace;
	int foreground;
	int debug;
	int help;
	int version;
	int allow_other;
	int default_permissions;
	int has_fsname;
	int has_subtype;
	char *kernels; /* the first word that only the list of mounts contains */
	char *foreign; /* the first word that is the kernel's, libfuse's or another program's */
	bool refused;  /* a word or value was refused */
	char *refusal; /* why; NULL: no memory for the sentence */
	struct remount remount;
};

/* Take what ARGS has into WORDS. What is libfuse's stays in ARGS. A word that is refused is noted
 * in WORDS. -EINVAL: fuse_opt has refused something and said so, or there is no memory. */
errint_t option_words_take(struct fuse_args *args, struct option_words *words);
/* Free all that WORDS holds. */
void option_words_clear(struct option_words *words);

/* Refuse a word or a value by this sentence, unless another one was refused before. -EINVAL. */
__attribute__((format(printf, 2, 3))) errint_t option_words_refuse(struct option_words *words,
								   const char *format, ...);

/* What holds when GIVEN is said of a mount that has the words PRESENT: what is given, and else what
 * is there. -ENOMEM. */
errint_t option_words_merge(const struct option_words *present, const struct option_words *given,
			    struct option_words *ret_words);
/* Make the sizes in WORDS, which were judged as OPTIONS, plain numbers. So they mean the same when
 * they are judged again, however much memory there is then. -ENOMEM. */
errint_t option_words_settle(struct option_words *words, const struct options *options);

/* NAME=VALUE as -o takes it, with what it takes for special escaped. Malloced; NULL: no memory. */
char *option_word(const char *name, const char *value);
/* All of WORDS that are foldfs's own and say something about a mount that stands, as words of -o.
 * NULL at the end; the caller's. -ENOMEM. */
errint_t option_words_list(const struct option_words *words, char ***ret_list);

/* Lists of words, NULL at the end; a list may be NULL. -ENOMEM. */
void option_list_free(char **list);
errint_t option_list_copy(char *const *list, char ***ret_copy);
bool option_lists_equal(char *const *a, char *const *b);

#endif
