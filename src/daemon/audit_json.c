/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_json.c - the report of an audit, as foldctl gets it
 *
 * One object: sums at the top, one object for each check (AUDIT_CHECKS), and the texts of the first
 * differences in an array.
 */
#include "audit_json.h"

#include <stdbool.h>

/* A count that JSON cannot hold becomes the largest that it can. */
static json_t *integer(uint64_t value)
{
	return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

static bool put(json_t *object, const char *key, json_t *value)
{
	return json_object_set_new(object, key, value) == 0;
}

static json_t *line_json(const struct audit_line *line)
{
	json_t *object = json_object();

	if (object && put(object, "checked", integer(line->checked)) &&
	    put(object, "different", integer(line->different)) &&
	    put(object, "unsteady", integer(line->unsteady)))
		return object;
	json_decref(object);
	return NULL;
}

static json_t *lines_json(const struct audit_report *report)
{
	static const char *const keys[] = {
#define KEY(name, key, unit, what) [AUDIT_##name] = (key),
		AUDIT_CHECKS(KEY)
#undef KEY
	};
	json_t *object = json_object();
	bool complete = object != NULL;

	for (unsigned check = 0; complete && check < AUDIT_COUNT; check++)
		complete = put(object, keys[check], line_json(&report->lines[check]));
	if (complete)
		return object;
	json_decref(object);
	return NULL;
}

static json_t *texts_json(const struct audit_report *report)
{
	json_t *array = json_array();
	bool complete = array != NULL;

	for (unsigned i = 0; complete && i < report->findings; i++)
		complete = json_array_append_new(array, json_string(report->texts[i])) == 0;
	if (complete)
		return array;
	json_decref(array);
	return NULL;
}

static uint64_t unsteady_in(const struct audit_report *report)
{
	uint64_t unsteady = 0;

	for (unsigned check = 0; check < AUDIT_COUNT; check++)
		unsteady += report->lines[check].unsteady;
	return unsteady;
}

json_t *audit_json(const struct audit_report *report, uint64_t milliseconds)
{
	json_t *root = json_object();
	bool complete = root && put(root, "differences", integer(audit_differences(report))) &&
			put(root, "unsteady", integer(unsteady_in(report))) &&
			put(root, "files", integer(report->files)) &&
			put(root, "files_changed_behind", integer(report->files_changed)) &&
			put(root, "files_unreachable", integer(report->files_unreachable)) &&
			put(root, "files_unreadable", integer(report->files_unreadable)) &&
			put(root, "memory_bytes", integer(report->memory_bytes)) &&
			put(root, "milliseconds", integer(milliseconds)) &&
			put(root, "checks", lines_json(report)) &&
			put(root, "found", texts_json(report));

	if (complete)
		return root;
	json_decref(root);
	return NULL;
}
