/* SPDX-License-Identifier: Apache-2.0 */
/*
 * figures_json.h - the one table of all figures
 *
 * The JSON keys, the list that foldctl prints and the manual's list are generated from
 * STATUS_FIGURES (figures.h), so they cannot disagree. Dots in a key are levels of the JSON object.
 */
#ifndef FOLDFS_FIGURES_JSON_H
#define FOLDFS_FIGURES_JSON_H

#include "foldfs/figures.h"
#include "foldfs/fusefs.h"
#include "own_mount.h"

#include <jansson.h>
#include <time.h>

struct settings;
struct state;

struct figures_context {
	struct fusefs *fs;
	const char *source;
	const char *mountpoint;        /* where it was mounted */
	const struct own_mount *mount; /* where it is now; NULL: still there */
	struct state *state; /* NULL: nothing outlives the mount. Its scan outlives the last
				    * asker */
	time_t started;      /* CLOCK_MONOTONIC seconds */
	/* What can be changed; settings_answer() and settings_text(). NULL: nothing. */
	struct settings *settings;
	json_t *(*set)(struct settings *settings, const json_t *request, uid_t asker);
	char *(*settings_text)(struct settings *settings);
	struct session *records; /* NULL: nothing outlives the process */
};

/* All figures as a new JSON object, which is the caller's. NULL: no memory. Any thread. */
json_t *figures_json(const struct figures_context *context);

#endif
