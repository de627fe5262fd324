/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_path.c - how every call treats odd paths: missing, too long, looping, with a file in the
 * middle, with slashes and dots behind
 */
#include "calls.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PATHS 40

#define CALL(name, call)                                                                           \
	static long name(const char *path)                                                         \
	{                                                                                          \
		return TRY(call);                                                                  \
	}
#define CALL_FD(name, call)                                                                        \
	static long name(const char *path)                                                         \
	{                                                                                          \
		return TRY_FD(call);                                                               \
	}

CALL_FD(call_open, open(path, O_RDONLY | O_NONBLOCK))
CALL_FD(call_open_write, open(path, O_WRONLY | O_NONBLOCK))
CALL_FD(call_create, open(path, O_CREAT | O_WRONLY | O_NONBLOCK, 0644))
CALL_FD(call_create_excl, open(path, O_CREAT | O_EXCL | O_WRONLY, 0644))
CALL_FD(call_open_dir, open(path, O_DIRECTORY | O_RDONLY))
CALL_FD(call_open_nofollow, open(path, O_NOFOLLOW | O_RDONLY | O_NONBLOCK))
CALL_FD(call_open_path, open(path, O_PATH))
CALL_FD(call_tmpfile, open(path, O_TMPFILE | O_RDWR, 0600))
CALL(call_mkdir, mkdir(path, 0755))
CALL(call_rmdir, rmdir(path))
CALL(call_mknod, mknod(path, S_IFREG | 0644, 0))
CALL(call_mkfifo, mkfifo(path, 0644))
CALL(call_unlink, unlink(path))
CALL(call_symlink, symlink("anything", path))
CALL(call_readlink, readlink(path, (char[8]){0}, 8))
CALL(call_link_from, link(path, "new"))
CALL(call_link_to, link("file", path))
CALL(call_rename_from, rename(path, "new"))
CALL(call_rename_to, rename("file", path))
CALL(call_rename_dir_to, rename("empty", path))
CALL(call_exchange, renameat2(AT_FDCWD, "file", AT_FDCWD, path, RENAME_EXCHANGE))
CALL(call_stat, stat(path, &(struct stat){0}))
CALL(call_lstat, lstat(path, &(struct stat){0}))
CALL(call_statfs, statvfs(path, &(struct statvfs){0}))
CALL(call_access, access(path, F_OK))
CALL(call_chmod, chmod(path, 0700))
CALL(call_chown, chown(path, 1, 1))
CALL(call_lchown, lchown(path, 1, 1))
CALL(call_utimes, utimes(path, NULL))
CALL(call_lutimes, utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW))
CALL(call_truncate, truncate(path, 3))
CALL(call_getxattr, getxattr(path, "user.none", NULL, 0))
CALL(call_lsetxattr, lsetxattr(path, "trusted.t", "1", 1, 0))
CALL(call_setxattr, setxattr(path, "trusted.t", "1", 1, 0))
CALL(call_removexattr, removexattr(path, "trusted.none"))

static long call_chdir(const char *path)
{
	int back = (int)MUST(open(".", O_PATH));
	long result = TRY(chdir(path));

	MUST(fchdir(back));
	close(back);
	return result;
}

static const struct {
	const char *name;
	long (*call)(const char *path);
} calls[] = {
	{"open", call_open},
	{"open-write", call_open_write},
	{"create", call_create},
	{"create-exclusively", call_create_excl},
	{"open-directory", call_open_dir},
	{"open-nofollow", call_open_nofollow},
	{"open-path", call_open_path},
	{"tmpfile", call_tmpfile},
	{"mkdir", call_mkdir},
	{"rmdir", call_rmdir},
	{"mknod", call_mknod},
	{"mkfifo", call_mkfifo},
	{"unlink", call_unlink},
	{"symlink", call_symlink},
	{"readlink", call_readlink},
	{"link-from", call_link_from},
	{"link-to", call_link_to},
	{"rename-from", call_rename_from},
	{"rename-to", call_rename_to},
	{"rename-dir-to", call_rename_dir_to},
	{"exchange", call_exchange},
	{"stat", call_stat},
	{"lstat", call_lstat},
	{"statfs", call_statfs},
	{"access", call_access},
	{"chmod", call_chmod},
	{"chown", call_chown},
	{"lchown", call_lchown},
	{"utimes", call_utimes},
	{"lutimes", call_lutimes},
	{"truncate", call_truncate},
	{"getxattr", call_getxattr},
	{"lsetxattr", call_lsetxattr},
	{"setxattr", call_setxattr},
	{"removexattr", call_removexattr},
	{"chdir", call_chdir},
	{"exec", execute},
};

static struct odd_path {
	const char *name;
	char *path;
} paths[PATHS];
static unsigned path_count;

static void add_path(const char *name, const char *path)
{
	paths[path_count].name = name;
	paths[path_count++].path = strdup(path);
}

/* UNIT again and again, then END, LENGTH bytes in all. */
static void add_long_path(const char *name, const char *unit, const char *end, size_t length)
{
	char *path = malloc(length + 1);
	size_t body = length - strlen(end);

	if (!path)
		die("memory");
	for (size_t at = 0; at < body; at++)
		path[at] = unit[at % strlen(unit)];
	strcpy(path + body, end);
	paths[path_count].name = name;
	paths[path_count++].path = path;
}

