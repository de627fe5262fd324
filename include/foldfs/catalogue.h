/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue.h - what is known of whole files between mounts
 *
 * The catalogue is advice that outlives a mount, in one LMDB database for each source. For every
 * scanned file it has the file's digest, the digests of its pages, and how many of its pages are
 * found elsewhere. It also has the set of files that it was compared with and found equal to (its
 * class). All of it holds under exactly one stamp: device, inode, size, mtime and ctime. A file
 * with any other stamp is not known.
 *
 * A class is more than advice. Files of one class were compared byte by byte, or proved equal by
 * their extents, while their stamps stood. A caller that puts a record with a class has done that
 * comparison, with a file that may speak for the record's file (writers.h).
 *
 * The same holds for families, page by page. A family is a number that stands for ever for the
 * content that its founder had when it founded the family. A member's runs are the pages in which
 * the member, under its own stamp, had that content. So it does not matter to a family if its
 * founder or other members change.
 *
 * Several processes may have one catalogue open (the daemon, foldctl scan). LMDB's lock file orders
 * their writers; readers wait for nobody. Any thread may call any function; a batch belongs to the
 * thread that began it.
 *
 * Errors are negative errno; -EIO means that LMDB found the file damaged.
 */
#ifndef FOLDFS_CATALOGUE_H
#define FOLDFS_CATALOGUE_H

#include "foldfs/page.h"
#include "foldfs/source.h"
#include "foldfs/writers.h"

#include <limits.h>

struct catalogue;
struct catalogue_batch;

/* The secret size that XXH3's functions with a secret need. */
#define CATALOGUE_SECRET_BYTES 192
/* A catalogue takes at most this much of its file system, unless told otherwise. */
#define CATALOGUE_MAX_BYTES (UINT64_C(8) << 30)
/* Digests of pages are kept in parts of this many. */
#define CATALOGUE_PART 65536u
/* A part of another kind: the sketch, by which the scan compares files (scan_family.c). */
#define CATALOGUE_SKETCH UINT64_MAX

struct catalogue_record {
	struct digest content;    /* of size and bytes of the file, with the catalogue's secret */
	uint64_t pages;           /* that are not all zero */
	uint64_t pages_elsewhere; /* of these: found in another file, or twice in this one */
	uint64_t pages_error;     /* standard error of that number; 0: it is exact */
	uint64_t class;           /* 0: no file is known to be equal */
	uint64_t writers;         /* who may write to it (writers.h) */
	uint32_t readable;        /* a bool: everybody may read the file itself */
	uint32_t reachable; /* likewise: everybody may pass the directories above, up to the root */
};

struct catalogue_member {
	struct source_stamp stamp;
	char path[PATH_MAX]; /* relative to the source */
};

/* A run of a file's pages that are the same as its family's pages with the same numbers. */
struct catalogue_run {
	uint64_t first;
	uint64_t pages;
};

/*
 * Open the catalogue in DIRECTORY, of at most MAX_BYTES. DIRECTORY is made (0700) if it is not
 * there. A database is moved aside within the directory (data.mdb.aside) if it is damaged, no
 * catalogue, of another version, or full. *ret_moved_aside says so.
 *
 * A child process rewrites a database that was not closed in order, or was changed since. The
 * reason is that LMDB may crash on a damaged one. So this is not for a process with threads.
 *
 * -EPERM: others may write to the directory, or to one that leads to it (trusted_path.h). What the
 * catalogue says of files would be believed. Other -errno.
 */
errint_t catalogue_open(const char *directory, uint64_t max_bytes, bool *ret_moved_aside,
			struct catalogue **ret_catalogue);
/* The two steps of catalogue_open(). The first returns a descriptor or -errno; the second takes it
 * over, also on failure. */
int catalogue_open_directory(const char *directory);
errint_t catalogue_open_at(int directory, uint64_t max_bytes, bool *ret_moved_aside,
			   struct catalogue **ret_catalogue);
/* What an ERROR of catalogue_open() means, as part of a sentence. */
const char *catalogue_open_error(errint_t error);
/* Sync and close the catalogue. No other thread may use it any more. NULL is nothing. */
void catalogue_close(struct catalogue *catalogue);

/* The catalogue's directory, open for reading; borrowed. */
int catalogue_directory(const struct catalogue *catalogue);
/* The secret for the digests of files and pages: CATALOGUE_SECRET_BYTES, constant for the
 * database's life. */
const void *catalogue_secret(const struct catalogue *catalogue);

/* The record of the file with STAMP. -ENOENT. Takes a microsecond or two and waits for nobody. */
errint_t catalogue_find(struct catalogue *catalogue, const struct source_stamp *stamp,
			struct catalogue_record *ret_record);

/* For which files a file with this RECORD may serve as backing file. If everybody may read it: the
 * files for which its own writers may speak. Otherwise none, WRITERS_UNKNOWN. */
static inline uint64_t catalogue_backs(const struct catalogue_record *record)
{
	return record->readable && record->reachable ? record->writers : WRITERS_UNKNOWN;
}

/* The N-th member of CLASS whose catalogue_backs() is BACKS. The order is the same for every caller
 * until the class changes. The caller has to check that the file still has that stamp. -ENOENT. */
errint_t catalogue_member(struct catalogue *catalogue, uint64_t class, uint64_t backs, unsigned n,
			  struct catalogue_member *ret_member);
/* The N-th member of CLASS, whatever it may back. Members that may back trusted files come
 * first. */
errint_t catalogue_any_member(struct catalogue *catalogue, uint64_t class, unsigned n,
			      struct catalogue_member *ret_member);

