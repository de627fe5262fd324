/* SPDX-License-Identifier: Apache-2.0 */
/* source_claim.c - to know that a source is served by two mounts */
#include "source_claim.h"

#include "foldfs/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whoever locks a directory by ranges does so near its beginning. */
#define CLAIM_FIRST INT64_C(0x666f6c6466730000)

enum claim {
	CLAIM_CHANGES, /* a mount that can change the source */
	CLAIM_READS,
};

static struct flock byte_of(enum claim claim, short type)
{
	return (struct flock){
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = CLAIM_FIRST + claim,
		.l_len = 1,
	};
}

/* Whether another description than FD has CLAIM. */
static bool is_claimed(int fd, enum claim claim)
{
	struct flock lock = byte_of(claim, F_WRLCK);

	return !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

struct search {
	const char *source;
	char *mountpoint; /* malloced; NULL: not found yet */
	unsigned count;
};

static void look(void *context, const struct mount_entry *entry)
{
	struct search *search = context;

	if (strcmp(entry->type, "fuse.foldfs") != 0 || strcmp(entry->source, search->source) != 0)
		return;
	/* The last one is our own. */
	search->count++;
	if (!search->mountpoint)
		search->mountpoint = strdup(entry->mountpoint);
}

/* The other mount may be in another mount namespace, or have another name in the list. */
static void warn(const char *source)
{
	struct search search = {.source = source};
	bool found;

	(void)mount_entries_visit(NULL, look, &search);
	found = search.count > 1 && search.mountpoint;
	fuse_log(FUSE_LOG_WARNING,
		 "another foldfs mount serves %s as well%s%s%s: what one of the two changes, the "
		 "other "
		 "one sees only when a file is opened or locked (or with -o watch), and they share "
		 "no "
		 "memory.\n",
		 source, found ? " (on " : "", found ? search.mountpoint : "", found ? ")" : "");
	free(search.mountpoint);
}

int source_claim(int source_fd, const char *source, bool read_only)
{
	enum claim claim = read_only ? CLAIM_READS : CLAIM_CHANGES;
	struct flock lock = byte_of(claim, F_RDLCK);
	/* A description of its own: those of the source directory may have gone to other
	 * processes. */
	int fd = openat(source_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	/* The claim comes before the look, so that of two mounts at once one sees the other. */
	if (fcntl(fd, F_OFD_SETLK, &lock)) {
		close(fd);
		return -1;
	}
	if (is_claimed(fd, CLAIM_CHANGES) || (!read_only && is_claimed(fd, CLAIM_READS)))
		warn(source);
	return fd;
}
