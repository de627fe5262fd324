/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl_audit.c - foldctl audit: has the daemon compare everything it holds with the source */
#include "foldctl.h"
#include "foldfs/audit_checks.h"
#include "foldfs/human.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct audit_options {
	const char *mountpoint;
	bool as_json;
	bool idle;
	int64_t timeout_ms; /* by default so long that it hardly matters */
};

static void print_check(const json_t *report, const char *key, const char *unit, const char *what)
{
	const json_t *check = json_object_get(json_object_get(report, "checks"), key);
	int64_t different = number(check, "different"), unsteady = number(check, "unsteady");
	struct human_buffer a, b;

	printf("  %-10s %15s  %s %s", key, human_count(number(check, "checked"), &a), unit, what);
	if (different)
		printf(": %s DIFFERENT", human_count(different, &b));
	if (unsteady)
		printf(": %s unsteady", human_count(unsteady, &b));
	putchar('\n');
}

static void print_files(const json_t *report, const char *key, const char *what)
{
	struct human_buffer a;

	if (number(report, key))
		printf("  %15s  %s\n", human_count(number(report, key), &a), what);
}

static void print_audit(const json_t *report, const char *mountpoint)
{
	const json_t *line;
	struct human_buffer a;
	size_t index;

	human_print_foreign(stdout, mountpoint);
	putchar('\n');
#define PRINT(name, key, unit, what) print_check(report, key, unit, what);
	AUDIT_CHECKS(PRINT)
#undef PRINT
	printf("\nFiles\n");
	print_files(report, "files", "known to the mount");
	print_files(report, "files_changed_behind",
		    "changed behind the mount: not compared, forgotten at their next open");
	print_files(report, "files_unreachable", "not found in the source: not compared");
	print_files(report, "files_unreadable", "that the source gave an error for: not compared");
	printf("\n%s differences, in %.1f s with %s of memory\n",
	       human_count(number(report, "differences"), &a),
	       (double)number(report, "milliseconds") / 1000,
	       human_size(number(report, "memory_bytes"), &(struct human_buffer){{0}}));
	json_array_foreach(json_object_get(report, "found"), index, line)
	{
		printf("  ");
		human_print_foreign(stdout, json_is_string(line) ? json_string_value(line) : "?");
		putchar('\n');
	}
}

static int audit(const struct audit_options *options)
{
	const char *request = options->idle ? "{\"request\":\"audit\",\"idle\":true}\n"
					    : "{\"request\":\"audit\"}\n";
	struct mount_entry entry;
	json_t *report = NULL;
	int64_t differences;
	int result;

	if (find_mount(options->mountpoint, &entry))
		return EXIT_NOT_DONE;
	result = ask(&entry, request, options->timeout_ms, &report);
	if (!result && !json_is_integer(json_object_get(report, "differences")))
		result = fail("the daemon of %s gives no report.", entry.mountpoint);
	if (!result && options->as_json) {
		json_dumpf(report, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (!result) {
		print_audit(report, entry.mountpoint);
	}
	differences = number(report, "differences");
	json_decref(report);
	mount_entry_clear(&entry);
	if (result || finish_output())
		return EXIT_NOT_DONE;
	return differences ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Parse SECONDS into milliseconds. False: it is no number of seconds. */
static bool parse_timeout(const char *seconds, int64_t *ret_ms)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(seconds, &end, 10);
	if (errno || end == seconds || *end || value < 1 || value > 1000000000)
		return false;
	*ret_ms = (int64_t)value * 1000;
	return true;
}

int command_audit(char *argv[])
{
	struct audit_options options = {.timeout_ms = INT64_MAX / 4};
	bool options_end = false;
	const char *value;

	for (; *argv; argv++) {
		if (!options_end && strcmp(*argv, "--") == 0) {
			options_end = true;
		} else if (!options_end && strcmp(*argv, "--json") == 0) {
			options.as_json = true;
		} else if (!options_end && strcmp(*argv, "--idle") == 0) {
			options.idle = true;
		} else if (!options_end && (value = human_option_value(&argv, "--timeout"))) {
			if (!parse_timeout(value, &options.timeout_ms)) {
				fail("--timeout=%s is not a number of seconds.", value);
				return EXIT_NOT_DONE;
			}
		} else if (!options_end && (*argv)[0] == '-' && (*argv)[1]) {
			fail("unknown option '%s'.", *argv);
			return EXIT_NOT_DONE;
		} else if (options.mountpoint) {
			fail("'%s' is one argument too many.", *argv);
			return EXIT_NOT_DONE;
		} else {
			options.mountpoint = *argv;
		}
	}
	if (options.mountpoint)
		return audit(&options);
	fail("audit needs a MOUNTPOINT.");
	return EXIT_NOT_DONE;
}
