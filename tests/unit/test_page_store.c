/* SPDX-License-Identifier: Apache-2.0 */
/* test_page_store.c - the guarantees A.1 to A.5 of page_store.h, its gauges, eviction */
#include "touched.h"

#include "frame_queue.h"

#define MIB (1u << 20)

static void size_is_bounded(void **state)
{
	struct counters *counters = counters_new();
	struct page_store *store = NULL;

	(void)state;
	assert_int_equal(page_store_new(0, counters, &store), -EINVAL);
	assert_int_equal(page_store_new(PAGE_STORE_MIN_BYTES - 1, counters, &store), -EINVAL);
	assert_int_equal(page_store_new(PAGE_STORE_MAX_BYTES + FOLD_PAGE_SIZE, counters, &store),
			 -EINVAL);
	assert_null(store);
	assert_int_equal(page_store_new(PAGE_STORE_MIN_BYTES + 100, counters, &store), 0);
	page_store_free(store);
	counters_free(counters);
}

static void memory_comes_with_use(void **state)
{
	struct pool pool;
	struct test_page page;
	struct frame_ref ref;

	(void)state;
	pool_open(&pool, (uint64_t)64 << 30, true);
	/* Beside what is used, the reclaimer keeps a stock of 4 MiB ready, of 64 GiB here. */
	assert_true(pool_usage(&pool).pool_bytes + pool_usage(&pool).index_bytes < 5 * MIB);
	assert_int_equal(pool_usage(&pool).frames_total, 16 << 20);
	page_make(&page, 1, 1);
	assert_false(pool_put(&pool, &page, &ref));
	assert_true(pool_usage(&pool).pool_bytes < 5 * MIB);
	pool_close(&pool);
}

static void what_is_published_is_read(void **state)
{
	struct pool pool;
	struct test_page page;
	struct frame_ref shared;
	struct frame_ref private;

	(void)state;
	pool_open(&pool, MIB, false);
	page_make(&page, 1, 1);
	assert_false(pool_put(&pool, &page, &shared));
	private = pool_put_private(&pool, &page);
	assert_true(pool_holds(&pool, shared, 1, 1));
	assert_true(pool_holds(&pool, private, 1, 1));
	assert_int_equal(page_store_users(pool.store, shared), 1);
	assert_int_equal(page_store_users(pool.store, private), 1);
	pool_close(&pool);
}

static void equal_pages_share_one_frame(void **state)
{
	struct pool pool;
	struct test_page page;
	struct frame_ref first;

	(void)state;
	pool_open(&pool, MIB, false);
	page_make(&page, 1, 1);
	assert_false(pool_put(&pool, &page, &first));
	for (uint32_t users = 2; users < 50; users++) {
		struct frame_ref again;

		assert_true(pool_put(&pool, &page, &again));
		assert_int_equal(again.frame, first.frame);
		assert_int_equal(again.generation, first.generation);
		assert_int_equal(page_store_users(pool.store, first), users);
		assert_int_equal(pool_usage(&pool).frames_used, 1);
		assert_int_equal(pool_usage(&pool).pages_shared, 1);
		assert_int_equal(pool_usage(&pool).pages_sharing, users - 1);
		assert_int_equal(pool_usage(&pool).pages_unshared, 0);
	}
	assert_int_equal(counters_sum(pool.counters, COUNTER_MERGES), 48);
	pool_close(&pool);
}

static void private_frames_are_never_shared(void **state)
{
	struct pool pool;
	struct test_page page;
	struct frame_ref private[2];
	struct frame_ref shared;

	(void)state;
	pool_open(&pool, MIB, false);
	page_make(&page, 1, 1);
	private[0] = pool_put_private(&pool, &page);
	assert_false(pool_put(&pool, &page, &shared));
	private[1] = pool_put_private(&pool, &page);
	assert_int_equal(pool_usage(&pool).frames_used, 3);
	assert_int_equal(pool_usage(&pool).pages_volatile, 2);
	assert_int_equal(pool_usage(&pool).pages_sharing, 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(page_store_users(pool.store, private[i]), 1);
		pool_drop(&pool, private[i]);
	}
	assert_int_equal(page_store_users(pool.store, shared), 1);
	assert_int_equal(pool_usage(&pool).pages_volatile, 0);
	assert_int_equal(pool_usage(&pool).frames_used, 1);
	pool_close(&pool);
}

