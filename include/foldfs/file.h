/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.h - what this mount knows of one source file's content
 *
 * A struct file ties a source file (device, inode) to its page map, its write locks and the stamp
 * under which the map is true. It outlives close and FORGET, as the page cache does: the table
 * keeps files nobody has open until the maps' budget needs their memory, least recently used first.
 *
 * Who tells an own change from a foreign one: file_change_begin() compares the source's stamp
 * before the first of several overlapping changes, file_change_end() takes the new one after the
 * last. What does not match was done behind the mount, and all is forgotten. file_validate() does
 * the same at every open.
 */
#ifndef FOLDFS_FILE_H
#define FOLDFS_FILE_H

#include "foldfs/page_map.h"
#include "foldfs/range_lock.h"
#include "foldfs/source.h"

struct family_table;
struct file;
struct file_table;
struct kin;
struct writers_view;

/* Maps are kept within BUDGET bytes. STORE and MEMORY are borrowed. -ENOMEM. */
errint_t file_table_new(struct page_map_memory *memory, uint64_t budget_bytes,
			struct file_table **ret_table);
/* The source directory is open as FD: how far its timestamps can be trusted. Before use; without it
 * they are taken for coarse ones. -errno. */
errint_t file_table_source(struct file_table *table, int fd);
/* What files are known to have in common is followed from now on (kin.h). FAMILIES, borrowed, are
 * kept within the maps' budget. Before use. */
void file_table_use_families(struct file_table *table, struct family_table *families);
/* Whether DEVICE is the source's own. Any thread, no lock. */
bool file_table_is_source(const struct file_table *table, dev_t device);
/* Whether a change after this moment may leave the source with the same STAMP, taken now. Any
 * thread, no lock. */
bool file_table_doubts(const struct file_table *table, const struct source_stamp *stamp);
/* No file is referenced any more. */
void file_table_free(struct file_table *table);
/* Bytes of the files themselves, maps not counted. */
uint64_t file_table_bytes(const struct file_table *table);

/* The file that ST describes, one reference to the caller; new if it was not known. Blocks on a
 * mutex only. -ENOMEM. */
errint_t file_table_get(struct file_table *table, const struct stat *st, struct file **ret_file);
/* The same, NULL if it is not known. */
struct file *file_table_find(struct file_table *table, dev_t device, ino_t inode);
/* One more reference to a file that the caller has one to. */
struct file *file_get(struct file *file);
void file_put(struct file *file);
/* The same for a user of FD, open on it in any way: if the source has no name any more, what is
 * known of it goes too, with the last reference. */
void file_put_or_drop(struct file *file, int fd);

/* Bring the maps back within their budget. Called by fills, after they published, and by changes.
 * Cheap when there is nothing to do; else one idle file costs the same however many are open. Not
 * within a read side. */
void file_table_trim(struct file_table *table);
/* The table that FILE is or was in. Constant. */
struct file_table *file_table_of(const struct file *file);

struct page_map *file_map(struct file *file);
/* Of pages. Held by cow_break around source and slot. */
struct range_lock *file_range_lock(struct file *file);
/* Size in bytes as of the last stamp or change. Any thread, no lock. */
uint64_t file_size(const struct file *file);

/* Whether what is known is still true of the source open as FD; all is forgotten if not. True also
 * while own changes are under way, which will be judged at their end. -errno of fstat. */
errint_t file_validate(struct file *file, int fd, bool *ret_unchanged);

/* Around every change of content that this mount makes. If the source had been changed behind the
 * mount, all is forgotten first. SEEN, unless NULL: what fstat said to the same request before,
 * which does where it is what the file was found as last. -errno of fstat; then there is no end. */
errint_t file_change_begin(struct file *file, int fd, const struct stat *seen);
void file_change_end(struct file *file, int fd);
/* Whether one is under way just now. Any thread. */
bool file_is_changing(struct file *file);

/* The number of what is known of the file: another one with each change behind the mount that is
 * found, and with each struct file that the table makes of the same source file; never used twice.
 * What the kernel cached under an earlier one may not be true: see window_follow(). Any thread, no
 * lock. */
