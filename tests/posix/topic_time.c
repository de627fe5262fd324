/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_time.c - utimensat by everybody, and which times each operation changes
 */
#include "calls.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* ---- setting ---- */

static const struct {
	const char *name;
	bool null;
	struct timespec times[2];
} settings[] = {
	{"null", true, {{0}}},
	{"now-now", false, {{0, UTIME_NOW}, {0, UTIME_NOW}}},
	{"now-omit", false, {{0, UTIME_NOW}, {0, UTIME_OMIT}}},
	{"omit-now", false, {{0, UTIME_OMIT}, {0, UTIME_NOW}}},
	{"omit-omit", false, {{0, UTIME_OMIT}, {0, UTIME_OMIT}}},
	{"set-set", false, {{1234567890, 123456789}, {987654321, 987654321}}},
	{"set-omit", false, {{1234567890, 123456789}, {0, UTIME_OMIT}}},
	{"omit-set", false, {{0, UTIME_OMIT}, {987654321, 999999999}}},
	{"set-now", false, {{1234567890, 1}, {0, UTIME_NOW}}},
	{"now-set", false, {{0, UTIME_NOW}, {987654321, 1}}},
	{"bad", false, {{1, 1000000000}, {1, 1}}},
	{"negative-fraction", false, {{1, -5}, {1, 1}}},
	{"ignored-seconds", false, {{77, UTIME_OMIT}, {88, UTIME_NOW}}},
};

static void set_by_user(void)
{
	static const mode_t modes[] = {0666, 0644, 0200, 0000};

	for (unsigned s = 0; s < ARRAY_SIZE(settings); s++)
		for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
			for (int user = 0; user < USERS; user++) {
				long result;

				make_owned(FILE_, "x", modes[m]);
				watch("x");
				as(user);
				result = TRY(utimensat(AT_FDCWD, "x",
						       settings[s].null ? NULL : settings[s].times,
						       0));
				as_root();
				say(result, NULL, "set.%s.%04o.%s", settings[s].name, modes[m],
				    users[user].name);
				discard("x");
			}
}

static void say_times(long result, const char *name, const char *label, const char *part)
{
	char text[160];
	struct stat st;

	MUST(lstat(name, &st));
	snprintf(text, sizeof(text), "%s, %lld.%09ld, %lld.%09ld", result_name(result),
		 (long long)st.st_atim.tv_sec, st.st_atim.tv_nsec, (long long)st.st_mtim.tv_sec,
		 st.st_mtim.tv_nsec);
	say_text(text, "%s.%s", label, part);
}

/* What is read back: to the nanosecond, before 1970, far in the future. */
static void exact(void)
{
	static const struct {
		const char *name;
		struct timespec time;
	} times[] = {
		{"zero", {0, 0}},
		{"one", {0, 1}},
		{"fraction", {1, 999999999}},
		{"1969", {-1, 5}},
		{"1901", {-2147483648ll, 0}},
		{"before-1901", {-2147483649ll, 0}},
		{"2038", {2147483648ll, 123}},
		{"2106", {4294967296ll, 456}},
		{"2446", {15032385535ll, 789}},
		{"2446-and-more", {15032385536ll, 1}},
		{"year-9999", {253402300799ll, 1}},
		{"far", {0x7fffffffffffffll, 1}},
	};
	static const enum kind kinds[] = {FILE_, DIRECTORY, SYMLINK, FIFO, DEVICE};

	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
		make(kinds[k], "x");
		for (unsigned t = 0; t < ARRAY_SIZE(times); t++) {
			const struct timespec both[2] = {times[t].time, times[t].time};
			long result = TRY(utimensat(AT_FDCWD, "x", both, AT_SYMLINK_NOFOLLOW));

			say_times(result, "x", kind_name(kinds[k]), times[t].name);
		}
		discard("x");
	}
}

