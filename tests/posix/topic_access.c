/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_access.c - who may do what: modes against users, on files, directories and sticky ones
 *
 * Each mode gives one class of users (owner, group, others) each of the eight values, while the
 * other two classes have nothing, or everything. So a check of the wrong class shows.
 */
#include "calls.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MODES 48

/* Nothing and everything look the same in each class: once is enough. */
static bool is_repeated(unsigned index)
{
	return index > 15 && ((index & 15) == 0 || (index & 15) == 15);
}

static mode_t mode_of(unsigned index)
{
	unsigned shift = index / 16 * 3;
	mode_t value = (index & 7) << shift;

	return index & 8 ? (0777 & ~(7u << shift)) | value : value;
}

/* All seven questions of access(2), as "rwx": a letter for each that is allowed alone, then a count
 * of the combinations that are. */
static void ask_access(const char *name, int user, mode_t mode, const char *kind)
{
	char text[128] = "";
	int flags[] = {0, AT_EACCESS};

	if (!take())
		return;
	for (unsigned way = 0; way < ARRAY_SIZE(flags); way++) {
		char *at = text + strlen(text);

		*at++ = ' ';
		for (int ask = 1; ask < 8; ask++) {
			long result;

			as(user);
			result = TRY(faccessat(AT_FDCWD, name, ask, flags[way]));
			as_root();
			*at++ = result == 0 ? (char)('0' + ask) : result == -EACCES ? '-' : '?';
		}
		*at = '\0';
	}
	say_text(text + 1, "access.%s.%04o.%s", kind, mode, users[user].name);
}

static void access_by_mode(void)
{
	for (int kind = 0; kind < 2; kind++) {
		make_owned(kind ? DIRECTORY : FILE_, "x", 0);
		for (unsigned index = 0; index < MODES; index++) {
			if (is_repeated(index))
				continue;
			MUST(chmod("x", mode_of(index)));
			for (int user = 0; user < USERS; user++)
				ask_access("x", user, mode_of(index), kind ? "dir" : "file");
		}
		discard("x");
	}
}

/* What open(2) says to each way of opening, and execve(2): ENOEXEC means that it was allowed. */
static void open_by_mode(void)
{
	static const int flags[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, 3};
	static char *const arguments[] = {(char *)"x", NULL};

	make_owned(FILE_, "x", 0);
	for (unsigned index = 0; index < MODES; index++) {
		if (is_repeated(index))
			continue;
		MUST(chmod("x", mode_of(index)));
		for (int user = 0; user < USERS; user++) {
			char text[128] = "";

			if (!take())
				continue;
			for (unsigned way = 0; way < ARRAY_SIZE(flags); way++) {
				long result;

				as(user);
				result = TRY_FD(open("x", flags[way] | O_CLOEXEC));
				as_root();
				strcat(strcat(text, result_name(result)), " ");
			}
			as(user);
			execve("x", arguments, arguments + 1);
			as_root();
			strcat(text, strerrorname_np(errno));
			say_text(text, "open.%04o.%s", mode_of(index), users[user].name);
		}
	}
	discard("x");
}

/* ---- what a directory's mode allows ---- */

static long open_in(void)
{
	return TRY_FD(open("d/in", O_RDWR));
}

static long create_in(void)
{
	return TRY_FD(open("d/new", O_CREAT | O_RDWR, 0644));
}

static long create_excl_in(void)
{
	return TRY_FD(open("d/new", O_CREAT | O_EXCL | O_RDWR, 0644));
}

static long create_old_in(void)
{
	return TRY_FD(open("d/in", O_CREAT | O_RDWR, 0644));
}

static long tmpfile_in(void)
{
	return TRY_FD(open("d", O_TMPFILE | O_RDWR, 0644));
}

static long stat_in(void)
{
	struct stat st;

	return TRY(stat("d/in", &st));
}

static long stat_none_in(void)
{
	struct stat st;

	return TRY(stat("d/none", &st));
}

static long list_it(void)
{
	return count_entries("d");
}

static long chdir_it(void)
{
	long result = TRY(chdir("d"));

	if (!result)
		MUST(chdir(".."));
	return result;
}

#define CALL(name, call)                                                                           \
	static long name(void)                                                                     \
	{                                                                                          \
		return TRY(call);                                                                  \
	}

