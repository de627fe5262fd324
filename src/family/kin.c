/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kin.c - which pages of one file are those of a family, and still are
 *
 * A kin is constant once made, except for the cuts (cuts.h). These cover pages up to the end of the
 * last run, and are made once and for ever. Without memory for a cut, all of the kin is cut. A page
 * is cut before its slot gets its new version; a reader looks at the slot first and at the cut
 * after. So for a reader that still finds the page uncut there are two cases: its ticket is made
 * worthless by the change, or it published before the change, which then replaces what it
 * published.
 *
 * Proof. The lease is taken first, and after that the file is found to have the kin's stamp. So the
 * file is as it was when it was compared. From here on nobody can change it by another description;
 * nor could anybody before without moving the stamp. What this mount changes itself is cut before
 * the source changes. So a reader that fetched a page, then finds the lease held, and then finds
 * the page uncut, has fetched what was compared. (The cut is made before the write's system call,
 * and looked at after the read's: the fences ensure that, and the kernel has the bytes in this
 * order.) The proof goes with the kin.
 */
#include "foldfs/kin.h"

#include "cuts.h"
#include "foldfs/lease.h"
#include "foldfs/rcu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A file of more than 1 TiB has no kin: its family would take more memory than it may save. */
#define PAGES_MAX (UINT64_C(1) << 28)

struct kin {
	struct rcu_head head;
	_Atomic unsigned references; /* 0: nobody gets another */
	/* The families to adopt from: the trusted one, and that of the file's own writers, if they
	 * are others and may speak at all. A reference to each. Constant as all that follows, but
	 * the cuts. */
	struct family *by[KIN_FAMILIES];
	uint64_t writers;
	struct family_table *families;
	struct source_stamp stamp; /* the stamp under which what is not cut is true; under
				    * proof_lock */
	uint64_t pages;            /* to the end of the last run */
	size_t count;
	struct catalogue_run *runs; /* ascending */
	struct cuts *cuts;          /* see the head of this file */
	atomic_bool all_cut;
	pthread_mutex_t proof_lock;
	struct lease *proof; /* NULL: there is none; under proof_lock */
	bool lost;           /* somebody else ended a proof; under proof_lock */
	int64_t leaving;     /* kin_bytes() when it was given up */
};

static void kin_free(struct kin *kin)
{
	pthread_mutex_destroy(&kin->proof_lock);
	cuts_free(kin->cuts);
	free(kin->runs);
	free(kin);
}

uint64_t kin_bytes(const struct kin *kin)
{
	return sizeof(*kin) + kin->count * sizeof(kin->runs[0]) + cuts_bytes(kin->cuts);
}

static void put_families(struct kin *kin)
{
	for (unsigned n = 0; n < KIN_FAMILIES; n++)
		if (kin->by[n])
			family_put(kin->by[n]);
}

static bool get_families(struct kin *kin, uint64_t number, uint64_t pages)
{
	bool own = kin->writers != WRITERS_TRUSTED && kin->writers != WRITERS_UNKNOWN;

	kin->by[0] = family_get(kin->families, number, WRITERS_TRUSTED, pages);
	if (own)
		kin->by[1] = family_get(kin->families, number, kin->writers, pages);
	if (kin->by[0] && (kin->by[1] || !own))
		return true;
	put_families(kin);
	return false;
}

struct kin *kin_new(struct family_table *families, const struct source_stamp *stamp,
		    uint64_t writers, uint64_t number, const struct catalogue_run runs[],
		    size_t count)
{
	uint64_t pages = fold_pages_in(0, (uint64_t)stamp->size);
	struct kin *kin;

	if (!count || pages > PAGES_MAX || runs[count - 1].first + runs[count - 1].pages > pages)
		return NULL;
	kin = calloc(1, sizeof(*kin));
	if (!kin)
		return NULL;
	atomic_init(&kin->references, 1);
	pthread_mutex_init(&kin->proof_lock, NULL);
	kin->families = families;
	kin->writers = writers;
	kin->stamp = *stamp;
	kin->pages = runs[count - 1].first + runs[count - 1].pages;
	kin->count = count;
	kin->runs = malloc(count * sizeof(*runs));
	kin->cuts = cuts_new(kin->pages);
	if (!kin->runs || !kin->cuts || !get_families(kin, number, pages)) {
		kin_free(kin);
		return NULL;
	}
	memcpy(kin->runs, runs, count * sizeof(*runs));
	family_table_count(families, (int64_t)kin_bytes(kin));
	return kin;
}

bool kin_get(struct kin *kin)
{
	unsigned references = atomic_load_explicit(&kin->references, memory_order_relaxed);

	do {
		if (!references)
			return false;
	} while (!atomic_compare_exchange_weak(&kin->references, &references, references + 1));
	return true;
}

static void free_after_grace(struct rcu_head *head)
{
	struct kin *kin = caa_container_of(head, struct kin, head);

	fold_rcu_called(head);
	family_table_leave(kin->families, -kin->leaving);
	family_table_count(kin->families, -(int64_t)kin_bytes(kin));
	kin_free(kin);
}

void kin_put(struct kin *kin)
{
	if (atomic_fetch_sub(&kin->references, 1) != 1)
		return;
	/* A thread that still finds it within a read side may cut it, and nothing else. */
	put_families(kin);
	lease_free(kin->proof);
	kin->leaving = (int64_t)kin_bytes(kin);
	family_table_leave(kin->families, kin->leaving);
	fold_rcu_call(&kin->head, free_after_grace);
}

struct family *kin_family(const struct kin *kin, unsigned n)
{
	return kin->by[n];
}

