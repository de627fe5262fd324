/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mountinfo.c - what /proc/self/mountinfo says of a mount; shared by foldfs and foldctl
 *
 * Invariants:
 * A  The mount itself is never asked anything, so a stuck or dead mount makes nobody here block or
 *    fail. Only what leads to it is looked up: the parent directory, and the text of a symlink if
 *    nothing is mounted on it.
 * B  Of several mounts on one path, the one that a look-up reaches is found. The search goes up
 *    from the mount of the parent directory; each mount is the child of the one below. A mount does
 *    not count if it is hidden by another one that is mounted over a directory above it.
 * C  A look-up ends, whatever the list says.
 */
#include "foldfs/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS_MAX 40

/* One line of mountinfo. Its fields are cut out of the line and unescaped in place. */
struct line {
	int id;
	int parent;
	unsigned major;
	unsigned minor;
	char *root;
	char *mountpoint;
	char *options;
	char *type;
	char *source;
	char *super_options;
};

/* The line that is looked for; -1 or NULL: any value. */
struct wanted {
	const char *path;
	int parent;
	int id;
	const struct mount_entry *device; /* the entry whose device numbers count */
};

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* In mountinfo space, tab, newline and backslash are written as \ooo. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) &&
		    is_octal(from[3])) {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG…] - TYPE SOURCE SUPER-OPTIONS */
static bool line_parse(char *text, struct line *ret_line)
{
	struct line line = {0};
	char *rest, *dash;
	int used = 0;

	if (sscanf(text, "%d %d %u:%u %n", &line.id, &line.parent, &line.major, &line.minor,
		   &used) != 4 ||
	    !used)
		return false;
	rest = text + used;
	line.root = strsep(&rest, " ");
	line.mountpoint = strsep(&rest, " ");
	dash = rest ? strstr(rest, " - ") : NULL;
	if (!dash)
		return false;
	line.options = strsep(&rest, " ");
	rest = dash + strlen(" - ");
	rest[strcspn(rest, "\n")] = '\0';
	line.type = strsep(&rest, " ");
	line.source = strsep(&rest, " ");
	line.super_options = rest;
	if (!line.source || !line.super_options)
		return false;
	unescape(line.root);
	unescape(line.mountpoint);
	unescape(line.type);
	unescape(line.source);
	*ret_line = line;
	return true;
}

/* The number after NAME ("user_id=") in the comma-separated LIST; 0 if there is none. */
static unsigned number_in(const char *list, const char *name)
{
	size_t length = strlen(name);
	const char *word = list;

	while (word && strncmp(word, name, length) != 0) {
		word = strchr(word, ',');
		if (word)
			word++;
	}
	return word ? (unsigned)strtoul(word + length, NULL, 10) : 0;
}

/* The entry that LINE describes. Its texts stay in the line. */
static struct mount_entry entry_view(const struct line *line)
{
	return (struct mount_entry){
		.id = line->id,
		.device_major = line->major,
		.device_minor = line->minor,
		.owner = number_in(line->super_options, "user_id="),
		.group = number_in(line->super_options, "group_id="),
		.root = line->root,
		.source = line->source,
		.mountpoint = line->mountpoint,
		.type = line->type,
		.options = line->options,
		.super_options = line->super_options,
	};
}

errint_t mount_entry_copy(const struct mount_entry *original, struct mount_entry *ret_entry)
{
	struct mount_entry entry = *original;

	entry.root = strdup(entry.root);
	entry.source = strdup(entry.source);
	entry.mountpoint = strdup(entry.mountpoint);
	entry.type = strdup(entry.type);
	entry.options = strdup(entry.options);
	entry.super_options = strdup(entry.super_options);
	if (!entry.root || !entry.source || !entry.mountpoint || !entry.type || !entry.options ||
	    !entry.super_options) {
		mount_entry_clear(&entry);
		return -ENOMEM;
	}
	*ret_entry = entry;
	return 0;
}

/* What RET_ENTRY had before is freed. */
static errint_t entry_of(const struct line *line, struct mount_entry *ret_entry)
{
	const struct mount_entry view = entry_view(line);
	struct mount_entry entry;
	errint_t error = mount_entry_copy(&view, &entry);

	if (error)
		return error;
	mount_entry_clear(ret_entry);
	*ret_entry = entry;
	return 0;
}

void mount_entry_clear(struct mount_entry *entry)
{
	free(entry->root);
	free(entry->source);
	free(entry->mountpoint);
	free(entry->type);
	free(entry->options);
	free(entry->super_options);
	entry->root = entry->source = entry->mountpoint = entry->type = NULL;
	entry->options = entry->super_options = NULL;
}

