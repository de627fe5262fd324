/* SPDX-License-Identifier: Apache-2.0 */
/* control_requests.c - all that foldctl can ask a daemon for */
#include "control_requests.h"

#include "audit_json.h"
#include "exchange.h"
#include "figures_json.h"
#include "foldfs/clock.h"
#include "foldfs/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static json_t *error_answer(const char *text)
{
	return json_pack("{s:s}", "error", text);
}

static json_t *status(void *context, const json_t *request, bool (*is_cancelled)(void *asker),
		      void *asker)
{
	(void)request;
	(void)is_cancelled;
	(void)asker;
	return figures_json(context);
}

static json_t *audit(void *context, const json_t *request, bool (*is_cancelled)(void *asker),
		     void *asker)
{
	const struct figures_context *daemon = context;
	struct audit_report *report = malloc(sizeof(*report));
	bool idle = json_is_true(json_object_get(request, "idle"));
	int64_t begun = clock_now_ms();
	json_t *answer = NULL;
	errint_t error;

	if (!report)
		return NULL;
	error = fusefs_audit(daemon->fs, idle, is_cancelled, asker, report);
	if (error && error != -ENOMEM)
		answer = error_answer("the audit was given up");
	else if (!error)
		answer = audit_json(report, (uint64_t)(clock_now_ms() - begun));
	free(report);
	return answer;
}

static json_t *explain(void *context, const json_t *request, bool (*is_cancelled)(void *asker),
		       void *asker)
{
	const struct figures_context *daemon = context;
	const json_t *inode = json_object_get(request, "inode");
	struct fusefs_plan plan;
	errint_t error;

	(void)is_cancelled;
	(void)asker;
	if (!json_is_integer(inode))
		return error_answer("the request has no number \"inode\"");
	error = fusefs_explain(daemon->fs, (ino_t)json_integer_value(inode), &plan);
	if (error == -ENOENT)
		return error_answer("the mount does not know this file");
	if (error)
		return error_answer(strerror(-error));
	return json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I}", "plan", plan_kind_name(plan.kind),
			 "reason", plan_reason_sentence(plan.reason), "open", plan.open,
			 "known_pages", (json_int_t)plan.known_pages, "pool_pages",
			 (json_int_t)plan.pool_pages, "shared_pages", (json_int_t)plan.shared_pages,
			 "zero_pages", (json_int_t)plan.zero_pages);
}

static json_t *set(void *context, const json_t *request, bool (*is_cancelled)(void *asker),
		   void *asker)
{
	const struct figures_context *daemon = context;

	(void)is_cancelled;
	if (!daemon->set)
		return error_answer("nothing can be changed here");
	return daemon->set(daemon->settings, request, control_asker_uid(asker));
}

static const char *upgrade(void *context, int fd)
{
	const struct figures_context *daemon = context;

	switch (exchange_ask(daemon->records, fd)) {
	case 0:
		return NULL;
	case -EBUSY:
		return "another upgrade is under way.";
	case -EFBIG:
		return "the limit of file sizes (ulimit -f) with which it was mounted is too low.";
	default:
		return "the mount was not made with survive=on, so its process cannot be "
		       "exchanged.";
	}
}

const struct control_request control_requests[] = {
	{.name = "status", .answer = status},
	{.name = "audit", .answer = audit, .own_thread = true},
	{.name = "explain", .answer = explain, .own_thread = true},
	{.name = "set", .answer = set, .own_thread = true},
	{.name = "upgrade", .take = upgrade},
	{.name = NULL},
};
