/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foldctl_list.c - foldctl list: all mounts of this mount namespace, one line each
 *
 * Names are the users' own, and root lists everybody's mounts. So no name can break a line or reach
 * the terminal as a control sequence. What is unknown is "-", and null in JSON.
 */
#include "foldctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum column {
	COLUMN_MOUNTPOINT,
	COLUMN_SOURCE,
	COLUMN_STATE,
	COLUMN_PID,
	COLUMN_POOL,
	COLUMN_SAVED,
	COLUMN_WINDOW,
	COLUMN_TRANSPORT,
	COLUMN_UP,
	COLUMNS,
};

static const struct {
	const char *title;
	bool right; /* numbers stand at the right */
} columns[COLUMNS] = {
	[COLUMN_MOUNTPOINT] = {"MOUNTPOINT", false},
	[COLUMN_SOURCE] = {"SOURCE", false},
	[COLUMN_STATE] = {"STATE", false},
	[COLUMN_PID] = {"PID", true},
	[COLUMN_POOL] = {"POOL", true},
	[COLUMN_SAVED] = {"SAVED", true},
	[COLUMN_WINDOW] = {"WINDOW", true},
	[COLUMN_TRANSPORT] = {"TRANSPORT", false},
	[COLUMN_UP] = {"UP", true},
};

struct row {
	char *cells[COLUMNS]; /* malloced */
};

static const char *state_name(enum mount_state state)
{
	switch (state) {
	case MOUNT_SERVING:
		return "serving";
	case MOUNT_SILENT:
		return "silent";
	case MOUNT_DEAD:
		return "dead";
	case MOUNT_PRIVATE:
		return "private";
	default:
		return "unreachable";
	}
}

/* ---- what is shown ---- */

/* What a daemon said; known is false if it said nothing of it. */
struct amount {
	bool known;
	int64_t value;
};

static struct amount amount_of(const json_t *status, const char *key)
{
	const json_t *value = value_at(status, key);

	return (struct amount){json_is_integer(value), json_integer_value(value)};
}

static struct amount bytes_of(const json_t *status, const char *frames)
{
	struct amount count = amount_of(status, frames), each = amount_of(status, "frame_bytes");

	return (struct amount){count.known && each.known, bytes_of_pages(count.value, each.value)};
}

/* A mount that has -o fsname= has another name in the list of mounts. */
static const char *source_of(const struct mount_view *view)
{
	const char *said = json_string_value(value_at(view->status, "source"));

	return said ? said : view->entry.source;
}

/* ---- as a table ---- */

/* One word: 3.10G, 512B. */
static const char *brief_size(int64_t bytes, struct human_buffer *buffer)
{
	char *space = strchr(human_size(bytes, buffer), ' ');

	space[0] = space[1];
	space[1] = '\0';
	return buffer->text;
}

/* One word: 3d4h. */
static const char *brief_duration(int64_t seconds, struct human_buffer *buffer)
{
	char *to = buffer->text;

	for (const char *from = human_duration(seconds, buffer); *from; from++)
		if (*from != ' ')
			*to++ = *from;
	*to = '\0';
	return buffer->text;
}

/* TEXT of somebody else's as a cell. NULL: no memory. */
static char *foreign_cell(const char *text)
{
	char *cell = NULL;
	size_t size;
	FILE *stream = open_memstream(&cell, &size);

	if (!stream)
		return NULL;
	human_print_foreign(stream, *text ? text : "-");
	if (fclose(stream) == 0)
		return cell;
	free(cell);
	return NULL;
}

static char *size_cell(struct amount amount)
{
	struct human_buffer a;

	return strdup(amount.known ? brief_size(amount.value, &a) : "-");
}

/* USED/ALL; "off" if there is to be nothing. */
static char *share_cell(struct amount used, struct amount all)
{
	struct human_buffer a, b;
	char *cell;

	if (!used.known || !all.known)
		return strdup("-");
	if (all.value == 0)
		return strdup("off");
	return asprintf(&cell, "%s/%s", brief_size(used.value, &a), brief_size(all.value, &b)) < 0
		       ? NULL
		       : cell;
}

static char *pid_cell(pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", (int)pid);
	return strdup(pid > 0 ? text : "-");
}

static char *up_cell(struct amount seconds)
{
	struct human_buffer a;

	return strdup(seconds.known ? brief_duration(seconds.value, &a) : "-");
}

static errint_t fill_row(const struct mount_view *view, struct row *row)
{
	const json_t *status = view->status;
	const char *transport = json_string_value(value_at(status, "transport"));
	char **cells = row->cells;

	cells[COLUMN_MOUNTPOINT] = foreign_cell(view->entry.mountpoint);
	cells[COLUMN_SOURCE] = foreign_cell(source_of(view));
	cells[COLUMN_STATE] = strdup(state_name(view->state));
	cells[COLUMN_PID] = pid_cell(view->pid);
	cells[COLUMN_POOL] =
		share_cell(bytes_of(status, "frames_used"), bytes_of(status, "frames_total"));
	cells[COLUMN_SAVED] = size_cell(amount_of(status, "general_profit"));
	cells[COLUMN_WINDOW] = share_cell(amount_of(status, "window.bytes"),
					  amount_of(status, "window.budget_bytes"));
	cells[COLUMN_TRANSPORT] = foreign_cell(transport ? transport : "");
	cells[COLUMN_UP] = up_cell(amount_of(status, "uptime_s"));
	for (unsigned i = 0; i < COLUMNS; i++)
		if (!cells[i])
			return -ENOMEM;
	return 0;
}

