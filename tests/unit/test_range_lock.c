/* SPDX-License-Identifier: Apache-2.0 */
/* test_range_lock.c - overlapping ranges one after the other, in order of arrival;
 * others at once */
#include "helpers.h"

#include "foldfs/range_lock.h"

static void ranges_that_do_not_overlap_are_held_at_once(void **state)
{
	struct range_lock lock;
	struct range_hold holds[4];

	(void)state;
	range_lock_init(&lock);
	/* Would block for ever otherwise. */
	range_lock_lock(&lock, &holds[0], 0, 9);
	range_lock_lock(&lock, &holds[1], 10, 10);
	range_lock_lock(&lock, &holds[2], 12, UINT64_MAX);
	range_lock_lock(&lock, &holds[3], 11, 11);
	range_lock_unlock(&lock, &holds[1]);
	range_lock_lock(&lock, &holds[1], 10, 10);
	for (unsigned i = 0; i < 4; i++)
		range_lock_unlock(&lock, &holds[i]);
	range_lock_lock(&lock, &holds[0], 0, UINT64_MAX);
	range_lock_unlock(&lock, &holds[0]);
	range_lock_destroy(&lock);
}

/* Threads that wait, one behind the other. */

struct line {
	struct range_lock lock;
	struct {
		uint64_t first;
		uint64_t last;
	} range[6];
	atomic_uint arrived;
	atomic_uint got[6]; /* place in the order of those who got theirs; 0: waits */
	atomic_uint served;
};

static unsigned waiting(struct line *line)
{
	struct range_hold *hold;
	unsigned count = 0;

	pthread_mutex_lock(&line->lock.mutex);
	cds_list_for_each_entry (hold, &line->lock.holders, link)
		count++;
	pthread_mutex_unlock(&line->lock.mutex);
	return count;
}

/* Queue up in order of INDEX: each comes when those before it stand in the line. */
static void stand_in_line(void *context, unsigned index)
{
	struct line *line = context;
	struct range_hold hold;

	wait_for(waiting(line) == index + 1);
	range_lock_lock(&line->lock, &hold, line->range[index].first, line->range[index].last);
	atomic_store(&line->got[index], atomic_fetch_add(&line->served, 1) + 1);
	range_lock_unlock(&line->lock, &hold);
}

static void *run_line(void *argument)
{
	crew_run(4, stand_in_line, argument);
	return NULL;
}

/* Of those who overlap the first come is the first served, and a later one that could go on does
 * not overtake an earlier one that waits and overlaps it: none starves. */
static void overlapping_ranges_are_served_in_order(void **state)
{
	struct line line = {.range = {{0, 5}, {6, 20}, {10, 12}, {5, 6}}};
	struct range_hold first;
	pthread_t crew;

	(void)state;
	range_lock_init(&line.lock);
	range_lock_lock(&line.lock, &first, 0, 9);
	expect(!pthread_create(&crew, NULL, run_line, &line));
	wait_for(waiting(&line) == 5);
	/* 0 and 1 wait for us; 2 overlaps 1 alone, and comes after it; 3 waits for 0 and 1. */
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(atomic_load(&line.got[i]), 0);
	range_lock_unlock(&line.lock, &first);
	pthread_join(crew, NULL);
	assert_true(atomic_load(&line.got[1]) < atomic_load(&line.got[2]));
	assert_true(atomic_load(&line.got[0]) < atomic_load(&line.got[3]));
	assert_true(atomic_load(&line.got[1]) < atomic_load(&line.got[3]));
	assert_int_equal(waiting(&line), 0);
	range_lock_destroy(&line.lock);
}

/* Mutual exclusion, cell by cell. */

#define CELLS 32u

struct cells {
	struct range_lock lock;
	atomic_uint inside[CELLS];
	uint64_t plain[CELLS]; /* under the range lock: ThreadSanitizer sees to that as well */
	atomic_ulong sum;
};

static void enter_cells(void *context, unsigned index)
{
	struct cells *cells = context;
	struct rng rng = {.state = mix64(index)};

	for (unsigned round = 0; round < ROUNDS(16000); round++) {
		uint64_t first = rng_below(&rng, CELLS);
		uint64_t last = first + rng_below(&rng, rng_below(&rng, 4) ? 3 : CELLS);
		struct range_hold hold;

		if (last >= CELLS)
			last = CELLS - 1;
		range_lock_lock(&cells->lock, &hold, first, last);
		for (uint64_t i = first; i <= last; i++)
			expect(!atomic_exchange(&cells->inside[i], 1));
		for (uint64_t i = first; i <= last; i++)
			cells->plain[i]++;
		for (uint64_t i = first; i <= last; i++)
			atomic_store(&cells->inside[i], 0);
		range_lock_unlock(&cells->lock, &hold);
		atomic_fetch_add(&cells->sum, last - first + 1);
	}
}

static void one_holder_for_each_unit(void **state)
{
	struct cells *cells = calloc(1, sizeof(*cells));
	uint64_t sum = 0;

	(void)state;
	expect(cells);
	range_lock_init(&cells->lock);
	crew_run(4, enter_cells, cells);
	for (unsigned i = 0; i < CELLS; i++)
		sum += cells->plain[i];
	assert_int_equal(sum, atomic_load(&cells->sum));
	range_lock_destroy(&cells->lock);
	free(cells);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_that_do_not_overlap_are_held_at_once),
		cmocka_unit_test(overlapping_ranges_are_served_in_order),
		cmocka_unit_test(one_holder_for_each_unit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
