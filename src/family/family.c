/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family.c - content that several files are known to have, and the frames that hold it now
 *
 * There are two levels: a family's array of leaves, made lazily, and in each leaf a word for each
 * page. A word is a frame and the life in which it was remembered. Words are written and read
 * without a lock: whatever a word says, page_store_share() decides by generation whether the frame
 * still holds that content. Leaves are put in place by compare-and-swap, taken out by exchange, and
 * freed a grace period later.
 *
 * The families stand in a hash under table->lock: one for each group of images or clones whose
 * files are known. Families that remember anything are in a list as well, so that memory is found
 * quickly among any number of others. Only the audit has both locks at once: it takes a family's
 * lock within table->lock.
 */
#include "foldfs/family.h"

#include "foldfs/clock.h"
#include "foldfs/rcu.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define LEAF_PAGES 512u
#define BUCKETS    1024u

/* A word: generation (32 bits), frame (29 bits), and a bit that says that a frame is remembered. */
#define WORD_FRAME_SHIFT 1u
#define WORD_THERE       1u

struct family_leaf {
	struct rcu_head head; /* once it is out of its family */
	struct family_table *table;
	_Atomic uint64_t words[LEAF_PAGES]; /* see the head of this file */
};

struct family_table {
	struct page_store *store;
	_Atomic int64_t bytes;   /* relaxed */
	_Atomic int64_t leaving; /* the part that waits for a grace period; relaxed */
	pthread_mutex_t lock;
	struct cds_list_head families[BUCKETS]; /* by number; under lock */
	struct cds_list_head full;              /* those that have leaves; under lock */
};

struct family {
	struct family_table *table; /* constant, as the next three */
	uint64_t number;
	uint64_t writers; /* the writers of the files that tell it */
	uint64_t leaf_count;
	unsigned references;       /* under table->lock, as the next four */
	struct cds_list_head link; /* of its bucket */
	struct cds_list_head full; /* link in table->full, while it has leaves */
	/* Leaves that were counted, less those that were taken out; may be below the true number
	 * for a moment, since a leaf can be taken out before it is counted. */
	int64_t leaves_made;
	uint64_t next_taken;  /* where to look for the next leaf to take */
	pthread_mutex_t lock; /* of claims; a leaf of the lock order */
	pthread_cond_t unclaimed;
	struct cds_list_head claims;            /* under lock */
	_Atomic(struct family_leaf *) leaves[]; /* NULL: nothing is remembered there */
};

errint_t family_table_new(struct page_store *store, struct family_table **ret_table)
{
	struct family_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	table->store = store;
	pthread_mutex_init(&table->lock, NULL);
	for (unsigned i = 0; i < BUCKETS; i++)
		CDS_INIT_LIST_HEAD(&table->families[i]);
	CDS_INIT_LIST_HEAD(&table->full);
	*ret_table = table;
	return 0;
}

void family_table_free(struct family_table *table)
{
	if (!table)
		return;
	/* First for whatever put the last references, then for the leaves that this took out. */
	fold_rcu_barrier();
	fold_rcu_barrier();
	pthread_mutex_destroy(&table->lock);
	free(table);
}

uint64_t family_table_bytes(const struct family_table *table)
{
	int64_t bytes = atomic_load_explicit(&table->bytes, memory_order_relaxed);

	return bytes > 0 ? (uint64_t)bytes : 0;
}

uint64_t family_table_in_use(const struct family_table *table)
{
	int64_t leaving = atomic_load_explicit(&table->leaving, memory_order_relaxed);
	int64_t bytes = atomic_load_explicit(&table->bytes, memory_order_relaxed);

	/* Two counters, read one after the other. */
	return bytes > leaving ? (uint64_t)(bytes - leaving) : 0;
}

void family_table_count(struct family_table *table, int64_t bytes)
{
	atomic_fetch_add_explicit(&table->bytes, bytes, memory_order_relaxed);
}

void family_table_leave(struct family_table *table, int64_t bytes)
{
	atomic_fetch_add_explicit(&table->leaving, bytes, memory_order_relaxed);
}

static uint64_t bytes_of(const struct family *family)
{
	return sizeof(*family) + family->leaf_count * sizeof(family->leaves[0]);
}

static struct family *family_new(struct family_table *table, uint64_t number, uint64_t writers,
				 uint64_t pages)
{
	uint64_t count = (pages + LEAF_PAGES - 1) / LEAF_PAGES;
	struct family *family = calloc(1, sizeof(*family) + count * sizeof(family->leaves[0]));

	if (!family)
		return NULL;
	family->table = table;
	family->number = number;
	family->writers = writers;
	family->leaf_count = count;
	pthread_mutex_init(&family->lock, NULL);
	clock_cond_init(&family->unclaimed);
	CDS_INIT_LIST_HEAD(&family->claims);
	family_table_count(table, (int64_t)bytes_of(family));
	return family;
}

