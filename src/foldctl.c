/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foldctl.c - looks at a foldfs mount from outside
 *
 * Asks the daemon over its control socket, which it finds from the list of mounts; the mount itself
 * is never touched, so a stuck one can be looked at. Whatever the daemon does, the answer is there
 * within ANSWER_MS or an error is.
 *
 * Who answers is checked as well: the socket of a plain user's mount is in a directory of theirs,
 * and only they, or root, may answer there. Root may look at such a mount, so whatever the answer
 * says, numbers out of all bounds and control characters for the terminal included, does no harm.
 */
#include "foldfs/audit_checks.h"
#include "foldfs/figures.h"
#include "foldfs/mounts.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MS  5000
#define ANSWER_MAX (1u << 20)
#define RETRY_MS   20
/* foldctl audit: nothing was compared, or not all. A difference is EXIT_FAILURE. */
#define EXIT_NOT_DONE 2

/* Bytes of a control character at TEXT, 0 for none: one, or two from U+0080 to U+009F. */
static size_t control_length(const char *text)
{
	unsigned char first = (unsigned char)text[0], second;

	if ((first > 0 && first < 0x20) || first == 0x7f)
		return 1;
	if (first != 0xc2)
		return 0;
	second = (unsigned char)text[1];
	return second >= 0x80 && second <= 0x9f ? 2 : 0;
}

/* Print what a daemon or the list of mounts says, with a ? for each control character. */
static void print_foreign(FILE *stream, const char *text)
{
	while (*text) {
		size_t length = control_length(text);

		fputc(length ? '?' : *text, stream);
		text += length ? length : 1;
	}
}

__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	fputs("foldctl: ", stderr);
	print_foreign(stderr, text ? text : "not enough memory to say what is wrong.");
	fputc('\n', stderr);
	free(text);
	return EXIT_FAILURE;
}

/* ---- the question -----------------------------------------------------------------------------
 */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static errint_t wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = events};
	int64_t left;
	int ready;

	do {
		left = deadline - now_ms();
		ready = left > 0 ? poll(&pfd, 1, left < INT_MAX ? (int)left : INT_MAX) : 0;
	} while (ready < 0 && errno == EINTR);
	return ready > 0 ? 0 : ready == 0 ? -ETIMEDOUT : -errno;
}

