/* SPDX-License-Identifier: Apache-2.0 */
/* text.h - numbers and foreign text as people read them */
#ifndef FOLDFS_TEXT_H
#define FOLDFS_TEXT_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

/* Each function returns the text of the buffer that it is given. */
struct text_buffer {
	char text[48];
};

/* BYTES with three digits or so: 512 B, 1.50 MiB, 63.8 GiB. */
const char *text_size(int64_t bytes, struct text_buffer *buffer);
/* COUNT with a space between groups of three digits. */
const char *text_count(int64_t count, struct text_buffer *buffer);
/* The two largest units: 3 min 20 s. */
const char *text_duration(int64_t seconds, struct text_buffer *buffer);
/* Print what somebody else says, a path or a daemon's answer, with a ? for each control
 * character. */
void text_print_foreign(FILE *stream, const char *text);
/* The same to stderr, as one line that begins with PROGRAM. */
__attribute__((format(printf, 2, 0))) void text_complain(const char *program, const char *format,
							 va_list args);

/* The value of the option NAME ("--state") if **ARGV is that: NAME=VALUE, or NAME with the value in
 * the next argument, to which *ARGV moves then. NULL: it is another one, or has no value. */
const char *text_option_value(char ***argv, const char *name);

#endif