static void set_ways(void)
{
	const struct timespec times[2] = {{5, 6}, {7, 8}};
	const struct timeval old[2] = {{9, 10}, {11, 12}};
	int fd;

	make(FILE_, "target");
	make(SYMLINK, "link");
	make(DANGLING, "dangling");
	say_times(TRY(utimensat(AT_FDCWD, "link", times, 0)), "target", "way", "through-link");
	say_times(TRY(utimensat(AT_FDCWD, "link", times, AT_SYMLINK_NOFOLLOW)), "link", "way",
		  "link");
	say(TRY(utimensat(AT_FDCWD, "dangling", times, 0)), NULL, "way.dangling");
	say_times(TRY(utimes("target", old)), "target", "way", "utimes");
	fd = (int)MUST(open("target", O_RDONLY));
	say_times(TRY(futimens(fd, times)), "target", "way", "futimens-read-only");
	say_times(TRY(futimes(fd, old)), "target", "way", "futimes");
	close(fd);
	fd = (int)MUST(open("target", O_PATH));
	say(TRY(futimens(fd, times)), NULL, "way.path-descriptor");
	say_times(TRY(utimensat(fd, "", times, AT_EMPTY_PATH)), "target", "way", "empty-path");
	close(fd);
	discard("target");
	discard("link");
	discard("dangling");
}

/* ---- what changes them ---- */

static int opened;

static long read_all(const char *name)
{
	char bytes[64];
	int fd = open(name, O_RDONLY);
	long result;

	if (fd < 0)
		return -errno;
	result = TRY(read(fd, bytes, sizeof(bytes)));
	close(fd);
	return result;
}

static long map_read(void)
{
	char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, opened, 0);
	long byte;

	if (map == MAP_FAILED)
		return -errno;
	byte = *(volatile char *)map;
	munmap(map, 4096);
	return byte;
}

static long exec_it(void)
{
	MUST(chmod("d/x", 0755));
	return execute("d/x");
}

static long copy_from(void)
{
	int to = (int)MUST(open("to", O_CREAT | O_WRONLY, 0644));
	long result = TRY(copy_file_range(opened, &(off_t){0}, to, NULL, 3, 0));

	close(to);
	discard("to");
	return result;
}

static long copy_to(void)
{
	int from = (int)MUST(open("other", O_RDONLY));
	long result = TRY(copy_file_range(from, NULL, opened, &(off_t){1}, 3, 0));

	close(from);
	return result;
}

static long send_from(void)
{
	int to = (int)MUST(open("to", O_CREAT | O_WRONLY, 0644));
	long result = TRY(sendfile(to, opened, &(off_t){0}, 3));

	close(to);
	discard("to");
	return result;
}

#define ACT(name, call)                                                                            \
	static long name(void)                                                                     \
	{                                                                                          \
		return TRY(call);                                                                  \
	}

