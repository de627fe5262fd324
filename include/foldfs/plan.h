/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.h - how an open file is served; the only place that knows FUSE's open flags
 *
 * The plan here is `window`: cached mode, or direct I/O where the window's budget is 0.
 */
#ifndef FOLDFS_PLAN_H
#define FOLDFS_PLAN_H

#include "foldfs/page.h"

#include <fuse_lowlevel.h>

struct plan {
	bool direct; /* window=0: direct I/O, shared mmap allowed */
};

/* Set FI's flags for an open under PLAN. UNCHANGED: what the kernel still caches of the inode is
 * true and may stay. */
void plan_open(const struct plan *plan, bool unchanged, struct fuse_file_info *fi);

/* The open(2) flags for the source's descriptor, from the client's. O_APPEND and O_DIRECT are the
 * kernel's to resolve and must not stay (KERNEL). */
int plan_source_flags(int client_flags);

#endif
