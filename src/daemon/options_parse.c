/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options_parse.c - the command line and -o options of foldfs
 *
 * options_words.c takes the words, options_judge.c judges the values. Here is what concerns a start
 * alone: source and mount point, and what libfuse is told.
 */
#include "options_parse.h"

#include "foldfs/scan_options.h"
#include "options_judge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static errint_t judge_positional(struct option_words *words, struct options *options)
{
	if (!words->source)
		return option_words_refuse(
			words, "SOURCE and MOUNTPOINT are missing; 'foldfs --help' says more.");
	if (!words->mountpoint)
		return option_words_refuse(words,
					   "MOUNTPOINT is missing; 'foldfs --help' says more.");
	options->source = words->source;
	options->mountpoint = words->mountpoint;
	words->source = words->mountpoint = NULL;
	return 0;
}

static errint_t add_escaped(char **list, const char *name, const char *value)
{
	char *word = NULL;
	errint_t error;

	if (asprintf(&word, "%s=%s", name, value) < 0)
		return -ENOMEM;
	error = fuse_opt_add_opt_escaped(list, word) == 0 ? 0 : -ENOMEM;
	free(word);
	return error;
}

static errint_t add_fsname(char **list, const char *source)
{
	/* A source that does not resolve is refused later, with the reason. */
	char *absolute = realpath(source, NULL);
	errint_t error = add_escaped(list, "fsname", absolute ? absolute : source);

	free(absolute);
	return error;
}

/*
 * Add the words that the user left to the daemon.
 *
 * default_permissions is added for a plain user too: the kernel then checks modes and ACLs before
 * it asks, and this check also answers access(2). It takes nothing away: what the daemon, running
 * as that user, may not do on the source fails there anyway. And where the user allows other users
 * in, it is what holds them to the files' own permissions.
 */
static errint_t add_defaults(const struct option_words *words, struct options *options)
{
	char *list = NULL;
	errint_t error = 0;
	bool out_of_memory = false;

	if (!words->default_permissions)
		out_of_memory |= fuse_opt_add_opt(&list, "default_permissions") != 0;
	if (!words->allow_other && geteuid() == 0)
		out_of_memory |= fuse_opt_add_opt(&list, "allow_other") != 0;
	if (options->transport == TRANSPORT_IO_URING)
		out_of_memory |= fuse_opt_add_opt(&list, "io_uring") != 0;
	if (options->debug)
		out_of_memory |= fuse_opt_add_opt(&list, "debug") != 0;
	if (!words->has_subtype)
		out_of_memory |= fuse_opt_add_opt(&list, "subtype=foldfs") != 0;
	if (!words->has_fsname)
		error = add_fsname(&list, options->source);
	if (out_of_memory)
		error = -ENOMEM;
	if (!error && list &&
	    (fuse_opt_add_arg(&options->fuse, "-o") || fuse_opt_add_arg(&options->fuse, list)))
		error = -ENOMEM;
	free(list);
	return error;
}

/* The daemon judges foldfs's own words: it knows what it has. */
static errint_t judge_remount(struct option_words *words, struct options *options)
{
	errint_t error = judge_positional(words, options);

	options->remount = words->remount;
	if (!error)
		error = option_words_list(words, &options->remount.words);
	return error;
}

/* Of a mount that is to be made. */
static errint_t judge_mount(struct option_words *words, struct options *options)
{
	errint_t error = judge_positional(words, options);

	if (!error)
		error = options_judge(words, 0, options);
	if (!error)
		error = add_defaults(words, options);
	if (!error)
		error = option_words_settle(words, options);
	if (error)
		return error;
	options->words = malloc(sizeof(*options->words));
	if (!options->words)
		return -ENOMEM;
	*options->words = *words;
	*words = (struct option_words){0};
	return 0;
}

static errint_t judge(struct option_words *words, struct options *options)
{
	errint_t error;

	if (words->kernels && !words->remount.asked)
		option_words_refuse(words, "unknown option '%s'.", words->kernels);
	options->debug = words->debug;
	options->replace = words->replace;
	options->foreground = words->foreground || words->debug;
	options->show_help = words->help;
	options->show_version = words->version;
	if (options->show_help || options->show_version)
		return 0;
	if (words->refused)
		return -EINVAL;
	error = words->remount.asked ? judge_remount(words, options) : judge_mount(words, options);
	if (error == -ENOMEM)
		option_words_refuse(words, "not enough memory.");
	return error;
}

/* fuse_opt removes a "--" that no argument of its own follows, but not if an -o was kept (libfuse
 * 3.18, opt_parse()). Options added behind it would not be taken as options any more. */
static void drop_separator(struct fuse_args *args)
{
	if (args->argc < 2 || strcmp(args->argv[args->argc - 1], "--") != 0)
		return;
	free(args->argv[--args->argc]);
	args->argv[args->argc] = NULL;
}

