/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_io.c - read and write: open modes, flags of single calls, append, direct, copies between
 * descriptors; and what mappings may do
 */
#include "kit.h"

#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/fs.h>

static void say_content(const char *name, long result, const char *label)
{
	char text[512];
	char bytes[65];
	int fd = (int)MUST(open(name, O_RDONLY));
	ssize_t length = MUST(read(fd, bytes, 64));

	close(fd);
	for (ssize_t index = 0; index < length; index++)
		if (!bytes[index])
			bytes[index] = '_';
	bytes[length] = '\0';
	snprintf(text, sizeof(text), "%s, %s, \"%s\"", result_name(result), describe(name), bytes);
	say_text(text, "%s", label);
}

/* ---- descriptors and what they allow ---- */

static void modes_of_open(void)
{
	static const struct {
		const char *name;
		int flags;
	} ways[] = {{"read", O_RDONLY}, {"write", O_WRONLY},
		    {"both", O_RDWR},   {"append", O_WRONLY | O_APPEND},
		    {"path", O_PATH},   {"none", 3}};

	for (unsigned way = 0; way < ARRAY_SIZE(ways); way++) {
		char bytes[4];
		int fd;

		make(FILE_, "x");
		fd = (int)MUST(open("x", ways[way].flags));
		say(TRY(read(fd, bytes, 2)), NULL, "mode.%s.read", ways[way].name);
		say(TRY(pread(fd, bytes, 2, 0)), NULL, "mode.%s.pread", ways[way].name);
		say(TRY(write(fd, "w", 1)), "x", "mode.%s.write", ways[way].name);
		say(TRY(pwrite(fd, "w", 1, 0)), "x", "mode.%s.pwrite", ways[way].name);
		say(TRY(lseek(fd, 0, SEEK_CUR)), NULL, "mode.%s.position", ways[way].name);
		say(TRY(fsync(fd)), NULL, "mode.%s.fsync", ways[way].name);
		say(TRY(fdatasync(fd)), NULL, "mode.%s.fdatasync", ways[way].name);
		say(TRY(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)), NULL, "mode.%s.advise",
		    ways[way].name);
		say(TRY(readahead(fd, 0, 4096)), NULL, "mode.%s.readahead", ways[way].name);
		say(TRY(sync_file_range(fd, 0, 0, 0)), NULL, "mode.%s.sync-range", ways[way].name);
		close(fd);
		discard("x");
	}
	int fd = (int)MUST(open(".", O_RDONLY));
	say(TRY(read(fd, (char[2]){0}, 2)), NULL, "mode.directory.read");
	say(TRY(write(fd, "x", 1)), NULL, "mode.directory.write");
	say(TRY(ftruncate(fd, 0)), NULL, "mode.directory.ftruncate");
	say(TRY(fsync(fd)), NULL, "mode.directory.fsync");
	close(fd);
}

/* Zero bytes, bad memory, too many parts. */
static void odd_arguments(void)
{
	static struct iovec many[IOV_MAX + 1];
	const struct iovec huge[2] = {{(void *)many, SSIZE_MAX}, {(void *)many, SSIZE_MAX}};
	void *volatile nowhere = (void *)8;
	char byte = 'b';
	int fd;

	make(FILE_, "x");
	fd = (int)MUST(open("x", O_RDWR));
	watch("x");
	say(TRY(write(fd, &byte, 0)), "x", "odd.write-0");
	watch("x");
	say(TRY(pwrite(fd, &byte, 0, 100)), "x", "odd.pwrite-0");
	watch("x");
	say(TRY(read(fd, &byte, 0)), "x", "odd.read-0");
	say(TRY(write(fd, nowhere, 1)), "x", "odd.write-fault");
	say(TRY(read(fd, nowhere, 1)), "x", "odd.read-fault");
	for (unsigned index = 0; index <= IOV_MAX; index++)
		many[index] = (struct iovec){&byte, 1};
	say(TRY(writev(fd, many, IOV_MAX)), "x", "odd.writev-most");
	say(TRY(writev(fd, many, IOV_MAX + 1)), "x", "odd.writev-too-many");
	say(TRY(preadv(fd, many, IOV_MAX, 0)), "x", "odd.readv-most");
	say(TRY(writev(fd, many, 0)), "x", "odd.writev-none");
	say(TRY(writev(fd, huge, 2)), "x", "odd.writev-overflow");
	say(TRY(preadv(fd, huge, 2, 0)), "x", "odd.readv-overflow");
	say(TRY(lseek(fd, 5000, SEEK_SET)), NULL, "odd.seek");
	say(TRY(read(fd, &byte, 1)), NULL, "odd.read-behind");
	say(TRY(write(fd, &byte, 1)), "x", "odd.write-behind");
	close(fd);
	discard("x");
}

