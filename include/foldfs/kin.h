/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kin.h - which pages of one file are those of a family, and still are
 *
 * A file's kin is what the catalogue knows under the stamp that the file had when it was opened: a
 * family (family.h) and the runs of pages that the two have in common. Two rules keep it true
 * afterwards:
 *
 *   - what this mount changes of the file is cut out before its source changes (cow_break.c);
 *   - a change behind the mount, once it is found, takes the kin from the file before its map is
 *     forgotten (file.c). So a thread that looks at a page, and finds the kin still there after
 *     that, may publish the family's frame with the ticket of that look.
 *
 * What a reader fetched may be told to the family if the bytes that were not cut are those that
 * were compared. That holds in two cases: the file had exactly the kin's stamp after the fetch, or
 * the kin is proven then. Proven means that nobody but this mount can have changed the file since
 * it had that stamp (lease.h). In both cases the reader has held the kin since before the fetch. A
 * file that others have open, and that this mount has changed, tells nothing any more.
 *
 * What is fetched is told to the memory of the file's own writers. A file adopts from that memory
 * and from the trusted one (family.h). A file whose writers are not known tells nothing. All of
 * this holds while the file has those writers: a file that changes hands has lost its kin (file.c).
 */
#ifndef FOLDFS_KIN_H
#define FOLDFS_KIN_H

#include "foldfs/catalogue.h"
#include "foldfs/family.h"

struct kin;
struct lease;

/* The kin of a file of WRITERS that had STAMP when its RUNS of family NUMBER were found. One
 * reference. NULL: no memory, or runs that make no sense. */
struct kin *kin_new(struct family_table *families, const struct source_stamp *stamp,
		    uint64_t writers, uint64_t number, const struct catalogue_run runs[],
		    size_t count);
/* One more reference, unless the kin is given up already (false). Within the read side in which the
 * kin was found. */
bool kin_get(struct kin *kin);
void kin_put(struct kin *kin);

/* The families that KIN's file may adopt from, in this order. */
#define KIN_FAMILIES 2u
/* The N-th of these families; NULL: there are no more. */
struct family *kin_family(const struct kin *kin, unsigned n);
/* The family that KIN's file tells what it holds; NULL: none. */
struct family *kin_told(const struct kin *kin);
/* Who may write to its file (writers.h). */
uint64_t kin_writers(const struct kin *kin);
/* The number of its family. */
uint64_t kin_number(const struct kin *kin);
/* Pages FIRST..FIRST + PAGES - 1 are in frames side by side, REF being the first one's: tell the
 * family of those pages that KIN has. Within the RCU read side in which the slots were looked at,
 * while all that KIN's file had not cut was the family's. */
void kin_tell(const struct kin *kin, uint64_t first, uint64_t pages, struct frame_ref ref);
/* The frame that holds PAGE now, from the first of these families that knows it; the caller becomes
 * one more user of it. False: there is none. RCU read side. */
bool kin_share(const struct kin *kin, uint64_t page, struct frame_ref *ret_ref);
/* Whether the file open as FD has the stamp under which all of KIN is true. */
bool kin_is_exact(struct kin *kin, int fd);
/* Whether KIN was proven and somebody else ended the proof, and so may have changed KIN's file,
 * which is open as FD. Such a change may lie beside our own, where no stamp tells of it: then KIN
 * is worth nothing. Any thread; a system call or two. */
bool kin_is_spoilt(struct kin *kin, int fd);
/* KIN is proven from now on, by PROOF, which is taken over. */
void kin_set_proof(struct kin *kin, struct lease *proof);
/* End the proof, if there is one. It stays known whether the proof was lost before. */
void kin_drop_proof(struct kin *kin);
/* From now on KIN is true under the stamp NOW, instead of *ret_was. False: it is so already, or KIN
 * is not proven. */
bool kin_move_stamp(struct kin *kin, const struct source_stamp *now, struct source_stamp *ret_was);
/* If KIN is proven, the one description by which its file is open, with a reference to the caller;
 * NULL: KIN is not proven. */
struct source *kin_source(struct kin *kin);
/* Whether nobody but this mount can have changed KIN's file, from when all of KIN was true up to
 * now. Any thread; a system call. */
bool kin_is_proven(struct kin *kin);
/* Whether PAGE is the family's page of the same number and was not cut. Any thread. */
bool kin_has(const struct kin *kin, uint64_t page);
/* The first page from PAGE on that was the family's, whether cut or not; UINT64_MAX: none. Any
 * thread. */
uint64_t kin_next(const struct kin *kin, uint64_t page);
/* The first page from PAGE on that is the family's and was not cut; *ret_pages: how many such pages
 * are in a row. UINT64_MAX: none. Any thread. */
uint64_t kin_next_uncut(const struct kin *kin, uint64_t page, uint64_t *ret_pages);
/* Bytes that KIN takes, its family not counted. Any thread. */
uint64_t kin_bytes(const struct kin *kin);
/* Cut pages FIRST..LAST, which are about to change. Any thread. */
void kin_cut(struct kin *kin, uint64_t first, uint64_t last);

#endif
