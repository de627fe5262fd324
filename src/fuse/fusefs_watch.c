/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_watch.c - changes that others make in the source reach the pool and the kernel
 *
 * For each change, first what the daemon knows is dropped, then what the kernel caches. So whatever
 * the kernel asks for afterwards is answered anew. A read under way may still bring it old pages.
 * Those are locked until the reply, and dropping them waits for that.
 *
 * Everything runs on the watching thread (source_watch.h), which no request waits for. Dropping
 * pages is left to the window's trimmer, as always. Names and attributes are dropped from here. If
 * a request under way has a name's directory locked, only this thread waits.
 *
 * A sweep comes after reports were lost. It looks at each known file, and drops what a report of
 * that file would have dropped. It leaves out files whose stamp shows that no report can be
 * missing.
 *
 * Names are made to expire, not removed. The kernel looks them up again at their next use, and
 * keeps what is mounted on them.
 */
#include "fusefs_internal.h"

#include "foldfs/counters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Drop the pages that the kernel caches of INODE. FILE: what is known of the inode's content; NULL:
 * nothing. */
static void drop_pages(struct inode *inode, const struct file *file)
{
	struct window_file *window;

	inode_lock(inode);
	window = *inode_window_file(inode);
	inode_unlock(inode);
	/* Without a window_file the inode was never opened, and nothing of it is cached. The
	 * window_file lives as long as the inode, of which we hold a look-up. */
	if (window && file)
		window_follow(window, file_edition(file));
	else if (window)
		window_invalidate_soon(window);
}

static void follow_content(void *context, const struct stat *st)
{
	struct fusefs *fs = context;
	struct file *file = file_table_find(fs->files, st->st_dev, st->st_ino);
	struct inode *inode;

	if (file)
		file_distrust(file);
	inode = inode_find(fs->inodes, st->st_dev, st->st_ino, st->st_mode & S_IFMT);
	if (inode) {
		fusefs_attr_expire(fs, inode);
		drop_pages(inode, file);
		inode_put(fs->inodes, inode);
	}
	if (file || inode)
		counters_add(fs->counters, COUNTER_WATCH_EVENTS, 1);
	if (file)
		file_put(file);
}

static void follow_attributes(void *context, const struct stat *st)
{
	struct fusefs *fs = context;
	struct inode *inode = inode_find(fs->inodes, st->st_dev, st->st_ino, st->st_mode & S_IFMT);

	if (!inode)
		return;
	if (!st->st_nlink)
		inode_let_go(fs->inodes, inode);
	fusefs_attr_expire(fs, inode);
	inode_put(fs->inodes, inode);
	counters_add(fs->counters, COUNTER_WATCH_EVENTS, 1);
}

static void follow_name(void *context, const struct stat *directory, const char *name)
{
	struct fusefs *fs = context;
	struct inode *inode = inode_find(fs->inodes, directory->st_dev, directory->st_ino, S_IFDIR);

	if (!inode)
		return;
	/* This drops the directory's attributes, too. */
	(void)fuse_lowlevel_notify_expire_entry(fs->session, inode_node(inode), name, strlen(name));
	fusefs_attr_expire(fs, inode);
	inode_put(fs->inodes, inode);
	counters_add(fs->counters, COUNTER_WATCH_EVENTS, 1);
}

/* Look at a known file whose inode the kernel knows too. Returns whether it stays known. */
static bool recheck_inode(struct fusefs *fs, struct inode *inode, struct file *file, int64_t calm)
{
	int fd = inode_path_begin(fs->inodes, inode);
	bool stays = file_recheck(file, fd, calm);

	if (fd >= 0)
		inode_path_end(inode);
	if (stays)
		return true;
	fusefs_attr_expire(fs, inode);
	drop_pages(inode, file);
	return false;
}

/* Returns whether FILE stays known. If the kernel knows no inode of it, FILE is compared at its
 * next open. Exception: a client may have an inode of it open that has lost its number
 * (inode_detach()). */
