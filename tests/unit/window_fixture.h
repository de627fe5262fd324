/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window_fixture.h - a window over a kernel that is played by a bitmap for each node
 *
 * As the real one, that kernel holds a page locked from the read to its reply, and an invalidation
 * waits for it.
 */
#ifndef FOLDFS_TEST_WINDOW_FIXTURE_H
#define FOLDFS_TEST_WINDOW_FIXTURE_H

#include "helpers.h"

#include "window/window_internal.h"

#define SPAN(first_page, count, is_direct)                                                         \
	((struct window_span){.first = (first_page), .pages = (count), .direct = (is_direct)})

#define NODES      4u
#define NODE_PAGES 8192u
#define REGION     64u
#define KIB        1024u
#define THREADS    (TRIMMERS + 1)

struct kernel {
	pthread_mutex_t locks[NODES]; /* of the pages of a node */
	bool cached[NODES][NODE_PAGES];
	atomic_ulong calls;
	atomic_ulong calls_for_all; /* length 0 */
	errint_t answer;
	pthread_mutex_t threads_lock;
	pthread_t threads[THREADS]; /* that have called; under threads_lock */
	unsigned thread_count;
	/* Run before the pages are dropped. */
	void (*during)(void *context, uint64_t node, off_t offset, off_t length);
	void *context;
};

/* All calls come from the trimmers or the dropper. */
static inline void check_thread(struct kernel *kernel)
{
	unsigned i;

	pthread_mutex_lock(&kernel->threads_lock);
	for (i = 0; i < kernel->thread_count; i++)
		if (pthread_equal(kernel->threads[i], pthread_self()))
			break;
	if (i == kernel->thread_count) {
		expect(i < THREADS);
		kernel->threads[kernel->thread_count++] = pthread_self();
	}
	pthread_mutex_unlock(&kernel->threads_lock);
}

static inline errint_t invalidate(void *context, uint64_t node, off_t offset, off_t length)
{
	struct kernel *kernel = context;
	uint64_t first = (uint64_t)offset >> FOLD_PAGE_SHIFT;
	uint64_t end = length ? first + ((uint64_t)length >> FOLD_PAGE_SHIFT) : NODE_PAGES;

	check_thread(kernel);
	expect(node < NODES);
	expect(offset % FOLD_PAGE_SIZE == 0 && length % FOLD_PAGE_SIZE == 0 && length >= 0);
	atomic_fetch_add(length ? &kernel->calls : &kernel->calls_for_all, 1);
	if (kernel->during)
		kernel->during(kernel->context, node, offset, length);
	pthread_mutex_lock(&kernel->locks[node]);
	for (uint64_t page = first; page < end && page < NODE_PAGES; page++)
		kernel->cached[node][page] = false;
	pthread_mutex_unlock(&kernel->locks[node]);
	return kernel->answer;
}

struct fixture {
	struct kernel kernel;
	struct window *window;
	bool running;
	struct window_file *files[NODES];
};

static inline struct fixture *fixture_new(uint64_t budget)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	expect(fixture);
	pthread_mutex_init(&fixture->kernel.threads_lock, NULL);
	for (unsigned node = 0; node < NODES; node++)
		pthread_mutex_init(&fixture->kernel.locks[node], NULL);
	expect(!window_new(budget, invalidate, &fixture->kernel, &fixture->window));
	for (uint64_t node = 0; node < NODES; node++)
		expect(!window_file_new(fixture->window, node, 0, &fixture->files[node]));
	return fixture;
}

static inline struct window_usage usage_of(struct fixture *fixture)
{
	struct window_usage usage;

	window_usage(fixture->window, &usage);
	return usage;
}

static inline void start(struct fixture *fixture)
{
	expect(!window_start(fixture->window));
	fixture->running = true;
}

static inline void stop(struct fixture *fixture)
{
	window_stop(fixture->window);
	fixture->running = false;
}

/* What is uncounted or forgotten is so in the trimmer's own time. */
static inline void fixture_free(struct fixture *fixture)
{
	for (unsigned node = 0; node < NODES; node++)
		if (fixture->files[node])
			window_file_forget(fixture->files[node]);
	if (fixture->running)
		wait_for(!usage_of(fixture).bytes);
	stop(fixture);
	window_free(fixture->window);
	for (unsigned node = 0; node < NODES; node++)
		pthread_mutex_destroy(&fixture->kernel.locks[node]);
	pthread_mutex_destroy(&fixture->kernel.threads_lock);
	free(fixture);
}

/* A READ and its reply. */
static inline void cache(struct fixture *fixture, unsigned node, uint64_t first, unsigned pages)
{
	pthread_mutex_lock(&fixture->kernel.locks[node]);
	window_note(fixture->files[node], first, pages);
	for (unsigned i = 0; i < pages; i++)
		fixture->kernel.cached[node][first + i] = true;
	pthread_mutex_unlock(&fixture->kernel.locks[node]);
}

static inline uint64_t cached_bytes(struct fixture *fixture)
{
	uint64_t pages = 0;

	for (unsigned node = 0; node < NODES; node++) {
		pthread_mutex_lock(&fixture->kernel.locks[node]);
		for (uint64_t page = 0; page < NODE_PAGES; page++)
			pages += fixture->kernel.cached[node][page];
		pthread_mutex_unlock(&fixture->kernel.locks[node]);
	}
	return pages << FOLD_PAGE_SHIFT;
}

#endif
