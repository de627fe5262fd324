/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - what outlives the process that serves a mount
 *
 * The keeper (keeper.h) keeps the connection to the kernel, and starts the worker, which serves.
 * When a worker dies, its successor has to go on with what the kernel believes: which node ids
 * there are, which files are open, and which requests were in hand. All of that is here, or in the
 * files that `memory` names. The descriptors are those of the keeper too, and have the same
 * numbers. Everything else is a cache, and is made anew.
 *
 * The keeper makes the session before any worker. Each worker is a copy of the keeper, so the
 * session lies at the same address in all of them.
 *
 * Rule: a worker may die between any two instructions. So each record becomes valid, or invalid, by
 * one store, and that store comes last, or first. No successor runs before all threads of the dead
 * worker are gone, so it sees all of their stores.
 */
#ifndef FOLDFS_SESSION_H
#define FOLDFS_SESSION_H

#include "foldfs/page.h"

#include <stdatomic.h>

/* One for each thread that may handle requests (serve.c). */
#define SESSION_SLOTS 256u
/* How many workers' slots are kept. A request may be older than the last worker: it was sent again,
 * and that worker died before it got to it. */
#define SESSION_BANKS 8u
/* Look-ups that one request may count: entries of a READDIRPLUS of 1 MiB, none of which takes less
 * than 152 bytes. */
#define SESSION_COUNTED (FOLD_REQUEST_BYTES / 152u + 1)
/* A request of libfuse's largest size: a WRITE with its header. */
#define SESSION_BUFFER_BYTES (FOLD_REQUEST_BYTES + 2 * FOLD_PAGE_SIZE)
#define SESSION_INIT_BYTES   8192u /* the least that the kernel lets read */

/* Changed with each change of what is in a record, or of what it means. */
#define SESSION_FORMAT 1u
/* What a program says of the records that it knows: see session_format(). */
#define SESSION_FORMAT_BYTES 32u
/* Room for what the keeper hands on (handover.h). */
#define SESSION_KEEPER_BYTES 32768u
/* The longest text of settings, its end included. */
#define SESSION_SETTINGS_BYTES 65536u

/* The kernel marks a request that it sends once more (FUSE_UNIQUE_RESEND). */
#define SESSION_RESENT (UINT64_C(1) << 63)

/* The kinds of objects that have records. */
enum session_memory {
	SESSION_INODES,
	SESSION_FILES,
	SESSION_DIRECTORIES,
	SESSION_LOCKS,
	SESSION_MEMORIES,
};

/* What the handling of a request has done that must not be done twice. Its thread writes it. */
struct session_slot {
	_Atomic uint64_t unique; /* the kernel's number of the request, without SESSION_RESENT; 0:
				  * none. Set last, cleared first */
	uint32_t thread;         /* gettid(2) */
	uint64_t made;           /* the number of the handle that it opened; 0: none. Set after
				  * the next field */
	enum session_memory made_in;
	int64_t began;     /* when its change of the source began, of CLOCK_REALTIME_COARSE in
				  * nanoseconds; 0: it has not begun. Set after facts */
	uint64_t facts[2]; /* of the source before that change; the change knows their meaning */
	/* The change of a look-up count that is being made. */
	_Atomic uint64_t node;           /* of the inode; 0: no change. Set last, cleared first */
	uint64_t lookups_after;          /* the inode's count then */
	uint32_t counted_after;          /* counted then */
	uint32_t counted;                /* look-ups that the answer tells the kernel of, so far */
	uint64_t nodes[SESSION_COUNTED]; /* of what inodes; the first `counted` */
};

/* What the kernel asked first, and what was agreed. */
struct session_init {
	size_t bytes;                     /* constant, like the next field */
	char request[SESSION_INIT_BYTES]; /* FUSE_INIT */
	bool agreed;                      /* set by the first worker, after the rest */
	uint64_t flags;
	uint32_t max_write;
};