/* A.4, with digests forged to be equal. */
static void a4_sharing_compares_bytes(void **state)
{
	const struct digest forged = {.low = 1, .high = 1};
	struct pool pool;
	struct test_page page;
	struct frame_ref refs[16];

	(void)state;
	pool_open(&pool, MIB, false);
	fold_rcu_read_lock();
	for (unsigned i = 0; i < 16; i++) {
		uint32_t frame;

		page_make(&page, 1, 1);
		((uint8_t *)&page)[i * (FOLD_PAGE_SIZE - 1) / 15] ^= 1;
		frame = pool_stage(&pool, &page);
		assert_false(page_store_publish(pool.store, frame, &forged, NULL, &refs[i]));
		assert_memory_equal(page_store_read(pool.store, refs[i]), &page, sizeof(page));
	}
	fold_rcu_read_unlock();
	assert_true(counters_sum(pool.counters, COUNTER_DIGEST_COLLISIONS) >= 15);
	assert_int_equal(pool_usage(&pool).frames_used, 16);
	assert_int_equal(pool_usage(&pool).pages_shared, 0);
	pool_close(&pool);
}

/* A.5 */
static void a5_take_returns_fewer(void **state)
{
	struct pool pool;
	uint32_t frames[MIB / FOLD_PAGE_SIZE + 10];
	bool seen[MIB / FOLD_PAGE_SIZE] = {false};
	unsigned count;

	(void)state;
	pool_open(&pool, MIB, false);
	count = page_store_take(pool.store, frames, MIB / FOLD_PAGE_SIZE + 10);
	assert_int_equal(count, MIB / FOLD_PAGE_SIZE);
	for (unsigned i = 0; i < count; i++) {
		assert_true(frames[i] < MIB / FOLD_PAGE_SIZE);
		assert_false(seen[frames[i]]);
		seen[frames[i]] = true;
	}
	assert_int_equal(page_store_take(pool.store, frames, 1), 0);
	pool_give_back(&pool, frames, 3);
	assert_int_equal(page_store_take(pool.store, frames, 10), 3);
	assert_int_equal(pool_usage(&pool).frames_used, 0);
	pool_close(&pool);
}

/* Take every frame that is free; none of them may be FORBIDDEN. They are scribbled on. */
static unsigned take_all(struct pool *pool, uint32_t frames[], uint32_t forbidden)
{
	unsigned count = page_store_take(pool->store, frames, MIB / FOLD_PAGE_SIZE);

	for (unsigned i = 0; i < count; i++) {
		expect(frames[i] != forbidden);
		memset(page_store_bytes(pool->store, frames[i]), 0xee, FOLD_PAGE_SIZE);
	}
	return count;
}

/* A.2: the memory of a dropped frame waits for the reader. */
static void a2_bytes_outlive_the_drop_within_a_read_side(void **state)
{
	struct pool pool;
	struct test_page page;
	uint32_t frames[MIB / FOLD_PAGE_SIZE];
	uint32_t frame;
	struct frame_ref ref;
	const void *bytes;
	unsigned count = 0;

	(void)state;
	pool_open(&pool, MIB, true);
	page_make(&page, 1, 1);
	assert_false(pool_put(&pool, &page, &ref));
	fold_rcu_read_lock();
	bytes = page_store_read(pool.store, ref);
	assert_non_null(bytes);
	page_store_drop(pool.store, ref, NULL);
	assert_null(page_store_read(pool.store, ref));
	/* The reclaimer is awake for want of frames; give it chances to be wrong. */
	for (unsigned i = 0; i < 50; i++) {
		count += take_all(&pool, frames + count, ref.frame);
		assert_true(page_is(bytes, 1, 1));
		test_nap();
	}
	assert_int_equal(count, MIB / FOLD_PAGE_SIZE - 1);
	fold_rcu_read_unlock();
	wait_for(page_store_take(pool.store, &frame, 1) == 1);
	assert_int_equal(frame, ref.frame);
	pool_close(&pool);
}

