/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_mode.c - chmod, chown, and when set-id bits are cleared
 */
#include "kit.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

static const enum kind kinds[] = {FILE_, DIRECTORY, FIFO, SOCKET, DEVICE, SYMLINK};

/* ---- chmod ---- */

static long chmod_fd(const char *name, mode_t mode)
{
	int fd = open(name, O_RDONLY | O_NONBLOCK);
	long result;

	if (fd < 0)
		return -errno;
	result = TRY(fchmod(fd, mode));
	close(fd);
	return result;
}

static void chmod_by_user(void)
{
	static const mode_t modes[] = {0000,  0644,  0777,  01777, 02755,
				       02644, 04755, 06777, 07777, 0111};

	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
		if (kinds[k] == SYMLINK)
			continue;
		for (int user = 0; user < USERS; user++) {
			make_owned(kinds[k], "x", 0640);
			for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
				long result;

				watch("x");
				as(user);
				result = TRY(chmod("x", modes[m]));
				as_root();
				say(result, "x", "chmod.%s.%s.%04o", kind_name(kinds[k]),
				    users[user].name, modes[m]);
			}
			discard("x");
		}
	}
}

/* Set-gid of a file whose group the caller is not in is taken off by the kernel. */
static void chmod_foreign_group(void)
{
	static const gid_t groups[] = {0, OWNER_GROUP, 7004};
	static const mode_t modes[] = {02755, 02644, 06755, 02000};

	for (unsigned g = 0; g < ARRAY_SIZE(groups); g++)
		for (int user = 0; user < USERS; user++)
			for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
				for (int directory = 0; directory < 2; directory++) {
					long result;

					make(directory ? DIRECTORY : FILE_, "x");
					MUST(chown("x", users[user].uid, groups[g]));
					as(user);
					result = TRY(chmod("x", modes[m]));
					as_root();
					say(result, "x", "group-%u.%s.%04o.%s", groups[g],
					    users[user].name, modes[m], directory ? "dir" : "file");
					discard("x");
				}
}

static void chmod_ways(void)
{
	make(FILE_, "target");
	make(SYMLINK, "link");
	make(DANGLING, "dangling");
	make(DIRECTORY, "d");
	say(TRY(chmod("link", 0600)), "target", "through-link");
	say(TRY(chmod("dangling", 0600)), NULL, "through-dangling");
	say(TRY(fchmodat(AT_FDCWD, "link", 0640, 0)), "target", "fchmodat");
	say(TRY(syscall(SYS_fchmodat2, AT_FDCWD, "link", 0640, AT_SYMLINK_NOFOLLOW)), "link",
	    "fchmodat2.link");
	say(TRY(syscall(SYS_fchmodat2, AT_FDCWD, "target", 0641, AT_SYMLINK_NOFOLLOW)), "target",
	    "fchmodat2.file");
	say(chmod_fd("target", 04711), "target", "fchmod.file");
	say(chmod_fd("d", 01711), "d", "fchmod.dir");
	int fd = (int)MUST(open("target", O_PATH));
	say(TRY(fchmod(fd, 0)), "target", "fchmod.path-descriptor");
	say(TRY(syscall(SYS_fchmodat2, fd, "", 0600, AT_EMPTY_PATH)), "target",
	    "fchmodat2.path-descriptor");
	close(fd);
	say(TRY(chmod("target", 0177777)), "target", "more-bits");
	discard("target");
	discard("link");
	discard("dangling");
	discard("d");
}

static void run_chmod(void)
{
	chmod_by_user();
	chmod_foreign_group();
	chmod_ways();
}

const struct topic topic_chmod = {"chmod", run_chmod};

/* ---- chown ---- */

static const struct {
	const char *name;
	uid_t uid;
	gid_t gid;
} owners[] = {
	{"none", (uid_t)-1, (gid_t)-1},
	{"same", OWNER, OWNER_GROUP},
	{"same-uid", OWNER, (gid_t)-1},
	{"same-gid", (uid_t)-1, OWNER_GROUP},
	{"uid", 7004, (gid_t)-1},
	{"gid", (uid_t)-1, 7004},
	{"own-gid", (uid_t)-1, 7002},
	{"both", 7004, 7004},
	{"root", 0, 0},
};

