/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_page_map_model.c - page maps under random operations, against a model; and under threads
 *
 * The model knows of a few stretches of pages, at places where the tree has its seams, what the
 * source holds (truth), and whether the map may say so. What the map says must be the truth; what
 * was published must be found again, unless frames are evicted or memory was asked back.
 */
#include "helpers.h"

#include "foldfs/page_map.h"

#define MIB     (1u << 20)
#define STRETCH 300u

static const uint64_t stretches[] = {0, 4096 - 100, 262144 - 150, ((uint64_t)1 << 31) - 64,
				     ((uint64_t)1 << 51) - STRETCH};
#define STRETCHES   (sizeof(stretches) / sizeof(stretches[0]))
#define MODEL_PAGES (STRETCHES * STRETCH)
#define TICKETS     128u

struct model_page {
	bool known;
	bool zero;
	uint64_t owner;
	uint64_t version;
	uint64_t epoch; /* moves with whatever makes an old ticket void */
};

struct model_ticket {
	bool given;
	unsigned index;
	uint64_t ticket;
	uint64_t epoch;
	uint64_t changes;
};

struct model {
	struct pool pool;
	struct page_map_memory *memory;
	struct page_map *map;
	struct rng rng;
	bool evicting; /* a small pool: what is known may become unknown at any time */
	bool shrunk;   /* the same once, until everything was looked at */
	uint64_t changes;
	struct model_page pages[MODEL_PAGES];
	struct model_ticket tickets[TICKETS];
};

static uint64_t page_at(unsigned index)
{
	return stretches[index / STRETCH] + index % STRETCH;
}

/* Two of three contents exist in several pages. */
static void new_truth(struct model *model, unsigned index)
{
	struct model_page *page = &model->pages[index];

	page->zero = !rng_below(&model->rng, 4);
	page->owner = rng_below(&model->rng, 3) ? rng_below(&model->rng, 8) : 8 + index;
	page->version = rng_below(&model->rng, 1000) ? model->changes / 64 : rng_next(&model->rng);
	page->epoch++;
}

static void check_look(struct model *model, unsigned index, const struct page_look *look)
{
	struct model_page *page = &model->pages[index];

	if (!look->data) {
		expect(!page->known || model->shrunk || (model->evicting && !page->zero));
		page->known = false;
		return;
	}
	expect(page->known);
	if (page->zero)
		expect(!look->from_pool && fold_page_is_zero(look->data));
	else
		expect(look->from_pool && page_is(look->data, page->owner, page->version));
}

/* A stretch of pages within one stretch of the model. */
static unsigned random_range(struct model *model, unsigned *ret_index)
{
	unsigned within = (unsigned)rng_below(&model->rng, STRETCH);
	unsigned limit =
		STRETCH - within < FOLD_REQUEST_PAGES ? STRETCH - within : FOLD_REQUEST_PAGES;

	if (rng_below(&model->rng, 2) && limit > 5)
		limit = 5;
	*ret_index = (unsigned)rng_below(&model->rng, STRETCHES) * STRETCH + within;
	return 1 + (unsigned)rng_below(&model->rng, limit);
}

/* Look at a range, and check it; the looks are kept for a fill. */
static unsigned do_look(struct model *model, struct page_look looks[], unsigned *ret_index)
{
	unsigned count = random_range(model, ret_index);

	fold_rcu_read_lock();
	page_map_look(model->map, page_at(*ret_index), count, looks);
	for (unsigned i = 0; i < count; i++)
		check_look(model, *ret_index + i, &looks[i]);
	fold_rcu_read_unlock();
	return count;
}

static void keep_ticket(struct model *model, unsigned index, uint64_t ticket)
{
	struct model_ticket *kept = &model->tickets[rng_below(&model->rng, TICKETS)];

	*kept = (struct model_ticket){.given = true,
				      .index = index,
				      .ticket = ticket,
				      .epoch = model->pages[index].epoch,
				      .changes = model->changes};
}

