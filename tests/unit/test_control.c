/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_control.c - the control socket, and the figures that it hands out
 *
 * The file system behind it is a fake of this file: three functions that figures_json.c asks.
 */
#include "daemon/audit_json.h"
#include "daemon/control.h"
#include "daemon/figures_json.h"
#include "foldfs/counters.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"

#define REQUEST "{\"request\":\"status\"}\n"

struct fusefs {
	struct counters *counters;
	struct fusefs_usage usage;
};

const char *fusefs_transport(const struct fusefs *fs)
{
	(void)fs;
	return "dev";
}

void fusefs_usage(const struct fusefs *fs, struct fusefs_usage *ret_usage)
{
	*ret_usage = fs->usage;
}

const char *fusefs_locks(const struct fusefs *fs)
{
	(void)fs;
	return "source";
}

const struct counters *fusefs_stats(const struct fusefs *fs)
{
	return fs->counters;
}

struct fake_audit {
	atomic_bool begun;
	atomic_bool let_go;
	atomic_bool was_cancelled;
	atomic_bool was_idle;
};

struct fixture {
	struct fake_audit audit;
	struct fusefs fs;
	struct figures_context status;
	struct control *control;
	char directory[64];
	char path[96];
};

static json_t *answer_status(void *context, const json_t *request,
			     bool (*is_cancelled)(void *asker), void *asker)
{
	struct fixture *f = context;

	(void)request;
	(void)is_cancelled;
	(void)asker;
	return figures_json(&f->status);
}

static json_t *answer_audit(void *context, const json_t *request, bool (*is_cancelled)(void *asker),
			    void *asker)
{
	struct fixture *f = context;
	struct fake_audit *audit = &f->audit;

	atomic_store(&audit->was_idle, json_is_true(json_object_get(request, "idle")));
	atomic_store(&audit->begun, true);
	while (!atomic_load(&audit->let_go)) {
		if (is_cancelled(asker)) {
			atomic_store(&audit->was_cancelled, true);
			return json_pack("{s:s}", "error", "given up");
		}
		sched_yield();
	}
	atomic_store(&audit->begun, false);
	return json_pack("{s:i}", "differences", 7);
}

static const struct control_request all_requests[] = {
	{.name = "status", .answer = answer_status},
	{.name = "audit", .answer = answer_audit, .own_thread = true},
	{.name = NULL},
};
static const struct control_request status_alone[] = {
	{.name = "status", .answer = answer_status},
	{.name = NULL},
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->fs.counters = counters_new();
	assert_non_null(f->fs.counters);
	f->status.fs = &f->fs;
	f->status.source = "/source";
	f->status.mountpoint = "/mount point";
	assert_true(scratch_name(f->directory, "control", SCRATCH_ANY));
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->path, sizeof(f->path), "%s/run/0:42.sock", f->directory);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char run[96];

	control_free(f->control);
	unlink(f->path);
	snprintf(run, sizeof(run), "%s/run", f->directory);
	rmdir(run);
	assert_int_equal(rmdir(f->directory), 0);
	counters_free(f->fs.counters);
	free(f);
	return 0;
}

/* control_new() in the directory of f->path, which is made. */
static errint_t make(struct fixture *f, const struct control_request requests[],
		     struct control **ret_control)
{
	char run[96];
	errint_t error;
	int fd;

