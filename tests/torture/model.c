/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.c - the shadow of all files, in memory that every worker shares
 *
 * The model tells two kinds of readers what they may find:
 *
 * - A reader that holds a range finds its newest version and nothing else. A change holds what it
 *   changes exclusively, so for a holder the content is definite.
 * - A reader that holds nothing notes for each page the newest version that is `done` (sight_take),
 *   and reads. It may have found, byte by byte, any version from that one up to the newest that has
 *   `started`. A change starts its versions before the operation and ends them after it.
 *
 * Versions of a page are kept in a ring. A change increases `started` before it writes into the
 * ring. So if a reader beside it finds `started` a whole ring ahead, what it compared with may have
 * been overwritten, and it does not judge the page (`outrun`).
 *
 * Bytes of a page behind the end of its file are zero in every version.
 *
 * Locks: file_model.lock is a leaf. A hold on ranges is taken all at once, so holds of one file
 * cannot deadlock with each other.
 */
#include "torture.h"

#include <string.h>
#include <sys/mman.h>

static void init_sync(pthread_mutex_t *lock, pthread_cond_t *condition)
{
	pthread_mutexattr_t mutex_attributes;
	pthread_condattr_t condition_attributes;

	pthread_mutexattr_init(&mutex_attributes);
	pthread_mutexattr_setpshared(&mutex_attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(lock, &mutex_attributes);
	pthread_mutexattr_destroy(&mutex_attributes);
	if (!condition)
		return;
	pthread_condattr_init(&condition_attributes);
	pthread_condattr_setpshared(&condition_attributes, PTHREAD_PROCESS_SHARED);
	pthread_cond_init(condition, &condition_attributes);
	pthread_condattr_destroy(&condition_attributes);
}

struct shared *model_new(unsigned files, unsigned workers)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned i;

	if (shared == MAP_FAILED)
		return NULL;
	shared->files = files;
	shared->workers = workers;
	init_sync(&shared->report.lock, NULL);
	for (i = 0; i < files; i++)
		init_sync(&shared->models[i].lock, &shared->models[i].released);
	return shared;
}

/* ---- holds ---- */

static bool is_free(int16_t holds, enum hold hold)
{
	return hold == HOLD_NONE || (hold == HOLD_SHARED ? holds >= 0 : !holds);
}

static bool may_hold(const struct file_model *file, const struct hold_range *range)
{
	unsigned page;

	if (!is_free(file->holds[FILE_PAGES], range->size))
		return false;
	for (page = range->first; page <= range->last; page++)
		if (!is_free(file->holds[page], range->pages))
			return false;
	return true;
}

static void hold(int16_t *holds, enum hold how, int sign)
{
	if (how == HOLD_SHARED)
		*holds = (int16_t)(*holds + sign);
	else if (how == HOLD_EXCLUSIVE)
		*holds = (int16_t)(*holds - sign);
}

static void hold_range_locked(struct file_model *file, const struct hold_range *range, int sign)
{
	unsigned page;

	hold(&file->holds[FILE_PAGES], range->size, sign);
	for (page = range->first; page <= range->last; page++)
		hold(&file->holds[page], range->pages, sign);
}

void model_lock(struct shared *shared, const struct hold_range *range)
{
	struct file_model *file = &shared->models[range->file];

	pthread_mutex_lock(&file->lock);
	while (!may_hold(file, range))
		pthread_cond_wait(&file->released, &file->lock);
	hold_range_locked(file, range, 1);
	pthread_mutex_unlock(&file->lock);
}

void model_unlock(struct shared *shared, const struct hold_range *range)
{
	struct file_model *file = &shared->models[range->file];

	pthread_mutex_lock(&file->lock);
	hold_range_locked(file, range, -1);
	pthread_mutex_unlock(&file->lock);
	pthread_cond_broadcast(&file->released);
}

/* ---- versions ---- */

