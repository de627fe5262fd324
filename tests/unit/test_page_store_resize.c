/* SPDX-License-Identifier: Apache-2.0 */
/* test_page_store_resize.c - a pool that gets smaller and larger while it is in use */
#include "helpers.h"

#include "foldfs/rcu.h"
#include "foldfs/sanitized.h"

#include <sched.h>

#define MIB    (1u << 20)
#define FRAMES (MIB / FOLD_PAGE_SIZE) /* of a MiB */
/* What a pool of a MiB takes at most: frames, what is kept about each, the ghost. */
#define BYTES_OF_MIB (MIB + FRAMES * (64u + 2u) + FOLD_PAGE_SIZE)

static void pool_open_resizable(struct pool *pool, uint64_t bytes, uint64_t most)
{
	pool->counters = counters_new();
	expect(pool->counters);
	expect(!page_store_new_resizable(bytes, most, pool->counters, &pool->store));
	expect(!page_store_start(pool->store));
}

/* COUNT different pages, of owners FIRST, FIRST + 1, … */
static struct frame_ref *fill(struct pool *pool, uint64_t first, unsigned count)
{
	struct frame_ref *refs = calloc(count, sizeof(*refs));
	struct test_page page;

	expect(refs);
	for (unsigned i = 0; i < count; i++) {
		page_make(&page, first + i, 0);
		assert_false(pool_put(pool, &page, &refs[i]));
	}
	return refs;
}

/* How many of REFS are live. What is read of any of them is right (A.3). */
static unsigned live_of(struct pool *pool, const struct frame_ref refs[], uint64_t first,
			unsigned count)
{
	unsigned live = 0;

	fold_rcu_read_lock();
	for (unsigned i = 0; i < count; i++) {
		const void *bytes = page_store_read(pool->store, refs[i]);

		assert_true(!bytes || page_is(bytes, first + i, 0));
		live += bytes != NULL;
	}
	fold_rcu_read_unlock();
	return live;
}

static void drop_all(struct pool *pool, const struct frame_ref refs[], unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		pool_drop(pool, refs[i]);
}

/* All frames that can be taken, when nothing else has any; gives them back. */
static unsigned takeable(struct pool *pool)
{
	unsigned most = 64 * FRAMES;
	uint32_t *frames = calloc(most, sizeof(*frames));
	unsigned taken;

	expect(frames);
	taken = page_store_take(pool->store, frames, most);
	pool_give_back(pool, frames, taken);
	free(frames);
	return taken;
}

static uint64_t resident_bytes(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	uint64_t kib = 0;
	char line[256];

	expect(file);
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "RssAnon:", 8))
			kib = strtoull(line + 8, NULL, 10);
	fclose(file);
	return kib << 10;
}

static void sizes_are_bounded(void **state)
{
	struct pool pool;

	(void)state;
	pool_open_resizable(&pool, 2 * MIB, 8 * MIB);
	assert_int_equal(page_store_most_bytes(pool.store), 8 * MIB);
	assert_int_equal(page_store_resize(pool.store, PAGE_STORE_MIN_BYTES - 1), -ERANGE);
	assert_int_equal(page_store_resize(pool.store, 8 * MIB + FOLD_PAGE_SIZE), -ERANGE);
	assert_int_equal(pool_usage(&pool).frames_total, 2 * FRAMES);
	assert_int_equal(page_store_resize(pool.store, 8 * MIB), 0);
	assert_int_equal(pool_usage(&pool).frames_total, 8 * FRAMES);
	pool_close(&pool);
	/* Without more, it is of one size and smaller. */
	pool_open(&pool, 2 * MIB, true);
	assert_int_equal(page_store_resize(pool.store, 3 * MIB), -ERANGE);
	assert_int_equal(page_store_resize(pool.store, MIB), 0);
	pool_close(&pool);
}

static void a_smaller_pool_gives_its_memory_back(void **state)
{
	enum { COUNT = 40 * FRAMES };
	struct frame_ref *refs;
	struct pool pool;
	uint64_t before;
	unsigned live;

	(void)state;
	pool_open_resizable(&pool, 64 * MIB, 64 * MIB);
	refs = fill(&pool, 0, COUNT);
	before = resident_bytes();
	assert_int_equal(page_store_resize(pool.store, 4 * MIB), 0);
	wait_for(pool_usage(&pool).pool_bytes <= 4 * BYTES_OF_MIB);
#ifndef FOLD_SANITIZED
	assert_true(before - resident_bytes() > 30 * MIB);
#endif
	live = live_of(&pool, refs, 0, COUNT);
	assert_true(live <= 4 * FRAMES);
	wait_for(pool_usage(&pool).index_bytes < 4 * FRAMES * 32u + 32 * 1024);
	free(refs);
	(void)before;
	/* It goes on within its new bound. */
	refs = fill(&pool, COUNT, COUNT);
	assert_true(pool_usage(&pool).pool_bytes <= 4 * BYTES_OF_MIB);
	assert_true(live_of(&pool, refs, COUNT, COUNT) > 2 * FRAMES);
	drop_all(&pool, refs, COUNT);
	free(refs);
	pool_close(&pool);
}

