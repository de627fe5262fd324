/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foldctl_find.c - which mount a path means
 *
 * Every command finds its mount here. A path means the mount that is on it, the mount that serves
 * it, or the mount that it lies on, in this order. A stuck mount is found by its mount point,
 * without touching it.
 *
 * A source means a mount of the caller's own. A mount of another user does not count: that user
 * could make it claim any source. If several mounts serve one source, foldctl does not choose: it
 * lists them and refuses.
 */
#include "foldctl.h"

#include "foldfs/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool is_ours(const struct mount_entry *entry)
{
	struct control_tried tried;
	int fd;

	if (strcmp(entry->type, "fuse.foldfs") == 0)
		return true;
	if (strncmp(entry->type, "fuse", 4) != 0)
		return false;
	/* With -o subtype= the type is whatever the user chose. Only our mounts have the socket. */
	fd = control_connect(entry, clock_now_ms() + ANSWER_MS, &tried);
	free(tried.path);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* What VIEW serves: its daemon knows better than the list of mounts (-o fsname=). */
static const char *source_of(const struct mount_view *view)
{
	if (view->status)
		return text(view->status, "source");
	return strcmp(view->entry.type, "fuse.foldfs") == 0 ? view->entry.source : "";
}

/* The number of VIEWS that serve SOURCE. *RET_FIRST is the first of them. */
static size_t count_servers(const struct mount_views *views, const char *source,
			    const struct mount_view **ret_first)
{
	size_t count = 0;

	for (size_t i = 0; i < views->count; i++) {
		if (strcmp(source_of(&views->views[i]), source) != 0)
			continue;
		if (count++ == 0)
			*ret_first = &views->views[i];
	}
	return count;
}

/* Returns -ENOTUNIQ, or -ENOMEM. */
static errint_t report_several(const struct mount_views *views, const char *source)
{
	char *list = NULL;
	size_t size;
	FILE *stream = open_memstream(&list, &size);
	const char *separator = "";

	if (!stream)
		return -ENOMEM;
	for (size_t i = 0; i < views->count; i++) {
		if (strcmp(source_of(&views->views[i]), source) != 0)
			continue;
		fprintf(stream, "%s%s", separator, views->views[i].entry.mountpoint);
		separator = ", ";
	}
	if (fclose(stream) != 0) {
		free(list);
		return -ENOMEM;
	}
	fail("%s is the source of several mounts: %s. Name one of these mount points.", source,
	     list);
	free(list);
	return -ENOTUNIQ;
}

/* The one of VIEWS that serves SOURCE, or -errno as find_by_source(). */
static errint_t find_server(const struct mount_views *views, const char *source,
			    const struct mount_view **ret_view)
{
	size_t count = count_servers(views, source, ret_view);

	return count == 0 ? -ENOENT : count == 1 ? 0 : report_several(views, source);
}

/* The one of VIEWS whose source is nearest above PATH, or is PATH. *RET_LENGTH: how much of PATH is
 * the source. -errno as find_by_source(). */
static errint_t find_nearest(const struct mount_views *views, const char *path,
			     const struct mount_view **ret_view, size_t *ret_length)
{
	char *source = strdup(path);
	errint_t error = source ? -ENOENT : -ENOMEM;

	for (size_t length = strlen(path); length > 0 && error == -ENOENT; length--) {
		if (path[length] && path[length] != '/')
			continue;
		source[length] = '\0';
		error = find_server(views, source, ret_view);
		*ret_length = length;
	}
	free(source);
	return error;
}

/* The caller's mount that serves PATH, by the list of mounts, or with ASK by what the daemons
 * say. With a RET_LENGTH PATH may lie below the source: see find_nearest(). */
static errint_t find_server_of(const char *path, bool ask_daemons, struct mount_entry *ret_entry,
			       size_t *ret_length)
{
	const struct mount_view *view;
	struct mount_views views;
	errint_t error = views_read(geteuid(), &views);

	if (error)
		return error;
	if (ask_daemons)
		error = views_ask(&views, ANSWER_MS);
	if (!error)
		error = ret_length ? find_nearest(&views, path, &view, ret_length)
				   : find_server(&views, path, &view);
	if (!error)
		error = mount_entry_copy(&view->entry, ret_entry);
	views_clear(&views);
	return error;
}

errint_t find_by_source(const char *source, struct mount_entry *ret_entry)
{
	errint_t error = find_server_of(source, false, ret_entry, NULL);

	return error == -ENOENT ? find_server_of(source, true, ret_entry, NULL) : error;
}

/* The mount that the file or directory PATH lies on, if that is a FUSE mount. */
static errint_t find_around(const char *path, struct mount_entry *ret_entry)
{
	struct mount_entry entry = {0};
	int fd = open(path, O_PATH | O_CLOEXEC);
	errint_t error = fd < 0 ? -ENOENT : mount_entry_of_fd(fd, &entry);

	if (fd >= 0)
		close(fd);
	if (!error && strncmp(entry.type, "fuse", 4) != 0) {
		mount_entry_clear(&entry);
		error = -ENOENT;
	}
	if (!error)
		*ret_entry = entry;
	return error;
}

/* The mount whose source is PATH, or else the mount that PATH lies on. The daemons are asked for
 * their sources last, because one of them may not answer. */
static errint_t find_by_content(const char *path, struct mount_entry *ret_entry)
{
	char *full = realpath(path, NULL);
	errint_t error = full ? find_server_of(full, false, ret_entry, NULL) : -ENOENT;

	if (error == -ENOENT)
		error = find_around(path, ret_entry);
	if (error == -ENOENT && full)
		error = find_server_of(full, true, ret_entry, NULL);
	free(full);
	return error;
}

int find_mount(const char *path, struct mount_entry *ret_entry)
{
	struct mount_entry entry = {0}, found;
	errint_t error = mount_entry_find(path, &entry);

	if (error == -ENOENT || (!error && strcmp(entry.type, "fuse.foldfs") != 0)) {
		errint_t otherwise = find_by_content(path, &found);

		if (!otherwise || otherwise == -ENOTUNIQ) {
			mount_entry_clear(&entry);
			error = otherwise;
		}
		if (!otherwise)
			entry = found;
	}
	if (error == -ENOTUNIQ)
		return EXIT_FAILURE;
	if (error == -ENOENT)
		return fail("nothing is mounted on %s, and no foldfs mount of yours serves it.",
			    path);
	if (error)
		return fail("cannot look up %s: %s.", path, strerror(-error));
	if (strncmp(entry.type, "fuse", 4) != 0) {
		fail("%s is not a foldfs mount: it is %s.", path, entry.type);
		mount_entry_clear(&entry);
		return EXIT_FAILURE;
	}
	*ret_entry = entry;
	return EXIT_SUCCESS;
}

int find_shown(const char *path, char **ret_path)
{
	char *full = realpath(path, NULL);
	struct mount_entry entry = {0};
	size_t length = 0;
	errint_t error;

	*ret_path = NULL;
	if (!full)
		return fail("cannot resolve %s: %s.", path, strerror(errno));
	error = find_server_of(full, false, &entry, &length);
	if (error == -ENOENT)
		error = find_server_of(full, true, &entry, &length);
	if (!error && asprintf(ret_path, "%s%s", entry.mountpoint, full + length) < 0) {
		*ret_path = NULL;
		error = -ENOMEM;
	}
	mount_entry_clear(&entry);
	free(full);
	if (error == 0 || error == -ENOENT)
		return EXIT_SUCCESS;
	return error == -ENOTUNIQ ? EXIT_FAILURE
				  : fail("cannot look up %s: %s.", path, strerror(-error));
}