/* ---- append ---- */

static void append(void)
{
	int fd;
	int other;

	make_file("x", "0123456789", 10);
	fd = (int)MUST(open("x", O_RDWR | O_APPEND));
	say_content("x", TRY(write(fd, "ab", 2)), "append.write");
	say(TRY(lseek(fd, 0, SEEK_CUR)), NULL, "append.position");
	say_content("x", TRY(pwrite(fd, "cd", 2, 3)), "append.pwrite");
	other = (int)MUST(open("x", O_WRONLY));
	say_content("x", TRY(pwrite(other, "EF", 2, 20)), "append.other");
	say_content("x", TRY(write(fd, "gh", 2)), "append.after-other");
	say_content("x", TRY(ftruncate(other, 4)), "append.cut");
	say_content("x", TRY(write(fd, "ij", 2)), "append.after-cut");
	MUST(fcntl(fd, F_SETFL, 0));
	say_content("x", TRY(pwrite(fd, "KL", 2, 0)), "append.switched-off");
	MUST(fcntl(other, F_SETFL, O_APPEND));
	say_content("x", TRY(pwrite(other, "MN", 2, 0)), "append.switched-on");
	close(other);
	close(fd);
	discard("x");
}

static void flags_of_one_call(void)
{
	static const struct {
		const char *name;
		int flags;
	} flags[] = {{"none", 0},        {"hipri", RWF_HIPRI},   {"dsync", RWF_DSYNC},
		     {"sync", RWF_SYNC}, {"append", RWF_APPEND}, {"unknown", 1 << 30}};

	for (int opened = 0; opened <= O_APPEND; opened += O_APPEND)
		for (unsigned f = 0; f < ARRAY_SIZE(flags); f++) {
			const struct iovec part = {(void *)"new", 3};
			char label[64];
			char bytes[4];
			const struct iovec into = {bytes, 4};
			long result;
			int fd;

			make_file("x", "0123456789", 10);
			fd = (int)MUST(open("x", O_RDWR | opened));
			snprintf(label, sizeof(label), "flag.%s%s.write", flags[f].name,
				 opened ? "+O_APPEND" : "");
			result = TRY(pwritev2(fd, &part, 1, 2, flags[f].flags));
			say_content("x", result, label);
			say(TRY(preadv2(fd, &into, 1, 0, flags[f].flags)), NULL, "flag.%s.read.%d",
			    flags[f].name, !!opened);
			close(fd);
			discard("x");
		}
}

/* O_DIRECT: aligned and not. What is unaligned may be refused or served. */
static void direct(void)
{
	char *memory = aligned_alloc(4096, 16384);
	int fd;

	if (!memory)
		die("memory");
	memset(memory, 'd', 16384);
	fd = open("x", O_CREAT | O_RDWR | O_DIRECT, 0644);
	if (fd < 0) {
		say(-errno, NULL, "direct.open");
		free(memory);
		return;
	}
	watch("x");
	say(TRY(pwrite(fd, memory, 8192, 0)), "x", "direct.write");
	say(TRY(pread(fd, memory, 16384, 0)), NULL, "direct.read");
	say(TRY(pread(fd, memory, 4096, 8192)), NULL, "direct.read-at-end");
	say(TRY(pread(fd, memory, 4096, 1 << 20)), NULL, "direct.read-behind");
	say(TRY(ftruncate(fd, 5000)), "x", "direct.truncate");
	say(TRY(pread(fd, memory, 8192, 0)), NULL, "direct.read-short");
	close(fd);
	free(memory);
	discard("x");
}

/* ---- between descriptors ---- */

