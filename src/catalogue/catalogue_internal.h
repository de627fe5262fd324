/* SPDX-License-Identifier: Apache-2.0 */
/* catalogue_internal.h - the database behind catalogue.h: for the catalogue*.c files */
#ifndef FOLDFS_CATALOGUE_INTERNAL_H
#define FOLDFS_CATALOGUE_INTERNAL_H

#include "foldfs/catalogue.h"

#include <lmdb.h>

/* The version of the tables' formats. */
#define CATALOGUE_VERSION 6u

struct about {
	uint64_t magic;
	uint64_t version;
	uint64_t last_number; /* the last one given to a class or a family */
	uint8_t secret[CATALOGUE_SECRET_BYTES];
};

struct file_key {
	uint64_t device;
	uint64_t inode;
};

/* The stamp of a file. It repeats the file's key, as a check. */
struct stamp_value {
	struct file_key key;
	int64_t size;
	int64_t mtime;
	int64_t mtime_ns;
	int64_t ctime;
	int64_t ctime_ns;
};

struct file_value {
	struct stamp_value stamp;
	struct catalogue_record record;
	char path[]; /* with its 0 */
};

struct catalogue_part_key {
	struct file_key file;
	uint64_t part;
};

/* The runs follow it, each a struct catalogue_run. The stamp may be a later one than that of the
 * file's record. */
struct runs_value {
	struct stamp_value stamp;
	uint64_t family;
};

/* A member of a class. LMDB orders members by their bytes: those that back trusted files first, and
 * those of one BACKS side by side. */
struct class_value {
	uint64_t backs; /* catalogue_backs() */
	struct file_key file;
};

struct object_value {
	uint64_t class; /* repeats the key, as a check */
	uint64_t writers;
	struct digest content;
	uint64_t inode;
	int64_t size;
	int64_t mtime;
	int64_t mtime_ns;
	int64_t ctime;
	int64_t ctime_ns;
};

/* All constant once open. */
struct catalogue {
	MDB_env *env;
	MDB_dbi about;
	MDB_dbi files;
	MDB_dbi digests;
	MDB_dbi classes;
	MDB_dbi runs;
	MDB_dbi objects;
	int directory; /* locked during open and close */
	int users;     /* open.lock in it: locked for as long as the catalogue is open */
	uint8_t secret[CATALOGUE_SECRET_BYTES];
};

struct catalogue_batch {
	struct catalogue *catalogue;
	MDB_txn *txn;
};

/* ---- catalogue_tables.c ---- */

/* RESULT is an errno, or one of LMDB's own numbers. */
errint_t catalogue_error_of(int result);

static inline MDB_val catalogue_value_of(const void *bytes, size_t size)
{
	return (MDB_val){.mv_size = size, .mv_data = (void *)(uintptr_t)bytes};
}

struct file_key catalogue_key_of(dev_t device, ino_t inode);
struct stamp_value catalogue_stamp_value(const struct source_stamp *stamp);
void catalogue_stamp_of(const struct stamp_value *value, struct source_stamp *ret_stamp);

/* Whether KEY and VALUE, of `files`, have the form that put_file() writes. Their readers rely on
 * all of it. */
bool catalogue_is_valid_file(const MDB_val *key, const MDB_val *value);

/* Likewise for `runs`, and for `objects`. */
bool catalogue_is_valid_runs(const MDB_val *key, const MDB_val *value);
bool catalogue_is_valid_object(const MDB_val *key, const MDB_val *value);

/* The entry of FILE. *ret_path lies in the database and is valid within TXN. LMDB's results. */
int catalogue_find_file(const struct catalogue *catalogue, MDB_txn *txn,
			const struct file_key *file, struct file_value *ret_value,
			const char **ret_path);
/* The entry of the file with STAMP within TXN. LMDB's results; MDB_NOTFOUND: the file is not known,
 * or only under another stamp. */
int catalogue_find_stamped(const struct catalogue *catalogue, MDB_txn *txn,
			   const struct source_stamp *stamp, struct file_value *ret_value);
/* A number that no class and no family has. LMDB's results. */
int catalogue_new_number(struct catalogue_batch *batch, uint64_t *ret_number);
/* Open the database at PATH (a directory, or a file with MDB_NOSUBDIR), which this process does not
 * have open. -errno. */
errint_t catalogue_open_environment(const char *path, uint64_t max_bytes, unsigned flags,
				    MDB_env **ret_env);
/* Open the tables' handles. LMDB's results. */
int catalogue_open_tables(struct catalogue *catalogue, MDB_txn *txn, unsigned flags);

/* The entry of `about`. LMDB's results; MDB_INVALID: it is of another program or another
 * version. */
int catalogue_read_about(const struct catalogue *catalogue, MDB_txn *txn, struct about *ret_about);
int catalogue_write_about(const struct catalogue *catalogue, MDB_txn *txn,
			  const struct about *about);
/* A new entry, without its secret. */
void catalogue_init_about(struct about *ret_about);

/* ---- the other files ---- */

/* Forget the runs of FILE, unless they are under the stamp KEPT; NULL: in any case. LMDB's
 * results. */
int catalogue_remove_runs(struct catalogue_batch *batch, const struct file_key *file,
			  const struct source_stamp *kept);

/* The database is about to change, so it no longer is as it was closed. Any thread. */
void catalogue_unmark(const struct catalogue *catalogue);

/* Rewrite the database in DIRECTORY, which nobody uses, record by record. A child process does
 * that, because LMDB trusts what it reads. -EUCLEAN: the database is damaged, foreign, of another
 * version, or there is no room for the copy; it stays as it was. Other -errno: it could not be
 * tried. */
errint_t catalogue_renew(const char *directory, uint64_t max_bytes);

#endif
