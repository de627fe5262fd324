/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue_runs.c - which pages of a file are those of its family
 *
 *   runs     device, inode -> struct runs_value and the runs
 *
 * An entry has a stamp of its own. That is the stamp of the file's record, or a later one. With a
 * later one, a caller that knew all changes in between kept the runs that were left. An entry goes
 * with the record, or when the record gets another stamp than the entry's. What an entry says is
 * never corrected. A family's number means one content for ever, so a member may join or leave
 * without any change to other entries.
 */
#include "catalogue_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* An entry, copied out of the database. */
struct known_runs {
	uint64_t family;
	size_t count;
	struct catalogue_run *runs; /* NULL: nothing is known */
};

/* The entry of the file with STAMP. *ret_value lies in the database. LMDB's results. */
static int find_runs(const struct catalogue *catalogue, MDB_txn *txn,
		     const struct source_stamp *stamp, struct runs_value *ret_fixed,
		     MDB_val *ret_value)
{
	struct file_key file = catalogue_key_of(stamp->device, stamp->inode);
	struct source_stamp known;
	MDB_val key = catalogue_value_of(&file, sizeof(file));
	int result = mdb_get(txn, catalogue->runs, &key, ret_value);

	if (result)
		return result;
	if (!catalogue_is_valid_runs(&key, ret_value))
		return MDB_CORRUPTED;
	memcpy(ret_fixed, ret_value->mv_data, sizeof(*ret_fixed));
	catalogue_stamp_of(&ret_fixed->stamp, &known);
	return source_stamp_equal(&known, stamp) ? 0 : MDB_NOTFOUND;
}

/* The runs that are known under STAMP, checked against the file's number of pages. LMDB's
 * results. */
static int read_runs(const struct catalogue *catalogue, MDB_txn *txn,
		     const struct source_stamp *stamp, struct known_runs *ret_known)
{
	const struct catalogue_run *last;
	struct runs_value fixed;
	MDB_val value;
	int result = find_runs(catalogue, txn, stamp, &fixed, &value);

	if (result)
		return result;
	ret_known->family = fixed.family;
	ret_known->count = (value.mv_size - sizeof(fixed)) / sizeof(ret_known->runs[0]);
	ret_known->runs = malloc(value.mv_size - sizeof(fixed));
	if (!ret_known->runs)
		return ENOMEM;
	memcpy(ret_known->runs, (const char *)value.mv_data + sizeof(fixed),
	       value.mv_size - sizeof(fixed));
	last = &ret_known->runs[ret_known->count - 1];
	if (fixed.family && last->first + last->pages <= fold_pages_in(0, (uint64_t)stamp->size))
		return 0;
	free(ret_known->runs);
	ret_known->runs = NULL;
	return MDB_CORRUPTED;
}

errint_t catalogue_runs(struct catalogue *catalogue, const struct source_stamp *stamp,
			uint64_t *ret_family, struct catalogue_run **ret_runs, size_t *ret_count)
{
	struct known_runs known = {0};
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return catalogue_error_of(result);
	result = read_runs(catalogue, txn, stamp, &known);
	mdb_txn_abort(txn);
	if (!result) {
		*ret_family = known.family;
		*ret_runs = known.runs;
		*ret_count = known.count;
	}
	return catalogue_error_of(result);
}

int catalogue_remove_runs(struct catalogue_batch *batch, const struct file_key *file,
			  const struct source_stamp *kept)
{
	MDB_val key = catalogue_value_of(file, sizeof(*file));
	struct runs_value fixed;
	MDB_val value;
	int result;

	if (kept && !find_runs(batch->catalogue, batch->txn, kept, &fixed, &value))
		return 0;
	result = mdb_del(batch->txn, batch->catalogue->runs, &key, NULL);
	return result == MDB_NOTFOUND ? 0 : result;
}

