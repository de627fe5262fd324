/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_directory.c - reading directories: what is listed, seekdir, small buffers, changes
 * meanwhile; and what statx and statfs return
 */
#include "kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/stat.h>

/* What one reading of a directory with numbered names brought. */
struct seen {
	unsigned entries;
	unsigned twice;
	unsigned others; /* names that are no numbers, without dots */
	unsigned dots;
	unsigned char *times; /* by number */
	unsigned most;
};

static void seen_init(struct seen *seen, unsigned most)
{
	*seen = (struct seen){.times = calloc(most, 1), .most = most};
	if (!seen->times)
		die("memory");
}

static void seen_add(struct seen *seen, const char *name)
{
	unsigned number;

	seen->entries++;
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		seen->dots++;
	else if (sscanf(name, "n%u", &number) == 1 && number < seen->most)
		seen->twice += seen->times[number]++ > 0;
	else
		seen->others++;
}

/* How many of the numbers FROM, FROM + STEP, … were not seen. */
static unsigned seen_missing(const struct seen *seen, unsigned from, unsigned step)
{
	unsigned missing = 0;

	for (unsigned number = from; number < seen->most; number += step)
		missing += !seen->times[number];
	return missing;
}

static void say_seen(struct seen *seen, const char *label)
{
	char text[128];

	snprintf(text, sizeof(text), "%u entries, %u dots, %u others, %u twice, %u missing",
		 seen->entries, seen->dots, seen->others, seen->twice, seen_missing(seen, 0, 1));
	say_text(text, "%s", label);
	free(seen->times);
}

static void make_numbered(unsigned from, unsigned to)
{
	char name[32];

	for (unsigned number = from; number < to; number++) {
		snprintf(name, sizeof(name), "d/n%u", number);
		MUST(mknod(name, S_IFREG | 0644, 0));
	}
}

static void read_whole(unsigned count)
{
	DIR *directory = opendir("d");
	struct dirent *entry;
	struct seen seen;
	char label[32];

	if (!directory)
		die("opendir");
	seen_init(&seen, count);
	while ((entry = readdir(directory)))
		seen_add(&seen, entry->d_name);
	closedir(directory);
	snprintf(label, sizeof(label), "whole.%u", count);
	say_seen(&seen, label);
}

/* getdents64 with a buffer for a few entries only. */
static void read_in_small_pieces(unsigned count)
{
	static const size_t sizes[] = {0, 10, 24, 32, 100, 280, 4096};

	for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++) {
		int fd = (int)MUST(open("d", O_RDONLY | O_DIRECTORY));
		_Alignas(8) char buffer[4096];
		struct seen seen;
		char label[64];
		long length;

		seen_init(&seen, count);
		while ((length = TRY(syscall(SYS_getdents64, fd, buffer, sizes[s]))) > 0)
			for (long at = 0; at < length;) {
				struct dirent64 *entry = (struct dirent64 *)(void *)(buffer + at);

				seen_add(&seen, entry->d_name);
				at += entry->d_reclen;
			}
		close(fd);
		snprintf(label, sizeof(label), "pieces.%u.%zu.%s", count, sizes[s],
			 result_name(length));
		say_seen(&seen, label);
	}
}

/* Names that a position leads to are the same when one comes back to it. */
static void seek(unsigned count)
{
	DIR *directory = opendir("d");
	long *positions = calloc(count + 3, sizeof(*positions));
	char(*names)[32] = calloc(count + 3, sizeof(*names));
	struct dirent *entry;
	unsigned entries = 0;
	unsigned wrong = 0;

	if (!directory || !positions || !names)
		die("seek");
	for (;;) {
		positions[entries] = telldir(directory);
		entry = readdir(directory);
		if (!entry)
			break;
		strcpy(names[entries++], entry->d_name);
	}
	for (unsigned step = 0; step < entries; step++) {
		unsigned at = step * 7919u % entries;

		seekdir(directory, positions[at]);
		entry = readdir(directory);
		wrong += !entry || strcmp(entry->d_name, names[at]) != 0;
	}
	say((long)wrong, NULL, "seek.%u.wrong", count);
	seekdir(directory, positions[entries]);
	say(readdir(directory) == NULL, NULL, "seek.%u.end", count);
	rewinddir(directory);
	entry = readdir(directory);
	say(entry && strcmp(entry->d_name, names[0]) == 0, NULL, "seek.%u.rewind", count);
	closedir(directory);
	free(positions);
	free(names);
}

/*
 * Entries come and go while the directory is read: what was there all the time is listed once, what
 * was removed before it was reached may be listed or not, nothing is listed twice.
 */
