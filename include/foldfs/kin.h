/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kin.h - which pages of one file are those of a family, and still are
 *
 * A file's kin is what the catalogue knows under the stamp that the file had when it was opened: a
 * family (family.h) and the runs of pages that the two have in common. Two things hold it to the
 * truth afterwards:
 *
 *   - what this mount changes of the file is cut out before its source changes (cow_break.c);
 *   - a change behind the mount, once it is found, takes the kin from the file before its map is
 *     forgotten (file.c). So whoever looks at a page, and finds the kin still there after that, may
 *     publish the family's frame with the ticket of that look.
 *
 * What a reader fetched may be told to the family if the bytes that it did not cut are those that
 * were compared: if the file had the kin's very stamp after the fetch, or if the kin is proven
 * then, which is that nobody but we can have changed the file since it had that stamp (lease.h).
 * The reader has held the kin since before the fetch. A file that others have open, and that this
 * mount has changed, tells nothing any more.
 *
 * It is told to the memory of the file's own writers, and adopted from that and from the trusted
 * one (family.h). A file of which nobody knows who writes to it tells nobody. All of it holds while
 * the file has those writers: one that changes hands has lost its kin (file.c).
 */
#ifndef FOLDFS_KIN_H
#define FOLDFS_KIN_H

#include "foldfs/catalogue.h"
#include "foldfs/family.h"

struct file;
struct kin;
struct lease_table;

/* Of the file of WRITERS that had STAMP when its RUNS of family NUMBER were found. One reference.
 * NULL: no memory, or runs that make no sense. */
struct kin *kin_new(struct family_table *families, const struct source_stamp *stamp,
		    uint64_t writers, uint64_t number, const struct catalogue_run runs[],
		    size_t count);
/* FILE's kin, one reference to the caller; NULL: it has none. Any thread. */
struct kin *kin_of(const struct file *file);
void kin_put(struct kin *kin);

/* Where KIN's file may adopt from, in this order. */
#define KIN_FAMILIES 2u
/* The N-th of them, NULL: there are no more, or just one. */
struct family *kin_family(const struct kin *kin, unsigned n);
/* Where KIN's file tells what it holds; NULL: nowhere. */
struct family *kin_told(const struct kin *kin);
/* The number of its family. */
uint64_t kin_number(const struct kin *kin);
/* Pages FIRST..FIRST + PAGES - 1 are in frames side by side, REF that of the first: tell of those
 * that KIN has. RCU read side, within which the slots were looked at, while all that KIN's file had
 * not cut was the family's. */
void kin_tell(const struct kin *kin, uint64_t first, uint64_t pages, struct frame_ref ref);
/* The frame that holds PAGE now, by the first that knows; the caller is one more user of it. False:
 * there is none. RCU read side. */
bool kin_share(const struct kin *kin, uint64_t page, struct frame_ref *ret_ref);
/* Whether the file open as FD, which is FILE, has the writers under which KIN is its. */
bool kin_has_writers(const struct kin *kin, const struct file *file, int fd);
/* Whether the file open as FD has the stamp under which all of KIN is true. */
bool kin_is_exact(struct kin *kin, int fd);
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
/* Whether KIN was proven, and somebody else has ended that, so that he may have changed its file,
 * which is open as FD, beside our own changes, where no stamp tells of it: then KIN is worth
 * nothing. Any thread; a system call or two. */
bool kin_is_spoilt(struct kin *kin, int fd);
/* Whether, up to now, nobody but we can have changed KIN's file since all of KIN was true. Any
 * thread; a system call. */
bool kin_is_proven(struct kin *kin);
/* The one description by which FILE is open, if its kin is proven, a reference to the caller; NULL:
 * it is not. */
struct source *kin_proven_source(const struct file *file);

/* Whether PAGE is the family's page of the same number, and was not cut. Any thread. */
bool kin_has(const struct kin *kin, uint64_t page);
/* The first page from PAGE on that was the family's, cut or not, UINT64_MAX: none. Any thread. */
uint64_t kin_next(const struct kin *kin, uint64_t page);
/* The first page from PAGE on that is the family's and was not cut, and how many there are in a
 * row; UINT64_MAX: none. Any thread. */
uint64_t kin_next_uncut(const struct kin *kin, uint64_t page, uint64_t *ret_pages);
/* Bytes that KIN takes, its family not counted. Any thread. */
uint64_t kin_bytes(const struct kin *kin);
/* Pages FIRST..LAST are about to change. Any thread. */
void kin_cut(struct kin *kin, uint64_t first, uint64_t last);

/* Have FILE, open as FD and validated, learn from CATALOGUE what its kin is, unless it has one. A
 * look-up of a microsecond or two, most of the time. */
void kin_learn(struct catalogue *catalogue, struct file *file, int fd);

/* Pages of the file open as FD that its kin has now, or would have if it were opened. FILE: what is
 * known of it, or NULL; CATALOGUE may be NULL. */
uint64_t kin_count(struct catalogue *catalogue, struct file *file, int fd);

#endif
