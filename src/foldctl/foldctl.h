/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl.h - what the foldctl*.c files share; nobody else includes it. */
#ifndef FOLDFS_FOLDCTL_H
#define FOLDFS_FOLDCTL_H

#include "foldfs/human.h"
#include "foldfs/mountinfo.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* How long a daemon has for an answer that it need not work for. */
#define ANSWER_MS 5000
/* foldctl audit: nothing was compared, or not all. A difference is EXIT_FAILURE. */
#define EXIT_NOT_DONE 2

/* foldctl_text.c: one sentence on standard error. Returns EXIT_FAILURE. */
__attribute__((format(printf, 1, 2))) int fail(const char *format, ...);
/* The number at KEY, which may have one dot, 0 where there is none; the text at KEY, "?" where
 * there is none. */
int64_t number(const json_t *answer, const char *key);
const char *text(const json_t *answer, const char *key);
/* Standard output is written, or an error said. The exit status. */
int finish_output(void);

/* At most one word of ARGV that is no option, and OPTION. False: an error was said. */
bool take_arguments(char *argv[], const char *option, const char **ret_word, bool *ret_given);

/* foldctl_ask.c: send REQUEST, a line, to the daemon of ENTRY; its answer, the caller's. 0, or an
 * error was said. */
int ask(const struct mount_entry *entry, const char *request, int64_t answer_within_ms,
	json_t **ret_answer);
/* Whether ENTRY is a foldfs mount, by its type or by its daemon, which is connected to then. */
bool is_ours(const struct mount_entry *entry);
/* The foldfs mount that PATH means: that is on PATH, that serves it and is the caller's, or that it
 * lies on. 0, or an error was said. */
int find_mount(const char *path, struct mount_entry *ret_entry);

/* The commands; ARGV is what follows the command's name. The exit status. */
int command_status(char *argv[]);
int command_audit(char *argv[]);
int command_explain(char *argv[]);
int command_scan(char *argv[]);
int command_figures(char *argv[]);

#endif
