/* SPDX-License-Identifier: Apache-2.0 */
/*
 * counters.c - striped event counters
 *
 * Invariants:
 * A  A stripe is whole cache lines of its own, so adding writes no line that a thread of another
 *    stripe writes. Stripes are aligned to two lines, where one would do, because the adjacent-line
 *    prefetcher of x86 pulls lines in pairs.
 * B  A thread keeps its stripe for life. Stripes are handed out in turn, so threads share one only
 *    when there are more threads than stripes. An add is atomic, so nothing is lost then either.
 * C  Adding is one relaxed atomic addition: wait-free. Counters order nothing and publish nothing.
 *
 * A thread has the same stripe in every struct counters. The stripe is a number, not a pointer, so
 * it does not refer to a struct counters that was freed.
 */
#include "foldfs/counters.h"

#include <stdatomic.h>
#include <stdlib.h>

#define STRIPES      32 /* a power of two */
#define STRIPE_ALIGN 128
#define STRIPE_NONE  UINT32_MAX

struct stripe {
	_Alignas(STRIPE_ALIGN) _Atomic uint64_t counts[COUNTER_COUNT]; /* lock-free */
};

struct counters {
	struct stripe stripes[STRIPES];
};

static _Atomic uint32_t next_stripe; /* lock-free; only spreads threads over stripes */

static inline uint32_t own_stripe(void)
{
	static _Thread_local uint32_t own = STRIPE_NONE;

	if (own == STRIPE_NONE)
		own = atomic_fetch_add_explicit(&next_stripe, 1, memory_order_relaxed) % STRIPES;
	return own;
}

struct counters *counters_new(void)
{
	struct counters *counters = aligned_alloc(STRIPE_ALIGN, sizeof(*counters));

	if (!counters)
		return NULL;
	for (unsigned s = 0; s < STRIPES; s++)
		for (unsigned id = 0; id < COUNTER_COUNT; id++)
			atomic_init(&counters->stripes[s].counts[id], 0);
	return counters;
}

void counters_free(struct counters *counters)
{
	free(counters);
}

void counters_add(struct counters *counters, enum counter_id id, uint64_t count)
{
	atomic_fetch_add_explicit(&counters->stripes[own_stripe()].counts[id], count,
				  memory_order_relaxed);
}

uint64_t counters_sum(const struct counters *counters, enum counter_id id)
{
	uint64_t sum = 0;

	for (unsigned s = 0; s < STRIPES; s++)
		sum += atomic_load_explicit(&counters->stripes[s].counts[id], memory_order_relaxed);
	return sum;
}