/* The file with this device and inode, whatever its stamp. -ENOENT. */
errint_t catalogue_get(struct catalogue *catalogue, dev_t device, ino_t inode,
		       struct catalogue_member *ret_file, struct catalogue_record *ret_record);

/* The file after the one with the stamp AFTER (NULL: the first), in an order of the catalogue's
 * own. For walks that take long, or that use the catalogue meanwhile. -ENOENT: that was the
 * last. */
errint_t catalogue_next(struct catalogue *catalogue, const struct source_stamp *after,
			struct catalogue_member *ret_file, struct catalogue_record *ret_record);

/* The digests (64 bits each) of those pages of the file with STAMP that are not zero, in order.
 * They begin at number PART * CATALOGUE_PART; as many as were put for that part. A new array, the
 * caller's. -ENOENT: there is no such part; -ENOMEM. */
errint_t catalogue_digests(struct catalogue *catalogue, const struct source_stamp *stamp,
			   uint64_t part, uint64_t **ret_digests, size_t *ret_count);

/* The runs of the file with STAMP, and the number of its family, which is not 0. The runs ascend,
 * and no two of them touch. A new array, the caller's. -ENOENT: none are known; -ENOMEM. */
errint_t catalogue_runs(struct catalogue *catalogue, const struct source_stamp *stamp,
			uint64_t *ret_family, struct catalogue_run **ret_runs, size_t *ret_count);

/* The object of a class (shared_copies.h): a copy of the content of its members. */
struct catalogue_object {
	uint64_t class;
	uint64_t writers;          /* of the file that the copy was made of */
	struct digest content;     /* as in the record of that file */
	struct source_stamp stamp; /* of the copy itself when it was made, without a device */
};

/* The object of CLASS. -ENOENT: none was made, or the catalogue was not told of it. */
errint_t catalogue_object(struct catalogue *catalogue, uint64_t class,
			  struct catalogue_object *ret_object);
/* The object of the first class after AFTER (0: of the first class). -ENOENT: that was the last. */
errint_t catalogue_next_object(struct catalogue *catalogue, uint64_t after,
			       struct catalogue_object *ret_object);

/* How many objects there are, and the sum of their sizes; 0 where it cannot be told. */
void catalogue_count_objects(struct catalogue *catalogue, uint64_t *ret_count, uint64_t *ret_bytes);

/* Changes are made in batches. There is one batch at a time, over all processes: catalogue_begin()
 * waits for the other to end. Readers see what a batch puts once it is committed. */
errint_t catalogue_begin(struct catalogue *catalogue, struct catalogue_batch **ret_batch);
/* Put FILE's record, in place of what was known of that device and inode. DIGESTS is the first part
 * of its pages' digests; NULL keeps those that are there. -ENOSPC: the catalogue is full. */
errint_t catalogue_put(struct catalogue_batch *batch, const struct catalogue_member *file,
		       const struct catalogue_record *record, const uint64_t digests[],
		       size_t count);
/* Put PART of the digests of a file's pages. Each part but the last has CATALOGUE_PART digests. If
 * others were there, the caller forgets the file (catalogue_remove) before the first part. */
errint_t catalogue_put_digests(struct catalogue_batch *batch, dev_t device, ino_t inode,
			       uint64_t part, const uint64_t digests[], size_t count);
/* Change the record of the file with STAMP by AMEND. -ENOENT: it is not known under this stamp. */
typedef void (*catalogue_amend_fn)(const void *context, struct catalogue_record *record);
errint_t catalogue_amend(struct catalogue_batch *batch, const struct source_stamp *stamp,
			 catalogue_amend_fn amend, const void *context);
/* The file with STAMP has another name now, or may be REACHABLE where it was not. -ENOENT: it is
 * not known under this stamp. */
errint_t catalogue_rename(struct catalogue_batch *batch, const struct source_stamp *stamp,
			  const char *path, bool reachable);
/* Forget the file with this device and inode. Nothing if it is not known. */
errint_t catalogue_remove(struct catalogue_batch *batch, dev_t device, ino_t inode);
/* Forget the file with STAMP. -ENOENT: it is not known under this stamp. */
errint_t catalogue_remove_stamped(struct catalogue_batch *batch, const struct source_stamp *stamp);
/* The file with STAMP was compared with the one with the stamp OF. RUNS, ascending and not
 * touching, were found equal. The file joins OF's family with the pages that RUNS and OF's own runs
 * have in common. If OF has no family, it founds one with all its pages. If OF is the same as
 * STAMP, the file itself founds one. -ENOENT: one of the two is not known under its stamp. */
errint_t catalogue_put_runs(struct catalogue_batch *batch, const struct source_stamp *stamp,
			    const struct source_stamp *of, const struct catalogue_run runs[],
			    size_t count);
/* The file that had the stamp WAS has STAMP now, and RUNS are left of the runs that were known of
 * it. The caller must know of every change in between. The file's record stays as it is, and from
 * now on describes another state of the file. -ENOENT: no runs are known under the stamp WAS. */
errint_t catalogue_keep_runs(struct catalogue_batch *batch, const struct source_stamp *was,
			     const struct source_stamp *stamp, const struct catalogue_run runs[],
			     size_t count);
/* OBJECT becomes the object of its class. */
errint_t catalogue_put_object(struct catalogue_batch *batch, const struct catalogue_object *object);
/* CLASS has no object any more. Nothing if it had none. */
errint_t catalogue_remove_object(struct catalogue_batch *batch, uint64_t class);
/* A class number that no record has. */
errint_t catalogue_new_class(struct catalogue_batch *batch, uint64_t *ret_class);
/* Both end BATCH, whatever they return. */
errint_t catalogue_commit(struct catalogue_batch *batch);
void catalogue_abort(struct catalogue_batch *batch);

#endif