	snprintf(run, sizeof(run), "%s/run", f->directory);
	if (mkdir(run, 0700))
		assert_int_equal(errno, EEXIST);
	fd = open(run, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	error = control_new(fd, strrchr(f->path, '/') + 1, requests, f, ret_control);
	close(fd);
	return error;
}

static void start(struct fixture *f)
{
	assert_int_equal(make(f, status_alone, &f->control), 0);
	assert_int_equal(control_start(f->control), 0);
}

static int connect_client(const struct fixture *f)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(address.sun_path, f->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* Everything up to the end of the connection, which has to be one JSON object and a newline. */
static json_t *receive(int fd)
{
	char text[16384];
	size_t length = 0;
	ssize_t got;
	json_t *answer;

	while ((got = recv(fd, text + length, sizeof(text) - length, 0)) > 0)
		length += (size_t)got;
	close(fd);
	assert_true(length > 0 && text[length - 1] == '\n');
	assert_ptr_equal(memchr(text, '\n', length), text + length - 1);
	answer = json_loadb(text, length, 0, NULL);
	assert_true(json_is_object(answer));
	return answer;
}

static void expect_error(json_t *answer)
{
	assert_non_null(answer);
	assert_non_null(json_string_value(json_object_get(answer, "error")));
	assert_int_equal(json_object_size(answer), 1);
	json_decref(answer);
}

static void expect_status(json_t *answer)
{
	assert_non_null(answer);
	assert_string_equal(json_string_value(json_object_get(answer, "version")), FOLDFS_VERSION);
	json_decref(answer);
}

/* ---- figures ---- */

static void all_promised_keys_are_there(void **state)
{
	static const char *const keys[] = {"version",         "source",         "mountpoint",
					   "transport",       "uptime_s",       "frame_bytes",
					   "frames_total",    "frames_used",    "pages_shared",
					   "pages_sharing",   "pages_unshared", "zero_pages",
					   "general_profit",  "hits",           "misses",
					   "fills_discarded", "merges",         "digest_collisions",
					   "breaks",          "evictions",      "bypassed"};
	static const char *const window[] = {"budget_bytes", "bytes", "trimmed_bytes"};
	static const char *const memory[] = {"pool_bytes", "maps_bytes", "index_bytes",
					     "transport_bytes", "total_bytes"};
	struct fixture *f = *state;
	json_t *status = figures_json(&f->status), *group;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		assert_non_null(json_object_get(status, keys[i]));
	group = json_object_get(status, "window");
	for (size_t i = 0; i < sizeof(window) / sizeof(window[0]); i++)
		assert_true(json_is_integer(json_object_get(group, window[i])));
	group = json_object_get(status, "memory");
	for (size_t i = 0; i < sizeof(memory) / sizeof(memory[0]); i++)
		assert_true(json_is_integer(json_object_get(group, memory[i])));
	json_decref(status);
}

static int64_t number(const json_t *status, const char *group, const char *key)
{
	const json_t *value = json_object_get(group ? json_object_get(status, group) : status, key);

	assert_true(json_is_integer(value));
	return json_integer_value(value);
}

static void figures_are_what_the_parts_say(void **state)
{
	struct fixture *f = *state;
	struct fusefs_usage *usage = &f->fs.usage;
	json_t *status;

	usage->store.pages_sharing = 100;
	usage->zero_pages = 20;
	usage->store.frames_used = 10;
	usage->store.pool_bytes = 1000000;
	usage->maps_bytes = 3000;
	usage->store.index_bytes = 500;
	usage->inodes_bytes = 70;
	usage->transport_bytes = 9;
	usage->window.memory_bytes = 8;
	usage->window.bytes = 77777;
	usage->store.frames_total = UINT64_MAX; /* more than JSON has: must not fail */
	counters_add(f->fs.counters, COUNTER_HITS, 5);
	counters_add(f->fs.counters, COUNTER_BYPASSED, 6);
	status = figures_json(&f->status);
	assert_int_equal(number(status, NULL, "general_profit"), 120 * 4096 - 3000 - 500 - 10 * 64);
	assert_int_equal(number(status, "memory", "total_bytes"),
			 1000000 + 3000 + 500 + 70 + 9 + 8 +
				 number(status, "memory", "program_bytes"));
	assert_true(number(status, "memory", "program_bytes") > 0);
	assert_true(number(status, "memory", "resident_bytes") >
		    number(status, "memory", "program_bytes"));
	assert_int_equal(number(status, "window", "bytes"), 77777);
	assert_int_equal(number(status, NULL, "hits"), 5);
	assert_int_equal(number(status, NULL, "bypassed"), 6);
	assert_int_equal(number(status, NULL, "misses"), 0);
	json_decref(status);

	/* Little shared: the profit is below zero. */
	usage->store.pages_sharing = usage->zero_pages = 0;
	status = figures_json(&f->status);
	assert_int_equal(number(status, NULL, "general_profit"), -3000 - 500 - 10 * 64);
	json_decref(status);
}

static void a_path_that_is_no_utf8_is_shown(void **state)
{
	struct fixture *f = *state;
	json_t *status;

	f->status.source = "/a\xff\xfe/b";
	f->status.mountpoint = "/caf\xc3\xa9";
	status = figures_json(&f->status);
	assert_string_equal(json_string_value(json_object_get(status, "source")),
			    "/a\xEF\xBF\xBD\xEF\xBF\xBD/b");
	assert_string_equal(json_string_value(json_object_get(status, "mountpoint")),
			    "/caf\xc3\xa9");
	json_decref(status);
}

/* The manual's list of figures is what the table makes. */
static void the_manual_has_the_table(void **state)
{
	static const char here[] = __FILE__;
	char path[1024], *expected, *manual, *end;
	size_t expected_size, length;
	FILE *file, *memory = open_memstream(&expected, &expected_size);

	(void)state;
	assert_non_null(memory);
#define PRINT(key, unit, kind, value, sentence) fprintf(memory, FIGURE_ROFF, key, unit, sentence);
	STATUS_FIGURES(PRINT)
#undef PRINT
	fclose(memory);
	snprintf(path, sizeof(path), "%.*s../../man/foldctl.8",
		 (int)(strrchr(here, '/') + 1 - here), here);
	file = fopen(path, "r");
	assert_non_null(file);
	manual = calloc(1, 1 << 20);
	assert_non_null(manual);
	length = fread(manual, 1, (1 << 20) - 1, file);
	fclose(file);
	assert_true(length > expected_size);
	end = strstr(manual, expected);
	assert_non_null(end); /* else: put what `foldctl figures --roff` prints into the manual */
	assert_int_equal(strncmp(end + expected_size, ".SH ", 4), 0);
	free(manual);
	free(expected);
}

/* ---- requests ---- */

static void requests_are_answered(void **state)
{
	static const char *const good[] = {"{\"request\":\"status\"}",
					   " { \"request\" : \"status\" }\r",
					   "{\"other\":[1,{}],\"request\":\"status\"}"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		expect_status(control_answer(status_alone, f, good[i], strlen(good[i])));
}

static void anything_else_is_an_error(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"status",
		"null",
		"1",
		"\"status\"",
		"[]",
		"[{\"request\":\"status\"}]",
		"{}",
		"{\"request\":null}",
		"{\"request\":[\"status\"]}",
		"{\"request\":\"stop\"}",
		"{\"request\":\"\"}",
		"{\"request\":\"status\\u0000\"}",
		"{\"request\":\"status\",\"request\":\"status\"}",
		"{\"request\":\"status\"} {}",
		"{\"request\":\"status\"",
		"{\"request\":99999999999999999999999999}",
		"{\"request\":1e999}",
		"{\"request\":\"\xff\xfe\"}",
		"{\"\xc3\x28\":1}",
		"{\"request\":\"\\ud800\"}",
	};
	struct fixture *f = *state;
	char deep[CONTROL_REQUEST_MAX];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_error(control_answer(status_alone, f, bad[i], strlen(bad[i])));
	expect_error(control_answer(status_alone, f, "{\"request\":\"status\"}\0x", 22));
	memset(deep, '[', sizeof(deep));
	expect_error(control_answer(status_alone, f, deep, sizeof(deep)));
	memset(deep, ' ', sizeof(deep));
	expect_error(control_answer(status_alone, f, deep, sizeof(deep)));
}

/* ---- the socket ---- */

static void the_socket_answers(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	int fd;

	start(f);
	assert_int_equal(lstat(f->path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);
	for (int i = 0; i < 50; i++) {
		fd = connect_client(f);
		assert_int_equal(send(fd, REQUEST, strlen(REQUEST), 0), strlen(REQUEST));
		expect_status(receive(fd));
	}
	/* In pieces, with more behind the newline. */
	fd = connect_client(f);
	for (const char *p = REQUEST "{\"request\":"; *p; p++)
		if (send(fd, p, 1, MSG_NOSIGNAL) != 1)
			break; /* answered already */
	expect_status(receive(fd));
	control_free(f->control);
	f->control = NULL;
	assert_int_equal(lstat(f->path, &st), -1);
}

static void hostile_clients_lose(void **state)
{
	struct fixture *f = *state;
	char flood[3 * CONTROL_REQUEST_MAX];
	int fd;

	start(f);
	/* Too long, without a newline. */
	memset(flood, 'x', sizeof(flood));
	fd = connect_client(f);
	(void)send(fd, flood, sizeof(flood), MSG_NOSIGNAL);
	expect_error(receive(fd));
	/* Gone before the newline. */
	fd = connect_client(f);
	assert_int_equal(send(fd, "{\"request\"", 10, 0), 10);
	shutdown(fd, SHUT_WR);
	expect_error(receive(fd));
	/* Half-closed after it: still answered. */
	fd = connect_client(f);
	assert_int_equal(send(fd, REQUEST, strlen(REQUEST), 0), strlen(REQUEST));
	shutdown(fd, SHUT_WR);
	expect_status(receive(fd));
	/* Nothing at all, and gone. */
	close(connect_client(f));
	/* Does not read, and is gone. */
	fd = connect_client(f);
	assert_int_equal(send(fd, REQUEST, strlen(REQUEST), 0), strlen(REQUEST));
	shutdown(fd, SHUT_RD);
	close(fd);
	fd = connect_client(f);
	assert_int_equal(send(fd, REQUEST, strlen(REQUEST), 0), strlen(REQUEST));
	expect_status(receive(fd));
}

/* A silent client is told so, and one that waits behind it is served then. */
static void a_silent_client_holds_nobody_up_for_long(void **state)
{
	struct fixture *f = *state;
	int silent, next;

	start(f);
	silent = connect_client(f);
	next = connect_client(f);
	assert_int_equal(send(next, REQUEST, strlen(REQUEST), 0), strlen(REQUEST));
	expect_status(receive(next));
	expect_error(receive(silent));
}

/* One that is slow is waited for as long as nobody else waits. */
static void a_slow_client_is_waited_for(void **state)
{
	struct fixture *f = *state;
	struct pollfd slow = {.events = POLLIN};

	start(f);
	slow.fd = connect_client(f);
	/* Longer than it would have with others behind it. */
	assert_int_equal(poll(&slow, 1, 1500), 0);
	assert_int_equal(send(slow.fd, REQUEST, strlen(REQUEST), 0), strlen(REQUEST));
	expect_status(receive(slow.fd));
}

/* The end does not wait for a client. */
static void the_end_interrupts_a_client(void **state)
{
	struct fixture *f = *state;
	char byte;
	int fd;

	start(f);
	fd = connect_client(f);
	assert_int_equal(send(fd, "{", 1, 0), 1);
	control_free(f->control);
	f->control = NULL;
	assert_true(recv(fd, &byte, 1, 0) <= 0);
	close(fd);
}

/* ---- audits ---- */

/* An audit that goes on until it is let go or told to give up. */
static int ask_for_audit(const struct fixture *f, const char *request)
{
	int fd = connect_client(f);

	assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
	return fd;
}

static void start_with_audit(struct fixture *f)
{
	assert_int_equal(make(f, all_requests, &f->control), 0);
	assert_int_equal(control_start(f->control), 0);
}

static void await(atomic_bool *flag)
{
	while (!atomic_load(flag))
		sched_yield();
}

static void an_audit_leaves_the_thread_to_others(void **state)
{
	struct fixture *f = *state;
	struct fake_audit *audit = &f->audit;
	json_t *answer;
	int fd;

	start_with_audit(f);
	for (int i = 0; i < 3; i++) {
		atomic_store(&audit->let_go, false);
		fd = ask_for_audit(f, i ? "{\"request\":\"audit\",\"idle\":true}\n"
					: "{\"request\":\"audit\"}\n");
		await(&audit->begun);
		assert_int_equal(atomic_load(&audit->was_idle), i > 0);
		expect_status(receive(ask_for_audit(f, REQUEST)));
		/* One at a time. */
		expect_error(receive(ask_for_audit(f, "{\"request\":\"audit\"}\n")));
		atomic_store(&audit->let_go, true);
		answer = receive(fd);
		assert_int_equal(json_integer_value(json_object_get(answer, "differences")), 7);
		json_decref(answer);
	}
	assert_false(atomic_load(&audit->was_cancelled));
}

static void an_audit_ends_with_its_client(void **state)
{
	struct fixture *f = *state;
	struct fake_audit *audit = &f->audit;
	json_t *answer;
	int fd;

	start_with_audit(f);
	fd = ask_for_audit(f, "{\"request\":\"audit\"}\n");
	await(&audit->begun);
	/* Half-closed, it still listens. */
	shutdown(fd, SHUT_WR);
	expect_status(receive(ask_for_audit(f, REQUEST)));
	assert_false(atomic_load(&audit->was_cancelled));
	close(fd);
	await(&audit->was_cancelled);
	/* Its thread is at its end, or just before: then the next is refused once more. */
	atomic_store(&audit->let_go, true);
	do {
		answer = receive(ask_for_audit(f, "{\"request\":\"audit\"}\n"));
		fd = json_object_get(answer, "error") != NULL;
		json_decref(answer);
	} while (fd);
}

static void the_end_interrupts_an_audit(void **state)
{
	struct fixture *f = *state;
	struct fake_audit *audit = &f->audit;
	char byte;
	int fd;

	start_with_audit(f);
	fd = ask_for_audit(f, "{\"request\":\"audit\"}\n");
	await(&audit->begun);
	control_free(f->control);
	f->control = NULL;
	assert_true(atomic_load(&audit->was_cancelled));
	assert_true(recv(fd, &byte, 1, 0) <= 0);
	close(fd);
}

static void without_an_audit_it_is_refused(void **state)
{
	struct fixture *f = *state;

	start(f);
	expect_error(receive(ask_for_audit(f, "{\"request\":\"audit\"}\n")));
	expect_error(control_answer(status_alone, f, "{\"request\":\"audit\"}", 19));
}

static void the_report_is_whole(void **state)
{
	struct audit_report *report = calloc(1, sizeof(*report));
	const json_t *check;
	json_t *json;

	(void)state;
	assert_non_null(report);
	report->lines[AUDIT_USERS] = (struct audit_line){.checked = 9, .different = 2};
	report->lines[AUDIT_POOL].unsteady = 3;
	report->lines[AUDIT_ZEROES].checked = UINT64_MAX; /* more than JSON has */
	report->findings = 1;
	strcpy(report->texts[0], "frame 1: something");
	json = audit_json(report, 12);
	assert_int_equal(number(json, NULL, "differences"), 2);
	assert_int_equal(number(json, NULL, "unsteady"), 3);
	assert_int_equal(number(json, NULL, "milliseconds"), 12);
	check = json_object_get(json, "checks");
	assert_int_equal(json_object_size(check), AUDIT_COUNT);
	assert_int_equal(number(json_object_get(check, "users"), NULL, "different"), 2);
	assert_int_equal(number(json_object_get(check, "users"), NULL, "checked"), 9);
	assert_int_equal(number(json_object_get(check, "zeroes"), NULL, "checked"), INT64_MAX);
	assert_string_equal(json_string_value(json_array_get(json_object_get(json, "found"), 0)),
			    "frame 1: something");
	json_decref(json);
	free(report);
}

static void a_stale_socket_is_replaced(void **state)
{
	struct fixture *f = *state;
	struct control *later;
	struct stat st;
	int fd;

	start(f);
	/* The device number was given out again: another daemon, the same name. */
	assert_int_equal(make(f, status_alone, &later), 0);
	assert_int_equal(control_start(later), 0);
	control_free(f->control);
	f->control = later;
	assert_int_equal(lstat(f->path, &st), 0); /* it was not ours any more */
	fd = connect_client(f);
	assert_int_equal(send(fd, REQUEST, strlen(REQUEST), 0), strlen(REQUEST));
	expect_status(receive(fd));
}

static void names_that_cannot_be_had_are_refused(void **state)
{
	struct fixture *f = *state;
	char longest[64];
	FILE *file;

	/* Something that is no socket is not removed. */
	assert_int_equal(make(f, status_alone, &f->control), 0);
	control_free(f->control);
	f->control = NULL;
	file = fopen(f->path, "w");
	assert_non_null(file);
	fclose(file);
	assert_int_equal(make(f, status_alone, &f->control), -EEXIST);
	assert_int_equal(access(f->path, F_OK), 0);
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(control_new(-1, "name", status_alone, f, &f->control), -EBADF);
	memset(longest, 'n', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(control_new(STDIN_FILENO, longest, status_alone, f, &f->control),
			 -ENAMETOOLONG);
	assert_null(f->control);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FIXTURE(all_promised_keys_are_there),
		WITH_FIXTURE(figures_are_what_the_parts_say),
		WITH_FIXTURE(a_path_that_is_no_utf8_is_shown),
		cmocka_unit_test(the_manual_has_the_table),
		WITH_FIXTURE(requests_are_answered),
		WITH_FIXTURE(anything_else_is_an_error),
		WITH_FIXTURE(the_socket_answers),
		WITH_FIXTURE(hostile_clients_lose),
		WITH_FIXTURE(a_silent_client_holds_nobody_up_for_long),
		WITH_FIXTURE(a_slow_client_is_waited_for),
		WITH_FIXTURE(the_end_interrupts_a_client),
		WITH_FIXTURE(an_audit_leaves_the_thread_to_others),
		WITH_FIXTURE(an_audit_ends_with_its_client),
		WITH_FIXTURE(the_end_interrupts_an_audit),
		WITH_FIXTURE(without_an_audit_it_is_refused),
		cmocka_unit_test(the_report_is_whole),
		WITH_FIXTURE(a_stale_socket_is_replaced),
		WITH_FIXTURE(names_that_cannot_be_had_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