static bool recheck(struct fusefs *fs, struct file *file, const struct file_key *key, int64_t calm)
{
	struct inode *inode = inode_find(fs->inodes, key->device, key->inode, S_IFREG);
	bool stays;

	if (inode) {
		stays = recheck_inode(fs, inode, file, calm);
		inode_put(fs->inodes, inode);
	} else {
		stays = file_rests(file, calm);
		if (!stays)
			file_distrust(file);
	}
	return stays;
}

/* Only files on the source's own file system are watched. */
static void recheck_files(struct fusefs *fs, const struct file_key keys[], size_t count,
			  int64_t calm)
{
	struct file *file;

	for (size_t i = 0; i < count && !source_watch_is_ending(fs->watch); i++) {
		if (!file_table_is_source(fs->files, keys[i].device))
			continue;
		file = file_table_peek(fs->files, &keys[i]);
		if (!file)
			continue;
		counters_add(fs->counters, COUNTER_WATCH_COMPARED, 1);
		if (!recheck(fs, file, &keys[i], calm))
			counters_add(fs->counters, COUNTER_WATCH_GIVEN_UP, 1);
		file_put(file);
	}
}

/* A file that becomes known after the keys were collected is read after that. So it is read after
 * all changes whose reports may have been lost. */
static errint_t follow_everything(void *context, int64_t calm)
{
	struct fusefs *fs = context;
	struct file_key *keys;
	size_t count;
	errint_t error = file_table_keys(fs->files, &keys, &count);

	if (error)
		return error;
	recheck_files(fs, keys, count, calm);
	free(keys);
	/* The kernel looks up every name again, which brings its attributes too. Before Linux 6.16
	 * it keeps them for as long as attr_timeout and entry_timeout say. */
	(void)fuse_lowlevel_notify_increment_epoch(fs->session);
	return 0;
}

static const struct source_watch_calls calls = {
	.content = follow_content,
	.attributes = follow_attributes,
	.name = follow_name,
	.everything = follow_everything,
};

static errint_t watch_new(struct fusefs *fs)
{
	return source_watch_new(fs->source_fd, &calls, fs, fs->counters, &fs->watch);
}

errint_t fusefs_watch_check(int source_fd)
{
	struct source_watch *watch = NULL;
	errint_t error = source_watch_new(source_fd, &calls, NULL, NULL, &watch);

	if (!error)
		source_watch_free(watch);
	return error;
}

/* The watch comes and goes under watch_lock. Its own thread reads fs->watch without it: the pointer
 * is set before the thread begins, and cleared after it has ended. */

errint_t fusefs_watch(struct fusefs *fs)
{
	errint_t error = -ESHUTDOWN;

	pthread_mutex_lock(&fs->watch_lock);
	if (fs->watch)
		error = 0;
	else if (!fs->watch_over)
		error = watch_new(fs);
	if (!error && fs->watch_begun && !fs->watch_runs) {
		error = source_watch_start(fs->watch, true);
		fs->watch_runs = !error;
	}
	if (error && !fs->watch_runs) {
		source_watch_free(fs->watch);
		fs->watch = NULL;
	}
	pthread_mutex_unlock(&fs->watch_lock);
	return error;
}

errint_t fusefs_watch_start(struct fusefs *fs)
{
	errint_t error = 0;

	pthread_mutex_lock(&fs->watch_lock);
	fs->watch_begun = true;
	if (fs->watch)
		error = source_watch_start(fs->watch, session_continues(fs->records));
	fs->watch_runs = fs->watch && !error;
	pthread_mutex_unlock(&fs->watch_lock);
	return error;
}

void fusefs_unwatch(struct fusefs *fs)
{
	pthread_mutex_lock(&fs->watch_lock);
	source_watch_free(fs->watch);
	fs->watch = NULL;
	fs->watch_runs = false;
	pthread_mutex_unlock(&fs->watch_lock);
}

void fusefs_watch_stop(struct fusefs *fs)
{
	pthread_mutex_lock(&fs->watch_lock);
	fs->watch_over = true;
	if (fs->watch)
		source_watch_stop(fs->watch);
	pthread_mutex_unlock(&fs->watch_lock);
}
