/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path_cache.h - O_PATH descriptors of the source's objects, for as long as they are used
 *
 * Each object that the kernel knows of has a slot. A slot has a descriptor, or the file handle to
 * get one with, or both. An object that has no handle (of a file system without them, or of one
 * that is mounted below the source) keeps its descriptor until its end.
 *
 * Others lose it when they are not in use and there are too many: those first that were not used
 * for long. Too many are more than PATHS_MAX, and more than clients' open files leave. And whatever
 * is no directory loses it within PATH_IDLE_SECONDS without use, for a descriptor keeps the blocks
 * of a file that somebody removes in the source.
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

/* A descriptor goes between this and twice this without use. */
#define PATH_IDLE_SECONDS 5

struct path_cache {
	struct source_handles objects; /* constant */
	long shared;                   /* descriptors for slots and open files; constant */
	_Atomic long opened;           /* open files have so many of them, or had a moment ago */
	pthread_mutex_t lock;          /* a leaf */
	pthread_cond_t changed;        /* there is a file to watch, or the end */
	pthread_t sweeper;             /* the owner's */
	bool running;                  /* it is there; the owner's */

	/* All changed under the lock, but now: */
	struct cds_list_head slots; /* with descriptors that may go; who is first goes first */
	size_t linked;              /* slots there */
	size_t files;               /* those that are of no directory */
	bool idle; /* the sweeper waits for the first of these, and is to be woken */
	bool ending;
	_Atomic uint32_t now;   /* the number of the sweeper's round */
	_Atomic long kept;      /* descriptors */
	_Atomic uint64_t bytes; /* of handles */
};

struct path_slot {
	_Atomic uint64_t word; /* descriptor and users; gets and loses it under lock */
	struct file_handle
		*_Atomic handle;   /* set once, under lock, before there is no descriptor */
	_Atomic uint32_t used;     /* the round of the last use */
	bool directory;            /* constant */
	bool stays;                /* the descriptor, until the end; under lock */
	bool linked;               /* in slots; under lock */
	struct cds_list_head link; /* under lock */
};

/* For the directory open as ROOT_FD, and SHARED descriptors that others may take as well. */
void path_cache_init(struct path_cache *cache, int root_fd, long shared);
/* Start the sweeper, without which nothing is closed for being idle. -errno. */
errint_t path_cache_start(struct path_cache *cache);
/* How many descriptors others may take at most. Constant. */
long path_cache_spare(const struct path_cache *cache);
/* They have taken COUNT, and go first: descriptors that are not in use make room. Any thread. */
void path_cache_make_room(struct path_cache *cache, long count);
/* All slots have ended. */
void path_cache_end(struct path_cache *cache);

/* SLOT of an object that has the O_PATH descriptor FD, which is taken over. Returns a descriptor
 * that the caller closes when he holds no lock; -1: none. */
int path_slot_begin(struct path_cache *cache, struct path_slot *slot, int fd, bool directory);
/* Nobody uses it any more. Returns the descriptor that it had, or -1. */
int path_slot_end(struct path_cache *cache, struct path_slot *slot);

bool path_is_open(const struct path_slot *slot);
/* The handle of an object whose slot has, or had, no descriptor; else NULL. The slot's,
 * constant. */
struct file_handle *path_handle(const struct path_slot *slot);

/* The descriptor of SLOT, until path_put(). -errno: the handle cannot be opened (-ESTALE: the
 * object has gone). Where it is, the thread is the daemon's own afterwards. Any thread, as those
 * below. */
int path_get(struct path_cache *cache, struct path_slot *slot);
/* Only if there is one; -1. */
int path_get_open(struct path_cache *cache, struct path_slot *slot);
void path_put(struct path_slot *slot);

/* FD is of SLOT's object too, and is taken over if there is no other. Returns a descriptor that the
 * caller closes when he holds no lock; -1: none. */
int path_offer(struct path_cache *cache, struct path_slot *slot, int fd);
/* The same, of an object that is about to lose its name: not every file system finds it by its
 * handle then, so the descriptor stays. */
int path_pin(struct path_cache *cache, struct path_slot *slot, int fd);
/* Somebody else has removed the object: do not keep its blocks. Not while it is in use. */
void path_let_go(struct path_cache *cache, struct path_slot *slot);

/* Close what was not used for a whole round, and begin another one. The sweeper's, and
 * for tests. */
void path_cache_sweep(struct path_cache *cache);

#endif
