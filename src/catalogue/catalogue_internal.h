/* SPDX-License-Identifier: Apache-2.0 */
/* catalogue_internal.h - the database behind catalogue.h: for the catalogue*.c files */
#ifndef FOLDFS_CATALOGUE_INTERNAL_H
#define FOLDFS_CATALOGUE_INTERNAL_H

#include "foldfs/catalogue.h"

#include <lmdb.h>

/* Of the tables' formats. */
#define CATALOGUE_VERSION 6u

struct about {
	uint64_t magic;
	uint64_t version;
	uint64_t last_number; /* given to a class or a family */
	uint8_t secret[CATALOGUE_SECRET_BYTES];
};

struct file_key {
	uint64_t device;
	uint64_t inode;
};

/* The stamp of a file, whose key is in it again, as a check. */
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

/* Followed by the runs, each a struct catalogue_run. The stamp may be a later one than that of the
 * file's record. */
struct runs_value {
	struct stamp_value stamp;
	uint64_t family;
};

/* A member of a class. LMDB orders them by their bytes: those that back trusted files first, and
 * those of one BACKS side by side. */
struct class_value {
	uint64_t backs; /* catalogue_backs() */
	struct file_key file;
};

struct object_value {
	uint64_t class; /* again, as a check */
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
	int directory; /* locked by who opens or closes */
	int users;     /* open.lock in it: a lock for as long as it is open */
	uint8_t secret[CATALOGUE_SECRET_BYTES];
};

struct catalogue_batch {
	struct catalogue *catalogue;
	MDB_txn *txn;
};

/* ---- catalogue_tables.c ---- */

/* LMDB's results are errno, or numbers of its own. */
errint_t catalogue_error_of(int result);

static inline MDB_val catalogue_value_of(const void *bytes, size_t size)
{
	return (MDB_val){.mv_size = size, .mv_data = (void *)(uintptr_t)bytes};
}

struct file_key catalogue_key_of(dev_t device, ino_t inode);
struct stamp_value catalogue_stamp_value(const struct source_stamp *stamp);
void catalogue_stamp_of(const struct stamp_value *value, struct source_stamp *ret_stamp);

/* Whether KEY and VALUE, of `files`, are what put_file() writes: all their reader relies on. */
bool catalogue_is_valid_file(const MDB_val *key, const MDB_val *value);

/* The same of `runs`, and of `objects`. */
bool catalogue_is_valid_runs(const MDB_val *key, const MDB_val *value);
bool catalogue_is_valid_object(const MDB_val *key, const MDB_val *value);

/* The entry of FILE. *ret_path lies in the database and is valid within TXN. LMDB's results. */
int catalogue_find_file(const struct catalogue *catalogue, MDB_txn *txn,
			const struct file_key *file, struct file_value *ret_value,
			const char **ret_path);
/* The entry of the file with STAMP within TXN. LMDB's results; MDB_NOTFOUND: it is not known, or
 * under another stamp. */
int catalogue_find_stamped(const struct catalogue *catalogue, MDB_txn *txn,
			   const struct source_stamp *stamp, struct file_value *ret_value);
/* A number that no class and no family has. LMDB's results. */
int catalogue_new_number(struct catalogue_batch *batch, uint64_t *ret_number);
/* The database at PATH (a directory, or a file with MDB_NOSUBDIR), not opened before. -errno. */
errint_t catalogue_open_environment(const char *path, uint64_t max_bytes, unsigned flags,
				    MDB_env **ret_env);
/* The tables' handles. LMDB's results. */
int catalogue_open_tables(struct catalogue *catalogue, MDB_txn *txn, unsigned flags);

/* The entry of `about`. LMDB's results; MDB_INVALID: another program's, or another version's. */
int catalogue_read_about(const struct catalogue *catalogue, MDB_txn *txn, struct about *ret_about);
int catalogue_write_about(const struct catalogue *catalogue, MDB_txn *txn,
			  const struct about *about);
/* A new one, without its secret. */
void catalogue_init_about(struct about *ret_about);

/* ---- the other files ---- */

/* What runs are known of FILE is forgotten, unless it is under the stamp KEPT; NULL: in any case.
 * LMDB's results. */
int catalogue_remove_runs(struct catalogue_batch *batch, const struct file_key *file,
			  const struct source_stamp *kept);

/* The database will change: it is not as it was closed. Any thread. */
void catalogue_unmark(const struct catalogue *catalogue);

/* Write the database in DIRECTORY, which nobody uses, anew, record by record. In a process of its
 * own, for LMDB trusts what it reads. -EUCLEAN: it is damaged, foreign, of another version, or the
 * copy has no room; it is as it was then. Other -errno: it could not be tried. */
errint_t catalogue_renew(const char *directory, uint64_t max_bytes);

#endif
