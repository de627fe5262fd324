/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_names.c - link, unlink, rmdir and rename: every kind of object against every other
 */
#include "calls.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define KINDS 10

/* ---- rename ---- */

#define ABSENT    KINDS
#define SAME_FILE (KINDS + 1)

static const struct {
	const char *name;
	unsigned flags;
} rename_flags[] = {
	{"plain", 0},
	{"noreplace", RENAME_NOREPLACE},
	{"exchange", RENAME_EXCHANGE},
	{"whiteout", RENAME_WHITEOUT},
	{"noreplace+whiteout", RENAME_NOREPLACE | RENAME_WHITEOUT},
	{"noreplace+exchange", RENAME_NOREPLACE | RENAME_EXCHANGE},
	{"exchange+whiteout", RENAME_EXCHANGE | RENAME_WHITEOUT},
	{"unknown", 8},
};

static const char *operand_name(unsigned kind)
{
	return kind == ABSENT ? "absent" : kind == SAME_FILE ? "same" : kind_name(kind);
}

static void make_operand(unsigned kind, const char *name, const char *other)
{
	if (kind == SAME_FILE)
		MUST(link(other, name));
	else if (kind != ABSENT)
		make_owned(kind, name, 0755);
}

static void say_rename(long result, const char *from, const char *to, const char *label)
{
	char text[512];

	snprintf(text, sizeof(text), "%s, from %s", result_name(result), describe(from));
	snprintf(text + strlen(text), sizeof(text) - strlen(text), ", to %s", describe(to));
	say_text(text, "%s", label);
}

/* FROM and TO, in one directory or in two. */
static void rename_case(unsigned from_kind, unsigned to_kind, unsigned flag, bool across)
{
	const char *from = "a/from";
	const char *to = across ? "b/to" : "a/to";
	struct stat a;
	struct stat b;
	char label[128];
	long result;

	if (!take())
		return;
	MUST(mkdir("a", 0755));
	MUST(mkdir("b", 0755));
	make_operand(from_kind, from, from);
	make_operand(to_kind, to, from);
	result = TRY(renameat2(AT_FDCWD, from, AT_FDCWD, to, rename_flags[flag].flags));
	MUST(stat("a", &a));
	MUST(stat("b", &b));
	snprintf(label, sizeof(label), "%s.%s.%s.%s.links-%lu-%lu", rename_flags[flag].name,
		 across ? "across" : "within", operand_name(from_kind), operand_name(to_kind),
		 (unsigned long)a.st_nlink, (unsigned long)b.st_nlink);
	say_rename(result, from, to, label);
	discard("a");
	discard("b");
}

static void rename_kinds(void)
{
	for (unsigned from = 0; from <= ABSENT; from++)
		for (unsigned to = 0; to <= SAME_FILE; to++) {
			if (to == SAME_FILE &&
			    (from == ABSENT || from == DIRECTORY || from == FULL))
				continue;
			for (unsigned flag = 0; flag < ARRAY_SIZE(rename_flags); flag++)
				for (int across = 0; across < 2; across++)
					if (flag < 4 || (from <= DIRECTORY && to <= DIRECTORY))
						rename_case(from, to, flag, across);
		}
}

static void rename_times(void)
{
	for (unsigned kind = 0; kind < KINDS; kind++)
		for (unsigned flag = 0; flag < 4; flag++) {
			long result;

			MUST(mkdir("a", 0755));
			MUST(mkdir("b", 0755));
			make(kind, "a/from");
			if (flag == 2)
				make(FILE_, "b/to");
			watch("a");
			watch("b");
			/* Not "a/from": a whiteout there is another object. */
			if (kind != DIRECTORY && kind != FULL) {
				MUST(link("a/from", "keep"));
				watch("keep");
			}
			result = TRY(renameat2(AT_FDCWD, "a/from", AT_FDCWD, "b/to",
					       rename_flags[flag].flags));
			say(result, "b/to", "times.%s.%s", rename_flags[flag].name,
			    kind_name(kind));
			discard("a");
			discard("b");
			discard("keep");
		}
	make(FILE_, "old");
	MUST(link("old", "keep"));
	make(FILE_, "new");
	watch("keep");
	watch("new");
	say(TRY(rename("new", "old")), "keep", "times.replaced");
	discard("old");
	discard("keep");
}

