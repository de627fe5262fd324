/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foldctl.c - looks at a foldfs mount from outside, and changes it
 *
 * foldctl_find.c finds the mount, foldctl_ask.c asks its daemon, foldctl_views.c asks all daemons
 * at once, and foldctl_text.c prints what they answer; each command has a file of its own. Root may
 * look at any user's mount. So no answer may do harm, whatever it contains, numbers out of all
 * bounds and control characters for the terminal included.
 */
#include "foldctl.h"
#include "foldctl_commands.h"
#include "foldfs/control_place.h"
#include "foldfs/privileges.h"

#include <stdlib.h>
#include <string.h>

static const struct command {
	const char *name, *words, *lines;
	int (*run)(char *argv[]);
} commands[] = {
#define ROW(name, words, lines) {#name, words, lines, command_##name},
	FOLDCTL_COMMANDS(ROW)
#undef ROW
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* Print TEXT and the end of the line. What follows its first line is set in by INDENT columns. */
static void print_lines(FILE *stream, const char *text, int indent)
{
	for (; *text; text++) {
		fputc(*text, stream);
		if (*text == '\n')
			fprintf(stream, "%*s", indent, "");
	}
	fputc('\n', stream);
}

static int usage(FILE *stream)
{
	fputs("Usage: foldctl [" COMMAND_CONTROL "DIR] COMMAND …\n", stream);
	for (size_t i = 0; i < COMMANDS; i++) {
		fprintf(stream, "       foldctl %s ", commands[i].name);
		print_lines(stream, commands[i].words, 16 + (int)strlen(commands[i].name));
	}
	fputc('\n', stream);
	for (size_t i = 0; i < COMMANDS; i++) {
		fprintf(stream, "  %-11s ", commands[i].name);
		print_lines(stream, commands[i].lines, 14);
	}
	fputs("  --control   the directory of the socket, of a mount with -o control=DIR\n"
	      "  --help      show this\n"
	      "  --version   show the version\n",
	      stream);
	return stream == stdout ? finish_output() : EXIT_FAILURE;
}

static bool is_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* Take --control=DIR from the front of the words. False: an error was reported. */
static bool take_control(int *argc, char **argv[])
{
	static const char option[] = COMMAND_CONTROL;
	const char *word = *argc > 1 ? (*argv)[1] : "";

	if (strncmp(word, option, strlen(option)) != 0)
		return true;
	word += strlen(option);
	if (*word != '/')
		return !fail("--control=%s is not an absolute path.", word);
	if (setenv(CONTROL_PLACE_VARIABLE, word, true))
		return !fail("not enough memory.");
	--*argc;
	++*argv;
	return true;
}

int main(int argc, char *argv[])
{
	const char *command;

	/* A scan holds the content of others' files in its memory. */
	privileges_begin();
	if (!take_control(&argc, &argv))
		return EXIT_FAILURE;
	command = argc > 1 ? argv[1] : "";
	if (is_help(command) || (argc == 3 && is_help(argv[2])))
		return usage(stdout);
	if (strcmp(command, "--version") == 0 || strcmp(command, "-V") == 0) {
		printf("foldctl %s\n", FOLDFS_VERSION);
		return finish_output();
	}
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(command, commands[i].name) == 0)
			return commands[i].run(argv + 2);
	if (*command)
		return fail("unknown command '%s'; 'foldctl --help' says more.", command);
	return usage(stderr);
}