/* A root file system that nothing was pivoted over is its own parent. It must not count as its own
 * child. */
static bool is_child(const struct line *line, int parent)
{
	return parent == -1 || (line->parent == parent && line->id != parent);
}

static bool is_wanted(const struct line *line, const struct wanted *wanted)
{
	const struct mount_entry *device = wanted->device;

	return (!wanted->path || strcmp(line->mountpoint, wanted->path) == 0) &&
	       is_child(line, wanted->parent) && (wanted->id == -1 || line->id == wanted->id) &&
	       (!device ||
		(line->major == device->device_major && line->minor == device->device_minor));
}

/* The first mount in the list that fits WANTED. */
static errint_t scan(const struct wanted *wanted, struct mount_entry *entry)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *text = NULL;
	size_t size = 0;
	struct line line;
	errint_t error = -ENOENT;

	if (!file)
		return -errno;
	while (error == -ENOENT && getline(&text, &size, file) >= 0)
		if (line_parse(text, &line) && is_wanted(&line, wanted))
			error = entry_of(&line, entry);
	if (error == -ENOENT && ferror(file))
		error = -EIO;
	free(text);
	fclose(file);
	return error;
}

/* The id of the mount that PATH is on, a directory above the mount in question; -1 if unknown. */
static int mount_id_of(const char *path)
{
	struct statx stx;

	if (statx(AT_FDCWD, path, AT_NO_AUTOMOUNT, STATX_MNT_ID, &stx) != 0 ||
	    !(stx.stx_mask & STATX_MNT_ID))
		return -1;
	return (int)stx.stx_mnt_id;
}

/* The topmost mount on PATH, whose parent directory is DIRECTORY. Both are absolute and
 * resolved. */
static errint_t find_on(const char *directory, const char *path, struct mount_entry *ret_entry)
{
	struct mount_entry entry = {0};
	struct wanted wanted = {.parent = -1, .id = -1};
	errint_t error;
	int mark;

	wanted.path = path;
	/* The root's parent is the root itself, so the parent mount does not matter. */
	if (strcmp(path, "/") != 0)
		wanted.parent = mount_id_of(directory);
	error = scan(&wanted, &entry);
	if (error)
		return error;
	mark = entry.id;
	/* Mounts form a tree, but the list is read anew for each step. So a walk that comes back to
	 * an earlier mount is given up. MARK is the mount after 1, 2, 4, 8… steps. */
	for (unsigned steps = 1; error == 0; steps++) {
		if ((steps & (steps - 1)) == 0)
			mark = entry.id;
		wanted.parent = entry.id;
		error = scan(&wanted, &entry);
		if (error == 0 && entry.id == mark)
			error = -ELOOP;
	}
	if (error != -ENOENT) {
		mount_entry_clear(&entry);
		return error;
	}
	*ret_entry = entry;
	return 0;
}

/* Split PATH, which is changed, into its last component and the directory before it. */
static void split(char *path, const char **ret_directory, const char **ret_name)
{
	size_t length = strlen(path);
	char *slash;

	while (length > 1 && (path[length - 1] == '/' ||
			      (length > 2 && path[length - 1] == '.' && path[length - 2] == '/')))
		path[--length] = '\0';
	slash = strrchr(path, '/');
	if (!slash) {
		*ret_directory = ".";
		*ret_name = path;
	} else {
		*slash = '\0';
		*ret_directory = slash == path ? "/" : path;
		*ret_name = slash + 1;
	}
}

/* The directory before the last component of ABSOLUTE. NULL: no memory. */
static char *parent_of(const char *absolute)
{
	const char *slash = strrchr(absolute, '/');

	return slash == absolute ? strdup("/") : strndup(absolute, (size_t)(slash - absolute));
}

/*
 * Make PATH absolute: resolve its parent directory, and leave its last component as it is. The
 * kernel knows the name of the working directory without asking the mount. `..` is the one case
 * that has to be looked at. NULL, with errno.
 */
static char *resolve(const char *path)
{
	char *copy = strdup(path), *full = NULL, *above;
	const char *directory, *name;

	if (!copy)
		return NULL;
	split(copy, &directory, &name);
	if (strcmp(name, ".") == 0) {
		full = getcwd(NULL, 0);
	} else if (*name == '\0' || strcmp(name, "..") == 0) {
		full = realpath(path, NULL);
	} else {
		above = realpath(directory, NULL);
		if (above && asprintf(&full, "%s/%s", above[1] ? above : "", name) < 0)
			full = NULL;
		free(above);
	}
	free(copy);
	return full;
}

/* The absolute path to which the symlink FULL leads. NULL, with errno: EINVAL if it is no
 * symlink. */
