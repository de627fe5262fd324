/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foldctl_scan.c - foldctl scan: fills the catalogue of a source now
 *
 * DIR is a mount, whose source is then scanned, or a directory that is mounted or will be. A
 * directory within a mount is neither of these: it has no catalogue of its own.
 *
 * The results are of use to a mount only in the mount's own catalogue. So foldctl asks the mount
 * where its catalogue is: the mount may have been told another place than our default (-o state,
 * $HOME). Only a mount of the caller's own is believed; any other user's could make the caller
 * write where the caller does not want to.
 */
#include "foldctl.h"
#include "foldfs/catalogue.h"
#include "foldfs/scan_command.h"
#include "foldfs/shared_copies_sweep.h"
#include "foldfs/state_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A foldfs mount shows other stamps than its source does, and none that last. */
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
			       ? fail("%s lies in a foldfs mount: scan the mount point, or the "
				      "source.",
				      source)
			       : fail("the source of %s is covered by a mount: scan it before it "
				      "is mounted.",
				      directory);
	}
	*ret_fd = fd;
	return EXIT_SUCCESS;
}

/* What is scanned, and where the results are kept. Strings are malloced. */
struct target {
	char *source;
	char *mountpoint; /* of the mount that is asked; NULL: no mount is */
	char *state;      /* the directory of the mount's catalogue; empty: it has none */
	char *directory;  /* of the catalogue that is filled */
	uid_t owner;      /* of the mount */
};

static void target_clear(struct target *target)
{
	free(target->source);
	free(target->mountpoint);
	free(target->state);
	free(target->directory);
}

static int open_catalogue(const struct target *target, struct catalogue **ret_catalogue)
{
	bool moved_aside = false;
	errint_t error =
		catalogue_open(target->directory, CATALOGUE_MAX_BYTES, &moved_aside, ret_catalogue);

	if (error)
		return fail("cannot keep a catalogue of %s: %s: %s.", target->source,
			    target->directory, catalogue_open_error(error));
	if (moved_aside)
		fail("the catalogue in %s was damaged, foreign or full. It is moved aside "
		     "(data.mdb.aside), and a new one is begun.",
		     target->directory);
	return EXIT_SUCCESS;
}

/* Remove the copies that nothing needs any more after the scan. */
static void sweep_objects(struct catalogue *catalogue, const char *directory)
{
	char path[PATH_MAX];
	int fd = -1;

	if (snprintf(path, sizeof(path), "%s/objects", directory) < (int)sizeof(path))
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* Most catalogues have none. */
	if (fd >= 0) {
		shared_copies_sweep(fd, catalogue);
		close(fd);
	}
}

/* Ask the daemon of ENTRY about its mount. */
static int ask_target(const struct mount_entry *entry, struct target *target)
{
	json_t *status = NULL;
	int result = ask(entry, "{\"request\":\"status\"}\n", ANSWER_MS, &status);

	if (result)
		return result;
	target->owner = entry->owner;
	target->mountpoint = strdup(entry->mountpoint);
	target->source = strdup(text(status, "source"));
	target->state = strdup(text(status, "state"));
	json_decref(status);
	return target->mountpoint && target->source && target->state ? EXIT_SUCCESS
								     : fail("not enough memory.");
}

/* PATH is the target, or a mount of ours that is up serves PATH. */
static int find_served(const char *path, bool state_given, struct target *target)
{
	struct mount_entry entry;
	errint_t error;
	int result;

	target->source = realpath(path, NULL);
	if (!target->source)
		return fail("cannot resolve %s: %s.", path, strerror(errno));
	error = state_given ? -ENOENT : find_by_source(target->source, &entry);
	if (error == -ENOENT)
		return EXIT_SUCCESS;
	if (error == -ENOTUNIQ)
		return EXIT_FAILURE;
	if (error)
		return fail("cannot look up %s: %s.", path, strerror(-error));
	free(target->source);
	target->source = NULL;
	result = ask_target(&entry, target);
	mount_entry_clear(&entry);
	return result;
}

static int find_target(const char *path, bool state_given, struct target *target)
{
	struct mount_entry entry = {0};
	errint_t error = mount_entry_find(path, &entry);
	int result;

	if (error && error != -ENOENT)
		return fail("cannot look up %s: %s.", path, strerror(-error));
	result = !error && is_ours(&entry) ? ask_target(&entry, target)
					   : find_served(path, state_given, target);
	mount_entry_clear(&entry);
	return result;
}

static bool is_same_place(const char *a, const char *b)
{
	struct stat first, second;

	return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
	       first.st_ino == second.st_ino;
}

/* Choose where the results are kept. STATE is from the command line; NULL: it names no place. */
static int choose_directory(const char *state, struct target *target)
{
	errint_t error;

	if (!state && target->mountpoint && target->owner != geteuid())
		return fail(
			"the mount %s and its catalogue belong to user %u: scan it as that user.",
			target->mountpoint, target->owner);
	if (!state && target->mountpoint && *target->state != '/')
		return fail("the mount %s keeps no catalogue, so it would learn nothing from a "
			    "scan. Its log says why.",
			    target->mountpoint);
	if (!state && target->mountpoint) {
		target->directory = strdup(target->state);
		return target->directory ? EXIT_SUCCESS : fail("not enough memory.");
	}
	error = state_directory(state, target->source, &target->directory);
	if (error)
		return fail("cannot keep a catalogue of %s: no directory for it can be had: %s.",
			    target->source, strerror(-error));
	return EXIT_SUCCESS;
}

/* --state may name another place than the mount's. */
static void tell_unseen(const struct target *target)
{
	if (target->mountpoint && !is_same_place(target->directory, target->state))
		fail("the mount %s does not see what is kept in %s: scan it without --state.",
		     target->mountpoint, target->directory);
}

static int scan_target(struct scan_command *command, const struct target *target)
{
	int fd = -1;
	int status = open_root(command->directory, target->source, &fd);

	if (status)
		return status;
	status = open_catalogue(target, &command->options.catalogue);
	if (!status) {
		status = scan_command_run(command, fd, target->source);
		sweep_objects(command->options.catalogue, target->directory);
		catalogue_close(command->options.catalogue);
		tell_unseen(target);
	}
	close(fd);
	return status;
}

int command_scan(char *argv[])
{
	struct scan_command command;
	struct target target = {0};
	char *current = NULL;
	int status;

	if (scan_command_parse("foldctl", false, argv, &command))
		return EXIT_FAILURE;
	/* The mount is looked up by its path: "." is no mount's name. */
	if (!command.directory) {
		current = getcwd(NULL, 0);
		if (!current)
			return fail("cannot find out the current directory: %s.", strerror(errno));
		command.directory = current;
	}
	status = find_target(command.directory, command.state, &target);
	/* In messages the scanned directory is the source. */
	if (!status && !target.mountpoint)
		command.directory = target.source;
	if (!status)
		status = choose_directory(command.state, &target);
	if (!status)
		status = scan_target(&command, &target);
	target_clear(&target);
	free(current);
	return status;
}
