/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kit.c - users, objects, times and lines of the probe
 *
 * The probe takes on a user with real and effective ids, so that access(2), which checks the real
 * ones, uses the same user. The saved uid stays root's, so that the probe can become root again.
 *
 * Times: a changed time is only visible if the clock has moved on since. Some file systems have
 * fine times once they were asked for (multigrain, Linux 6.13); there, asking is enough. Otherwise
 * tick() waits for the clock that the kernel takes the times from.
 */
#include "kit.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <ftw.h>
#include <grp.h>

#define WATCHED_MAX 4
#define LONG_PAST   1000000000

const struct user users[USERS] = {
	{"root", 0, 0, 0},
	{"owner", OWNER, OWNER_GROUP, 0},
	{"member", 7002, 7002, OWNER_GROUP},
	{"primary", 7003, OWNER_GROUP, 0},
	{"other", 7004, 7004, 7005},
};

enum level level = WHOLE;

const char *current_topic = "probe";

struct watched {
	const char *label; /* the name, or the descriptor's label */
	int fd;            /* -1: by name */
	struct stat before;
};

static struct watched watched[WATCHED_MAX];
static unsigned watched_count;

void die(const char *format, ...)
{
	int error = errno;
	va_list args;

	fflush(stdout);
	fprintf(stderr, "posix_probe: %s: ", current_topic);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, ": %s\n", strerror(error));
	_exit(EXIT_FAILURE);
}

/* ---- users ---- */

/* Raw calls: glibc's would tell every thread, and there is only this one. */
void as_root(void)
{
	int error = errno;

	if (syscall(SYS_setresuid, 0, 0, 0) || syscall(SYS_setresgid, 0, 0, 0) ||
	    syscall(SYS_setgroups, 0, NULL))
		die("becoming root again");
	errno = error;
}

void as(int user)
{
	const struct user *u = &users[user];
	gid_t group = u->group;

	if (syscall(SYS_setgroups, group ? 1 : 0, &group) ||
	    syscall(SYS_setresgid, u->gid, u->gid, u->gid) ||
	    syscall(SYS_setresuid, u->uid, u->uid, 0))
		die("becoming %s", u->name);
}

bool take(void)
{
	static unsigned cases;

	return level != BRIEF || cases++ % 5 == 0;
}

long close_result(long fd)
{
	if (fd < 0)
		return fd;
	close((int)fd);
	return 0;
}

/* ---- objects ---- */

void make_file(const char *name, const void *content, size_t length)
{
	int fd = (int)MUST(open(name, O_CREAT | O_WRONLY | O_TRUNC | O_NOFOLLOW, 0644));

	if (length && write(fd, content, length) != (ssize_t)length)
		die("writing %s", name);
	close(fd);
}

static void make_socket(const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
	MUST(bind(fd, (struct sockaddr *)&address, sizeof(address)));
	close(fd);
}

static void make_full_directory(const char *name)
{
	char inner[64];

	MUST(mkdir(name, 0755));
	snprintf(inner, sizeof(inner), "%s/in", name);
	make_file(inner, "in", 2);
}

void make(enum kind kind, const char *name)
{
	switch (kind) {
	case FILE_:
		make_file(name, "bytes", 5);
		break;
	case EMPTY:
		make_file(name, NULL, 0);
		break;
	case DIRECTORY:
		MUST(mkdir(name, 0755));
		break;
	case FULL:
		make_full_directory(name);
		break;
	case SYMLINK:
		MUST(symlink("target", name));
		break;
	case DANGLING:
		MUST(symlink("nothing", name));
		break;
	case TO_DIRECTORY:
		MUST(symlink("there", name));
		break;
	case FIFO:
		MUST(mkfifo(name, 0644));
		break;
	case SOCKET:
		make_socket(name);
		break;
	case DEVICE:
		MUST(mknod(name, S_IFCHR | 0644, makedev(1, 3)));
		break;
	}
}

void make_owned(enum kind kind, const char *name, mode_t mode)
{
	make(kind, name);
	MUST(lchown(name, OWNER, OWNER_GROUP));
	if (kind != SYMLINK && kind != DANGLING && kind != TO_DIRECTORY)
		MUST(chmod(name, mode));
}

const char *kind_name(enum kind kind)
{
	static const char *const names[] = {
		"file",     "empty",    "dir",  "full-dir", "symlink",
		"dangling", "dir-link", "fifo", "socket",   "device",
	};

	return names[kind];
}

static int discard_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void discard(const char *name)
{
	if (remove(name) == 0 || errno == ENOENT)
		return;
	if (nftw(name, discard_one, 16, FTW_DEPTH | FTW_PHYS))
		die("removing %s", name);
}

/* ---- times ---- */

static void stat_watched(const struct watched *w, struct stat *ret_stat)
{
	if (w->fd >= 0)
		MUST(fstat(w->fd, ret_stat));
	else if (lstat(w->label, ret_stat))
		*ret_stat = (struct stat){0};
}