static void chown_case(enum kind kind, int user, unsigned owner, mode_t mode)
{
	long result;

	if (!take())
		return;
	make_owned(kind, "x", mode);
	watch("x");
	as(user);
	result = TRY(lchown("x", owners[owner].uid, owners[owner].gid));
	as_root();
	say(result, "x", "%s.%04o.%s.%s", kind_name(kind), mode, users[user].name,
	    owners[owner].name);
	discard("x");
}

static void chown_by_user(void)
{
	static const mode_t modes[] = {06755, 06644, 02644, 0644};

	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
		for (int user = 0; user < USERS; user++)
			for (unsigned owner = 0; owner < ARRAY_SIZE(owners); owner++)
				for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
					if (m == 0 || kinds[k] == FILE_ || kinds[k] == DIRECTORY)
						chown_case(kinds[k], user, owner, modes[m]);
}

/* An owner may give a file to groups it is in. */
static void chown_to_own_group(void)
{
	static const gid_t groups[] = {0, 7001, 7002, 7003, 7004, 7005};

	for (int user = 0; user < USERS; user++)
		for (unsigned g = 0; g < ARRAY_SIZE(groups); g++)
			for (int bits = 0; bits < 2; bits++) {
				long result;

				make(FILE_, "x");
				MUST(chown("x", users[user].uid, 7009));
				MUST(chmod("x", bits ? 06755 : 06745));
				as(user);
				result = TRY(chown("x", (uid_t)-1, groups[g]));
				as_root();
				say(result, "x", "own.%s.to-%u.%s", users[user].name, groups[g],
				    bits ? "executable" : "not-by-group");
				discard("x");
			}
}

static void chown_ways(void)
{
	int fd;

	make(FILE_, "target");
	make(SYMLINK, "link");
	make(DANGLING, "dangling");
	say(TRY(chown("link", 7004, 7004)), "link", "chown.through.link");
	say(0, "target", "chown.through.target");
	say(TRY(chown("dangling", 7004, 7004)), NULL, "chown.dangling");
	say(TRY(lchown("dangling", 7004, 7004)), "dangling", "lchown.dangling");
	fd = (int)MUST(open("target", O_RDONLY));
	say(TRY(fchown(fd, 7002, 7003)), "target", "fchown");
	say(TRY(fchownat(fd, "", 7003, 7002, AT_EMPTY_PATH)), "target", "fchownat.empty");
	close(fd);
	fd = (int)MUST(open("link", O_PATH | O_NOFOLLOW));
	say(TRY(fchown(fd, 1, 1)), "link", "fchown.path-descriptor");
	say(TRY(fchownat(fd, "", 7003, 7002, AT_EMPTY_PATH)), "link", "fchownat.empty.link");
	close(fd);
	say(TRY(chown("target", 0xfffffffe, 0xfffffffe)), "target", "largest-ids");
	discard("target");
	discard("link");
	discard("dangling");
}

static void run_chown(void)
{
	chown_by_user();
	chown_to_own_group();
	chown_ways();
}

const struct topic topic_chown = {"chown", run_chown};

/* ---- set-id bits ---- */

static char *mapped(int fd)
{
	char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		die("mapping");
	return map;
}

static long act_map(int fd)
{
	char *map = mapped(fd);
	long result;

	map[0] = 'm';
	result = TRY(msync(map, 4096, MS_SYNC));
	munmap(map, 4096);
	return result;
}

static long act_writev(int fd)
{
	struct iovec part = {.iov_base = (char[1]){'v'}, .iov_len = 1};

	return TRY(writev(fd, &part, 1));
}

static long act_copy(int fd)
{
	int from = (int)MUST(open("from", O_RDONLY));
	long result = TRY(copy_file_range(from, NULL, fd, NULL, 4, 0));

	close(from);
	return result;
}

static long act_sendfile(int fd)
{
	int from = (int)MUST(open("from", O_RDONLY));
	long result = TRY(sendfile(fd, from, NULL, 4));

	close(from);
	return result;
}

#define ACT(name, call)                                                                            \
	static long name(int fd)                                                                   \
	{                                                                                          \
		(void)fd;                                                                          \
		return TRY(call);                                                                  \
	}

