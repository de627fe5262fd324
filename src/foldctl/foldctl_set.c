/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl_set.c - foldctl set: change a mount while it runs, or show what can be changed */
#include "foldctl.h"

#include <stdlib.h>
#include <string.h>

/* Giving up maps, or ending a scan or a watch, may take a while. */
#define SET_MS 60000

static const char *text_at(const json_t *list, size_t index)
{
	const char *text = json_string_value(json_array_get(list, index));

	return text ? text : "?";
}

/* Print WORD, one of the answer's. Its name is in FOLLOWS if it follows another one. */
static void print_word(const char *word, const json_t *follows)
{
	human_print_foreign(stdout, word);
	for (size_t i = 0; i < json_array_size(follows); i++) {
		const char *name = text_at(follows, i);
		size_t length = strlen(name);

		if (strncmp(word, name, length) == 0 && word[length] == '=')
			printf("  (follows %s)",
			       strcmp(name, "negative_timeout") == 0 ? "entry_timeout" : "pool");
	}
	putchar('\n');
}

static int print_settings(const json_t *answer)
{
	const json_t *words = json_object_get(answer, "words");

	if (!json_array_size(words))
		return fail("the daemon does not say what can be changed.");
	for (size_t i = 0; i < json_array_size(words); i++)
		print_word(text_at(words, i), json_object_get(answer, "follows"));
	return EXIT_SUCCESS;
}

static void print_changes(const json_t *answer)
{
	const json_t *changes = json_object_get(answer, "changed");

	for (size_t i = 0; i < json_array_size(changes); i++) {
		const json_t *change = json_array_get(changes, i);

		human_print_foreign(stdout, text(change, "to"));
		printf("  (was ");
		human_print_foreign(stdout, text(change, "from"));
		printf(")\n");
	}
}

/* Print the ANSWER to a request that named words (GIVEN) or none. */
static int print_answer(const json_t *answer, bool given, bool as_json)
{
	const char *refused = json_string_value(json_object_get(answer, "refused"));

	if (refused)
		return fail("%s", refused);
	if (as_json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (given) {
		print_changes(answer);
	} else if (print_settings(answer)) {
		return EXIT_FAILURE;
	}
	return finish_output();
}

static int set(const char *path, const char *const words[], bool as_json)
{
	char *request = control_request_of_words("set", words, false);
	struct mount_entry entry;
	json_t *answer = NULL;
	int result;

	if (!request)
		return fail("not enough memory, or a word is not UTF-8.");
	result = find_mount(path, &entry);
	if (!result) {
		result = ask(&entry, request, SET_MS, &answer);
		mount_entry_clear(&entry);
	}
	free(request);
	if (!result)
		result = print_answer(answer, words[0] != NULL, as_json);
	json_decref(answer);
	return result;
}

/* The first word that is no option is the mount point, the others are words of -o. */
int command_set(char *argv[])
{
	const char *path = NULL;
	bool as_json = false, options_end = false;
	char **kept = argv;
	char **next = argv;

	for (; *next; next++) {
		if (!options_end && strcmp(*next, "--") == 0)
			options_end = true;
		else if (!options_end && strcmp(*next, "--json") == 0)
			as_json = true;
		else if (!options_end && (*next)[0] == '-' && (*next)[1])
			return fail("unknown option '%s'.", *next);
		else if (!path)
			path = *next;
		else
			*kept++ = *next;
	}
	*kept = NULL;
	if (!path)
		return fail("set needs a MOUNTPOINT.");
	return set(path, (const char *const *)argv, as_json);
}