static void rename_places(void)
{
	static const char *const pairs[][2] = {
		{"d", "d/in"},    {"d", "d/sub/in"},    {"d/sub", "d"},     {"d/sub/f", "d"},
		{"d", "d"},       {"d/f", "d/f"},       {"d/f", "d/."},     {"d/f", "d/.."},
		{"d/.", "x"},     {"d/..", "x"},        {"d/sub/..", "x"},  {"d/f/", "x"},
		{"d/f", "x/"},    {"d/sub/", "x/"},     {"d/sub", "x/"},    {"d/link", "x"},
		{"d/link/", "x"}, {"d/f", "d/link"},    {"d/f", "d/link/"}, {".", "x"},
		{"..", "x"},      {"d", "."},           {"d", ".."},        {"", "x"},
		{"d/f", ""},      {"d/none", "d/none"}, {"d/f", "/proc/x"}, {"d/f/x", "x"},
	};

	for (unsigned p = 0; p < ARRAY_SIZE(pairs); p++)
		for (unsigned flag = 0; flag < 4; flag++) {
			long result;

			if (!take())
				continue;
			MUST(mkdir("d", 0755));
			MUST(mkdir("d/sub", 0755));
			make(FILE_, "d/f");
			make(FILE_, "d/sub/f");
			MUST(symlink("sub", "d/link"));
			result = TRY(renameat2(AT_FDCWD, pairs[p][0], AT_FDCWD, pairs[p][1],
					       rename_flags[flag].flags));
			say(result, "x", "places.%s.[%s].[%s]", rename_flags[flag].name,
			    pairs[p][0], pairs[p][1]);
			discard("d");
			discard("x");
		}
}

/* A directory that moves to another parent changes its "..": for that it must be writable. */
static void rename_by_user(void)
{
	static const mode_t modes[] = {0777, 0755, 0555, 0700};

	for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
		for (int user = 0; user < USERS; user++)
			for (unsigned flag = 0; flag < 4; flag++)
				for (int across = 0; across < 2; across++) {
					long result;

					if (!take())
						continue;
					MUST(mkdir("a", 0777));
					MUST(mkdir("b", 0777));
					make_owned(DIRECTORY, "a/from", modes[m]);
					if (flag == 2)
						make_owned(FILE_, across ? "b/to" : "a/to", 0600);
					as(user);
					result = TRY(renameat2(AT_FDCWD, "a/from", AT_FDCWD,
							       across ? "b/to" : "a/to",
							       rename_flags[flag].flags));
					as_root();
					say(result, across ? "b/to" : "a/to", "by.%s.%04o.%s.%s",
					    users[user].name, modes[m], rename_flags[flag].name,
					    across ? "across" : "within");
					discard("a");
					discard("b");
				}
}

/* A whiteout is left by a plain user too, and is nobody's device. */
static void rename_whiteouts(void)
{
	for (int user = 0; user < USERS; user++) {
		long result;

		MUST(mkdir("a", 0777));
		MUST(chmod("a", 02777));
		MUST(chown("a", 0, 7005));
		make_owned(FILE_, "a/from", 0644);
		as(user);
		result = TRY(renameat2(AT_FDCWD, "a/from", AT_FDCWD, "a/to", RENAME_WHITEOUT));
		as_root();
		say(result, "a/from", "whiteout.%s", users[user].name);
		as(user);
		result = TRY(mknod("a/made", S_IFCHR, 0));
		as_root();
		say(result, "a/made", "whiteout.mknod.%s", users[user].name);
		as(user);
		result = TRY_FD(open("a/made", O_RDONLY));
		as_root();
		say(result, NULL, "whiteout.open.%s", users[user].name);
		discard("a");
	}
}

static void run_rename(void)
{
	rename_kinds();
	rename_times();
	rename_places();
	rename_by_user();
	rename_whiteouts();
}

const struct topic topic_rename = {"rename", run_rename};

/* ---- link ---- */

static void link_kinds(void)
{
	for (unsigned from = 0; from < KINDS; from++)
		for (unsigned to = 0; to <= ABSENT; to++) {
			long result;

			make_owned(from, "from", 0644);
			make_operand(to, "to", "from");
			watch("from");
			watch(".");
			result = TRY(link("from", "to"));
			say(result, "to", "%s.%s", kind_name(from), operand_name(to));
			discard("from");
			discard("to");
		}
}

