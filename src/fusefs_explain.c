/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_explain.c - what `foldctl explain` asks: how a file is served, and what is known of it
 *
 * To ask changes nothing: no plan is chosen, nothing is remembered.
 */
#include "foldfs/fusefs_internal.h"

#include "foldfs/kin.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* The file open as FD, of INODE, whose content FILE knows something of, or is NULL. */
static void explain(struct fusefs *fs, struct inode *inode, int fd, const struct stat *st,
		    struct file *file, struct fusefs_plan *ret_plan)
{
	const struct plan_open open = {
		.flags = O_RDONLY, .fd = fd, .st = st, .file = file, .asks = true};

	inode_lock(inode);
	plan_explain(fs->plan, inode_plan(inode), &open, &ret_plan->kind, &ret_plan->reason);
	ret_plan->open = inode_plan(inode)->opens > 0;
	inode_unlock(inode);
	ret_plan->known_pages = kin_count(fs->catalogue, file, fd);
}

errint_t fusefs_explain(struct fusefs *fs, ino_t shown, struct fusefs_plan *ret_plan)
{
	struct inode *inode = inode_shown(fs->inodes, shown);
	struct file *file;
	struct stat st;
	errint_t error = 0;
	int fd;

	if (!inode)
		return -ENOENT;
	fd = inode_open(fs->inodes, inode, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		error = fd;
	else if (fstat(fd, &st))
		error = -errno;
	if (!error) {
		file = fusefs_file_find(fs, inode, &st);
		explain(fs, inode, fd, &st, file, ret_plan);
		if (file)
			file_put(file);
	}
	if (fd >= 0)
		close(fd);
	inode_forget(fs->inodes, inode, 1);
	return error;
}
