/* SPDX-License-Identifier: Apache-2.0 */
/*
 * locks.h - the locks that clients have on files, and those who wait for one
 *
 * Each file that has a lock, or somebody who waits for one, has an entry in a table. The entry's
 * lists say who has what (lock_list.h, lock_whole.h); what they say is so in the source as well.
 *
 * No thread waits for a lock. A request that has to wait is kept here, and is answered when
 * whatever was in its way is gone:
 *  - Where a client of the mount is in the way, the request that ends that lock gives the waiting
 *    ones theirs, in the order in which they came.
 *  - Where somebody in the source is in the way, nobody tells. A thread asks again, after 1 ms at
 *    first, then in growing pauses of up to 32 ms.
 *
 * A client's last close reaches the daemon as a request of its own (RELEASE), which may be handled
 * after a request that was sent later. So a request that does not wait, but meets a lock of an open
 * file of which a descriptor was closed just now, waits for that RELEASE: for 50 ms at most. So
 * does one that meets a lock of an open file whose closes are not told.
 *
 * Knows nothing of FUSE.
 */
#ifndef FOLDFS_LOCKS_H
#define FOLDFS_LOCKS_H

#include "lock_list.h"
#include "lock_whole.h"

struct lock_file;
struct locks;

struct locks_usage {
	uint64_t held;    /* ranges and whole files that clients have locked */
	uint64_t waiting; /* requests that wait */
	uint64_t bytes;   /* memory of both */
};

/* A table in which users other than root have their shares of locks and of waiting requests. OWN:
 * the daemon's user. EARLIER: the records of a worker that died, which are taken over, also on
 * failure; NULL: there are none. No thread runs yet. -ENOMEM, or other -errno. */
errint_t locks_new(uid_t own, struct slab *earlier, struct locks **ret_locks);
/* What a successor is to have. */
struct slab *locks_slab(const struct locks *locks);
/* After a takeover, before the thread is started: what was locked by open files that IS_OPEN knows
 * is locked again. -ENOMEM. */
errint_t locks_revive(struct locks *locks, bool (*is_open)(void *context, uint64_t handle),
		      void *context);
/* Then, for each description FD of the file with NUMBER by which something may be locked: have it
 * hold in the source what the table says, and no more. */
void locks_settle(struct locks *locks, uint64_t number, int fd);
/* Start the thread. -errno. */
errint_t locks_start(struct locks *locks);
/* Nobody asks any more: end the thread, and answer everybody who waits with -ENOTCONN. A second
 * call does nothing. */
void locks_stop(struct locks *locks);
/* After locks_stop(), if it was started. The locks in the source are left to the descriptions. */
void locks_free(struct locks *locks);
/* A moment's view. Any thread. */
void locks_usage(const struct locks *locks, struct locks_usage *ret_usage);

/* A request, from locks_ask() to its answer. */
struct lock_wait {
	/* Set by the asker, then constant. */
	struct lock_request request;
	enum lock_kind kind;
	bool blocks;    /* it waits until it has the lock */
	bool questions; /* it takes nothing: who is in the way? LOCK_RANGE only */
	/* Called before it begins to wait: from now on locks_interrupt() may be called for it, also
	 * by this very call. It must not wait for anything. */
	void (*arm)(struct lock_wait *wait);
	/* Called once if it has waited. Any thread, without a lock. The wait is the callee's. */
	void (*answer)(struct lock_wait *wait, errint_t result);

	struct flock found; /* of a question: as lock_list_ask() says */

	/* Of locks.c. */
	struct lock_file *file;    /* constant from its arming on */
	int64_t since_ms;          /* it met a lock whose end may be on its way then; 0: never */
	struct cds_list_head link; /* all others: under the table's lock */
	struct cds_list_head by_owner;
	uint64_t blocker; /* the owner who is in its way; 0: not known, or in the source */
	errint_t result;  /* once it is in a list of answers */
	bool (*is_ready)(struct lock_wait *wait); /* of locks_delay(), as the next */
	int64_t until_ms;
	bool waits;   /* it is in its file's list */
	bool trying;  /* a thread that has the file's lock looks at it without the table's */
	bool stopped; /* it was interrupted */
};

/* Handle WAIT, a request for the file with NUMBER. Returns its result, or -EINPROGRESS: it
 * waits, and belongs to the table until it is answered. Results: 0; -EAGAIN: somebody is in the
 * way, and it does not wait; -EDEADLK: it would wait for somebody who waits for it; -ENOLCK: too
 * many locks or waiting requests; -EINTR: it was interrupted; other -errno: the source's. Any
 * thread. */
errint_t locks_ask(struct locks *locks, uint64_t number, struct lock_wait *wait);
/* WAIT need not wait any longer. If it still does, it is answered with -EINTR. Does not wait. */
void locks_interrupt(struct locks *locks, struct lock_wait *wait);

/* WAIT, which has its lock, is answered a second time, with 0: as soon as IS_READY(WAIT) says so,
 * which is asked again and again, for a second at most. IS_READY must not wait, nor take a lock.
 * False: it is to be answered now. */
bool locks_delay(struct locks *locks, struct lock_wait *wait,
		 bool (*is_ready)(struct lock_wait *wait));

/* OWNER has closed a descriptor of HANDLE, an open file of the file with NUMBER: his ranges are
 * unlocked. Costs a load if no file has a lock. Any thread. */
void locks_closed(struct locks *locks, uint64_t number, uint64_t handle, uint64_t owner);
/* HANDLE's last descriptor is closed: all that came by it is unlocked. */
void locks_released(struct locks *locks, uint64_t number, uint64_t handle);

#endif