/* Take frame WANTED, which is on its way back, and no other in the end. */
static void reuse_frame(struct pool *pool, uint32_t wanted)
{
	uint32_t frames[MIB / FOLD_PAGE_SIZE];
	unsigned count = 0;

	do
		wait_for(page_store_take(pool->store, &frames[count], 1) == 1);
	while (frames[count++] != wanted);
	pool_give_back(pool, frames, count - 1);
}

/* A.3: an old reference to a frame in its next life. */
static void a3_stale_reference_is_over(void **state)
{
	struct pool pool;
	struct test_page page;
	struct frame_ref old;
	struct frame_ref now;

	(void)state;
	pool_open(&pool, MIB, true);
	page_make(&page, 1, 1);
	assert_false(pool_put(&pool, &page, &old));
	pool_drop(&pool, old);
	reuse_frame(&pool, old.frame);
	page_make(page_store_bytes(pool.store, old.frame), 2, 2);
	fold_rcu_read_lock();
	/* Taken, not live yet. */
	assert_null(page_store_read(pool.store, old));
	page_store_drop(pool.store, old, NULL);
	assert_false(pool_publish(&pool, old.frame, &now));
	assert_int_equal(now.frame, old.frame);
	assert_int_not_equal(now.generation, old.generation);
	assert_null(page_store_read(pool.store, old));
	assert_int_equal(page_store_users(pool.store, old), 0);
	for (unsigned i = 0; i < 5; i++)
		page_store_drop(pool.store, old, NULL);
	assert_int_equal(page_store_users(pool.store, now), 1);
	assert_non_null(page_store_read(pool.store, now));
	fold_rcu_read_unlock();
	assert_int_equal(pool_usage(&pool).frames_used, 1);
	pool_close(&pool);
}

/* A.3: content whose life is over is not shared, even before its memory is reused. */
static void a3_dead_content_is_not_shared(void **state)
{
	struct pool pool;
	struct test_page page;
	struct frame_ref old;
	struct frame_ref now;

	(void)state;
	pool_open(&pool, MIB, true);
	page_make(&page, 1, 1);
	fold_rcu_read_lock();
	for (unsigned round = 0; round < 20; round++) {
		assert_false(pool_publish(&pool, pool_stage(&pool, &page), &old));
		assert_true(pool_publish(&pool, pool_stage(&pool, &page), &now));
		page_store_drop(pool.store, old, NULL);
		page_store_drop(pool.store, now, NULL);
		assert_null(page_store_read(pool.store, old));
	}
	fold_rcu_read_unlock();
	assert_int_equal(pool_usage(&pool).frames_used, 0);
	pool_close(&pool);
}

static void drop_is_counted(void **state)
{
	struct pool pool;
	struct test_page page;
	struct frame_ref ref;

	(void)state;
	pool_open(&pool, MIB, false);
	page_make(&page, 1, 1);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(pool_put(&pool, &page, &ref), i > 0);
	for (unsigned users = 10; users > 0; users--) {
		assert_int_equal(page_store_users(pool.store, ref), users);
		assert_true(pool_holds(&pool, ref, 1, 1));
		pool_drop(&pool, ref);
	}
	assert_false(pool_holds(&pool, ref, 1, 1));
	pool_drop(&pool, ref);
	assert_int_equal(pool_usage(&pool).frames_used, 0);
	assert_int_equal(pool_usage(&pool).pages_shared, 0);
	assert_int_equal(pool_usage(&pool).pages_sharing, 0);
	pool_close(&pool);
}

