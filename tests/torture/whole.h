/* SPDX-License-Identifier: Apache-2.0 */
/*
 * whole.h - what the parts of foldfs-whole share: files that are equal as a whole
 *
 * Where whole files share one backing file, a descriptor need not show its file's present content:
 * it may show the content as of its open. So here each descriptor has a set of states that it may
 * show (struct shown), usually one. Each read keeps the states with which all of its bytes agree;
 * if none is left, the read is wrong. The head of whole_model.c says which states may be in the
 * set.
 *
 *   whole_model.c  files, names and their states; descriptors and what they may show
 *   whole_ops.c    the operations
 *   whole.c        the command line, threads, the end
 *
 * Locks, in the order in which they are taken: struct name, struct whole. Each thread takes at most
 * one of each.
 */
#ifndef WHOLE_H
#define WHOLE_H

#include "torture.h"

#define WHOLE_NAMES  48u
#define WHOLE_BYTES  (48u * PAGE)
#define DESCRIPTORS  12u /* of each player */
#define VERSIONS_MAX 64u /* files that have one name, one after the other */

/* What was done to a file since it was found to be equal to others. Only ever moves on. */
enum state {
	STATE_EQUAL,
	STATE_OPENED,  /* for a change, which may not have come yet */
	STATE_CHANGED, /* its content, or another thing that moves its ctime */
};

struct whole {
	pthread_rwlock_t lock; /* of what it is now: written to by who changes the file */
	_Atomic int state;
	uint8_t *first; /* what it was made as: WHOLE_BYTES, zeroes behind the end; constant */
	size_t first_size;
	uint8_t *now; /* WHOLE_BYTES, zeroes behind the end */
	size_t size;
	bool dirty; /* under lock: the source may not have all of it yet */
};

struct name {
	/* With --behind a name is given away beside who opens it, and the counts tell what may be
	 * found: only one thread at a time gives it away. Else also who opens it holds the lock. */
	pthread_rwlock_t lock;
	_Atomic unsigned started; /* the newest version; up to `done` it has the name */
	_Atomic unsigned done;
	struct whole *_Atomic versions[VERSIONS_MAX];
};

struct figures {
	_Atomic uint64_t finished; /* operations */
	_Atomic uint64_t bytes_read;
	_Atomic uint64_t bytes_written;
	_Atomic uint64_t bytes_kept; /* read of what a file was, when it was that no more */
	_Atomic uint64_t replaced;
};

struct play {
	const char *mount; /* constant, like what follows */
	const char *source;
	uint64_t seed;
	unsigned names;
	unsigned classes;
	bool behind;  /* nobody writes to the mount; names are given away in the source */
	bool believe; /* and the kernel may believe a name for a while */
	atomic_bool stop;
	atomic_bool failed; /* then failure says how */
	struct figures figures;
	pthread_mutex_t lock; /* of failure; a leaf */
	char failure[2048];   /* the first one's */
	struct name table[WHOLE_NAMES];
};

/* One state of a file: what it was made as, or what it is. */
struct shown {
	struct whole *file;
	bool now;
};

struct descriptor {
	int fd;       /* -1: closed; the mapping may be left */
	int flags;    /* it was opened with */
	uint8_t *map; /* WHOLE_BYTES of it; NULL: not mapped */
	unsigned name;
	unsigned count;
	struct shown shown[VERSIONS_MAX];
};

/* One thread's. */
struct player {
	struct play *play;
	unsigned number;
	uint64_t index; /* of the operation at work */
	uint64_t state; /* of its random numbers */
	int memory;     /* memfd */
	uint8_t *bytes; /* WHOLE_BYTES + PAGE: what was read, or is written */
	struct descriptor descriptors[DESCRIPTORS];
};

__attribute__((format(printf, 2, 3))) void complain(struct player *p, const char *format, ...);
/* Below LIMIT. */
uint32_t draw(struct player *p, uint32_t limit);
/* Whether a file was made with a second name, ".b". It keeps that one when the first is
 * given away. */
bool has_second(const struct play *play, unsigned name);
void path_in(const char *directory, unsigned name, const char *suffix, char *path, size_t room);

/* ---- the model ---- */

/* The bytes that CLASS has in a play with SEED, into BYTES (WHOLE_BYTES): how many. */
size_t class_content(const struct play *play, unsigned class, uint8_t *bytes);
/* Files and names as they were made. -ENOMEM. */
errint_t model_make(struct play *play);
/* A file that has LENGTH BYTES and is known to nobody; NULL: no memory. */
struct whole *whole_new(const uint8_t *bytes, size_t length);
struct whole *whole_named(struct play *play, unsigned name);
/* One that is opened for a change is about to be; one that has changed has been. */
void whole_opened(struct whole *file);
void whole_changed(struct whole *file);

/* Open NAME with FLAGS as D. False: it could not be, which is reported. */
bool descriptor_open(struct player *p, struct descriptor *d, unsigned name, int flags);
/* KEEP_MAP: the mapping stays. */
void descriptor_close(struct descriptor *d, bool keep_map);
/* The file that D shows as it is, or may; NULL: it shows what was. */
struct whole *descriptor_follows(const struct descriptor *d);
/* GOT bytes that were read where WANTED at AT had been asked for, while what D follows was held.
 * MAPPED: a file ends with its last page, which has zeroes behind the end. */
void descriptor_seen(struct player *p, struct descriptor *d, const char *how, bool mapped,
		     size_t at, size_t wanted, ssize_t got);

/* ---- operations ---- */

/* The next operation of P, at random. */
void play_one(struct player *p);
/* All of D by every way to read. */
void read_whole(struct player *p, struct descriptor *d);

#endif
