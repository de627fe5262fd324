/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path_cache.c - O_PATH descriptors of the source's objects, for as long as they are used
 *
 * Invariants:
 *  P.1  A slot without a descriptor has a handle.
 *  P.2  A descriptor leaves its slot only under the lock and while it has no users. It is closed
 *       afterwards.
 *
 * Users are counted in the same word as the descriptor.
 *
 * Using a descriptor that is there takes two atomic operations and no lock. Nothing that may wait
 * is done under the lock: closing the last descriptor of a large file may free its blocks.
 */
#include "path_cache.h"

#include "foldfs/clock.h"
#include "foldfs/thread_identity.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#define FD_BITS  32
#define FD_MASK  ((UINT64_C(1) << FD_BITS) - 1)
#define NO_FD    FD_MASK
#define ONE_USER (UINT64_C(1) << FD_BITS)
/* How many slots are looked at in one hold of the lock. */
#define PORTION 64u
/* One LEAST_PART-th of the shared descriptors is for slots, however many files are open. */
#define LEAST_PART 16

static bool has_fd(uint64_t word)
{
	return (word & FD_MASK) != NO_FD;
}

static int fd_of(uint64_t word)
{
	return (int)(word & FD_MASK);
}

static void close_if(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void touch(struct path_cache *cache, struct path_slot *slot)
{
	uint32_t now = atomic_load_explicit(&cache->now, memory_order_relaxed);

	if (atomic_load_explicit(&slot->used, memory_order_relaxed) != now)
		atomic_store_explicit(&slot->used, now, memory_order_relaxed);
}

/* Rounds since the last use. */
static uint32_t age_of(const struct path_cache *cache, const struct path_slot *slot)
{
	return atomic_load_explicit(&cache->now, memory_order_relaxed) -
	       atomic_load_explicit(&slot->used, memory_order_relaxed);
}

/* ---- under the lock ---- */

static void link_locked(struct path_cache *cache, struct path_slot *slot)
{
	if (slot->stays)
		return;
	cds_list_add_tail(&slot->link, &cache->slots);
	slot->linked = true;
	cache->linked++;
	if (slot->directory)
		return;
	cache->files++;
	if (cache->idle)
		pthread_cond_signal(&cache->changed);
	cache->idle = false;
}

static void unlink_locked(struct path_cache *cache, struct path_slot *slot)
{
	if (!slot->linked)
		return;
	cds_list_del(&slot->link);
	slot->linked = false;
	cache->linked--;
	cache->files -= !slot->directory;
}

static void stay_locked(struct path_cache *cache, struct path_slot *slot)
{
	unlink_locked(cache, slot);
	slot->stays = true;
}

/* Give SLOT, which has no descriptor, the descriptor FD with USERS users. */
static void put_in_locked(struct path_cache *cache, struct path_slot *slot, int fd, uint64_t users)
{
	atomic_store_explicit(&slot->word, users * ONE_USER | (uint32_t)fd, memory_order_release);
	atomic_fetch_add_explicit(&cache->kept, 1, memory_order_relaxed);
	touch(cache, slot);
	link_locked(cache, slot);
}

/* Whether SLOT has a handle, or can get one from FD (P.1). */
static bool has_handle_locked(struct path_cache *cache, struct path_slot *slot, int fd)
{
	bool has = path_handle(slot) ||
		   source_handle_fill(&cache->objects, fd, cache->objects.room, &slot->handle);

	if (has)
		atomic_store_explicit(&slot->has_handle, true, memory_order_release);
	return has;
}

/* Take SLOT's descriptor out of it, for the caller to close. -1: it is in use, or stays. */
static int take_out_locked(struct path_cache *cache, struct path_slot *slot)
{
	uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);

	if (slot->stays || !has_fd(word) || word >= ONE_USER)
		return -1;
	if (!has_handle_locked(cache, slot, fd_of(word))) {
		stay_locked(cache, slot);
		return -1;
	}
	/* Another thread may begin to use it just now. */
	if (!atomic_compare_exchange_strong_explicit(&slot->word, &word, NO_FD,
						     memory_order_acq_rel, memory_order_relaxed))
		return -1;
	unlink_locked(cache, slot);
	atomic_fetch_sub_explicit(&cache->kept, 1, memory_order_relaxed);
	return fd_of(word);
}

/* The first slot, which is moved to the end of the list. */
static struct path_slot *turn_locked(struct path_cache *cache)
{
	struct path_slot *slot = cds_list_first_entry(&cache->slots, struct path_slot, link);

	cds_list_del(&slot->link);
	cds_list_add_tail(&slot->link, &cache->slots);
	return slot;
}