struct family *kin_told(const struct kin *kin)
{
	return kin->writers == WRITERS_TRUSTED ? kin->by[0] : kin->by[1];
}

uint64_t kin_writers(const struct kin *kin)
{
	return kin->writers;
}

uint64_t kin_number(const struct kin *kin)
{
	return family_number(kin->by[0]);
}

void kin_tell(const struct kin *kin, uint64_t first, uint64_t pages, struct frame_ref ref)
{
	struct family *told = kin_told(kin);

	for (uint64_t i = 0; told && i < pages; i++, ref.frame++)
		if (kin_has(kin, first + i))
			family_remember(told, first + i, ref);
}

bool kin_share(const struct kin *kin, uint64_t page, struct frame_ref *ret_ref)
{
	for (unsigned n = 0; n < KIN_FAMILIES && kin->by[n]; n++)
		if (family_share(kin->by[n], page, ret_ref))
			return true;
	return false;
}

bool kin_is_exact(struct kin *kin, int fd)
{
	struct source_stamp stamp;
	struct stat st;
	bool exact;

	if (fstat(fd, &st))
		return false;
	source_stamp_of(&st, &stamp);
	pthread_mutex_lock(&kin->proof_lock);
	exact = source_stamp_equal(&stamp, &kin->stamp);
	pthread_mutex_unlock(&kin->proof_lock);
	return exact;
}

void kin_set_proof(struct kin *kin, struct lease *proof)
{
	pthread_mutex_lock(&kin->proof_lock);
	lease_free(kin->proof);
	kin->proof = proof;
	kin->lost = false;
	pthread_mutex_unlock(&kin->proof_lock);
}

bool kin_move_stamp(struct kin *kin, const struct source_stamp *now, struct source_stamp *ret_was)
{
	bool moved;

	pthread_mutex_lock(&kin->proof_lock);
	*ret_was = kin->stamp;
	moved = !source_stamp_equal(ret_was, now) && kin->proof && lease_is_held(kin->proof);
	if (moved)
		kin->stamp = *now;
	pthread_mutex_unlock(&kin->proof_lock);
	return moved;
}

static void look_for_loss_locked(struct kin *kin)
{
	kin->lost = kin->lost || (kin->proof && !lease_is_held(kin->proof));
}

bool kin_is_spoilt(struct kin *kin, int fd)
{
	bool lost;

	pthread_mutex_lock(&kin->proof_lock);
	look_for_loss_locked(kin);
	lost = kin->lost;
	pthread_mutex_unlock(&kin->proof_lock);
	return lost && !kin_is_exact(kin, fd);
}

void kin_drop_proof(struct kin *kin)
{
	pthread_mutex_lock(&kin->proof_lock);
	look_for_loss_locked(kin);
	lease_free(kin->proof);
	kin->proof = NULL;
	pthread_mutex_unlock(&kin->proof_lock);
}

struct source *kin_source(struct kin *kin)
{
	struct source *source = NULL;

	pthread_mutex_lock(&kin->proof_lock);
	if (kin->proof && lease_is_held(kin->proof))
		source = source_get(lease_source(kin->proof));
	pthread_mutex_unlock(&kin->proof_lock);
	return source;
}

bool kin_is_proven(struct kin *kin)
{
	bool proven;

	pthread_mutex_lock(&kin->proof_lock);
	proven = kin->proof && lease_is_held(kin->proof);
	pthread_mutex_unlock(&kin->proof_lock);
	atomic_thread_fence(memory_order_seq_cst);
	return proven;
}

/* How many runs begin at PAGE or before. Runs are ascending and apart from each other. */
static size_t runs_until(const struct kin *kin, uint64_t page)
{
	size_t low = 0;
	size_t high = kin->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (kin->runs[middle].first <= page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_in_run(const struct kin *kin, uint64_t page)
{
	size_t count = runs_until(kin, page);

	return count && page - kin->runs[count - 1].first < kin->runs[count - 1].pages;
}

uint64_t kin_next(const struct kin *kin, uint64_t page)
{
	size_t next = runs_until(kin, page);

	if (is_in_run(kin, page))
		return page;
	return next < kin->count ? kin->runs[next].first : UINT64_MAX;
}

static bool is_cut(const struct kin *kin, uint64_t page)
{
	return atomic_load_explicit(&kin->all_cut, memory_order_acquire) ||
	       cuts_has(kin->cuts, page);
}

bool kin_has(const struct kin *kin, uint64_t page)
{
	return is_in_run(kin, page) && !is_cut(kin, page);
}

void kin_cut(struct kin *kin, uint64_t first, uint64_t last)
{
	uint64_t grown;

	if (!cuts_add(kin->cuts, first, last, &grown))
		atomic_store(&kin->all_cut, true);
	if (grown)
		family_table_count(kin->families, (int64_t)grown);
	/* Before the source changes: see the head of this file. */
	atomic_thread_fence(memory_order_seq_cst);
}

uint64_t kin_next_uncut(const struct kin *kin, uint64_t page, uint64_t *ret_pages)
{
	uint64_t end = 0;
	size_t next;

	if (atomic_load_explicit(&kin->all_cut, memory_order_acquire))
		return UINT64_MAX;
	for (page = kin_next(kin, page); page != UINT64_MAX; page = kin_next(kin, page)) {
		next = runs_until(kin, page) - 1;
		end = kin->runs[next].first + kin->runs[next].pages;
		page = cuts_next(kin->cuts, page, false);
		if (page < end)
			break;
	}
	if (page != UINT64_MAX) {
		uint64_t cut = cuts_next(kin->cuts, page, true);

		*ret_pages = (cut < end ? cut : end) - page;
	}
	return page;
}
