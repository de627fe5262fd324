/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue_objects.c - how the copies looked when they were made
 *
 *   objects  class -> struct object_value
 *
 * A copy is right as long as nobody has touched it since, and any touch moves its stamp. The device
 * is left out: of some file systems it is another one after the next boot.
 */
#include "foldfs/catalogue_internal.h"

#include <string.h>

bool catalogue_is_valid_object(const MDB_val *key, const MDB_val *value)
{
	return key->mv_size == sizeof(uint64_t) && value->mv_size == sizeof(struct object_value) &&
	       memcmp(key->mv_data, value->mv_data, key->mv_size) == 0;
}

errint_t catalogue_object(struct catalogue *catalogue, uint64_t class,
			  struct source_stamp *ret_stamp)
{
	struct object_value found;
	MDB_val key = catalogue_value_of(&class, sizeof(class));
	MDB_val value;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return catalogue_error_of(result);
	result = mdb_get(txn, catalogue->objects, &key, &value);
	if (!result && !catalogue_is_valid_object(&key, &value))
		result = MDB_CORRUPTED;
	if (!result)
		memcpy(&found, value.mv_data, sizeof(found));
	mdb_txn_abort(txn);
	if (!result)
		*ret_stamp = (struct source_stamp){
			.inode = found.inode,
			.size = found.size,
			.mtime = {.tv_sec = found.mtime, .tv_nsec = found.mtime_ns},
			.ctime = {.tv_sec = found.ctime, .tv_nsec = found.ctime_ns},
		};
	return catalogue_error_of(result);
}

errint_t catalogue_put_object(struct catalogue_batch *batch, uint64_t class,
			      const struct source_stamp *stamp)
{
	const struct object_value object = {
		.class = class,
		.inode = stamp->inode,
		.size = stamp->size,
		.mtime = stamp->mtime.tv_sec,
		.mtime_ns = stamp->mtime.tv_nsec,
		.ctime = stamp->ctime.tv_sec,
		.ctime_ns = stamp->ctime.tv_nsec,
	};
	MDB_val key = catalogue_value_of(&class, sizeof(class));
	MDB_val value = catalogue_value_of(&object, sizeof(object));

	return catalogue_error_of(mdb_put(batch->txn, batch->catalogue->objects, &key, &value, 0));
}

errint_t catalogue_remove_object(struct catalogue_batch *batch, uint64_t class)
{
	MDB_val key = catalogue_value_of(&class, sizeof(class));
	int result = mdb_del(batch->txn, batch->catalogue->objects, &key, NULL);

	return catalogue_error_of(result == MDB_NOTFOUND ? 0 : result);
}
