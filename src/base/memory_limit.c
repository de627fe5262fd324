/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_limit.c - how much memory there is for this process; shared by foldfs and foldctl
 *
 * /proc/self/cgroup has a line for each hierarchy: NUMBER:CONTROLLERS:PATH. The line without
 * controllers is version 2. A hierarchy is mounted from its root, or in a container from a
 * directory below it. The path counts from the root that the process's cgroup namespace shows. If
 * the path is not below what is mounted, the mounted directory is the nearest cgroup that can be
 * seen.
 */
#include "foldfs/memory_limit.h"

#include "foldfs/mountinfo.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is looked for, and the lowest limit that was found. */
struct search {
	char *unified; /* the path in the hierarchy of version 2; NULL: none */
	char *legacy;  /* likewise for version 1's memory controller */
	uint64_t bytes;
};

uint64_t memory_machine(void)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	long size = sysconf(_SC_PAGESIZE);

	return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

/* Take the number in the file NAME of DIRECTORY into account, if there is one. "max" is none. */
static void take(struct search *search, const char *directory, const char *name)
{
	unsigned long long bytes;
	char *path = NULL;
	FILE *file;

	if (asprintf(&path, "%s/%s", directory, name) < 0)
		return;
	file = fopen(path, "re");
	free(path);
	if (!file)
		return;
	if (fscanf(file, "%llu", &bytes) == 1 && bytes < search->bytes)
		search->bytes = bytes;
	fclose(file);
}

/* The part of PATH below ROOT; "" if PATH is ROOT, or not below it. */
static const char *below(const char *path, const char *root)
{
	size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);

	if (strncmp(path, root, length) != 0 || (path[length] && path[length] != '/'))
		return "";
	/* The path lies outside of what the namespace shows. */
	return strncmp(path + length, "/..", 3) == 0 ? "" : path + length;
}

/* Look at each directory from PATH, in the hierarchy mounted as ENTRY, up to the mount point. */
static void climb(struct search *search, const struct mount_entry *entry, const char *path,
		  bool unified)
{
	size_t top = strlen(entry->mountpoint);
	char *directory = NULL;
	char *slash;

	if (asprintf(&directory, "%s%s", entry->mountpoint, below(path, entry->root)) < 0)
		return;
	do {
		if (unified) {
			take(search, directory, "memory.max");
			take(search, directory, "memory.high");
		} else {
			take(search, directory, "memory.limit_in_bytes");
		}
		slash = strrchr(directory, '/');
		if (slash)
			*slash = '\0';
	} while (slash && strlen(directory) >= top);
	free(directory);
}

static void visit(void *context, const struct mount_entry *entry)
{
	struct search *search = context;

	if (search->unified && strcmp(entry->type, "cgroup2") == 0)
		climb(search, entry, search->unified, true);
	if (search->legacy && strcmp(entry->type, "cgroup") == 0 &&
	    mount_option_is_set(entry->super_options, "memory"))
		climb(search, entry, search->legacy, false);
}

/* One line of /proc/self/cgroup. */
static void take_line(struct search *search, char *line)
{
	char *controllers = strchr(line, ':');
	char *path = controllers ? strchr(controllers + 1, ':') : NULL;
	char **place = NULL;

	if (!path)
		return;
	*path++ = '\0';
	path[strcspn(path, "\n")] = '\0';
	controllers++;
	if (!*controllers)
		place = &search->unified;
	else if (mount_option_is_set(controllers, "memory"))
		place = &search->legacy;
	if (place && !*place)
		*place = strdup(path);
}

static errint_t take_paths(struct search *search, const char *name)
{
	FILE *file = fopen(name, "re");
	char *line = NULL;
	size_t size = 0;

	if (!file)
		return -errno;
	while (getline(&line, &size, file) >= 0)
		take_line(search, line);
	free(line);
	fclose(file);
	return 0;
}

uint64_t memory_limit_of(uint64_t machine, const char *cgroup, const char *mountinfo)
{
	struct search search = {.bytes = machine ? machine : UINT64_MAX};

	/* A file that cannot be read gives no limit that we could know. */
	if (!take_paths(&search, cgroup))
		(void)mount_entries_visit(mountinfo, visit, &search);
	free(search.unified);
	free(search.legacy);
	return search.bytes == UINT64_MAX ? 0 : search.bytes;
}

uint64_t memory_limit(void)
{
	return memory_limit_of(memory_machine(), "/proc/self/cgroup", "/proc/self/mountinfo");
}
