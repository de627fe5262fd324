/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.h - objects that come back as raw 64-bit numbers, in memory that can outlive its process
 *
 * Gives out objects of one size. Each has a number that is never given out a second time: the low
 * half says where the object lies, the high half counts. So a number that was never given out, or
 * whose object is gone, can be told from a live one without touching memory that is not ours.
 *
 * The objects lie in a file without a name (memfd_create(2)). Another process that has its
 * descriptor finds the same objects under the same numbers: slab_adopt(). Chunks without a live
 * object go back to the system.
 */
#ifndef FOLDFS_SLAB_H
#define FOLDFS_SLAB_H

#include "foldfs/page.h"

#include <stdatomic.h>

struct slab;

/* Each object begins at a multiple of this. */
#define SLAB_ALIGNMENT 64u

/* The first member of each object. */
struct slab_slot {
	_Atomic uint64_t id; /* 0: not live. Written under the slab's mutex, read anywhere */
	uint32_t next_free;  /* index within the chunk, while not live; under the slab's mutex */
};

/* A slab for objects of OBJECT_BYTES, struct slab_slot included. NAME is for /proc. -errno. */
errint_t slab_new(const char *name, size_t object_bytes, struct slab **ret_slab);
/* A slab of the objects that lie in the file open as MEMORY. Another slab had it, whose process has
 * ended. MEMORY stays the caller's, and must stay open. The objects that were live still are; the
 * caller sees to what does not outlive a process. -EPROTO: there are no such objects. Other
 * -errno. */
errint_t slab_adopt(int memory, struct slab **ret_slab);
/* How many bytes each object has. */
size_t slab_object_bytes(const struct slab *slab);
/* The file with the objects, which stays the slab's. */
int slab_memory(const struct slab *slab);
/* Frees all objects, live or not. */
void slab_free(struct slab *slab);

/* A new object, all zero except its slot, whose number is still 0: slab_publish() sets that, once
 * the object is whole. *RET_ID, its number, is at least 2^32. Any thread. -ENOMEM, or -ENFILE if
 * there are too many objects. */
errint_t slab_take(struct slab *slab, struct slab_slot **ret_slot, uint64_t *ret_id);
/* From here on ID, which slab_take() gave with SLOT, finds the object; also in a successor. */
void slab_publish(struct slab_slot *slot, uint64_t id);
/* From here on nothing finds the object, also in a successor. It stays until slab_give(). */
void slab_withdraw(struct slab_slot *slot);
/* Give the object back, published or not. ID is its number. Any thread. */
void slab_give(struct slab *slab, struct slab_slot *slot, uint64_t id);

/* The live object with number ID; NULL: there is none. Any thread, lock-free, any ID. The object
 * must stay alive while it is used; the caller ensures that by other means (the kernel's look-up
 * count). */
struct slab_slot *slab_get(const struct slab *slab, uint64_t id);

/* Call VISIT for each live object. VISIT may give the object back. No other thread uses the slab
 * meanwhile. */
void slab_each(struct slab *slab, void (*visit)(void *context, struct slab_slot *slot),
	       void *context);

uint64_t slab_bytes(const struct slab *slab);
uint64_t slab_live(const struct slab *slab);
/* For the audit: the live objects, counted one by one, and the bytes of all chunks. Holds the
 * slab's mutex for one chunk at a time. */
struct slab_count {
	uint64_t live;
	uint64_t bytes;
};
void slab_recount(struct slab *slab, struct slab_count *ret_count);

#endif
