/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.c - the program's log lines
 *
 * The state is global, as that of libfuse's own log is: libfuse takes a log function without a
 * context.
 */
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

static bool to_system; /* set once, before any thread runs */
static _Atomic unsigned errors;

void log_line(enum fuse_log_level level, const char *format, va_list args)
{
	/* libfuse begins its lines with its own name, and ends them with a newline. */
	static const char prefix[] = "fuse: ";
	char text[1024];
	char *start = text;
	size_t length;
	int cancelled;

	/* A thread that is cancelled while it prints leaves the stream locked for ever. libfuse
	 * logs from within the read of a request, where threads are cancelled. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelled);
	if (level <= FUSE_LOG_ERR)
		atomic_fetch_add(&errors, 1);
	vsnprintf(text, sizeof(text), format, args);
	if (strncmp(start, prefix, strlen(prefix)) == 0)
		start += strlen(prefix);
	length = strlen(start);
	if (length > 0 && start[length - 1] == '\n')
		start[length - 1] = '\0';
	if (to_system)
		syslog((int)level, "%s", start);
	else
		fprintf(stderr, "foldfs: %s\n", start);
	pthread_setcancelstate(cancelled, NULL);
}

errint_t complain(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_line(FUSE_LOG_ERR, format, args);
	va_end(args);
	return -EINVAL;
}

void log_to_system(void)
{
	openlog("foldfs", LOG_PID, LOG_DAEMON);
	to_system = true;
}

bool log_is_to_system(void)
{
	return to_system;
}

unsigned log_errors(void)
{
	return atomic_load(&errors);
}
