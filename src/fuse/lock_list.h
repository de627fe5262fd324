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
 * What has to be known of a lock is one struct lock_request. With the descriptions, which hold the
 * locks by themselves, and these records, everything can be made again.
 *
 * Nothing here has a lock of its own: the caller has one for each list. Calls that ask the source
 * wait as long as its file system does: not at all if it is local.
 */
#ifndef FOLDFS_LOCK_LIST_H
#define FOLDFS_LOCK_LIST_H

#include "shares.h"

#include <fcntl.h>

#include <urcu/list.h>

/* The last byte of a range that goes on to the end, however long the file gets. */
#define LOCK_TO_THE_END INT64_MAX

/* A lock that is held or asked for. */
struct lock_request {
	uint64_t owner;     /* as the kernel names it; not used for a whole file (lock_whole.h) */
	const void *handle; /* the client's open file that it comes by; only to compare with */
	int fd;             /* the source's description of that file */
	uid_t user;         /* it counts to his share */
	pid_t pid;          /* of the process; 0: not known */
	bool silent;        /* closes of the handle's descriptors are not told, but the last one */
	short type;         /* F_RDLCK, F_WRLCK or F_UNLCK */
	off_t first;        /* the first byte */
	off_t last;         /* the last byte */
};

struct lock_record {
	struct cds_list_head link; /* in order of lock.first */
	struct lock_request lock;
	int64_t closed_ms; /* a client closed a descriptor of the handle then (clock.h); 0: never */
};

struct lock_list {
	struct cds_list_head records;
	struct shares *shares; /* how many records each user has; borrowed; NULL: not counted */
	bool lost; /* a refused request has lost something that it had; for the caller to clear */
};

void lock_list_init(struct lock_list *list, struct shares *shares);

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
bool lock_list_drop_handle(struct lock_list *list, const void *handle);

/* A client has closed a descriptor of HANDLE, at NOW_MS. */
void lock_list_note_close(struct lock_list *list, const void *handle, int64_t now_ms);

#endif