static bool are_too_many(const struct path_cache *cache)
{
	long left = cache->shared - atomic_load_explicit(&cache->opened, memory_order_relaxed);

	if (left < cache->shared / LEAST_PART)
		left = cache->shared / LEAST_PART;
	if (left > PATHS_MAX)
		left = PATHS_MAX;
	return atomic_load_explicit(&cache->kept, memory_order_relaxed) > left;
}

/* If there are too many descriptors, take one for the caller to close: one that was not used since
 * it was last looked at. If none of PORTION slots has one, take that of the last. -1: none was
 * taken. */
static int spare_locked(struct path_cache *cache)
{
	int fd = -1;

	if (!are_too_many(cache))
		return -1;
	for (unsigned i = 0; fd < 0 && i < PORTION && cache->linked; i++) {
		struct path_slot *slot = turn_locked(cache);

		if (age_of(cache, slot) || i == PORTION - 1)
			fd = take_out_locked(cache, slot);
		else
			atomic_fetch_sub_explicit(&slot->used, 1, memory_order_relaxed);
	}
	return fd;
}

/* ---- slots ---- */

int path_slot_begin(struct path_cache *cache, struct path_slot *slot, int fd, bool directory)
{
	int spare;

	atomic_init(&slot->word, NO_FD);
	atomic_init(&slot->has_handle, false);
	atomic_init(&slot->used, 0);
	slot->directory = directory;
	slot->stays = cache->objects.mount_fd < 0;
	slot->linked = false;
	pthread_mutex_lock(&cache->lock);
	put_in_locked(cache, slot, fd, 0);
	spare = spare_locked(cache);
	pthread_mutex_unlock(&cache->lock);
	return spare;
}

bool path_slot_revive(struct path_cache *cache, struct path_slot *slot)
{
	int fd = path_slot_fd(slot);

	atomic_store(&slot->word, NO_FD);
	atomic_store(&slot->used, 0);
	slot->linked = false;
	if (fd < 0)
		return path_handle(slot);
	pthread_mutex_lock(&cache->lock);
	put_in_locked(cache, slot, fd, 0);
	pthread_mutex_unlock(&cache->lock);
	return true;
}

int path_slot_end(struct path_cache *cache, struct path_slot *slot)
{
	uint64_t word;

	pthread_mutex_lock(&cache->lock);
	unlink_locked(cache, slot);
	word = atomic_load_explicit(&slot->word, memory_order_relaxed);
	if (has_fd(word))
		atomic_fetch_sub_explicit(&cache->kept, 1, memory_order_relaxed);
	pthread_mutex_unlock(&cache->lock);
	return has_fd(word) ? fd_of(word) : -1;
}

bool path_is_open(const struct path_slot *slot)
{
	return has_fd(atomic_load_explicit(&slot->word, memory_order_acquire));
}

int path_slot_fd(const struct path_slot *slot)
{
	uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);

	return has_fd(word) ? fd_of(word) : -1;
}

struct file_handle *path_handle(struct path_slot *slot)
{
	return atomic_load_explicit(&slot->has_handle, memory_order_acquire) ? &slot->handle : NULL;
}

/* ---- use ---- */

int path_get_open(struct path_cache *cache, struct path_slot *slot)
{
	uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);

	while (has_fd(word))
		if (atomic_compare_exchange_weak_explicit(&slot->word, &word, word + ONE_USER,
							  memory_order_acquire,
							  memory_order_acquire)) {
			touch(cache, slot);
			return fd_of(word);
		}
	return -1;
}

/* Like path_get(). There was no descriptor a moment ago. */
static int reopen(struct path_cache *cache, struct path_slot *slot)
{
	int spare = -1;
	int fd;
	int other;

	identity_make_own();
	fd = TEMP_FAILURE_RETRY(source_handle_open(cache->objects.mount_fd, path_handle(slot),
						   O_PATH | O_NOFOLLOW | O_CLOEXEC));
	if (fd < 0)
		return -errno;
	pthread_mutex_lock(&cache->lock);
	other = path_get_open(cache, slot);
	if (other < 0) {
		put_in_locked(cache, slot, fd, 1);
		spare = spare_locked(cache);
	}
	pthread_mutex_unlock(&cache->lock);
	close_if(other < 0 ? spare : fd);
	return other < 0 ? fd : other;
}

int path_get(struct path_cache *cache, struct path_slot *slot)
{
	int fd = path_get_open(cache, slot);

	return fd < 0 ? reopen(cache, slot) : fd;
}

void path_put(struct path_slot *slot)
{
	atomic_fetch_sub_explicit(&slot->word, ONE_USER, memory_order_release);
}

int path_offer(struct path_cache *cache, struct path_slot *slot, int fd)
{
	pthread_mutex_lock(&cache->lock);
	if (!has_fd(atomic_load_explicit(&slot->word, memory_order_relaxed))) {
		put_in_locked(cache, slot, fd, 0);
		fd = spare_locked(cache);
	}
	pthread_mutex_unlock(&cache->lock);
	return fd;
}

