/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path_cache.h - O_PATH descriptors of the source's objects, for as long as they are used
 *
 * Each object that the kernel knows of has a slot. A slot has a descriptor, or the file handle to
 * get one with, or both. Some objects have no file handle: those of a file system without handles,
 * or of one that is mounted below the source. Such an object keeps its descriptor until its end.
 *
 * Other objects lose their descriptors while these are not in use and there are too many. Those
 * that were not used for long go first. There are too many if there are more than PATHS_MAX, or
 * more than clients' open files leave.
 *
 * Also, an object that is not a directory loses its descriptor if it is not used for a time
 * (PATH_IDLE_SECONDS to twice that). The reason: a descriptor keeps the blocks of a file that
 * somebody removes in the source.
 */
#ifndef FOLDFS_PATH_CACHE_H
#define FOLDFS_PATH_CACHE_H

#include "source_handle.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include <urcu/list.h>

/* A descriptor pins an inode and a dentry of the source: 1 to 2 KiB. */
#define PATHS_MAX 32768

/* A descriptor is closed after being unused for between this time and twice this time. */
#define PATH_IDLE_SECONDS 5

struct path_cache {
	struct source_handles objects; /* constant */
	long shared;                   /* descriptors for slots and open files; constant */
	_Atomic long opened;           /* how many of them open files have, or had a moment ago */
	pthread_mutex_t lock;          /* a leaf */
	pthread_cond_t changed;        /* there is a file to watch, or the cache ends */
	pthread_t sweeper;             /* the thread; the owner's */
	bool running;                  /* the sweeper has been started; the owner's */

	/* All changed under the lock, except now: */
	struct cds_list_head slots; /* with descriptors that may be closed; the first is closed
				     * first */
	size_t linked;              /* number of slots in the list */
	size_t files;               /* number of those that are not of a directory */
	bool idle; /* the sweeper waits for the first such slot, and must be woken */
	bool ending;
	_Atomic uint32_t now; /* the number of the sweeper's round; changed by the sweeper */
	_Atomic long kept;    /* number of descriptors */
};

/* Descriptor and handle outlive a process that has the slot in such memory (slab.h). A descriptor
 * is in its slot before it is used, and out of it before it is closed. */
struct path_slot {
	_Atomic uint64_t word;     /* descriptor and users; set and cleared under lock */
	_Atomic uint32_t used;     /* the round of the last use */
	bool directory;            /* constant */
	bool stays;                /* it keeps its descriptor until the end; under lock */
	bool linked;               /* it is in slots; under lock */
	atomic_bool has_handle;    /* set once, under lock, before the descriptor is given up */
	struct cds_list_head link; /* under lock */
	struct file_handle handle; /* constant once has_handle is set. path_slot_room() bytes */
};

/* For the directory open as ROOT_FD. Slots and other users (open files) share SHARED
 * descriptors. */
void path_cache_init(struct path_cache *cache, int root_fd, long shared);
/* Start the sweeper. Without it, no descriptor is closed for being idle. -errno. */
errint_t path_cache_start(struct path_cache *cache);
/* How many of the shared descriptors open files may take at most. Constant. */
long path_cache_spare(const struct path_cache *cache);
/* Open files have COUNT descriptors now. They have precedence: unused descriptors of slots are
 * closed to make room. Any thread. */
void path_cache_make_room(struct path_cache *cache, long count);
/* All slots have ended before. */
void path_cache_end(struct path_cache *cache);

/* How many bytes there have to be after each slot. Constant. */
size_t path_slot_room(const struct path_cache *cache);
/* Initialize SLOT for an object with the O_PATH descriptor FD, which is taken over. Returns a
 * descriptor that the caller must close when it holds no lock; -1: none. */
int path_slot_begin(struct path_cache *cache, struct path_slot *slot, int fd, bool directory);
/* Begin with a SLOT that had begun in a process which has ended. False: what that process left
 * leads to no object. */
bool path_slot_revive(struct path_cache *cache, struct path_slot *slot);
/* The descriptor that SLOT has, or -1. It may go at any moment. */
int path_slot_fd(const struct path_slot *slot);
/* End SLOT, which is not in use any more. Returns the descriptor that it had, or -1. */
int path_slot_end(struct path_cache *cache, struct path_slot *slot);

bool path_is_open(const struct path_slot *slot);
/* The file handle of an object whose slot is, or was, without a descriptor; else NULL. It belongs
 * to the slot and is constant. */
struct file_handle *path_handle(struct path_slot *slot);

/* Get the descriptor of SLOT, until path_put(). -errno: the file handle cannot be opened (-ESTALE:
 * the object is gone). If the handle was opened, the thread is the daemon's own afterwards. Any
 * thread, like the functions below. */
int path_get(struct path_cache *cache, struct path_slot *slot);
/* Like path_get(), but only if SLOT has a descriptor; else -1. */
int path_get_open(struct path_cache *cache, struct path_slot *slot);
void path_put(struct path_slot *slot);

/* FD is of SLOT's object, too. It is taken over if SLOT has no other. Returns a descriptor that the
 * caller must close when it holds no lock; -1: none. */
int path_offer(struct path_cache *cache, struct path_slot *slot, int fd);
/* Like path_offer(), for an object that is about to lose its name. Not every file system finds such
 * an object by its handle afterwards, so the descriptor stays. */
int path_pin(struct path_cache *cache, struct path_slot *slot, int fd);
/* Somebody else has removed the object. Close its descriptor, so that its blocks are not kept,
 * unless it is in use. */
void path_let_go(struct path_cache *cache, struct path_slot *slot);

/* Close descriptors that were not used for a whole round, and begin another round. For the sweeper
 * and for tests. */
void path_cache_sweep(struct path_cache *cache);

#endif