struct session {
	char format[SESSION_FORMAT_BYTES]; /* constant, like the next three fields */
	int memory_of_it;                  /* the file in which it lies; -1: in none */
	int device;                        /* of the connection */
	bool survives;                     /* a successor will be started */
	uint32_t workers;                  /* how many were started; changed by the keeper */
	atomic_bool serves;                /* the last one has begun to serve; */
	atomic_bool ends;                  /* and has begun to end, by itself */
	atomic_bool made_way;              /* and has ended, for another program */
	_Atomic uint32_t thread;           /* that does the worker's work; 0: it is not known yet */
	_Atomic uint32_t watched;          /* the number of the worker that the keeper watches, */
	int watch;                         /* by this descriptor */
	bool asked;                        /* the asker was told to ask; the worker's */
	atomic_bool answers;               /* the mount does, which systemd is to be told */
	_Atomic int client;           /* of an exchange: its connection, once the worker has handed
				       * it over; -1: there is none */
	_Atomic uint32_t exchanges;   /* programs that have taken another one's place */
	int memory[SESSION_MEMORIES]; /* of the slabs (slab.h); -1: there is none yet */
	struct session_init init;
	_Atomic uint32_t last_backing; /* about the last backing id that the kernel gave */
	_Atomic uint32_t settings_at;  /* which of `settings` holds, from 1 on; 0: none. Set last */
	/* Untouched parts take no memory; each worker's begin at a page. */
	_Alignas(FOLD_PAGE_SIZE) char settings[2][SESSION_SETTINGS_BYTES];
	_Alignas(FOLD_PAGE_SIZE) char keeper[SESSION_KEEPER_BYTES]; /* the keeper's */
	_Alignas(FOLD_PAGE_SIZE) struct session_slot slots[SESSION_BANKS][SESSION_SLOTS];
	/* What threads have read. The kernel does not send a FORGET once more, so the one that a
	 * worker died of is found here. */
	_Alignas(FOLD_PAGE_SIZE) char buffers[SESSION_SLOTS][SESSION_BUFFER_BYTES];
};

/* An empty session of FORMAT, in memory that this process shares with its children, and can hand on
 * to another program. -ENOMEM, or other -errno. */
errint_t session_new(const char *format, struct session **ret_session);
/* The session that another program has left in MEMORY. -EPROTO: it is not of FORMAT. -errno. */
errint_t session_adopt(int memory, const char *format, struct session **ret_session);
void session_free(struct session *session);

/* Tell programs apart that do not know each other's records. BYTES: the sizes of all records that
 * are not in here. */
void session_format(size_t bytes, char ret_format[SESSION_FORMAT_BYTES]);

/* Whether a worker has served before this one. */
static inline bool session_continues(const struct session *session)
{
	return session->workers > 1;
}

/* Whether a thread of the last worker, process PID, is left that handles a request. For the keeper. */
bool session_is_busy(struct session *session, int pid);

/* A number that changes when a thread of the last worker begins or ends a request, but by chance.
 * For the keeper. */
uint64_t session_progress(struct session *session);

/* A worker begins: all its slots are empty. No thread runs yet. */
void session_begin(struct session *session);
/* The memory for the requests that the thread with slot number INDEX reads, SESSION_BUFFER_BYTES; and
 * its end. */
void *session_buffer(struct session *session, unsigned index);
/* Get the memory that it takes, if a successor will be started. Returns whether there is all of it.
 * Its own thread calls it. */
bool session_buffer_fill(struct session *session, unsigned index);
void session_buffer_clear(struct session *session, unsigned index);
/* What the thread with slot number INDEX of the last worker read last, and how many changes of
 * look-up counts it had made for it. No thread runs yet. */
const void *session_last_read(struct session *session, unsigned index, uint32_t *ret_counted);
/* Slot number INDEX of this worker. */
struct session_slot *session_slot(struct session *session, unsigned index);

/*
 * The calling thread begins to handle the request that the kernel sent as UNIQUE, and notes in SLOT
 * what it does. If an earlier worker had it in hand, session_earlier() tells what that one did,
 * until session_request_end().
 */
void session_request_begin(struct session *session, struct session_slot *slot, uint64_t unique);
void session_request_end(void);
/* NULL: no earlier worker had the request in hand. */
struct session_slot *session_earlier(void);

/* ---- what the handling of a request notes; nothing on a thread that handles none ---- */

/* The change of the source begins, with FACTS that it will need if it is asked for once more. */
void session_change_begins(uint64_t fact, uint64_t other_fact);
/* If an earlier worker had begun the change: when (as in struct session_slot), and its facts. False:
 * none had. */
bool session_change_had_begun(int64_t *ret_began, uint64_t ret_facts[2]);
/* The request has opened the handle with NUMBER in MEMORY, which nobody can find yet. */
void session_has_made(enum session_memory memory, uint64_t number);

/* Around the change of the look-up count of the inode with NODE to AFTER. The lock that orders the
 * changes of that count is held. Either the answer will tell of it, or the request is a FORGET. */
void session_count_begin(uint64_t node, uint64_t after);
void session_count_end(void);
/* The same for taking back the last one that SLOT counted. */
void session_uncount_begin(struct session_slot *slot, uint64_t after);
void session_uncount_end(struct session_slot *slot);

/* Call CHANGE for each change of a count in which a worker died: the inode with NODE has LOOKUPS.
 * No thread runs yet. */
void session_settle(struct session *session,
		    void (*change)(void *context, uint64_t node, uint64_t lookups), void *context);

/* SAID, words of -o, holds from now on instead of what the mount was started with. Less than
 * SESSION_SETTINGS_BYTES. One thread at a time. */
void session_note_settings(struct session *session, const char *said);
/* What holds; NULL: what the mount was started with. */
const char *session_settings(const struct session *session);

#endif