/* Linux may protect what the caller could not write (fs.protected_hardlinks). */
static void link_by_user(void)
{
	static const mode_t modes[] = {0666, 0644, 0600, 0000, 04755, 02775, 06777, 0066};

	for (unsigned kind = 0; kind < KINDS; kind++)
		for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
			for (int user = 0; user < USERS; user++) {
				long result;

				if ((kind != FILE_ && kind != FIFO && kind != SYMLINK && m > 1) ||
				    !take())
					continue;
				make_owned(kind, "from", modes[m]);
				as(user);
				result = TRY(link("from", "to"));
				as_root();
				say(result, "to", "by.%s.%s.%04o", users[user].name,
				    kind_name(kind), modes[m]);
				discard("from");
				discard("to");
			}
}

static void link_ways(void)
{
	int fd;

	make(FILE_, "target");
	make(SYMLINK, "link");
	say(TRY(linkat(AT_FDCWD, "link", AT_FDCWD, "n1", 0)), "n1", "at.nofollow");
	say(TRY(linkat(AT_FDCWD, "link", AT_FDCWD, "n2", AT_SYMLINK_FOLLOW)), "n2", "at.follow");
	say(TRY(link("link/", "n3")), "n3", "at.slash");
	say(TRY(link("target", "n3/")), "n3", "at.slash-behind");
	fd = (int)MUST(open("target", O_RDONLY));
	say(TRY(linkat(fd, "", AT_FDCWD, "n4", AT_EMPTY_PATH)), "n4", "at.descriptor");
	say(TRY(linkat(fd, "", AT_FDCWD, "n5", 0)), "n5", "at.no-flag");
	say(TRY(linkat(AT_FDCWD, "target", AT_FDCWD, "n5", 0x40000000)), "n5", "at.unknown-flag");
	close(fd);
	discard("target");
	discard("n4");
	fd = (int)MUST(open("n2", O_RDWR));
	say(TRY(unlink("n2")), NULL, "unlinked");
	say(give_name(fd, "back"), "back", "resurrect");
	close(fd);
	say(TRY(link("target", "/proc/x")), NULL, "other-device");
	discard("n1");
	discard("n5");
	discard("link");
}

/* As many links as the file system takes: that they end, and how. */
static void link_many(void)
{
	unsigned most = level == LONG ? 70000 : 300;
	long result = 0;
	char name[16];
	unsigned count;

	MUST(mkdir("many", 0755));
	make(FILE_, "many/0");
	for (count = 1; count < most && !result; count++) {
		snprintf(name, sizeof(name), "many/%u", count);
		result = TRY(link("many/0", name));
	}
	say(result, "many/0", "many");
	discard("many");
}

static void run_link(void)
{
	link_kinds();
	link_by_user();
	link_ways();
	link_many();
}

const struct topic topic_link = {"link", run_link};

/* ---- unlink and rmdir ---- */

static void remove_kinds(void)
{
	static const struct {
		const char *name;
		int flags;
	} ways[] = {{"unlink", 0}, {"rmdir", AT_REMOVEDIR}, {"unknown", 0x4000}};
	static const char *const suffixes[] = {"", "/", "/.", "/.."};

	for (unsigned way = 0; way < ARRAY_SIZE(ways); way++)
		for (unsigned kind = 0; kind <= ABSENT; kind++)
			for (unsigned s = 0; s < ARRAY_SIZE(suffixes); s++) {
				char name[16];
				long result;

				make_operand(kind, "x", "x");
				snprintf(name, sizeof(name), "x%s", suffixes[s]);
				watch(".");
				result = TRY(unlinkat(AT_FDCWD, name, ways[way].flags));
				say(result, "x", "%s.%s.[%s]", ways[way].name, operand_name(kind),
				    name);
				discard("x");
			}
	say(TRY(rmdir(".")), NULL, "rmdir.dot");
	say(TRY(rmdir("..")), NULL, "rmdir.dots");
	say(TRY(unlink(".")), NULL, "unlink.dot");
	say(TRY(rmdir("/")), NULL, "rmdir.root");
}