ACT(act_stat, stat("d/x", &(struct stat){0}))
ACT(act_access, access("d/x", R_OK))
ACT(act_open, close_result(TRY(open("d/x", O_RDONLY))))
ACT(act_open_write, close_result(TRY(open("d/x", O_RDWR))))
ACT(act_open_create, close_result(TRY(open("d/x", O_RDWR | O_CREAT, 0644))))
ACT(act_open_truncate, close_result(TRY(open("d/x", O_RDWR | O_TRUNC))))
ACT(act_read, pread(opened, (char[4]){0}, 4, 0))
ACT(act_read_end, pread(opened, (char[4]){0}, 4, 5))
ACT(act_read_none, pread(opened, (char[4]){0}, 0, 0))
ACT(act_write, pwrite(opened, "w", 1, 0))
ACT(act_write_same, pwrite(opened, "b", 1, 0))
ACT(act_write_none, pwrite(opened, "w", 0, 0))
ACT(act_append, pwrite(opened, "w", 1, 5))
ACT(act_ftruncate, ftruncate(opened, 2))
ACT(act_ftruncate_same, ftruncate(opened, 5))
ACT(act_ftruncate_up, ftruncate(opened, 50000))
ACT(act_truncate, truncate("d/x", 2))
ACT(act_truncate_same, truncate("d/x", 5))
ACT(act_allocate, fallocate(opened, 0, 0, 100))
ACT(act_allocate_within, fallocate(opened, 0, 0, 3))
ACT(act_allocate_keep, fallocate(opened, FALLOC_FL_KEEP_SIZE, 0, 100000))
ACT(act_punch, fallocate(opened, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 3))
ACT(act_punch_behind, fallocate(opened, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 8192, 4096))
ACT(act_zero_range, fallocate(opened, FALLOC_FL_ZERO_RANGE, 0, 3))
ACT(act_fsync, fsync(opened))
ACT(act_seek, lseek(opened, 0, SEEK_HOLE))
ACT(act_chmod, chmod("d/x", 0600))
ACT(act_chmod_same, chmod("d/x", 0644))
ACT(act_chown, chown("d/x", 1, 1))
ACT(act_chown_same, chown("d/x", 0, 0))
ACT(act_chown_none, chown("d/x", (uid_t)-1, (gid_t)-1))
ACT(act_setxattr, setxattr("d/x", "user.x", "1", 1, 0))
ACT(act_getxattr, getxattr("d/x", "user.none", NULL, 0))
ACT(act_listxattr, listxattr("d/x", NULL, 0))
ACT(act_removexattr, removexattr("d/x", "user.had"))
ACT(act_link, link("d/x", "d/y"))
ACT(act_unlink, unlink("d/x"))
ACT(act_unlink_other, unlink("d/linked"))
ACT(act_rename, rename("d/x", "d/y"))
ACT(act_rename_out, rename("d/x", "out"))
ACT(act_rename_same, rename("d/x", "d/linked"))
ACT(act_create, close_result(TRY(open("d/new", O_CREAT | O_WRONLY, 0644))))
ACT(act_mkdir, mkdir("d/new", 0755))
ACT(act_symlink, symlink("x", "d/new"))
ACT(act_mkfifo, mkfifo("d/new", 0644))
ACT(act_rmdir, rmdir("d/sub"))
ACT(act_rmdir_fails, rmdir("d"))
ACT(act_mkdir_fails, mkdir("d/sub", 0755))
ACT(act_tmpfile, close_result(TRY(open("d", O_TMPFILE | O_RDWR, 0600))))
ACT(act_readlink, readlink("d/link", (char[8]){0}, 8))
ACT(act_through_link, read_all("d/link"))
ACT(act_list, count_entries("d"))
ACT(act_list_sub, count_entries("d/sub"))
ACT(act_chdir, chdir("d") ?: chdir(".."))
ACT(act_lookup_none, stat("d/none", &(struct stat){0}))
ACT(act_flock, lockf(opened, F_TLOCK, 0))

static const struct {
	const char *name;
	long (*act)(void);
} acts[] = {
	{"stat", act_stat},
	{"access", act_access},
	{"open", act_open},
	{"open-write", act_open_write},
	{"open-create", act_open_create},
	{"open-truncate", act_open_truncate},
	{"read", act_read},
	{"read-at-end", act_read_end},
	{"read-nothing", act_read_none},
	{"write", act_write},
	{"write-same", act_write_same},
	{"write-nothing", act_write_none},
	{"append", act_append},
	{"ftruncate", act_ftruncate},
	{"ftruncate-same", act_ftruncate_same},
	{"ftruncate-up", act_ftruncate_up},
	{"truncate", act_truncate},
	{"truncate-same", act_truncate_same},
	{"fallocate", act_allocate},
	{"fallocate-within", act_allocate_within},
	{"fallocate-keep", act_allocate_keep},
	{"punch", act_punch},
	{"punch-behind", act_punch_behind},
	{"zero-range", act_zero_range},
	{"fsync", act_fsync},
	{"seek", act_seek},
	{"map-read", map_read},
	{"exec", exec_it},
	{"copy-from", copy_from},
	{"copy-to", copy_to},
	{"send-from", send_from},
	{"chmod", act_chmod},
	{"chmod-same", act_chmod_same},
	{"chown", act_chown},
	{"chown-same", act_chown_same},
	{"chown-none", act_chown_none},
	{"setxattr", act_setxattr},
	{"getxattr", act_getxattr},
	{"listxattr", act_listxattr},
	{"removexattr", act_removexattr},
	{"link", act_link},
	{"unlink", act_unlink},
	{"unlink-other", act_unlink_other},
	{"rename", act_rename},
	{"rename-out", act_rename_out},
	{"rename-to-own-link", act_rename_same},
	{"create", act_create},
	{"mkdir", act_mkdir},
	{"symlink", act_symlink},
	{"mkfifo", act_mkfifo},
	{"rmdir", act_rmdir},
	{"rmdir-fails", act_rmdir_fails},
	{"mkdir-fails", act_mkdir_fails},
	{"tmpfile", act_tmpfile},
	{"readlink", act_readlink},
	{"through-link", act_through_link},
	{"list", act_list},
	{"list-sub", act_list_sub},
	{"chdir", act_chdir},
	{"look-up-none", act_lookup_none},
	{"lock", act_flock},
};

