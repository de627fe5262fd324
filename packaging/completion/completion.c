/* SPDX-License-Identifier: Apache-2.0 */
/*
 * completion.c - fills a template of a shell's completion with what the programs take
 *
 *	completion TEMPLATE >FILE
 *
 * It is run by the build. What is offered comes from the tables that the programs themselves go by.
 * A line of the template that is a name between two @ is replaced.
 */
#include "daemon/option_table.h"
#include "foldctl/foldctl_commands.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_argument(const char *word)
{
	return *word == '-';
}

/* Print NAME with each of the choices of VALUE. A value of another kind is still to be typed. */
static void print_value(const char *name, const char *value)
{
	if (!strchr(value, '|')) {
		printf("\t%s=\n", name);
		return;
	}
	while (*value) {
		size_t length = strcspn(value, "|");

		printf("\t%s=%.*s\n", name, (int)length, value);
		value += length + (value[length] == '|');
	}
}

/* Words for -o of foldfs, or those of them that `foldctl set` takes. */
static void print_words(bool of_set)
{
#define VALUE(name, value, changes)                                                                \
	if (changes || !of_set)                                                                    \
		print_value(#name, value);
#define FLAG(word, field)                                                                          \
	if (!of_set)                                                                               \
		printf("\t%s\n", word);
#define SET(word, field, to, changes)                                                              \
	if (!is_argument(word) && (changes || !of_set))                                            \
		printf("\t%s\n", word);
#define WORD(word, key, changes) SET(word, , , changes)
#define KEPT(word)               FLAG(word, )
	OPTION_VALUES(VALUE)
	OPTION_SETS(SET)
	OPTION_WORDS(WORD)
	OPTION_FLAGS(FLAG)
	OPTION_KEPT(KEPT)
#undef VALUE
#undef FLAG
#undef SET
#undef WORD
#undef KEPT
}

static void print_mount_words(void)
{
	print_words(false);
}

static void print_set_words(void)
{
	print_words(true);
}

static void print_arguments(void)
{
#define ARGUMENT(word, ...)                                                                        \
	if (is_argument(word))                                                                     \
		printf("\t%s\n", word);
	OPTION_SETS(ARGUMENT)
	OPTION_WORDS(ARGUMENT)
#undef ARGUMENT
	printf("\t-o\n\t" ESTIMATE_OPTION "\n");
}

/* The options in WORDS, a line of a usage, with a = where a value follows. */
static void print_options(const char *words)
{
	for (const char *at = strstr(words, "--"); at; at = strstr(at + 2, "--")) {
		size_t length = strcspn(at, "=] \n");

		printf(" %.*s", (int)(length + (at[length] == '=')), at);
	}
}

/* The words in capitals in WORDS that are no value of an option. */
static void print_operands(const char *words)
{
	static const char capitals[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

	for (const char *at = words; *at;) {
		size_t blanks = strspn(at, " \n[");
		size_t length;

		at += blanks;
		length = strspn(at, capitals);
		if (length)
			printf(" %.*s", (int)length, at);
		at += strcspn(at, " \n");
	}
}

static void print_estimate_options(void)
{
	printf("\t");
	print_options(SCAN_OPTIONS " " SCAN_BORDER " [--json]");
	printf("\n");
}

static void print_commands(void)
{
#define COMMAND(name, words, lines) printf("\t%s\n", #name);
	FOLDCTL_COMMANDS(COMMAND)
#undef COMMAND
}

/* For each command a branch of a shell's case: its options, and what else it takes. */
static void print_branch(const char *name, const char *words)
{
	printf("\t%s)\n\t\toptions=\"", name);
	print_options(words);
	printf("\"\n\t\toperands=\"");
	print_operands(words);
	printf("\"\n\t\t;;\n");
}

static void print_branches(void)
{
#define COMMAND(name, words, lines) print_branch(#name, words);
	FOLDCTL_COMMANDS(COMMAND)
#undef COMMAND
}

/* The first thing that LINES say, as one word of a shell. */
static void print_description(const char *name, const char *lines)
{
	printf("\t\"%s:", name);
	for (; *lines && !strchr(":;", *lines); lines++)
		putchar(*lines == '\n' ? ' ' : *lines);
	printf("\"\n");
}

static void print_descriptions(void)
{
#define COMMAND(name, words, lines) print_description(#name, lines);
	FOLDCTL_COMMANDS(COMMAND)
#undef COMMAND
}

static const struct part {
	const char *line;
	void (*print)(void);
} parts[] = {
	{"@MOUNT_WORDS@\n", print_mount_words},
	{"@SET_WORDS@\n", print_set_words},
	{"@ARGUMENTS@\n", print_arguments},
	{"@ESTIMATE_OPTIONS@\n", print_estimate_options},
	{"@COMMANDS@\n", print_commands},
	{"@COMMAND_BRANCHES@\n", print_branches},
	{"@COMMAND_DESCRIPTIONS@\n", print_descriptions},
};

static void print_line(const char *line)
{
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (strcmp(line, parts[i].line) == 0) {
			parts[i].print();
			return;
		}
	fputs(line, stdout);
}

int main(int argc, char *argv[])
{
	FILE *template = argc == 2 ? fopen(argv[1], "r") : NULL;
	char line[1024];

	if (!template) {
		fprintf(stderr, "completion: it takes the name of a template that can be read.\n");
		return EXIT_FAILURE;
	}
	while (fgets(line, sizeof(line), template))
		print_line(line);
	fclose(template);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		perror("completion: cannot write the output");
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