CALL(mkdir_in, mkdir("d/new", 0755))
CALL(mkfifo_in, mkfifo("d/new", 0644))
CALL(mknod_in, mknod("d/new", S_IFREG | 0644, 0))
CALL(mkdev_in, mknod("d/new", S_IFCHR | 0644, 0x103))
CALL(symlink_in, symlink("anything", "d/new"))
CALL(unlink_in, unlink("d/in"))
CALL(rmdir_in, rmdir("d/sub"))
CALL(rename_out, rename("d/in", "out"))
CALL(rename_into, rename("outside", "d/new"))
CALL(rename_within, rename("d/in", "d/new"))
CALL(rename_dir_out, rename("d/sub", "out"))
CALL(rename_it, rename("d", "out"))
CALL(link_into, link("outside", "d/new"))
CALL(link_out, link("d/in", "out"))
CALL(readlink_in, readlink("d/link", (char[16]){0}, 16))
CALL(truncate_in, truncate("d/in", 1))
CALL(chmod_in, chmod("d/in", 0600))
CALL(chown_in, chown("d/in", (uid_t)-1, OWNER_GROUP))
CALL(utimes_in, utimes("d/in", NULL))
CALL(getxattr_in, getxattr("d/in", "user.none", NULL, 0))
CALL(setxattr_in, setxattr("d/in", "user.new", "1", 1, 0))
CALL(rmdir_it, rmdir("d"))

static const struct {
	const char *name;
	long (*call)(void);
} in_directory[] = {
	{"open", open_in},
	{"create", create_in},
	{"create-exclusively", create_excl_in},
	{"create-old", create_old_in},
	{"tmpfile", tmpfile_in},
	{"stat", stat_in},
	{"stat-none", stat_none_in},
	{"list", list_it},
	{"chdir", chdir_it},
	{"mkdir", mkdir_in},
	{"mkfifo", mkfifo_in},
	{"mknod", mknod_in},
	{"mkdev", mkdev_in},
	{"symlink", symlink_in},
	{"unlink", unlink_in},
	{"rmdir", rmdir_in},
	{"rename-out", rename_out},
	{"rename-into", rename_into},
	{"rename-within", rename_within},
	{"rename-dir-out", rename_dir_out},
	{"rename-it", rename_it},
	{"link-into", link_into},
	{"link-out", link_out},
	{"readlink", readlink_in},
	{"truncate", truncate_in},
	{"chmod", chmod_in},
	{"chown", chown_in},
	{"utimes", utimes_in},
	{"getxattr", getxattr_in},
	{"setxattr", setxattr_in},
	{"rmdir-it", rmdir_it},
};

/* What is missing of the directory `d`, owned by OWNER, is made again after each call. */
static void prepare_directory(mode_t mode)
{
	struct stat st;

	discard("out");
	if (lstat("d", &st))
		make(DIRECTORY, "d");
	discard("d/new");
	if (lstat("d/in", &st) || st.st_size != 5 || (st.st_mode & 07777) != 0666) {
		discard("d/in");
		make_owned(FILE_, "d/in", 0666);
	}
	(void)removexattr("d/in", "user.new");
	if (lstat("d/sub", &st))
		make_owned(DIRECTORY, "d/sub", 0755);
	if (lstat("d/link", &st))
		make(SYMLINK, "d/link");
	if (lstat("outside", &st))
		make_owned(FILE_, "outside", 0666);
	MUST(lchown("d", OWNER, OWNER_GROUP));
	MUST(chmod("d", mode));
}

static void directory_by_mode(void)
{
	static const mode_t modes[] = {0700, 0600, 0500, 0300, 0400, 0200, 0100, 0000, 0070, 0050,
				       0030, 0707, 0075, 0007, 0005, 0003, 0770, 0777, 0711, 0755};

	for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
		for (unsigned c = 0; c < ARRAY_SIZE(in_directory); c++) {
			char text[160] = "";

			if (!take())
				continue;
			for (int user = 0; user < USERS; user++) {
				long result;

				prepare_directory(modes[m]);
				as(user);
				result = in_directory[c].call();
				as_root();
				strcat(strcat(text, result_name(result)), " ");
			}
			text[strlen(text) - 1] = '\0';
			say_text(text, "in-directory.%04o.%s", modes[m], in_directory[c].name);
		}
	}
	discard("d");
	discard("out");
	discard("outside");
}

/* A directory in the middle of a path that may not be searched. */
static void search_on_the_way(void)
{
	struct stat st;

	MUST(mkdir("a", 0755));
	MUST(mkdir("a/b", 0755));
	make(FULL, "a/b/c");
	for (unsigned mode = 0; mode < 8; mode++) {
		for (int user = 0; user < USERS; user++) {
			long result;

			MUST(chmod("a/b", mode << 6 | mode << 3 | mode));
			as(user);
			result = TRY(stat("a/b/c/in", &st));
			as_root();
			say(result, NULL, "on-the-way.%o.%s", mode, users[user].name);
			as(user);
			result = TRY(stat("a/b/c/../../b", &st));
			as_root();
			say(result, NULL, "back-again.%o.%s", mode, users[user].name);
		}
	}
	discard("a");
}