/* The queue of a daemon that many ask at once may be full for a moment. */
static errint_t connect_patiently(int fd, const struct sockaddr_un *address)
{
	const struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};
	int64_t deadline = now_ms() + ANSWER_MS;

	while (connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0) {
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (now_ms() >= deadline)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* Connect to PATH, where root or OWNER must be answering. A descriptor, or -errno. */
static int connect_to(const char *path, uid_t owner)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ucred peer;
	socklen_t size = sizeof(peer);
	errint_t err = 0;
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	err = connect_patiently(fd, &address);
	if (err) {
		close(fd);
		return err;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
		err = -errno;
	else if (peer.uid != 0 && peer.uid != owner)
		err = -EPERM;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

static errint_t send_all(int fd, const char *text, int64_t deadline)
{
	while (*text) {
		ssize_t sent = send(fd, text, strlen(text), MSG_NOSIGNAL);
		errint_t err = 0;

		if (sent > 0)
			text += sent;
		else if (errno == EAGAIN)
			err = wait_for(fd, POLLOUT, deadline);
		else if (errno != EINTR)
			err = -errno;
		if (err)
			return err;
	}
	return 0;
}

/* Read to the end of the connection. Bytes, or -errno. */
static ssize_t receive_all(int fd, char *buffer, size_t size, int64_t deadline)
{
	size_t length = 0;

	while (length < size) {
		errint_t err = wait_for(fd, POLLIN, deadline);
		ssize_t got;

		if (err)
			return err;
		got = recv(fd, buffer + length, size - length, 0);
		if (got == 0)
			return (ssize_t)length;
		if (got < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (got > 0)
			length += (size_t)got;
	}
	return -EMSGSIZE;
}

/* The daemon's answer to REQUEST over FD, within ANSWER_WITHIN_MS. -EBADMSG: it is no JSON object.
 */
static errint_t converse(int fd, const char *request, int64_t answer_within_ms, json_t **ret_answer)
{
	int64_t deadline = now_ms() + answer_within_ms;
	char *buffer = malloc(ANSWER_MAX);
	ssize_t length = buffer ? 0 : -ENOMEM;
	json_t *answer = NULL;

	if (length == 0)
		length = send_all(fd, request, deadline);
	if (length == 0)
		length = receive_all(fd, buffer, ANSWER_MAX, deadline);
	if (length >= 0) {
		answer = json_loadb(buffer, (size_t)length, 0, NULL);
		length = json_is_object(answer) ? 0 : -EBADMSG;
	}
	free(buffer);
	if (length) {
		json_decref(answer);
		return (errint_t)length;
	}
	*ret_answer = answer;
	return 0;
}

static int explain_no_connection(const struct mount_entry *entry, const char *socket, errint_t err)
{
	const char *mountpoint = entry->mountpoint;

	/* With -o subtype= the type of ours is what the user says; nobody else's has the socket. */
	if (err == -ENOENT && strcmp(entry->type, "fuse.foldfs") != 0)
		return fail("%s is not a foldfs mount: it is %s.", mountpoint, entry->type);
	if (err == -ENOENT || err == -ECONNREFUSED)
		return fail("nobody answers for %s: its daemon has ended, or runs in another "
			    "container (%s: %s).",
			    mountpoint, socket, strerror(-err));
	if (err == -EACCES)
		return fail("only root and the owner of the mount %s may look at it.", mountpoint);
	if (err == -EPERM)
		return fail("somebody else than root and the mount's owner listens on %s.", socket);
	return fail("cannot reach the daemon of %s over %s: %s.", mountpoint, socket,
		    strerror(-err));
}

static int ask(const struct mount_entry *entry, const char *request, int64_t answer_within_ms,
	       json_t **ret_status)
{
	char *socket = mount_socket_path(entry);
	const char *refusal;
	json_t *answer = NULL;
	int fd, result;
	errint_t err;

	if (!socket)
		return fail("not enough memory.");
	fd = connect_to(socket, entry->owner);
	if (fd < 0) {
		result = explain_no_connection(entry, socket, fd);
		free(socket);
		return result;
	}
	err = converse(fd, request, answer_within_ms, &answer);
	close(fd);
	free(socket);
	if (err == -ETIMEDOUT)
		return fail("the daemon of %s does not answer within %" PRId64 " seconds.",
			    entry->mountpoint, answer_within_ms / 1000);
	if (err)
		return fail("the daemon of %s gives no sensible answer: %s.", entry->mountpoint,
			    strerror(-err));
	refusal = json_string_value(json_object_get(answer, "error"));
	if (!refusal) {
		*ret_status = answer;
		return EXIT_SUCCESS;
	}
	result = fail("the daemon of %s refuses to answer: %s.", entry->mountpoint, refusal);
	json_decref(answer);
	return result;
}

/* ---- the answer, for people -------------------------------------------------------------------
 */

/* The number at KEY, which may have one dot; 0 where a daemon of another version has none. */
static int64_t number(const json_t *status, const char *key)
{
	const char *dot = strchr(key, '.');
	char group[32];

	if (!dot)
		return json_integer_value(json_object_get(status, key));
	snprintf(group, sizeof(group), "%.*s", (int)(dot - key), key);
	return json_integer_value(json_object_get(json_object_get(status, group), dot + 1));
}

static const char *text(const json_t *status, const char *key)
{
	const char *value = json_string_value(json_object_get(status, key));

	return value ? value : "?";
}

struct text_buffer {
	char text[48];
};

/* BYTES with three digits or so: 512 B, 1.50 MiB, 63.8 GiB. */
static const char *size_text(int64_t bytes, struct text_buffer *buffer)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = bytes < 0 ? -(double)bytes : (double)bytes;
	const char *sign = bytes < 0 ? "-" : "";
	unsigned unit = 0;

	for (; value >= 1023.5 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
		value /= 1024;
	snprintf(buffer->text, sizeof(buffer->text), "%s%.*f %s", sign,
		 unit == 0 || value >= 99.95 ? 0
		 : value >= 9.995            ? 1
					     : 2,
		 value, units[unit]);
	return buffer->text;
}

/* COUNT with a space between groups of three digits. */
static const char *count_text(int64_t count, struct text_buffer *buffer)
{
	char digits[32];
	size_t length, out = 0;

	snprintf(digits, sizeof(digits), "%" PRId64, count);
	length = strlen(digits);
	for (size_t i = 0; i < length; i++) {
		size_t left = length - i;

		if (i > 0 && left % 3 == 0 && digits[i - 1] != '-')
			buffer->text[out++] = ' ';
		buffer->text[out++] = digits[i];
	}
	buffer->text[out] = '\0';
	return buffer->text;
}

static const char *duration_text(int64_t seconds, struct text_buffer *buffer)
{
	static const struct {
		int64_t seconds;
		const char *unit;
	} units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
	unsigned u = 0;

	while (u < 3 && seconds < units[u].seconds)
		u++;
	if (u == 3)
		snprintf(buffer->text, sizeof(buffer->text), "%" PRId64 " s", seconds);
	else
		snprintf(buffer->text, sizeof(buffer->text), "%" PRId64 " %s %" PRId64 " %s",
			 seconds / units[u].seconds, units[u].unit,
			 seconds % units[u].seconds / units[u + 1].seconds, units[u + 1].unit);
	return buffer->text;
}

/* COUNT pages or frames in bytes, the nearest number where there is none. */
static int64_t bytes_of(const json_t *status, const char *count)
{
	int64_t pages = number(status, count), frame = number(status, "frame_bytes"), bytes;

	if (__builtin_mul_overflow(pages, frame, &bytes))
		return (pages < 0) == (frame < 0) ? INT64_MAX : INT64_MIN;
	return bytes;
}

static void print_count(const char *label, int64_t count, const char *meaning)
{
	struct text_buffer a;

	printf("  %-10s %15s  %s\n", label, count_text(count, &a), meaning);
}

static void print_size(const char *label, int64_t bytes, const char *meaning)
{
	struct text_buffer a;

	printf("  %-10s %15s  %s\n", label, size_text(bytes, &a), meaning);
}

static void print_saved(const json_t *status)
{
	printf("\nSaved\n");
	print_size("sharing", bytes_of(status, "pages_sharing"),
		   "pages that are in the pool once for many");
	print_size("zeroes", bytes_of(status, "zero_pages"), "all-zero pages, kept nowhere");
	print_size("profit", number(status, "general_profit"),
		   "both, less what finding them takes");
}

static void print_pool(const json_t *status)
{
	int64_t used = number(status, "frames_used"), total = number(status, "frames_total");
	char meaning[64];

	printf("\nPool\n");
	snprintf(meaning, sizeof(meaning), "%.1f %% of %" PRId64 " MiB",
		 total > 0 ? 100.0 * (double)used / (double)total : 0.0,
		 bytes_of(status, "frames_total") >> 20);
	print_size("in use", bytes_of(status, "frames_used"), meaning);
	print_count("shared", number(status, "pages_shared"), "frames with two users or more");
	print_count("unshared", number(status, "pages_unshared"), "frames with one user");
	print_count("evicted", number(status, "evictions"), "frames given up for others");
	print_count("bypassed", number(status, "bypassed"), "pages that found no free frame");
}

static void print_reads(const json_t *status)
{
	int64_t hits = number(status, "hits"), misses = number(status, "misses");
	double all = (double)hits + (double)misses;
	char meaning[64] = "pages read from the pool";

	if (all > 0)
		snprintf(meaning, sizeof(meaning), "pages read from the pool: %.1f %%",
			 100.0 * (double)hits / all);
	printf("\nTraffic\n");
	print_count("hits", hits, meaning);
	print_count("misses", misses, "pages read from the source, with a reader waiting");
	print_count("readahead", number(status, "readahead"), "pages read from the source ahead");
	print_count("merged", number(status, "merges"), "pages found equal to one in the pool");
	print_count("broken", number(status, "breaks"), "pages in the pool that changed");
}

static void print_memory(const json_t *status)
{
	char meaning[64];
	struct text_buffer a;
	int64_t budget = number(status, "window.budget_bytes");

	printf("\nMemory\n");
	print_size("pool", number(status, "memory.pool_bytes"),
		   "frames and what is kept about them");
	print_size("maps", number(status, "memory.maps_bytes"), "which frame holds which page");
	print_size("index", number(status, "memory.index_bytes"), "which frame has which digest");
	print_size("inodes", number(status, "memory.inodes_bytes"),
		   "what the kernel knows by number");
	print_size("notes", number(status, "memory.notes_bytes"), "what the window holds");
	print_size("transport", number(status, "memory.transport_bytes"), "buffers of requests");
	print_size("total", number(status, "memory.total_bytes"), "of the daemon");
	if (budget > 0)
		snprintf(meaning, sizeof(meaning), "of %s, in the kernel's cache besides",
			 size_text(budget, &a));
	else
		snprintf(meaning, sizeof(meaning), "direct I/O: the kernel caches nothing");
	print_size("window", number(status, "window.bytes"), meaning);
}

static void print_status(const json_t *status)
{
	struct text_buffer up;

	print_foreign(stdout, text(status, "mountpoint"));
	printf("\n  serves ");
	print_foreign(stdout, text(status, "source"));
	printf("\n  foldfs ");
	print_foreign(stdout, text(status, "version"));
	printf(", for %s, over ", duration_text(number(status, "uptime_s"), &up));
	print_foreign(stdout, text(status, "transport"));
	putchar('\n');
	print_saved(status);
	print_pool(status);
	print_reads(status);
	print_memory(status);
}

/* ---- commands ---------------------------------------------------------------------------------
 */

/* What was printed has to have arrived: a full disk is an error like another. */
static int finish_output(void)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		return fail("cannot write the output: %s.", strerror(errno));
	return EXIT_SUCCESS;
}

static int find_mount(const char *path, struct mount_entry *ret_entry)
{
	struct mount_entry entry;
	errint_t err = mount_entry_find(path, &entry);

	if (err == -ENOENT)
		return fail("nothing is mounted on %s.", path);
	if (err)
		return fail("cannot look up %s: %s.", path, strerror(-err));
	if (strncmp(entry.type, "fuse", 4) != 0) {
		fail("%s is not a foldfs mount: it is %s.", path, entry.type);
		mount_entry_clear(&entry);
		return EXIT_FAILURE;
	}
	*ret_entry = entry;
	return EXIT_SUCCESS;
}

static int command_status(const char *path, bool as_json)
{
	struct mount_entry entry;
	json_t *status = NULL;
	int result = find_mount(path, &entry);

	if (result)
		return result;
	result = ask(&entry, "{\"request\":\"status\"}\n", ANSWER_MS, &status);
	mount_entry_clear(&entry);
	if (result)
		return result;
	if (as_json) {
		json_dumpf(status, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_status(status);
	}
	json_decref(status);
	return finish_output();
}

/* ---- the audit --------------------------------------------------------------------------------
 */

struct audit_options {
	const char *mountpoint;
	bool as_json;
	bool idle;
	int64_t timeout_ms; /* as good as none by default */
};

static void print_check(const json_t *report, const char *key, const char *unit, const char *what)
{
	const json_t *check = json_object_get(json_object_get(report, "checks"), key);
	int64_t different = number(check, "different"), unsteady = number(check, "unsteady");
	struct text_buffer a, b;

	printf("  %-10s %15s  %s %s", key, count_text(number(check, "checked"), &a), unit, what);
	if (different)
		printf(": %s DIFFERENT", count_text(different, &b));
	if (unsteady)
		printf(": %s unsteady", count_text(unsteady, &b));
	putchar('\n');
}

static void print_files(const json_t *report, const char *key, const char *what)
{
	struct text_buffer a;

	if (number(report, key))
		printf("  %15s  %s\n", count_text(number(report, key), &a), what);
}

static void print_audit(const json_t *report, const char *mountpoint)
{
	const json_t *line;
	struct text_buffer a;
	size_t index;

	print_foreign(stdout, mountpoint);
	putchar('\n');
#define PRINT(name, key, unit, what) print_check(report, key, unit, what);
	AUDIT_CHECKS(PRINT)
#undef PRINT
	printf("\nFiles\n");
	print_files(report, "files", "known to the mount");
	print_files(report, "files_changed_behind",
		    "changed behind the mount: not compared, forgotten at their next open");
	print_files(report, "files_unreachable", "not found in the source: not compared");
	print_files(report, "files_unreadable", "that the source gave an error for");
	printf("\n%s differences, in %.1f s with %s of memory\n",
	       count_text(number(report, "differences"), &a),
	       (double)number(report, "milliseconds") / 1000,
	       size_text(number(report, "memory_bytes"), &(struct text_buffer){{0}}));
	json_array_foreach(json_object_get(report, "found"), index, line)
	{
		printf("  ");
		print_foreign(stdout, json_is_string(line) ? json_string_value(line) : "?");
		putchar('\n');
	}
}

static int command_audit(const struct audit_options *options)
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

/* SECONDS as milliseconds. False: it is no number of seconds. */
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

static int start_audit(char *argv[])
{
	struct audit_options options = {.timeout_ms = INT64_MAX / 4};
	bool options_end = false;

	for (; *argv; argv++) {
		if (!options_end && strcmp(*argv, "--") == 0) {
			options_end = true;
		} else if (!options_end && strcmp(*argv, "--json") == 0) {
			options.as_json = true;
		} else if (!options_end && strcmp(*argv, "--idle") == 0) {
			options.idle = true;
		} else if (!options_end && strncmp(*argv, "--timeout=", 10) == 0) {
			if (!parse_timeout(*argv + 10, &options.timeout_ms)) {
				fail("'%s' is no number of seconds.", *argv + 10);
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
		return command_audit(&options);
	fail("audit needs a MOUNTPOINT.");
	return EXIT_NOT_DONE;
}

static int command_figures(bool as_roff)
{
#define PRINT(key, unit, kind, value, sentence)                                                    \
	if (as_roff)                                                                               \
		printf(FIGURE_ROFF, key, unit, sentence);                                          \
	else                                                                                       \
		printf("%-24s %-8s %s\n", key, unit, sentence);
	STATUS_FIGURES(PRINT)
#undef PRINT
	return finish_output();
}

static int usage(FILE *stream)
{
	fputs("Usage: foldctl status MOUNTPOINT [--json]\n"
	      "       foldctl audit MOUNTPOINT [--idle] [--json] [--timeout=SECONDS]\n"
	      "       foldctl figures [--roff]\n"
	      "\n"
	      "  status      what the foldfs mount on MOUNTPOINT saves and takes; --json for "
	      "programs\n"
	      "  audit       compare all that the mount holds with its source and count all again; "
	      "1 if\n"
	      "              anything differs, 2 if it could not be done; --idle: nobody uses the "
	      "mount\n"
	      "  figures     what each figure means; --roff as the manual has it\n"
	      "  --help      show this\n"
	      "  --version   show the version\n",
	      stream);
	return stream == stdout ? finish_output() : EXIT_FAILURE;
}

/* argv after the command: at most one word that is no option, and OPTION. */
static bool take_arguments(char *argv[], const char *option, const char **ret_word, bool *ret_given)
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

int main(int argc, char *argv[])
{
	const char *command = argc > 1 ? argv[1] : "", *word;
	bool given;

	if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0)
		return usage(stdout);
	if (strcmp(command, "--version") == 0 || strcmp(command, "-V") == 0) {
		printf("foldctl %s\n", FOLDFS_VERSION);
		return finish_output();
	}
	if (strcmp(command, "status") == 0) {
		if (!take_arguments(argv + 2, "--json", &word, &given))
			return EXIT_FAILURE;
		return word ? command_status(word, given) : fail("status needs a MOUNTPOINT.");
	}
	if (strcmp(command, "audit") == 0)
		return start_audit(argv + 2);
	if (strcmp(command, "figures") == 0) {
		if (!take_arguments(argv + 2, "--roff", &word, &given))
			return EXIT_FAILURE;
		return word ? fail("'%s' is one argument too many.", word) : command_figures(given);
	}
	if (*command)
		return fail("unknown command '%s'; 'foldctl --help' says more.", command);
	return usage(stderr);
}
