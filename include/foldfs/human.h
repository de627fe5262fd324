/* SPDX-License-Identifier: Apache-2.0 */
/* human.h - sizes, numbers and foreign text as people write and read them */
#ifndef FOLDFS_HUMAN_H
#define FOLDFS_HUMAN_H

#include "foldfs/page.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

/* Each function returns the text of the buffer that it is given. */
struct human_buffer {
	char text[48];
};

/* BYTES with three digits or so: 512 B, 1.50 MiB, 63.8 GiB. */
const char *human_size(int64_t bytes, struct human_buffer *buffer);
/* COUNT with a space between groups of three digits. */
const char *human_count(int64_t count, struct human_buffer *buffer);
/* The two largest units: 3 min 20 s. */
const char *human_duration(int64_t seconds, struct human_buffer *buffer);
/* Print text of somebody else's, a path or a daemon's answer, with a ? for each control
 * character. */
void human_print_foreign(FILE *stream, const char *text);
/* Print it to stderr like human_print_foreign(), as one line that begins with PROGRAM. */
__attribute__((format(printf, 2, 0))) void human_complain(const char *program, const char *format,
							  va_list args);

/* The value of the option NAME ("--state") if **ARGV is that option. Either NAME=VALUE, or NAME
 * with the value in the next argument; then *ARGV moves to that argument. NULL: it is another
 * option, or has no value. */
const char *human_option_value(char ***argv, const char *name);

/* Bytes in TEXT: digits, then nothing, K, M, G, T or %. MEMORY_BYTES is what % refers to. -EINVAL
 * for anything else, including a sign or an empty text; -ERANGE above UINT64_MAX or 100 %. */
errint_t human_parse_size(const char *text, uint64_t memory_bytes, uint64_t *ret_bytes);

#endif
