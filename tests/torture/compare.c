/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare.c - the end: mount, model and source hold the same
 *
 * Each file is read as a whole, through newly opened descriptors: by both names, past the kernel's
 * cache, and through a mapping. The source itself is read as well. No worker runs any more, so
 * every byte is definite. fsync comes last, just before the source is read: what is stored through
 * mappings must show in reads before it was written back. The source is opened only when the mount
 * no longer has the file open: before that, this would be an open behind the mount, and the daemon
 * would report it.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RELEASE_MS 30000u

static void compare_fd(struct worker *w, unsigned file, int fd, const char *how)
{
	uint64_t size = model_size(w->shared, file);
	ssize_t got = 0;
	ssize_t part = 1;

	while (part > 0 && got < (ssize_t)FILE_BYTES) {
		part = pread(fd, w->bytes + got, FILE_BYTES - (size_t)got, got);
		if (part < 0) {
			fail(w, "%s: file %u: %s", how, file, strerror(errno));
			return;
		}
		got += part;
	}
	if (got != (ssize_t)size)
		fail(w, "%s: file %u: %zd bytes, expected %llu", how, file, got,
		     (unsigned long long)size);
	else
		check_held(w, file, 0, w->bytes, size, how);
}

static void compare_mapping(struct worker *w, unsigned file)
{
	uint64_t size = model_size(w->shared, file);
	const uint8_t *address = file_map(w, file);

	if (!address)
		return;
	if (guarded_copy(w->bytes, address, size) != size)
		fail(w, "at the end, mapped: file %u: bus error", file);
	else
		check_held(w, file, 0, w->bytes, size, "at the end, mapped");
}

/* Whether somebody has a write lease on INODE. */
static bool is_leased(ino_t inode)
{
	FILE *locks = fopen("/proc/locks", "re");
	uintmax_t leased;
	char line[256];
	bool found = false;

	while (locks && !found && fgets(line, sizeof(line), locks))
		found = sscanf(line, "%*d: LEASE %*s WRITE %*d %*x:%*x:%ju", &leased) == 1 &&
			leased == inode;
	if (locks)
		fclose(locks);
	return found;
}

/* A close(2) does not wait for the daemon to hear of it. */
static void await_release(const char *path)
{
	struct stat st;
	unsigned i;

	if (stat(path, &st))
		return;
	for (i = 0; i < RELEASE_MS && is_leased(st.st_ino); i++)
		usleep(1000);
}

static void compare_source(struct worker *w, unsigned file)
{
	char path[4200];
	int fd;

	source_path(w, file, "", path, sizeof(path));
	await_release(path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fail(w, "source of file %u: %s", file, strerror(errno));
		return;
	}
	compare_fd(w, file, fd, "at the end, the source");
	close(fd);
}

static void compare_file(struct worker *w, unsigned file)
{
	static const char *const how[FD_KINDS] = {
		[FD_PLAIN] = "at the end, read",
		[FD_LINK] = "at the end, by the second name",
		[FD_DIRECT] = "at the end, with O_DIRECT",
	};
	static const enum fd_kind kinds[] = {FD_DIRECT, FD_PLAIN, FD_LINK};
	unsigned i;
	int fd;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		fd = file_open(w, file, kinds[i]);
		if (fd >= 0)
			compare_fd(w, file, fd, how[kinds[i]]);
	}
	compare_mapping(w, file);
	fd = file_open(w, file, FD_PLAIN);
	if (fd >= 0 && fsync(fd))
		fail(w, "at the end: fsync of file %u: %s", file, strerror(errno));
	file_unmap(w, file);
	file_close(w, file);
	compare_source(w, file);
}

enum outcome compare_all(struct shared *shared)
{
	struct worker *w = malloc(sizeof(*w));
	unsigned file;

	if (!w || worker_init(w, shared, 0) || guard_install()) {
		free(w);
		return OUTCOME_TROUBLE;
	}
	for (file = 0; file < shared->files && !has_failed(shared); file++)
		compare_file(w, file);
	worker_free(w);
	free(w);
	return has_failed(shared) ? OUTCOME_DIFFERENCE : OUTCOME_OK;
}
