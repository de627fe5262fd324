/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue.c - what is known of whole files between mounts, in LMDB
 *
 * Tables, all numbers in the machine's byte order:
 *
 *   about    "format" -> struct about (magic, version, secret, the last class given out)
 *   files    device, inode -> struct file_value and the path
 *   digests  device, inode -> 64-bit digests of the pages that are not zero
 *   classes  class -> device, inode of each member (sorted: the order of catalogue_member)
 *
 * `files` is keyed without the stamp, so a file that changed replaces what was known of it; the
 * stamp is compared at every look-up. LMDB writes copies of pages and syncs before it switches, so
 * a crash leaves the last committed state; what is checked at the start is damage of other kinds.
 *
 * A read transaction lasts as long as the call that needs it: none is ever left open, which would
 * keep pages from being used again.
 */
#include "foldfs/catalogue.h"

#include <errno.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAGIC   0x666f6c6463617461ull /* foldcata */
#define VERSION 1u
#define TABLES  4
#define READERS 512
/* A check that takes longer than this is taken for a loop in a damaged tree. */
#define CHECK_SECONDS 60

static const char about_key[] = "format";

struct about {
	uint64_t magic;
	uint64_t version;
	uint64_t last_class;
	uint8_t secret[CATALOGUE_SECRET_BYTES];
};

struct file_key {
	uint64_t device;
	uint64_t inode;
};

struct file_value {
	struct file_key key; /* again, as a check */
	int64_t size;
	int64_t mtime;
	int64_t mtime_ns;
	int64_t ctime;
	int64_t ctime_ns;
	struct catalogue_record record;
	char path[]; /* with its 0 */
};

/* All constant once open. */
struct catalogue {
	MDB_env *env;
	MDB_dbi about;
	MDB_dbi files;
	MDB_dbi digests;
	MDB_dbi classes;
	uint8_t secret[CATALOGUE_SECRET_BYTES];
};

struct catalogue_batch {
	struct catalogue *catalogue;
	MDB_txn *txn;
};

/* LMDB's results are errno, or numbers of its own. */
static errint_t error_of(int result)
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

static MDB_val value_of(const void *bytes, size_t size)
{
	return (MDB_val){.mv_size = size, .mv_data = (void *)(uintptr_t)bytes};
}

static MDB_val about_name(void)
{
	return value_of(about_key, sizeof(about_key) - 1);
}

/* ---- opening ---- */

static errint_t open_environment(const char *directory, uint64_t max_bytes, unsigned flags,
				 MDB_env **ret_env)
{
	MDB_env *env;
	int result = mdb_env_create(&env);

	if (result)
		return error_of(result);
	result = mdb_env_set_maxdbs(env, TABLES);
	if (!result)
		result = mdb_env_set_mapsize(env, max_bytes);
	if (!result)
		result = mdb_env_set_maxreaders(env, READERS);
	if (!result)
		result = mdb_env_open(env, directory, flags, 0600);
	if (result) {
		mdb_env_close(env);
		return error_of(result);
	}
	*ret_env = env;
	return 0;
}

static int open_tables(struct catalogue *catalogue, MDB_txn *txn, unsigned flags)
{
	int result = mdb_dbi_open(txn, "about", flags, &catalogue->about);

	if (!result)
		result = mdb_dbi_open(txn, "files", flags, &catalogue->files);
	if (!result)
		result = mdb_dbi_open(txn, "digests", flags, &catalogue->digests);
	if (!result)
		result = mdb_dbi_open(txn, "classes", flags | MDB_DUPSORT | MDB_DUPFIXED,
				      &catalogue->classes);
	return result;
}

static int read_about(const struct catalogue *catalogue, MDB_txn *txn, struct about *ret_about)
{
	MDB_val key = about_name();
	MDB_val value;
	int result = mdb_get(txn, catalogue->about, &key, &value);

	if (result)
		return result;
	if (value.mv_size != sizeof(*ret_about))
		return MDB_INVALID;
	memcpy(ret_about, value.mv_data, sizeof(*ret_about));
	return ret_about->magic == MAGIC && ret_about->version == VERSION ? 0 : MDB_INVALID;
}

