/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options_parse.h - the command line and -o options of foldfs
 *
 * Parsed with fuse_opt. Words that are not ours are left in `fuse` for libfuse, which refuses
 * unknown options by name. A size is a number with K, M, G, T (powers of 1024) or % (of the
 * machine's memory).
 */
#ifndef FOLDFS_OPTIONS_PARSE_H
#define FOLDFS_OPTIONS_PARSE_H

#include "foldfs/options.h"

/* Parse ARGV. For bad options, prints one clear sentence to stderr and returns -EINVAL. On success
 * the caller owns what OPTIONS holds, and frees it with options_clear(). */
errint_t options_parse(int argc, char *argv[], struct options *ret_options);
void options_clear(struct options *options);
void options_print_help(const char *program);

#endif
