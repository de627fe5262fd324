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
#include "foldfs/control_place.h"
#include "foldfs/privileges.h"

#include <stdlib.h>
#include <string.h>

static int usage(FILE *stream)
{
	fputs("Usage: foldctl [--control=DIR] COMMAND …\n"
	      "       foldctl list [--json]\n"
	      "       foldctl status MOUNTPOINT [--json]\n"
	      "       foldctl audit MOUNTPOINT [--idle] [--json] [--timeout=SECONDS]\n"
	      "       foldctl explain FILE [--json]\n"
	      "       foldctl scan [DIR] [--rate=SIZE] [--memory=SIZE] [--workers=N] "
	      "[--all-file-systems]\n"
	      "                    [--state=DIR] [--json]\n"
	      "       foldctl set MOUNTPOINT [OPTION…] [--json]\n"
	      "       foldctl upgrade MOUNTPOINT [PROGRAM]\n"
	      "       foldctl figures [--roff]\n"
	      "\n"
	      "  list        all mounts of foldfs, one line each; --json for programs, here and "
	      "below\n"
	      "  status      what the foldfs mount on MOUNTPOINT saves and takes; a file of the "
	      "mount, or\n"
	      "              the source, means it as well\n"
	      "  audit       compare all that the mount holds with its source, and count it "
	      "again;\n"
	      "              status 1: something differs, 2: it could not be done;\n"
	      "              --idle: nobody uses the mount\n"
	      "  explain     how a file of a mount, or of its source, is served, and why\n"
	      "  scan        read DIR, a mount or a directory that is to be mounted, and keep for "
	      "its\n"
	      "              mounts what its files share;\n"
	      "              --rate: bytes a second; --memory: for digests; --workers: files at "
	      "once;\n"
	      "              --all-file-systems: also what is mounted below; --state: where to "
	      "keep it,\n"
	      "              if not where the mount says\n"
	      "  set         change the mount while it runs: pool=SIZE, window=SIZE, maps=SIZE, "
	      "scan=WHEN,\n"
	      "              watch, nowatch, passthrough=GLOB, nopassthrough, "
	      "passthrough_max=SIZE,\n"
	      "              attr_timeout=SEC, entry_timeout=SEC, negative_timeout=SEC; without "
	      "any: show\n"
	      "              what they are\n"
	      "  upgrade     exchange the program that serves the mount for PROGRAM, while "
	      "everybody "
	      "works;\n"
	      "              without it: for the file from which the running one was started\n"
	      "  figures     what each figure means; --roff: in the form of the manual\n"
	      "  --control   the directory of the socket, of a mount with -o control=DIR\n"
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
	static const char option[] = "--control=";
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
	if (strcmp(command, "list") == 0)
		return command_list(argv + 2);
	if (strcmp(command, "status") == 0)
		return command_status(argv + 2);
	if (strcmp(command, "audit") == 0)
		return command_audit(argv + 2);
	if (strcmp(command, "explain") == 0)
		return command_explain(argv + 2);
	if (strcmp(command, "scan") == 0)
		return command_scan(argv + 2);
	if (strcmp(command, "set") == 0)
		return command_set(argv + 2);
	if (strcmp(command, "upgrade") == 0)
		return command_upgrade(argv + 2);
	if (strcmp(command, "figures") == 0)
		return command_figures(argv + 2);
	if (*command)
		return fail("unknown command '%s'; 'foldctl --help' says more.", command);
	return usage(stderr);
}