static void copies(void)
{
	static const struct {
		const char *name;
		off_t in, out;
		size_t length;
		unsigned flags;
	} ranges[] = {
		{"start", 0, 0, 4, 0},       {"middle", 2, 3, 4, 0},    {"behind", 100, 0, 4, 0},
		{"across-end", 8, 0, 10, 0}, {"gap", 0, 30, 5, 0},      {"nothing", 0, 0, 0, 0},
		{"all", 0, 10, 1 << 20, 0},  {"negative", -1, 0, 4, 0}, {"flags", 0, 0, 4, 1},
	};
	static const int opens[][2] = {{O_RDONLY, O_WRONLY},
				       {O_RDWR, O_RDWR},
				       {O_WRONLY, O_WRONLY},
				       {O_RDONLY, O_RDONLY},
				       {O_RDONLY, O_WRONLY | O_APPEND}};

	for (unsigned r = 0; r < ARRAY_SIZE(ranges); r++)
		for (unsigned o = 0; o < ARRAY_SIZE(opens); o++)
			for (int same = 0; same < 2; same++) {
				off_t in_at = ranges[r].in;
				off_t out_at = ranges[r].out;
				char label[64];
				long result;
				int in;
				int out;

				make_file("a", "0123456789", 10);
				make_file("b", "abcdefghij", 10);
				in = (int)MUST(open("a", opens[o][0]));
				out = (int)MUST(open(same ? "a" : "b", opens[o][1]));
				result = TRY(copy_file_range(in, &in_at, out, &out_at,
							     ranges[r].length, ranges[r].flags));
				snprintf(label, sizeof(label), "copy.%s.%u.%s.%lld.%lld",
					 ranges[r].name, o, same ? "same" : "other",
					 (long long)in_at, (long long)out_at);
				say_content(same ? "a" : "b", result, label);
				close(in);
				close(out);
			}
	discard("a");
	discard("b");
}

static void sends(void)
{
	int in;
	int out;
	int ends[2];

	make_file("a", "0123456789", 10);
	make_file("b", "abcdefghij", 10);
	in = (int)MUST(open("a", O_RDONLY));
	out = (int)MUST(open("b", O_WRONLY));
	watch("a");
	watch("b");
	say(TRY(sendfile(out, in, NULL, 4)), "b", "sendfile");
	say(TRY(sendfile(out, in, NULL, 100)), "b", "sendfile.rest");
	say(TRY(sendfile(out, in, NULL, 100)), "b", "sendfile.end");
	say(TRY(sendfile(in, out, NULL, 4)), "a", "sendfile.wrong-way");
	MUST(pipe(ends));
	MUST(lseek(in, 0, SEEK_SET));
	MUST(lseek(out, 2, SEEK_SET));
	say(TRY(splice(in, NULL, ends[1], NULL, 6, 0)), NULL, "splice.in");
	watch("b");
	say(TRY(splice(ends[0], NULL, out, NULL, 6, 0)), "b", "splice.out");
	say(TRY(splice(in, NULL, out, NULL, 6, 0)), "b", "splice.no-pipe");
	close(ends[0]);
	close(ends[1]);
	close(in);
	close(out);
	say_content("b", 0, "splice.content");
	discard("a");
	discard("b");
}

/* Requests for what few file systems do. */
static void requests(void)
{
	int fd;
	int other;
	int number = 0;

	make_file("a", "0123456789", 10);
	make_file("b", "0123456789", 10);
	fd = (int)MUST(open("a", O_RDWR));
	other = (int)MUST(open("b", O_RDWR));
	say(TRY(ioctl(fd, FICLONE, other)), "a", "request.clone");
	say(TRY(ioctl(fd, FIONREAD, &number)), NULL, "request.readable");
	say(number, NULL, "request.readable.number");
	say(TRY(ioctl(fd, FIOQSIZE, &(loff_t){0})), NULL, "request.size");
	say(TRY(ioctl(fd, 0x12345678, &number)), NULL, "request.unknown");
	close(fd);
	close(other);
	discard("a");
	discard("b");
}

static void run(void)
{
	modes_of_open();
	odd_arguments();
	append();
	flags_of_one_call();
	direct();
	copies();
	sends();
	requests();
}

const struct topic topic_io = {"io", run};

/* ---- mappings ---- */

static sigjmp_buf out_of_fault;

static void on_fault(int number)
{
	siglongjmp(out_of_fault, number);
}

/* 0, or the signal that touching the byte raised. */
static int touch(volatile char *at, bool store)
{
	int number = sigsetjmp(out_of_fault, 1);

	if (number)
		return number;
	if (store)
		*at = 's';
	else
		(void)*at;
	return 0;
}

