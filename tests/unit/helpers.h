/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helpers.h - what every unit test of the page path uses
 *
 * - expect() may be called from any thread; cmocka's assert_*() only from the test's own.
 * - Pages describe themselves: owner and version in the first words, the rest derived from them. A
 *   page that was overwritten in part, or reused while somebody read it, does not verify.
 * - Random tests print their seed; FOLDFS_TEST_SEED=N runs them with it again.
 * - Concurrent tests start their threads on a barrier and never rely on sleeping. wait_for() polls
 *   for what another thread brings about in its own time, and fails after a minute.
 */
#ifndef FOLDFS_TEST_HELPERS_H
#define FOLDFS_TEST_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "foldfs/counters.h"
#include "foldfs/page_store.h"
#include "foldfs/rcu.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(FOLD_TSAN) || defined(__SANITIZE_ADDRESS__)
#define TEST_SANITIZED 1
#else
#define TEST_SANITIZED 0
#endif

/* Rounds of a storm: fewer where each costs ten times as much. */
#define ROUNDS(n) ((unsigned)(TEST_SANITIZED ? (n) / 8 : (n)))

static inline void expect_failed(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: expected: %s\n", file, line, condition);
	abort();
}
#define expect(condition) ((condition) ? (void)0 : expect_failed(__FILE__, __LINE__, #condition))

static inline uint64_t test_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline void test_nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

#define wait_for(condition)                                                                        \
	do {                                                                                       \
		uint64_t wait_deadline = test_now_ms() + 60000;                                    \
		while (!(condition)) {                                                             \
			expect(test_now_ms() < wait_deadline && #condition);                       \
			test_nap();                                                                \
		}                                                                                  \
	} while (0)

/* Random numbers: splitmix64. */

struct rng {
	uint64_t state;
};

static inline uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static inline uint64_t rng_next(struct rng *rng)
{
	return mix64(rng->state++);
}

static inline uint64_t rng_below(struct rng *rng, uint64_t bound)
{
	return rng_next(rng) % bound;
}

static inline struct rng rng_of_test(const char *test)
{
	const char *given = getenv("FOLDFS_TEST_SEED");
	struct rng rng = {.state = 1};

	if (given)
		rng.state = strtoull(given, NULL, 0);
	else
		expect(getrandom(&rng.state, sizeof(rng.state), 0) == sizeof(rng.state));
	fprintf(stderr, "%s: FOLDFS_TEST_SEED=%" PRIu64 "\n", test, rng.state);
	return rng;
}

/* Pages that describe themselves. */

#define PAGE_WORDS (FOLD_PAGE_SIZE / sizeof(uint64_t))

struct test_page {
	uint64_t words[PAGE_WORDS] __attribute__((aligned(64)));
};

static inline uint64_t page_word(uint64_t owner, uint64_t version, size_t index)
{
	return mix64(owner * 0x100000001b3u ^ version << 40 ^ index);
}

static inline void page_make(void *page, uint64_t owner, uint64_t version)
{
	uint64_t *words = page;

	words[0] = owner;
	words[1] = version;
	for (size_t i = 2; i < PAGE_WORDS; i++)
		words[i] = page_word(owner, version, i);
}

/* Whether the bytes at PAGE (8-byte aligned) are one page_make() whole; by whom is returned. */
static inline bool page_whole(const void *page, uint64_t *ret_owner, uint64_t *ret_version)
{
	const uint64_t *words = page;

	*ret_owner = words[0];
	*ret_version = words[1];
	for (size_t i = 2; i < PAGE_WORDS; i++)
		if (words[i] != page_word(*ret_owner, *ret_version, i))
			return false;
	return true;
}

static inline bool page_is(const void *page, uint64_t owner, uint64_t version)
{
	uint64_t found_owner;
	uint64_t found_version;

	return page_whole(page, &found_owner, &found_version) && found_owner == owner &&
	       found_version == version;
}

/* Threads that start together. */

struct crew {
	pthread_barrier_t start;
	void (*work)(void *context, unsigned index);
	void *context;
	atomic_uint next;
};

static inline void *crew_member(void *argument)
{
	struct crew *crew = argument;
	unsigned index = atomic_fetch_add(&crew->next, 1);

	pthread_barrier_wait(&crew->start);
	crew->work(crew->context, index);
	return NULL;
}

#define CREW_MAX 16u

/* Run WORK(CONTEXT, 0 … COUNT-1) in COUNT threads at once; returns when all have ended. */
static inline void crew_run(unsigned count, void (*work)(void *context, unsigned index),
			    void *context)
{
	struct crew crew = {.work = work, .context = context};
	pthread_t threads[CREW_MAX];

	expect(count <= CREW_MAX);
	pthread_barrier_init(&crew.start, NULL, count);
	for (unsigned i = 0; i < count; i++)
		expect(!pthread_create(&threads[i], NULL, crew_member, &crew));
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&crew.start);
}

