/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl.h - what the foldctl*.c files share; no other file includes it. */
#ifndef FOLDFS_FOLDCTL_H
#define FOLDFS_FOLDCTL_H

#include "foldfs/human.h"
#include "foldfs/mountinfo.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* How long a daemon has to answer a request that takes no work. */
#define ANSWER_MS 5000
/* foldctl audit: nothing was compared, or not everything. A difference gives EXIT_FAILURE. */
#define EXIT_NOT_DONE 2

/* foldctl_text.c: print one sentence on standard error. Returns EXIT_FAILURE. */
__attribute__((format(printf, 1, 2))) int fail(const char *format, ...);
/* number(): the number at KEY, which may have one dot; 0 if there is none. text(): the text at KEY;
 * "?" if there is none. */
int64_t number(const json_t *answer, const char *key);
const char *text(const json_t *answer, const char *key);
/* Finish writing standard output, or report an error. Returns the exit status. */
int finish_output(void);

/* Take OPTION, and at most one word of ARGV that is no option. False: an error was reported. */
bool take_arguments(char *argv[], const char *option, const char **ret_word, bool *ret_given);

/* foldctl_ask.c: send REQUEST, a line, to the daemon of ENTRY. Its answer is the caller's. 0, or an
 * error was reported. */
int ask(const struct mount_entry *entry, const char *request, int64_t answer_within_ms,
	json_t **ret_answer);
/* Whether ENTRY is a foldfs mount, judged by its type or by its daemon. In the second case foldctl
 * connects to the daemon. */
bool is_ours(const struct mount_entry *entry);
/* The foldfs mount that PATH means: one that is on PATH, one of the caller's that serves PATH, or
 * one that PATH lies on. 0, or an error was reported. */
int find_mount(const char *path, struct mount_entry *ret_entry);

/* The commands; ARGV is what follows the command's name. They return the exit status. */
int command_status(char *argv[]);
int command_audit(char *argv[]);
int command_explain(char *argv[]);
int command_scan(char *argv[]);
int command_figures(char *argv[]);

#endif
