/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_size.c - sizes: truncate, fallocate, holes, limits, offsets far away
 */
#include "kit.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define KIB 1024ll
#define TIB (1024ll * 1024 * 1024 * 1024)

static long truncate_fd(const char *name, off_t size)
{
	int fd = open(name, O_RDWR | O_NONBLOCK);
	long result;

	if (fd < 0)
		return -errno;
	result = TRY(ftruncate(fd, size));
	close(fd);
	return result;
}

static void truncate_kinds(void)
{
	static const enum kind kinds[] = {FILE_,    EMPTY, DIRECTORY, SYMLINK,
					  DANGLING, FIFO,  SOCKET,    DEVICE};
	static const off_t sizes[] = {0, 3, 5, 4096, 5000, -1};

	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
		for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++)
			for (int way = 0; way < 2; way++) {
				long result;

				make(kinds[k], "x");
				if (kinds[k] == SYMLINK)
					make(FILE_, "target");
				watch("x");
				result = way ? truncate_fd("x", sizes[s])
					     : TRY(truncate("x", sizes[s]));
				say(result, kinds[k] == SYMLINK ? "target" : "x", "%s.%s.%lld",
				    way ? "ftruncate" : "truncate", kind_name(kinds[k]),
				    (long long)sizes[s]);
				discard("x");
				discard("target");
			}
}

static void truncate_by_user(void)
{
	static const mode_t modes[] = {0666, 0644, 0444, 0222, 06777};

	for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
		for (int user = 0; user < USERS; user++)
			for (off_t size = 0; size < 12; size += 5) {
				long result;

				make_owned(FILE_, "x", modes[m]);
				watch("x");
				as(user);
				result = TRY(truncate("x", size));
				as_root();
				say(result, "x", "by.%s.%04o.%lld", users[user].name, modes[m],
				    (long long)size);
				discard("x");
			}
}

static void truncate_modes_of_open(void)
{
	static const int modes[] = {O_RDONLY, O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_PATH};

	make(FILE_, "x");
	for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
		int fd = (int)MUST(open("x", modes[m]));

		say(TRY(ftruncate(fd, 2)), "x", "open.%u.ftruncate", m);
		say(TRY(fallocate(fd, 0, 0, 10)), "x", "open.%u.fallocate", m);
		say(TRY(posix_fallocate(fd, 0, 20)), "x", "open.%u.posix_fallocate", m);
		close(fd);
	}
	discard("x");
}

/* ---- fallocate ---- */

static const struct {
	const char *name;
	int mode;
} modes[] = {
	{"plain", 0},
	{"keep", FALLOC_FL_KEEP_SIZE},
	{"punch", FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE},
	{"punch-only", FALLOC_FL_PUNCH_HOLE},
	{"zero", FALLOC_FL_ZERO_RANGE},
	{"zero-keep", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE},
	{"collapse", FALLOC_FL_COLLAPSE_RANGE},
	{"insert", FALLOC_FL_INSERT_RANGE},
	{"unshare", FALLOC_FL_UNSHARE_RANGE},
	{"unknown", 0x4000},
};

/* A sum of the content tells contents apart. */
static unsigned sum_of(int fd)
{
	unsigned char bytes[4096];
	unsigned sum = 0;
	ssize_t length;
	off_t at = 0;

	while ((length = pread(fd, bytes, sizeof(bytes), at)) > 0) {
		for (ssize_t index = 0; index < length; index++)
			sum = sum * 31 + bytes[index];
		at += length;
	}
	return sum;
}

static void allocate_case(unsigned mode, off_t offset, off_t length)
{
	static char content[20000];
	char text[160];
	long result;
	int fd;

	for (size_t index = 0; index < sizeof(content); index++)
		content[index] = (char)(index / 7 + 1);
	make_file("x", content, sizeof(content));
	fd = (int)MUST(open("x", O_RDWR));
	watch("x");
	result = TRY(fallocate(fd, modes[mode].mode, offset, length));
	snprintf(text, sizeof(text), "%s, %s, sum %08x", result_name(result), describe("x"),
		 sum_of(fd));
	say_text(text, "fallocate.%s.%lld+%lld", modes[mode].name, (long long)offset,
		 (long long)length);
	close(fd);
	discard("x");
}

static void allocate(void)
{
	static const off_t ranges[][2] = {
		{0, 1},
		{0, 4096},
		{0, 20000},
		{1, 1},
		{4000, 200},
		{4096, 8192},
		{100, 12000},
		{19000, 1000},
		{19000, 2000},
		{20000, 4096},
		{40000, 10},
		{0, 0},
		{-1, 10},
		{0, -1},
		{5000, -5000},
		{LLONG_MAX - 5, 10},
		{LLONG_MAX / 2, LLONG_MAX / 2},
	};

	for (unsigned mode = 0; mode < ARRAY_SIZE(modes); mode++)
		for (unsigned range = 0; range < ARRAY_SIZE(ranges); range++)
			allocate_case(mode, ranges[range][0], ranges[range][1]);
}

/* ---- far away ---- */

