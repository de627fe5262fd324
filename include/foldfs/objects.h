/* SPDX-License-Identifier: Apache-2.0 */
/*
 * objects.h - copies of whole contents that nobody writes
 *
 * In a read-write mount a file that backs others could itself be written. So with
 * coherence=overlay the backing file of a class is a copy, an object, in the state directory: made
 * once in the background, as a reflink where the file systems allow it, and only ever read. An
 * object's name is its class and the digest of its content, so one that a newer catalogue does not
 * know is never used, and is removed at the next start. The catalogue has the stamp with which it
 * was made as well: one that anybody has touched since, if only a byte of it, is not used either,
 * and is made anew.
 */
#ifndef FOLDFS_OBJECTS_H
#define FOLDFS_OBJECTS_H

#include "foldfs/catalogue.h"

struct objects;

/* The objects of CATALOGUE (borrowed), in DIRECTORY, which is made if it is not there; what no
 * class of the catalogue is about is removed. -EPERM: others may write to it. -errno. */
errint_t objects_new(const char *directory, struct catalogue *catalogue,
		     struct objects **ret_objects);
/* Ends what is being made, unfinished. NULL is nothing. */
void objects_free(struct objects *objects);

/* The object of RECORD, which has a class, open for reading, in a place where it cannot be opened
 * for writing. -ENOENT: there is none yet, or it is not as it was made; other -errno. A look-up and
 * two system calls. Any thread. */
int objects_open(struct objects *objects, const struct catalogue_record *record);

/* Have the object of RECORD made in the background from the file open as FD (stays the caller's),
 * which has STAMP, in place of one that is not as it was made. Nothing if it is being made. Errors
 * are logged, once. Any thread; does not block. */
void objects_make(struct objects *objects, const struct catalogue_record *record,
		  const struct source_stamp *stamp, int fd);

#endif
