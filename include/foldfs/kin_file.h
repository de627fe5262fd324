/* SPDX-License-Identifier: Apache-2.0 */
/* kin_file.h - the kin of a file: learnt at an open, proven while it is written, kept at its end */
#ifndef FOLDFS_KIN_FILE_H
#define FOLDFS_KIN_FILE_H

#include "foldfs/kin.h"

struct file;
struct lease_table;

/* FILE's kin, one reference to the caller; NULL: it has none. Any thread. */
struct kin *kin_of(const struct file *file);

/* Let FILE, open as FD and validated, learn from CATALOGUE what its kin is, unless it has one. Most
 * of the time a look-up of a microsecond or two. */
void kin_learn(struct catalogue *catalogue, struct file *file, int fd);

/* Whether FILE, open as FD, has the writers under which KIN is its kin. */
bool kin_has_writers(const struct kin *kin, const struct file *file, int fd);

/* Have the kin of FILE, open for writing as SOURCE, proven from now on: only this mount changes the
 * file, and by this description. Does nothing if FILE has no kin, or if the proof cannot be had
 * now. It can be had if nothing was changed yet and nobody has the file open by another
 * description. Called as the daemon itself. */
void kin_prove(struct lease_table *leases, struct file *file, struct source *source);
/* The part of FILE's kin that was not cut is true under the stamp that the file has now. FILE is
 * open as FD and its kin proven. Later opens find it so, in this mount and, by CATALOGUE (or NULL),
 * in the next. Does nothing if the kin is not proven. Waits for others who change the catalogue,
 * and for the disk. */
void kin_keep(struct catalogue *catalogue, struct file *file, int fd);
/* End the proof: this daemon is about to open FILE anew, or nobody has it open any more. */
void kin_end_proof(struct file *file);
/* If FILE's kin is proven, the one description by which FILE is open, with a reference to the
 * caller; NULL: the kin is not proven. */
struct source *kin_proven_source(const struct file *file);

/* Number of pages of the file open as FD that its kin has now, or would have if the file were
 * opened. FILE: what is known of it, or NULL; CATALOGUE may be NULL. */
uint64_t kin_count(struct catalogue *catalogue, struct file *file, int fd);

#endif
