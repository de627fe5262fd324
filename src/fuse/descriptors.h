/* SPDX-License-Identifier: Apache-2.0 */
/*
 * descriptors.h - how many descriptors there are, and who may have them
 *
 * The daemon keeps some for itself: what it opens on its own account, requests that are under way,
 * clients of the control socket. Inodes and open files share the rest (path_cache.h).
 */
#ifndef FOLDFS_DESCRIPTORS_H
#define FOLDFS_DESCRIPTORS_H

/* Raise RLIMIT_NOFILE to its hard limit; the number that inodes and open files share. */
long descriptors_raise(void);

#endif
