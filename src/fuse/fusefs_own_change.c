/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_own_change.c - what is known of an inode's content, and changes of ours that move a file's
 * ctime but not its content: they must not be taken for changes behind the mount
 *
 * For a file whose links may be parted (links.h), such changes are taken for changes by others.
 * That loses what is known of the file, but is correct.
 */
#include "fusefs_internal.h"

#include <sys/stat.h>

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

void fusefs_own_change_begin(struct fusefs *fs, int fd, struct own_change *ret_change)
{
	struct file *file = NULL;
	struct stat st;

	*ret_change = (struct own_change){0};
	if (!fstat(fd, &st))
		file = file_known(fs, &st);
	if (!file)
		return;
	if (file_change_begin(file, fd, NULL))
		file_put(file);
	else
		*ret_change = (struct own_change){.file = file, .fd = fd};
}

void fusefs_own_change_end(struct own_change *change)
{
	if (!change->file)
		return;
	file_change_end(change->file, change->fd);
	/* The change may have removed its last name. */
	file_put_or_drop(change->file, change->fd);
}
