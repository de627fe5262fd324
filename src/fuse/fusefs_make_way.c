/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_make_way.c - a client that changes a file does not get the inode of its readers
 *
 * The change is answered with ESTALE, once. The kernel then looks the name up again and retries
 * with the inode that it finds. It would hand a second ESTALE on to the client, so the retry must
 * succeed. The readers' inode is detached, so that the look-up does not find it. plan_await()
 * prevents a faster reader from making the next inode another one of that kind.
 */
#include "fusefs_internal.h"

#include <errno.h>
#include <sys/stat.h>

void fusefs_detach_readers(struct fusefs *fs, const struct stat *st)
{
	struct inode *inode;

	plan_await(fs->plan, st);
	inode = inode_find(fs->inodes, st->st_dev, st->st_ino, S_IFREG);
	if (!inode)
		return;
	inode_lock(inode);
	if (!plan_may_change(inode_plan(inode)))
		inode_detach(fs->inodes, inode);
	inode_unlock(inode);
	inode_put(fs->inodes, inode);
}

errint_t fusefs_make_way(struct fusefs *fs, struct inode *inode)
{
	bool may_change;
	struct stat st;
	errint_t error;
	int fd;

	inode_lock(inode);
	may_change = !inode_is_detached(inode) && plan_may_change(inode_plan(inode));
	inode_unlock(inode);
	if (may_change)
		return 0;
	fd = inode_path_begin(fs->inodes, inode);
	if (fd < 0)
		return fd;
	error = fstat(fd, &st) ? -errno : -ESTALE;
	inode_path_end(inode);
	if (error == -ESTALE)
		fusefs_detach_readers(fs, &st);
	return error;
}