/* The file d/x, its directory, a directory in that, and a symlink; all watched. */
static void change_case(unsigned act, int user)
{
	char text[128];
	long result;

	MUST(mkdir("d", 0755));
	make(FILE_, "d/x");
	make(FILE_, "other");
	MUST(setxattr("d/x", "user.had", "1", 1, 0));
	MUST(link("d/x", "d/linked"));
	MUST(mkdir("d/sub", 0755));
	MUST(symlink("x", "d/link"));
	if (user) {
		MUST(chmod("d", 0777));
		MUST(chmod("d/x", 0666));
		MUST(chmod("d/sub", 0777));
	}
	opened = (int)MUST(open("d/x", O_RDWR));
	watch_fd("x", opened);
	watch("d");
	watch("d/sub");
	watch("d/link");
	as(user);
	result = acts[act].act();
	as_root();
	snprintf(text, sizeof(text), "%s", result_name(result));
	say_text(text, "change.%s.%s", acts[act].name, users[user].name);
	close(opened);
	discard("d");
	discard("out");
	discard("other");
}

static void changes(void)
{
	for (unsigned act = 0; act < ARRAY_SIZE(acts); act++)
		for (int user = 0; user < USERS; user += USER_OTHER)
			if (!user || acts[act].act != exec_it)
				change_case(act, user);
}

/* Reads again of what was read: relatime says that the second one does not count, a read after a
 * change does. */
static void access_times(void)
{
	make(FILE_, "x");
	opened = (int)MUST(open("x", O_RDWR));
	watch("x");
	say(act_read(), NULL, "again.first");
	tick();
	say(act_read(), NULL, "again.second");
	MUST(pwrite(opened, "new", 3, 0));
	watch("x");
	say(act_read(), NULL, "again.after-write");
	watch("x");
	say(act_read(), NULL, "again.after-utimes");
	close(opened);
	opened = (int)MUST(open("x", O_RDWR | O_NOATIME));
	watch("x");
	say(act_read(), NULL, "again.noatime");
	close(opened);
	discard("x");
}

/* New objects have one time for all, and it is not before the directory's. */
static void new_objects(void)
{
	for (int kind = FILE_; kind <= DEVICE; kind++) {
		struct stat st;
		struct stat parent;
		char text[64];

		MUST(mkdir("d", 0755));
		watch("d");
		make(kind, "d/x");
		MUST(lstat("d/x", &st));
		MUST(lstat("d", &parent));
		snprintf(text, sizeof(text), "%s %s",
			 st.st_mtim.tv_sec - parent.st_mtim.tv_sec > 1 ? "later" : "now",
			 st.st_atim.tv_sec - st.st_ctim.tv_sec > 1 ? "odd" : "one");
		say_text(text, "new.%s", kind_name(kind));
		discard("d");
	}
}

static void run(void)
{
	set_by_user();
	exact();
	set_ways();
	changes();
	access_times();
	new_objects();
}

const struct topic topic_time = {"time", run};
