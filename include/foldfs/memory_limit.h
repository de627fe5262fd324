/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_limit.h - how much memory there is for this process; shared by foldfs and foldctl
 *
 * The machine's memory, or less if a cgroup limits it. The process's own cgroup and its ancestors
 * count, as far up as they can be seen from here. In a container that is the container's limit.
 * Both versions of cgroups count, because a machine may have both.
 */
#ifndef FOLDFS_MEMORY_LIMIT_H
#define FOLDFS_MEMORY_LIMIT_H

#include "foldfs/page.h"

/* Bytes; 0 if nothing says how much. A cgroup that cannot be read is left out. */
uint64_t memory_limit(void);

/* Bytes of memory that the machine has, whatever cgroups say; 0 if nothing says how much. */
uint64_t memory_machine(void);

/* The limit for a machine of MACHINE bytes, with the cgroups that the files CGROUP and MOUNTINFO
 * describe. These have the format of those in /proc/self. */
uint64_t memory_limit_of(uint64_t machine, const char *cgroup, const char *mountinfo);

#endif
