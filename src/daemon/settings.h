/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settings.h - what of a mount can be changed while it runs, and how
 *
 * `foldctl set` and mount -o remount ask for it over the control socket. The words are those of -o,
 * taken and judged as at the start (options_change.h). All of them are applied, or none.
 */
#ifndef FOLDFS_SETTINGS_H
#define FOLDFS_SETTINGS_H

#include "foldfs/fusefs.h"
#include "foldfs/session.h"
#include "foldfs/state.h"
#include "own_mount.h"

#include <jansson.h>
#include <pthread.h>

struct settings {
	struct fusefs *fs; /* constant, like all but the options and the limit */
	struct state *state;
	const struct own_mount *mount;
	struct session *records; /* where a successor finds what was changed */
	const char *source;
	int source_fd;
	struct options *options; /* what holds; changed by one thread at a time, under lock */
	uint64_t dirty_kernels;  /* see dirty_limit.h; the same thread's */
	pthread_mutex_t lock;    /* a leaf; held for moments, so that others can read the options */
};

/*
 * Answer REQUEST, which ASKER made. Its "words" are a list of words of -o; "check": true only asks
 * whether they would be taken. One at a time, once the mount serves. An object, the caller's; NULL:
 * no memory.
 *
 *	{"refused":"sentence"}    nothing has changed, for this reason
 *	{"settings":{…}, "words":[…], "follows":[…], "changed":[{"from":…,"to":…}]}
 *
 * "settings" has the values that hold now, "words" the same as words of -o, "follows" the names of
 * those that follow another one, "changed" what this request has changed.
 */
json_t *settings_answer(struct settings *settings, const json_t *request, uid_t asker);

/* Before a mount is served: have OPTIONS, of its start, say what was changed since, as RECORDS has
 * it from an earlier worker. -errno: OPTIONS are as they were. */
errint_t settings_recall(const struct session *records, struct options *options);

/* The words that hold now, separated by commas. Any thread. Malloced; NULL: no memory. */
char *settings_text(struct settings *settings);

/* Why the source cannot be watched, after ERROR of fusefs_watch(): a sentence, malloced. */
char *settings_watch_problem(errint_t error, const char *source);

/* Hold mapped writers to what the window allows. */
void settings_limit_dirty(struct settings *settings);

#endif
