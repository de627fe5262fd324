/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - the program's log lines: to stderr, or to the system log once the terminal is left */
#ifndef FOLDFS_LOG_H
#define FOLDFS_LOG_H

#include "foldfs/page.h"

#include <fuse_lowlevel.h>
#include <stdarg.h>

/* Log one line as libfuse hands it on (fuse_set_log_func()), with or without a newline. Any
 * thread. */
__attribute__((format(printf, 2, 0))) void log_line(enum fuse_log_level level, const char *format,
						    va_list args);
/* Log an error in one sentence. Always returns -EINVAL. Any thread. */
__attribute__((format(printf, 1, 2))) errint_t complain(const char *format, ...);

/* From now on, lines go to the system log. Call it before any thread runs. */
void log_to_system(void);
bool log_is_to_system(void);
/* The number of errors logged so far: it tells whether a failure has been explained. Any thread. */
unsigned log_errors(void);

#endif