/* A pool with its counters. */

struct pool {
	struct counters *counters;
	struct page_store *store;
};

static inline void pool_open(struct pool *pool, uint64_t bytes, bool start)
{
	pool->counters = counters_new();
	expect(pool->counters);
	expect(!page_store_new(bytes, pool->counters, &pool->store));
	if (start)
		expect(!page_store_start(pool->store));
}

static inline void pool_close(struct pool *pool)
{
	page_store_free(pool->store);
	counters_free(pool->counters);
}

/* Take one frame and put PAGE into it; waits for the reclaimer if there is none. Not in a read
 * side. */
static inline uint32_t pool_stage(struct pool *pool, const void *page)
{
	uint32_t frame;

	wait_for(page_store_take(pool->store, &frame, 1) == 1);
	memcpy(page_store_bytes(pool->store, frame), page, FOLD_PAGE_SIZE);
	return frame;
}

static inline void pool_give_back(struct pool *pool, const uint32_t frames[], unsigned count)
{
	struct frame_batch batch = {.count = 0};

	for (unsigned i = 0; i < count; i++)
		page_store_give_back(pool->store, frames[i], &batch);
	page_store_settle(pool->store, &batch);
}

/* Publish a staged frame. RCU read side. */
static inline bool pool_publish(struct pool *pool, uint32_t frame, struct frame_ref *ret_ref)
{
	struct digest digest;

	page_store_digest(pool->store, page_store_bytes(pool->store, frame), &digest);
	return page_store_publish(pool->store, frame, &digest, NULL, ret_ref);
}

/* Stage and publish PAGE, with a read side of its own. */
static inline bool pool_put(struct pool *pool, const void *page, struct frame_ref *ret_ref)
{
	uint32_t frame = pool_stage(pool, page);
	bool shared;

	fold_rcu_read_lock();
	shared = pool_publish(pool, frame, ret_ref);
	fold_rcu_read_unlock();
	return shared;
}

static inline struct frame_ref pool_put_private(struct pool *pool, const void *page)
{
	uint32_t frame = pool_stage(pool, page);
	struct frame_ref ref;

	fold_rcu_read_lock();
	ref = page_store_publish_private(pool->store, frame, NULL);
	fold_rcu_read_unlock();
	return ref;
}

static inline void pool_drop(struct pool *pool, struct frame_ref ref)
{
	fold_rcu_read_lock();
	page_store_drop(pool->store, ref, NULL);
	fold_rcu_read_unlock();
}

static inline struct page_store_usage pool_usage(const struct pool *pool)
{
	struct page_store_usage usage;

	page_store_usage(pool->store, &usage);
	return usage;
}

/* Whether REF is live and holds the page (OWNER, VERSION). Its own read side. */
static inline bool pool_holds(struct pool *pool, struct frame_ref ref, uint64_t owner,
			      uint64_t version)
{
	const void *bytes;
	bool right;

	fold_rcu_read_lock();
	bytes = page_store_read(pool->store, ref);
	right = bytes && page_is(bytes, owner, version);
	fold_rcu_read_unlock();
	return right;
}

/* An empty file without a name, open for reading and writing. In TMPDIR, else in the directory the
 * test runs in: ctest's, so on the disk and not in a tmpfs. */
static inline int temp_file(void)
{
	const char *directory = getenv("TMPDIR");
	char name[4096];
	int fd;

	fd = open(directory ? directory : ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	snprintf(name, sizeof(name), "%s/foldfs-test-XXXXXX", directory ? directory : ".");
	fd = mkostemp(name, O_CLOEXEC);
	expect(fd >= 0);
	unlink(name);
	return fd;
}

/* A second descriptor of the file open as FD. */
static inline int reopen_file(int fd, int flags)
{
	char name[64];
	int again;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	again = open(name, flags | O_CLOEXEC);
	expect(again >= 0);
	return again;
}

static inline void write_whole(int fd, const void *bytes, size_t length, off_t offset)
{
	expect(pwrite(fd, bytes, length, offset) == (ssize_t)length);
}

/* Let the file's times differ from any that they had: a change that nobody can overlook, on file
 * systems with coarse times as well. */
static inline void touch_file(int fd)
{
	static atomic_long second = 1000000000;
	struct timespec times[2] = {{.tv_sec = atomic_fetch_add(&second, 1)}};

	times[1] = times[0];
	expect(!futimens(fd, times));
}

#endif
