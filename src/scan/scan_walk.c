/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_walk.c - finds the regular files of a tree, each once
 *
 * The walk goes depth first, with one directory open at a time: waiting directories are kept by
 * their path. A file with several names is reported under the first one that the walk meets; the
 * set of such files counts against the scan's memory. Symbolic links are not followed, and every
 * path is opened beneath the root, so nobody who moves directories about can lead the walk out of
 * the tree. The walk marks each directory that not everybody may go through, and everything below
 * it: files there back no other file (docs/catalogue.md).
 *
 * Where somebody watches the progress, the same walk runs twice: a second thread counts what there
 * is, so that the time left can be told.
 */
#include "foldfs/object_hash.h"
#include "scan_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct waiting {
	struct waiting *next;
	bool reachable; /* everybody may go through the directories above it */
	char path[];
};

struct link_key {
	dev_t device;
	ino_t inode; /* 0: empty */
};

/* Open addressing, at most 3/4 full. */
struct link_set {
	struct link_key *keys;
	size_t places;
	size_t used;
};

struct walk {
	struct scan *scan;
	bool counting;           /* the thread that only counts */
	struct waiting *waiting; /* directories, the next one first */
	struct link_set links;
	uint64_t bytes; /* memory of `waiting` and `links` */
	uint64_t files; /* that the walk met */
	uint64_t data;  /* bytes of data in these files */
};

static void tell_memory(struct walk *walk)
{
	if (!walk->counting)
		atomic_store_explicit(&walk->scan->walk_memory, walk->bytes, memory_order_relaxed);
}

static size_t link_place(const struct link_key keys[], size_t places, const struct link_key *key)
{
	size_t at = (size_t)fold_object_hash(key->device, key->inode) & (places - 1);

	while (keys[at].inode && (keys[at].inode != key->inode || keys[at].device != key->device))
		at = (at + 1) & (places - 1);
	return at;
}

static errint_t links_grow(struct walk *walk)
{
	struct link_set *set = &walk->links;
	size_t places = set->places ? set->places * 2 : 1024;
	struct link_key *keys;

	if (set->used + 1 <= set->places / 4 * 3)
		return 0;
	keys = calloc(places, sizeof(*keys));
	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < set->places; i++)
		if (set->keys[i].inode)
			keys[link_place(keys, places, &set->keys[i])] = set->keys[i];
	walk->bytes += (places - set->places) * sizeof(*keys);
	tell_memory(walk);
	free(set->keys);
	set->keys = keys;
	set->places = places;
	return 0;
}

/* *ret_met: whether ST was met before, under another name. */
static errint_t links_add(struct walk *walk, const struct stat *st, bool *ret_met)
{
	struct link_key key = {.device = st->st_dev, .inode = st->st_ino};
	errint_t error = links_grow(walk);
	size_t at;

	if (error)
		return error;
	at = link_place(walk->links.keys, walk->links.places, &key);
	*ret_met = walk->links.keys[at].inode != 0;
	walk->links.keys[at] = key;
	walk->links.used += !*ret_met;
	return 0;
}

static uint64_t data_of(const struct stat *st)
{
	uint64_t blocks = (uint64_t)st->st_blocks * 512;

	return blocks < (uint64_t)st->st_size ? blocks : (uint64_t)st->st_size;
}

static void unreadable(struct walk *walk, const char *path, errint_t error)
{
	struct scan_note *note;

	/* What is gone or replaced meanwhile is no error. The counting thread stays silent. */
	if (walk->counting || error == -ENOENT || error == -ENOTDIR || error == -ELOOP)
		return;
	note = scan_note_new(SCAN_NOTE_UNREADABLE);
	if (note)
		note->path = strdup(path);
	if (!note || !note->path) {
		scan_note_free(note);
		scan_note_failure(walk->scan, -ENOMEM);
		return;
	}
	note->error = error;
	scan_note_push(walk->scan, note);
}

static errint_t wait_directory(struct walk *walk, const char *path, bool reachable)
{
	size_t length = strlen(path) + 1;
	struct waiting *waiting = malloc(sizeof(*waiting) + length);

	if (!waiting)
		return -ENOMEM;
	memcpy(waiting->path, path, length);
	waiting->reachable = reachable;
	waiting->next = walk->waiting;
	walk->waiting = waiting;
	walk->bytes += sizeof(*waiting) + length;
	tell_memory(walk);
	return 0;
}

