/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue.c - what is known of whole files between mounts, in LMDB
 *
 * catalogue_tables.c describes the tables. LMDB writes copies of pages and syncs before it switches
 * to them, so a crash leaves the last committed state. The check at the start looks for other kinds
 * of damage.
 *
 * A read transaction lasts only as long as the call that needs it. An open one would keep pages
 * from being used again.
 */
#include "catalogue_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

errint_t catalogue_find(struct catalogue *catalogue, const struct source_stamp *stamp,
			struct catalogue_record *ret_record)
{
	struct file_value value;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return catalogue_error_of(result);
	result = catalogue_find_stamped(catalogue, txn, stamp, &value);
	mdb_txn_abort(txn);
	if (!result)
		*ret_record = value.record;
	return catalogue_error_of(result);
}

/* The N-th member at or after FROM, counted from 0. */
static int find_member(const struct catalogue *catalogue, MDB_txn *txn, uint64_t class,
		       const struct class_value *from, unsigned n, struct class_value *ret_found)
{
	MDB_cursor *cursor;
	MDB_val key = catalogue_value_of(&class, sizeof(class));
	MDB_val value = catalogue_value_of(from, sizeof(*from));
	int result = mdb_cursor_open(txn, catalogue->classes, &cursor);

	if (result)
		return result;
	result = mdb_cursor_get(cursor, &key, &value, MDB_GET_BOTH_RANGE);
	while (!result && n--)
		result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT_DUP);
	if (!result && value.mv_size != sizeof(*ret_found))
		result = MDB_CORRUPTED;
	if (!result)
		memcpy(ret_found, value.mv_data, sizeof(*ret_found));
	mdb_cursor_close(cursor);
	return result;
}

/* BACKS NULL: whatever the member may back. */
static errint_t get_member(struct catalogue *catalogue, uint64_t class, const uint64_t *backs,
			   unsigned n, struct catalogue_member *ret_member)
{
	const struct class_value from = {.backs = backs ? *backs : 0};
	struct class_value found;
	struct file_value value;
	const char *path;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return catalogue_error_of(result);
	result = find_member(catalogue, txn, class, &from, n, &found);
	if (!result && backs && found.backs != *backs)
		result = MDB_NOTFOUND;
	if (!result)
		result = catalogue_find_file(catalogue, txn, &found.file, &value, &path);
	if (!result) {
		catalogue_stamp_of(&value.stamp, &ret_member->stamp);
		memcpy(ret_member->path, path, strlen(path) + 1);
	}
	mdb_txn_abort(txn);
	return catalogue_error_of(result);
}

errint_t catalogue_member(struct catalogue *catalogue, uint64_t class, uint64_t backs, unsigned n,
			  struct catalogue_member *ret_member)
{
	return get_member(catalogue, class, &backs, n, ret_member);
}

errint_t catalogue_any_member(struct catalogue *catalogue, uint64_t class, unsigned n,
			      struct catalogue_member *ret_member)
{
	return get_member(catalogue, class, NULL, n, ret_member);
}

static void read_member(const struct file_value *file, const char *path,
			struct catalogue_member *ret_member)
{
	catalogue_stamp_of(&file->stamp, &ret_member->stamp);
	memcpy(ret_member->path, path, strlen(path) + 1);
}

errint_t catalogue_get(struct catalogue *catalogue, dev_t device, ino_t inode,
		       struct catalogue_member *ret_file, struct catalogue_record *ret_record)
{
	struct file_key key = catalogue_key_of(device, inode);
	struct file_value value;
	const char *path;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return catalogue_error_of(result);
	result = catalogue_find_file(catalogue, txn, &key, &value, &path);
	if (!result) {
		read_member(&value, path, ret_file);
		*ret_record = value.record;
	}
	mdb_txn_abort(txn);
	return catalogue_error_of(result);
}

/* The key after AFTER, or the first one. */
static int next_key(MDB_cursor *cursor, const struct file_key *after, MDB_val *ret_key,
		    MDB_val *ret_value)
{
	int result;

	if (!after)
		return mdb_cursor_get(cursor, ret_key, ret_value, MDB_FIRST);
	*ret_key = catalogue_value_of(after, sizeof(*after));
	result = mdb_cursor_get(cursor, ret_key, ret_value, MDB_SET_RANGE);
	if (!result && ret_key->mv_size == sizeof(*after) &&
	    memcmp(ret_key->mv_data, after, sizeof(*after)) == 0)
		result = mdb_cursor_get(cursor, ret_key, ret_value, MDB_NEXT);
	return result;
}