/* The other names of a file whose name goes. */
static void unlink_links(void)
{
	for (unsigned kind = 0; kind < KINDS; kind++) {
		if (kind == DIRECTORY || kind == FULL)
			continue;
		make(kind, "x");
		MUST(link("x", "y"));
		watch("y");
		say(TRY(unlink("x")), "y", "links.%s", kind_name(kind));
		discard("y");
	}
}

/* An object whose last name is gone lives on with who has it open. */
static void unlinked_but_open(void)
{
	char bytes[8];
	int fd;

	make_owned(FILE_, "x", 0644);
	fd = (int)MUST(open("x", O_RDWR));
	say(TRY(unlink("x")), NULL, "open.unlink");
	watch_fd("x", fd);
	say_fd(TRY(pwrite(fd, "more", 4, 10)), fd, "open.write");
	watch_fd("x", fd);
	say_fd(TRY(pread(fd, bytes, 8, 0)), fd, "open.read");
	watch_fd("x", fd);
	say_fd(TRY(ftruncate(fd, 3)), fd, "open.truncate");
	watch_fd("x", fd);
	say_fd(TRY(fchmod(fd, 0600)), fd, "open.chmod");
	watch_fd("x", fd);
	say_fd(TRY(fchown(fd, 7004, 7004)), fd, "open.chown");
	watch_fd("x", fd);
	say_fd(TRY(futimens(fd, NULL)), fd, "open.utimes");
	watch_fd("x", fd);
	say_fd(TRY(fsetxattr(fd, "user.x", "1", 1, 0)), fd, "open.setxattr");
	say_fd(TRY(fgetxattr(fd, "user.x", bytes, 8)), fd, "open.getxattr");
	say_fd(TRY(fallocate(fd, 0, 0, 9000)), fd, "open.fallocate");
	say_fd(TRY(fsync(fd)), fd, "open.fsync");
	close(fd);
}

static void removed_directory(void)
{
	struct stat st;
	int fd;

	MUST(mkdir("d", 0755));
	fd = (int)MUST(open("d", O_RDONLY | O_DIRECTORY));
	say(TRY(rmdir("d")), NULL, "directory.rmdir");
	MUST(fstat(fd, &st));
	say((long)st.st_nlink, NULL, "directory.links");
	say(TRY_FD(openat(fd, "x", O_CREAT | O_RDWR, 0644)), NULL, "directory.create");
	say(TRY(mkdirat(fd, "x", 0755)), NULL, "directory.mkdir");
	say(TRY(symlinkat("x", fd, "x")), NULL, "directory.symlink");
	say(TRY(mknodat(fd, "x", S_IFREG, 0)), NULL, "directory.mknod");
	say(TRY(fstatat(fd, "x", &st, 0)), NULL, "directory.stat");
	say(TRY(fstatat(fd, ".", &st, 0)), NULL, "directory.stat-dot");
	say(TRY(fchmod(fd, 0700)), NULL, "directory.chmod");
	say(TRY(fchown(fd, 1, 1)), NULL, "directory.chown");
	say(TRY(futimens(fd, NULL)), NULL, "directory.utimes");
	say(TRY(fsync(fd)), NULL, "directory.fsync");
	say(TRY(fchdir(fd)), NULL, "directory.chdir");
	say(TRY(syscall(SYS_getcwd, (char[64]){0}, 64)) < 0 ? -ENOENT : 0, NULL,
	    "directory.getcwd");
	say(TRY_FD(open("..", O_RDONLY)), NULL, "directory.up");
	close(fd);
	MUST(chdir(".."));
}

static void removed_working_directory(void)
{
	MUST(mkdir("d", 0755));
	MUST(chdir("d"));
	say(TRY(rmdir("../d")), NULL, "working.rmdir");
	say(TRY_FD(open(".", O_RDONLY)), NULL, "working.open");
	say(TRY_FD(open("x", O_CREAT | O_WRONLY, 0644)), NULL, "working.create");
	MUST(chdir(".."));
}

static void run_unlink(void)
{
	remove_kinds();
	unlink_links();
	unlinked_but_open();
	removed_working_directory();
	removed_directory();
}

const struct topic topic_unlink = {"unlink", run_unlink};
