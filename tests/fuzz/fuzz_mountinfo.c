/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_mountinfo.c - libFuzzer target: whatever the list of mounts says, looking a mount up ends
 *
 * The input stands for /proc/self/mountinfo. The list changes between two readings, and a root file
 * system is its own parent. So the look-up may rely neither on the list's order nor on its being a
 * tree.
 */
#include "foldfs/mountinfo.h"
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MOUNT_ID 29 /* of every directory */

/* The input at work. One thread. */
static const uint8_t *mountinfo;
static size_t mountinfo_size;

FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);
int __wrap_statx(int directory, const char *path, int flags, unsigned mask, struct statx *stx);

FILE *__wrap_fopen(const char *path, const char *mode)
{
	if (strcmp(path, "/proc/self/mountinfo") != 0) /* libFuzzer's own */
		return __real_fopen(path, mode);
	if (!mountinfo_size)
		return __real_fopen("/dev/null", mode);
	return fmemopen((void *)mountinfo, mountinfo_size, "r");
}

int __wrap_statx(int directory, const char *path, int flags, unsigned mask, struct statx *stx)
{
	(void)directory;
	(void)path;
	(void)flags;
	expect(mask == STATX_MNT_ID);
	memset(stx, 0, sizeof(*stx));
	stx->stx_mask = STATX_MNT_ID;
	stx->stx_mnt_id = MOUNT_ID;
	return 0;
}

static void check(errint_t error, struct mount_entry *entry, const char *path)
{
	char socket[MOUNT_SOCKET_NAME];

	expect(error == 0 || error == -ENOENT || error == -ELOOP);
	if (error)
		return;
	expect(entry->source && entry->mountpoint && entry->type);
	expect(!path || strcmp(entry->mountpoint, path) == 0);
	mount_socket_name(entry, socket);
	expect(!strchr(socket, '/'));
	mount_entry_clear(entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const paths[] = {"/", "/m"};
	struct mount_entry entry;

	mountinfo = data;
	mountinfo_size = size;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		check(mount_entry_find(paths[i], &entry), &entry, paths[i]);
	check(mount_entry_of_fd(0, &entry), &entry, NULL);
	return 0;
}
