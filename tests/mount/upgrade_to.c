/* SPDX-License-Identifier: Apache-2.0 */
/*
 * upgrade_to.c - a program that foldctl upgrade is given, and that is not what it seems
 *
 * FOLDFS_REAL is the true foldfs. FOLDFS_WRONG says what is wrong with this one:
 *   foreign  its records have another form
 *   exits    it ends as soon as it takes over
 *   crashes  it dies as soon as it takes over
 *   dies     its workers die, each at its start (FOLDFS_DIES_LIBRARY is this file as a library)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef LIBRARY
#include <pthread.h>

/* The next program has nothing of it. */
static void __attribute__((constructor)) begin(void)
{
	unsetenv("LD_PRELOAD");
}

/* Only workers have threads. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
		   void *argument)
{
	(void)thread;
	(void)attributes;
	(void)run;
	(void)argument;
	abort();
}
#else
int main(int argc, char *argv[])
{
	const char *real = getenv("FOLDFS_REAL"), *wrong = getenv("FOLDFS_WRONG");
	int asked = argc == 2 && strcmp(argv[1], "--session-format") == 0;

	if (!real || !wrong)
		return 1;
	if (asked && strcmp(wrong, "foreign") == 0)
		return puts("0-0-0") < 0;
	if (!asked && strcmp(wrong, "exits") == 0)
		return 1;
	if (!asked && strcmp(wrong, "crashes") == 0)
		abort();
	if (!asked && strcmp(wrong, "dies") == 0)
		setenv("LD_PRELOAD", getenv("FOLDFS_DIES_LIBRARY"), 1);
	execv(real, argv);
	return 1;
}
#endif
