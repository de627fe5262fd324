/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settings.c - what of a mount can be changed while it runs, and how
 *
 * One table says how each part is changed. Parts that can fail come first. If one fails, those
 * before it are set back, and the request is refused.
 */
#include "settings.h"

#include "dirty_limit.h"
#include "foldfs/human.h"
#include "options_change.h"
#include "options_parse.h"
#include "settings_text.h"
#include "state_open.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format(printf, 1, 2))) static char *sentence(const char *format, ...)
{
	char *text;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	return text;
}

char *settings_watch_problem(errint_t error, const char *source)
{
	switch (error) {
	case -EPERM:
		return sentence("watch needs root's rights: the capabilities CAP_SYS_ADMIN and "
				"CAP_DAC_READ_SEARCH.");
	case -EOPNOTSUPP:
		return sentence("watch is not possible: the file system of %s does not report "
				"changes by file handle (fanotify).",
				source);
	case -ENOSYS:
		return sentence("watch needs Linux 5.9 or newer, with fanotify.");
	default:
		return sentence("cannot watch %s: %s.", source, strerror(-error));
	}
}

void settings_limit_dirty(struct settings *settings)
{
	const struct mount_entry *entry = &settings->mount->entry;

	/* Without this limit the window keeps less closely to its budget: see window_trim.c. */
	(void)dirty_limit_set(entry->device_major, entry->device_minor,
			      settings->options->window_bytes, &settings->dirty_kernels);
}

/* ---- the parts ---- */

/* Each makes TO hold. -errno: nothing has changed. */

static errint_t apply_scan(struct settings *settings, const struct options *to)
{
	if (to->scan_background)
		return state_begin_scan(settings->source_fd, settings->state);
	state_stop_scan(settings->state);
	return 0;
}

static errint_t apply_watch(struct settings *settings, const struct options *to)
{
	if (to->watch)
		return fusefs_watch(settings->fs);
	fusefs_unwatch(settings->fs);
	return 0;
}

static errint_t apply_passthrough(struct settings *settings, const struct options *to)
{
	return fusefs_set_passthrough(settings->fs, to);
}

static errint_t apply_pool(struct settings *settings, const struct options *to)
{
	return fusefs_set_pool(settings->fs, to->pool_bytes);
}

static errint_t apply_window(struct settings *settings, const struct options *to)
{
	fusefs_set_window(settings->fs, to->window_bytes);
	return 0;
}

static errint_t apply_maps(struct settings *settings, const struct options *to)
{
	fusefs_set_maps(settings->fs, to->maps_bytes);
	return 0;
}

static errint_t apply_timeouts(struct settings *settings, const struct options *to)
{
	fusefs_set_timeouts(settings->fs, to);
	return 0;
}

static const struct part {
	const char *name;
	errint_t (*apply)(struct settings *settings, const struct options *to);
	enum setting settings[SETTINGS]; /* those that it makes hold */
	unsigned count;
} parts[] = {
	{"scan", apply_scan, {SETTING_SCAN}, 1},
	{"watch", apply_watch, {SETTING_WATCH}, 1},
	{"passthrough", apply_passthrough, {SETTING_PASSTHROUGH, SETTING_PASSTHROUGH_MAX}, 2},
	{"pool", apply_pool, {SETTING_POOL}, 1},
	{"window", apply_window, {SETTING_WINDOW}, 1},
	{"maps", apply_maps, {SETTING_MAPS}, 1},
	{"timeouts",
	 apply_timeouts,
	 {SETTING_ATTR_TIMEOUT, SETTING_ENTRY_TIMEOUT, SETTING_NEGATIVE_TIMEOUT},
	 3},
};
#define PARTS (sizeof(parts) / sizeof(parts[0]))

static bool part_differs(const struct part *part, const struct options *from,
			 const struct options *to)
{
	for (unsigned i = 0; i < part->count; i++)
		if (setting_differs(part->settings[i], from, to))
			return true;
	return false;
}

/* Set the first COUNT parts back, after the one behind them has failed. */
static void set_back(struct settings *settings, size_t count, const struct options *to)
{
	const struct options *from = settings->options;

	while (count--) {
		errint_t error = part_differs(&parts[count], from, to)
					 ? parts[count].apply(settings, from)
					 : 0;

		if (error)
			fuse_log(FUSE_LOG_WARNING, "cannot set %s back to what it was: %s.\n",
				 parts[count].name, strerror(-error));
	}
}

