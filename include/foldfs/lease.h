/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lease.h - to know that nobody else has a file open
 *
 * A write lease (F_SETLEASE in fcntl(2)) on an open file description is granted only if the file
 * has no other, ours included. While it is held, who opens the file waits in the kernel, and we are
 * told. So who has held one since some moment knows that since then nobody changed the file but he,
 * by this description. O_PATH descriptors, duplicates and mappings of the description do not count.
 *
 * One thread gives back what others want, at once: it waits for nothing but the lock of the table,
 * under which nobody waits for a disk or a client.
 */
#ifndef FOLDFS_LEASE_H
#define FOLDFS_LEASE_H

#include "foldfs/source.h"

#include <urcu/list.h>

struct lease;
struct lease_table;

struct lease_usage {
	uint64_t held;
	uint64_t broken; /* that others wanted, since the start */
};

/* ON_BROKEN(CONTEXT) is called by the thread after it gave leases back that others wanted; it may
 * take its time, but other openers wait for that. -ENOMEM. */
errint_t lease_table_new(void (*on_broken)(void *context), void *context,
			 struct lease_table **ret_table);
/* Start the thread; without it no lease is taken. -errno. */
errint_t lease_table_start(struct lease_table *table);
/* Nobody has a lease any more. NULL is nothing. */
void lease_table_free(struct lease_table *table);
/* Any thread. */
void lease_table_usage(struct lease_table *table, struct lease_usage *ret_usage);

/* A lease on SOURCE's description, the caller's to free; it has a reference to SOURCE. As the
 * daemon itself, whose the file is or who has CAP_LEASE. -EAGAIN: somebody has the file open by
 * another description; -EBUSY: one of ours opens it just now; other -errno: it is not to be had. */
errint_t lease_take(struct lease_table *table, struct source *source, struct lease **ret_lease);
/* Give it back, if that was not done yet. A thread that is lent (thread_identity.h) may not, and
 * has the table's do it. NULL is nothing. */
void lease_free(struct lease *lease);
/* Whether it has been held all the time, up to now: the kernel is asked. Any thread. */
bool lease_is_held(const struct lease *lease);
/* What it was taken on; borrowed. */
struct source *lease_source(const struct lease *lease);

/* An open of ours by another description. */
struct lease_opening {
	dev_t device; /* constant, as the next */
	ino_t inode;
	struct cds_list_head link; /* of lease.c */
};

/* We are about to open the file of DEVICE and INODE: no lease is taken on it until the end of
 * *OPENING, which the caller keeps. Returns whether there is one already: he is to use its
 * description, or to open nothing, or lease_opening_alone(). Any thread; waits for nothing but the
 * table's lock, as what follows. */
bool lease_opening_begin(struct lease_table *table, dev_t device, ino_t inode,
			 struct lease_opening *opening);
/* OPENING is going to open the file whatever there is: what we hold on it is given back, and is not
 * counted as broken. As lease_take(). */
void lease_opening_alone(struct lease_table *table, const struct lease_opening *opening);
/* It has the file open, or has not. */
void lease_opening_end(struct lease_table *table, struct lease_opening *opening);

/* As source_check_unwritten(), for a description that a lease of ours may be on: then nobody has
 * the file open for writing, and the lease stays. */
errint_t lease_check_unwritten(struct lease_table *table, const struct source *source);

#endif
