/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_limit.h - how much memory there is for this process; shared by foldfs and foldctl
 *
 * The machine's, or less where a cgroup says so: its own, or one that it is in, as far up as they
 * can be seen from here. In a container that is the container's. Both kinds of cgroups count, for a
 * machine may have both.
 */
#ifndef FOLDFS_MEMORY_LIMIT_H
#define FOLDFS_MEMORY_LIMIT_H

#include "foldfs/page.h"

/* Bytes; 0 if nobody says. A cgroup that cannot be read is left out. */
uint64_t memory_limit(void);

/* The same of MACHINE bytes, and of cgroups as the files CGROUP and MOUNTINFO tell of them, which
 * look like those of /proc/self. */
uint64_t memory_limit_of(uint64_t machine, const char *cgroup, const char *mountinfo);

#endif
