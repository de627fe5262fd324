/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.h - what this mount knows of one source file's content
 *
 * A struct file ties a source file (device, inode) to its page map, its write locks and the stamp
 * under which the map is true. It outlives close and FORGET, as the page cache does: the table
 * keeps files that nobody has open until the maps' budget needs their memory, least recently used
 * first.
 *
 * How an own change is told from a foreign one: file_change_begin() compares the source's stamp
 * before the first of several overlapping changes; file_change_end() takes the new stamp after the
 * last. If the stamps differ, the file was changed behind the mount, and all that is known of it is
 * forgotten. file_validate() does the same check at every open.
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

/* Maps are kept within BUDGET bytes. MEMORY is borrowed. -ENOMEM. */
errint_t file_table_new(struct page_map_memory *memory, uint64_t budget_bytes,
			struct file_table **ret_table);
/* From now on the budget is BUDGET_BYTES; what is beyond it is given up before this returns. Any
 * thread that no request waits for. Not within a read side. */
void file_table_set_budget(struct file_table *table, uint64_t budget_bytes);
/* FD is the open source directory: it tells how far the source's timestamps can be trusted. To be
 * called before use; without it they are taken for coarse ones. -errno. */
errint_t file_table_source(struct file_table *table, int fd);
/* From now on, follow what files are known to have in common (kin.h). FAMILIES, borrowed, are kept
 * within the maps' budget. To be called before use. */
void file_table_use_families(struct file_table *table, struct family_table *families);
/* Whether DEVICE is the source's own. Any thread, no lock. */
bool file_table_is_source(const struct file_table *table, dev_t device);
/* Whether a change after this moment may leave the source with the same stamp as STAMP, which was
 * taken now. Any thread, no lock. */
bool file_table_doubts(const struct file_table *table, const struct source_stamp *stamp);
/* No file is referenced any more. */
void file_table_free(struct file_table *table);
/* Bytes of the files themselves, maps not counted. */
uint64_t file_table_bytes(const struct file_table *table);

/* The file that ST describes, one reference to the caller; new if it was not known. Blocks on a
 * mutex only. -ENOMEM. */
errint_t file_table_get(struct file_table *table, const struct stat *st, struct file **ret_file);
/* As file_table_get(), but NULL if the file is not known. */
struct file *file_table_find(struct file_table *table, dev_t device, ino_t inode);
/* One more reference to a file that the caller has one to. */
struct file *file_get(struct file *file);
void file_put(struct file *file);
/* As file_put(), for a caller that has FD open on the file in any way: if the source has no name
 * any more, what is known of it goes too, with the last reference. */
void file_put_or_drop(struct file *file, int fd);

/* Bring the maps back within their budget. Called by fills, after they published, and by changes.
 * Cheap when there is nothing to do. Otherwise dropping one idle file costs the same however many
 * files are open. Not within a read side. */
void file_table_trim(struct file_table *table);
/* The table that FILE is or was in. Constant. */
struct file_table *file_table_of(const struct file *file);

struct page_map *file_map(struct file *file);
/* Locks ranges of pages. cow_break holds it around the changes of source and slots. */
struct range_lock *file_range_lock(struct file *file);
/* Size in bytes as of the last stamp or change. Any thread, no lock. */
uint64_t file_size(const struct file *file);

/* Whether what is known is still true of the source open as FD; if not, all is forgotten. Also true
 * while own changes are under way: these are judged at their end. -errno of fstat. */
errint_t file_validate(struct file *file, int fd, bool *ret_unchanged);

/* Around every change of content that this mount makes. If the source was changed behind the mount,
 * all is forgotten first. SEEN, unless NULL, is what fstat returned earlier in the same request. It
 * replaces another fstat if it still equals the file's last stamp. -errno of fstat; then
 * file_change_end() must not be called. */
errint_t file_change_begin(struct file *file, int fd, const struct stat *seen);
void file_change_end(struct file *file, int fd);
/* Whether such a change is under way just now. Any thread. */
bool file_is_changing(struct file *file);

/* The number of what is known of the file. It changes with each change behind the mount that is
 * found, and with each struct file that the table makes for the same source file; a number is never
 * used twice. What the kernel cached under an earlier edition may not be true: see window_follow().
 * Any thread, no lock. */
uint64_t file_edition(const struct file *file);

