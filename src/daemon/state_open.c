/* SPDX-License-Identifier: Apache-2.0 */
/* state_open.c - what outlives a mount: opened when the mount starts, or left out */
#include "state_open.h"

#include "foldfs/passthrough.h"
#include "foldfs/scan.h"
#include "foldfs/shared_copies.h"
#include "foldfs/state_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Nobody should notice a scan in the background: one reader, of lowest priority, slower than any
 * disk, with little memory. */
#define BACKGROUND_RATE   (UINT64_C(64) << 20)
#define BACKGROUND_MEMORY (UINT64_C(32) << 20)

static void open_objects(const char *directory, struct state *state)
{
	char path[48];
	errint_t error;

	/* The directory in which the catalogue was found, whatever its name leads to now. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d/objects",
		 catalogue_directory(state->catalogue));
	error = shared_copies_new(path, state->catalogue, &state->copies);
	if (error)
		fuse_log(FUSE_LOG_WARNING,
			 "coherence=overlay shares nothing: cannot keep copies in %s/objects: "
			 "%s.\n",
			 directory, catalogue_open_error(error));
}

static errint_t open_in(const struct state_place *place, const struct options *options,
			struct state *state)
{
	bool moved_aside;
	int directory = fcntl(place->fd, F_DUPFD_CLOEXEC, 0);
	errint_t error = directory < 0 ? -errno
				       : catalogue_open_at(directory, CATALOGUE_MAX_BYTES,
							   &moved_aside, &state->catalogue);

	if (error)
		return error;
	if (moved_aside)
		fuse_log(FUSE_LOG_WARNING,
			 "the catalogue in %s was damaged, foreign or full. It is moved aside "
			 "(data.mdb.aside), and a new one is begun.\n",
			 place->path);
	/* Copies are of use for passthrough only. */
	if (options->coherence_overlay && !options->read_only && passthrough_permitted())
		open_objects(place->path, state);
	return 0;
}

/* Silent for a plain user who did not ask for it: there may be no place for it. */
static void say_not_kept(const struct options *options, const char *source, const char *directory,
			 errint_t error)
{
	if (options->state || geteuid() == 0)
		fuse_log(FUSE_LOG_WARNING, "no catalogue of %s is kept: %s: %s.\n", source,
			 directory ? directory : "no directory for it can be had",
			 catalogue_open_error(error));
}

void state_place_open(const struct options *options, const char *source,
		      struct state_place *ret_place)
{
	struct state_place place = STATE_PLACE_NONE;
	errint_t error = state_directory(options->state, source, &place.path);

	if (!error)
		place.fd = catalogue_open_directory(place.path);
	if (!error && place.fd < 0)
		error = place.fd;
	if (error) {
		say_not_kept(options, source, place.path, error);
		state_place_clear(&place);
	}
	*ret_place = place;
}

void state_place_clear(struct state_place *place)
{
	if (place->fd >= 0)
		close(place->fd);
	free(place->path);
	*place = STATE_PLACE_NONE;
}

void state_open(const struct options *options, const char *source, const struct state_place *place,
		struct state *ret_state)
{
	errint_t error;

	*ret_state = (struct state){.scan_lock = PTHREAD_MUTEX_INITIALIZER};
	if (place->fd < 0)
		return;
	error = open_in(place, options, ret_state);
	if (error)
		say_not_kept(options, source, place->path, error);
	else
		ret_state->directory = strdup(place->path);
}

static void on_scan_ended(void *context)
{
	shared_copies_sweep_soon(context);
}

errint_t state_begin_scan(int source_fd, struct state *state)
{
	const struct scan_options scan = {
		.catalogue = state->catalogue,
		.workers = 1,
		.rate = BACKGROUND_RATE,
		.memory = BACKGROUND_MEMORY,
		.ended = state->copies ? on_scan_ended : NULL,
		.context = state->copies,
	};
	struct scan *made = NULL;
	errint_t error;

	if (!state->catalogue)
		return -ENOENT;
	error = scan_new(source_fd, &scan, &made);
	if (!error)
		error = scan_start(made);
	if (error) {
		/* Otherwise its tables would be kept, and counted, until the mount ends. */
		scan_free(made);
		return error;
	}
	pthread_mutex_lock(&state->scan_lock);
	state->scan = made;
	pthread_mutex_unlock(&state->scan_lock);
	return 0;
}

void state_start_scan(const struct options *options, int source_fd, struct state *state)
{
	errint_t error = options->scan_background ? state_begin_scan(source_fd, state) : 0;

	if (error == -ENOENT && !state->catalogue)
		fuse_log(FUSE_LOG_WARNING,
			 "scan=background does nothing: there is no catalogue.\n");
	else if (error)
		fuse_log(FUSE_LOG_WARNING, "cannot scan in the background: %s.\n",
			 strerror(-error));
}

void state_stop_scan(struct state *state)
{
	struct scan *scan;

	pthread_mutex_lock(&state->scan_lock);
	scan = state->scan;
	state->scan = NULL;
	pthread_mutex_unlock(&state->scan_lock);
	scan_stop(scan);
	scan_free(scan);
}

void state_close(struct state *state)
{
	shared_copies_free(state->copies);
	catalogue_close(state->catalogue);
	free(state->directory);
}