static int write_about(const struct catalogue *catalogue, MDB_txn *txn, const struct about *about)
{
	MDB_val key = about_name();
	MDB_val value = value_of(about, sizeof(*about));

	return mdb_put(txn, catalogue->about, &key, &value, 0);
}

/* Make the tables, and the secret, if they are not there. */
static errint_t prepare(struct catalogue *catalogue)
{
	struct about about = {.magic = MAGIC, .version = VERSION};
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, 0, &txn);

	if (result)
		return error_of(result);
	result = open_tables(catalogue, txn, MDB_CREATE);
	if (!result)
		result = read_about(catalogue, txn, &about);
	if (result == MDB_NOTFOUND) {
		result = getrandom(about.secret, sizeof(about.secret), 0) ==
					 (ssize_t)sizeof(about.secret)
				 ? 0
				 : EIO;
		if (!result)
			result = write_about(catalogue, txn, &about);
	}
	if (result) {
		mdb_txn_abort(txn);
		return error_of(result);
	}
	memcpy(catalogue->secret, about.secret, sizeof(about.secret));
	return error_of(mdb_txn_commit(txn));
}

static bool is_valid_file(const MDB_val *key, const MDB_val *value)
{
	const struct file_value *file = value->mv_data;
	size_t path;

	if (key->mv_size != sizeof(struct file_key) || value->mv_size <= sizeof(*file))
		return false;
	path = value->mv_size - sizeof(*file);
	return path <= PATH_MAX && memcmp(key->mv_data, &file->key, sizeof(file->key)) == 0 &&
	       file->path[path - 1] == '\0' && strlen(file->path) == path - 1;
}

/* Every page of every table but the digests' own bytes. */
static int walk(MDB_txn *txn, MDB_dbi table, bool files)
{
	MDB_cursor *cursor;
	MDB_val key;
	MDB_val value;
	int result = mdb_cursor_open(txn, table, &cursor);

	if (result)
		return result;
	do {
		result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
		if (!result && files && !is_valid_file(&key, &value))
			result = MDB_CORRUPTED;
	} while (!result);
	mdb_cursor_close(cursor);
	return result == MDB_NOTFOUND ? 0 : result;
}

/* Whether new pages can still be had. */
static bool is_full(MDB_env *env, MDB_txn *txn)
{
	MDB_envinfo info;
	MDB_stat all;
	MDB_stat unused;

	/* 0: LMDB's own table of pages that are free again. */
	if (mdb_env_info(env, &info) || mdb_env_stat(env, &all) || mdb_stat(txn, 0, &unused))
		return false;
	return (info.me_last_pgno + 1) * all.ms_psize >= info.me_mapsize && !unused.ms_entries;
}

static int check(const char *directory, uint64_t max_bytes)
{
	struct catalogue catalogue;
	struct about about;
	MDB_txn *txn;
	int result;

	if (open_environment(directory, max_bytes, MDB_RDONLY, &catalogue.env))
		return MDB_INVALID;
	result = mdb_txn_begin(catalogue.env, NULL, MDB_RDONLY, &txn);
	if (!result)
		result = open_tables(&catalogue, txn, 0);
	if (!result)
		result = read_about(&catalogue, txn, &about);
	if (!result)
		result = walk(txn, catalogue.files, true);
	if (!result)
		result = walk(txn, catalogue.digests, false);
	if (!result)
		result = walk(txn, catalogue.classes, false);
	if (!result && is_full(catalogue.env, txn))
		result = MDB_MAP_FULL;
	return result;
}

/* Whether the database in DIRECTORY is whole. In a process of its own, for LMDB trusts its file: a
 * damaged one can end the process, or keep it busy for ever. */