/* NUMBER is a count or random, so its low bits will do. */
static struct cds_list_head *bucket_of(struct family_table *table, uint64_t number)
{
	return &table->families[number % BUCKETS];
}

struct family *family_get(struct family_table *table, uint64_t number, uint64_t writers,
			  uint64_t pages)
{
	struct family *family;
	struct family *found = NULL;

	pthread_mutex_lock(&table->lock);
	cds_list_for_each_entry (family, bucket_of(table, number), link)
		if (family->number == number && family->writers == writers)
			found = family;
	if (!found) {
		found = family_new(table, number, writers, pages);
		if (found)
			cds_list_add(&found->link, bucket_of(table, number));
	}
	if (found)
		found->references++;
	pthread_mutex_unlock(&table->lock);
	return found;
}

static void leaf_free(struct rcu_head *head)
{
	struct family_leaf *leaf = caa_container_of(head, struct family_leaf, head);

	fold_rcu_called(head);
	family_table_leave(leaf->table, -(int64_t)sizeof(*leaf));
	family_table_count(leaf->table, -(int64_t)sizeof(*leaf));
	free(leaf);
}

/* DELTA more leaves. A leaf is counted after it is there, so it may be taken out before. */
static void count_leaves_locked(struct family *family, int64_t delta)
{
	bool was_full = family->leaves_made > 0;

	family->leaves_made += delta;
	if (!was_full && family->leaves_made > 0)
		cds_list_add(&family->full, &family->table->full);
	else if (was_full && family->leaves_made <= 0)
		cds_list_del(&family->full);
}

/* Take out leaf NUMBER of FAMILY. False: there is none. */
static bool take_leaf(struct family *family, uint64_t number)
{
	struct family_leaf *leaf = atomic_exchange(&family->leaves[number], NULL);

	if (!leaf)
		return false;
	family_table_leave(leaf->table, (int64_t)sizeof(*leaf));
	fold_rcu_call(&leaf->head, leaf_free);
	return true;
}

/* Take leaves out of FAMILY, which has some, until BYTES are taken, beginning where the last call
 * ended. Returns how many bytes were taken. */
static uint64_t shrink_locked(struct family *family, uint64_t bytes)
{
	uint64_t taken = 0;

	for (uint64_t i = 0; i < family->leaf_count && taken < bytes; i++) {
		uint64_t number = family->next_taken++ % family->leaf_count;

		if (!take_leaf(family, number))
			continue;
		taken += sizeof(struct family_leaf);
		count_leaves_locked(family, -1);
		if (family->leaves_made <= 0)
			break;
	}
	return taken;
}

uint64_t family_table_shrink(struct family_table *table, uint64_t bytes)
{
	struct family *family;
	uint64_t taken = 0;
	uint64_t got = 1;

	pthread_mutex_lock(&table->lock);
	while (taken < bytes && got && !cds_list_empty(&table->full)) {
		family = cds_list_first_entry(&table->full, struct family, full);
		got = shrink_locked(family, bytes - taken);
		taken += got;
	}
	pthread_mutex_unlock(&table->lock);
	return taken;
}

uint64_t family_number(const struct family *family)
{
	return family->number;
}

void family_put(struct family *family)
{
	struct family_table *table = family->table;
	bool last;

	pthread_mutex_lock(&table->lock);
	last = !--family->references;
	if (last) {
		cds_list_del(&family->link);
		count_leaves_locked(family, -family->leaves_made);
	}
	pthread_mutex_unlock(&table->lock);
	if (!last)
		return;
	/* Every reader of a family has a reference: there is none left. */
	for (uint64_t i = 0; i < family->leaf_count; i++)
		(void)take_leaf(family, i);
	family_table_count(table, -(int64_t)bytes_of(family));
	pthread_cond_destroy(&family->unclaimed);
	pthread_mutex_destroy(&family->lock);
	free(family);
}

/* The word of PAGE; NULL: there is none yet. Read side. */
static _Atomic uint64_t *word_of(struct family *family, uint64_t page)
{
	struct family_leaf *leaf;

	if (page / LEAF_PAGES >= family->leaf_count)
		return NULL;
	leaf = atomic_load_explicit(&family->leaves[page / LEAF_PAGES], memory_order_acquire);
	return leaf ? &leaf->words[page % LEAF_PAGES] : NULL;
}

bool family_recall(struct family *family, uint64_t page, struct frame_ref *ret_ref)
{
	_Atomic uint64_t *slot = word_of(family, page);
	uint64_t word = slot ? atomic_load_explicit(slot, memory_order_acquire) : 0;

	*ret_ref = (struct frame_ref){.frame = (uint32_t)word >> WORD_FRAME_SHIFT,
				      .generation = (uint32_t)(word >> 32)};
	return word & WORD_THERE;
}

