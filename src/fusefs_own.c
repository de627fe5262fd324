/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_own.c - changes of ours that move a file's ctime but not its content: they are not to be
 * taken for changes behind the mount
 */
#include "foldfs/fusefs_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct file *file_known(struct fusefs *fs, const struct stat *st)
{
	return S_ISREG(st->st_mode) ? file_table_find(fs->files, st->st_dev, st->st_ino) : NULL;
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