/* What a sample of the file's pages shows. FILE_UNKNOWN: unless nearly all of them are known.
 * FILE_UNIQUE: fewer than a twentieth of the pages that are not zero share their frame. Takes a few
 * microseconds; any thread, no lock. */
enum file_sharing {
	FILE_UNKNOWN,
	FILE_UNIQUE,
	FILE_SHARES,
};
enum file_sharing file_sharing(struct file *file);

/* Forget everything that is known of FILE, its kin too. */
void file_forget(struct file *file);

/* Whether FILE could have a kin and has none. Any thread, no lock. */
bool file_wants_kin(const struct file *file);
/* Give FILE, which is open as FD, the kin KIN, which is taken over. Only done if FILE still has
 * KIN's stamp and has no kin yet. */
void file_set_kin(struct file *file, struct kin *kin, int fd);
/* Whether a change of FILE after this moment may leave it with the same stamp as STAMP, which was
 * taken now. Any thread, no lock. */
bool file_doubts(const struct file *file, const struct source_stamp *stamp);
/* FILE's kin; NULL: it has none. RCU read side. */
struct kin *file_kin(const struct file *file);
/* KIN is worth nothing any more: take it away from FILE, if FILE still has it. */
void file_give_up_kin(struct file *file, struct kin *kin);
/* Pages FIRST..LAST are about to change: cut them out of FILE's kin. For cow_break alone. */
void file_cut_kin(struct file *file, uint64_t first, uint64_t last);
/* NULL: kins are not followed. */
struct family_table *file_families(const struct file *file);
/* The view by which the writers of FILE are told (writers.h). Constant. */
const struct writers_view *file_view(const struct file *file);

/* A watcher of the source reports that FILE was changed behind the mount, or may have been. All is
 * forgotten, also what own changes under way have found true before, and a new edition begins. Any
 * thread; blocks on mutexes only. */
void file_distrust(struct file *file);

/*
 * Reports of a watcher were lost, except those made before CALM (of CLOCK_MONOTONIC, in
 * nanoseconds). FILE, open as FD in any way, stays known if its stamp shows that it was not changed
 * behind the mount; otherwise it is distrusted. Returns whether it stays. May block on the source.
 *
 * Two kinds of changes do not show in the stamp: a change by a single call that was under way when
 * the stamp was taken, and a change beside changes of ours. So a stamp that was taken within
 * FILE_SETTLED_NS of its ctime is relied upon only if CALM is at least as much later again: then
 * the report of such a change was not lost. A call that writes for longer than that is not allowed
 * for.
 */
#define FILE_SETTLED_NS INT64_C(1000000000)
bool file_recheck(struct file *file, int fd, int64_t calm);
/* Whether file_recheck() can be left out for FILE, of which the kernel knows no inode: only the
 * caller has a reference, the next open compares the stamp, and the stamp can be relied upon. */
bool file_rests(struct file *file, int64_t calm);

/*
 * For the audit and the watch. None of these changes what is known of a file, or the order in which
 * files are given up.
 */

struct file_key {
	dev_t device;
	ino_t inode;
};

/* The keys of all files that are known from beginning to end of the call, and of some others, in an
 * array that the caller frees; NULL if there is none. Takes no lock. -ENOMEM. */
errint_t file_table_keys(struct file_table *table, struct file_key **ret_keys, size_t *ret_count);
/* Bytes that the files take, counted one by one; file_table_bytes() keeps them as a sum. */
uint64_t file_table_count_bytes(struct file_table *table);
/* A reference to the file of KEY, NULL if it is not known any more. */
struct file *file_table_peek(struct file_table *table, const struct file_key *key);

/* How what is known of a file relates to its source. */
enum file_truth {
	FILE_IS_TRUE,        /* true of the source as it is now, and no own change is under way */
	FILE_IS_CHANGING,    /* changes of this mount are under way */
	FILE_IS_DOUBTFUL,    /* the source was young when its stamp was taken: not relied on */
	FILE_CHANGED_BEHIND, /* not true of the source as it is now: will be forgotten at the next
			      * open */
};
/* *ret_size_known: whether file_size() is the source's size; only meaningful for FILE_IS_TRUE.
 * -errno of fstat. */
errint_t file_judge(struct file *file, int fd, enum file_truth *ret_truth, bool *ret_size_known);

#endif