/* Publish the truth of a page with TICKET. */
static bool publish_truth(struct model *model, unsigned index, uint64_t ticket)
{
	struct model_page *page = &model->pages[index];
	struct test_page bytes;
	struct frame_ref ref;
	bool published;

	if (page->zero) {
		fold_rcu_read_lock();
		published = page_map_publish_zero(model->map, page_at(index), ticket);
		fold_rcu_read_unlock();
	} else {
		page_make(&bytes, page->owner, page->version);
		pool_put(&model->pool, &bytes, &ref);
		fold_rcu_read_lock();
		published = page_map_publish(model->map, page_at(index), ticket, ref);
		if (!published)
			page_store_drop(model->pool.store, ref, NULL);
		fold_rcu_read_unlock();
	}
	if (published) {
		page->known = true;
		page->epoch++;
	}
	return published;
}

static void do_fill(struct model *model)
{
	struct page_look looks[FOLD_REQUEST_PAGES];
	unsigned index;
	unsigned count = do_look(model, looks, &index);

	for (unsigned i = 0; i < count; i++) {
		if (looks[i].data)
			continue;
		keep_ticket(model, index + i, looks[i].ticket);
		if (rng_below(&model->rng, 8))
			expect(publish_truth(model, index + i, looks[i].ticket));
	}
}

/* An old ticket. Void if the page changed or was published since. If nothing at all
 * changed, good. */
static void do_old_ticket(struct model *model)
{
	struct model_ticket *kept = &model->tickets[rng_below(&model->rng, TICKETS)];
	struct model_page *page = &model->pages[kept->index];
	bool current = kept->epoch == page->epoch;
	bool published;

	if (!kept->given)
		return;
	published = publish_truth(model, kept->index, kept->ticket);
	expect(!published || current);
	expect(published || !current || kept->changes != model->changes);
	kept->given = false;
}

static void forget_in_model(struct model *model, uint64_t first, uint64_t last)
{
	for (unsigned index = 0; index < MODEL_PAGES; index++) {
		if (page_at(index) < first || page_at(index) > last)
			continue;
		new_truth(model, index);
		model->pages[index].known = false;
	}
}

static void do_forget(struct model *model)
{
	unsigned index;
	uint64_t count = random_range(model, &index);

	if (!rng_below(&model->rng, 20))
		count = rng_next(&model->rng) >> (12 + rng_below(&model->rng, 50));
	if (!rng_below(&model->rng, 40))
		count = UINT64_MAX - page_at(index);
	fold_rcu_read_lock();
	page_map_forget(model->map, page_at(index), count);
	fold_rcu_read_unlock();
	if (count)
		forget_in_model(model, page_at(index), page_at(index) + count - 1);
}

static void do_break(struct model *model)
{
	unsigned index;
	unsigned count = random_range(model, &index);
	struct test_page bytes;
	struct frame_ref ref;

	for (unsigned i = index; i < index + count; i++) {
		struct model_page *page = &model->pages[i];

		new_truth(model, i);
		if (page->zero) {
			fold_rcu_read_lock();
			page_map_break_zero(model->map, page_at(i), NULL);
			fold_rcu_read_unlock();
			page->known = true;
		} else if (page->known) {
			page_make(&bytes, page->owner, page->version);
			ref = pool_put_private(&model->pool, &bytes);
			fold_rcu_read_lock();
			page_map_break(model->map, page_at(i), ref, NULL);
			fold_rcu_read_unlock();
		} else {
			fold_rcu_read_lock();
			page_map_forget(model->map, page_at(i), 1);
			fold_rcu_read_unlock();
		}
	}
}

static void look_at_all(struct model *model)
{
	struct page_look look;
	uint64_t zeroes = 0;

	for (unsigned index = 0; index < MODEL_PAGES; index++) {
		fold_rcu_read_lock();
		page_map_look(model->map, page_at(index), 1, &look);
		check_look(model, index, &look);
		fold_rcu_read_unlock();
		zeroes += model->pages[index].known && model->pages[index].zero;
	}
	page_map_memory_settle(model->memory);
	expect(page_map_memory_zero_pages(model->memory) == zeroes);
	model->shrunk = false;
}

static void do_shrink(struct model *model)
{
	fold_rcu_read_lock();
	page_map_shrink(model->map, 1 + rng_below(&model->rng, 8000));
	fold_rcu_read_unlock();
	model->shrunk = true;
	look_at_all(model);
}

