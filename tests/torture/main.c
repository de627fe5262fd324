/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - the command line of foldfs-torture
 *
 * The program works on an existing mount. tests/torture/run makes the mount, and documents all of
 * this. The exit status is an enum outcome; the output is lines of "name value", with the failure's
 * text last.
 */
#include "torture.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const struct option words[] = {
	{"mount", required_argument, NULL, 'm'},      {"source", required_argument, NULL, 's'},
	{"seed", required_argument, NULL, 'S'},       {"files", required_argument, NULL, 'f'},
	{"processes", required_argument, NULL, 'p'},  {"threads", required_argument, NULL, 't'},
	{"operations", required_argument, NULL, 'o'}, {"seconds", required_argument, NULL, 'T'},
	{"patience", required_argument, NULL, 'w'},   {"trace", required_argument, NULL, 'r'},
	{"replay", required_argument, NULL, 'R'},     {"serial", no_argument, NULL, '1'},
	{"behind", no_argument, NULL, 'b'},           {"passthrough", no_argument, NULL, 'D'},
	{"before", required_argument, NULL, 'B'},     {NULL, 0, NULL, 0},
};

struct arguments {
	struct run_options run;
	const char *mount;
	const char *source;
	const char *before; /* a command, once the files are there; NULL: none */
	bool passthrough;
};

static void take(struct arguments *arguments, int key)
{
	struct run_options *run = &arguments->run;

	switch (key) {
	case 'm':
		arguments->mount = optarg;
		break;
	case 's':
		arguments->source = optarg;
		break;
	case 'S':
		run->ops.seed = strtoull(optarg, NULL, 10);
		break;
	case 'f':
		run->ops.files = op_number(optarg, FILES_MAX);
		break;
	case 'p':
		run->processes = op_number(optarg, WORKERS_MAX);
		break;
	case 't':
		run->threads = op_number(optarg, WORKERS_MAX);
		break;
	case 'o':
		run->operations = op_number(optarg, 1u << 24);
		break;
	case 'T':
		run->seconds = op_number(optarg, 1u << 20);
		break;
	case 'w':
		run->patience = op_number(optarg, 3600);
		break;
	case 'r':
		run->trace = optarg;
		break;
	case 'R':
		run->replay = optarg;
		break;
	case '1':
		run->serial = true;
		break;
	case 'D':
		arguments->passthrough = true;
		break;
	case 'B':
		arguments->before = optarg;
		break;
	case 'b':
		run->ops.behind = true;
		break;
	default:
		exit(OUTCOME_TROUBLE);
	}
}

static void parse(int argc, char **argv, struct arguments *arguments)
{
	struct run_options *run = &arguments->run;
	int key;

	while ((key = getopt_long(argc, argv, "", words, NULL)) >= 0)
		take(arguments, key);
	if (optind == argc && arguments->mount && arguments->source && run->ops.files &&
	    run->processes && run->threads && run->processes * run->threads <= WORKERS_MAX)
		return;
	fprintf(stderr, "usage: foldfs-torture --mount DIR --source DIR --seed N [--files N] "
			"[--processes N] [--threads N] [--operations N] [--seconds N]\n"
			"       [--patience N] [--behind] [--passthrough] [--trace FILE] "
			"[--replay FILE [--serial]]\n"
			"       [--before COMMAND]\n");
	exit(OUTCOME_TROUBLE);
}

static void print_result(const struct shared *shared, enum outcome outcome)
{
	static const char *const names[] = {"ok", "difference", "trouble", "hang"};
	unsigned i;

	printf("outcome %s\n", names[outcome]);
	printf("operations %llu\n", (unsigned long long)shared->finished);
	printf("bytes_read %llu\n", (unsigned long long)shared->bytes_read);
	printf("bytes_written %llu\n", (unsigned long long)shared->bytes_written);
	printf("pages_read_beside_changes %llu\n", (unsigned long long)shared->beside);
	printf("pages_outrun %llu\n", (unsigned long long)shared->outrun);
	printf("refused %llu\n", (unsigned long long)shared->refused);
	for (i = 0; i < OP_KINDS; i++)
		printf("count.%s %llu\n", op_name(i), (unsigned long long)shared->counts[i]);
	if (shared->report.failed)
		printf("failure worker %u, operation %llu: %s\n", shared->report.worker,
		       (unsigned long long)shared->report.index, shared->report.text);
}

/* Children have ended, or hang: their locks do not matter any more. */
int main(int argc, char **argv)
{
	struct arguments arguments = {.run = {.ops.files = 6,
					      .processes = 1,
					      .threads = 1,
					      .operations = 1000,
					      .patience = 60}};
	struct shared *shared;
	enum outcome outcome;
	errint_t error;

	parse(argc, argv, &arguments);
	shared =
		model_new(arguments.run.ops.files, arguments.run.processes * arguments.run.threads);
	if (!shared) {
		fprintf(stderr, "foldfs-torture: no memory\n");
		return OUTCOME_TROUBLE;
	}
	shared->passthrough = arguments.passthrough;
	snprintf(shared->mount, sizeof(shared->mount), "%s", arguments.mount);
	snprintf(shared->source, sizeof(shared->source), "%s", arguments.source);
	error = files_create(shared, arguments.run.ops.seed);
	if (error) {
		fprintf(stderr, "foldfs-torture: files in %s: %s\n", shared->source,
			strerror(-error));
		return OUTCOME_TROUBLE;
	}
	/* NOLINTNEXTLINE(cert-env33-c): the caller's own command line. */
	if (arguments.before && system(arguments.before)) {
		fprintf(stderr, "foldfs-torture: %s: failed\n", arguments.before);
		return OUTCOME_TROUBLE;
	}
	outcome = run_workers(shared, &arguments.run);
	if (outcome == OUTCOME_OK)
		outcome = compare_all(shared);
	if (outcome != OUTCOME_OK && arguments.run.trace) {
		error = run_trace(shared, &arguments.run);
		if (error)
			fprintf(stderr, "foldfs-torture: %s: %s\n", arguments.run.trace,
				strerror(-error));
	}
	print_result(shared, outcome);
	fflush(stdout);
	return (int)outcome;
}