static char *follow(const char *full)
{
	char target[PATH_MAX], *directory, *path = NULL;
	ssize_t length = readlink(full, target, sizeof(target) - 1);

	if (length < 0)
		return NULL;
	target[length] = '\0';
	if (target[0] == '/')
		return strdup(target);
	directory = parent_of(full);
	if (!directory || asprintf(&path, "%s/%s", directory, target) < 0)
		path = NULL;
	free(directory);
	return path;
}

/* One step: find the mount on FULL. -ENOENT: there is none; then *RET_NEXT is the target if FULL is
 * a symlink, else NULL. */
static errint_t find_or_follow(const char *full, struct mount_entry *ret_entry, char **ret_next)
{
	char *directory = parent_of(full);
	errint_t error = directory ? find_on(directory, full, ret_entry) : -ENOMEM;

	free(directory);
	if (error != -ENOENT)
		return error;
	*ret_next = follow(full);
	return !*ret_next && errno == ENOMEM ? -ENOMEM : -ENOENT;
}

errint_t mount_entry_find(const char *path, struct mount_entry *ret_entry)
{
	char *next = strdup(path), *full;
	errint_t error = next ? -ENOENT : -ENOMEM;

	for (int links = 0; next && error == -ENOENT; links++) {
		full = links < LINKS_MAX ? resolve(next) : NULL;
		if (!full)
			error = links < LINKS_MAX ? -errno : -ELOOP;
		free(next);
		next = NULL;
		if (!full)
			break;
		error = find_or_follow(full, ret_entry, &next);
		free(full);
	}
	free(next);
	return error;
}

errint_t mount_entry_of_fd(int fd, struct mount_entry *ret_entry)
{
	struct mount_entry entry = {0};
	struct wanted wanted = {.parent = -1, .id = -1};
	struct statx stx;
	errint_t error;

	if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_MNT_ID, &stx) != 0)
		return -errno;
	if (!(stx.stx_mask & STATX_MNT_ID))
		return -ENOENT;
	wanted.id = (int)stx.stx_mnt_id;
	error = scan(&wanted, &entry);
	if (!error)
		*ret_entry = entry;
	return error;
}

errint_t mount_entries_visit(const char *name,
			     void (*visit)(void *context, const struct mount_entry *entry),
			     void *context)
{
	FILE *file = fopen(name ? name : "/proc/self/mountinfo", "re");
	struct mount_entry entry;
	char *text = NULL;
	size_t size = 0;
	struct line line;
	errint_t error;

	if (!file)
		return -errno;
	while (getline(&text, &size, file) >= 0) {
		if (!line_parse(text, &line))
			continue;
		entry = entry_view(&line);
		visit(context, &entry);
	}
	error = ferror(file) ? -EIO : 0;
	free(text);
	fclose(file);
	return error;
}

errint_t mount_entry_find_again(const struct mount_entry *like, bool any,
				struct mount_entry *ret_entry)
{
	struct wanted wanted = {.parent = -1, .id = like->id, .device = like};
	struct mount_entry entry = {0};
	errint_t error = scan(&wanted, &entry);

	wanted.id = -1;
	if (error == -ENOENT && any)
		error = scan(&wanted, &entry);
	if (!error)
		*ret_entry = entry;
	return error;
}

/* Whether FD is on the mount of ENTRY, and not on one that hides it. With an empty mask and
 * AT_STATX_DONT_SYNC a FUSE mount tells anybody these two numbers. */
static bool is_on(int fd, const struct mount_entry *entry)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, &stx) != 0)
		return false;
	return stx.stx_dev_major == entry->device_major &&
	       stx.stx_dev_minor == entry->device_minor &&
	       /* Before Linux 5.8 the kernel gives no mount id. */
	       (!(stx.stx_mask & STATX_MNT_ID) || (int)stx.stx_mnt_id == entry->id);
}

int mount_entry_open(const struct mount_entry *entry)
{
	int fd = open(entry->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (is_on(fd, entry))
		return fd;
	close(fd);
	return -ENOENT;
}

bool mount_option_is_set(const char *options, const char *name)
{
	size_t length = strlen(name);

	for (const char *word = options; *word; word += *word == ',') {
		size_t word_length = strcspn(word, ",");

		if (word_length == length && strncmp(word, name, length) == 0)
			return true;
		word += word_length;
	}
	return false;
}

void mount_socket_name(const struct mount_entry *entry, char name[MOUNT_SOCKET_NAME])
{
	snprintf(name, MOUNT_SOCKET_NAME, "%u:%u.sock", entry->device_major, entry->device_minor);
}
