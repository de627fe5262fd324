/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names.c - create, stat, open, chmod, list or unlink many files; prints one JSON object
 *
 *	names create|stat|open|chmod|list|unlink DIRECTORY FILES [PASSES [UID]]
 *
 * The files are empty, FILES of them, 1000 to a directory below DIRECTORY, which must exist. Each
 * command goes over all of them PASSES times (default: 1; create and unlink work only once), in an
 * order that is the same in every run. Only this is timed. stat visits the files in another order
 * than create made them. open reads nothing, and closes. list reads every directory to its end and
 * counts: any number other than FILES is an error. With UID everything is done as that user, who
 * must own DIRECTORY.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PER_DIRECTORY 1000u
#define STRIDE        7919u /* a prime: no multiple of it comes back before all had their turn */
#define NAME_BYTES    64u

static int top; /* the directory that holds the others */

_Noreturn static void die(const char *what)
{
	fprintf(stderr, "names: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void directory_name(char name[NAME_BYTES], uint64_t number)
{
	snprintf(name, NAME_BYTES, "d%05" PRIu64, number / PER_DIRECTORY);
}

static void file_name(char name[NAME_BYTES], uint64_t number)
{
	snprintf(name, NAME_BYTES, "d%05" PRIu64 "/f%08" PRIu64, number / PER_DIRECTORY, number);
}

static void create_all(uint64_t files)
{
	char name[NAME_BYTES];

	for (uint64_t i = 0; i < files; i++) {
		if (i % PER_DIRECTORY == 0) {
			directory_name(name, i);
			if (mkdirat(top, name, 0755))
				die(name);
		}
		file_name(name, i);
		int fd = openat(top, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
		if (fd < 0 || close(fd))
			die(name);
	}
}

static void stat_all(uint64_t files)
{
	uint64_t stride = files % STRIDE ? STRIDE : 1;
	char name[NAME_BYTES];
	struct stat st;

	for (uint64_t i = 0; i < files; i++) {
		file_name(name, i * stride % files);
		if (fstatat(top, name, &st, AT_SYMLINK_NOFOLLOW))
			die(name);
	}
}

static void open_all(uint64_t files)
{
	char name[NAME_BYTES];

	for (uint64_t i = 0; i < files; i++) {
		file_name(name, i);
		int fd = openat(top, name, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || close(fd))
			die(name);
	}
}

/* To another mode than create gives. */
static void chmod_all(uint64_t files)
{
	char name[NAME_BYTES];

	for (uint64_t i = 0; i < files; i++) {
		file_name(name, i);
		if (fchmodat(top, name, 0600, 0))
			die(name);
	}
}

static uint64_t list_one(const char *name)
{
	int fd = openat(top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	uint64_t count = 0;

	if (!directory)
		die(name);
	errno = 0;
	for (const struct dirent *entry; (entry = readdir(directory));)
		count += entry->d_name[0] == 'f';
	if (errno)
		die(name);
	closedir(directory);
	return count;
}

static void list_all(uint64_t files)
{
	char name[NAME_BYTES];
	uint64_t count = 0;

	for (uint64_t i = 0; i < files; i += PER_DIRECTORY) {
		directory_name(name, i);
		count += list_one(name);
	}
	if (count != files) {
		fprintf(stderr, "names: %" PRIu64 " files are listed\n", count);
		exit(1);
	}
}

static void unlink_all(uint64_t files)
{
	char name[NAME_BYTES];

	for (uint64_t i = 0; i < files; i++) {
		file_name(name, i);
		if (unlinkat(top, name, 0))
			die(name);
		if (i % PER_DIRECTORY == PER_DIRECTORY - 1 || i == files - 1) {
			directory_name(name, i);
			if (unlinkat(top, name, AT_REMOVEDIR))
				die(name);
		}
	}
}

static void become(const char *user)
{
	uid_t uid = (uid_t)strtoumax(user, NULL, 10);

	if (!uid || setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		die(user);
}

int main(int argc, char *argv[])
{
	static const struct {
		const char *name;
		void (*work)(uint64_t files);
	} works[] = {{"create", create_all}, {"stat", stat_all}, {"open", open_all},
		     {"chmod", chmod_all},   {"list", list_all}, {"unlink", unlink_all}};
	uint64_t files = argc >= 4 && argc <= 6 ? strtoumax(argv[3], NULL, 10) : 0;
	uint64_t passes = argc >= 5 ? strtoumax(argv[4], NULL, 10) : 1;

	for (size_t i = 0; files && passes && i < sizeof(works) / sizeof(works[0]); i++) {
		if (strcmp(argv[1], works[i].name) != 0)
			continue;
		top = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (top < 0)
			die(argv[2]);
		if (argc == 6)
			become(argv[5]);
		uint64_t began = now_ns();
		for (uint64_t pass = 0; pass < passes; pass++)
			works[i].work(files);
		double seconds = (double)(now_ns() - began) / 1e9;
		printf("{\"op\": \"%s\", \"ops\": %" PRIu64 ", \"seconds\": %.6f, "
		       "\"ops_per_s\": %.1f}\n",
		       argv[1], files * passes, seconds, (double)(files * passes) / seconds);
		return 0;
	}
	fprintf(stderr, "usage: names create|stat|open|chmod|list|unlink DIRECTORY FILES "
			"[PASSES [UID]]\n");
	return 2;
}
