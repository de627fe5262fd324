/* SPDX-License-Identifier: Apache-2.0 */
/* audit_internal.h - what the audit*.c files share; no other file includes it. */
#ifndef FOLDFS_AUDIT_INTERNAL_H
#define FOLDFS_AUDIT_INTERNAL_H

#include "foldfs/audit.h"

/* Used by the audit's thread alone. */
struct audit {
	const struct audit_subject *subject;
	struct audit_report *report;
	bool idle;
	struct file_key *keys; /* of all files, sorted by inode and device */
	size_t key_count;
};

/* ---- audit_rounds.c ---- */

bool audit_is_cancelled(const struct audit *audit);
/* Record one more difference in CHECK. The text is kept while there is room. */
__attribute__((format(printf, 3, 4))) void audit_found(struct audit *audit, enum audit_check check,
						       const char *format, ...);
void audit_took_memory(struct audit *audit, uint64_t bytes);
/* Replace the list of keys with the files that are known now. -ENOMEM. */
errint_t audit_take_keys(struct audit *audit);

/* For qsort() and bsearch(): by inode, then device. */
int audit_key_order(const void *a, const void *b);

/* Call VISIT for each file that is known now. -ENOMEM, -ECANCELED. */
typedef void audit_file_fn(void *context, struct file *file);
errint_t audit_each_file(struct audit *audit, audit_file_fn *visit, void *context);

/* The number of rounds in which something that does not agree is counted. */
unsigned audit_rounds(const struct audit *audit);
/* Before round ROUND (from 1 on), wait until what is under way has ended. -ECANCELED. */
errint_t audit_settle(const struct audit *audit, unsigned round);

/* Two figures that should be the same. */
struct audit_sum {
	enum audit_check check;
	const char *what; /* "frames that are free": for the text */
	uint64_t counted;
	uint64_t said;
	bool busy; /* an operation that makes them differ is known to be under way */
};
#define AUDIT_SUMS_MAX 16u
/* Take up to AUDIT_SUMS_MAX sums, the same ones in each round. Returns how many, or -errno. */
typedef int audit_take_fn(struct audit *audit, struct audit_sum sums[]);
/* Count until the sums agree or the rounds are over. -ECANCELED, or the -errno of TAKE. */
errint_t audit_sums(struct audit *audit, audit_take_fn *take);

/* ---- the parts ---- */

/* audit_content.c: slots against the source. -ENOMEM, -ECANCELED. */
errint_t audit_content(struct audit *audit);
/* audit_pairs.c: files that are served in place of others. -ENOMEM, -ECANCELED. */
errint_t audit_pairs(struct audit *audit);
/* audit_pool.c: frames against their digests, the index, the lists and the slots. -ENOMEM,
 * -ECANCELED. */
errint_t audit_pool(struct audit *audit);
/* audit_pool.c: sums of the pool. */
int audit_pool_sums(struct audit *audit, struct audit_sum sums[]);

/* audit_tree.c: call VISIT once with a descriptor for each wanted file that has a name below the
 * source of SUBJECT. WANTED has COUNT keys, sorted by audit_key_order(). The descriptor is VISIT's.
 * Ends with VISIT's first error; -ENOMEM. Directories that cannot be read are passed over. */
typedef errint_t audit_visit_fn(void *context, size_t index, int fd);
errint_t audit_tree_visit(const struct audit_subject *subject, const struct file_key wanted[],
			  size_t count, audit_visit_fn *visit, void *context);

#endif
