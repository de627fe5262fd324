/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl_text.c - how foldctl prints its sentences, and how it reads answers */
#include "foldctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	human_complain("foldctl", format, args);
	va_end(args);
	return EXIT_FAILURE;
}

const json_t *value_at(const json_t *status, const char *key)
{
	const char *dot = strchr(key, '.');
	char group[32];

	if (!dot)
		return json_object_get(status, key);
	snprintf(group, sizeof(group), "%.*s", (int)(dot - key), key);
	return json_object_get(json_object_get(status, group), dot + 1);
}

/* 0 if there is none. */
int64_t number(const json_t *status, const char *key)
{
	return json_integer_value(value_at(status, key));
}

const char *text(const json_t *status, const char *key)
{
	const char *value = json_string_value(value_at(status, key));

	return value ? value : "?";
}

int64_t bytes_of_pages(int64_t count, int64_t page_bytes)
{
	int64_t bytes;

	if (__builtin_mul_overflow(count, page_bytes, &bytes))
		return (count < 0) == (page_bytes < 0) ? INT64_MAX : INT64_MIN;
	return bytes;
}

/* The output must have arrived: a full disk is an error like any other. */
int finish_output(void)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		return fail("cannot write the output: %s.", strerror(errno));
	return EXIT_SUCCESS;
}

/* Take OPTION, and at most one word that is no option, from the words after the command. */
bool take_arguments(char *argv[], const char *option, const char **ret_word, bool *ret_given)
{
	const char *word = NULL;
	bool given = false, options_end = false;

	for (; *argv; argv++) {
		if (!options_end && strcmp(*argv, "--") == 0)
			options_end = true;
		else if (!options_end && strcmp(*argv, option) == 0)
			given = true;
		else if (!options_end && (*argv)[0] == '-' && (*argv)[1])
			return !fail("unknown option '%s'.", *argv);
		else if (word)
			return !fail("'%s' is one argument too many.", *argv);
		else
			word = *argv;
	}
	*ret_word = word;
	*ret_given = given;
	return true;
}