static void map_protections(void)
{
	static const int opens[] = {O_RDONLY, O_WRONLY, O_RDWR, O_PATH};
	static const int protections[] = {PROT_NONE, PROT_READ, PROT_WRITE, PROT_READ | PROT_WRITE,
					  PROT_READ | PROT_EXEC};
	static const int kinds[] = {MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE};

	make(FILE_, "x");
	for (unsigned o = 0; o < ARRAY_SIZE(opens); o++)
		for (unsigned p = 0; p < ARRAY_SIZE(protections); p++)
			for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
				int fd = (int)MUST(open("x", opens[o]));
				void *map = mmap(NULL, 4096, protections[p], kinds[k], fd, 0);

				say(map == MAP_FAILED ? -errno : 0, NULL, "protection.%u.%u.%u", o,
				    p, k);
				if (map != MAP_FAILED) {
					say(TRY(mprotect(map, 4096, PROT_READ | PROT_WRITE)), NULL,
					    "protection.%u.%u.%u.more", o, p, k);
					munmap(map, 4096);
				}
				close(fd);
			}
	discard("x");
	static const enum kind others[] = {DIRECTORY, EMPTY, DEVICE};
	for (unsigned k = 0; k < ARRAY_SIZE(others); k++) {
		make(others[k], "x");
		int fd = (int)MUST(open("x", O_RDONLY));
		void *map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);

		say(map == MAP_FAILED ? -errno : 0, NULL, "kind.%s", kind_name(others[k]));
		if (map != MAP_FAILED)
			munmap(map, 4096);
		close(fd);
		discard("x");
	}
}

/* Bytes behind the end: zeroes within the last page, SIGBUS further on; not in the file. */
static void map_end(void)
{
	static char content[5000];
	char *map;
	int fd;

	memset(content, 'c', sizeof(content));
	make_file("x", content, sizeof(content));
	fd = (int)MUST(open("x", O_RDWR));
	map = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("mapping");
	say(map[4999], NULL, "end.last");
	say(map[5000], NULL, "end.behind");
	say(touch(map + 8191, false), NULL, "end.last-page");
	say(touch(map + 8192, false), NULL, "end.next-page");
	say(touch(map + 8192, true), NULL, "end.next-page-store");
	map[5001] = 'z';
	say(TRY(msync(map, 16384, MS_SYNC)), "x", "end.store-behind");
	MUST(ftruncate(fd, 6000));
	say(map[5001], "x", "end.grown");
	MUST(ftruncate(fd, 9000));
	say(touch(map + 8192, true), "x", "end.page-grown");
	MUST(ftruncate(fd, 100));
	say(touch(map + 4095, false), "x", "end.cut-same-page");
	say(touch(map + 4096, false), "x", "end.cut-next-page");
	say(map[100], NULL, "end.cut-byte");
	MUST(ftruncate(fd, 200));
	say(map[100], NULL, "end.cut-and-grown");
	MUST(ftruncate(fd, 0));
	say(touch(map, false), "x", "end.empty");
	munmap(map, 16384);
	close(fd);
	discard("x");
}

/* Stores through a mapping are writes: for other descriptors at once, for times at the latest when
 * they are synchronised. Private ones are nobody's business. */
static void map_stores(void)
{
	static const int kinds[] = {MAP_SHARED, MAP_PRIVATE};

	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
		for (int end = 0; end < 4; end++) {
			static const char *const ends[] = {"msync", "munmap+fsync", "fsync",
							   "async+fsync"};
			char bytes[6] = "";
			char *map;
			int fd;

			make(FILE_, "x");
			fd = (int)MUST(open("x", O_RDWR));
			map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, kinds[k], fd, 0);
			if (map == MAP_FAILED)
				die("mapping");
			watch("x");
			map[1] = 'M';
			MUST(pread(fd, bytes, 5, 0));
			say_text(bytes, "store.%u.%s.seen", k, ends[end]);
			watch("x");
			map[2] = 'N';
			if (end == 1)
				munmap(map, 4096);
			else if (end != 2)
				MUST(msync(map, 4096, end ? MS_ASYNC : MS_SYNC));
			if (end)
				MUST(fsync(fd));
			say(0, "x", "store.%u.%s", k, ends[end]);
			MUST(pread(fd, bytes, 5, 0));
			say_text(bytes, "store.%u.%s.after", k, ends[end]);
			if (end != 1)
				munmap(map, 4096);
			close(fd);
			discard("x");
		}
}

/* A write is seen through a mapping, and mappings keep a file alive. */
static void map_and_write(void)
{
	char *map;
	int fd;

	make(FILE_, "x");
	fd = (int)MUST(open("x", O_RDWR));
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("mapping");
	say(map[0], NULL, "seen.before");
	MUST(pwrite(fd, "W", 1, 0));
	say(map[0], NULL, "seen.write");
	MUST(ftruncate(fd, 0));
	MUST(pwrite(fd, "T", 1, 4));
	say(map[0], NULL, "seen.zero");
	say(map[4], NULL, "seen.new");
	close(fd);
	MUST(unlink("x"));
	say(map[4], NULL, "seen.unlinked");
	munmap(map, 4096);
}

static void run_map(void)
{
	struct sigaction action = {.sa_handler = on_fault};

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	map_protections();
	map_end();
	map_stores();
	map_and_write();
}

const struct topic topic_map = {"map", run_map};