static void run_model(struct model *model, unsigned rounds)
{
	struct page_look looks[FOLD_REQUEST_PAGES];
	unsigned index;

	for (unsigned round = 0; round < rounds; round++) {
		uint64_t dice = rng_below(&model->rng, 100);

		if (dice >= 75)
			model->changes++;
		if (dice < 25)
			do_look(model, looks, &index);
		else if (dice < 60)
			do_fill(model);
		else if (dice < 75)
			do_old_ticket(model);
		else if (dice < 87)
			do_forget(model);
		else if (dice < 99)
			do_break(model);
		else
			do_shrink(model);
		if (round % 100 == 0)
			look_at_all(model);
	}
	look_at_all(model);
}

static void check_against_model(const char *test, uint64_t pool_bytes, bool evicting)
{
	static const uint64_t hints[] = {0, MIB, (uint64_t)64 << 30, INT64_MAX};
	struct rng rng = rng_of_test(test);
	uint64_t empty;

	for (unsigned h = 0; h < sizeof(hints) / sizeof(hints[0]); h++) {
		struct model *model = calloc(1, sizeof(*model));

		expect(model);
		model->rng = rng;
		rng_next(&rng);
		model->evicting = evicting;
		pool_open(&model->pool, pool_bytes, true);
		expect(!page_map_memory_new(model->pool.store, &model->memory));
		empty = page_map_memory_bytes(model->memory);
		expect(!page_map_new(model->memory, hints[h], &model->map));
		run_model(model, ROUNDS(4000));
		page_map_free(model->map);
		page_map_memory_settle(model->memory);
		wait_for(page_map_memory_bytes(model->memory) == empty);
		assert_int_equal(page_map_memory_zero_pages(model->memory), 0);
		assert_int_equal(pool_usage(&model->pool).frames_used, 0);
		assert_int_equal(pool_usage(&model->pool).pages_sharing, 0);
		assert_int_equal(counters_sum(model->pool.counters, COUNTER_EVICTIONS) > 0,
				 evicting);
		page_map_memory_free(model->memory);
		pool_close(&model->pool);
		free(model);
	}
}

static void map_agrees_with_the_model(void **state)
{
	(void)state;
	check_against_model(__func__, 32 * MIB, false);
}

static void map_agrees_with_the_model_while_frames_are_evicted(void **state)
{
	(void)state;
	check_against_model(__func__, MIB, true);
}

/* ---- threads ---- */

/*
 * Each page has a version. A writer raises `source`, changes the map, then raises `settled`. A
 * filler looks, reads `source`, publishes. So whatever a reader finds is no older than what was
 * settled before it looked (B.2), and no newer than the source after. Versions that VERSION_IS_ZERO
 * are zero pages.
 */
#define BUSY_PAGES 1024u

struct busy {
	struct pool pool;
	struct page_map_memory *memory;
	struct page_map *map;
	_Atomic uint64_t source[BUSY_PAGES];
	_Atomic uint64_t settled[BUSY_PAGES];
	atomic_uint writers;
	atomic_ulong published;
	atomic_ulong refused;
	atomic_ulong found;
	uint64_t first; /* where in the file these pages lie */
};

static bool version_is_zero(uint64_t version)
{
	return version % 5 == 0;
}

/* Publish what the source says of a page that a look did not know. */
static void busy_publish(struct busy *busy, uint64_t page, uint64_t ticket)
{
	uint64_t version = atomic_load(&busy->source[page]);
	struct test_page bytes;
	struct frame_ref ref;
	bool published;

	if (version_is_zero(version)) {
		fold_rcu_read_lock();
		published = page_map_publish_zero(busy->map, busy->first + page, ticket);
		fold_rcu_read_unlock();
	} else {
		page_make(&bytes, page, version);
		pool_put(&busy->pool, &bytes, &ref);
		fold_rcu_read_lock();
		published = page_map_publish(busy->map, busy->first + page, ticket, ref);
		if (!published)
			page_store_drop(busy->pool.store, ref, NULL);
		fold_rcu_read_unlock();
	}
	atomic_fetch_add(published ? &busy->published : &busy->refused, 1);
}

