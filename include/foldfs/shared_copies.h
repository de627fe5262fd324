/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared_copies.h - copies of whole contents that nobody writes
 *
 * In a read-write mount a file that backs others could itself be written. So with coherence=overlay
 * the backing file of a class is a copy, an object, in the state directory. It is made once in the
 * background, as a reflink where the file systems allow it, and only ever read.
 *
 * An object's name is its class and the digest of its content. So an object that a newer catalogue
 * does not know is never used. The catalogue also has the stamp that the object had when it was
 * made. An object that somebody has touched since, even in one byte, is not used either, and is
 * made anew.
 *
 * An object has the same standing as the file that it was made of: it serves only the files for
 * which that file may speak (writers.h). An object that was made of a trusted file replaces one
 * that was not, never the other way round. Objects whose content no file holds any more are removed
 * (shared_copies_sweep.h).
 */
#ifndef FOLDFS_SHARED_COPIES_H
#define FOLDFS_SHARED_COPIES_H

#include "foldfs/catalogue.h"

struct shared_copies;

/* The objects of CATALOGUE (borrowed), in DIRECTORY, which is made if it is not there. Removes the
 * objects that belong to no class of the catalogue. -EPERM: others may write to the directory.
 * -errno. */
errint_t shared_copies_new(const char *directory, struct catalogue *catalogue,
			   struct shared_copies **ret_objects);
/* Stops the making of an object, which stays unfinished. NULL is nothing. */
void shared_copies_free(struct shared_copies *copies);

/* The object of RECORD, which has a class, for a file of WRITERS: open for reading, in a place
 * where it cannot be opened for writing. -ENOENT: there is none yet, or it is not as it was made.
 * -EPERM: it may not speak for that file. Other -errno. Takes a look-up and two system calls. Any
 * thread. */
int shared_copies_open(struct shared_copies *copies, const struct catalogue_record *record,
		       uint64_t writers);

/* A file that an object is made of. */
struct shared_copies_source {
	int fd; /* stays the caller's */
	struct source_stamp stamp;
	uint64_t writers;
};

/* Have the object of RECORD made in the background from SOURCE. It replaces one that is not as it
 * was made, or that may not speak for SOURCE. Nothing if it is already being made. Errors are
 * logged, once. Any thread; does not block. */
void shared_copies_make(struct shared_copies *copies, const struct catalogue_record *record,
			const struct shared_copies_source *source);

/* The file that had STAMP has lost its last name. If it was the last of its class, its object is
 * removed in the background. The file is given by its stamp, because its numbers may belong to
 * another file by then. Any thread; does not block. */
void shared_copies_member_gone(struct shared_copies *copies, const struct source_stamp *stamp);
/* A scan has ended: have objects that nobody needs removed, in the background. Any thread; does not
 * block. */
void shared_copies_sweep_soon(struct shared_copies *copies);

/* Open OBJECT, which the catalogue has, like shared_copies_open(). -errno. For the audit. */
int shared_copies_open_copy(struct shared_copies *copies, const struct catalogue_object *object);

#endif