errint_t catalogue_next(struct catalogue *catalogue, const struct source_stamp *after,
			struct catalogue_member *ret_file, struct catalogue_record *ret_record)
{
	struct file_key last =
		after ? catalogue_key_of(after->device, after->inode) : (struct file_key){0};
	struct file_value found;
	MDB_cursor *cursor;
	MDB_val key;
	MDB_val value;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return catalogue_error_of(result);
	result = mdb_cursor_open(txn, catalogue->files, &cursor);
	if (!result) {
		result = next_key(cursor, after ? &last : NULL, &key, &value);
		if (!result && !catalogue_is_valid_file(&key, &value))
			result = MDB_CORRUPTED;
		if (!result) {
			memcpy(&found, value.mv_data, sizeof(found));
			read_member(&found, (const char *)value.mv_data + sizeof(found), ret_file);
			*ret_record = found.record;
		}
		mdb_cursor_close(cursor);
	}
	mdb_txn_abort(txn);
	return catalogue_error_of(result);
}

static struct catalogue_part_key part_key_of(dev_t device, ino_t inode, uint64_t part)
{
	return (struct catalogue_part_key){.file = catalogue_key_of(device, inode), .part = part};
}

errint_t catalogue_digests(struct catalogue *catalogue, const struct source_stamp *stamp,
			   uint64_t part, uint64_t **ret_digests, size_t *ret_count)
{
	struct catalogue_part_key wanted = part_key_of(stamp->device, stamp->inode, part);
	struct file_value found;
	MDB_val key = catalogue_value_of(&wanted, sizeof(wanted));
	MDB_val value;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return catalogue_error_of(result);
	result = catalogue_find_stamped(catalogue, txn, stamp, &found);
	if (!result)
		result = mdb_get(txn, catalogue->digests, &key, &value);
	if (!result && value.mv_size % sizeof(uint64_t))
		result = MDB_CORRUPTED;
	if (!result) {
		/* One element more: malloc(0) may return NULL, which would look like no memory. */
		*ret_digests = malloc(value.mv_size + sizeof(uint64_t));
		*ret_count = value.mv_size / sizeof(uint64_t);
		if (*ret_digests)
			memcpy(*ret_digests, value.mv_data, value.mv_size);
		else
			result = ENOMEM;
	}
	mdb_txn_abort(txn);
	return catalogue_error_of(result);
}

/* ---- changing ---- */

errint_t catalogue_begin(struct catalogue *catalogue, struct catalogue_batch **ret_batch)
{
	struct catalogue_batch *batch = malloc(sizeof(*batch));
	int result;

	if (!batch)
		return -ENOMEM;
	batch->catalogue = catalogue;
	catalogue_unmark(catalogue);
	result = mdb_txn_begin(catalogue->env, NULL, 0, &batch->txn);
	if (result) {
		free(batch);
		return catalogue_error_of(result);
	}
	*ret_batch = batch;
	return 0;
}

/* Take FILE out of the class that its record names. Take it out of its family too, unless its runs
 * are known under the stamp NOW. */
static int leave_others(struct catalogue_batch *batch, const struct file_key *file,
			const struct source_stamp *now)
{
	const struct catalogue *catalogue = batch->catalogue;
	struct file_value known;
	const char *path;
	struct class_value member;
	MDB_val key;
	MDB_val value;
	int result = catalogue_find_file(catalogue, batch->txn, file, &known, &path);

	if (result)
		return result == MDB_NOTFOUND ? 0 : result;
	result = catalogue_remove_runs(batch, file, now);
	if (result || !known.record.class)
		return result;
	member = (struct class_value){.backs = catalogue_backs(&known.record), .file = *file};
	key = catalogue_value_of(&known.record.class, sizeof(known.record.class));
	value = catalogue_value_of(&member, sizeof(member));
	result = mdb_del(batch->txn, catalogue->classes, &key, &value);
	return result == MDB_NOTFOUND ? 0 : result;
}

static int put_file(struct catalogue_batch *batch, const struct file_key *file,
		    const struct catalogue_member *member, const struct catalogue_record *record)
{
	const struct source_stamp *stamp = &member->stamp;
	size_t path = strnlen(member->path, sizeof(member->path) - 1) + 1;
	struct file_value fixed = {
		.stamp = catalogue_stamp_value(stamp),
		.record = *record,
	};
	MDB_val key = catalogue_value_of(file, sizeof(*file));
	MDB_val value = {.mv_size = sizeof(fixed) + path};
	int result = mdb_put(batch->txn, batch->catalogue->files, &key, &value, MDB_RESERVE);

	if (result)
		return result;
	memcpy(value.mv_data, &fixed, sizeof(fixed));
	memcpy((char *)value.mv_data + sizeof(fixed), member->path, path - 1);
	((char *)value.mv_data)[sizeof(fixed) + path - 1] = '\0';
	return 0;
}

static int join_class(struct catalogue_batch *batch, const struct file_key *file,
		      const struct catalogue_record *record)
{
	const struct class_value member = {.backs = catalogue_backs(record), .file = *file};
	uint64_t class = record->class;
	MDB_val key = catalogue_value_of(&class, sizeof(class));
	MDB_val value = catalogue_value_of(&member, sizeof(member));

	return class ? mdb_put(batch->txn, batch->catalogue->classes, &key, &value, 0) : 0;
}

