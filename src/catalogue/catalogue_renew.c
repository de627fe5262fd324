/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue_renew.c - rewrites a database that may be damaged
 *
 * No check of LMDB's pages can prove that a later write to them will not fail one of LMDB's
 * asserts, which end the process. So a database that is not known to be whole is not repaired or
 * judged. It is read through LMDB, record by record, and the records are put into a new database,
 * of which LMDB itself wrote every page.
 *
 * A child process does the reading, because damage may crash the reader or keep it busy. A record
 * that does not come after the one before ends the child, so it cannot follow a loop of pages for
 * ever. An alarm ends a search for one record within such a loop.
 *
 * Only records with the size and form that their readers rely on are copied. Any other record
 * counts as damage.
 */
#include "catalogue_internal.h"
#include "foldfs/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Bytes copied within one transaction. LMDB keeps the transaction's pages in memory, 512 MiB of
 * them at most. */
#define BATCH_BYTES (UINT64_C(32) << 20)
/* The child gets at least SECONDS_MIN, and twice the time that a slow disk needs for the database's
 * bytes. If it takes longer it is going round in a damaged tree. */
#define SECONDS_MIN      60u
#define BYTES_PER_SECOND (UINT64_C(8) << 20)

typedef bool (*is_valid_fn)(const MDB_val *key, const MDB_val *value);

static bool is_valid_digests(const MDB_val *key, const MDB_val *value)
{
	return key->mv_size == sizeof(struct catalogue_part_key) &&
	       value->mv_size % sizeof(uint64_t) == 0;
}

static bool is_valid_class(const MDB_val *key, const MDB_val *value)
{
	return key->mv_size == sizeof(uint64_t) && value->mv_size == sizeof(struct class_value);
}

/* Reads `old`, writes `new`. */
struct renewal {
	struct catalogue old;
	struct catalogue new;
	MDB_txn *from;
	MDB_txn *to;
	uint64_t copied; /* bytes in `to` */
};

/* Commit the write transaction, and begin the next one. */
static int next_batch(struct renewal *renewal)
{
	int result = mdb_txn_commit(renewal->to);

	renewal->copied = 0;
	return result ? result : mdb_txn_begin(renewal->new.env, NULL, 0, &renewal->to);
}

/* Copy all records of TABLE. FLAGS make LMDB refuse a record that does not come after the last
 * one. */
static int copy_table(struct renewal *renewal, MDB_dbi table, MDB_dbi to, is_valid_fn is_valid,
		      unsigned flags)
{
	MDB_cursor *cursor;
	MDB_val key;
	MDB_val value;
	int result = mdb_cursor_open(renewal->from, table, &cursor);

	if (result)
		return result;
	for (;;) {
		result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
		if (!result && !is_valid(&key, &value))
			result = MDB_CORRUPTED;
		if (!result)
			result = mdb_put(renewal->to, to, &key, &value, flags);
		renewal->copied += result ? 0 : key.mv_size + value.mv_size;
		if (!result && renewal->copied >= BATCH_BYTES)
			result = next_batch(renewal);
		if (result)
			break;
	}
	mdb_cursor_close(cursor);
	return result == MDB_NOTFOUND ? 0 : result;
}

static int copy_tables(struct renewal *renewal)
{
	struct catalogue *old = &renewal->old;
	struct catalogue *new = &renewal->new;
	struct about about;
	int result = catalogue_open_tables(old, renewal->from, 0);

	if (!result)
		result = catalogue_read_about(old, renewal->from, &about);
	if (!result)
		result = catalogue_open_tables(new, renewal->to, MDB_CREATE);
	if (!result)
		result = catalogue_write_about(new, renewal->to, &about);
	if (!result)
		result = copy_table(renewal, old->files, new->files, catalogue_is_valid_file,
				    MDB_APPEND);
	if (!result)
		result = copy_table(renewal, old->digests, new->digests, is_valid_digests,
				    MDB_APPEND);
	if (!result)
		result = copy_table(renewal, old->classes, new->classes, is_valid_class,
				    MDB_APPENDDUP);
	if (!result)
		result = copy_table(renewal, old->runs, new->runs, catalogue_is_valid_runs,
				    MDB_APPEND);
	if (!result)
		result = copy_table(renewal, old->objects, new->objects, catalogue_is_valid_object,
				    MDB_APPEND);
	return result ? result : mdb_txn_commit(renewal->to);
}

/* Runs in the child, and frees nothing because the child ends with it. LMDB's results, or
 * -errno. */
static int renew(const char *directory, const char *path, uint64_t max_bytes)
{
	struct renewal renewal = {0};
	int result = catalogue_open_environment(directory, max_bytes, MDB_RDONLY | MDB_NOLOCK,
						&renewal.old.env);

	if (!result)
		result = catalogue_open_environment(
			path, max_bytes, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, &renewal.new.env);
	if (!result)
		result = mdb_txn_begin(renewal.old.env, NULL, MDB_RDONLY, &renewal.from);
	if (!result)
		result = mdb_txn_begin(renewal.new.env, NULL, 0, &renewal.to);
	if (!result)
		result = copy_tables(&renewal);
	return result ? result : mdb_env_sync(renewal.new.env, 1);
}

static unsigned seconds_for(const char *data)
{
	struct stat st;
	uint64_t bytes = stat(data, &st) ? 0 : (uint64_t)st.st_size;
	uint64_t seconds = SECONDS_MIN + 2 * bytes / BYTES_PER_SECOND;

	return seconds < UINT32_MAX ? (unsigned)seconds : UINT32_MAX;
}

static _Noreturn void child(const char *directory, const char *data, const char *path,
			    uint64_t max_bytes)
{
	static const int ends[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
	const struct rlimit no_core = {0};

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		signal(ends[i], SIG_DFL);
	setrlimit(RLIMIT_CORE, &no_core);
	if (!freopen("/dev/null", "w", stderr))
		_exit(1);
	/* The database may have been crafted to attack the process that reads it. CAP_DAC_OVERRIDE
	 * stays because the directory may belong to another user. */
	if (privileges_keep(PRIVILEGE(CAP_DAC_OVERRIDE)) || privileges_freeze())
		_exit(1);
	alarm(seconds_for(data));
	_exit(renew(directory, path, max_bytes) ? 1 : 0);
}

/* Whether the child made the copy at PATH. -errno: the child could not be started or waited for. */
static errint_t run_child(const char *directory, const char *data, const char *path,
			  uint64_t max_bytes)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		child(directory, data, path, max_bytes);
	if (pid < 0)
		return -errno;
	if (TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)) < 0)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EUCLEAN;
}

errint_t catalogue_renew(const char *directory, uint64_t max_bytes)
{
	char data[PATH_MAX];
	char path[PATH_MAX];
	errint_t error;

	if (snprintf(data, sizeof(data), "%s/data.mdb", directory) >= (int)sizeof(data) ||
	    snprintf(path, sizeof(path), "%s/data.mdb.new", directory) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	/* Left over from an opener that did not finish. */
	if (unlink(path) && errno != ENOENT)
		return -errno;
	error = run_child(directory, data, path, max_bytes);
	if (!error && rename(path, data))
		error = -errno;
	if (error)
		(void)unlink(path);
	return error;
}