static void far_away(void)
{
	static const off_t sizes[] = {2 * 1024 * 1024 * KIB - 1, 4 * 1024 * 1024 * KIB, TIB,
				      8 * TIB};
	char bytes[16] = "";
	int fd;

	for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++) {
		make(FILE_, "x");
		fd = (int)MUST(open("x", O_RDWR));
		say(TRY(ftruncate(fd, sizes[s])), "x", "far.%u.ftruncate", s);
		say(TRY(pwrite(fd, "far away", 8, sizes[s] - 4)), "x", "far.%u.write", s);
		say(TRY(pread(fd, bytes, 16, sizes[s] - 4)), NULL, "far.%u.read", s);
		say_text(bytes, "far.%u.bytes", s);
		say(TRY(pread(fd, bytes, 16, sizes[s] / 2)), NULL, "far.%u.hole", s);
		say(TRY(lseek(fd, 5, SEEK_DATA)) > 0, NULL, "far.%u.data", s);
		say(TRY(lseek(fd, 0, SEEK_END)), NULL, "far.%u.end", s);
		say(TRY(lseek(fd, sizes[s] + 100, SEEK_HOLE)), NULL, "far.%u.seek-behind", s);
		say(TRY(ftruncate(fd, 5)), "x", "far.%u.back", s);
		say(TRY(pread(fd, bytes, 16, 0)), NULL, "far.%u.start", s);
		close(fd);
		discard("x");
	}
}

static void too_far(void)
{
	static const off_t offsets[] = {16 * TIB - 4097, 16 * TIB, 1024 * 1024 * TIB, LLONG_MAX - 1,
					LLONG_MAX};
	int fd;

	make(FILE_, "x");
	fd = (int)MUST(open("x", O_RDWR));
	for (unsigned o = 0; o < ARRAY_SIZE(offsets); o++) {
		say(TRY(ftruncate(fd, offsets[o])), "x", "too-far.%u.ftruncate", o);
		say(TRY(pwrite(fd, "b", 1, offsets[o])), "x", "too-far.%u.write", o);
		say(TRY(pread(fd, (char[2]){0}, 1, offsets[o])), NULL, "too-far.%u.read", o);
		say(TRY(lseek(fd, offsets[o], SEEK_SET)), NULL, "too-far.%u.lseek", o);
		say(TRY(fallocate(fd, FALLOC_FL_KEEP_SIZE, offsets[o], 1)), NULL,
		    "too-far.%u.fallocate", o);
		MUST(ftruncate(fd, 5));
	}
	say(TRY(pwrite(fd, "b", 1, -1)), "x", "too-far.negative.write");
	say(TRY(pread(fd, (char[1]){0}, 1, -1)), "x", "too-far.negative.read");
	say(TRY(lseek(fd, -1, SEEK_SET)), NULL, "too-far.negative.lseek");
	say(TRY(lseek(fd, 0, 17)), NULL, "too-far.lseek-unknown");
	close(fd);
	discard("x");
}

/* SEEK_DATA and SEEK_HOLE over data, a hole, data. */
static void holes(void)
{
	static const off_t from[] = {0,      1,      65535,  65536,  100000,
				     131072, 131080, 196607, 196608, 200000};
	static char block[65536];
	int fd;

	memset(block, 'd', sizeof(block));
	fd = (int)MUST(open("x", O_CREAT | O_RDWR, 0644));
	MUST(pwrite(fd, block, sizeof(block), 0));
	MUST(pwrite(fd, block, sizeof(block), 131072));
	for (unsigned f = 0; f < ARRAY_SIZE(from); f++) {
		say(TRY(lseek(fd, from[f], SEEK_DATA)), NULL, "hole.%lld.data", (long long)from[f]);
		say(TRY(lseek(fd, from[f], SEEK_HOLE)), NULL, "hole.%lld.hole", (long long)from[f]);
	}
	close(fd);
	discard("x");
}

/* The caller's limit of file sizes: as much as fits is written, then EFBIG and SIGXFSZ. */
static void limits(void)
{
	const struct rlimit limit = {.rlim_cur = 10000, .rlim_max = RLIM_INFINITY};
	const struct rlimit none = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
	static char block[8192];
	int fd;

	/* The limit is the output's as well. */
	fflush(stdout);
	signal(SIGXFSZ, SIG_IGN);
	fd = (int)MUST(open("x", O_CREAT | O_RDWR, 0644));
	MUST(setrlimit(RLIMIT_FSIZE, &limit));
	say(TRY(pwrite(fd, block, sizeof(block), 0)), "x", "limit.below");
	say(TRY(pwrite(fd, block, sizeof(block), 8192)), "x", "limit.across");
	say(TRY(pwrite(fd, block, 1, 10000)), "x", "limit.at");
	say(TRY(pwrite(fd, block, 1, 20000)), "x", "limit.beyond");
	say(TRY(ftruncate(fd, 10000)), "x", "limit.truncate-at");
	say(TRY(ftruncate(fd, 10001)), "x", "limit.truncate-beyond");
	say(TRY(fallocate(fd, 0, 0, 20000)), "x", "limit.fallocate");
	say(TRY(ftruncate(fd, 0)), "x", "limit.truncate");
	MUST(setrlimit(RLIMIT_FSIZE, &none));
	close(fd);
	discard("x");
}

static void run(void)
{
	truncate_kinds();
	truncate_by_user();
	truncate_modes_of_open();
	allocate();
	far_away();
	too_far();
	holes();
	limits();
}

const struct topic topic_size = {"size", run};
