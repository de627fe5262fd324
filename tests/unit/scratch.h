/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scratch.h - where unit tests make their files: by what they need of the file system
 *
 * TMPDIR counts first, then /tmp, /var/tmp and the directory that the test runs in: the first that
 * is fit. /tmp is a tmpfs on many systems.
 */
#ifndef FOLDFS_TESTS_SCRATCH_H
#define FOLDFS_TESTS_SCRATCH_H

#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

/* Longer names do not fit what tests make of them: a socket's name has 108 bytes. */
#define SCRATCH_MAX 40

enum scratch_need {
	SCRATCH_ANY,
	SCRATCH_STAMPS, /* a file system whose stamps foldfs takes for proof: families, classes */
};

static inline bool scratch_is_fit(const char *directory, enum scratch_need need)
{
	struct statfs fs;

	if (!directory || !*directory || strlen(directory) > SCRATCH_MAX ||
	    access(directory, W_OK | X_OK) || statfs(directory, &fs))
		return false;
	return need == SCRATCH_ANY || fs.f_type == EXT4_SUPER_MAGIC ||
	       fs.f_type == XFS_SUPER_MAGIC || fs.f_type == BTRFS_SUPER_MAGIC;
}

/* NULL: there is none. */
static inline const char *scratch_place(enum scratch_need need)
{
	static char here[SCRATCH_MAX + 2];
	const char *places[] = {getenv("TMPDIR"), "/tmp", "/var/tmp", getcwd(here, sizeof(here))};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (scratch_is_fit(places[i], need))
			return places[i];
	return NULL;
}

/* A name for mkdtemp() and mkstemp(), with NAME in it, into PATH, which has 64 bytes. */
static inline bool scratch_name(char *path, const char *name, enum scratch_need need)
{
	const char *place = scratch_place(need);

	return place && snprintf(path, 64, "%s/foldfs-%.9s-XXXXXX", place, name) < 64;
}

#endif
