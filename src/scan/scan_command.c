/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_command.c - foldctl scan and foldfs --estimate: one command line, one table
 *
 * The signals that end the scan are blocked before it has threads, and polled where it reports its
 * progress. So nothing runs in a signal handler, and what was found is kept.
 */
#include "foldfs/scan_command.h"

#include "foldfs/clock.h"
#include "foldfs/human.h"
#include "foldfs/memory_limit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define TERMINAL_COLUMNS 80 /* of a terminal that does not tell its width */

struct run {
	const struct scan_command *command;
	struct scan *scan;
	const char *path;
	sigset_t ends;
	bool terminal; /* stderr is a terminal */
	bool shown;    /* a line of progress is on the terminal */
	enum scan_step step;
	int64_t step_started_ms;
	int ended_by; /* a signal number; 0: none */
};

__attribute__((format(printf, 2, 3))) static errint_t refuse(const char *program,
							     const char *format, ...)
{
	va_list args;

	va_start(args, format);
	human_complain(program, format, args);
	va_end(args);
	return -EINVAL;
}

/* ---- the command line ---- */

static errint_t take_size(const struct scan_command *command, const char *name, const char *value,
			  uint64_t least, uint64_t *ret_bytes)
{
	uint64_t bytes;

	if (human_parse_size(value, memory_limit(), &bytes))
		return refuse(command->program,
			      "%s=%s is not a size: write a number, with K, M, G, T or %% behind "
			      "it if you like.",
			      name, value);
	if (bytes < least)
		return refuse(command->program, "%s=%s is too small: the least is %llu K.", name,
			      value, (unsigned long long)(least + 1023) >> 10);
	*ret_bytes = bytes;
	return 0;
}

static errint_t take_memory(struct scan_command *command, const char *name, const char *value)
{
	uint64_t memory = memory_limit();
	struct human_buffer all;
	errint_t error = take_size(command, name, value, SCAN_MEMORY_MIN, &command->options.memory);

	if (!error && memory && command->options.memory > memory)
		error = refuse(command->program, "%s=%s is more than all of the memory: %s.", name,
			       value, human_size((int64_t)memory, &all));
	return error;
}

static errint_t take_workers(struct scan_command *command, const char *value)
{
	uint64_t number;

	if (human_parse_size(value, 0, &number) || number < 1 || number > 64)
		return refuse(command->program, "--workers=%s is not a number from 1 to 64.",
			      value);
	command->options.workers = (unsigned)number;
	return 0;
}

static errint_t take_option(struct scan_command *command, bool estimate, char ***argv)
{
	const char *word = **argv;
	const char *value;

	if (strcmp(word, "--json") == 0)
		command->json = true;
	else if (strcmp(word, "--all-file-systems") == 0)
		command->options.all_file_systems = true;
	else if ((value = human_option_value(argv, "--rate")))
		return take_size(command, "--rate", value, 1, &command->options.rate);
	else if ((value = human_option_value(argv, "--memory")))
		return take_memory(command, "--memory", value);
	else if ((value = human_option_value(argv, "--workers")))
		return take_workers(command, value);
	else if (!estimate && (value = human_option_value(argv, "--state")))
		command->state = value;
	else
		return refuse(command->program, "unknown option '%s'.", word);
	return 0;
}

errint_t scan_command_parse(const char *program, bool estimate, char *argv[],
			    struct scan_command *ret_command)
{
	struct scan_command command = {.program = program,
				       .options = {.memory = SCAN_MEMORY_BYTES}};
	bool options_end = false;
	errint_t error = 0;

	for (; *argv && !error; argv++) {
		if (!options_end && strcmp(*argv, "--") == 0)
			options_end = true;
		else if (!options_end && (*argv)[0] == '-' && (*argv)[1])
			error = take_option(&command, estimate, &argv);
		else if (command.directory)
			error = refuse(program, "'%s' is one argument too many.", *argv);
		else
			command.directory = *argv;
	}
	if (!error)
		*ret_command = command;
	return error;
}

/* ---- running ---- */

