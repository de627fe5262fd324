/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foldctl_commands.h - the commands of foldctl: for its main(), its usage, and the completion of
 * shells (packaging/completion.c)
 */
#ifndef FOLDFS_FOLDCTL_COMMANDS_H
#define FOLDFS_FOLDCTL_COMMANDS_H

#include "foldfs/scan_options.h"

#define COMMAND_CONTROL "--control="

/*
 * X(name, words, lines): command_NAME() does it. WORDS are what may follow the name: options, and in
 * capitals what kind of word it is. LINES say what it does, what is most important before the first
 * colon or semicolon.
 */
#define FOLDCTL_COMMANDS(X)                                                                        \
	X(list, "[--json]",                                                                        \
	  "all mounts of foldfs, one line each; --json for programs, here and\n"                   \
	  "below")                                                                                 \
	X(status, "MOUNTPOINT [--json]",                                                           \
	  "what the foldfs mount on MOUNTPOINT saves and takes; a file of the\n"                   \
	  "mount, or the source, means it as well")                                                \
	X(audit, "MOUNTPOINT [--idle] [--json] [--timeout=SECONDS]",                               \
	  "compare all that the mount holds with its source, and count it\n"                       \
	  "again; status 1: something differs, 2: it could not be done;\n"                         \
	  "--idle: nobody uses the mount")                                                         \
	X(explain, "FILE [--json]", "how a file of a mount, or of its source, is served, and why") \
	X(scan, "[DIR] " SCAN_OPTIONS "\n" SCAN_BORDER " [--state=DIR] [--json]",                  \
	  "read DIR, a mount or a directory that is to be mounted, and keep\n"                     \
	  "for its mounts what its files share;\n"                                                 \
	  "--rate: bytes a second; --memory: for digests; --workers: files at\n"                   \
	  "once; --all-file-systems: also what is mounted below; --state:\n"                       \
	  "where to keep it, if not where the mount says")                                         \
	X(set, "MOUNTPOINT [OPTION…] [--json]",                                                    \
	  "change the mount while it runs: pool=SIZE, window=SIZE, maps=SIZE,\n"                   \
	  "scan=WHEN, watch, nowatch, passthrough=GLOB, nopassthrough,\n"                          \
	  "passthrough_max=SIZE, attr_timeout=SEC, entry_timeout=SEC,\n"                           \
	  "negative_timeout=SEC; without any: show what they are")                                 \
	X(upgrade, "MOUNTPOINT [PROGRAM]",                                                         \
	  "exchange the program that serves the mount for PROGRAM, while\n"                        \
	  "everybody works; without it: for the file from which the running one\n"                 \
	  "was started")                                                                           \
	X(figures, "[--roff]", "what each figure means; --roff: in the form of the manual")

#endif