static errint_t fill_titles(struct row *row)
{
	for (unsigned i = 0; i < COLUMNS; i++) {
		row->cells[i] = strdup(columns[i].title);
		if (!row->cells[i])
			return -ENOMEM;
	}
	return 0;
}

/* Characters of UTF-8, each as wide as another. */
static int width_of(const char *text)
{
	int width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

static void print_rows(const struct row *rows, size_t count)
{
	int widths[COLUMNS] = {0};

	for (size_t r = 0; r < count; r++)
		for (unsigned i = 0; i < COLUMNS; i++)
			if (widths[i] < width_of(rows[r].cells[i]))
				widths[i] = width_of(rows[r].cells[i]);
	for (size_t r = 0; r < count; r++) {
		for (unsigned i = 0; i < COLUMNS; i++) {
			const char *cell = rows[r].cells[i];
			int blanks = widths[i] - width_of(cell);
			bool last = i + 1 == COLUMNS;

			if (columns[i].right)
				printf("%*s%s", blanks, "", cell);
			else
				printf("%s%*s", cell, blanks, "");
			fputs(last ? "\n" : "  ", stdout);
		}
	}
}

static int print_table(const struct mount_views *views)
{
	size_t count = views->count + 1;
	struct row *rows = calloc(count, sizeof(*rows));
	errint_t error = rows ? fill_titles(&rows[0]) : -ENOMEM;

	for (size_t r = 1; r < count && !error; r++)
		error = fill_row(&views->views[r - 1], &rows[r]);
	if (!error)
		print_rows(rows, count);
	for (size_t r = 0; rows && r < count; r++)
		for (unsigned i = 0; i < COLUMNS; i++)
			free(rows[r].cells[i]);
	free(rows);
	return error ? fail("not enough memory.") : finish_output();
}

/* ---- as JSON ---- */

/* A name may be any bytes, and JSON is UTF-8. In a name that is not UTF-8, each byte beyond ASCII
 * becomes U+FFFD, as in the status. */
static json_t *name_json(const char *name)
{
	json_t *json = json_string(name);
	char *copy = NULL;
	size_t size;
	FILE *stream;

	if (json)
		return json;
	stream = open_memstream(&copy, &size);
	if (!stream)
		return NULL;
	for (; *name; name++) {
		if ((unsigned char)*name < 0x80)
			fputc(*name, stream);
		else
			fputs("\xEF\xBF\xBD", stream);
	}
	json = fclose(stream) == 0 ? json_string(copy) : NULL;
	free(copy);
	return json;
}

static json_t *amount_json(struct amount amount)
{
	return amount.known ? json_integer(amount.value) : json_null();
}

static json_t *text_json(const json_t *status, const char *key)
{
	const char *value = json_string_value(value_at(status, key));

	return value ? json_string(value) : json_null();
}

/* NULL: no memory. */
static json_t *view_json(const struct mount_view *view)
{
	const struct mount_entry *entry = &view->entry;
	const json_t *status = view->status;
	char device[32];

	snprintf(device, sizeof(device), "%u:%u", entry->device_major, entry->device_minor);
	return json_pack("{s:o, s:o, s:s, s:o, s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
			 "mountpoint", name_json(entry->mountpoint), "source",
			 name_json(source_of(view)), "state", state_name(view->state), "pid",
			 amount_json((struct amount){view->pid > 0, view->pid}), "owner",
			 (json_int_t)entry->owner, "device", device, "pool_used_bytes",
			 amount_json(bytes_of(status, "frames_used")), "pool_bytes",
			 amount_json(bytes_of(status, "frames_total")), "general_profit",
			 amount_json(amount_of(status, "general_profit")), "window_bytes",
			 amount_json(amount_of(status, "window.bytes")), "window_budget_bytes",
			 amount_json(amount_of(status, "window.budget_bytes")), "transport",
			 text_json(status, "transport"), "uptime_s",
			 amount_json(amount_of(status, "uptime_s")), "version",
			 text_json(status, "version"));
}

static int print_json(const struct mount_views *views)
{
	json_t *list = json_array(), *root = json_pack("{s:O}", "mounts", list);
	bool complete = list && root;

	for (size_t i = 0; i < views->count && complete; i++)
		complete = json_array_append_new(list, view_json(&views->views[i])) == 0;
	if (complete) {
		json_dumpf(root, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(root);
	json_decref(list);
	return complete ? finish_output() : fail("not enough memory.");
}

int command_list(char *argv[])
{
	struct mount_views views;
	const char *word;
	bool as_json;
	errint_t error;
	int result;

	if (!take_arguments(argv, "--json", &word, &as_json))
		return EXIT_FAILURE;
	if (word)
		return fail("'%s' is one argument too many: list shows all mounts.", word);
	error = views_read((uid_t)-1, &views);
	if (error)
		return fail("cannot read the list of mounts: %s.", strerror(-error));
	error = views_ask(&views, ANSWER_MS);
	if (error)
		result = fail("not enough memory.");
	else
		result = as_json ? print_json(&views) : print_table(&views);
	views_clear(&views);
	return result;
}
