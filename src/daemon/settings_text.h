/* SPDX-License-Identifier: Apache-2.0 */
/* settings_text.h - the settings of a mount as words of -o and as JSON: for settings.c */
#ifndef FOLDFS_SETTINGS_TEXT_H
#define FOLDFS_SETTINGS_TEXT_H

#include "foldfs/options.h"

#include <jansson.h>

/* What can be changed while the mount runs. */
enum setting {
	SETTING_POOL,
	SETTING_WINDOW,
	SETTING_MAPS,
	SETTING_SCAN,
	SETTING_WATCH,
	SETTING_PASSTHROUGH,
	SETTING_PASSTHROUGH_MAX,
	SETTING_ATTR_TIMEOUT,
	SETTING_ENTRY_TIMEOUT,
	SETTING_NEGATIVE_TIMEOUT,
	SETTINGS
};

bool setting_differs(enum setting setting, const struct options *from, const struct options *to);

/* All settings as words of -o, separated by commas. Malloced; NULL: no memory. */
char *settings_words_text(const struct options *options);
/* The same without those that follow another one: all that a mount has to be told. */
char *settings_said_text(const struct options *options);
/* What differs: "pool=8G to pool=2G, …"; "" for nothing. Malloced; NULL: no memory. */
char *settings_changes_text(const struct options *from, const struct options *to);

/* The same as a list of {"from":WORD,"to":WORD}. NULL: no memory. */
json_t *settings_changes_json(const struct options *from, const struct options *to);
/* The answer of settings.h, with CHANGES, which is taken over. NULL: no memory, or no CHANGES. */
json_t *settings_json(const struct options *options, json_t *changes);

#endif
