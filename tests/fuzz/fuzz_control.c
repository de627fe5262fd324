/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_control.c - libFuzzer target: whatever the request, the daemon's answer is valid JSON
 *
 * An answer has either an error and nothing else, or the figures. It passes through json_dumps()
 * and back unchanged.
 */
#include "daemon/control.h"
#include "daemon/exchange.h"
#include "daemon/figures_json.h"

#include "foldfs/counters.h"
#include "fuzz.h"

#include <errno.h>
#include <string.h>

struct fusefs {
	char unused;
};

/* The file system behind it: nothing has happened yet. */
const char *fusefs_transport(const struct fusefs *fs)
{
	(void)fs;
	return "none";
}

errint_t exchange_ask(struct session *session, int fd)
{
	(void)session;
	(void)fd;
	return -ENOTSUP;
}

const char *fusefs_locks(const struct fusefs *fs)
{
	(void)fs;
	return "none";
}

void fusefs_usage(const struct fusefs *fs, struct fusefs_usage *ret_usage)
{
	(void)fs;
	memset(ret_usage, 0, sizeof(*ret_usage));
}

const struct counters *fusefs_stats(const struct fusefs *fs)
{
	(void)fs;
	return NULL;
}

uint64_t counters_sum(const struct counters *counters, enum counter_id id)
{
	(void)counters;
	return (uint64_t)id;
}

static json_t *answer_status(void *context, const json_t *request,
			     bool (*is_cancelled)(void *asker), void *asker)
{
	(void)request;
	(void)is_cancelled;
	(void)asker;
	return figures_json(context);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct control_request requests[] = {
		{.name = "status", .answer = answer_status},
		{.name = NULL},
	};
	static struct fusefs fs;
	struct figures_context status = {.fs = &fs, .source = "/s", .mountpoint = "/m"};
	json_t *answer = control_answer(requests, &status, (const char *)data, size), *again;
	const json_t *error;
	char *text;

	expect(json_is_object(answer));
	error = json_object_get(answer, "error");
	expect(error ? json_is_string(error) && json_object_size(answer) == 1
		     : json_is_string(json_object_get(answer, "version")));
	text = json_dumps(answer, JSON_COMPACT);
	expect(text && !strchr(text, '\n'));
	again = json_loads(text, 0, NULL);
	expect(json_equal(answer, again));
	json_decref(again);
	json_decref(answer);
	free(text);
	return 0;
}