static int write_runs(struct catalogue_batch *batch, const struct source_stamp *stamp,
		      const struct known_runs *known)
{
	struct runs_value fixed = {
		.stamp = catalogue_stamp_value(stamp),
		.family = known->family,
	};
	size_t bytes = known->count * sizeof(known->runs[0]);
	MDB_val key = catalogue_value_of(&fixed.stamp.key, sizeof(fixed.stamp.key));
	MDB_val value = {.mv_size = sizeof(fixed) + bytes};
	int result;

	if (!known->count)
		return catalogue_remove_runs(batch, &fixed.stamp.key, NULL);
	result = mdb_put(batch->txn, batch->catalogue->runs, &key, &value, MDB_RESERVE);
	if (result)
		return result;
	memcpy(value.mv_data, &fixed, sizeof(fixed));
	memcpy((char *)value.mv_data + sizeof(fixed), known->runs, bytes);
	return 0;
}

/* The file with STAMP founds a family: all its pages are those of the family. */
static int found(struct catalogue_batch *batch, const struct source_stamp *stamp,
		 struct known_runs *ret_known)
{
	struct file_value file;
	int result = catalogue_find_stamped(batch->catalogue, batch->txn, stamp, &file);

	if (result)
		return result;
	ret_known->runs = malloc(sizeof(ret_known->runs[0]));
	if (!ret_known->runs)
		return ENOMEM;
	ret_known->count = 1;
	ret_known->runs[0] =
		(struct catalogue_run){.pages = fold_pages_in(0, (uint64_t)stamp->size)};
	result = catalogue_new_number(batch, &ret_known->family);
	return result ? result : write_runs(batch, stamp, ret_known);
}

/* Reduce KNOWN's runs to what they have in common with RUNS, COUNT of them. LMDB's results. */
static int intersect(struct known_runs *known, const struct catalogue_run runs[], size_t count)
{
	/* Each run of the result ends where a run of one of the two lists ends. */
	struct catalogue_run *common = malloc((known->count + count) * sizeof(*common) + 1);
	size_t used = 0;
	size_t i = 0;
	size_t j = 0;

	if (!common)
		return ENOMEM;
	while (i < known->count && j < count) {
		const struct catalogue_run *a = &known->runs[i];
		const struct catalogue_run *b = &runs[j];
		uint64_t first = a->first > b->first ? a->first : b->first;
		uint64_t end_a = a->first + a->pages;
		uint64_t end_b = b->first + b->pages;
		uint64_t end = end_a < end_b ? end_a : end_b;

		if (first < end)
			common[used++] = (struct catalogue_run){first, end - first};
		if (end_a <= end_b)
			i++;
		else
			j++;
	}
	free(known->runs);
	known->runs = common;
	known->count = used;
	return 0;
}

errint_t catalogue_put_runs(struct catalogue_batch *batch, const struct source_stamp *stamp,
			    const struct source_stamp *of, const struct catalogue_run runs[],
			    size_t count)
{
	struct known_runs known = {0};
	struct file_value file;
	int result = catalogue_find_stamped(batch->catalogue, batch->txn, stamp, &file);

	if (result)
		return catalogue_error_of(result);
	result = read_runs(batch->catalogue, batch->txn, of, &known);
	if (result == MDB_NOTFOUND)
		result = found(batch, of, &known);
	if (!result && !source_stamp_equal(stamp, of)) {
		result = intersect(&known, runs, count);
		if (!result)
			result = write_runs(batch, stamp, &known);
	}
	free(known.runs);
	return catalogue_error_of(result);
}

errint_t catalogue_keep_runs(struct catalogue_batch *batch, const struct source_stamp *was,
			     const struct source_stamp *stamp, const struct catalogue_run runs[],
			     size_t count)
{
	struct known_runs kept = {.count = count, .runs = (void *)(uintptr_t)runs};
	struct runs_value fixed;
	MDB_val value;
	int result = find_runs(batch->catalogue, batch->txn, was, &fixed, &value);

	if (!result) {
		kept.family = fixed.family;
		result = write_runs(batch, stamp, &kept);
	}
	return catalogue_error_of(result);
}
