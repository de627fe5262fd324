/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue_tables.c - the tables of the database: their formats, and which of their content is
 * damage
 *
 * All numbers are in the machine's byte order:
 *
 *   about    "format" -> struct about (magic, version, secret, the last number given out)
 *   files    device, inode -> struct file_value and the path
 *   digests  device, inode, part -> 64-bit digests of CATALOGUE_PART pages that are not zero; or
 *            the sketch
 *   classes  class -> struct class_value of each member, sorted by its bytes
 *   runs     device, inode -> struct runs_value and its runs: catalogue_runs.c
 *   objects  class -> struct object_value: catalogue_copies.c
 *
 * `files` has keys without the stamp, so a file that changed replaces what was known of it. Every
 * look-up compares the stamp.
 */
#include "catalogue_internal.h"

#include <errno.h>
#include <string.h>

#define MAGIC   0x666f6c6463617461ull /* foldcata */
#define TABLES  6
#define READERS 512

static const char about_key[] = "format";

errint_t catalogue_error_of(int result)
{
	switch (result) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
		return -ENOSPC;
	case MDB_READERS_FULL:
	case MDB_BAD_RSLOT:
		return -EAGAIN;
	default:
		return result > 0 ? -result : -EIO;
	}
}

errint_t catalogue_open_environment(const char *path, uint64_t max_bytes, unsigned flags,
				    MDB_env **ret_env)
{
	MDB_env *env;
	int result = mdb_env_create(&env);

	if (result)
		return catalogue_error_of(result);
	result = mdb_env_set_maxdbs(env, TABLES);
	if (!result)
		result = mdb_env_set_mapsize(env, max_bytes);
	if (!result)
		result = mdb_env_set_maxreaders(env, READERS);
	if (!result)
		result = mdb_env_open(env, path, flags, 0600);
	if (result) {
		mdb_env_close(env);
		return catalogue_error_of(result);
	}
	*ret_env = env;
	return 0;
}

int catalogue_open_tables(struct catalogue *catalogue, MDB_txn *txn, unsigned flags)
{
	int result = mdb_dbi_open(txn, "about", flags, &catalogue->about);

	if (!result)
		result = mdb_dbi_open(txn, "files", flags, &catalogue->files);
	if (!result)
		result = mdb_dbi_open(txn, "digests", flags, &catalogue->digests);
	if (!result)
		result = mdb_dbi_open(txn, "classes", flags | MDB_DUPSORT | MDB_DUPFIXED,
				      &catalogue->classes);
	if (!result)
		result = mdb_dbi_open(txn, "runs", flags, &catalogue->runs);
	if (!result)
		result = mdb_dbi_open(txn, "objects", flags, &catalogue->objects);
	return result;
}

static MDB_val about_name(void)
{
	return catalogue_value_of(about_key, sizeof(about_key) - 1);
}

void catalogue_init_about(struct about *ret_about)
{
	*ret_about = (struct about){.magic = MAGIC, .version = CATALOGUE_VERSION};
}

int catalogue_read_about(const struct catalogue *catalogue, MDB_txn *txn, struct about *ret_about)
{
	MDB_val key = about_name();
	MDB_val value;
	int result = mdb_get(txn, catalogue->about, &key, &value);

	if (result)
		return result;
	if (value.mv_size != sizeof(*ret_about))
		return MDB_INVALID;
	memcpy(ret_about, value.mv_data, sizeof(*ret_about));
	return ret_about->magic == MAGIC && ret_about->version == CATALOGUE_VERSION ? 0
										    : MDB_INVALID;
}

int catalogue_write_about(const struct catalogue *catalogue, MDB_txn *txn,
			  const struct about *about)
{
	MDB_val key = about_name();
	MDB_val value = catalogue_value_of(about, sizeof(*about));

	return mdb_put(txn, catalogue->about, &key, &value, 0);
}

int catalogue_new_number(struct catalogue_batch *batch, uint64_t *ret_number)
{
	struct about about;
	int result = catalogue_read_about(batch->catalogue, batch->txn, &about);

	if (!result) {
		*ret_number = ++about.last_number;
		result = catalogue_write_about(batch->catalogue, batch->txn, &about);
	}
	return result;
}

