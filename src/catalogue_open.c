/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue_open.c - opens the catalogue's database, or begins a new one
 *
 * What is there is checked before it is used, by a process that may crash over it: damage, another
 * program's file and another version are moved aside, and so is a database that has no room left.
 *
 * Openers take turns, by a lock on the directory: one that sees a database which another is just
 * beginning would take it for a damaged one.
 */
#include "foldfs/catalogue_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAGIC   0x666f6c6463617461ull /* foldcata */
#define VERSION 2u
#define TABLES  4
#define READERS 512
/* A check that takes longer than this is taken for a loop in a damaged tree. */
#define CHECK_SECONDS 60

static const char about_key[] = "format";

static MDB_val about_name(void)
{
	return catalogue_value_of(about_key, sizeof(about_key) - 1);
}

static errint_t open_environment(const char *directory, uint64_t max_bytes, unsigned flags,
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
		result = mdb_env_open(env, directory, flags, 0600);
	if (result) {
		mdb_env_close(env);
		return catalogue_error_of(result);
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
	return ret_about->magic == MAGIC && ret_about->version == VERSION ? 0 : MDB_INVALID;
}

int catalogue_write_about(const struct catalogue *catalogue, MDB_txn *txn,
			  const struct about *about)
{
	MDB_val key = about_name();
	MDB_val value = catalogue_value_of(about, sizeof(*about));

	return mdb_put(txn, catalogue->about, &key, &value, 0);
}

/* Make the tables, and the secret, if they are not there. */
static errint_t prepare(struct catalogue *catalogue)
{
	struct about about = {.magic = MAGIC, .version = VERSION};
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, 0, &txn);

	if (result)
		return catalogue_error_of(result);
	result = open_tables(catalogue, txn, MDB_CREATE);
	if (!result)
		result = catalogue_read_about(catalogue, txn, &about);
	if (result == MDB_NOTFOUND) {
		result = getrandom(about.secret, sizeof(about.secret), 0) ==
					 (ssize_t)sizeof(about.secret)
				 ? 0
				 : EIO;
		if (!result)
			result = catalogue_write_about(catalogue, txn, &about);
	}
	if (result) {
		mdb_txn_abort(txn);
		return catalogue_error_of(result);
	}
	memcpy(catalogue->secret, about.secret, sizeof(about.secret));
	return catalogue_error_of(mdb_txn_commit(txn));
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
		if (!result && files && !catalogue_is_valid_file(&key, &value))
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

/* A record of LMDB's table of free pages: how many, then their numbers, the highest first. */
static bool is_valid_free_list(const MDB_val *value, size_t last_page)
{
	size_t previous = last_page + 1;
	size_t count;
	size_t page;

	if (value->mv_size < sizeof(count))
		return false;
	memcpy(&count, value->mv_data, sizeof(count));
	if (count >= value->mv_size / sizeof(page))
		return false;
	for (size_t i = 1; i <= count; i++) {
		memcpy(&page, (const char *)value->mv_data + i * sizeof(page), sizeof(page));
		if (page >= previous || page < 2) /* 0 and 1 are the file's heads */
			return false;
		previous = page;
	}
	return true;
}

static int check_free_pages(MDB_env *env, MDB_txn *txn)
{
	MDB_envinfo info;
	MDB_cursor *cursor;
	MDB_val key;
	MDB_val value;
	int result = mdb_env_info(env, &info);

	if (!result)
		result = mdb_cursor_open(txn, 0, &cursor);
	if (result)
		return result;
	do {
		result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
		if (!result && (key.mv_size != sizeof(size_t) ||
				!is_valid_free_list(&value, info.me_last_pgno)))
			result = MDB_CORRUPTED;
	} while (!result);
	mdb_cursor_close(cursor);
	return result == MDB_NOTFOUND ? 0 : result;
}

/* Whether every page of the file is in a tree or in LMDB's list of free pages. LMDB compares the
 * two when it copies a database; nobody wants the copy. A page that was on both sides would be
 * written over, and LMDB ends the process when it comes upon that. */
static int check_pages(MDB_env *env)
{
	int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);

	return nowhere < 0 ? errno : mdb_env_copyfd2(env, nowhere, MDB_CP_COMPACT);
}

static int check(const char *directory, uint64_t max_bytes)
{
	struct catalogue catalogue;
	struct about about;
	MDB_txn *txn;
	int result;

	if (open_environment(directory, max_bytes, 0, &catalogue.env))
		return MDB_INVALID;
	result = mdb_txn_begin(catalogue.env, NULL, MDB_RDONLY, &txn);
	if (!result)
		result = open_tables(&catalogue, txn, 0);
	if (!result)
		result = catalogue_read_about(&catalogue, txn, &about);
	if (!result)
		result = walk(txn, catalogue.files, true);
	if (!result)
		result = walk(txn, catalogue.digests, false);
	if (!result)
		result = walk(txn, catalogue.classes, false);
	if (!result)
		result = check_free_pages(catalogue.env, txn);
	if (!result && is_full(catalogue.env, txn))
		result = MDB_MAP_FULL;
	if (result)
		return result;
	mdb_txn_abort(txn);
	return check_pages(catalogue.env);
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

/* The directory, open and locked: openers take turns. A descriptor, or -errno. */
static int enter_directory(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	errint_t error;

	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX)) {
		error = -errno;
		if (error != -EINTR) {
			close(fd);
			return error;
		}
	}
	return fd;
}

static errint_t open_locked(const char *directory, uint64_t max_bytes, bool *ret_moved_aside,
			    struct catalogue *catalogue)
{
	errint_t error = 0;
	int dead;

	if (has_database(directory) && !is_sound(directory, max_bytes)) {
		error = move_aside(directory);
		*ret_moved_aside = !error;
	}
	/* Close-on-exec is LMDB's own. Nothing is lost with a late sync but the last batches. */
	if (!error)
		error = open_environment(directory, max_bytes, MDB_NOMETASYNC, &catalogue->env);
	if (!error)
		error = prepare(catalogue);
	/* Slots of readers that were killed. */
	if (!error)
		(void)mdb_reader_check(catalogue->env, &dead);
	return error;
}

errint_t catalogue_open(const char *directory, uint64_t max_bytes, bool *ret_moved_aside,
			struct catalogue **ret_catalogue)
{
	struct catalogue *catalogue;
	errint_t error = make_directory(directory);
	int fd;

	*ret_moved_aside = false;
	if (error)
		return error;
	fd = enter_directory(directory);
	if (fd < 0)
		return fd;
	catalogue = calloc(1, sizeof(*catalogue));
	error = catalogue ? open_locked(directory, max_bytes, ret_moved_aside, catalogue) : -ENOMEM;
	close(fd);
	if (error) {
		catalogue_close(catalogue);
		return error;
	}
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