static void read_while_it_changes(unsigned count)
{
	DIR *directory = opendir("d");
	struct dirent *entry;
	struct seen seen;
	unsigned step = 0;
	char text[128];
	char name[32];

	if (!directory)
		die("opendir");
	seen_init(&seen, count);
	while ((entry = readdir(directory))) {
		seen_add(&seen, entry->d_name);
		/* Odd numbers are removed, in another order than they are listed in. */
		if (step < count / 2) {
			snprintf(name, sizeof(name), "d/n%u", step * 2 + 1);
			MUST(unlink(name));
			snprintf(name, sizeof(name), "d/m%u", step++);
			MUST(mknod(name, S_IFREG | 0644, 0));
		}
	}
	closedir(directory);
	snprintf(text, sizeof(text), "%u dots, %u twice, %u missing", seen.dots, seen.twice,
		 seen_missing(&seen, 0, 2));
	say_text(text, "changing.%u", count);
	free(seen.times);
}

static void remove_while_read(unsigned count)
{
	DIR *directory = opendir("d");
	struct dirent *entry;
	unsigned removed = 0;
	char name[300];

	if (!directory)
		die("opendir");
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "d/%s", entry->d_name);
		removed += unlink(name) == 0;
	}
	closedir(directory);
	say((long)removed, NULL, "removing.%u", count);
	say(TRY(rmdir("d")), NULL, "removing.%u.rmdir", count);
}

static void sizes(void)
{
	const unsigned counts[] = {0, 1, 40, level == LONG ? 100000 : level == WHOLE ? 1500 : 500};

	for (unsigned c = 0; c < ARRAY_SIZE(counts); c++) {
		MUST(mkdir("d", 0755));
		make_numbered(0, counts[c]);
		read_whole(counts[c]);
		if (counts[c] < 100)
			read_in_small_pieces(counts[c]);
		seek(counts[c]);
		read_while_it_changes(counts[c]);
		remove_while_read(counts[c]);
	}
}

/* Each entry's type and inode number, as lstat says them; and whether the dots lead where they
 * should. */
static void types(void)
{
	DIR *directory;
	struct dirent *entry;
	struct stat here;
	struct stat above;

	MUST(mkdir("d", 0755));
	for (int kind = FILE_; kind <= DEVICE; kind++) {
		char name[32];

		snprintf(name, sizeof(name), "d/%s", kind_name(kind));
		make(kind, name);
	}
	MUST(stat("d", &here));
	MUST(stat(".", &above));
	directory = opendir("d");
	if (!directory)
		die("opendir");
	unsigned wrong = 0;
	while ((entry = readdir(directory))) {
		struct stat st;

		MUST(fstatat(dirfd(directory), entry->d_name, &st, AT_SYMLINK_NOFOLLOW));
		if (strcmp(entry->d_name, ".") == 0)
			say(st.st_ino == here.st_ino && entry->d_ino == here.st_ino, NULL,
			    "type.dot");
		else if (strcmp(entry->d_name, "..") == 0)
			say(st.st_ino == above.st_ino && entry->d_ino == above.st_ino, NULL,
			    "type.dots");
		else
			wrong += entry->d_ino != st.st_ino ||
				 (mode_t)DTTOIF(entry->d_type) != (st.st_mode & S_IFMT);
	}
	say((long)wrong, NULL, "type.wrong");
	closedir(directory);
	discard("d");
}

/* What a descriptor of a directory sees of changes: after a rewind, the state of now. */
static void descriptors(void)
{
	DIR *directory;
	unsigned count = 0;
	int fd;

	MUST(mkdir("d", 0755));
	directory = opendir("d");
	if (!directory)
		die("opendir");
	while (readdir(directory))
		count++;
	say((long)count, NULL, "rewind.empty");
	make(FILE_, "d/new");
	rewinddir(directory);
	for (count = 0; readdir(directory);)
		count++;
	say((long)count, NULL, "rewind.new");
	MUST(unlink("d/new"));
	MUST(rmdir("d"));
	rewinddir(directory);
	for (count = 0, errno = 0; readdir(directory);)
		count++;
	say((long)count, NULL, "rewind.removed");
	say(-errno, NULL, "rewind.removed.errno");
	closedir(directory);
	make(FILE_, "f");
	fd = (int)MUST(open("f", O_RDONLY));
	say(TRY(syscall(SYS_getdents64, fd, (char[256]){0}, 256)), NULL, "getdents-of-file");
	close(fd);
	fd = (int)MUST(open(".", O_PATH));
	say(TRY(syscall(SYS_getdents64, fd, (char[256]){0}, 256)), NULL, "getdents-of-path");
	close(fd);
	discard("f");
}

static void run(void)
{
	sizes();
	types();
	descriptors();
}

const struct topic topic_directory = {"directory", run};

/* ---- statx and statfs ---- */

