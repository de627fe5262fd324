/* SPDX-License-Identifier: Apache-2.0 */
/* lock_records.c - what clients have locked, in memory that can outlive its process */
#include "lock_records.h"

#include <errno.h>
#include <stdlib.h>

#include <urcu/compiler.h>

/* All users together: 8 MiB. */
#define LOCKS_MAX     65536u
#define LOCKS_RESERVE 4096u

struct lock_records {
	struct slab *slab;     /* constant; has a lock of its own, like the next */
	struct shares *shares; /* constant */
	_Atomic uint64_t age;  /* of the youngest */
};

errint_t lock_records_new(uid_t own, struct slab *earlier, struct lock_records **ret_records)
{
	struct lock_records *records = calloc(1, sizeof(*records));
	errint_t error = 0;

	if (!records) {
		slab_free(earlier);
		return -ENOMEM;
	}
	records->slab = earlier;
	if (!earlier)
		error = slab_new("foldfs-locks", sizeof(struct lock_record), &records->slab);
	else if (slab_object_bytes(earlier) - sizeof(struct lock_record) >= SLAB_ALIGNMENT)
		error = -EPROTO;
	if (!error)
		error = shares_new(LOCKS_MAX, LOCKS_RESERVE, own, &records->shares);
	if (error)
		lock_records_free(records);
	else
		*ret_records = records;
	return error;
}

void lock_records_free(struct lock_records *records)
{
	if (!records)
		return;
	slab_free(records->slab);
	shares_free(records->shares);
	free(records);
}

struct slab *lock_records_slab(const struct lock_records *records)
{
	return records->slab;
}

uint64_t lock_records_count(const struct lock_records *records)
{
	return shares_taken(records->shares);
}

uint64_t lock_records_bytes(const struct lock_records *records)
{
	return slab_bytes(records->slab);
}

struct lock_record *lock_record_new(struct lock_records *records, uid_t user)
{
	struct lock_record *record;
	struct slab_slot *slot;
	uint64_t number;

	if (shares_take(records->shares, user, 1))
		return NULL;
	if (slab_take(records->slab, &slot, &number)) {
		shares_give(records->shares, user, 1);
		return NULL;
	}
	record = caa_container_of(slot, struct lock_record, slot);
	record->number = number;
	record->lock.user = user;
	return record;
}

void lock_record_publish(struct lock_records *records, struct lock_record *record)
{
	record->age = atomic_fetch_add_explicit(&records->age, 1, memory_order_relaxed) + 1;
	slab_publish(&record->slot, record->number);
	/* Not to be reordered with changes of those whose place it takes, which follow. */
	atomic_signal_fence(memory_order_seq_cst);
}

void lock_record_free(struct lock_records *records, struct lock_record *record)
{
	atomic_signal_fence(memory_order_seq_cst);
	shares_give(records->shares, record->lock.user, 1);
	slab_give(records->slab, &record->slot, record->number);
}

/* ---- after a takeover ---- */

struct found {
	struct lock_records *records;
	bool (*is_open)(void *context, uint64_t handle);
	void *context;
	struct lock_record **list; /* room for all; NULL: they are only counted */
	size_t count;
};

static void find(void *context, struct slab_slot *slot)
{
	struct lock_record *record = caa_container_of(slot, struct lock_record, slot);
	struct found *found = context;

	if (!found->list) {
		found->count++;
	} else if (!found->is_open(found->context, record->lock.handle)) {
		slab_give(found->records->slab, slot, record->number);
	} else {
		if (record->age > atomic_load(&found->records->age))
			atomic_store(&found->records->age, record->age);
		record->clashes = false;
		found->list[found->count++] = record;
	}
}

static int order(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

/* -1, 0 or 1, as qsort(3) wants it: by file and kind. */
static int compare_files(const struct lock_record *a, const struct lock_record *b)
{
	return a->file != b->file ? order(a->file, b->file) : order(a->kind, b->kind);
}

static int by_owner(const void *a, const void *b)
{
	const struct lock_record *x = *(struct lock_record *const *)a;
	const struct lock_record *y = *(struct lock_record *const *)b;

	if (compare_files(x, y))
		return compare_files(x, y);
	return x->lock.owner != y->lock.owner
		       ? order(x->lock.owner, y->lock.owner)
		       : order((uint64_t)x->lock.first, (uint64_t)y->lock.first);
}

static int by_place(const void *a, const void *b)
{
	const struct lock_record *x = *(struct lock_record *const *)a;
	const struct lock_record *y = *(struct lock_record *const *)b;

	if (compare_files(x, y))
		return compare_files(x, y);
	if (x->clashes || y->clashes)
		return x->clashes && y->clashes ? order(x->age, y->age) : x->clashes - y->clashes;
	return order((uint64_t)x->lock.first, (uint64_t)y->lock.first);
}

/* Mark those of LIST, in order of their owners, that overlap one of the same owner before them or
 * behind them. */
static void mark_clashes(struct lock_record *const list[], size_t count)
{
	struct lock_record *reaches = NULL; /* farthest, of the owner's so far */

	for (size_t i = 0; i < count; i++) {
		struct lock_record *record = list[i];

		if (!reaches || record->kind != LOCK_RANGE || compare_files(reaches, record) ||
		    reaches->lock.owner != record->lock.owner) {
			reaches = record;
			continue;
		}
		if (record->lock.first <= reaches->lock.last)
			reaches->clashes = record->clashes = true;
		if (record->lock.last > reaches->lock.last)
			reaches = record;
	}
}

errint_t lock_records_each(struct lock_records *records,
			   bool (*is_open)(void *context, uint64_t handle),
			   errint_t (*visit)(void *context, struct lock_record *record),
			   void *context)
{
	struct found found = {.records = records, .is_open = is_open, .context = context};
	errint_t error = 0;

	slab_each(records->slab, find, &found);
	if (!found.count)
		return 0;
	found.list = calloc(found.count, sizeof(struct lock_record *));
	if (!found.list)
		return -ENOMEM;
	found.count = 0;
	slab_each(records->slab, find, &found);
	qsort(found.list, found.count, sizeof(struct lock_record *), by_owner);
	mark_clashes(found.list, found.count);
	qsort(found.list, found.count, sizeof(struct lock_record *), by_place);
	for (size_t i = 0; i < found.count && !error; i++) {
		error = shares_force(records->shares, found.list[i]->lock.user, 1);
		if (!error)
			error = visit(context, found.list[i]);
	}
	free(found.list);
	return error;
}