/* A.3: a frame that went and came back is in none of its earlier lives, though its metadata was
 * given back. */
static void old_references_stay_dead(void **state)
{
	enum { COUNT = 16 * FRAMES };
	struct frame_ref *old;
	struct frame_ref *new;
	struct pool pool;

	(void)state;
	pool_open_resizable(&pool, 24 * MIB, 24 * MIB);
	old = fill(&pool, 0, COUNT);
	for (unsigned round = 1; round <= 3; round++) {
		uint64_t first = (uint64_t)round * COUNT;

		assert_int_equal(page_store_resize(pool.store, MIB), 0);
		wait_for(pool_usage(&pool).pool_bytes <= BYTES_OF_MIB);
		assert_int_equal(page_store_resize(pool.store, 24 * MIB), 0);
		new = fill(&pool, first, COUNT);
		assert_int_equal(live_of(&pool, new, first, COUNT), COUNT);
		live_of(&pool, old, first - COUNT, COUNT);
		/* Nothing that the old ones do reaches the new ones. */
		drop_all(&pool, old, COUNT);
		assert_int_equal(live_of(&pool, new, first, COUNT), COUNT);
		free(old);
		old = new;
	}
	drop_all(&pool, old, COUNT);
	free(old);
	assert_int_equal(pool_usage(&pool).frames_used, 0);
	wait_for(takeable(&pool) == 24 * FRAMES);
	pool_close(&pool);
}

static void a_larger_pool_keeps_more(void **state)
{
	struct frame_ref *refs;
	struct pool pool;

	(void)state;
	pool_open_resizable(&pool, MIB, 32 * MIB);
	free(fill(&pool, 0, 4 * FRAMES));
	wait_for(counters_sum(pool.counters, COUNTER_EVICTIONS) >= 3 * FRAMES);
	assert_int_equal(page_store_resize(pool.store, 32 * MIB), 0);
	refs = fill(&pool, 4 * FRAMES, 20 * FRAMES);
	assert_int_equal(live_of(&pool, refs, 4 * FRAMES, 20 * FRAMES), 20 * FRAMES);
	free(refs);
	pool_close(&pool);
}

/* A frame beyond the size that is being filled stays its taker's, and goes when that is over. */
static void what_is_taken_goes_later(void **state)
{
	enum { COUNT = 8 * FRAMES };
	uint32_t *frames = calloc(COUNT, sizeof(*frames));
	struct frame_batch batch = {.count = 0};
	struct frame_ref ref;
	struct pool pool;
	struct test_page page;

	(void)state;
	expect(frames);
	pool_open_resizable(&pool, 8 * MIB, 8 * MIB);
	assert_int_equal(page_store_take(pool.store, frames, COUNT), COUNT);
	assert_int_equal(page_store_resize(pool.store, MIB), 0);
	/* The last one is filled and published although the pool is smaller by now. */
	page_make(&page, 7, 7);
	memcpy(page_store_bytes(pool.store, frames[COUNT - 1]), &page, sizeof(page));
	fold_rcu_read_lock();
	ref = page_store_publish_private(pool.store, frames[COUNT - 1], &batch);
	assert_true(pool_holds(&pool, ref, 7, 7));
	page_store_settle(pool.store, &batch);
	fold_rcu_read_unlock();
	pool_give_back(&pool, frames, COUNT - 1);
	wait_for(pool_usage(&pool).pool_bytes <= BYTES_OF_MIB);
	assert_false(pool_holds(&pool, ref, 7, 7));
	wait_for(takeable(&pool) == FRAMES);
	/* Taken all the time while it shrinks and grows: not lost. */
	assert_int_equal(page_store_take(pool.store, frames, FRAMES), FRAMES);
	assert_int_equal(page_store_resize(pool.store, 4 * MIB), 0);
	pool_give_back(&pool, frames, FRAMES);
	wait_for(takeable(&pool) == 4 * FRAMES);
	free(frames);
	pool_close(&pool);
}

/* A.1, A.2 and A.5 while the size changes all the time: two fill, one reads, one resizes. */

#define TURMOIL_KEYS 4096u

struct turmoil {
	struct pool pool;
	_Atomic uint64_t refs[TURMOIL_KEYS]; /* a frame_ref each: frame << 32 | generation */
	atomic_uint writers;
	atomic_ulong verified;
	atomic_ulong bypassed;
};