/* The first version from FROM to TO that is zero, or none. */
static bool a_zero_between(uint64_t from, uint64_t to)
{
	while (from <= to && !version_is_zero(from))
		from++;
	return from <= to;
}

static void busy_read(struct busy *busy, struct rng *rng, bool fill)
{
	struct page_look looks[70];
	uint64_t settled[70];
	uint64_t first = rng_below(rng, BUSY_PAGES);
	unsigned count = 1 + (unsigned)rng_below(rng, 70);

	if (count > BUSY_PAGES - first)
		count = (unsigned)(BUSY_PAGES - first);
	for (unsigned i = 0; i < count; i++)
		settled[i] = atomic_load(&busy->settled[first + i]);
	fold_rcu_read_lock();
	page_map_look(busy->map, busy->first + first, count, looks);
	for (unsigned i = 0; i < count; i++) {
		uint64_t latest = atomic_load(&busy->source[first + i]);
		uint64_t owner;
		uint64_t version;

		if (!looks[i].data)
			continue;
		atomic_fetch_add(&busy->found, 1);
		if (!looks[i].from_pool) {
			expect(a_zero_between(settled[i], latest));
			continue;
		}
		expect(page_whole(looks[i].data, &owner, &version));
		expect(owner == first + i);
		expect(version >= settled[i]);
		expect(version <= latest);
	}
	fold_rcu_read_unlock();
	for (unsigned i = 0; fill && i < count; i++)
		if (!looks[i].data)
			busy_publish(busy, first + i, looks[i].ticket);
}

/* One page gets content of its own: known pages only. */
static void busy_break(struct busy *busy, uint64_t page)
{
	uint64_t version = atomic_load(&busy->source[page]) + 1;
	struct test_page bytes;
	struct frame_ref ref;
	struct page_look look;

	page_make(&bytes, page, version);
	ref = pool_put_private(&busy->pool, &bytes);
	atomic_store(&busy->source[page], version);
	fold_rcu_read_lock();
	page_map_look(busy->map, busy->first + page, 1, &look);
	if (version_is_zero(version)) {
		page_map_break_zero(busy->map, busy->first + page, NULL);
		page_store_drop(busy->pool.store, ref, NULL);
	} else if (look.data) {
		page_map_break(busy->map, busy->first + page, ref, NULL);
	} else {
		page_map_forget(busy->map, busy->first + page, 1);
		page_store_drop(busy->pool.store, ref, NULL);
	}
	fold_rcu_read_unlock();
	atomic_store(&busy->settled[page], version);
}

static void busy_forget(struct busy *busy, struct rng *rng)
{
	uint64_t first = rng_below(rng, BUSY_PAGES);
	uint64_t count = 1 + rng_below(rng, rng_below(rng, 4) ? 4 : 200);
	uint64_t end = first + count < BUSY_PAGES ? first + count : BUSY_PAGES;

	for (uint64_t page = first; page < end; page++)
		atomic_fetch_add(&busy->source[page], 1);
	fold_rcu_read_lock();
	page_map_forget(busy->map, busy->first + first,
			end == BUSY_PAGES ? UINT64_MAX - busy->first - first : count);
	fold_rcu_read_unlock();
	for (uint64_t page = first; page < end; page++)
		atomic_fetch_add(&busy->settled[page], 1);
}

/* 0: the writer. 1: shrinks now and then. The others read and fill. */
static void busy_work(void *context, unsigned index)
{
	struct busy *busy = context;
	struct rng rng = {.state = mix64(index + busy->first)};

	if (index == 0) {
		for (unsigned round = 0; round < ROUNDS(16000); round++)
			if (rng_below(&rng, 3))
				busy_break(busy, rng_below(&rng, BUSY_PAGES));
			else
				busy_forget(busy, &rng);
		atomic_store(&busy->writers, 0);
		return;
	}
	while (atomic_load(&busy->writers)) {
		busy_read(busy, &rng, true);
		if (index > 1 || rng_below(&rng, 8))
			continue;
		fold_rcu_read_lock();
		page_map_shrink(busy->map, 1 + rng_below(&rng, 3000));
		fold_rcu_read_unlock();
	}
}