/* Make TO hold. -EINVAL: nothing has changed, and *ret_problem says why; NULL: no memory. */
static errint_t apply(struct settings *settings, const struct options *to, char **ret_problem)
{
	const struct options *from = settings->options;

	for (size_t i = 0; i < PARTS; i++) {
		errint_t error =
			part_differs(&parts[i], from, to) ? parts[i].apply(settings, to) : 0;

		if (!error)
			continue;
		set_back(settings, i, to);
		*ret_problem = parts[i].apply == apply_watch
				       ? settings_watch_problem(error, settings->source)
				       : sentence("cannot change %s: %s.", parts[i].name,
						  strerror(-error));
		return -EINVAL;
	}
	return 0;
}

/* What the words alone do not show. -EINVAL as apply(). */
static errint_t judge(const struct settings *settings, const struct options *to, char **ret_problem)
{
	uint64_t most = fusefs_pool_most(settings->fs);
	struct human_buffer size;

	if (to->pool_bytes > most)
		*ret_problem = sentence("pool cannot grow beyond %s while it is mounted: there "
					"were no addresses for more at the mount.",
					human_size((int64_t)most, &size));
	else if (to->scan_background && !settings->options->scan_background &&
		 !settings->state->catalogue)
		*ret_problem = sentence("scan=background is not possible: there is no catalogue.");
	else
		return 0;
	return -EINVAL;
}

/* ---- requests ---- */

/* The words of REQUEST, which keeps them. *RET_COUNT of them; the caller frees the list. NULL: no
 * memory. */
static const char **words_of(const json_t *request, size_t *ret_count)
{
	const json_t *list = json_object_get(request, "words");
	const char **words = calloc(json_array_size(list) + 1, sizeof(*words));
	size_t i;

	for (i = 0; words && i < json_array_size(list); i++) {
		words[i] = json_string_value(json_array_get(list, i));
		if (!words[i])
			words[i] = "";
	}
	*ret_count = i;
	return words;
}

static json_t *refusal(char *problem)
{
	json_t *answer = json_pack("{s:s}", "refused", problem ? problem : "not enough memory.");

	/* A path need not be UTF-8. */
	if (!answer)
		answer = json_pack("{s:s}", "refused", "the source cannot be named here.");
	free(problem);
	return answer;
}

static void log_change(const struct options *from, const struct options *to, uid_t asker)
{
	char *text = settings_changes_text(from, to);

	if (text && *text)
		fuse_log(FUSE_LOG_NOTICE, "user %u has set %s.\n", asker, text);
	free(text);
}

/* Make CHANGED, which was judged, hold; SAID are its words. -EINVAL as apply(); then it is still
 * the caller's. */
static errint_t set(struct settings *settings, struct options *changed, const char *said,
		    uid_t asker, char **ret_problem)
{
	bool window = changed->window_bytes != settings->options->window_bytes;
	errint_t error;

	if (strlen(said) >= SESSION_SETTINGS_BYTES) {
		*ret_problem = sentence("all settings together have more than %u bytes.",
					SESSION_SETTINGS_BYTES - 1);
		return -EINVAL;
	}
	error = apply(settings, changed, ret_problem);
	if (error)
		return error;
	session_note_settings(settings->records, said);
	log_change(settings->options, changed, asker);
	pthread_mutex_lock(&settings->lock);
	options_commit(settings->options, changed);
	pthread_mutex_unlock(&settings->lock);
	if (window)
		settings_limit_dirty(settings);
	return 0;
}

json_t *settings_answer(struct settings *settings, const json_t *request, uid_t asker)
{
	bool check = json_is_true(json_object_get(request, "check"));
	struct options changed;
	char *problem = NULL;
	char *said = NULL;
	json_t *changes;
	size_t count;
	const char **words = words_of(request, &count);
	errint_t error;

	if (!words)
		return NULL;
	error = options_change(settings->options, words, count, &changed, &problem);
	free(words);
	if (error)
		return refusal(problem);
	changes = settings_changes_json(settings->options, &changed);
	error = judge(settings, &changed, &problem);
	if (!error && !check) {
		said = settings_said_text(&changed);
		error = said ? set(settings, &changed, said, asker, &problem) : -ENOMEM;
		free(said);
	}
	if (error || check)
		options_clear(&changed);
	if (!error)
		return settings_json(settings->options, changes);
	json_decref(changes);
	return refusal(problem);
}

char *settings_text(struct settings *settings)
{
	char *text;

	pthread_mutex_lock(&settings->lock);
	text = settings_words_text(settings->options);
	pthread_mutex_unlock(&settings->lock);
	return text;
}

errint_t settings_recall(const struct session *records, struct options *options)
{
	const char *said = session_settings(records);
	struct options changed;
	char *problem = NULL;
	errint_t error;

	if (!said)
		return 0;
	error = options_change(options, &said, 1, &changed, &problem);
	free(problem);
	if (!error)
		options_commit(options, &changed);
	return error;
}