static void say_statx(const char *name, const char *label)
{
	struct statx stx = {0};
	struct statx here;
	char text[256];
	long result = TRY(
		statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &stx));

	MUST(statx(AT_FDCWD, ".", 0, STATX_BASIC_STATS, &here));
	snprintf(text, sizeof(text),
		 "%s, mask %#x, mode %06o, links %u, size %lld, block %u, %s, rdev %u:%u, %s",
		 result_name(result), stx.stx_mask & (STATX_BASIC_STATS | STATX_BTIME),
		 stx.stx_mode, stx.stx_nlink, S_ISDIR(stx.stx_mode) ? 0 : (long long)stx.stx_size,
		 stx.stx_blksize,
		 stx.stx_dev_minor == here.stx_dev_minor ? "one device" : "other device",
		 stx.stx_rdev_major, stx.stx_rdev_minor,
		 stx.stx_btime.tv_sec > 1600000000 ? "born" : "no birth");
	say_text(text, "statx.%s", label);
	snprintf(text, sizeof(text), "%#llx of %#llx", (unsigned long long)stx.stx_attributes,
		 (unsigned long long)(stx.stx_attributes_mask &
				      (STATX_ATTR_COMPRESSED | STATX_ATTR_IMMUTABLE |
				       STATX_ATTR_APPEND | STATX_ATTR_NODUMP |
				       STATX_ATTR_ENCRYPTED)));
	say_text(text, "attributes.%s", label);
}

static void blocks(void)
{
	static char block[65536];
	struct stat st;
	int fd;

	memset(block, 'b', sizeof(block));
	make_file("x", block, sizeof(block));
	fd = (int)MUST(open("x", O_RDWR));
	MUST(fsync(fd));
	MUST(fstat(fd, &st));
	say(st.st_blocks, NULL, "blocks.data");
	MUST(ftruncate(fd, 1 << 20));
	MUST(fsync(fd));
	MUST(fstat(fd, &st));
	say(st.st_blocks, NULL, "blocks.hole");
	MUST(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 32768));
	MUST(fsync(fd));
	MUST(fstat(fd, &st));
	say(st.st_blocks, NULL, "blocks.punched");
	close(fd);
	discard("x");
}

/* Hard links are one object, other files are others; also after they were forgotten. */
static void identities(void)
{
	struct stat one;
	struct stat two;
	struct stat three;

	make(FILE_, "x");
	MUST(link("x", "y"));
	make(FILE_, "z");
	MUST(stat("x", &one));
	MUST(stat("y", &two));
	MUST(stat("z", &three));
	say(one.st_ino == two.st_ino && one.st_dev == two.st_dev, NULL, "identity.link");
	say(one.st_ino == three.st_ino, NULL, "identity.other");
	MUST(rename("x", "w"));
	MUST(stat("w", &three));
	say(one.st_ino == three.st_ino, NULL, "identity.renamed");
	discard("w");
	discard("y");
	discard("z");
}

static void file_system(void)
{
	struct statvfs fs;
	struct statfs raw;

	MUST(statvfs(".", &fs));
	MUST(statfs(".", &raw));
	say((long)fs.f_bsize, NULL, "fs.block");
	say((long)fs.f_frsize, NULL, "fs.fragment");
	say((long)fs.f_namemax, NULL, "fs.name");
	say((long)(fs.f_blocks > 0 && fs.f_bavail <= fs.f_bfree), NULL, "fs.figures");
	say((long)(fs.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC)), NULL, "fs.flags");
	say(raw.f_type, NULL, "fs.type");
	say(TRY(pathconf(".", _PC_NAME_MAX)), NULL, "fs.pathconf-name");
	say(TRY(pathconf(".", _PC_PATH_MAX)), NULL, "fs.pathconf-path");
	say(TRY(pathconf(".", _PC_LINK_MAX)), NULL, "fs.pathconf-links");
	say(TRY(pathconf(".", _PC_FILESIZEBITS)), NULL, "fs.pathconf-bits");
	say(TRY(pathconf(".", _PC_2_SYMLINKS)), NULL, "fs.pathconf-symlinks");
}

static void run_statx(void)
{
	for (int kind = FILE_; kind <= DEVICE; kind++) {
		make(kind, "x");
		say_statx("x", kind_name(kind));
		discard("x");
	}
	say(TRY(statx(AT_FDCWD, ".", AT_STATX_FORCE_SYNC, STATX_ALL, &(struct statx){0})), NULL,
	    "sync.force");
	say(TRY(statx(AT_FDCWD, ".", AT_STATX_DONT_SYNC, STATX_ALL, &(struct statx){0})), NULL,
	    "sync.dont");
	say(TRY(statx(AT_FDCWD, ".", AT_STATX_SYNC_TYPE, STATX_ALL, &(struct statx){0})), NULL,
	    "sync.both");
	blocks();
	identities();
	file_system();
}

const struct topic topic_statx = {"statx", run_statx};