bool family_share(struct family *family, uint64_t page, struct frame_ref *ret_ref)
{
	return family_recall(family, page, ret_ref) &&
	       page_store_share(family->table->store, *ret_ref);
}

uint64_t family_next(struct family *family, uint64_t page)
{
	struct frame_ref ref;

	while (page / LEAF_PAGES < family->leaf_count) {
		if (!word_of(family, page))
			page = (page / LEAF_PAGES + 1) * LEAF_PAGES;
		else if (family_recall(family, page, &ref))
			return page;
		else
			page++;
	}
	return UINT64_MAX;
}

/* Make a leaf for PAGE, which has none. */
static void grow(struct family *family, uint64_t page)
{
	struct family_leaf *leaf = calloc(1, sizeof(*leaf));
	struct family_leaf *none = NULL;

	if (!leaf)
		return;
	leaf->table = family->table;
	if (!atomic_compare_exchange_strong(&family->leaves[page / LEAF_PAGES], &none, leaf)) {
		free(leaf);
		return;
	}
	family_table_count(family->table, (int64_t)sizeof(*leaf));
	pthread_mutex_lock(&family->table->lock);
	count_leaves_locked(family, 1);
	pthread_mutex_unlock(&family->table->lock);
}

void family_remember(struct family *family, uint64_t page, struct frame_ref ref)
{
	uint64_t word = (uint64_t)ref.generation << 32 | (uint64_t)ref.frame << WORD_FRAME_SHIFT |
			WORD_THERE;
	_Atomic uint64_t *slot;

	if (page / LEAF_PAGES >= family->leaf_count)
		return;
	if (!word_of(family, page))
		grow(family, page);
	slot = word_of(family, page);
	if (slot)
		atomic_store_explicit(slot, word, memory_order_release);
}

static bool is_claimed_locked(const struct family *family, uint64_t first, uint64_t last)
{
	const struct family_claim *claim;

	cds_list_for_each_entry (claim, &family->claims, link)
		if (claim->first <= last && first <= claim->last)
			return true;
	return false;
}

bool family_claim(struct family *family, uint64_t first, uint64_t last,
		  struct family_claim *ret_claim)
{
	bool claimed;

	pthread_mutex_lock(&family->lock);
	claimed = !is_claimed_locked(family, first, last);
	if (claimed) {
		*ret_claim = (struct family_claim){.family = family, .first = first, .last = last};
		cds_list_add(&ret_claim->link, &family->claims);
	}
	pthread_mutex_unlock(&family->lock);
	return claimed;
}

bool family_is_claimed(struct family *family, uint64_t first, uint64_t last)
{
	bool claimed;

	pthread_mutex_lock(&family->lock);
	claimed = is_claimed_locked(family, first, last);
	pthread_mutex_unlock(&family->lock);
	return claimed;
}

bool family_wait(struct family *family, uint64_t first, uint64_t last, const struct timespec *until)
{
	bool claimed;
	int error = 0;

	pthread_mutex_lock(&family->lock);
	while ((claimed = is_claimed_locked(family, first, last)) && !error)
		error = pthread_cond_timedwait(&family->unclaimed, &family->lock, until);
	pthread_mutex_unlock(&family->lock);
	return !claimed;
}

void family_unclaim(struct family_claim *claim)
{
	struct family *family = claim->family;

	if (!family)
		return;
	pthread_mutex_lock(&family->lock);
	cds_list_del(&claim->link);
	pthread_cond_broadcast(&family->unclaimed);
	pthread_mutex_unlock(&family->lock);
	claim->family = NULL;
}

/* ---- for the audit ---- */

static void count_family(struct family *family, struct family_count *count)
{
	struct family_claim *claim;
	uint64_t i;

	count->bytes += bytes_of(family);
	for (i = 0; i < family->leaf_count; i++)
		if (atomic_load_explicit(&family->leaves[i], memory_order_relaxed))
			count->bytes += sizeof(struct family_leaf);
	count->references += family->references;
	pthread_mutex_lock(&family->lock);
	cds_list_for_each_entry (claim, &family->claims, link)
		count->claims++;
	pthread_mutex_unlock(&family->lock);
}

void family_table_recount(struct family_table *table, struct family_count *ret_count)
{
	struct family *family;

	*ret_count = (struct family_count){.bytes = 0};
	pthread_mutex_lock(&table->lock);
	for (unsigned i = 0; i < BUCKETS; i++)
		cds_list_for_each_entry (family, &table->families[i], link)
			count_family(family, ret_count);
	pthread_mutex_unlock(&table->lock);
}
