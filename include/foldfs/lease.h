/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lease.h - to know that nobody else has a file open
 *
 * The kernel grants a write lease (F_SETLEASE in fcntl(2)) on an open file description only if the
 * file has no other description, ours included. While the lease is held, an opener of the file
 * waits in the kernel, and we are told. So for all the time of a held lease, nobody changed the
 * file except its holder, by this description. O_PATH descriptors, duplicates and mappings of the
 * description do not count.
 *
 * One thread gives back at once the leases that others want. It waits for nothing but the lock of
 * the table, and nobody waits for a disk or a client under that lock.
 */
#ifndef FOLDFS_LEASE_H
#define FOLDFS_LEASE_H

#include "foldfs/source.h"

#include <urcu/list.h>

struct lease;
struct lease_table;

struct lease_usage {
	uint64_t held;
	uint64_t broken; /* leases that others wanted, since the start */
};

/* The table's thread calls ON_BROKEN(CONTEXT) after it gave back leases that others wanted. The
 * call may take its time, but other openers wait for it. -ENOMEM. */
errint_t lease_table_new(void (*on_broken)(void *context), void *context,
			 struct lease_table **ret_table);
/* Start the thread; without it no lease is taken. -errno. */
errint_t lease_table_start(struct lease_table *table);
/* No lease exists any more. NULL is nothing. */
void lease_table_free(struct lease_table *table);
/* Any thread. */
void lease_table_usage(struct lease_table *table, struct lease_usage *ret_usage);

/* Take a lease on SOURCE's description. The lease is the caller's to free, and holds a reference to
 * SOURCE. To be called as the daemon itself, which must own the file or have CAP_LEASE. -EAGAIN:
 * somebody has the file open by another description. -EBUSY: one of our own opens of it is under
 * way. Other -errno: no lease can be had. */
errint_t lease_take(struct lease_table *table, struct source *source, struct lease **ret_lease);
/* Give the lease back, if that was not done yet. A thread that is lent (thread_identity.h) may not
 * give it back itself, and has the table's thread do it. NULL is nothing. */
void lease_free(struct lease *lease);
/* Whether the lease has been held all the time, up to now. Asks the kernel. Any thread. */
bool lease_is_held(const struct lease *lease);
/* The source that it was taken on; borrowed. */
struct source *lease_source(const struct lease *lease);

/* An open of our own, by another description. */
struct lease_opening {
	dev_t device; /* constant, as the next */
	ino_t inode;
	struct cds_list_head link; /* of lease.c */
};

/* We are about to open the file of DEVICE and INODE. Until lease_opening_end() no lease is taken on
 * it. The caller keeps *OPENING until then. Returns whether there is a lease already. If so, the
 * caller uses the lease's description, opens nothing, or calls lease_opening_alone(). Any thread.
 * This and the calls below wait for nothing but the table's lock. */
bool lease_opening_begin(struct lease_table *table, dev_t device, ino_t inode,
			 struct lease_opening *opening);
/* OPENING is going to open the file in any case. Gives back the leases that we hold on it; they do
 * not count as broken. Rights: as for lease_take(). */
void lease_opening_alone(struct lease_table *table, const struct lease_opening *opening);
/* The open has succeeded or failed. */
void lease_opening_end(struct lease_table *table, struct lease_opening *opening);

/* Like source_check_unwritten(), for a description that may have a lease of ours. If it has, nobody
 * else has the file open for writing, and the lease stays. */
errint_t lease_check_unwritten(struct lease_table *table, const struct source *source);

#endif