uint64_t file_edition(const struct file *file);

/* What a sample of the file's pages tells: unknown unless nearly all are known; unique if fewer
 * than a twentieth of those that are not zero share their frame. A few microseconds; any thread, no
 * lock. */
enum file_sharing {
	FILE_UNKNOWN,
	FILE_UNIQUE,
	FILE_SHARES,
};
enum file_sharing file_sharing(struct file *file);

/* Everything is forgotten, its kin too. */
void file_forget(struct file *file);

/* Whether FILE could have a kin and has none. Any thread, no lock. */
bool file_wants_kin(const struct file *file);
/* KIN, taken over, is FILE's, which is open as FD; if it still has KIN's stamp and has none yet. */
void file_set_kin(struct file *file, struct kin *kin, int fd);
/* Whether a change of FILE after this moment may leave it with the same STAMP, taken now. Any
 * thread, no lock. */
bool file_doubts(const struct file *file, const struct source_stamp *stamp);
/* FILE's kin, NULL: none. RCU read side. */
struct kin *file_kin(const struct file *file);
/* KIN is worth nothing any more: it is FILE's no longer, if it still was. */
void file_give_up_kin(struct file *file, struct kin *kin);
/* Pages FIRST..LAST are about to change: they are its kin's no more. For cow_break alone. */
void file_cut_kin(struct file *file, uint64_t first, uint64_t last);
/* NULL: kins are not followed. */
struct family_table *file_families(const struct file *file);
/* From where it is told who may write to FILE (writers.h). Constant. */
const struct writers_view *file_view(const struct file *file);

/* Somebody who watches the source tells that FILE was changed behind the mount, or may have been:
 * all is forgotten, also what changes of ours that are under way found true before, and a new
 * edition begins. Any thread, blocks on mutexes only. */
void file_distrust(struct file *file);

/*
 * What such a one had to tell was lost, but for what was told before CALM (of CLOCK_MONOTONIC, in
 * nanoseconds). FILE, open as FD in any way, stays known if its stamp shows that it was not changed
 * behind the mount; else it is distrusted. Whether it stays. May block on the source.
 *
 * Two kinds of changes do not show in the stamp: one by a single call that was under way when the
 * stamp was taken, and one beside changes of ours. A stamp that was taken within FILE_SETTLED_NS of
 * its ctime is not relied upon unless CALM is as much later again: then the report of such a change
 * was not lost. A call that writes for longer than that is not allowed for.
 */
#define FILE_SETTLED_NS INT64_C(1000000000)
bool file_recheck(struct file *file, int fd, int64_t calm);
/* Whether FILE, of which the kernel knows no inode, need not be looked at for that: nobody but the
 * caller has a reference, and its next open compares its stamp, which can be relied upon. */
bool file_rests(struct file *file, int64_t calm);

/*
 * For the audit and the watch. None of these changes what is known of a file, or which goes first.
 */

struct file_key {
	dev_t device;
	ino_t inode;
};

/* The keys of all files that are known from beginning to end, and of some others, in an array, the
 * caller's to free; NULL if there is none. Takes no lock. -ENOMEM. */
errint_t file_table_keys(struct file_table *table, struct file_key **ret_keys, size_t *ret_count);
/* Bytes that the files take, counted one by one; file_table_bytes() has it as a sum. */
uint64_t file_table_count_bytes(struct file_table *table);
/* A reference to the file of KEY, NULL if it is not known any more. */
struct file *file_table_peek(struct file_table *table, const struct file_key *key);

/* How what is known of a file stands to its source. */
enum file_truth {
	FILE_IS_TRUE,        /* of the source as it is now, and nobody of ours is changing it */
	FILE_IS_CHANGING,    /* changes of this mount are under way */
	FILE_IS_DOUBTFUL,    /* the source was young when its stamp was taken: not relied on */
	FILE_CHANGED_BEHIND, /* not of the source as it is now: will be forgotten at the
			      * next open */
};
/* *ret_size_known: file_size() is the source's size; told of a file that is true. -errno
 * of fstat. */
errint_t file_judge(struct file *file, int fd, enum file_truth *ret_truth, bool *ret_size_known);

#endif
