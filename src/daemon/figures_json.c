/* SPDX-License-Identifier: Apache-2.0 */
/*
 * figures_json.c - the one table of all figures, as JSON
 *
 * Everything that changes is read first, into one struct reading, so that figures which belong
 * together (pages_sharing and general_profit) are of the same moment. Nothing here touches the
 * mount or the source, or waits for a lock that a request may hold for long: see fusefs_usage().
 */
#include "figures_json.h"

#include "foldfs/catalogue.h"
#include "foldfs/clock.h"
#include "foldfs/counters.h"
#include "foldfs/memory.h"
#include "foldfs/privileges.h"
#include "foldfs/scan.h"
#include "foldfs/state.h"
#include "syscall_filter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is kept about a frame, besides its bytes: one cache line. */
#define FRAME_METADATA_BYTES 64

struct reading {
	const char *source;
	const char *mountpoint;
	char *place;    /* malloced, or NULL */
	char *settings; /* the same */
	const char *transport;
	const char *locks;
	uint64_t uptime_s;
	bool survives;
	uint64_t takeovers;
	uint64_t exchanges;
	const char *state;
	uint64_t scan_bytes;
	uint64_t copies;
	uint64_t copies_bytes;
	struct privileges privileges;
	char capabilities[PRIVILEGE_NAMES_BYTES];
	char bounding[PRIVILEGE_NAMES_BYTES];
	struct fusefs_usage usage;
	struct memory_usage memory;
	const struct counters *counters;
};

static int64_t signed_of(uint64_t value)
{
	return value > INT64_MAX ? INT64_MAX : (int64_t)value;
}

/* By KSM's definition: saved pages in bytes, less the metadata that it takes to find them. */
static int64_t general_profit(const struct reading *r)
{
	const struct page_store_usage *store = &r->usage.store;
	uint64_t saved = (store->pages_sharing + r->usage.zero_pages) << FOLD_PAGE_SHIFT;
	uint64_t metadata = r->usage.maps_bytes + store->index_bytes +
			    store->frames_used * FRAME_METADATA_BYTES;

	return signed_of(saved) - signed_of(metadata);
}

static uint64_t total_bytes(const struct reading *r)
{
	return fusefs_memory(&r->usage) + r->scan_bytes + r->memory.program_bytes;
}

/* JSON is UTF-8, but a path may be any bytes. In a path that is not UTF-8, each byte beyond ASCII
 * becomes U+FFFD. */
static json_t *text_of(const char *text)
{
	static const char replacement[] = "\xEF\xBF\xBD";
	json_t *json = json_string(text);
	size_t length = 0;
	char *copy;

	if (json)
		return json;
	copy = malloc(strlen(text) * strlen(replacement) + 1);
	if (!copy)
		return NULL;
	for (; *text; text++) {
		if ((unsigned char)*text < 0x80) {
			copy[length++] = *text;
		} else {
			memcpy(copy + length, replacement, strlen(replacement));
			length += strlen(replacement);
		}
	}
	copy[length] = '\0';
	json = json_string(copy);
	free(copy);
	return json;
}

/* Put VALUE (taken over; may be NULL) at KEY of ROOT. If KEY has a dot, the part before it names
 * the object that VALUE is put into. */
static bool put(json_t *root, const char *key, json_t *value)
{
	const char *dot = strchr(key, '.');
	json_t *object = root;
	char group[32];

	if (dot) {
		snprintf(group, sizeof(group), "%.*s", (int)(dot - key), key);
		object = json_object_get(root, group);
		if (!object) {
			object = json_object();
			if (json_object_set_new(root, group, object) != 0) {
				json_decref(value);
				return false;
			}
		}
		key = dot + 1;
	}
	return json_object_set_new(object, key, value) == 0;
}

/* All of the daemon's threads have the same privileges, except while one of them acts as another
 * user. */
static void read_privileges(struct reading *reading)
{
	privileges_read(&reading->privileges);
	privileges_names(reading->privileges.capabilities, reading->capabilities);
	privileges_names(reading->privileges.bounding, reading->bounding);
}

static uint64_t scan_bytes(struct state *state)
{
	uint64_t bytes;

	pthread_mutex_lock(&state->scan_lock);
	bytes = state->scan ? scan_memory(state->scan) : 0;
	pthread_mutex_unlock(&state->scan_lock);
	return bytes;
}

static void take_reading(const struct figures_context *context, struct reading *ret_reading)
{
	struct reading reading = {
		.source = context->source,
		.state = "",
		.transport = fusefs_transport(context->fs),
		.locks = fusefs_locks(context->fs),
		.counters = fusefs_stats(context->fs),
	};

	reading.uptime_s = (uint64_t)(clock_now_ns() / NS_PER_S - context->started);
	reading.place = context->mount ? own_mount_place(context->mount) : NULL;
	reading.mountpoint = !context->mount ? context->mountpoint
			     : reading.place ? reading.place
					     : "";
	if (context->state && context->state->directory)
		reading.state = context->state->directory;
	if (context->settings)
		reading.settings = context->settings_text(context->settings);
	if (context->state)
		reading.scan_bytes = scan_bytes(context->state);
	if (context->state && context->state->catalogue)
		catalogue_count_objects(context->state->catalogue, &reading.copies,
					&reading.copies_bytes);
	if (context->records) {
		reading.survives = context->records->survives;
		reading.exchanges = atomic_load(&context->records->exchanges);
		reading.takeovers = context->records->workers - 1 - reading.exchanges;
	}
	read_privileges(&reading);
	fusefs_usage(context->fs, &reading.usage);
	memory_usage(&reading.memory);
	*ret_reading = reading;
}

json_t *figures_json(const struct figures_context *context)
{
	json_t *root = json_object();
	struct reading reading, *r = &reading;
	bool complete = root != NULL;

	if (!root)
		return NULL;
	take_reading(context, r);
#define TEXT(value)                           text_of(value)
#define YES_NO(value)                         ((value) ? "yes" : "no")
#define NUMBER(value)                         json_integer((json_int_t)(value))
#define PUT(key, unit, kind, value, sentence) complete = complete && put(root, key, kind(value));
	STATUS_FIGURES(PUT)
#undef PUT
#undef NUMBER
#undef YES_NO
#undef TEXT
	free(reading.place);
	free(reading.settings);
	if (!complete) {
		json_decref(root);
		return NULL;
	}
	return root;
}