int path_pin(struct path_cache *cache, struct path_slot *slot, int fd)
{
	pthread_mutex_lock(&cache->lock);
	if (!has_fd(atomic_load_explicit(&slot->word, memory_order_relaxed))) {
		put_in_locked(cache, slot, fd, 0);
		fd = -1;
	}
	stay_locked(cache, slot);
	pthread_mutex_unlock(&cache->lock);
	return fd;
}

void path_let_go(struct path_cache *cache, struct path_slot *slot)
{
	int fd;

	pthread_mutex_lock(&cache->lock);
	fd = take_out_locked(cache, slot);
	pthread_mutex_unlock(&cache->lock);
	close_if(fd);
}

/* ---- open files, which share the descriptors ---- */

long path_cache_spare(const struct path_cache *cache)
{
	/* Slots without file handles cannot make room. */
	if (cache->objects.mount_fd < 0)
		return cache->shared / 2;
	return cache->shared - cache->shared / LEAST_PART;
}

static void trim(struct path_cache *cache)
{
	int fd = 0;

	while (fd >= 0 && are_too_many(cache)) {
		pthread_mutex_lock(&cache->lock);
		fd = spare_locked(cache);
		pthread_mutex_unlock(&cache->lock);
		close_if(fd);
	}
}

void path_cache_make_room(struct path_cache *cache, long count)
{
	atomic_store_explicit(&cache->opened, count, memory_order_relaxed);
	trim(cache);
}

/* ---- the sweeper ---- */

/* Look at the first COUNT slots. Close the descriptors of idle ones that are not of directories. */
static void sweep_portion(struct path_cache *cache, size_t count)
{
	int fds[PORTION];
	size_t taken = 0;

	pthread_mutex_lock(&cache->lock);
	for (; count && cache->linked; count--) {
		struct path_slot *slot = turn_locked(cache);

		if (!slot->directory && age_of(cache, slot) > 1)
			fds[taken] = take_out_locked(cache, slot);
		else
			continue;
		taken += fds[taken] >= 0;
	}
	pthread_mutex_unlock(&cache->lock);
	while (taken)
		close(fds[--taken]);
}

void path_cache_sweep(struct path_cache *cache)
{
	size_t left;

	atomic_fetch_add_explicit(&cache->now, 1, memory_order_relaxed);
	pthread_mutex_lock(&cache->lock);
	left = cache->linked;
	pthread_mutex_unlock(&cache->lock);
	while (left) {
		size_t portion = left < PORTION ? left : PORTION;

		sweep_portion(cache, portion);
		left -= portion;
	}
	trim(cache);
}

static void wait_locked(struct path_cache *cache)
{
	struct timespec until;

	/* Once woken, the sweeper looks after a while, even if that file is gone by then.
	 * Otherwise, where files come and go one by one, each of them would wake it. */
	cache->idle = !cache->files;
	while (!cache->ending && cache->idle)
		pthread_cond_wait(&cache->changed, &cache->lock);
	until = clock_at(clock_now_ns() + PATH_IDLE_SECONDS * NS_PER_S);
	while (!cache->ending &&
	       !pthread_cond_clockwait(&cache->changed, &cache->lock, CLOCK_MONOTONIC, &until))
		;
}

static void *sweep(void *argument)
{
	struct path_cache *cache = argument;

	pthread_mutex_lock(&cache->lock);
	for (wait_locked(cache); !cache->ending; wait_locked(cache)) {
		pthread_mutex_unlock(&cache->lock);
		path_cache_sweep(cache);
		pthread_mutex_lock(&cache->lock);
	}
	pthread_mutex_unlock(&cache->lock);
	return NULL;
}

size_t path_slot_room(const struct path_cache *cache)
{
	return cache->objects.room;
}

void path_cache_init(struct path_cache *cache, int root_fd, long shared)
{
	source_handle_init(&cache->objects, root_fd);
	cache->shared = shared;
	pthread_mutex_init(&cache->lock, NULL);
	pthread_cond_init(&cache->changed, NULL);
	CDS_INIT_LIST_HEAD(&cache->slots);
}

errint_t path_cache_start(struct path_cache *cache)
{
	int error = pthread_create(&cache->sweeper, NULL, sweep, cache);

	cache->running = !error;
	return -error;
}

void path_cache_end(struct path_cache *cache)
{
	pthread_mutex_lock(&cache->lock);
	cache->ending = true;
	pthread_cond_signal(&cache->changed);
	pthread_mutex_unlock(&cache->lock);
	if (cache->running)
		pthread_join(cache->sweeper, NULL);
	pthread_cond_destroy(&cache->changed);
	pthread_mutex_destroy(&cache->lock);
	source_handle_close(&cache->objects);
}
