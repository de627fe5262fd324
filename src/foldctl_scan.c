/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foldctl_scan.c - foldctl scan: fills the catalogue of a source now
 *
 * DIR is a mount, whose source is then scanned, or a directory that is to be mounted. A directory
 * within a mount is none of both: it has no catalogue of its own.
 */
#include "foldfs/catalogue.h"
#include "foldfs/foldctl.h"
#include "foldfs/objects_sweep.h"
#include "foldfs/scan_command.h"
#include "foldfs/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a foldfs mount serves has other stamps than its source, and none that last. */
static bool is_on_foldfs(int fd)
{
	struct mount_entry entry;
	bool is = false;

	if (!mount_entry_of_fd(fd, &entry)) {
		is = strcmp(entry.type, "fuse.foldfs") == 0;
		mount_entry_clear(&entry);
	}
	return is;
}

static int open_root(const char *directory, const char *source, int *ret_fd)
{
	int fd = open(source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return fail("cannot open the directory %s: %s.", source, strerror(errno));
	if (is_on_foldfs(fd)) {
		close(fd);
		return strcmp(directory, source) == 0
			       ? fail("%s lies in a foldfs mount: name the mount, or its source.",
				      source)
			       : fail("the source of %s is covered by a mount: scan it before it "
				      "is mounted.",
				      directory);
	}
	*ret_fd = fd;
	return EXIT_SUCCESS;
}

static int open_catalogue(const struct scan_command *command, const char *source,
			  struct catalogue **ret_catalogue)
{
	char *directory = NULL;
	bool moved_aside = false;
	errint_t error = state_directory(command->state, source, &directory);
	int status = EXIT_SUCCESS;

	if (!error)
		error = catalogue_open(directory, CATALOGUE_MAX_BYTES, &moved_aside, ret_catalogue);
	if (error)
		status = fail("cannot keep a catalogue of %s: %s: %s.", source,
			      directory ? directory : "no directory for it",
			      catalogue_open_error(error));
	if (moved_aside)
		fail("the catalogue in %s was damaged, foreign or full: it is moved aside "
		     "(data.mdb.aside), and a new one begun.",
		     directory);
	free(directory);
	return status;
}

/* Have the copies removed that nobody has a use for after the scan. */
static void sweep_objects(const struct scan_command *command, const char *source)
{
	char *directory = NULL;
	char path[PATH_MAX];
	int fd = -1;

	if (!state_directory(command->state, source, &directory) &&
	    snprintf(path, sizeof(path), "%s/objects", directory) < (int)sizeof(path))
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* Most catalogues have none. */
	if (fd >= 0) {
		objects_sweep(fd, command->options.catalogue);
		close(fd);
	}
	free(directory);
}

/* The source of the foldfs mount on PATH, malloced; NULL if there is none there. */
static int source_of(const char *path, char **ret_source)
{
	struct mount_entry entry;
	json_t *status = NULL;
	errint_t error = mount_entry_find(path, &entry);
	int result;

	if (error == -ENOENT)
		return EXIT_SUCCESS;
	if (error)
		return fail("cannot look up %s: %s.", path, strerror(-error));
	if (strcmp(entry.type, "fuse.foldfs") != 0) {
		mount_entry_clear(&entry);
		return EXIT_SUCCESS;
	}
	result = ask(&entry, "{\"request\":\"status\"}\n", ANSWER_MS, &status);
	mount_entry_clear(&entry);
	if (result)
		return result;
	*ret_source = strdup(text(status, "source"));
	json_decref(status);
	return *ret_source ? EXIT_SUCCESS : fail("not enough memory.");
}

static int scan_source(struct scan_command *command, const char *directory, const char *source)
{
	int fd = -1;
	int status = open_root(directory, source, &fd);

	if (status)
		return status;
	status = open_catalogue(command, source, &command->options.catalogue);
	if (!status) {
		status = scan_command_run(command, fd, source);
		sweep_objects(command, source);
		catalogue_close(command->options.catalogue);
	}
	close(fd);
	return status;
}

int command_scan(char *argv[])
{
	struct scan_command command;
	char *current = NULL;
	char *source = NULL;
	int status = EXIT_SUCCESS;

	if (scan_command_parse("foldctl", false, argv, &command))
		return EXIT_FAILURE;
	/* By its path: "." is no mount's name. */
	if (!command.directory) {
		current = getcwd(NULL, 0);
		if (!current)
			return fail("cannot tell the current directory: %s.", strerror(errno));
		command.directory = current;
	}
	status = source_of(command.directory, &source);
	if (!status && !source) {
		source = realpath(command.directory, NULL);
		if (!source)
			status = fail("cannot resolve %s: %s.", command.directory, strerror(errno));
		/* For messages: the directory is the source. */
		command.directory = source;
	}
	if (!status)
		status = scan_source(&command, command.directory, source);
	free(source);
	free(current);
	return status;
}
