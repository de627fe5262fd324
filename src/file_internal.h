/* SPDX-License-Identifier: Apache-2.0 */
/* file_internal.h - what file.c and file_trim.c share; nobody else includes it. */
#ifndef FOLDFS_FILE_INTERNAL_H
#define FOLDFS_FILE_INTERNAL_H

#include "foldfs/file.h"
#include "foldfs/kin.h"
#include "foldfs/rcu.h"
#include "foldfs/writers.h"

#include <pthread.h>
#include <stdatomic.h>

#include <urcu/list.h>
#include <urcu/rculfhash.h>

struct file_table {
	struct page_map_memory *memory;
	struct family_table *families; /* NULL: kins are not followed. Constant once set */
	_Atomic uint64_t
		budget; /* relaxed: a trim by the old one is followed by the change's own */
	struct writers_view view; /* on the source; constant once set */
	bool multigrain;   /* there the kernel never gives a looked-at timestamp twice; constant
			    * once set */
	bool stamps_first; /* there a change moves the stamp before a byte; constant once set */
	_Atomic uint64_t bytes;    /* of struct files; relaxed */
	_Atomic uint64_t editions; /* the last edition given out */
	pthread_mutex_t trim_lock; /* one thread trims at a time; before lock */
	pthread_mutex_t lock;
	struct cds_lfht *files; /* changed under lock */
	/* Least recently used first; under lock. */
	struct cds_list_head idle; /* closed, including those that the audit or the watch has a
				    * reference to */
	struct cds_list_head open; /* with references */
	size_t open_files;         /* length of `open`; under lock */
	/* Files that have a kin, or had one, in the order in which they were opened, or got it
	 * after that; under lock. */
	struct cds_list_head kins;
};

/* Who owns a file and who else may write to it. */
struct hands {
	uid_t user;
	gid_t group;
	mode_t writable; /* the write bits of group and others */
};

struct file {
	struct file_table *table;
	dev_t device; /* constant */
	ino_t inode;  /* constant */
	struct page_map *map;
	_Atomic(struct kin *) kin; /* one reference; set under lock, taken away by exchange */
	struct range_lock ranges;
	_Atomic uint64_t size;
	_Atomic uint64_t edition;  /* see edition_begin() */
	atomic_bool distrusted;    /* changes under way may have used what was true before */
	unsigned references;       /* under table->lock */
	bool gone;                 /* had no name when it was last closed; under table->lock */
	struct cds_list_head use;  /* in one of the table's lists; under table->lock */
	bool idle;                 /* in the list of idle ones; under table->lock, as the next
				    * two */
	bool in_kins;              /* in table->kins, as a file with a kin is */
	struct cds_list_head kins; /* link in table->kins */
	struct cds_lfht_node node; /* changed under table->lock */
	struct rcu_head head;      /* once it has left the table */
	pthread_mutex_t lock;      /* protects what follows */
	struct source_stamp stamp; /* the map is true as of this */
	bool racy;                 /* the same stamp may be given to a later change */
	struct hands hands;        /* as of the stamp */
	int64_t young_until;       /* see file_recheck(); 0: the stamp was not young */
	unsigned changers;         /* changes of this mount under way */
};

/* Memory of FILE itself, without its map and its kin. */
uint64_t file_bytes(struct file *file);
/* Put FILE at the end of the list that it belongs to: the idle or the open one. */
void file_move_locked(struct file *file, bool idle);
/* Put FILE, which has a kin or had one, at the end of the list of those; OUT: take it out of that
 * list. */
void file_move_kin_locked(struct file *file, bool out);
/* Take FILE, which nobody references, out of the table. */
void file_detach_locked(struct file *file);
/* Free FILE, which has left the table. */
void file_destroy(struct file *file);
/* Take away FILE's kin: forget what it is known to have in common with others. Any thread. */
void file_drop_kin(struct file *file);

#endif