static void run_busy(uint64_t first, uint64_t pool_bytes)
{
	struct busy *busy = calloc(1, sizeof(*busy));
	uint64_t empty;

	expect(busy);
	busy->first = first;
	pool_open(&busy->pool, pool_bytes, true);
	expect(!page_map_memory_new(busy->pool.store, &busy->memory));
	empty = page_map_memory_bytes(busy->memory);
	expect(!page_map_new(busy->memory, 0, &busy->map));
	atomic_store(&busy->writers, 1);
	crew_run(4, busy_work, busy);
	print_message("%lu found, %lu published, %lu refused\n", atomic_load(&busy->found),
		      atomic_load(&busy->published), atomic_load(&busy->refused));
	assert_true(atomic_load(&busy->found) > 0 && atomic_load(&busy->published) > 0);
	page_map_free(busy->map);
	page_map_memory_settle(busy->memory);
	wait_for(page_map_memory_bytes(busy->memory) == empty);
	assert_int_equal(page_map_memory_zero_pages(busy->memory), 0);
	assert_int_equal(pool_usage(&busy->pool).frames_used, 0);
	assert_int_equal(pool_usage(&busy->pool).pages_sharing, 0);
	assert_int_equal(pool_usage(&busy->pool).pages_volatile, 0);
	page_map_memory_free(busy->memory);
	pool_close(&busy->pool);
	free(busy);
}

static void b1_b2_readers_find_no_old_content(void **state)
{
	(void)state;
	run_busy(0, 32 * MIB);
	run_busy(262144 - 500, 32 * MIB);
}

static void b2_b4_readers_find_no_old_content_while_frames_are_evicted(void **state)
{
	(void)state;
	run_busy(0, MIB);
	run_busy(((uint64_t)1 << 40) - 3, MIB);
}

/* Readers are within the tree while all of it is replaced, over and over. */

#define PASSING_PAGES 512u

struct passing {
	struct pool pool;
	struct page_map_memory *memory;
	struct page_map *map;
	atomic_bool over;
};

static void pass_by(void *context, unsigned index)
{
	struct passing *passing = context;
	struct page_look looks[FOLD_REQUEST_PAGES];

	for (unsigned round = 0; index == 0 && round < ROUNDS(8000); round++) {
		fold_rcu_read_lock();
		for (uint64_t page = 1 + round % 2; page < PASSING_PAGES; page += 64) {
			page_map_look(passing->map, page, 1, looks);
			page_map_publish_zero(passing->map, page, looks[0].ticket);
		}
		if (round % 3)
			page_map_forget(passing->map, 0, round % 3 == 1 ? UINT64_MAX : 448);
		else
			page_map_shrink(passing->map, UINT64_MAX);
		fold_rcu_read_unlock();
	}
	if (index == 0)
		atomic_store(&passing->over, true);
	while (!atomic_load(&passing->over)) {
		fold_rcu_read_lock();
		page_map_look(passing->map, 0, FOLD_REQUEST_PAGES, looks);
		for (uint64_t page = 0; page < FOLD_REQUEST_PAGES; page++)
			expect(!looks[page].data || page % 64 == 1 || page % 64 == 2);
		fold_rcu_read_unlock();
	}
}

static void b1_readers_pass_through_nodes_that_go(void **state)
{
	struct passing *passing = calloc(1, sizeof(*passing));

	(void)state;
	expect(passing);
	pool_open(&passing->pool, MIB, true);
	expect(!page_map_memory_new(passing->pool.store, &passing->memory));
	expect(!page_map_new(passing->memory, 0, &passing->map));
	crew_run(4, pass_by, passing);
	page_map_free(passing->map);
	page_map_memory_settle(passing->memory);
	wait_for(!page_map_memory_zero_pages(passing->memory));
	page_map_memory_free(passing->memory);
	pool_close(&passing->pool);
	free(passing);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(map_agrees_with_the_model),
		cmocka_unit_test(map_agrees_with_the_model_while_frames_are_evicted),
		cmocka_unit_test(b1_readers_pass_through_nodes_that_go),
		cmocka_unit_test(b1_b2_readers_find_no_old_content),
		cmocka_unit_test(b2_b4_readers_find_no_old_content_while_frames_are_evicted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
