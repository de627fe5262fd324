/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue_open.c - opens the catalogue's database, or begins a new one
 *
 * LMDB trusts its file: damage may end the process that reads it, or the one that writes it next
 * week. So a database is used as it is in two cases only:
 *
 * - It is as its last user left it when it was closed in order. The file `clean` says so: it has
 *   the size, times and inode number of data.mdb after the last sync.
 * - Another process uses it at this moment; that process has made sure.
 *
 * Every other database is rewritten first (catalogue_renew.c). If that cannot be done, it is moved
 * aside: damage, another program's file, another version. A database that has no room left is moved
 * aside too.
 *
 * Openers and closers take turns, by a lock on the directory. Each user has a shared lock on the
 * file `open.lock`; a user that can lock it exclusively is the only one. The lock belongs to the
 * open file description, so it is given back explicitly: forked child processes have the descriptor
 * too.
 */
#include "catalogue_internal.h"

#include "foldfs/proc_fd.h"
#include "foldfs/trusted_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* Room for the content of the file `clean`. */
#define MARK_BYTES 192

/* Make the tables and the secret, if they are not there. */
static errint_t prepare(struct catalogue *catalogue)
{
	struct about about;
	MDB_txn *txn;
	int result = mdb_txn_begin(catalogue->env, NULL, 0, &txn);

	if (result)
		return catalogue_error_of(result);
	result = catalogue_open_tables(catalogue, txn, MDB_CREATE);
	if (!result)
		result = catalogue_read_about(catalogue, txn, &about);
	if (result == MDB_NOTFOUND) {
		catalogue_init_about(&about);
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

/* The pages that LMDB's own table lists as free. Each of its records begins with a number of
 * pages. */
static size_t free_pages(MDB_txn *txn)
{
	MDB_cursor *cursor;
	MDB_val key;
	MDB_val value;
	size_t pages = 0;
	size_t count;

	if (mdb_cursor_open(txn, 0, &cursor))
		return 0;
	while (!mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
		memcpy(&count, value.mv_data, sizeof(count));
		pages += count;
	}
	mdb_cursor_close(cursor);
	return pages;
}

/* Whether there is hardly room for more. Copies of written pages need some room, and the free pages
 * are scattered. */
static bool is_full(MDB_env *env)
{
	MDB_envinfo info;
	MDB_stat stat;
	MDB_txn *txn;
	size_t used;

	if (mdb_env_info(env, &info) || mdb_env_stat(env, &stat) ||
	    mdb_txn_begin(env, NULL, MDB_RDONLY, &txn))
		return false;
	used = (info.me_last_pgno + 1 - free_pages(txn)) * stat.ms_psize;
	mdb_txn_abort(txn);
	return used > info.me_mapsize - info.me_mapsize / 16;
}

/* ---- closed in order ---- */

/* The content that `clean` must have if the database in DIRECTORY was closed in order and is
 * unchanged; false if there is no database. LMDB's version is part of it, because its files belong
 * to one version. */
static bool mark_of(int directory, char mark[MARK_BYTES])
{
	struct stat st;

	if (fstatat(directory, "data.mdb", &st, AT_SYMLINK_NOFOLLOW))
		return false;
	snprintf(mark, MARK_BYTES,
		 "foldfs catalogue %u, LMDB %d.%d: inode %ju, %jd bytes, modified %jd.%09ld, "
		 "changed "
		 "%jd.%09ld\n",
		 CATALOGUE_VERSION, MDB_VERSION_MAJOR, MDB_VERSION_MINOR, (uintmax_t)st.st_ino,
		 (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		 (intmax_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	return true;
}

static bool is_clean(int directory)
{
	char found[MARK_BYTES] = {0};
	char mark[MARK_BYTES];
	ssize_t length;
	int fd = openat(directory, "clean", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return false;
	length = TEMP_FAILURE_RETRY(read(fd, found, sizeof(found) - 1));
	close(fd);
	return length > 0 && mark_of(directory, mark) && strcmp(found, mark) == 0;
}

/* Without a mark the next opener only has more to do, so errors are not reported. */
static void set_mark(int directory)
{
	char mark[MARK_BYTES];
	ssize_t length;
	int fd;

	if (is_clean(directory) || !mark_of(directory, mark))
		return;
	fd = openat(directory, "clean", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		    0600);
	if (fd < 0)
		return;
	/* A part of a mark counts as no mark. */
	length = write(fd, mark, strlen(mark));
	(void)length;
	close(fd);
}

void catalogue_unmark(const struct catalogue *catalogue)
{
	(void)unlinkat(catalogue->directory, "clean", 0);
}

/* ---- aside and anew ---- */

/* Rename data.mdb and remove lock.mdb. A database that was moved aside before is lost. */
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

static bool has_database(const char *directory)
{
	char data[PATH_MAX];

	return snprintf(data, sizeof(data), "%s/data.mdb", directory) < (int)sizeof(data) &&
	       access(data, F_OK) == 0;
}

static errint_t lock_file(int fd, int operation)
{
	return TEMP_FAILURE_RETRY(flock(fd, operation)) ? -errno : 0;
}

/* Become a user. *ret_alone: there is no other one, and none can come while the directory is
 * locked. */
static errint_t become_user(struct catalogue *catalogue, bool *ret_alone)
{
	errint_t error;

	*ret_alone = false;
	catalogue->users = openat(catalogue->directory, "open.lock",
				  O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (catalogue->users < 0)
		return -errno;
	error = lock_file(catalogue->users, LOCK_EX | LOCK_NB);
	*ret_alone = !error;
	return error == -EWOULDBLOCK ? lock_file(catalogue->users, LOCK_SH) : error;
}

/* Make the database in DIRECTORY one that can be trusted, or move it aside. */
static errint_t make_trusted(const char *directory, uint64_t max_bytes, bool *ret_moved_aside)
{
	errint_t error = catalogue_renew(directory, max_bytes);

	if (error != -EUCLEAN)
		return error;
	error = move_aside(directory);
	*ret_moved_aside = !error;
	return error;
}

static errint_t open_database(struct catalogue *catalogue, const char *directory,
			      uint64_t max_bytes)
{
	/* LMDB sets close-on-exec itself. MDB_NOMETASYNC: a crash can lose only the last
	 * batches. */
	/* MDB_NORDAHEAD: look-ups are at random places, and the kernel would keep what it read
	 * ahead. */
	return catalogue_open_environment(directory, max_bytes, MDB_NOMETASYNC | MDB_NORDAHEAD,
					  &catalogue->env);
}

/* The directory is locked. */
static errint_t open_locked(const char *directory, uint64_t max_bytes, bool *ret_moved_aside,
			    struct catalogue *catalogue)
{
	bool alone;
	int dead;
	errint_t error = become_user(catalogue, &alone);

	if (!error && alone && has_database(directory) && !is_clean(catalogue->directory))
		error = make_trusted(directory, max_bytes, ret_moved_aside);
	if (!error)
		error = open_database(catalogue, directory, max_bytes);
	if (!error && alone && is_full(catalogue->env)) {
		mdb_env_close(catalogue->env);
		catalogue->env = NULL;
		error = move_aside(directory);
		*ret_moved_aside = !error;
		if (!error)
			error = open_database(catalogue, directory, max_bytes);
	}
	if (!error)
		error = prepare(catalogue);
	if (!error && alone)
		error = lock_file(catalogue->users, LOCK_SH);
	/* Clear the reader slots of processes that were killed. */
	if (!error)
		(void)mdb_reader_check(catalogue->env, &dead);
	return error;
}

const char *catalogue_open_error(errint_t error)
{
	return error == -EPERM ? "others may write to it" : strerror(-error);
}

int catalogue_open_directory(const char *directory)
{
	/* What the catalogue says is believed. Anybody who can write to it, or replace it, could
	 * give one file's bytes to another. */
	return trusted_path_open(directory, geteuid(), true, 0700);
}

errint_t catalogue_open(const char *directory, uint64_t max_bytes, bool *ret_moved_aside,
			struct catalogue **ret_catalogue)
{
	int fd = catalogue_open_directory(directory);

	*ret_moved_aside = false;
	return fd < 0 ? fd : catalogue_open_at(fd, max_bytes, ret_moved_aside, ret_catalogue);
}

errint_t catalogue_open_at(int directory, uint64_t max_bytes, bool *ret_moved_aside,
			   struct catalogue **ret_catalogue)
{
	struct catalogue *catalogue = calloc(1, sizeof(*catalogue));
	char path[PROC_FD_BYTES];
	errint_t error;

	*ret_moved_aside = false;
	if (!catalogue) {
		close(directory);
		return -ENOMEM;
	}
	catalogue->users = -1;
	catalogue->directory = directory;
	error = lock_file(catalogue->directory, LOCK_EX);
	if (!error) {
		/* LMDB needs a path: this one leads to the directory that is open here. */
		error = open_locked(proc_fd(path, catalogue->directory), max_bytes, ret_moved_aside,
				    catalogue);
		(void)lock_file(catalogue->directory, LOCK_UN);
	}
	if (error) {
		catalogue_close(catalogue);
		return error;
	}
	*ret_catalogue = catalogue;
	return 0;
}

/* The directory is locked. */
static void close_database(const struct catalogue *catalogue)
{
	bool alone = catalogue->users >= 0 && !lock_file(catalogue->users, LOCK_EX | LOCK_NB);
	bool synced = !mdb_env_sync(catalogue->env, 1);

	mdb_env_close(catalogue->env);
	if (alone && synced)
		set_mark(catalogue->directory);
}

void catalogue_close(struct catalogue *catalogue)
{
	if (!catalogue)
		return;
	if (catalogue->env) {
		bool locked = !lock_file(catalogue->directory, LOCK_EX);

		close_database(catalogue);
		if (locked)
			(void)lock_file(catalogue->directory, LOCK_UN);
	}
	if (catalogue->users >= 0) {
		(void)lock_file(catalogue->users, LOCK_UN);
		close(catalogue->users);
	}
	if (catalogue->directory >= 0)
		close(catalogue->directory);
	free(catalogue);
}

int catalogue_directory(const struct catalogue *catalogue)
{
	return catalogue->directory;
}

const void *catalogue_secret(const struct catalogue *catalogue)
{
	return catalogue->secret;
}
