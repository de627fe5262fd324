/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.h - event counters, cheap enough for the path of a hit
 *
 * Each thread adds to one of a few stripes of its own cache lines; a reader sums the stripes. So a
 * hit writes no cache line that another core writes. Counts are monotonic; a sum taken while
 * threads run is a moment's view. What each counter means is in status.h, the one table of all
 * figures.
 */
#ifndef FOLDFS_STATS_H
#define FOLDFS_STATS_H

#include <stdint.h>

enum stat_id {
	STAT_HITS,              /* pages answered from the pool */
	STAT_MISSES,            /* pages that had to be read from the source for a reader */
	STAT_FILLS_DISCARDED,   /* filled pages not published: the content had changed meanwhile */
	STAT_ADOPTED,           /* missed pages that were known to be in the pool */
	STAT_ADOPT_WAITS,       /* times that a read waited for who fetched such pages */
	STAT_MERGES,            /* filled pages that shared a frame instead of taking one */
	STAT_DIGEST_COLLISIONS, /* equal digests, different bytes */
	STAT_BREAKS,            /* resident pages that a change of content gave their own content */
	STAT_EVICTIONS,         /* frames evicted */
	STAT_BYPASSED,          /* pages answered from the source without a frame */
	STAT_READAHEAD,         /* pages filled ahead of a reader */
	STAT_FETCHED,           /* reads whose misses the fetcher has read */
	STAT_WATCH_EVENTS,      /* changes of others that were followed */
	STAT_WATCH_OWN,         /* events that the daemon caused itself */
	STAT_WATCH_OVERFLOWS,   /* times that events were lost */
	STAT_WATCH_COMPARED,    /* files that were looked at because of that */
	STAT_WATCH_GIVEN_UP,    /* those of them of which all was forgotten */
	STAT_COUNT
};

struct stats;

struct stats *stats_new(void); /* NULL: no memory */
void stats_free(struct stats *stats);
/* Any thread, any context; wait-free. */
void stats_add(struct stats *stats, enum stat_id id, uint64_t count);
uint64_t stats_sum(const struct stats *stats, enum stat_id id);

#endif
