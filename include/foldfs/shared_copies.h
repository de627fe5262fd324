/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared_copies.h - copies of whole contents that nobody writes
 *
 * In a read-write mount a file that backs others could itself be written. So with
 * coherence=overlay the backing file of a class is a copy, an object, in the state directory: made
 * once in the background, as a reflink where the file systems allow it, and only ever read. An
 * object's name is its class and the digest of its content, so one that a newer catalogue does not
 * know is never used. The catalogue has the stamp with which it was made as well: one that anybody
 * has touched since, if only a byte of it, is not used either, and is made anew.
 *
 * An object says what the file said that it was made of, and serves those alone for which that may
 * speak (writers.h). One that was made of a trusted file takes the place of another one, and never
 * the other way round. Objects of what no file holds any more are removed (shared_copies_sweep.h).
 */
#ifndef FOLDFS_SHARED_COPIES_H
#define FOLDFS_SHARED_COPIES_H

#include "foldfs/catalogue.h"

struct shared_copies;

/* The objects of CATALOGUE (borrowed), in DIRECTORY, which is made if it is not there; what no
 * class of the catalogue is about is removed. -EPERM: others may write to it. -errno. */
errint_t shared_copies_new(const char *directory, struct catalogue *catalogue,
			   struct shared_copies **ret_objects);
/* Ends what is being made, unfinished. NULL is nothing. */
void shared_copies_free(struct shared_copies *copies);

/* The object of RECORD, which has a class, for a file of WRITERS: open for reading, in a place
 * where it cannot be opened for writing. -ENOENT: there is none yet, or it is not as it was made;
 * -EPERM: it may not speak for that file; other -errno. A look-up and two system calls.
 * Any thread. */
int shared_copies_open(struct shared_copies *copies, const struct catalogue_record *record,
		       uint64_t writers);

/* A file that an object is made of. */
struct shared_copies_source {
	int fd; /* stays the caller's */
	struct source_stamp stamp;
	uint64_t writers;
};

/* Have the object of RECORD made in the background from SOURCE, in place of one that is not as it
 * was made or may not speak for it. Nothing if it is being made. Errors are logged, once. Any
 * thread; does not block. */
void shared_copies_make(struct shared_copies *copies, const struct catalogue_record *record,
			const struct shared_copies_source *source);

/* The file that had STAMP has lost its last name: if it was the last of its class, the object goes,
 * in the background. By its stamp, for by then its numbers may be another file's. Any thread; does
 * not block. */
void shared_copies_member_gone(struct shared_copies *copies, const struct source_stamp *stamp);
/* A scan has ended: have objects that nobody needs removed, in the background. The same. */
void shared_copies_sweep_soon(struct shared_copies *copies);

/* OBJECT, which the catalogue has, open as shared_copies_open() does. -errno. For the audit. */
int shared_copies_open_copy(struct shared_copies *copies, const struct catalogue_object *object);

#endif
