/* SPDX-License-Identifier: Apache-2.0 */
/* kin_file.h - the kin of a file: learnt at an open, proven while it is written, kept at its end */
#ifndef FOLDFS_KIN_FILE_H
#define FOLDFS_KIN_FILE_H

#include "foldfs/kin.h"

struct file;
struct lease_table;

/* FILE's kin, one reference to the caller; NULL: it has none. Any thread. */
struct kin *kin_of(const struct file *file);

/* Have FILE, open as FD and validated, learn from CATALOGUE what its kin is, unless it has one. A
 * look-up of a microsecond or two, most of the time. */
void kin_learn(struct catalogue *catalogue, struct file *file, int fd);

/* Whether the file open as FD, which is FILE, has the writers under which KIN is its. */
bool kin_has_writers(const struct kin *kin, const struct file *file, int fd);

/* Have the kin of FILE, open for writing as SOURCE, proven from now on: that nobody but we changes
 * the file, by this description. Nothing if it has none, or that cannot be had now: it can if
 * nothing was changed yet, and nobody has the file open by another description. As the daemon
 * itself. */
void kin_prove(struct lease_table *leases, struct file *file, struct source *source);
/* What is left of FILE's kin, which is open as FD and proven, is true under the stamp that the file
 * has now: the next to open it find it so, in this mount and by CATALOGUE (or NULL) in the next.
 * Nothing if it is not proven. Waits for others who change the catalogue, and for the disk. */
void kin_keep(struct catalogue *catalogue, struct file *file, int fd);
/* The end of the proof: somebody of ours is about to open FILE anew, or nobody has it open any
 * more. */
void kin_end_proof(struct file *file);
/* The one description by which FILE is open, if its kin is proven, a reference to the caller; NULL:
 * it is not. */
struct source *kin_proven_source(const struct file *file);

/* Pages of the file open as FD that its kin has now, or would have if it were opened. FILE: what is
 * known of it, or NULL; CATALOGUE may be NULL. */
uint64_t kin_count(struct catalogue *catalogue, struct file *file, int fd);

#endif