static uint64_t pack(struct frame_ref ref)
{
	return (uint64_t)ref.frame << 32 | ref.generation;
}

static struct frame_ref unpack(uint64_t packed)
{
	return (struct frame_ref){.frame = (uint32_t)(packed >> 32),
				  .generation = (uint32_t)packed};
}

static void turmoil_write(struct turmoil *turmoil, unsigned index)
{
	struct rng rng = {.state = mix64(index)};
	struct test_page page;

	for (unsigned round = 0; round < ROUNDS(60000); round++) {
		uint64_t key = rng_below(&rng, TURMOIL_KEYS);
		struct frame_ref ref;
		uint32_t frame;

		if (page_store_take(turmoil->pool.store, &frame, 1) != 1) {
			atomic_fetch_add(&turmoil->bypassed, 1);
			continue;
		}
		page_make(&page, key, rng_below(&rng, 4));
		memcpy(page_store_bytes(turmoil->pool.store, frame), &page, sizeof(page));
		fold_rcu_read_lock();
		if (rng_below(&rng, 4))
			pool_publish(&turmoil->pool, frame, &ref);
		else
			ref = page_store_publish_private(turmoil->pool.store, frame, NULL);
		ref = unpack(atomic_exchange(&turmoil->refs[key], pack(ref)));
		page_store_drop(turmoil->pool.store, ref, NULL);
		fold_rcu_read_unlock();
	}
	atomic_fetch_sub(&turmoil->writers, 1);
}

static void turmoil_read(struct turmoil *turmoil)
{
	struct rng rng = {.state = 1};
	uint64_t verified = 0;

	while (atomic_load(&turmoil->writers)) {
		uint64_t key = rng_below(&rng, TURMOIL_KEYS);
		uint64_t owner;
		uint64_t version;
		const void *bytes;

		fold_rcu_read_lock();
		bytes = page_store_read(turmoil->pool.store,
					unpack(atomic_load(&turmoil->refs[key])));
		if (bytes) {
			expect(page_whole(bytes, &owner, &version));
			expect(owner == key);
			verified++;
		}
		fold_rcu_read_unlock();
	}
	atomic_fetch_add(&turmoil->verified, verified);
}

static void turmoil_resize(struct turmoil *turmoil)
{
	struct rng rng = {.state = 2};

	while (atomic_load(&turmoil->writers)) {
		uint64_t frames = FRAMES + rng_below(&rng, 15 * FRAMES);

		expect(!page_store_resize(turmoil->pool.store, frames << FOLD_PAGE_SHIFT));
		for (unsigned i = rng_below(&rng, 3) ? 100 : 20000; i--;)
			sched_yield();
	}
}

static void turmoil_work(void *context, unsigned index)
{
	if (index < 2)
		turmoil_write(context, index);
	else if (index == 2)
		turmoil_read(context);
	else
		turmoil_resize(context);
}

static void it_is_resized_while_it_is_filled_and_read(void **state)
{
	struct turmoil *turmoil = calloc(1, sizeof(*turmoil));

	(void)state;
	expect(turmoil);
	pool_open_resizable(&turmoil->pool, 16 * MIB, 16 * MIB);
	atomic_store(&turmoil->writers, 2);
	for (unsigned i = 0; i < TURMOIL_KEYS; i++)
		atomic_store(&turmoil->refs[i], UINT32_MAX); /* generation of no life */
	crew_run(4, turmoil_work, turmoil);
	assert_true(atomic_load(&turmoil->verified) > 0);
	for (unsigned i = 0; i < TURMOIL_KEYS; i++)
		pool_drop(&turmoil->pool, unpack(atomic_load(&turmoil->refs[i])));
	assert_int_equal(pool_usage(&turmoil->pool).frames_used, 0);
	assert_int_equal(pool_usage(&turmoil->pool).pages_sharing, 0);
	assert_int_equal(pool_usage(&turmoil->pool).pages_volatile, 0);
	/* No frame is lost, and none is there twice. */
	expect(!page_store_resize(turmoil->pool.store, 2 * MIB));
	wait_for(pool_usage(&turmoil->pool).pool_bytes <= 2 * BYTES_OF_MIB);
	wait_for(takeable(&turmoil->pool) == 2 * FRAMES);
	expect(!page_store_resize(turmoil->pool.store, 16 * MIB));
	wait_for(takeable(&turmoil->pool) == 16 * FRAMES);
	pool_close(&turmoil->pool);
	free(turmoil);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_bounded),
		cmocka_unit_test(a_smaller_pool_gives_its_memory_back),
		cmocka_unit_test(old_references_stay_dead),
		cmocka_unit_test(a_larger_pool_keeps_more),
		cmocka_unit_test(what_is_taken_goes_later),
		cmocka_unit_test(it_is_resized_while_it_is_filled_and_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
