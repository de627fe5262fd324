/* SPDX-License-Identifier: Apache-2.0 */
/* page_map_fixture.h - a map with a pool, and its calls each in a read side of its own */
#ifndef FOLDFS_TEST_PAGE_MAP_FIXTURE_H
#define FOLDFS_TEST_PAGE_MAP_FIXTURE_H

#include "faults.h"
#include "helpers.h"

#include "foldfs/page_map.h"

#define MIB       (1u << 20)
#define LAST      (((uint64_t)1 << 51) - 1) /* page of the last byte that an off_t can name */
#define TO_END    UINT64_MAX
#define GIB_PAGES 262144u

struct fixture {
	struct pool pool;
	struct page_map_memory *memory;
	struct page_map *map;
	uint64_t empty_bytes; /* without a map */
};

static inline void fixture_open(struct fixture *fixture, uint64_t pool_bytes, uint64_t size_hint)
{
	pool_open(&fixture->pool, pool_bytes, true);
	expect(!page_map_memory_new(fixture->pool.store, &fixture->memory));
	fixture->empty_bytes = page_map_memory_bytes(fixture->memory);
	expect(!page_map_new(fixture->memory, size_hint, &fixture->map));
}

/* Memory of what is not in use any more goes with grace periods: wait until they bring no more. */
static inline uint64_t settled_bytes(struct fixture *fixture)
{
	uint64_t bytes;
	unsigned same = 0;

	do {
		bytes = page_map_memory_bytes(fixture->memory);
		fold_rcu_barrier();
		same = bytes == page_map_memory_bytes(fixture->memory) ? same + 1 : 0;
	} while (same < 3);
	return bytes;
}

/* Every test ends with it: with the map all its memory and every use of a frame is gone. */
static inline void fixture_close(struct fixture *fixture)
{
	page_map_free(fixture->map);
	page_map_memory_settle(fixture->memory);
	wait_for(page_map_memory_bytes(fixture->memory) == fixture->empty_bytes);
	assert_int_equal(page_map_memory_zero_pages(fixture->memory), 0);
	assert_int_equal(pool_usage(&fixture->pool).frames_used, 0);
	assert_int_equal(pool_usage(&fixture->pool).pages_sharing, 0);
	page_map_memory_free(fixture->memory);
	pool_close(&fixture->pool);
}

static inline struct page_look look_at(struct fixture *fixture, uint64_t page)
{
	struct page_look look = {0};

	fold_rcu_read_lock();
	page_map_look(fixture->map, page, 1, &look);
	fold_rcu_read_unlock();
	return look;
}

static inline bool is_unknown(struct fixture *fixture, uint64_t page)
{
	return !look_at(fixture, page).data;
}

static inline bool is_zero(struct fixture *fixture, uint64_t page)
{
	struct page_look look = look_at(fixture, page);

	return look.data && !look.from_pool && fold_page_is_zero(look.data);
}

static inline bool is_content(struct fixture *fixture, uint64_t page, uint64_t owner,
			      uint64_t version)
{
	struct page_look look;
	bool right;

	fold_rcu_read_lock();
	page_map_look(fixture->map, page, 1, &look);
	right = look.data && look.from_pool && page_is(look.data, owner, version);
	fold_rcu_read_unlock();
	return right;
}

/* Publish REF with TICKET; dropped if it was refused. */
static inline bool publish_with(struct fixture *fixture, uint64_t page, uint64_t ticket,
				struct frame_ref ref)
{
	bool published;

	fold_rcu_read_lock();
	published = page_map_publish(fixture->map, page, ticket, ref);
	if (!published)
		page_store_drop(fixture->pool.store, ref, NULL);
	fold_rcu_read_unlock();
	return published;
}

static inline struct frame_ref content(struct fixture *fixture, uint64_t owner, uint64_t version)
{
	struct test_page page;
	struct frame_ref ref;

	page_make(&page, owner, version);
	pool_put(&fixture->pool, &page, &ref);
	return ref;
}

static inline struct frame_ref own_content(struct fixture *fixture, uint64_t owner,
					   uint64_t version)
{
	struct test_page page;

	page_make(&page, owner, version);
	return pool_put_private(&fixture->pool, &page);
}

/* A fill as it should go. */
static inline bool fill(struct fixture *fixture, uint64_t page, uint64_t owner, uint64_t version)
{
	uint64_t ticket = look_at(fixture, page).ticket;

	return publish_with(fixture, page, ticket, content(fixture, owner, version));
}

static inline bool fill_zero(struct fixture *fixture, uint64_t page)
{
	struct page_look look;
	bool published;

	fold_rcu_read_lock();
	page_map_look(fixture->map, page, 1, &look);
	published = page_map_publish_zero(fixture->map, page, look.ticket);
	fold_rcu_read_unlock();
	return published;
}

static inline void forget(struct fixture *fixture, uint64_t first, uint64_t count)
{
	fold_rcu_read_lock();
	page_map_forget(fixture->map, first, count == TO_END ? UINT64_MAX - first : count);
	fold_rcu_read_unlock();
	page_map_memory_settle(fixture->memory);
}

static inline void break_page(struct fixture *fixture, uint64_t page, struct frame_ref ref)
{
	fold_rcu_read_lock();
	page_map_break(fixture->map, page, ref, NULL);
	fold_rcu_read_unlock();
}

static inline void break_zero(struct fixture *fixture, uint64_t page)
{
	fold_rcu_read_lock();
	page_map_break_zero(fixture->map, page, NULL);
	fold_rcu_read_unlock();
}

static inline uint64_t shrink(struct fixture *fixture, uint64_t bytes)
{
	uint64_t freed;

	fold_rcu_read_lock();
	freed = page_map_shrink(fixture->map, bytes);
	fold_rcu_read_unlock();
	page_map_memory_settle(fixture->memory);
	return freed;
}

/* End a life behind the map's back, as eviction does. */
static inline void kill_frame(struct fixture *fixture, struct frame_ref ref)
{
	while (page_store_users(fixture->pool.store, ref))
		pool_drop(&fixture->pool, ref);
}

#endif
