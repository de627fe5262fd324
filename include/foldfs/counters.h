/* SPDX-License-Identifier: Apache-2.0 */
/*
 * counters.h - event counters, cheap enough for the path of a hit
 *
 * Each thread adds to one of a few stripes, and each stripe has cache lines of its own. A reader
 * sums the stripes. So a hit writes no cache line that another core writes. Counts are monotonic; a
 * sum taken while threads run is a momentary view. figures_json.h, the one table of all figures,
 * says what each counter means.
 */
#ifndef FOLDFS_COUNTERS_H
#define FOLDFS_COUNTERS_H

#include <stdint.h>

enum counter_id {
	COUNTER_HITS,            /* pages answered from the pool */
	COUNTER_MISSES,          /* pages that had to be read from the source for a reader */
	COUNTER_FILLS_DISCARDED, /* filled pages not published: the content had changed meanwhile */
	COUNTER_ADOPTED,         /* missed pages that were known to be in the pool */
	COUNTER_ADOPT_WAITS,     /* times that a read waited for another that fetched such pages */
	COUNTER_MERGES,          /* filled pages that shared a frame instead of taking one */
	COUNTER_DIGEST_COLLISIONS, /* equal digests, different bytes */
	COUNTER_BREAKS,            /* resident pages that got content of their own by a change */
	COUNTER_EVICTIONS,         /* frames evicted */
	COUNTER_BYPASSED,          /* pages answered from the source without a frame */
	COUNTER_READAHEAD,         /* pages filled ahead of a reader */
	COUNTER_FETCHED,           /* reads whose misses the fetcher read */
	COUNTER_WATCH_EVENTS,      /* changes by others that were followed */
	COUNTER_WATCH_OWN,         /* events that the daemon caused itself */
	COUNTER_WATCH_OVERFLOWS,   /* times that events were lost */
	COUNTER_WATCH_COMPARED,    /* files that were looked at because of an overflow */
	COUNTER_WATCH_GIVEN_UP,    /* of these, files of which all was forgotten */
	COUNTER_COUNT
};

struct counters;

struct counters *counters_new(void); /* NULL: no memory */
void counters_free(struct counters *counters);
/* Any thread, any context; wait-free. */
void counters_add(struct counters *counters, enum counter_id id, uint64_t count);
uint64_t counters_sum(const struct counters *counters, enum counter_id id);

#endif