/* Users and gauges are exact after a storm of shares and drops. */

#define STORM_CONTENTS 32u
#define STORM_HELD     64u

struct storm {
	struct pool pool;
	struct frame_ref held[4][STORM_HELD];
	uint64_t content[4][STORM_HELD]; /* 0: nothing held */
};

static void share_and_drop(void *context, unsigned index)
{
	struct storm *storm = context;
	struct rng rng = {.state = mix64(index)};
	struct test_page page;

	for (unsigned round = 0; round < ROUNDS(16000); round++) {
		unsigned slot = (unsigned)rng_below(&rng, STORM_HELD);
		uint64_t *content = &storm->content[index][slot];
		struct frame_ref *ref = &storm->held[index][slot];

		if (*content) {
			expect(pool_holds(&storm->pool, *ref, *content, 0));
			pool_drop(&storm->pool, *ref);
			*content = 0;
			continue;
		}
		*content = 1 + rng_below(&rng, STORM_CONTENTS);
		page_make(&page, *content, 0);
		pool_put(&storm->pool, &page, ref);
	}
}

static void check_storm(struct storm *storm)
{
	uint32_t users[STORM_CONTENTS + 1] = {0};
	struct frame_ref at[STORM_CONTENTS + 1] = {{0}};
	struct page_store_usage usage = pool_usage(&storm->pool);
	uint64_t used = 0;
	uint64_t shared = 0;
	uint64_t sharing = 0;

	for (unsigned t = 0; t < 4; t++)
		for (unsigned s = 0; s < STORM_HELD; s++) {
			users[storm->content[t][s]]++;
			at[storm->content[t][s]] = storm->held[t][s];
		}
	for (unsigned c = 1; c <= STORM_CONTENTS; c++) {
		if (!users[c])
			continue;
		assert_int_equal(page_store_users(storm->pool.store, at[c]), users[c]);
		used++;
		shared += users[c] > 1;
		sharing += users[c] - 1;
	}
	assert_int_equal(usage.frames_used, used);
	assert_int_equal(usage.pages_shared, shared);
	assert_int_equal(usage.pages_sharing, sharing);
	assert_int_equal(usage.pages_unshared, used - shared);
}

static void users_are_exact_after_a_storm(void **state)
{
	struct storm *storm = calloc(1, sizeof(*storm));

	(void)state;
	expect(storm);
	pool_open(&storm->pool, 64 * MIB, true);
	crew_run(4, share_and_drop, storm);
	assert_int_equal(counters_sum(storm->pool.counters, COUNTER_EVICTIONS), 0);
	check_storm(storm);
	for (unsigned t = 0; t < 4; t++)
		for (unsigned s = 0; s < STORM_HELD; s++)
			if (storm->content[t][s])
				pool_drop(&storm->pool, storm->held[t][s]);
	assert_int_equal(pool_usage(&storm->pool).frames_used, 0);
	assert_int_equal(pool_usage(&storm->pool).pages_shared, 0);
	assert_int_equal(pool_usage(&storm->pool).pages_sharing, 0);
	pool_close(&storm->pool);
	free(storm);
}

/* A.1, A.2: readers verify whole pages while their frames are evicted, dropped and reused. */

#define TURMOIL_KEYS 1024u

