/* SPDX-License-Identifier: Apache-2.0 */
/* shared_copies_sweep.h - the names of kept copies (shared_copies.h), and the removal of those that
 * nobody needs */
#ifndef FOLDFS_SHARED_COPIES_SWEEP_H
#define FOLDFS_SHARED_COPIES_SWEEP_H

#include "foldfs/catalogue.h"

/* "class-digest", in hexadecimal digits. */
#define OBJECT_NAME_BYTES 52

/* The name of the copy of the content of CLASS, which has the digest CONTENT. */
void object_name(uint64_t class, const struct digest *content, char ret_name[OBJECT_NAME_BYTES]);

/* Remove the object of CLASS, called NAME in the directory, and the catalogue's entry of it. */
void object_remove(int directory_fd, struct catalogue *catalogue, uint64_t class, const char *name);

/* Remove from the directory the objects that CATALOGUE does not know, and the objects of a class
 * that has no member any more. Also remove the catalogue's entries of objects that are not there.
 * Another process may do the same, or make objects meanwhile. An object that the catalogue does not
 * know yet is then made once more. */
void shared_copies_sweep(int directory_fd, struct catalogue *catalogue);

#endif
