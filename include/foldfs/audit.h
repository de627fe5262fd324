/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.h - compares a live mount with its source and with itself
 *
 * The audit reads everything that the daemon knows of content and of memory, counts it again one by
 * one, and reports what does not agree. It changes nothing. It runs beside traffic on a thread of
 * its own and takes each lock of the request path for a bounded time only: a write to the pages
 * that are being compared waits for one read of 1 MiB of the source.
 *
 * What is under way does not count as a difference. Where a consistent view of one moment can be
 * had (bytes of a page, digest of a frame), one look decides. Everything else is counted several
 * times, with a grace period in between, which ends whatever had begun. A difference is what stays
 * the same over all rounds; what keeps changing is reported separately, as unsteady. On a mount
 * that nobody uses (IDLE) nothing is under way for long. There the rounds go on for some seconds,
 * and what is unsteady then is a difference too.
 *
 * Memory: 4 bytes for each frame of the pool that was ever used, 24 for each file whose source has
 * to be searched for, 16 for each known file, and 3 MiB.
 */
#ifndef FOLDFS_AUDIT_H
#define FOLDFS_AUDIT_H

#include "foldfs/audit_checks.h"
#include "foldfs/family.h"
#include "foldfs/file.h"
#include "foldfs/fill.h"
#include "foldfs/window.h"

struct lease_table;

enum audit_check {
#define AUDIT_NAME(name, key, unit, what) AUDIT_##name,
	AUDIT_CHECKS(AUDIT_NAME)
#undef AUDIT_NAME
		AUDIT_COUNT
};

#define AUDIT_FINDINGS  32u
#define AUDIT_TEXT_SIZE 256u

struct audit_line {
	uint64_t checked;
	uint64_t different;
	uint64_t unsteady; /* changed from round to round: neither right nor wrong */
};

struct audit_report {
	struct audit_line lines[AUDIT_COUNT];
	uint64_t files;             /* known to the mount */
	uint64_t files_changed;     /* behind the mount, or stamp too young to tell: not compared */
	uint64_t files_unreachable; /* their source was not found: not compared */
	uint64_t files_unreadable;  /* the source gave an error: compared in part */
	uint64_t memory_bytes;      /* that the audit used, at most */
	unsigned findings;          /* number of texts; they describe the first differences */
	char texts[AUDIT_FINDINGS][AUDIT_TEXT_SIZE]; /* ASCII */
};

/* The counts of inode.h; see there for what the two numbers of each pair are. */
struct audit_inodes {
	uint64_t live, live_said;
	uint64_t hashed, hashed_said;
	uint64_t astray;
	uint64_t slab, slab_said;
};

/* A file that is served in place of another one; both are open for reading. */
struct audit_pair {
	enum audit_check check;
	int served;
	int source; /* its content should equal this file's; -1: none is known */
	struct source_stamp source_stamp; /* the source's, when its content was the right one */
	const struct digest *content;     /* digest that it should have; NULL: not known */
	const void *secret;               /* of digests (content.h) */
};
/* Descriptors stay the caller's. An error (-errno) ends the visits. */
typedef errint_t audit_pair_fn(void *visitor, const struct audit_pair *pair);

/* What is audited. Everything is borrowed. */
struct audit_subject {
	struct page_store *store;
	struct page_map_memory *memory;
	struct file_table *files;
	struct family_table *families; /* NULL: kins are not followed */
	struct filler *filler;
	struct window *window;
	int source_fd; /* the source directory; never read from, only reopened */
	/* The source file of the object with these numbers, open for reading: a new descriptor, or
	 * -errno if it is not known this way. NULL: no object is known this way. */
	int (*open_source)(void *context, dev_t device, ino_t inode);
	/* Leases that are held on source files; OPEN_SOURCE knows these files. NULL: there are no
	 * leases. */
	struct lease_table *leases;
	/* Call VISIT for each pair. NULL: there are no pairs. */
	errint_t (*visit_pairs)(void *context, audit_pair_fn *visit, void *visitor);
	/* NULL: there are no inodes. */
	void (*count_inodes)(void *context, struct audit_inodes *ret_inodes);
	/* Whether to give up. Called often. NULL: never give up. */
	bool (*is_cancelled)(void *context);
	void *context;
};

/* Audit SUBJECT. Blocks until everything that may be answered from the source has been read.
 * Returns 0 also if there are differences; -ECANCELED, -ENOMEM. */
errint_t audit_run(const struct audit_subject *subject, bool idle, struct audit_report *ret_report);

/* The sum of all differences of a report. */
uint64_t audit_differences(const struct audit_report *report);

#endif