errint_t catalogue_put(struct catalogue_batch *batch, const struct catalogue_member *file,
		       const struct catalogue_record *record, const uint64_t digests[],
		       size_t count)
{
	struct file_key own = catalogue_key_of(file->stamp.device, file->stamp.inode);
	int result = leave_others(batch, &own, &file->stamp);

	if (!result)
		result = put_file(batch, &own, file, record);
	if (!result)
		result = join_class(batch, &own, record);
	if (result || !digests)
		return catalogue_error_of(result);
	return catalogue_put_digests(batch, file->stamp.device, file->stamp.inode, 0, digests,
				     count);
}

errint_t catalogue_put_digests(struct catalogue_batch *batch, dev_t device, ino_t inode,
			       uint64_t part, const uint64_t digests[], size_t count)
{
	struct catalogue_part_key own = part_key_of(device, inode, part);
	MDB_val key = catalogue_value_of(&own, sizeof(own));
	MDB_val value = catalogue_value_of(digests, count * sizeof(digests[0]));

	return catalogue_error_of(mdb_put(batch->txn, batch->catalogue->digests, &key, &value, 0));
}

/* The entry with STAMP, as a copy: data in the database moves when the database is written to. */
static int find_entry(struct catalogue_batch *batch, const struct source_stamp *stamp,
		      struct catalogue_member *ret_file, struct catalogue_record *ret_record)
{
	struct file_key own = catalogue_key_of(stamp->device, stamp->inode);
	struct file_value value;
	const char *path;
	int result = catalogue_find_file(batch->catalogue, batch->txn, &own, &value, &path);

	if (result)
		return result;
	read_member(&value, path, ret_file);
	*ret_record = value.record;
	return source_stamp_equal(&ret_file->stamp, stamp) ? 0 : MDB_NOTFOUND;
}

errint_t catalogue_amend(struct catalogue_batch *batch, const struct source_stamp *stamp,
			 catalogue_amend_fn amend, const void *context)
{
	struct catalogue_member file;
	struct catalogue_record record;
	int result = find_entry(batch, stamp, &file, &record);

	if (result)
		return catalogue_error_of(result);
	amend(context, &record);
	return catalogue_put(batch, &file, &record, NULL, 0);
}

errint_t catalogue_rename(struct catalogue_batch *batch, const struct source_stamp *stamp,
			  const char *path, bool reachable)
{
	struct catalogue_member file;
	struct catalogue_record record;
	size_t length = strlen(path) + 1;
	int result = find_entry(batch, stamp, &file, &record);

	if (result)
		return catalogue_error_of(result);
	if (length > sizeof(file.path))
		return -ENAMETOOLONG;
	memcpy(file.path, path, length);
	record.reachable = reachable;
	return catalogue_put(batch, &file, &record, NULL, 0);
}

/* The parts of a file's digests are numbered from 0 without a gap; the sketch comes last. */
static int remove_digests(struct catalogue_batch *batch, dev_t device, ino_t inode)
{
	struct catalogue_part_key own = part_key_of(device, inode, 0);
	MDB_val key = catalogue_value_of(&own, sizeof(own));
	int result;

	do {
		result = mdb_del(batch->txn, batch->catalogue->digests, &key, NULL);
		own.part++;
	} while (!result);
	own.part = CATALOGUE_SKETCH;
	if (result == MDB_NOTFOUND)
		result = mdb_del(batch->txn, batch->catalogue->digests, &key, NULL);
	return result == MDB_NOTFOUND ? 0 : result;
}

errint_t catalogue_remove(struct catalogue_batch *batch, dev_t device, ino_t inode)
{
	const struct catalogue *catalogue = batch->catalogue;
	struct file_key own = catalogue_key_of(device, inode);
	MDB_val key = catalogue_value_of(&own, sizeof(own));
	int result = leave_others(batch, &own, NULL);

	if (!result)
		result = mdb_del(batch->txn, catalogue->files, &key, NULL);
	if (!result || result == MDB_NOTFOUND)
		result = remove_digests(batch, device, inode);
	return catalogue_error_of(result);
}

errint_t catalogue_remove_stamped(struct catalogue_batch *batch, const struct source_stamp *stamp)
{
	struct file_value known;
	int result = catalogue_find_stamped(batch->catalogue, batch->txn, stamp, &known);

	if (result)
		return catalogue_error_of(result);
	return catalogue_remove(batch, stamp->device, stamp->inode);
}

errint_t catalogue_new_class(struct catalogue_batch *batch, uint64_t *ret_class)
{
	return catalogue_error_of(catalogue_new_number(batch, ret_class));
}

errint_t catalogue_commit(struct catalogue_batch *batch)
{
	int result = mdb_txn_commit(batch->txn);

	free(batch);
	return catalogue_error_of(result);
}

void catalogue_abort(struct catalogue_batch *batch)
{
	mdb_txn_abort(batch->txn);
	free(batch);
}