static errint_t meet_file(struct walk *walk, const char *path, bool reachable,
			  const struct stat *st)
{
	size_t length = strlen(path) + 1;
	struct scan_file *file;
	bool met = false;
	errint_t error;

	if (st->st_nlink > 1) {
		error = links_add(walk, st, &met);
		if (error || met)
			return error;
	}
	if (walk->counting) {
		walk->files++;
		walk->data += data_of(st);
		return 0;
	}
	file = malloc(sizeof(*file) + length);
	if (!file)
		return -ENOMEM;
	source_stamp_of(st, &file->stamp);
	file->data_bytes = data_of(st);
	file->reachable = reachable;
	memcpy(file->path, path, length);
	return scan_file_push(walk->scan, file);
}

/* Handle ENTRY, read in the directory FD, which is the directory of IN and is on DEVICE. */
static errint_t meet(struct walk *walk, int fd, const struct waiting *in, dev_t device,
		     const struct dirent *entry)
{
	const char *directory = in->path;
	const char *name = entry->d_name;
	char path[PATH_MAX];
	struct stat st;
	errint_t error;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return 0;
	if (entry->d_type != DT_REG && entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN)
		return 0;
	if (snprintf(path, sizeof(path), "%s%s%s", directory, *directory ? "/" : "", name) >=
	    (int)sizeof(path)) {
		unreadable(walk, name, -ENAMETOOLONG);
		return 0;
	}
	error = border_stat(&walk->scan->border, fd, name, device, &st);
	if (error) {
		/* No mount serves a pseudo file system unless asked to. */
		if (error != -EXDEV)
			unreadable(walk, path, error);
		return 0;
	}
	if (st.st_dev != walk->scan->view.device && !walk->scan->options.all_file_systems)
		return 0;
	if (S_ISDIR(st.st_mode))
		return wait_directory(walk, path, in->reachable);
	return S_ISREG(st.st_mode) ? meet_file(walk, path, in->reachable, &st) : 0;
}

/* The root is not checked: only those who may go through it use the mount at all. Every directory
 * below it is. */
static bool all_may_pass(const char *path, int fd)
{
	struct stat st;

	return !*path || (!fstat(fd, &st) && writers_all_may_pass(fd, &st));
}

static errint_t read_directory(struct walk *walk, struct waiting *waiting)
{
	const char *path = waiting->path;
	int fd = *path ? scan_open(walk->scan, path)
		       : openat(walk->scan->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = NULL;
	struct dirent *entry;
	struct stat st;
	errint_t error = fd < 0 ? fd : 0;

	if (!error && !fstat(fd, &st))
		directory = fdopendir(fd);
	if (!error && !directory) {
		error = -errno;
		close(fd);
	}
	if (error) {
		unreadable(walk, path, error);
		/* Without the root there is no tree. */
		return *path ? 0 : error;
	}
	waiting->reachable = waiting->reachable && all_may_pass(path, dirfd(directory));
	do {
		errno = 0;
		entry = readdir(directory);
		if (entry)
			error = meet(walk, dirfd(directory), waiting, st.st_dev, entry);
		else if (errno)
			unreadable(walk, path, -errno);
	} while (entry && !error && !scan_is_cancelled(walk->scan));
	closedir(directory);
	return error;
}

static errint_t walk_tree(struct walk *walk)
{
	errint_t error = wait_directory(walk, "", true);

	while (walk->waiting) {
		struct waiting *waiting = walk->waiting;

		walk->waiting = waiting->next;
		walk->bytes -= sizeof(*waiting) + strlen(waiting->path) + 1;
		if (!error && !scan_is_cancelled(walk->scan))
			error = read_directory(walk, waiting);
		free(waiting);
	}
	free(walk->links.keys);
	return error;
}

void *scan_walk_thread(void *arg)
{
	struct walk walk = {.scan = arg};

	scan_lower_priority();
	scan_walk_end(walk.scan, walk_tree(&walk));
	scan_worker_end(walk.scan);
	return NULL;
}

void *scan_count_thread(void *arg)
{
	struct walk walk = {.scan = arg, .counting = true};

	scan_lower_priority();
	/* An incomplete count is not used. */
	if (walk_tree(&walk) || scan_is_cancelled(walk.scan))
		return NULL;
	atomic_store_explicit(&walk.scan->total_files, walk.files, memory_order_relaxed);
	atomic_store_explicit(&walk.scan->total_bytes, walk.data, memory_order_relaxed);
	return NULL;
}
