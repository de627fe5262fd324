/* SPDX-License-Identifier: Apache-2.0 */
/*
 * descriptors.h - how many descriptors there are, and what they are for
 *
 * The daemon keeps some for itself: for what it opens on its own account, for requests that are
 * under way, and for clients of the control socket. Inodes and open files share the rest
 * (path_cache.h).
 */
#ifndef FOLDFS_DESCRIPTORS_H
#define FOLDFS_DESCRIPTORS_H

/* Raise RLIMIT_NOFILE to its hard limit. Returns the number that inodes and open files share. */
long descriptors_raise(void);

#endif
