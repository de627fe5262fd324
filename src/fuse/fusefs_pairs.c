/* SPDX-License-Identifier: Apache-2.0 */
/* fusefs_pairs.c - for the audit: which files are served in place of others, and of which */
#include "fusefs_internal.h"

#include "foldfs/catalogue.h"
#include "foldfs/shared_copies.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void close_pair(const struct audit_pair *pair)
{
	if (pair->served >= 0)
		close(pair->served);
	if (pair->source >= 0)
		close(pair->source);
}

/* Visit the file that backs another one in shared passthrough. */
static errint_t visit_shared(struct fusefs *fs, const struct plan_shared *shared,
			     audit_pair_fn *visit, void *visitor)
{
	struct audit_pair pair = {
		.check = AUDIT_BACKING,
		.served = plan_open_backing(fs->plan, shared),
		.source = fusefs_open_source(fs, shared->stamp.device, shared->stamp.inode),
		.source_stamp = shared->stamp,
		.secret = catalogue_secret(fs->catalogue)};
	errint_t error = pair.served >= 0 && pair.source >= 0 ? visit(visitor, &pair) : 0;

	close_pair(&pair);
	return error;
}

static errint_t visit_all_shared(struct fusefs *fs, audit_pair_fn *visit, void *visitor)
{
	struct plan_shared *list;
	size_t count;
	errint_t error = plan_list_shared(fs->plan, &list, &count);

	if (error)
		return error;
	for (size_t i = 0; i < count && !error; i++)
		error = visit_shared(fs, &list[i], visit, visitor);
	free(list);
	return error;
}

static errint_t visit_objects(struct fusefs *fs, audit_pair_fn *visit, void *visitor)
{
	struct catalogue_object object = {.class = 0};
	errint_t error = 0;

	while (!error && !catalogue_next_object(fs->catalogue, object.class, &object)) {
		struct audit_pair pair = {.check = AUDIT_OBJECTS,
					  .served = shared_copies_open_copy(fs->copies, &object),
					  .content = &object.content,
					  .secret = catalogue_secret(fs->catalogue)};

		pair.source = plan_open_served(fs->plan, &object, &pair.source_stamp);
		/* A copy that is not as it was made is not served. */
		if (pair.served >= 0)
			error = visit(visitor, &pair);
		close_pair(&pair);
	}
	return error;
}

errint_t fusefs_visit_pairs(struct fusefs *fs, audit_pair_fn *visit, void *visitor)
{
	errint_t error = fs->catalogue ? visit_all_shared(fs, visit, visitor) : 0;

	return !error && fs->copies ? visit_objects(fs, visit, visitor) : error;
}
