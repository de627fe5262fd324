/* SPDX-License-Identifier: Apache-2.0 */
/* fusefs_entry.c - what the kernel is told of an inode, and for how long that is true */
#include "fusefs_internal.h"

#include <fcntl.h>
#include <unistd.h>

/* Attributes alone; see fuse_lowlevel_notify_inval_inode(). */
#define NO_PAGES (-1)

void fusefs_attr_expire(struct fusefs *fs, const struct inode *inode)
{
	/* It fails if the kernel does not know the inode (any more), or if the connection is
	 * gone. */
	(void)fuse_lowlevel_notify_inval_inode(fs->session, inode_node(inode), NO_PAGES, 0);
}

void fusefs_look_mapped(struct fusefs *fs, struct inode *inode)
{
	bool moves_times = plan_moves_times(inode_plan(inode));
	int fd = -1;

	inode_lock(inode);
	/* As long as the daemon does not have it open for writing, the kernel tells whether another
	 * process has. */
	if (plan_may_be_mapped(inode_plan(inode)))
		fd = inode_open(fs->inodes, inode, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) {
		plan_look_mapped(inode_plan(inode), fd);
		close(fd);
	}
	inode_unlock(inode);
	if (moves_times && !plan_moves_times(inode_plan(inode)))
		fusefs_attr_expire(fs, inode);
}

double fusefs_attr_timeout(struct fusefs *fs, struct inode *inode)
{
	if (!inode_is_regular(inode) || !plan_moves_times(inode_plan(inode)))
		return fs->attr_timeout;
	/* If it cannot be mapped any more, the next request gets the full timeout. */
	fusefs_look_mapped(fs, inode);
	return 0;
}

errint_t fusefs_stat_show(const struct fusefs *fs, int fd, struct stat *st)
{
	return inode_number_shown(fs->inodes, fd, st->st_dev, st->st_ino, &st->st_ino);
}

void fusefs_entry(struct fusefs *fs, struct inode *inode, const struct stat *st,
		  struct fuse_entry_param *ret_entry)
{
	*ret_entry = (struct fuse_entry_param){
		.ino = inode_node(inode),
		.attr = *st,
		.attr_timeout = fusefs_attr_timeout(fs, inode),
		.entry_timeout = fs->entry_timeout,
	};
	/* The look-up has shown before that there is a number. */
	if (fusefs_stat_show(fs, -1, &ret_entry->attr))
		ret_entry->attr.st_ino = 0;
}