ACT(act_write, write(fd, "w", 1))
ACT(act_write_none, write(fd, "w", 0))
ACT(act_pwrite_end, pwrite(fd, "w", 1, 100))
ACT(act_write_big, pwrite(fd, (char[8192]){0}, 8192, 0))
ACT(act_truncate, ftruncate(fd, 2))
ACT(act_truncate_same, ftruncate(fd, 5))
ACT(act_truncate_path, truncate("x", 2))
ACT(act_open_truncate, close_result(TRY(open("x", O_WRONLY | O_TRUNC))))
ACT(act_allocate, fallocate(fd, 0, 0, 8192))
ACT(act_keep_size, fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 8192))
ACT(act_punch, fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 4096))
ACT(act_zero_range, fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096))
ACT(act_utimes, futimens(fd, NULL))
ACT(act_read, read(fd, (char[4]){0}, 4))
ACT(act_fsync, fsync(fd))
ACT(act_setxattr, fsetxattr(fd, "user.x", "1", 1, 0))
ACT(act_link, link("x", "y") ?: unlink("y"))
ACT(act_rename, rename("x", "y") ?: rename("y", "x"))

static const struct {
	const char *name;
	long (*act)(int fd);
} acts[] = {
	{"write", act_write},
	{"write-nothing", act_write_none},
	{"write-behind-the-end", act_pwrite_end},
	{"write-much", act_write_big},
	{"writev", act_writev},
	{"ftruncate", act_truncate},
	{"ftruncate-same", act_truncate_same},
	{"truncate", act_truncate_path},
	{"open-truncate", act_open_truncate},
	{"fallocate", act_allocate},
	{"keep-size", act_keep_size},
	{"punch", act_punch},
	{"zero-range", act_zero_range},
	{"copy-file-range", act_copy},
	{"sendfile", act_sendfile},
	{"map", act_map},
	{"utimes", act_utimes},
	{"read", act_read},
	{"fsync", act_fsync},
	{"setxattr", act_setxattr},
	{"link", act_link},
	{"rename", act_rename},
};

static void set_id_case(unsigned act, int user, mode_t mode, int flags, const char *how)
{
	long result;
	int fd;

	if (!take())
		return;
	make_owned(FILE_, "x", mode);
	fd = (int)MUST(open("x", O_RDWR | flags));
	as(user);
	result = acts[act].act(fd);
	as_root();
	close(fd);
	say(result, "x", "%s%s.%04o.%s", acts[act].name, how, mode, users[user].name);
	discard("x");
}

/* A file that root opened is handed to the user, who changes it: the caller of the write counts. */
static void set_id_by_act(void)
{
	static const mode_t modes[] = {06777, 06767, 04666, 02676, 02666, 01777};

	make_file("from", "from", 4);
	for (unsigned act = 0; act < ARRAY_SIZE(acts); act++)
		for (int user = 0; user < USERS; user++)
			for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
				set_id_case(act, user, modes[m], 0, "");
	for (int user = 0; user < USERS; user++)
		for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
			set_id_case(0, user, modes[m], O_APPEND, ".append");
	discard("from");
}

/* A file with a capability loses it by the same changes, also by root's. */
static void capability_by_act(void)
{
	/* VFS_CAP_REVISION_2, effective, CAP_NET_RAW permitted. */
	static const unsigned char value[20] = {1, 0, 0, 2, 0, 0x20};

	make_file("from", "from", 4);
	for (unsigned act = 0; act <= ARRAY_SIZE(acts); act++)
		for (int user = 0; user < USERS; user += USER_OTHER) {
			char text[64];
			long result;
			int fd;

			make_owned(FILE_, "x", 0777);
			MUST(setxattr("x", "security.capability", value, sizeof(value), 0));
			fd = (int)MUST(open("x", O_RDWR));
			as(user);
			result = act < ARRAY_SIZE(acts) ? acts[act].act(fd)
							: TRY(chown("x", OWNER, 7001));
			as_root();
			close(fd);
			snprintf(text, sizeof(text), "%s, ", result_name(result));
			strcat(text,
			       result_name(TRY(getxattr("x", "security.capability", NULL, 0))));
			say_text(text, "capability.%s.%s",
				 act < ARRAY_SIZE(acts) ? acts[act].name : "chown",
				 users[user].name);
			discard("x");
		}
	discard("from");
}

static void run_set_id(void)
{
	set_id_by_act();
	capability_by_act();
}

const struct topic topic_set_id = {"set-id", run_set_id};
