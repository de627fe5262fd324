/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock_list.h - the ranges of one file that clients have locked, and the same ranges in the source
 *
 * For fcntl(2). The kernel names the owner of each lock: the table of descriptors of a process
 * (F_SETLK), or an open file (F_OFD_SETLK). The ranges of one owner never overlap.
 *
 * In the source, a range is locked by an open file description of the daemon's, with F_OFD_SETLK:
 * by that of the client's open file which the lock came by. So a description has the union of what
 * came by it, and needs no right that the client's open did not have. The list is asked first, so
 * two descriptions of the daemon's never want the same bytes for two owners.
 *
 * Descriptions and records outlive the process (lock_records.h). A successor makes the lists again:
 * lock_list_revive(), then lock_list_settle().
 *
 * Nothing here has a lock of its own: the caller has one for each list. Calls that ask the source
 * wait as long as its file system does: not at all if it is local.
 */
#ifndef FOLDFS_LOCK_LIST_H
#define FOLDFS_LOCK_LIST_H

#include "lock_records.h"

/* The locks of one kind on one file. */
struct lock_list {
	struct cds_list_head list;
	struct lock_records *records; /* constant, like the next two fields; borrowed */
	uint64_t file;
	enum lock_kind kind;
	bool lost; /* a refused request has lost something that it had; for the caller to clear */
};

/* An empty list of the locks of KIND on the file with number FILE. */
void lock_list_init(struct lock_list *list, struct lock_records *records, uint64_t file,
		    enum lock_kind kind);

/* The first lock of another owner that is in the way of REQUEST. NULL: none. */
const struct lock_record *lock_list_conflict(const struct lock_list *list,
					     const struct lock_request *request);

/* Give REQUEST, which no other owner is in the way of, to its owner, here and in the source: lock,
 * convert or unlock its range. -EAGAIN: somebody has it locked in the source. -ENOLCK: too many
 * locks, or no memory. Other -errno: the source's. On an error the owner has what he had before,
 * with one exception: see lock_list.c. */
errint_t lock_list_set(struct lock_list *list, const struct lock_request *request);

/* Who is in the way of REQUEST, in the form of F_GETLK; l_type is F_UNLCK if nobody is. For a
 * REQUEST of type F_UNLCK: what its owner has there, as F_OFD_GETLK tells. -errno of the source. */
errint_t lock_list_ask(const struct lock_list *list, const struct lock_request *request,
		       struct flock *ret_found);

/* Unlock everything of OWNER, or everything that came by HANDLE. Returns whether there was any. */
bool lock_list_drop_owner(struct lock_list *list, uint64_t owner);
bool lock_list_drop_handle(struct lock_list *list, uint64_t handle);

/* A client has closed a descriptor of HANDLE, at NOW_MS. */
void lock_list_note_close(struct lock_list *list, uint64_t handle, int64_t now_ms);

/* Put RECORD, of a worker that died, into LIST: in the order of lock_records_each(). -ENOLCK: no
 * memory. */
errint_t lock_list_revive(struct lock_list *list, struct lock_record *record);
/* LIST is revived. Have the description FD hold in the source what its records say, and no more. A
 * change that was cut short may have left the source with either. If the source refuses a lock, the
 * request that was cut short finds that. */
void lock_list_settle(const struct lock_list *list, int fd);

#endif