/* Rights are asked for at open; what is open stays open. */
static void open_outlives_rights(void)
{
	make_owned(FILE_, "x", 0666);
	for (int user = 1; user < USERS; user++) {
		int fd;

		MUST(chmod("x", 0666));
		as(user);
		fd = (int)MUST(open("x", O_RDWR));
		as_root();
		MUST(chmod("x", 0));
		as(user);
		long result = TRY(pwrite(fd, "w", 1, 0));
		say(result, NULL, "still-open.write.%s", users[user].name);
		say(TRY(pread(fd, (char[1]){0}, 1, 0)), NULL, "still-open.read.%s",
		    users[user].name);
		say(TRY(ftruncate(fd, 5)), NULL, "still-open.truncate.%s", users[user].name);
		say(TRY(fchmod(fd, 0)), NULL, "still-open.chmod.%s", users[user].name);
		as_root();
		close(fd);
	}
	discard("x");
}

static void run(void)
{
	access_by_mode();
	open_by_mode();
	directory_by_mode();
	search_on_the_way();
	open_outlives_rights();
}

const struct topic topic_access = {"access", run};

/* ---- sticky directories ---- */

CALL(sticky_unlink, unlink("d/x"))
CALL(sticky_rmdir, rmdir("d/x"))
CALL(sticky_rename_out, rename("d/x", "out"))
CALL(sticky_rename_within, rename("d/x", "d/y"))
CALL(sticky_rename_over, rename("mine", "d/x"))
CALL(sticky_exchange, renameat2(AT_FDCWD, "mine", AT_FDCWD, "d/x", RENAME_EXCHANGE))
CALL(sticky_link, link("d/x", "d/y"))
CALL(sticky_write, truncate("d/x", 0))

static const struct {
	const char *name;
	long (*call)(void);
} in_sticky[] = {
	{"unlink", sticky_unlink},
	{"rmdir", sticky_rmdir},
	{"rename-out", sticky_rename_out},
	{"rename-within", sticky_rename_within},
	{"rename-over", sticky_rename_over},
	{"exchange", sticky_exchange},
	{"link", sticky_link},
	{"truncate", sticky_write},
};

static long open_with_create(void)
{
	return TRY_FD(open("d/x", O_CREAT | O_WRONLY | O_NONBLOCK, 0644));
}

/* The directory belongs to one user, the file to another, and a third one comes. */
static void sticky_case(enum kind kind, uid_t of_directory, uid_t of_file, mode_t mode)
{
	for (unsigned c = 0; c <= ARRAY_SIZE(in_sticky); c++) {
		bool open_it = c == ARRAY_SIZE(in_sticky);
		char text[160] = "";

		if (!take())
			continue;
		for (int user = 0; user < USERS; user++) {
			long result;

			MUST(mkdir("d", 0));
			make(kind, "d/x");
			MUST(lchown("d/x", of_file, of_file));
			MUST(chmod("d/x", 0777));
			make(kind, "mine");
			MUST(lchown("mine", users[user].uid, users[user].gid));
			MUST(lchown("d", of_directory, of_directory));
			MUST(chmod("d", mode));
			as(user);
			result = open_it ? open_with_create() : in_sticky[c].call();
			as_root();
			strcat(strcat(text, result_name(result)), " ");
			discard("d");
			discard("mine");
			discard("out");
		}
		text[strlen(text) - 1] = '\0';
		say_text(text, "%s.%s.dir-of-%u.file-of-%u.%04o",
			 open_it ? "open-create" : in_sticky[c].name, kind_name(kind), of_directory,
			 of_file, mode);
	}
}

static void run_sticky(void)
{
	static const uid_t owners[] = {0, OWNER, 7004};
	static const mode_t modes[] = {0777, 01777, 01775};

	for (unsigned d = 0; d < ARRAY_SIZE(owners); d++)
		for (unsigned f = 0; f < ARRAY_SIZE(owners); f++)
			for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
				sticky_case(FILE_, owners[d], owners[f], modes[m]);
				if (m == 1)
					sticky_case(EMPTY, owners[d], owners[f], modes[m]);
			}
	sticky_case(DIRECTORY, OWNER, OWNER, 01777);
	sticky_case(DIRECTORY, 0, 7004, 01777);
	sticky_case(FIFO, 0, 7004, 01777);
}

const struct topic topic_sticky = {"sticky", run_sticky};
