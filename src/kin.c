/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kin.c - which pages of one file are those of a family, and still are
 *
 * Constant once made, but for the cuts: one bit for each page up to the end of the last run, set
 * once and for ever. There is room for them from the first one on; without memory for that all is
 * cut. A bit is set before the page's slot gets its new version; a reader looks at
 * the slot first and at the bit after. So who still finds the bit unset has a ticket that the
 * change makes worthless, or had published before the change, which then replaces it.
 */
#include "foldfs/kin.h"

#include "foldfs/file.h"
#include "foldfs/rcu.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define BITS 64u

/* A file of more than 1 TiB has no kin: its bits and its family would take more memory than they
 * may save. */
#define PAGES_MAX (UINT64_C(1) << 28)

struct kin {
	struct rcu_head head;
	_Atomic unsigned references; /* none: nobody gets another */
	/* To adopt from: the trusted one, and that of the file's own writers, if they are others
	 * and may speak at all. A reference to each; constant as all that follows, but the bits. */
	struct family *by[KIN_FAMILIES];
	uint64_t writers;
	struct family_table *families;
	struct source_stamp stamp;
	uint64_t pages; /* to the end of the last run */
	size_t count;
	struct catalogue_run *runs; /* ascending */
	/* See the head of this file. NULL: nothing is cut; made once, by compare-and-swap. */
	_Atomic(_Atomic uint64_t *) cuts;
	atomic_bool all_cut;
};

static int64_t bytes_of(const struct kin *kin)
{
	return (int64_t)(sizeof(*kin) + kin->count * sizeof(kin->runs[0]));
}

static size_t words_of(const struct kin *kin)
{
	return (size_t)((kin->pages + BITS - 1) / BITS);
}

static void kin_free(struct kin *kin)
{
	_Atomic uint64_t *cuts = atomic_load(&kin->cuts);

	if (cuts)
		family_table_count(kin->families, -(int64_t)(words_of(kin) * sizeof(*cuts)));
	free(cuts);
	free(kin->runs);
	free(kin);
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
	kin->families = families;
	kin->writers = writers;
	kin->stamp = *stamp;
	kin->pages = runs[count - 1].first + runs[count - 1].pages;
	kin->count = count;
	kin->runs = malloc(count * sizeof(*runs));
	if (!kin->runs || !get_families(kin, number, pages)) {
		kin_free(kin);
		return NULL;
	}
	memcpy(kin->runs, runs, count * sizeof(*runs));
	family_table_count(families, bytes_of(kin));
	return kin;
}

/* One more reference, if it is not given up already. */
static bool kin_get(struct kin *kin)
{
	unsigned references = atomic_load_explicit(&kin->references, memory_order_relaxed);

	do {
		if (!references)
			return false;
	} while (!atomic_compare_exchange_weak(&kin->references, &references, references + 1));
	return true;
}

struct kin *kin_of(const struct file *file)
{
	struct kin *kin;

	fold_rcu_read_lock();
	kin = file_kin(file);
	if (kin && !kin_get(kin))
		kin = NULL;
	fold_rcu_read_unlock();
	return kin;
}

static void free_after_grace(struct rcu_head *head)
{
	struct kin *kin = caa_container_of(head, struct kin, head);

	fold_rcu_called(head);
	family_table_count(kin->families, -bytes_of(kin));
	put_families(kin);
	kin_free(kin);
}

void kin_put(struct kin *kin)
{
	if (atomic_fetch_sub(&kin->references, 1) == 1)
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

bool kin_has_writers(const struct kin *kin, const struct file *file, int fd)
{
	struct stat st;

	return !fstat(fd, &st) && writers_of(file_view(file), fd, &st) == kin->writers;
}

bool kin_is_exact(const struct kin *kin, int fd)
{
	struct source_stamp stamp;
	struct stat st;

	if (fstat(fd, &st))
		return false;
	source_stamp_of(&st, &stamp);
	return source_stamp_equal(&stamp, &kin->stamp);
}

/* How many runs begin at PAGE or before; runs are ascending and apart. */
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
	_Atomic uint64_t *cuts = atomic_load_explicit(&kin->cuts, memory_order_acquire);

	if (atomic_load_explicit(&kin->all_cut, memory_order_acquire))
		return true;
	return cuts &&
	       atomic_load_explicit(&cuts[page / BITS], memory_order_acquire) >> page % BITS & 1;
}

bool kin_has(const struct kin *kin, uint64_t page)
{
	return is_in_run(kin, page) && !is_cut(kin, page);
}

