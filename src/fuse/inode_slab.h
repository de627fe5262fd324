/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode_slab.h - objects that come back as raw 64-bit numbers
 *
 * Gives out objects of one size. Each has a number that is never given out a second time: the low
 * half says where the object lies, the high half counts. So a number that was never given out, or
 * whose object is gone, can be told from a live one without touching memory that is not ours.
 *
 * Objects lie in chunks. A chunk without a live object goes back to the system after a grace
 * period.
 */
#ifndef FOLDFS_INODE_SLAB_H
#define FOLDFS_INODE_SLAB_H

#include "foldfs/page.h"

#include <stdatomic.h>

struct inode_slab;

/* The first member of each object. */
struct node_slot {
	_Atomic uint64_t id; /* 0: not live. Written under the slab's mutex, read anywhere */
	uint32_t next_free;  /* index within the chunk, while not live; under the slab's mutex */
};

/* A slab for objects of OBJECT_BYTES, struct node_slot included. -ENOMEM. */
errint_t inode_slab_new(size_t object_bytes, struct inode_slab **ret_slab);
/* Frees all objects, live or not. */
void inode_slab_free(struct inode_slab *slab);

/* A new object, all zero except its slot. Its number is at least 2^32. Any thread. -ENOMEM, or
 * -ENFILE if there are too many objects. */
errint_t inode_slab_take(struct inode_slab *slab, struct node_slot **ret_slot);
/* Give the object back. Any thread, not within an RCU read side. */
void inode_slab_give(struct inode_slab *slab, struct node_slot *slot);

/* The live object with number ID; NULL: there is none. Any thread, lock-free, any ID. The object
 * must stay alive while it is used; the caller ensures that by other means (the kernel's look-up
 * count). */
struct node_slot *inode_slab_get(struct inode_slab *slab, uint64_t id);

/* Call VISIT for each live object. VISIT may give the object back. No other thread uses the slab
 * meanwhile. */
void inode_slab_each(struct inode_slab *slab, void (*visit)(void *context, struct node_slot *slot),
		     void *context);

uint64_t inode_slab_bytes(const struct inode_slab *slab);
uint64_t inode_slab_live(const struct inode_slab *slab);
/* For the audit: the live objects, counted one by one, and the bytes of all chunks. Holds the
 * slab's mutex for one chunk at a time. */
struct inode_slab_count {
	uint64_t live;
	uint64_t bytes;
};
void inode_slab_recount(struct inode_slab *slab, struct inode_slab_count *ret_count);

#endif