/* Whether two changes right after one another have different times, once somebody has looked. */
static bool times_are_fine(void)
{
	struct stat before;
	struct stat after;
	unsigned same = 0;

	make_file("fine", NULL, 0);
	for (unsigned round = 0; round < 16; round++) {
		MUST(stat("fine", &before));
		MUST(chmod("fine", 0600 + (round & 1)));
		MUST(stat("fine", &after));
		same += before.st_ctim.tv_nsec == after.st_ctim.tv_nsec;
	}
	MUST(unlink("fine"));
	return !same;
}

void tick(void)
{
	static int fine = -1;
	const struct timespec step = {.tv_nsec = 200000};
	struct timespec start;
	struct timespec now;

	if (fine < 0)
		fine = times_are_fine();
	if (fine)
		return;
	clock_gettime(CLOCK_REALTIME_COARSE, &start);
	do {
		nanosleep(&step, NULL);
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	} while (now.tv_sec == start.tv_sec && now.tv_nsec == start.tv_nsec);
}

static void watch_one(const char *label, int fd)
{
	/* atime before mtime: so that a read moves it under relatime too. */
	const struct timespec past[2] = {{.tv_sec = LONG_PAST}, {.tv_sec = LONG_PAST + 1}};
	struct watched *w = &watched[watched_count++];

	tick();
	*w = (struct watched){.label = label, .fd = fd};
	if (fd >= 0)
		MUST(futimens(fd, past));
	else
		MUST(utimensat(AT_FDCWD, label, past, AT_SYMLINK_NOFOLLOW));
	stat_watched(w, &w->before);
	tick();
}

void watch(const char *name)
{
	watch_one(name, -1);
}

void watch_fd(const char *label, int fd)
{
	watch_one(label, fd);
}

static bool differ(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec || a->tv_nsec != b->tv_nsec;
}

static void put_watched(void)
{
	for (unsigned index = 0; index < watched_count; index++) {
		const struct watched *w = &watched[index];
		struct stat now;

		stat_watched(w, &now);
		if (!now.st_mode) {
			printf(", %s gone", w->label);
			continue;
		}
		printf(", %s %s%s%s", w->label,
		       differ(&w->before.st_atim, &now.st_atim) ? "a" : "-",
		       differ(&w->before.st_mtim, &now.st_mtim) ? "m" : "-",
		       differ(&w->before.st_ctim, &now.st_ctim) ? "c" : "-");
	}
	watched_count = 0;
}

/* ---- lines ---- */

const char *result_name(long result)
{
	static char number[24];

	if (result == 0)
		return "ok";
	if (result < 0 && strerrorname_np((int)-result))
		return strerrorname_np((int)-result);
	snprintf(number, sizeof(number), "%ld", result);
	return number;
}

static const char *owner_name(char buffer[16], unsigned id)
{
	snprintf(buffer, 16, "%u", id);
	return id == 0 ? "root" : id == OWNER ? "owner" : buffer;
}

static const char *describe_stat(const struct stat *st)
{
	static const char types[] = "?pc?d?b?f?l?s???";
	static char text[128];
	char user[16];
	char group[16];
	int length = snprintf(text, sizeof(text), "%c %04o %s:%s links %lu",
			      types[st->st_mode >> 12 & 15], st->st_mode & 07777,
			      owner_name(user, st->st_uid), owner_name(group, st->st_gid),
			      (unsigned long)st->st_nlink);

	if (S_ISREG(st->st_mode) || S_ISLNK(st->st_mode))
		snprintf(text + length, sizeof(text) - (size_t)length, " size %lld",
			 (long long)st->st_size);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		snprintf(text + length, sizeof(text) - (size_t)length, " device %u:%u",
			 major(st->st_rdev), minor(st->st_rdev));
	return text;
}

const char *describe(const char *name)
{
	struct stat st;

	if (lstat(name, &st))
		return errno == ENOENT ? "absent" : strerrorname_np(errno);
	return describe_stat(&st);
}

__attribute__((format(printf, 1, 0))) static void put_label(const char *label, va_list args)
{
	printf("%s.", current_topic);
	vprintf(label, args);
	printf(": ");
}

void say(long result, const char *name, const char *label, ...)
{
	va_list args;

	va_start(args, label);
	put_label(label, args);
	va_end(args);
	printf("%s", result_name(result));
	if (name)
		printf(", %s", describe(name));
	put_watched();
	putchar('\n');
}

void say_fd(long result, int fd, const char *label, ...)
{
	struct stat st;
	va_list args;

	va_start(args, label);
	put_label(label, args);
	va_end(args);
	MUST(fstat(fd, &st));
	printf("%s, %s", result_name(result), describe_stat(&st));
	put_watched();
	putchar('\n');
}

void say_text(const char *text, const char *label, ...)
{
	va_list args;

	va_start(args, label);
	put_label(label, args);
	va_end(args);
	printf("%s", text);
	put_watched();
	putchar('\n');
}