struct file_key catalogue_key_of(dev_t device, ino_t inode)
{
	return (struct file_key){.device = device, .inode = inode};
}

struct stamp_value catalogue_stamp_value(const struct source_stamp *stamp)
{
	return (struct stamp_value){
		.key = catalogue_key_of(stamp->device, stamp->inode),
		.size = stamp->size,
		.mtime = stamp->mtime.tv_sec,
		.mtime_ns = stamp->mtime.tv_nsec,
		.ctime = stamp->ctime.tv_sec,
		.ctime_ns = stamp->ctime.tv_nsec,
	};
}

void catalogue_stamp_of(const struct stamp_value *value, struct source_stamp *ret_stamp)
{
	*ret_stamp = (struct source_stamp){
		.device = value->key.device,
		.inode = value->key.inode,
		.size = value->size,
		.mtime = {.tv_sec = value->mtime, .tv_nsec = value->mtime_ns},
		.ctime = {.tv_sec = value->ctime, .tv_nsec = value->ctime_ns},
	};
}

bool catalogue_is_valid_file(const MDB_val *key, const MDB_val *value)
{
	/* memcmp and memcpy only: LMDB aligns values to 2 bytes. */
	const char *bytes = value->mv_data;
	const char *path = bytes + sizeof(struct file_value);
	size_t size;

	if (key->mv_size != sizeof(struct file_key) || value->mv_size <= sizeof(struct file_value))
		return false;
	size = value->mv_size - sizeof(struct file_value);
	return size <= PATH_MAX &&
	       memcmp(key->mv_data, bytes + offsetof(struct file_value, stamp.key), key->mv_size) ==
		       0 &&
	       path[size - 1] == '\0' && strlen(path) == size - 1;
}

int catalogue_find_file(const struct catalogue *catalogue, MDB_txn *txn,
			const struct file_key *file, struct file_value *ret_value,
			const char **ret_path)
{
	MDB_val key = catalogue_value_of(file, sizeof(*file));
	MDB_val value;
	int result = mdb_get(txn, catalogue->files, &key, &value);

	if (result)
		return result;
	if (!catalogue_is_valid_file(&key, &value))
		return MDB_CORRUPTED;
	memcpy(ret_value, value.mv_data, sizeof(*ret_value));
	*ret_path = (const char *)value.mv_data + sizeof(*ret_value);
	return 0;
}

int catalogue_find_stamped(const struct catalogue *catalogue, MDB_txn *txn,
			   const struct source_stamp *stamp, struct file_value *ret_value)
{
	struct file_key key = catalogue_key_of(stamp->device, stamp->inode);
	struct source_stamp known;
	const char *path;
	int result = catalogue_find_file(catalogue, txn, &key, ret_value, &path);

	if (result)
		return result;
	catalogue_stamp_of(&ret_value->stamp, &known);
	return source_stamp_equal(&known, stamp) ? 0 : MDB_NOTFOUND;
}

bool catalogue_is_valid_runs(const MDB_val *key, const MDB_val *value)
{
	const char *bytes = value->mv_data;
	struct catalogue_run run;
	uint64_t end = 0;

	/* memcmp and memcpy only: LMDB aligns values to 2 bytes. */
	if (key->mv_size != sizeof(struct file_key) ||
	    value->mv_size <= sizeof(struct runs_value) ||
	    (value->mv_size - sizeof(struct runs_value)) % sizeof(run) ||
	    memcmp(key->mv_data, bytes + offsetof(struct runs_value, stamp.key), key->mv_size))
		return false;
	for (size_t at = sizeof(struct runs_value); at < value->mv_size; at += sizeof(run)) {
		memcpy(&run, bytes + at, sizeof(run));
		/* With a gap between them: two runs that touch would be one. */
		if (!run.pages || run.pages > UINT64_MAX - run.first ||
		    (end ? run.first <= end : false))
			return false;
		end = run.first + run.pages;
	}
	return true;
}

bool catalogue_is_valid_object(const MDB_val *key, const MDB_val *value)
{
	return key->mv_size == sizeof(uint64_t) && value->mv_size == sizeof(struct object_value) &&
	       memcmp(key->mv_data, value->mv_data, key->mv_size) == 0;
}