struct turmoil {
	struct pool pool;
	_Atomic uint64_t refs[TURMOIL_KEYS]; /* a frame_ref each: frame << 32 | generation */
	atomic_uint writers;
	atomic_ulong verified;
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

/* Put ever new versions of random pages; drop what they replace, which may be evicted already. */
static void turmoil_write(struct turmoil *turmoil, unsigned index)
{
	struct rng rng = {.state = mix64(index)};
	struct test_page page;

	for (unsigned round = 0; round < ROUNDS(24000); round++) {
		uint64_t key = rng_below(&rng, TURMOIL_KEYS);
		uint32_t frame;
		struct frame_ref ref;

		page_make(&page, key, rng_below(&rng, 4));
		frame = pool_stage(&turmoil->pool, &page);
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

static void turmoil_read(struct turmoil *turmoil, unsigned index)
{
	struct rng rng = {.state = mix64(index)};
	uint64_t verified = 0;

	while (atomic_load(&turmoil->writers)) {
		const void *bytes[8];
		uint64_t keys[8];
		uint64_t owner;
		uint64_t version;

		fold_rcu_read_lock();
		for (unsigned i = 0; i < 8; i++) {
			keys[i] = rng_below(&rng, TURMOIL_KEYS);
			bytes[i] = page_store_read(turmoil->pool.store,
						   unpack(atomic_load(&turmoil->refs[keys[i]])));
		}
		for (unsigned i = 0; i < 8; i++) {
			if (!bytes[i])
				continue;
			expect(page_whole(bytes[i], &owner, &version));
			expect(owner == keys[i]);
			verified++;
		}
		fold_rcu_read_unlock();
	}
	atomic_fetch_add(&turmoil->verified, verified);
}

static void turmoil_work(void *context, unsigned index)
{
	if (index < 2)
		turmoil_write(context, index);
	else
		turmoil_read(context, index);
}

static void a1_a2_readers_verify_while_frames_are_reused(void **state)
{
	struct turmoil *turmoil = calloc(1, sizeof(*turmoil));

	(void)state;
	expect(turmoil);
	pool_open(&turmoil->pool, MIB, true);
	atomic_store(&turmoil->writers, 2);
	for (unsigned i = 0; i < TURMOIL_KEYS; i++)
		atomic_store(&turmoil->refs[i], UINT32_MAX); /* generation of no life */
	crew_run(4, turmoil_work, turmoil);
	assert_true(counters_sum(turmoil->pool.counters, COUNTER_EVICTIONS) > 0);
	assert_true(atomic_load(&turmoil->verified) > 0);
	for (unsigned i = 0; i < TURMOIL_KEYS; i++)
		pool_drop(&turmoil->pool, unpack(atomic_load(&turmoil->refs[i])));
	assert_int_equal(pool_usage(&turmoil->pool).frames_used, 0);
	assert_int_equal(pool_usage(&turmoil->pool).pages_sharing, 0);
	assert_int_equal(pool_usage(&turmoil->pool).pages_volatile, 0);
	pool_close(&turmoil->pool);
	free(turmoil);
}

/* Of COUNT different pages each is live and right, or was evicted. False while the reclaimer is at
 * work. */
static bool all_is_live_or_evicted(struct pool *pool, const struct frame_ref refs[], unsigned count)
{
	uint64_t evicted = counters_sum(pool->counters, COUNTER_EVICTIONS);
	uint64_t live = 0;

	for (unsigned i = 0; i < count; i++)
		live += pool_holds(pool, refs[i], i, 0);
	return live == pool_usage(pool).frames_used && live + evicted == count;
}

static void pool_stays_within_its_bound(void **state)
{
	enum { FRAMES = MIB / FOLD_PAGE_SIZE };
	struct pool pool;
	struct test_page page;
	struct frame_ref *refs = calloc(FRAMES * 8, sizeof(*refs));

	(void)state;
	expect(refs);
	pool_open(&pool, MIB, true);
	for (unsigned i = 0; i < FRAMES * 8; i++) {
		page_make(&page, i, 0);
		assert_false(pool_put(&pool, &page, &refs[i]));
		assert_true(pool_usage(&pool).frames_used <= FRAMES);
	}
	wait_for(all_is_live_or_evicted(&pool, refs, FRAMES * 8));
	assert_true(pool_usage(&pool).pool_bytes + pool_usage(&pool).index_bytes <=
		    FRAMES * (FOLD_PAGE_SIZE + 96u) + 32 * 1024);
	free(refs);
	pool_close(&pool);
}

/* S3-FIFO: what is read again stays while a stream that will not come back passes. */
static void hot_frames_survive_a_scan(void **state)
{
	enum { FRAMES = 1024, HOT = 256 };
	struct pool pool;
	struct test_page page;
	struct frame_ref hot[HOT];
	struct frame_ref ref;
	unsigned left = 0;

	(void)state;
	pool_open(&pool, FRAMES * FOLD_PAGE_SIZE, true);
	for (unsigned i = 0; i < HOT; i++) {
		page_make(&page, i, 1);
		pool_put(&pool, &page, &hot[i]);
		for (unsigned n = 0; n < 3; n++)
			assert_true(pool_holds(&pool, hot[i], i, 1));
	}
	for (unsigned i = 0; i < FRAMES * 8; i++) {
		page_make(&page, i, 2);
		pool_put(&pool, &page, &ref);
		pool_holds(&pool, hot[i % HOT], i % HOT, 1);
	}
	for (unsigned i = 0; i < HOT; i++)
		left += pool_holds(&pool, hot[i], i, 1);
	assert_true(left >= HOT * 9 / 10);
	pool_close(&pool);
}

static void publish_waits_for_no_reclaimer(void **state)
{
	enum { FRAMES = MIB / FOLD_PAGE_SIZE };
	struct pool pool;
	struct test_page page;
	struct frame_ref ref;
	uint32_t frame;

	(void)state;
	pool_open(&pool, MIB, false);
	for (unsigned i = 0; i < FRAMES; i++) {
		page_make(&page, i, 0);
		assert_false(pool_put(&pool, &page, &ref));
	}
	/* Nobody evicts: there is none, and that is all (A.5). */
	assert_int_equal(page_store_take(pool.store, &frame, 1), 0);
	assert_true(pool_holds(&pool, ref, FRAMES - 1, 0));
	/* Once somebody does, they come. */
	assert_int_equal(page_store_start(pool.store), 0);
	wait_for(page_store_take(pool.store, &frame, 1) == 1);
	page_store_give_back(pool.store, frame, NULL);
	pool_close(&pool);
}

static void publishing_a_shared_page_gives_the_frame_back(void **state)
{
	enum { FRAMES = MIB / FOLD_PAGE_SIZE };
	struct pool pool;
	struct test_page page;
	struct frame_ref ref;
	uint32_t frames[FRAMES];

	(void)state;
	pool_open(&pool, MIB, false);
	page_make(&page, 1, 1);
	pool_put(&pool, &page, &ref);
	for (unsigned i = 0; i < FRAMES * 3; i++)
		assert_true(pool_put(&pool, &page, &ref));
	assert_int_equal(page_store_take(pool.store, frames, FRAMES), FRAMES - 1);
	pool_close(&pool);
}

static uint64_t resident_bytes(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long long total;
	unsigned long long resident;

	expect(file && fscanf(file, "%llu %llu", &total, &resident) == 2 && !fclose(file));
	return resident * FOLD_PAGE_SIZE;
}

/* At once: what is kept about frames is not looked at, only given up frame by frame afterwards. */
static void the_end_gives_memory_back_without_a_walk(void **state)
{
	enum { FRAMES = 65536 };
	struct pool pool;
	struct test_page page;
	struct frame_ref ref;
	uint64_t full;

	(void)state;
	pool_open(&pool, (uint64_t)FRAMES * FOLD_PAGE_SIZE, true);
	for (unsigned i = 0; i < FRAMES * 3 / 4; i++) {
		page_make(&page, i, 0);
		assert_false(pool_put(&pool, &page, &ref));
	}
	full = resident_bytes();
	touched_clear();
	page_store_end(pool.store);
	assert_true(full - resident_bytes() >= FRAMES / 2 * FOLD_PAGE_SIZE);
	assert_true(touched_bytes() < FRAMES * sizeof(struct frame_meta) / 2);
	page_store_end(pool.store);
	pool_drop(&pool, ref);
	pool_close(&pool);
}

/* ---- batches ---- */

/* What is settled later has died, or has gone to somebody else, meanwhile. */
static void a_batch_is_settled_whatever_became_of_its_frames(void **state)
{
	struct frame_batch batch = {.count = 0};
	struct frame_batch drops = {.count = 0};
	struct frame_lists lists;
	uint32_t frames[4];
	struct frame_ref refs[4];
	struct pool pool;

	(void)state;
	pool_open(&pool, MIB, false);
	assert_int_equal(page_store_take(pool.store, frames, 4), 4);
	fold_rcu_read_lock();
	for (unsigned i = 0; i < 4; i++)
		refs[i] = page_store_publish_private(pool.store, frames[i], &batch);
	page_store_lists(pool.store, &lists);
	assert_int_equal(lists.length[FRAME_PLACE_QUEUED], 0);
	/* Before it is settled, by the same thread and by another. */
	page_store_drop(pool.store, refs[1], &batch);
	page_store_drop(pool.store, refs[2], NULL);
	page_store_drop(pool.store, refs[3], &drops);
	assert_non_null(page_store_read(pool.store, refs[0]));
	assert_null(page_store_read(pool.store, refs[1]));
	page_store_settle(pool.store, &batch);
	page_store_settle(pool.store, &drops);
	/* After. */
	page_store_lists(pool.store, &lists);
	assert_int_equal(lists.length[FRAME_PLACE_QUEUED], 1);
	assert_int_equal(lists.length[FRAME_PLACE_LIMBO], 3);
	page_store_drop(pool.store, refs[0], NULL);
	fold_rcu_read_unlock();
	page_store_lists(pool.store, &lists);
	assert_int_equal(lists.length[FRAME_PLACE_QUEUED], 0);
	assert_int_equal(lists.length[FRAME_PLACE_LIMBO], 4);
	pool_close(&pool);
}

/* Neighbouring frames stay neighbours for who takes them next, and are one part of a read. */
static void a_batch_gives_frames_back_in_their_order(void **state)
{
	enum { FRAMES = FRAME_BATCH - 1 };
	uint32_t frames[FRAMES];
	uint32_t again[FRAMES];
	struct pool pool;

	(void)state;
	pool_open(&pool, 2 * MIB, false);
	assert_int_equal(page_store_take(pool.store, frames, FRAMES), FRAMES);
	pool_give_back(&pool, frames, FRAMES);
	assert_int_equal(page_store_take(pool.store, again, FRAMES), FRAMES);
	assert_memory_equal(frames, again, sizeof(frames));
	pool_give_back(&pool, again, FRAMES);
	pool_close(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(size_is_bounded),
		cmocka_unit_test(memory_comes_with_use),
		cmocka_unit_test(what_is_published_is_read),
		cmocka_unit_test(equal_pages_share_one_frame),
		cmocka_unit_test(private_frames_are_never_shared),
		cmocka_unit_test(a4_sharing_compares_bytes),
		cmocka_unit_test(a5_take_returns_fewer),
		cmocka_unit_test(a2_bytes_outlive_the_drop_within_a_read_side),
		cmocka_unit_test(a3_stale_reference_is_over),
		cmocka_unit_test(a3_dead_content_is_not_shared),
		cmocka_unit_test(drop_is_counted),
		cmocka_unit_test(users_are_exact_after_a_storm),
		cmocka_unit_test(a1_a2_readers_verify_while_frames_are_reused),
		cmocka_unit_test(pool_stays_within_its_bound),
		cmocka_unit_test(hot_frames_survive_a_scan),
		cmocka_unit_test(publish_waits_for_no_reclaimer),
		cmocka_unit_test(publishing_a_shared_page_gives_the_frame_back),
		cmocka_unit_test(the_end_gives_memory_back_without_a_walk),
		cmocka_unit_test(a_batch_is_settled_whatever_became_of_its_frames),
		cmocka_unit_test(a_batch_gives_frames_back_in_their_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
