/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_explain.c - what `foldctl explain` asks: how a file is served, and what is known of it
 *
 * Asking changes nothing: no plan is chosen, nothing is remembered.
 */
#include "fusefs_internal.h"

#include "foldfs/kin_file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Most stretches that one look at a map may return. */
#define STRETCHES 64u

static void count_stretch(const struct fusefs *fs, const struct page_stretch *stretch,
			  struct fusefs_plan *plan)
{
	struct frame_ref ref = stretch->ref;

	if (stretch->kind == STRETCH_ZERO) {
		plan->zero_pages += stretch->pages;
		return;
	}
	for (uint64_t i = 0; i < stretch->pages; i++, ref.frame++) {
		uint32_t users = page_store_users(fs->store, ref);

		plan->pool_pages += users > 0;
		plan->shared_pages += users > 1;
	}
}

/* Count the pages of FILE that are in the pool. FILE may be in use. */
static void count_pages(const struct fusefs *fs, struct file *file, struct fusefs_plan *plan)
{
	struct page_walk walk = {.end = fold_pages_in(0, file_size(file))};
	struct page_stretch stretches[STRETCHES];

	while (walk.next < walk.end) {
		unsigned count = page_map_walk(file_map(file), &walk, STRETCHES, stretches);

		for (unsigned i = 0; i < count; i++)
			count_stretch(fs, &stretches[i], plan);
	}
}

/* Explain the file of INODE that is open as FD. FILE: what is known of its content; NULL:
 * nothing. */
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
	if (file)
		count_pages(fs, file, ret_plan);
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
	*ret_plan = (struct fusefs_plan){0};
	fd = fusefs_open_own(fs, inode, O_RDONLY);
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
	fusefs_prove(inode);
	inode_put(fs->inodes, inode);
	return error;
}
