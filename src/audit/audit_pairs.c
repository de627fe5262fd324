/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_pairs.c - audit: files that are served in place of others are compared with those
 *
 * The file that backs another one in shared passthrough is compared with that file's source. A kept
 * copy is compared with the digest of the content that it is a copy of, and with the source of one
 * file that it serves. The stamps of both must be the same before and after: nothing is reported of
 * what changes meanwhile. This check is to find a stamp that stays although bytes differ.
 */
#include "audit_internal.h"

#include "foldfs/content.h"
#include "foldfs/proc_fd.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static bool take_stamp(int fd, struct source_stamp *ret_stamp)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	source_stamp_of(&st, ret_stamp);
	return true;
}

static bool has_stamp(int fd, const struct source_stamp *stamp)
{
	struct source_stamp now;

	return take_stamp(fd, &now) && source_stamp_equal(&now, stamp);
}

/* Whether the source still has the stamp of the pair. There may be no source. */
static bool has_source(const struct audit_pair *pair)
{
	return pair->source < 0 || has_stamp(pair->source, &pair->source_stamp);
}

static bool is_cancelled(void *context)
{
	return audit_is_cancelled(context);
}

/* Compare the bytes of PAIR, whose served file has STAMP. -EUCLEAN: the bytes are wrong. */
static errint_t compare(struct audit *audit, const struct audit_pair *pair,
			const struct source_stamp *stamp)
{
	struct digest content;
	errint_t error = content_compare(pair->served, pair->source, (uint64_t)stamp->size,
					 pair->secret, is_cancelled, audit, &content);

	if (!error && pair->source >= 0 && pair->source_stamp.size != stamp->size)
		error = -EUCLEAN;
	if (!error && pair->content &&
	    (content.low != pair->content->low || content.high != pair->content->high))
		error = -EUCLEAN;
	return error;
}

static errint_t visit(void *context, const struct audit_pair *pair)
{
	struct audit *audit = context;
	struct source_stamp stamp;
	char path[128];
	errint_t error;

	if (!take_stamp(pair->served, &stamp) || !has_source(pair))
		return 0;
	error = compare(audit, pair, &stamp);
	if (error == -ENOMEM || error == -ECANCELED)
		return error;
	if ((error && error != -EUCLEAN) || !has_stamp(pair->served, &stamp) || !has_source(pair))
		return 0;
	audit->report->lines[pair->check].checked++;
	if (!error)
		return 0;
	(void)proc_fd_name(pair->source < 0 ? pair->served : pair->source, path, sizeof(path));
	audit_found(audit, pair->check,
		    "%s: its content differs from that of the file that is served for it", path);
	return 0;
}

errint_t audit_pairs(struct audit *audit)
{
	const struct audit_subject *subject = audit->subject;

	return subject->visit_pairs ? subject->visit_pairs(subject->context, visit, audit) : 0;
}
