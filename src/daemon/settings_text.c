/* SPDX-License-Identifier: Apache-2.0 */
/* settings_text.c - the settings of a mount as words of -o and as JSON */
#include "settings_text.h"

#include "options_words.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[SETTINGS] = {
	[SETTING_POOL] = "pool",
	[SETTING_WINDOW] = "window",
	[SETTING_MAPS] = "maps",
	[SETTING_SCAN] = "scan",
	[SETTING_WATCH] = "watch",
	[SETTING_PASSTHROUGH] = "passthrough",
	[SETTING_PASSTHROUGH_MAX] = "passthrough_max",
	[SETTING_ATTR_TIMEOUT] = "attr_timeout",
	[SETTING_ENTRY_TIMEOUT] = "entry_timeout",
	[SETTING_NEGATIVE_TIMEOUT] = "negative_timeout",
};

static uint64_t size_of(enum setting setting, const struct options *options)
{
	switch (setting) {
	case SETTING_POOL:
		return options->pool_bytes;
	case SETTING_WINDOW:
		return options->window_bytes;
	case SETTING_MAPS:
		return options->maps_bytes;
	default:
		return options->passthrough_max;
	}
}

static double seconds_of(enum setting setting, const struct options *options)
{
	switch (setting) {
	case SETTING_ATTR_TIMEOUT:
		return options->attr_timeout;
	case SETTING_ENTRY_TIMEOUT:
		return options->entry_timeout;
	default:
		return options->negative_timeout;
	}
}

static bool is_size(enum setting setting)
{
	return setting <= SETTING_MAPS || setting == SETTING_PASSTHROUGH_MAX;
}

bool setting_differs(enum setting setting, const struct options *from, const struct options *to)
{
	if (is_size(setting))
		return size_of(setting, from) != size_of(setting, to);
	switch (setting) {
	case SETTING_SCAN:
		return from->scan_background != to->scan_background;
	case SETTING_WATCH:
		return from->watch != to->watch;
	case SETTING_PASSTHROUGH:
		return !option_lists_equal(from->passthrough, to->passthrough);
	default:
		return seconds_of(setting, from) != seconds_of(setting, to);
	}
}

/* ---- words ---- */

/* BYTES as -o takes it, in the largest unit that says it exactly. */
static void print_size(FILE *stream, uint64_t bytes)
{
	static const char units[] = "\0KMGT";
	unsigned unit = 0;

	while (bytes && !(bytes & 1023) && unit < 4) {
		bytes >>= 10;
		unit++;
	}
	fprintf(stream, "%" PRIu64, bytes);
	if (unit)
		putc(units[unit], stream);
}

static void print_globs(FILE *stream, char *const *globs)
{
	const char *between = "";

	if (!globs)
		fputs("nopassthrough", stream);
	for (; globs && *globs; globs++) {
		char *word = option_word("passthrough", *globs);

		fprintf(stream, "%s%s", between, word ? word : "passthrough=?");
		free(word);
		between = ",";
	}
}

static void print_word(FILE *stream, enum setting setting, const struct options *options)
{
	if (setting == SETTING_WATCH) {
		fputs(options->watch ? "watch" : "nowatch", stream);
	} else if (setting == SETTING_PASSTHROUGH) {
		print_globs(stream, options->passthrough);
	} else {
		fprintf(stream, "%s=", names[setting]);
		if (is_size(setting))
			print_size(stream, size_of(setting, options));
		else if (setting == SETTING_SCAN)
			fputs(options->scan_background ? "background" : "off", stream);
		else
			fprintf(stream, "%.10g", seconds_of(setting, options));
	}
}

/* What was written to STREAM, which is closed; NULL: not all of it. */
static char *finished(FILE *stream, char **text)
{
	bool failed = ferror(stream);

	if (fclose(stream) == 0 && !failed)
		return *text;
	free(*text);
	return NULL;
}

static char *word_of(enum setting setting, const struct options *options)
{
	size_t size;
	char *text = NULL;
	FILE *stream = open_memstream(&text, &size);

	if (!stream)
		return NULL;
	print_word(stream, setting, options);
	return finished(stream, &text);
}

