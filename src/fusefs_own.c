/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_own.c - what is known of an inode's content, and changes of ours that move a file's ctime
 * but not its content: they are not to be taken for changes behind the mount
 *
 * Of a file whose links may be parted (links.h) such changes are taken for foreign ones: that costs
 * what is known of it, and is right.
 */
#include "foldfs/fusefs_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct file *file_known(struct fusefs *fs, const struct stat *st)
{
	return S_ISREG(st->st_mode) ? file_table_find(fs->files, st->st_dev, st->st_ino) : NULL;
}

struct file *fusefs_file_find(struct fusefs *fs, const struct inode *inode, const struct stat *st)
{
	struct stat key = *st;

	inode_content_key(inode, &key);
	return file_table_find(fs->files, key.st_dev, key.st_ino);
}

errint_t fusefs_file_get(struct fusefs *fs, const struct inode *inode, const struct stat *st,
			 struct file **ret_file)
{
	struct stat key = *st;

	inode_content_key(inode, &key);
	return file_table_get(fs->files, &key, ret_file);
}

/* FILE's reference is CHANGE's from now on, and FD if CLOSE_IT. */
static void own_change_begin(struct file *file, int fd, bool close_it, struct own_change *change)
{
	if (!file_change_begin(file, fd)) {
		*change = (struct own_change){.file = file, .fd = fd, .close = close_it};
		return;
	}
	file_put(file);
	if (close_it)
		close(fd);
}

void fusefs_own_change_begin(struct fusefs *fs, int fd, struct own_change *ret_change)
{
	struct file *file = NULL;
	struct stat st;

	*ret_change = (struct own_change){0};
	if (!fstat(fd, &st))
		file = file_known(fs, &st);
	if (!file)
		return;
	own_change_begin(file, fd, false, ret_change);
}

void fusefs_own_change_begin_at(struct fusefs *fs, int directory_fd, const char *name,
				struct own_change *ret_change)
{
	struct file *file = NULL;
	struct stat st;
	int fd;

	*ret_change = (struct own_change){0};
	if (!fstatat(directory_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		file = file_known(fs, &st);
	if (!file)
		return;
	fd = openat(directory_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		file_put(file);
	else
		own_change_begin(file, fd, true, ret_change);
}

void fusefs_own_change_end(struct own_change *change)
{
	if (!change->file)
		return;
	file_change_end(change->file, change->fd);
	/* It may have been its last name. */
	file_drop_if_gone(change->file, change->fd);
	if (change->close)
		close(change->fd);
}
