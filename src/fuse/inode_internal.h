/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode_internal.h - what the files of the inode table share: inode_shard.c (finding inodes),
 * inode.c (which object an inode is, and its life) and inode_table.c (the table as a whole)
 *
 * Functions whose names end in _locked are called with the shard's mutex held.
 */
#ifndef FOLDFS_INODE_INTERNAL_H
#define FOLDFS_INODE_INTERNAL_H

#include "inode.h"

#include "inode_number.h"
#include "links.h"
#include "path_cache.h"
#include "slab.h"

#include <stdatomic.h>

#include <urcu/hlist.h>

#define INODE_SHARDS 128u

/* It lies in the slab, which may outlive the process. What a successor does not find there, or sets
 * anew, is marked: anew. */
struct inode {
	struct slab_slot slot; /* slab's; not used for the root */
	struct inode *next;    /* anew. In the shard's chain; under the shard's mutex */
	dev_t device;          /* constant */
	ino_t number;          /* constant */
	uint64_t lookups;      /* the kernel's; under the shard's mutex */
	uint32_t uses;         /* anew. The daemon's own; under the shard's mutex */
	mode_t type;           /* constant: S_IFMT */
	bool apart;            /* constant: other names of its file may become another file's */
	bool hashed;           /* under the shard's mutex */
	bool cached;           /* the kernel may cache pages of it; under mutex */
	atomic_bool detached;  /* only ever goes from false to true */
	pthread_mutex_t mutex; /* anew. inode_lock() */
	union {                /* under mutex */
		struct {
			struct window_file *window_file; /* anew */
			struct cds_hlist_head handles;   /* anew */
			struct plan_hold plan;
		};
		struct directory_hold directory; /* anew. If type is S_IFDIR */
	};
	struct path_slot path; /* O_PATH; bytes follow that are its own */
};

struct shard {
	pthread_mutex_t mutex;
	struct inode **buckets; /* under mutex */
	size_t bucket_count;    /* a power of two; under mutex */
	size_t inodes;          /* under mutex */
};

struct inode_table {
	struct slab *slab;
	void (*forget)(struct window_file *); /* set before use */
	int root_fd;                          /* borrowed; constant */
	struct path_cache paths;
	struct border border;          /* its own */
	struct links links;            /* its own */
	_Atomic uint64_t bytes;        /* of buckets */
	struct inode_numbers *numbers; /* its own; constant */
	struct inode *root;            /* its own; constant */
	struct shard shards[INODE_SHARDS];
};

#define INODE_SHARD_FIRST_BUCKETS 16u

/* Make SHARD, which is all zero before, an empty shard. -ENOMEM. */
errint_t inode_shard_init(struct shard *shard);
/* Does nothing for a shard that is all zero. The shard's inodes are left to the caller. */
void inode_shard_destroy(struct shard *shard);
/* The shard of the objects with these numbers. Constant. */
struct shard *inode_shard_of(struct inode_table *table, dev_t device, ino_t number);
/* The first inode in SHARD with these numbers, or NULL. */
struct inode *inode_shard_find_locked(const struct shard *shard, dev_t device, ino_t number);
/* Put INODE into SHARD, which is inode_shard_of() its numbers. The shard grows if there is
 * memory. */
void inode_shard_insert_locked(struct inode_table *table, struct shard *shard, struct inode *inode);
/* Take INODE out of SHARD, if it is there. */
void inode_shard_remove_locked(struct shard *shard, struct inode *inode);
/* Add to COUNT what an audit finds in SHARD. */
void inode_shard_recount_locked(const struct inode_table *table, const struct shard *shard,
				struct inode_count *count);

/* Initialize INODE, which has neither descriptor nor look-ups yet, for the object found as ST. */
void inode_init(struct inode *inode, const struct stat *st, bool apart);
/* Free an inode that can no longer be found. No lock is held. */
void inode_free(struct inode_table *table, struct inode *inode);

static inline bool inode_is_root(const struct inode_table *table, const struct inode *inode)
{
	return inode == table->root;
}

#endif