/* Whether nobody has said what SETTING is, so that it follows another one. */
static bool follows(enum setting setting, const struct options *options)
{
	const struct option_words *words = options->words;

	return (setting == SETTING_WINDOW && !words->window) ||
	       (setting == SETTING_MAPS && !words->maps) ||
	       (setting == SETTING_NEGATIVE_TIMEOUT && !words->negative_timeout &&
		options->read_only);
}

/* The words of all settings, or of those that follow no other one. */
static char *words_text(const struct options *options, bool all)
{
	const char *between = "";
	size_t size;
	char *text = NULL;
	FILE *stream = open_memstream(&text, &size);

	if (!stream)
		return NULL;
	for (unsigned i = 0; i < SETTINGS; i++) {
		if (!all && follows(i, options))
			continue;
		fputs(between, stream);
		print_word(stream, i, options);
		between = ",";
	}
	return finished(stream, &text);
}

char *settings_words_text(const struct options *options)
{
	return words_text(options, true);
}

char *settings_said_text(const struct options *options)
{
	return words_text(options, false);
}

char *settings_changes_text(const struct options *from, const struct options *to)
{
	const char *between = "";
	size_t size;
	char *text = NULL;
	FILE *stream = open_memstream(&text, &size);

	if (!stream)
		return NULL;
	for (unsigned i = 0; i < SETTINGS; i++) {
		if (!setting_differs(i, from, to))
			continue;
		fputs(between, stream);
		print_word(stream, i, from);
		fputs(" to ", stream);
		print_word(stream, i, to);
		between = ", ";
	}
	return finished(stream, &text);
}

/* ---- JSON ---- */

/* Like json_string(), for text that may be any bytes: JSON is UTF-8. */
static json_t *json_of(const char *text)
{
	json_t *json = text ? json_string(text) : NULL;

	return json || !text ? json : json_string("(not UTF-8)");
}

static json_t *json_word(enum setting setting, const struct options *options)
{
	char *word = word_of(setting, options);
	json_t *json = json_of(word);

	free(word);
	return json;
}

json_t *settings_changes_json(const struct options *from, const struct options *to)
{
	json_t *list = json_array();
	bool complete = list != NULL;

	for (unsigned i = 0; i < SETTINGS && complete; i++)
		if (setting_differs(i, from, to))
			complete = json_array_append_new(list, json_pack("{s:o, s:o}", "from",
									 json_word(i, from), "to",
									 json_word(i, to))) == 0;
	if (complete)
		return list;
	json_decref(list);
	return NULL;
}

static json_t *json_globs(char *const *globs)
{
	json_t *list = json_array();

	for (; list && globs && *globs; globs++) {
		if (json_array_append_new(list, json_of(*globs)) == 0)
			continue;
		json_decref(list);
		return NULL;
	}
	return list;
}

static json_t *json_value(enum setting setting, const struct options *options)
{
	uint64_t size = size_of(setting, options);

	if (is_size(setting))
		return json_integer(size > INT64_MAX ? INT64_MAX : (json_int_t)size);
	switch (setting) {
	case SETTING_SCAN:
		return json_string(options->scan_background ? "background" : "off");
	case SETTING_WATCH:
		return json_boolean(options->watch);
	case SETTING_PASSTHROUGH:
		return json_globs(options->passthrough);
	default:
		return json_real(seconds_of(setting, options));
	}
}

json_t *settings_json(const struct options *options, json_t *changes)
{
	json_t *values = json_object();
	json_t *words = json_array();
	json_t *following = json_array();
	bool complete = values && words && following && changes;

	for (unsigned i = 0; i < SETTINGS && complete; i++) {
		complete = json_object_set_new(values, names[i], json_value(i, options)) == 0 &&
			   json_array_append_new(words, json_word(i, options)) == 0;
		if (complete && follows(i, options))
			complete = json_array_append_new(following, json_string(names[i])) == 0;
	}
	if (complete)
		return json_pack("{s:o, s:o, s:o, s:o}", "settings", values, "words", words,
				 "follows", following, "changed", changes);
	json_decref(values);
	json_decref(words);
	json_decref(following);
	json_decref(changes);
	return NULL;
}