static void add_paths(void)
{
	static const char *const plain[] = {
		"none",     "none/x",      "file/x",    "file/x/y",   "file/",   "file/.",
		"file/..",  "full",        "full/",     "full/.",     "full/..", "full/in/..",
		"empty",    "empty/",      "symlink",   "symlink/",   "to-dir",  "to-dir/",
		"to-dir/x", "dangling",    "dangling/", "dangling/x", "loop",    "loop/",
		"loop/x",   "self",        "fifo",      "fifo/",      "fifo/x",  "socket",
		"",         "./none/../x",
	};

	for (unsigned index = 0; index < ARRAY_SIZE(plain); index++)
		add_path(plain[index], plain[index]);
	add_long_path("name-255", "n", "", 255);
	add_long_path("name-256", "n", "", 256);
	add_long_path("name-256-in-the-middle", "n", "/x", 258);
	add_long_path("path-4095", "./", "file", PATH_MAX - 2);
	add_long_path("path-4095-name", "./", "/none", PATH_MAX - 1);
	add_long_path("path-4096", "./", "file", PATH_MAX);
}

/* The tree that the paths lead through, in the directory t. */
static void prepare(void)
{
	MUST(mkdir("t", 0755));
	MUST(chdir("t"));
	make(FILE_, "file");
	make(FULL, "full");
	make(DIRECTORY, "empty");
	MUST(symlink("file", "symlink"));
	MUST(symlink("full", "to-dir"));
	make(DANGLING, "dangling");
	MUST(symlink("loop-2", "loop"));
	MUST(symlink("loop", "loop-2"));
	MUST(symlink("self", "self"));
	make(FIFO, "fifo");
	make(SOCKET, "socket");
	MUST(chmod("file", 0755));
}

static void every_call(void)
{
	bool dirty = true;

	for (unsigned c = 0; c < ARRAY_SIZE(calls); c++)
		for (unsigned p = 0; p < path_count; p++) {
			long result;

			if (!take())
				continue;
			if (dirty)
				prepare();
			result = calls[c].call(paths[p].path);
			say(result, NULL, "%s.[%s]", calls[c].name, paths[p].name);
			dirty = result >= 0;
			if (dirty) {
				MUST(chdir(".."));
				discard("t");
			}
		}
	if (!dirty) {
		MUST(chdir(".."));
		discard("t");
	}
}

/* Chains of symlinks: forty are followed, one more is ELOOP. */
static void symlink_chains(void)
{
	char name[16];
	char target[16];

	make(FILE_, "0");
	for (unsigned n = 1; n <= 42; n++) {
		snprintf(name, sizeof(name), "%u", n);
		snprintf(target, sizeof(target), "%u", n - 1);
		MUST(symlink(target, name));
	}
	for (unsigned n = 38; n <= 42; n++) {
		snprintf(name, sizeof(name), "%u", n);
		say(call_open(name), NULL, "chain.%u", n);
	}
	for (unsigned n = 0; n <= 42; n++) {
		snprintf(name, sizeof(name), "%u", n);
		discard(name);
	}
}

static void symlink_lengths(void)
{
	static const unsigned lengths[] = {1,    59,   60,   255,  1000, 1023,
					   1024, 4000, 4094, 4095, 4096};
	static char target[PATH_MAX + 2];
	static char found[PATH_MAX + 2];

	say(TRY(symlink("", "link")), NULL, "symlink.0");
	for (unsigned n = 0; n < ARRAY_SIZE(lengths); n++) {
		long result;

		memset(target, 't', lengths[n]);
		target[lengths[n]] = '\0';
		result = TRY(symlink(target, "link"));
		say(result, "link", "symlink.%u", lengths[n]);
		if (result < 0)
			continue;
		memset(found, 0, sizeof(found));
		say(TRY(readlink("link", found, sizeof(found))), NULL, "symlink.%u.readlink",
		    lengths[n]);
		say_text(strcmp(found, target) ? "differs" : "same", "symlink.%u.target",
			 lengths[n]);
		say(TRY(readlink("link", found, 1)), NULL, "symlink.%u.readlink-1", lengths[n]);
		MUST(unlink("link"));
	}
}

/* Names of every length and with every byte. */
static void names(void)
{
	static char name[260];

	MUST(mkdir("names", 0755));
	MUST(chdir("names"));
	for (unsigned length = 1; length <= 256; length += length < 240 ? 17 : 1) {
		memset(name, 'n', length);
		name[length] = '\0';
		say(TRY_FD(open(name, O_CREAT | O_EXCL | O_RDWR, 0600)), name, "name.%u", length);
		say(TRY(unlink(name)), NULL, "name.%u.unlink", length);
	}
	for (unsigned byte = 1; byte < 256; byte++) {
		if (byte == '/' || byte == '.')
			continue;
		name[0] = (char)byte;
		name[1] = '\0';
		say(TRY(mkdir(name, 0700)), name, "byte.%02x", byte);
		say(TRY(rmdir(name)), NULL, "byte.%02x.rmdir", byte);
	}
	MUST(chdir(".."));
	discard("names");
}

/* Deeper than any path can name. */
static void deep(void)
{
	static char name[201];
	static char where[PATH_MAX];
	int back = (int)MUST(open(".", O_PATH));
	long result;

	memset(name, 'd', 200);
	for (unsigned step = 0; step < 25; step++) {
		MUST(mkdir(name, 0755));
		MUST(chdir(name));
	}
	say(TRY_FD(open("bottom", O_CREAT | O_RDWR, 0644)), "bottom", "deep.create");
	result = TRY(syscall(SYS_getcwd, where, sizeof(where)));
	say(result < 0 ? result : 0, NULL, "deep.getcwd");
	MUST(unlink("bottom"));
	for (unsigned step = 0; step < 25; step++) {
		MUST(chdir(".."));
		MUST(rmdir(name));
	}
	MUST(fchdir(back));
	close(back);
}

static void run(void)
{
	add_paths();
	every_call();
	symlink_chains();
	symlink_lengths();
	names();
	deep();
}

const struct topic topic_path = {"path", run};
