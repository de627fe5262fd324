/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock_whole.h - the locks of one file as a whole, and the same locks in the source
 *
 * For flock(2). The owner of such a lock is an open file of a client's. In the source it is a
 * flock of the description that goes with it. Several open files may share one description: it has
 * the strongest of their locks. On a local file system neither kind of lock is in the way of the
 * other kind, and so it is here.
 *
 * As in lock_list.h, the caller has a lock for each list, and the source is asked first.
 */
#ifndef FOLDFS_LOCK_WHOLE_H
#define FOLDFS_LOCK_WHOLE_H

#include "lock_list.h"

/* Uses of struct lock_request: all but the owner and the range. A list is initialized by
 * lock_list_init(). */

/* The first lock of another handle that is in the way of REQUEST. NULL: none. */
const struct lock_record *lock_whole_conflict(const struct lock_list *list,
					      const struct lock_request *request);

/* Another handle is in the way of REQUEST. If REQUEST would convert a lock, that one is lost, as it
 * is with flock(2). Returns whether there was one. */
bool lock_whole_lose(struct lock_list *list, const struct lock_request *request);

/* Give REQUEST, which no other handle is in the way of, to its handle, here and in the source:
 * lock, convert or unlock. -EAGAIN: somebody has it locked in the source; a lock that was to be
 * converted is lost. -ENOLCK: too many locks, or no memory. Other -errno: the source's. */
errint_t lock_whole_set(struct lock_list *list, const struct lock_request *request);

/* Unlock what HANDLE has. Returns whether it had anything. */
bool lock_whole_drop(struct lock_list *list, uint64_t handle);

/* As in lock_list.h. */
void lock_whole_revive(struct lock_list *list, struct lock_record *record);
void lock_whole_settle(const struct lock_list *list, int fd);

#endif
