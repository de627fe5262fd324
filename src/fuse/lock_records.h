/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock_records.h - the records of what clients have locked, in memory that can outlive its process
 *
 * There is one record for each range, or whole file, that a client has locked. The locks in the
 * source belong to open file descriptions, which outlive the process too (keeper.c). So a successor
 * has both, and makes them agree: locks_revive().
 *
 * A change of several records may be cut short by the death of its process. So:
 *  - What takes a lock's place is published before that lock is changed.
 *  - A successor that finds two records of one owner for the same bytes believes the younger one.
 *  - Nobody has had the answer to such a request. The kernel sends it once more, and to do it again
 *    leads to the same.
 */
#ifndef FOLDFS_LOCK_RECORDS_H
#define FOLDFS_LOCK_RECORDS_H

#include "shares.h"
#include "slab.h"

#include <fcntl.h>

#include <urcu/list.h>

struct lock_records;

/* The last byte of a range that goes on to the end, however long the file gets. */
#define LOCK_TO_THE_END INT64_MAX

enum lock_kind {
	LOCK_RANGE, /* fcntl(2) */
	LOCK_WHOLE, /* flock(2) */
};

/* A lock that is held or asked for. */
struct lock_request {
	uint64_t owner;  /* as the kernel names it; not used for a whole file (lock_whole.h) */
	uint64_t handle; /* the number of the client's open file that it comes by */
	int fd;          /* the source's description of that file */
	uid_t user;      /* it counts to his share */
	pid_t pid;       /* of the process; 0: not known */
	bool silent;     /* closes of the handle's descriptors are not told, but the last one */
	short type;      /* F_RDLCK, F_WRLCK or F_UNLCK */
	off_t first;     /* the first byte */
	off_t last;      /* the last byte */
};

/* All but `link` and `clashes` outlives the process. */
struct lock_record {
	struct slab_slot slot;
	uint64_t number; /* constant, like the next three fields */
	uint64_t file;   /* the number of the file that is locked */
	uint64_t age;    /* a younger record has a higher one */
	enum lock_kind kind;
	struct lock_request lock;
	int64_t closed_ms; /* a client closed a descriptor of the handle then (clock.h); 0: never */
	struct cds_list_head link; /* in its list, of ranges in order of lock.first */
	bool clashes;              /* of lock_records_each() */
};

/* EARLIER: what a worker that died has left, which is taken over, also on failure; NULL: there is
 * none. Users other than root and OWN have their shares of the records. -ENOMEM, or other -errno. */
errint_t lock_records_new(uid_t own, struct slab *earlier, struct lock_records **ret_records);
void lock_records_free(struct lock_records *records);
struct slab *lock_records_slab(const struct lock_records *records);
/* How many there are. Any thread. */
uint64_t lock_records_count(const struct lock_records *records);
/* The memory that they take. Any thread. */
uint64_t lock_records_bytes(const struct lock_records *records);

/* A record that counts to the share of USER; it is not published. NULL: the share is used up, or
 * there is no memory. Any thread. */
struct lock_record *lock_record_new(struct lock_records *records, uid_t user);
/* From here on a successor has RECORD, whose kind, file and lock are set. It counts to the share of
 * the user for whom it was made. Any thread. */
void lock_record_publish(struct lock_records *records, struct lock_record *record);
/* Give RECORD back, published or not. Any thread. */
void lock_record_free(struct lock_records *records, struct lock_record *record);

/*
 * After a takeover: call VISIT for each record for which IS_OPEN(context, its handle) says so, and
 * give the others back. The records of one file and kind come one after the other, in order of
 * their first byte. Those that may overlap another one of their owner's are marked (`clashes`), and
 * come last, the youngest at the end. VISIT may give its record back, and make new ones. No other
 * thread uses RECORDS. -ENOMEM.
 */
errint_t lock_records_each(struct lock_records *records,
			   bool (*is_open)(void *context, uint64_t handle),
			   errint_t (*visit)(void *context, struct lock_record *record),
			   void *context);

#endif
