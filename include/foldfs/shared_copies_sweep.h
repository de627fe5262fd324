/* SPDX-License-Identifier: Apache-2.0 */
/* shared_copies_sweep.h - the names of kept copies (shared_copies.h), and which of them nobody has
 * a use for */
#ifndef FOLDFS_SHARED_COPIES_SWEEP_H
#define FOLDFS_SHARED_COPIES_SWEEP_H

#include "foldfs/catalogue.h"

/* "class-digest", in hexadecimal digits. */
#define OBJECT_NAME_BYTES 52

/* The name of the copy of what CLASS holds, which has the digest CONTENT. */
void object_name(uint64_t class, const struct digest *content, char ret_name[OBJECT_NAME_BYTES]);

/* Remove the object of CLASS, called NAME in the directory, and what the catalogue has of it. */
void object_remove(int directory_fd, struct catalogue *catalogue, uint64_t class, const char *name);

/* Remove, of the objects in the directory, those that CATALOGUE does not know, and those of a class
 * that has no member any more; and what it knows of such as are not there. Another process may do
 * the same, or make objects meanwhile: one that is not known yet is made once more then. */
void shared_copies_sweep(int directory_fd, struct catalogue *catalogue);

#endif