/* Asked each time, because the window may be resized. */
static int terminal_columns(void)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col
									   : TERMINAL_COLUMNS;
}

static void on_progress(void *context, const struct scan_progress *progress)
{
	const struct timespec at_once = {0};
	struct run *run = context;
	int sig = sigtimedwait(&run->ends, NULL, &at_once);

	if (sig > 0) {
		run->ended_by = sig;
		scan_cancel(run->scan);
	}
	if (!run->terminal)
		return;
	if (!run->shown || progress->step != run->step)
		run->step_started_ms = clock_now_ms();
	run->step = progress->step;
	run->shown = true;
	scan_report_progress(stderr, progress,
			     (double)(clock_now_ms() - run->step_started_ms) / 1000,
			     terminal_columns());
}

static void end_progress(struct run *run)
{
	if (run->shown)
		scan_report_progress_end(stderr);
	run->shown = false;
}

static void on_unreadable(void *context, const char *path, errint_t error)
{
	struct run *run = context;

	end_progress(run);
	refuse(run->command->program, "cannot read %s%s%s: %s.", run->path, *path ? "/" : "", path,
	       strerror(-error));
}

/* A signal that the caller had ignored (nohup) stays ignored. */
static void block_ends(sigset_t *ret_ends)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGTERM};
	struct sigaction action;

	sigemptyset(ret_ends);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			sigaddset(ret_ends, signals[i]);
	sigprocmask(SIG_BLOCK, ret_ends, NULL);
}

/* Say what has to be said besides the table. Returns an exit status. */
static int judge(const struct run *run, const struct scan_result *result, errint_t error)
{
	const char *program = run->command->program;

	if (error)
		refuse(program, "cannot scan %s: %s.", run->path, strerror(-error));
	else if (run->ended_by)
		refuse(program,
		       "the scan was ended by a signal: what was found until then is kept.");
	if (result->catalogue_error == -ENOSPC)
		refuse(program,
		       "the catalogue or its disk is full: some of what was found is not kept.");
	else if (result->catalogue_error)
		refuse(program, "cannot write the catalogue: %s.",
		       strerror(-result->catalogue_error));
	return error || run->ended_by || result->catalogue_error ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run_scan(struct run *run)
{
	const struct scan_command *command = run->command;
	struct scan_result result = {0};
	errint_t error = scan_run(run->scan, &result);
	errint_t printed;
	int status;

	end_progress(run);
	status = judge(run, &result, error);
	if (error)
		return status;
	printed = command->json ? scan_report_json(stdout, run->path, &command->options, &result)
				: scan_report_table(stdout, run->path, &result);
	if (printed) {
		refuse(command->program, "cannot write the output: %s.", strerror(-printed));
		status = EXIT_FAILURE;
	}
	return status;
}

int scan_command_run(const struct scan_command *command, int root_fd, const char *path)
{
	struct run run = {.command = command, .path = path, .terminal = isatty(STDERR_FILENO)};
	struct scan_options options = command->options;
	errint_t error;
	int status;

	options.progress = on_progress;
	options.unreadable = on_unreadable;
	options.context = &run;
	options.count_ahead = run.terminal;
	error = scan_new(root_fd, &options, &run.scan);
	if (error) {
		refuse(command->program, "cannot scan %s: %s.", path, strerror(-error));
		return EXIT_FAILURE;
	}
	block_ends(&run.ends);
	status = run_scan(&run);
	scan_free(run.scan);
	return status;
}

int scan_estimate(char *argv[])
{
	struct scan_command command;
	int status;
	int fd;

	if (scan_command_parse("foldfs", true, argv, &command))
		return EXIT_FAILURE;
	if (!command.directory) {
		refuse(command.program, "--estimate needs a directory.");
		return EXIT_FAILURE;
	}
	fd = open(command.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		refuse(command.program, "cannot open the directory %s: %s.", command.directory,
		       strerror(errno));
		return EXIT_FAILURE;
	}
	status = scan_command_run(&command, fd, command.directory);
	close(fd);
	return status;
}