uint64_t model_size(struct shared *shared, unsigned file)
{
	struct file_model *model = &shared->models[file];

	return model->sizes[model->size_started % SIZES];
}

static uint8_t *version(struct page_model *page, uint64_t number)
{
	return page->versions[number % VERSIONS];
}

const uint8_t *model_page(struct shared *shared, unsigned file, unsigned page)
{
	struct page_model *model = &shared->models[file].pages[page];

	return version(model, model->started);
}

void change_begin(struct change *change, struct shared *shared, unsigned file)
{
	change->shared = shared;
	change->file = file;
	change->size = false;
	memset(change->pages, 0, sizeof(change->pages));
}

/* A new version of PAGE, with the content of the one OLD versions before it. */
static uint8_t *new_version(struct page_model *page, uint64_t old)
{
	uint64_t number = page->started + 1;

	atomic_store(&page->started, number);
	memcpy(version(page, number), version(page, number - old), PAGE);
	return version(page, number);
}

/* Bytes of the page in the version that CHANGE makes. */
static uint8_t *changed_page(struct change *change, unsigned page)
{
	struct page_model *model = &change->shared->models[change->file].pages[page];

	if (change->pages[page])
		return version(model, model->started);
	change->pages[page] = true;
	return new_version(model, 1);
}

/* Set LENGTH bytes from AT on to BYTES, or zeroes. */
static void change_bytes(struct change *change, uint64_t at, const uint8_t *bytes, size_t length)
{
	while (length) {
		size_t within = at % PAGE;
		size_t part = PAGE - within < length ? PAGE - within : length;
		uint8_t *page = changed_page(change, (unsigned)(at / PAGE));

		if (bytes)
			memcpy(page + within, bytes, part);
		else
			memset(page + within, 0, part);
		bytes = bytes ? bytes + part : NULL;
		at += part;
		length -= part;
	}
}

static void set_size(struct change *change, uint64_t size)
{
	struct file_model *model = &change->shared->models[change->file];
	uint64_t number = model->size_started + 1;

	model->sizes[number % SIZES] = size;
	atomic_store(&model->size_started, number);
	change->size = true;
}

void change_write(struct change *change, uint64_t at, const void *bytes, size_t length)
{
	change_bytes(change, at, bytes, length);
	if (at + length > model_size(change->shared, change->file))
		set_size(change, at + length);
}

void change_zero(struct change *change, uint64_t at, size_t length)
{
	uint64_t size = model_size(change->shared, change->file);

	if (at >= size)
		return;
	change_bytes(change, at, NULL, length < size - at ? length : size - at);
}

void change_size(struct change *change, uint64_t size)
{
	uint64_t old = model_size(change->shared, change->file);

	if (size < old)
		change_bytes(change, size, NULL, old - size);
	set_size(change, size);
}

void change_done(struct change *change)
{
	struct file_model *model = &change->shared->models[change->file];
	unsigned page;

	for (page = 0; page < FILE_PAGES; page++)
		if (change->pages[page])
			atomic_store(&model->pages[page].done, model->pages[page].started);
	if (change->size)
		atomic_store(&model->size_done, model->size_started);
}

void change_undo(struct change *change)
{
	struct file_model *model = &change->shared->models[change->file];
	unsigned page;

	for (page = 0; page < FILE_PAGES; page++)
		if (change->pages[page])
			(void)new_version(&model->pages[page], 2);
	if (change->size)
		set_size(change, model->sizes[model->size_done % SIZES]);
	change_done(change);
}

void sight_take(struct shared *shared, unsigned file, unsigned first, unsigned last,
		struct sight *ret_sight)
{
	struct file_model *model = &shared->models[file];
	unsigned page;

	ret_sight->epoch = atomic_load(&model->epoch);
	ret_sight->size = atomic_load(&model->size_done);
	for (page = first; page <= last; page++)
		ret_sight->pages[page] = atomic_load(&model->pages[page].done);
}