static bool is_sound(const char *directory, uint64_t max_bytes)
{
	static const int ends[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
	const struct rlimit no_core = {0};
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
			signal(ends[i], SIG_DFL);
		setrlimit(RLIMIT_CORE, &no_core);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		alarm(CHECK_SECONDS);
		_exit(check(directory, max_bytes) ? 1 : 0);
	}
	/* Without a process for it the check is left out. */
	if (pid < 0)
		return true;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return true;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The database's files get other names, one step aside: what was there before goes. */
static errint_t move_aside(const char *directory)
{
	char data[PATH_MAX];
	char aside[PATH_MAX];
	char lock[PATH_MAX];

	if (snprintf(data, sizeof(data), "%s/data.mdb", directory) >= (int)sizeof(data) ||
	    snprintf(aside, sizeof(aside), "%s/data.mdb.aside", directory) >= (int)sizeof(aside) ||
	    snprintf(lock, sizeof(lock), "%s/lock.mdb", directory) >= (int)sizeof(lock))
		return -ENAMETOOLONG;
	if (rename(data, aside) && errno != ENOENT)
		return -errno;
	if (unlink(lock) && errno != ENOENT)
		return -errno;
	return 0;
}

/* DIRECTORY and what is above it. */
static errint_t make_directory(const char *directory)
{
	char path[PATH_MAX];
	char *slash;

	if (snprintf(path, sizeof(path), "%s", directory) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	for (slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0755) && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

static bool has_database(const char *directory)
{
	char data[PATH_MAX];

	return snprintf(data, sizeof(data), "%s/data.mdb", directory) < (int)sizeof(data) &&
	       access(data, F_OK) == 0;
}

errint_t catalogue_open(const char *directory, uint64_t max_bytes, bool *ret_moved_aside,
			struct catalogue **ret_catalogue)
{
	struct catalogue *catalogue;
	errint_t error = make_directory(directory);
	int dead;

	*ret_moved_aside = false;
	if (!error && has_database(directory) && !is_sound(directory, max_bytes)) {
		error = move_aside(directory);
		*ret_moved_aside = !error;
	}
	if (error)
		return error;
	catalogue = calloc(1, sizeof(*catalogue));
	if (!catalogue)
		return -ENOMEM;
	/* Close-on-exec is LMDB's own. Nothing is lost with a late sync but the last batches. */
	error = open_environment(directory, max_bytes, MDB_NOMETASYNC, &catalogue->env);
	if (!error)
		error = prepare(catalogue);
	if (error) {
		catalogue_close(catalogue);
		return error;
	}
	/* Slots of readers that were killed. */
	(void)mdb_reader_check(catalogue->env, &dead);
	*ret_catalogue = catalogue;
	return 0;
}

void catalogue_close(struct catalogue *catalogue)
{
	if (!catalogue)
		return;
	if (catalogue->env)
		mdb_env_close(catalogue->env);
	free(catalogue);
}

const void *catalogue_secret(const struct catalogue *catalogue)
{
	return catalogue->secret;
}

/* ---- reading ---- */

static struct file_key key_of(dev_t device, ino_t inode)
{
	return (struct file_key){.device = device, .inode = inode};
}

static void stamp_of(const struct file_value *file, struct source_stamp *ret_stamp)
{
	*ret_stamp = (struct source_stamp){
		.device = file->key.device,
		.inode = file->key.inode,
		.size = file->size,
		.mtime = {.tv_sec = file->mtime, .tv_nsec = file->mtime_ns},
		.ctime = {.tv_sec = file->ctime, .tv_nsec = file->ctime_ns},
	};
}

/* *ret_value lies in the database and is valid within TXN; its alignment is LMDB's, of 2. */
static int find_file(const struct catalogue *catalogue, MDB_txn *txn, const struct file_key *file,
		     struct file_value *ret_value, const char **ret_path)
{
	MDB_val key = value_of(file, sizeof(*file));
	MDB_val value;
	int result = mdb_get(txn, catalogue->files, &key, &value);

	if (result)
		return result;
	if (!is_valid_file(&key, &value))
		return MDB_CORRUPTED;
	memcpy(ret_value, value.mv_data, sizeof(*ret_value));
	*ret_path = (const char *)value.mv_data + sizeof(*ret_value);
	return 0;
}

/* The same, if it is known under STAMP. */
static int find_stamped(const struct catalogue *catalogue, MDB_txn *txn,
			const struct source_stamp *stamp, struct file_value *ret_value)
{
	struct file_key key = key_of(stamp->device, stamp->inode);
	struct source_stamp known;
	const char *path;
	int result = find_file(catalogue, txn, &key, ret_value, &path);

	if (result)
		return result;
	stamp_of(ret_value, &known);
	return source_stamp_equal(&known, stamp) ? 0 : MDB_NOTFOUND;
}

errint_t catalogue_find(struct catalogue *catalogue, const struct source_stamp *stamp,
			struct catalogue_record *ret_record)
{
	struct file_value value;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return error_of(result);
	result = find_stamped(catalogue, txn, stamp, &value);
	mdb_txn_abort(txn);
	if (!result)
		*ret_record = value.record;
	return error_of(result);
}

static int find_member(const struct catalogue *catalogue, MDB_txn *txn, uint64_t class, unsigned n,
		       struct file_key *ret_key)
{
	MDB_cursor *cursor;
	MDB_val key = value_of(&class, sizeof(class));
	MDB_val value;
	int result = mdb_cursor_open(txn, catalogue->classes, &cursor);

	if (result)
		return result;
	result = mdb_cursor_get(cursor, &key, &value, MDB_SET);
	while (!result && n--)
		result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT_DUP);
	if (!result && value.mv_size != sizeof(*ret_key))
		result = MDB_CORRUPTED;
	if (!result)
		memcpy(ret_key, value.mv_data, sizeof(*ret_key));
	mdb_cursor_close(cursor);
	return result;
}

errint_t catalogue_member(struct catalogue *catalogue, uint64_t class, unsigned n,
			  struct catalogue_member *ret_member)
{
	struct file_value value;
	struct file_key key;
	const char *path;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return error_of(result);
	result = find_member(catalogue, txn, class, n, &key);
	if (!result)
		result = find_file(catalogue, txn, &key, &value, &path);
	if (!result) {
		stamp_of(&value, &ret_member->stamp);
		memcpy(ret_member->path, path, strlen(path) + 1);
	}
	mdb_txn_abort(txn);
	return error_of(result);
}

errint_t catalogue_digests(struct catalogue *catalogue, const struct source_stamp *stamp,
			   uint64_t **ret_digests, size_t *ret_count)
{
	struct file_key file = key_of(stamp->device, stamp->inode);
	struct file_value found;
	MDB_val key = value_of(&file, sizeof(file));
	MDB_val value;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return error_of(result);
	result = find_stamped(catalogue, txn, stamp, &found);
	if (!result)
		result = mdb_get(txn, catalogue->digests, &key, &value);
	if (!result && value.mv_size % sizeof(uint64_t))
		result = MDB_CORRUPTED;
	if (!result) {
		/* One more, so that none is not taken for no memory. */
		*ret_digests = malloc(value.mv_size + sizeof(uint64_t));
		*ret_count = value.mv_size / sizeof(uint64_t);
		if (*ret_digests)
			memcpy(*ret_digests, value.mv_data, value.mv_size);
		else
			result = ENOMEM;
	}
	mdb_txn_abort(txn);
	return error_of(result);
}

errint_t catalogue_each(struct catalogue *catalogue, catalogue_visit_fn visit, void *context)
{
	struct catalogue_member file;
	struct file_value found;
	MDB_cursor *cursor;
	MDB_val key;
	MDB_val value;
	MDB_txn *txn;
	errint_t error;
	int result = mdb_txn_begin(catalogue->env, NULL, MDB_RDONLY, &txn);

	if (result)
		return error_of(result);
	error = error_of(mdb_cursor_open(txn, catalogue->files, &cursor));
	if (error) {
		mdb_txn_abort(txn);
		return error;
	}
	while (!error) {
		error = error_of(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
		if (!error && !is_valid_file(&key, &value))
			error = -EIO;
		if (error)
			break;
		memcpy(&found, value.mv_data, sizeof(found));
		stamp_of(&found, &file.stamp);
		memcpy(file.path, (char *)value.mv_data + sizeof(found),
		       value.mv_size - sizeof(found));
		error = visit(context, &file, &found.record);
	}
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return error == -ENOENT ? 0 : error;
}

/* ---- changing ---- */

errint_t catalogue_begin(struct catalogue *catalogue, struct catalogue_batch **ret_batch)
{
	struct catalogue_batch *batch = malloc(sizeof(*batch));
	int result;

	if (!batch)
		return -ENOMEM;
	batch->catalogue = catalogue;
	result = mdb_txn_begin(catalogue->env, NULL, 0, &batch->txn);
	if (result) {
		free(batch);
		return error_of(result);
	}
	*ret_batch = batch;
	return 0;
}

/* Take FILE out of the class that its record names. */
static int leave_class(struct catalogue_batch *batch, const struct file_key *file)
{
	const struct catalogue *catalogue = batch->catalogue;
	struct file_value known;
	const char *path;
	MDB_val key;
	MDB_val value = value_of(file, sizeof(*file));
	int result = find_file(catalogue, batch->txn, file, &known, &path);

	if (result || !known.record.class)
		return result == MDB_NOTFOUND ? 0 : result;
	key = value_of(&known.record.class, sizeof(known.record.class));
	result = mdb_del(batch->txn, catalogue->classes, &key, &value);
	return result == MDB_NOTFOUND ? 0 : result;
}

static int put_file(struct catalogue_batch *batch, const struct file_key *file,
		    const struct catalogue_member *member, const struct catalogue_record *record)
{
	const struct source_stamp *stamp = &member->stamp;
	size_t path = strnlen(member->path, sizeof(member->path) - 1) + 1;
	struct file_value fixed = {
		.key = *file,
		.size = stamp->size,
		.mtime = stamp->mtime.tv_sec,
		.mtime_ns = stamp->mtime.tv_nsec,
		.ctime = stamp->ctime.tv_sec,
		.ctime_ns = stamp->ctime.tv_nsec,
		.record = *record,
	};
	MDB_val key = value_of(file, sizeof(*file));
	MDB_val value = {.mv_size = sizeof(fixed) + path};
	int result = mdb_put(batch->txn, batch->catalogue->files, &key, &value, MDB_RESERVE);

	if (result)
		return result;
	memcpy(value.mv_data, &fixed, sizeof(fixed));
	memcpy((char *)value.mv_data + sizeof(fixed), member->path, path - 1);
	((char *)value.mv_data)[sizeof(fixed) + path - 1] = '\0';
	return 0;
}

errint_t catalogue_put(struct catalogue_batch *batch, const struct catalogue_member *file,
		       const struct catalogue_record *record, const uint64_t digests[],
		       size_t count)
{
	const struct catalogue *catalogue = batch->catalogue;
	struct file_key own = key_of(file->stamp.device, file->stamp.inode);
	uint64_t class = record->class;
	MDB_val key = value_of(&own, sizeof(own));
	MDB_val value = value_of(digests, count * sizeof(digests[0]));
	int result = leave_class(batch, &own);

	if (!result)
		result = put_file(batch, &own, file, record);
	if (!result && digests)
		result = mdb_put(batch->txn, catalogue->digests, &key, &value, 0);
	if (!result && class) {
		MDB_val member = value_of(&own, sizeof(own));

		key = value_of(&class, sizeof(class));
		result = mdb_put(batch->txn, catalogue->classes, &key, &member, 0);
	}
	return error_of(result);
}

errint_t catalogue_remove(struct catalogue_batch *batch, dev_t device, ino_t inode)
{
	const struct catalogue *catalogue = batch->catalogue;
	struct file_key own = key_of(device, inode);
	MDB_val key = value_of(&own, sizeof(own));
	int result = leave_class(batch, &own);

	if (!result)
		result = mdb_del(batch->txn, catalogue->files, &key, NULL);
	if (!result || result == MDB_NOTFOUND)
		result = mdb_del(batch->txn, catalogue->digests, &key, NULL);
	return result == MDB_NOTFOUND ? 0 : error_of(result);
}

errint_t catalogue_new_class(struct catalogue_batch *batch, uint64_t *ret_class)
{
	struct about about;
	int result = read_about(batch->catalogue, batch->txn, &about);

	if (!result) {
		*ret_class = ++about.last_class;
		result = write_about(batch->catalogue, batch->txn, &about);
	}
	return error_of(result);
}

errint_t catalogue_commit(struct catalogue_batch *batch)
{
	int result = mdb_txn_commit(batch->txn);

	free(batch);
	return error_of(result);
}

void catalogue_abort(struct catalogue_batch *batch)
{
	mdb_txn_abort(batch->txn);
	free(batch);
}
