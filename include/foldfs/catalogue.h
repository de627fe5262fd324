/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue.h - what is known of whole files between mounts
 *
 * Advice that outlives a mount, in one LMDB database for each source: for every scanned file its
 * digest, the digests of its pages, how many of them are found elsewhere, and with which files it
 * was compared and found equal (its class). All of it holds under exactly one stamp: device, inode,
 * size, mtime and ctime. A file with any other stamp is not known.
 *
 * A class is more than advice: files of one class were compared byte by byte, or proved equal by
 * their extents, while their stamps stood. Whoever puts a record with a class has done that, with a
 * file that may speak for it (writers.h).
 *
 * So it is with families, page by page. A family is a number that stands for the content of the
 * file that founded it, as it was then, for ever; a member's runs are the pages in which it had the
 * same content under its own stamp. That its founder or other members change means nothing to it.
 *
 * Several processes may have one catalogue open (the daemon, foldctl scan): LMDB's lock file orders
 * their writers, readers wait for nobody. Any thread may call any of it; a batch belongs to the
 * thread that began it.
 *
 * Errors are negative errno; -EIO is LMDB's word that the file is damaged.
 */
#ifndef FOLDFS_CATALOGUE_H
#define FOLDFS_CATALOGUE_H

#include "foldfs/page.h"
#include "foldfs/source.h"
#include "foldfs/writers.h"

#include <limits.h>

struct catalogue;
struct catalogue_batch;

/* What XXH3's functions with a secret take. */
#define CATALOGUE_SECRET_BYTES 192
/* A catalogue takes no more than this of its file system, unless told otherwise. */
#define CATALOGUE_MAX_BYTES (UINT64_C(8) << 30)
/* Digests of pages are kept in parts of this many. */
#define CATALOGUE_PART 65536u
/* A part of another kind: what the scan compares files by (scan_family.c). */
#define CATALOGUE_SKETCH UINT64_MAX

struct catalogue_record {
	struct digest content;    /* of size and bytes of the file, with the catalogue's secret */
	uint64_t pages;           /* that are not all zero */
	uint64_t pages_elsewhere; /* of these: found in another file, or twice in this one */
	uint64_t pages_error;     /* standard error of that number; 0: it is exact */
	uint64_t class;           /* 0: no file is known to be equal */
	uint64_t writers;         /* who may write to it (writers.h) */
	uint32_t readable;        /* a bool: everybody may read the file itself */
	uint32_t reachable; /* the same: and go through the directories above, up to the root */
};

struct catalogue_member {
	struct source_stamp stamp;
	char path[PATH_MAX]; /* relative to the source */
};

/* Pages of a file that are as those of its family with the same numbers. */
struct catalogue_run {
	uint64_t first;
	uint64_t pages;
};

/*
 * Open the catalogue in DIRECTORY, which is made (0700) if it is not there, of at most MAX_BYTES. A
 * database that is damaged, no catalogue, of another version, or full is moved aside within the
 * directory (data.mdb.aside) and *ret_moved_aside says so. One that was not closed in order, or was
 * changed since, is written anew by a child process, because LMDB may crash on a damaged one: not
 * for a process with threads. -EPERM: others may write to the directory, or to one that leads to it
 * (trusted_path.h), and what it says of files would be believed. -errno.
 */
errint_t catalogue_open(const char *directory, uint64_t max_bytes, bool *ret_moved_aside,
			struct catalogue **ret_catalogue);
/* What an ERROR of it means, for a sentence. */
const char *catalogue_open_error(errint_t error);
/* No other thread uses it any more. Syncs it. NULL is nothing. */
void catalogue_close(struct catalogue *catalogue);

/* Its directory, open for reading; borrowed. */
int catalogue_directory(const struct catalogue *catalogue);
/* For the digests of files and pages: CATALOGUE_SECRET_BYTES, constant for the database's life. */
const void *catalogue_secret(const struct catalogue *catalogue);

/* The record of the file with STAMP. -ENOENT. Takes a microsecond or two and waits for nobody. */
errint_t catalogue_find(struct catalogue *catalogue, const struct source_stamp *stamp,
			struct catalogue_record *ret_record);

/* Whom a file of this record may back: files for which its own writers may speak, if everybody may
 * read it; else nobody's, WRITERS_UNKNOWN. */
static inline uint64_t catalogue_backs(const struct catalogue_record *record)
{
	return record->readable && record->reachable ? record->writers : WRITERS_UNKNOWN;
}

/* The N-th member of CLASS of which catalogue_backs() is BACKS; the order is the same for every
 * asker until the class changes. The caller sees to it that the file still has that stamp.
 * -ENOENT. */
errint_t catalogue_member(struct catalogue *catalogue, uint64_t class, uint64_t backs, unsigned n,
			  struct catalogue_member *ret_member);