errint_t options_parse(int argc, char *argv[], struct options *ret_options)
{
	struct options options = {.fuse = FUSE_ARGS_INIT(argc, argv)};
	struct option_words words = {0};
	errint_t error = option_words_take(&options.fuse, &words);

	if (!error) {
		drop_separator(&options.fuse);
		error = judge(&words, &options);
	}
	if (words.refused)
		fprintf(stderr, "foldfs: %s\n",
			words.refusal ? words.refusal : "not enough memory.");
	option_words_clear(&words);
	if (error)
		options_clear(&options);
	else
		*ret_options = options;
	return error ? -EINVAL : 0;
}

void options_clear(struct options *options)
{
	free(options->source);
	free(options->mountpoint);
	option_list_free(options->passthrough);
	option_list_free(options->remount.words);
	free(options->state);
	free(options->control);
	if (options->words)
		option_words_clear(options->words);
	free(options->words);
	fuse_opt_free_args(&options->fuse);
	options->source = options->mountpoint = NULL;
	options->passthrough = options->remount.words = NULL;
	options->state = options->control = NULL;
	options->words = NULL;
}

void options_print_help(const char *program)
{
	printf("Usage: %s SOURCE MOUNTPOINT [-o OPTION[,OPTION…]] [-f] [-d]\n"
	       "       %s " ESTIMATE_OPTION " DIR " SCAN_OPTIONS "\n"
	       "                         " SCAN_BORDER " [--json]\n"
	       "\n"
	       "Mount the directory SOURCE on MOUNTPOINT, where files with the same pages share "
	       "the\n"
	       "memory of one.\n"
	       "\n"
	       "  -o pool=SIZE           memory for pages (default: a quarter of memory)\n"
	       "  -o window=SIZE         what the kernel may cache of the mount (default: an "
	       "eighth\n"
	       "                         of the pool); 0: nothing, direct I/O\n"
	       "  -o maps=SIZE           memory for page maps (default: a sixteenth of the pool)\n"
	       "  -o passthrough=GLOB    files that the kernel serves by itself, unshared (may be "
	       "given\n"
	       "                         more than once; nopassthrough: none)\n"
	       "  -o passthrough_max=SIZE\n"
	       "                         the largest file that the kernel serves unasked, once it "
	       "is known\n"
	       "                         to share nothing (default: 128M); 0: none\n"
	       "  -o source-stacked      passthrough also where SOURCE is on overlayfs; then "
	       "overlayfs\n"
	       "                         cannot be stacked on the mount\n"
	       "  -o one-file-system     serve nothing that is mounted below SOURCE\n"
	       "  -o pseudo-filesystems  serve proc, cgroup2 and the like too, and FUSE mounts of "
	       "other\n"
	       "                         users\n"
	       "  -o coherence=WAY       strict: every reader sees every write (the default); "
	       "overlay:\n"
	       "                         a reader of a file that has equals keeps what it opened\n"
	       "  -o locks=WHERE         source: locks that clients take hold in SOURCE too (the "
	       "default);\n"
	       "                         mount: among the clients of the mount alone (with "
	       "io_uring the\n"
	       "                         only way)\n"
	       "  -o state=DIR           the directory of what is known of the files (default:\n"
	       "                         /var/lib/foldfs)\n"
	       "  -o control=DIR         the directory of foldctl's socket (default: /run/foldfs)\n"
	       "  -o scan=background     read SOURCE once, slowly, for what its files share "
	       "(default: off)\n"
	       "  -o transport=WAY       auto (which is dev), dev or io_uring\n"
	       "  -o seccomp=off         allow any system call to the daemon (default: on)\n"
	       "  -o survive=off         the mount ends with the process that serves it (default: "
	       "on,\n"
	       "                         where Linux can: 6.9 and /dev/fuse)\n"
	       "  -o survive_wait=SEC    how long clients wait for another process (default: 60)\n"
	       "  -o watchdog=SEC        replace a process that reads no request for so long "
	       "(default: 60;\n"
	       "                         0: never)\n"
	       "  -o attr_timeout=SEC    how long the kernel may keep attributes (default: 1.0)\n"
	       "  -o entry_timeout=SEC   how long the kernel may keep names (default: 1.0)\n"
	       "  -o negative_timeout=SEC\n"
	       "                         how long it may remember that a name does not exist\n"
	       "                         (default: entry_timeout with ro, else 0)\n"
	       "  -o watch               see at once what others change in SOURCE (needs root; "
	       "nowatch: not)\n"
	       "  -o replace             take a dead mount on MOUNTPOINT away first\n"
	       "  -o remount             change the mount on MOUNTPOINT: ro, rw and the like, and "
	       "what\n"
	       "                         'foldctl set MOUNTPOINT' shows\n"
	       "  -o ro, allow_other, auto_unmount, fsname=NAME, …\n"
	       "                         see foldfs(8)\n"
	       "  -f                     stay in the foreground\n"
	       "  -d                     the same, and show every request\n"
	       "  --estimate DIR         mount nothing: read DIR and tell what a mount would save\n"
	       "  -h, --help             show this\n"
	       "  -V, --version          show the version\n"
	       "\n"
	       "SIZE is a number, with K, M, G, T (powers of 1024) or %% (of memory) behind it.\n"
	       "Unmount with 'umount MOUNTPOINT', look with 'foldctl status MOUNTPOINT', change "
	       "with\n"
	       "'foldctl set MOUNTPOINT'.\n",
	       program, program);
}