uint64_t kin_bytes(const struct kin *kin)
{
	bool cut = atomic_load_explicit(&kin->cuts, memory_order_relaxed);

	return (uint64_t)bytes_of(kin) + (cut ? words_of(kin) * sizeof(uint64_t) : 0);
}

/* Room for the cuts, NULL: no memory. */
static _Atomic uint64_t *cuts_of(struct kin *kin)
{
	_Atomic uint64_t *cuts = atomic_load_explicit(&kin->cuts, memory_order_acquire);
	_Atomic uint64_t *made;

	if (cuts)
		return cuts;
	made = calloc(words_of(kin), sizeof(*made));
	if (!made)
		return NULL;
	if (!atomic_compare_exchange_strong(&kin->cuts, &cuts, made)) {
		free(made);
		return cuts;
	}
	family_table_count(kin->families, (int64_t)(words_of(kin) * sizeof(*made)));
	return made;
}

void kin_cut(struct kin *kin, uint64_t first, uint64_t last)
{
	_Atomic uint64_t *cuts;
	uint64_t word;
	uint64_t bits;

	if (first >= kin->pages)
		return;
	cuts = cuts_of(kin);
	if (!cuts) {
		atomic_store(&kin->all_cut, true);
		return;
	}
	if (last >= kin->pages)
		last = kin->pages - 1;
	for (word = first / BITS; word <= last / BITS; word++) {
		bits = UINT64_MAX;
		if (word == first / BITS)
			bits &= UINT64_MAX << first % BITS;
		if (word == last / BITS)
			bits &= UINT64_MAX >> (BITS - 1 - last % BITS);
		if (~atomic_load_explicit(&cuts[word], memory_order_relaxed) & bits)
			atomic_fetch_or(&cuts[word], bits);
	}
}

void kin_learn(struct catalogue *catalogue, struct file *file, int fd)
{
	struct catalogue_run *runs;
	struct source_stamp stamp;
	struct stat st;
	struct kin *kin;
	uint64_t number;
	size_t count;

	if (!catalogue || !file_wants_kin(file) || fstat(fd, &st))
		return;
	source_stamp_of(&st, &stamp);
	if (catalogue_runs(catalogue, &stamp, &number, &runs, &count))
		return;
	kin = kin_new(file_families(file), &stamp, writers_of(file_view(file), fd, &st), number,
		      runs, count);
	free(runs);
	if (kin)
		file_set_kin(file, kin, fd);
}

/* Bits that are set of pages FIRST..FIRST + COUNT - 1, a word at a time. */
static uint64_t count_cuts(_Atomic uint64_t *cuts, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;
	uint64_t set = 0;

	while (first < end) {
		uint64_t bits = atomic_load_explicit(&cuts[first / BITS], memory_order_relaxed);
		uint64_t part = BITS - first % BITS;

		bits >>= first % BITS;
		if (part > end - first) {
			part = end - first;
			bits &= (UINT64_C(1) << part) - 1;
		}
		set += (uint64_t)__builtin_popcountll(bits);
		first += part;
	}
	return set;
}

static uint64_t count_uncut(const struct kin *kin)
{
	_Atomic uint64_t *cuts = atomic_load_explicit(&kin->cuts, memory_order_acquire);
	uint64_t pages = 0;

	if (atomic_load_explicit(&kin->all_cut, memory_order_relaxed))
		return 0;
	for (size_t i = 0; i < kin->count; i++) {
		pages += kin->runs[i].pages;
		if (cuts)
			pages -= count_cuts(cuts, kin->runs[i].first, kin->runs[i].pages);
	}
	return pages;
}

static uint64_t count_known(struct catalogue *catalogue, int fd)
{
	struct catalogue_run *runs;
	struct source_stamp stamp;
	uint64_t pages = 0;
	struct stat st;
	uint64_t number;
	size_t count;

	if (fstat(fd, &st))
		return 0;
	source_stamp_of(&st, &stamp);
	if (catalogue_runs(catalogue, &stamp, &number, &runs, &count))
		return 0;
	for (size_t i = 0; i < count; i++)
		pages += runs[i].pages;
	free(runs);
	return pages;
}

uint64_t kin_count(struct catalogue *catalogue, struct file *file, int fd)
{
	struct kin *kin;
	uint64_t pages;

	kin = file ? kin_of(file) : NULL;
	if (!kin)
		return catalogue ? count_known(catalogue, fd) : 0;
	pages = count_uncut(kin);
	kin_put(kin);
	return pages;
}
