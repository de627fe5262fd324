/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue_copies.c - from which files the copies were made, and the copies' stamps then
 *
 *   objects  class -> struct object_value
 *
 * A copy is right as long as nobody has touched it since, and any touch moves its stamp. The stamp
 * is kept without the device, because on some file systems that is another one after the next boot.
 */
#include "catalogue_internal.h"

#include <string.h>

static int read_object(const MDB_val *key, const MDB_val *value,
		       struct catalogue_object *ret_object)
{
	struct object_value found;

	if (!catalogue_is_valid_object(key, value))
		return MDB_CORRUPTED;
	memcpy(&found, value->mv_data, sizeof(found));
	*ret_object = (struct catalogue_object){
		.class = found.class,
		.writers = found.writers,
		.content = found.content,
		.stamp = {.inode = found.inode,
			  .size = found.size,
			  .mtime = {.tv_sec = found.mtime, .tv_nsec = found.mtime_ns},
			  .ctime = {.tv_sec = found.ctime, .tv_nsec = found.ctime_ns}},
	};
	return 0;
}

errint_t catalogue_object(struct catalogue *catalogue, uint64_t class,
			  struct catalogue_object *ret_object)
{
	MDB_val key = catalogue_value_of(&class, sizeof(class));
	MDB_val value;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return catalogue_error_of(result);
	result = mdb_get(txn, catalogue->objects, &key, &value);
	if (!result)
		result = read_object(&key, &value, ret_object);
	mdb_txn_abort(txn);
	return catalogue_error_of(result);
}

/* In the order of the keys' bytes, which is not the order of the numbers. */
static int next_object(MDB_cursor *cursor, uint64_t after, MDB_val *ret_key, MDB_val *ret_value)
{
	int result;

	if (!after)
		return mdb_cursor_get(cursor, ret_key, ret_value, MDB_FIRST);
	*ret_key = catalogue_value_of(&after, sizeof(after));
	result = mdb_cursor_get(cursor, ret_key, ret_value, MDB_SET_RANGE);
	if (!result && ret_key->mv_size == sizeof(after) &&
	    memcmp(ret_key->mv_data, &after, sizeof(after)) == 0)
		result = mdb_cursor_get(cursor, ret_key, ret_value, MDB_NEXT);
	return result;
}

errint_t catalogue_next_object(struct catalogue *catalogue, uint64_t after,
			       struct catalogue_object *ret_object)
{
	MDB_cursor *cursor;
	MDB_val key;
	MDB_val value;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return catalogue_error_of(result);
	result = mdb_cursor_open(txn, catalogue->objects, &cursor);
	if (!result) {
		result = next_object(cursor, after, &key, &value);
		if (!result)
			result = read_object(&key, &value, ret_object);
		mdb_cursor_close(cursor);
	}
	mdb_txn_abort(txn);
	return catalogue_error_of(result);
}

void catalogue_count_objects(struct catalogue *catalogue, uint64_t *ret_count, uint64_t *ret_bytes)
{
	struct catalogue_object object = {.class = 0};

	*ret_count = 0;
	*ret_bytes = 0;
	while (!catalogue_next_object(catalogue, object.class, &object)) {
		++*ret_count;
		*ret_bytes += (uint64_t)object.stamp.size;
	}
}

errint_t catalogue_put_object(struct catalogue_batch *batch, const struct catalogue_object *object)
{
	const struct source_stamp *stamp = &object->stamp;
	const struct object_value fixed = {
		.class = object->class,
		.writers = object->writers,
		.content = object->content,
		.inode = stamp->inode,
		.size = stamp->size,
		.mtime = stamp->mtime.tv_sec,
		.mtime_ns = stamp->mtime.tv_nsec,
		.ctime = stamp->ctime.tv_sec,
		.ctime_ns = stamp->ctime.tv_nsec,
	};
	MDB_val key = catalogue_value_of(&object->class, sizeof(object->class));
	MDB_val value = catalogue_value_of(&fixed, sizeof(fixed));

	return catalogue_error_of(mdb_put(batch->txn, batch->catalogue->objects, &key, &value, 0));
}

errint_t catalogue_remove_object(struct catalogue_batch *batch, uint64_t class)
{
	MDB_val key = catalogue_value_of(&class, sizeof(class));
	int result = mdb_del(batch->txn, batch->catalogue->objects, &key, NULL);

	return catalogue_error_of(result == MDB_NOTFOUND ? 0 : result);
}