/* The N-th member of CLASS, whatever it may back; those that may back trusted files come first. */
errint_t catalogue_any_member(struct catalogue *catalogue, uint64_t class, unsigned n,
			      struct catalogue_member *ret_member);

/* The file with this device and inode, whatever its stamp. -ENOENT. */
errint_t catalogue_get(struct catalogue *catalogue, dev_t device, ino_t inode,
		       struct catalogue_member *ret_file, struct catalogue_record *ret_record);

/* The file after the one with the stamp AFTER (NULL: the first) in an order of the catalogue's own.
 * For walks that take long, or use the catalogue meanwhile. -ENOENT: that was the last. */
errint_t catalogue_next(struct catalogue *catalogue, const struct source_stamp *after,
			struct catalogue_member *ret_file, struct catalogue_record *ret_record);

/* The digests (64 bits) of the file with STAMP, of its pages that are not zero, in order: those
 * from PART * CATALOGUE_PART on, as many as were put for that part. A new array, the caller's.
 * -ENOENT: there is no such part; -ENOMEM. */
errint_t catalogue_digests(struct catalogue *catalogue, const struct source_stamp *stamp,
			   uint64_t part, uint64_t **ret_digests, size_t *ret_count);

/* The runs of the file with STAMP, ascending and apart from each other, and the number of its
 * family: not 0. A new array, the caller's. -ENOENT: none are known; -ENOMEM. */
errint_t catalogue_runs(struct catalogue *catalogue, const struct source_stamp *stamp,
			uint64_t *ret_family, struct catalogue_run **ret_runs, size_t *ret_count);

/* The object of a class (shared_copies.h): a copy of what its members hold. */
struct catalogue_object {
	uint64_t class;
	uint64_t writers;          /* of the file that it was made of */
	struct digest content;     /* as in the record of that */
	struct source_stamp stamp; /* the copy's own as it was made, without a device */
};

/* The object of CLASS. -ENOENT: none was made, or it was not told of. */
errint_t catalogue_object(struct catalogue *catalogue, uint64_t class,
			  struct catalogue_object *ret_object);
/* The object of the first class after AFTER (0: of the first one). -ENOENT: that was the last. */
errint_t catalogue_next_object(struct catalogue *catalogue, uint64_t after,
			       struct catalogue_object *ret_object);

/* How many objects there are, and the sum of their sizes; 0 where it cannot be told. */
void catalogue_count_objects(struct catalogue *catalogue, uint64_t *ret_count, uint64_t *ret_bytes);

/* Changes are made in batches; one at a time, over all processes: begin waits for the other's end.
 * What a batch puts is there for readers once it is committed. */
errint_t catalogue_begin(struct catalogue *catalogue, struct catalogue_batch **ret_batch);
/* Put FILE's record, in place of what was known of that device and inode. DIGESTS of its pages, the
 * first part; NULL keeps those that are there. -ENOSPC: the catalogue is full. */
errint_t catalogue_put(struct catalogue_batch *batch, const struct catalogue_member *file,
		       const struct catalogue_record *record, const uint64_t digests[],
		       size_t count);
/* Put digests of a file's pages: PART of them, each of CATALOGUE_PART but the last. If there were
 * others the file is forgotten (catalogue_remove) before the first. */
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
/* The same of the file with STAMP, if that is what is known. -ENOENT: it is not. */
errint_t catalogue_remove_stamped(struct catalogue_batch *batch, const struct source_stamp *stamp);
/* The file with STAMP was compared with the one with the stamp OF, and RUNS, ascending and apart,
 * were found equal: it joins OF's family with what the two families' runs have in common. If OF is
 * of none it founds one with all its pages. OF the same as STAMP: it founds one itself. -ENOENT:
 * one is not known under this stamp. */
errint_t catalogue_put_runs(struct catalogue_batch *batch, const struct source_stamp *stamp,
			    const struct source_stamp *of, const struct catalogue_run runs[],
			    size_t count);
/* The file that had the stamp WAS has STAMP now, and of the runs that were known of it RUNS are
 * left: whoever says so knows all that was changed in between. Its record stays what it is, and is
 * of another state of the file from now on. -ENOENT: no runs are known under the stamp WAS. */
errint_t catalogue_keep_runs(struct catalogue_batch *batch, const struct source_stamp *was,
			     const struct source_stamp *stamp, const struct catalogue_run runs[],
			     size_t count);
/* OBJECT is that of its class now. */
errint_t catalogue_put_object(struct catalogue_batch *batch, const struct catalogue_object *object);
/* There is no object of CLASS any more. Nothing if there was none. */
errint_t catalogue_remove_object(struct catalogue_batch *batch, uint64_t class);
/* A class number that no record has. */
errint_t catalogue_new_class(struct catalogue_batch *batch, uint64_t *ret_class);
/* Both end BATCH, whatever they return. */
errint_t catalogue_commit(struct catalogue_batch *batch);
void catalogue_abort(struct catalogue_batch *batch);

#endif
