/* SPDX-License-Identifier: Apache-2.0 */
/* scan_command.h - foldctl scan and foldfs --estimate: one command line, one table */
#ifndef FOLDFS_SCAN_COMMAND_H
#define FOLDFS_SCAN_COMMAND_H

#include "foldfs/scan.h"

#include <stdio.h>

struct scan_command {
	const char *program; /* for messages */
	const char *directory;
	const char *state; /* NULL: the default; for foldctl scan only */
	bool json;
	struct scan_options options;
};

/* Parse ARGV, the words after the command. With ESTIMATE, the options that concern a catalogue are
 * unknown. -EINVAL: one sentence was printed to stderr. The words are borrowed. */
errint_t scan_command_parse(const char *program, bool estimate, char *argv[],
			    struct scan_command *ret_command);

/* Scan the directory open as ROOT_FD, called PATH, and print the table. Progress is shown on a
 * terminal. The first SIGINT, SIGTERM or SIGHUP ends the scan, which keeps what was found. Returns
 * an exit status. */
int scan_command_run(const struct scan_command *command, int root_fd, const char *path);

/* foldfs --estimate, with ARGV after that word. Returns an exit status. */
int scan_estimate(char *argv[]);

/* In scan_report.c: the result as a table for people, and as JSON for programs. 0, or -errno of the
 * output. */
errint_t scan_report_table(FILE *stream, const char *path, const struct scan_result *result);
errint_t scan_report_json(FILE *stream, const char *path, const struct scan_options *options,
			  const struct scan_result *result);
/* Overwrite the last line of a terminal that has COLUMNS columns. SECONDS is the time since the
 * start. */
void scan_report_progress(FILE *stream, const struct scan_progress *progress, double seconds,
			  int columns);
void scan_report_progress_end(FILE *stream);

#endif
