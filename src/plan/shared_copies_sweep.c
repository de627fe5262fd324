/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared_copies_sweep.c - removes kept copies that nobody needs
 *
 * The daemon sweeps when it starts, after its background scan, and when a member of a class has
 * lost its last name. foldctl sweeps after a scan. An open copy loses nothing by it: the kernel
 * keeps a file without a name until it is closed.
 */
#include "foldfs/shared_copies_sweep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void object_name(uint64_t class, const struct digest *content, char ret_name[OBJECT_NAME_BYTES])
{
	snprintf(ret_name, OBJECT_NAME_BYTES, "%016" PRIx64 "-%016" PRIx64 "%016" PRIx64, class,
		 content->high, content->low);
}

static void forget(struct catalogue *catalogue, uint64_t class)
{
	struct catalogue_batch *batch;

	/* If there is no room to change the catalogue, the entry stays and the next sweep finds
	 * it. */
	if (catalogue_begin(catalogue, &batch))
		return;
	if (catalogue_remove_object(batch, class))
		catalogue_abort(batch);
	else
		(void)catalogue_commit(batch);
}

void object_remove(int directory_fd, struct catalogue *catalogue, uint64_t class, const char *name)
{
	(void)unlinkat(directory_fd, name, 0);
	forget(catalogue, class);
}

static bool has_members(struct catalogue *catalogue, uint64_t class)
{
	struct catalogue_member *member = malloc(sizeof(*member));
	/* In doubt the class has members. */
	bool has = !member || catalogue_any_member(catalogue, class, 0, member) != -ENOENT;

	free(member);
	return has;
}

/* Whether NAME is the name of an object that the catalogue knows. */
static bool is_known(struct catalogue *catalogue, const char *name)
{
	struct catalogue_object object;
	char expected[OBJECT_NAME_BYTES];
	uint64_t class = strtoull(name, NULL, 16);

	if (!class || catalogue_object(catalogue, class, &object))
		return false;
	object_name(class, &object.content, expected);
	return strcmp(name, expected) == 0;
}

static void remove_unknown(int directory_fd, struct catalogue *catalogue)
{
	int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!directory) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.' && !is_known(catalogue, entry->d_name))
			(void)unlinkat(directory_fd, entry->d_name, 0);
	closedir(directory);
}

void shared_copies_sweep(int directory_fd, struct catalogue *catalogue)
{
	struct catalogue_object object = {.class = 0};
	char name[OBJECT_NAME_BYTES];

	remove_unknown(directory_fd, catalogue);
	while (!catalogue_next_object(catalogue, object.class, &object)) {
		object_name(object.class, &object.content, name);
		if (faccessat(directory_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) ||
		    !has_members(catalogue, object.class))
			object_remove(directory_fd, catalogue, object.class, name);
	}
}
