/* SPDX-License-Identifier: Apache-2.0 */
/* fusefs_audit.c - what the audit needs of a mount: its parts, and what serves for other files */
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

/* Visit all that is served in place of other files. */
static errint_t visit_all(struct fusefs *fs, audit_pair_fn *visit, void *visitor)
{
	errint_t error = fs->catalogue ? visit_all_shared(fs, visit, visitor) : 0;

	return !error && fs->copies ? visit_objects(fs, visit, visitor) : error;
}

/* ---- the audit ---- */

struct audit_request {
	struct fusefs *fs;
	bool (*is_cancelled)(void *context);
	void *context;
};

static int open_source(void *context, dev_t device, ino_t number)
{
	const struct audit_request *request = context;

	return fusefs_open_source(request->fs, device, number);
}

static errint_t visit_pairs(void *context, audit_pair_fn *visit, void *visitor)
{
	const struct audit_request *request = context;

	return visit_all(request->fs, visit, visitor);
}

static void count_inodes(void *context, struct audit_inodes *ret_inodes)
{
	const struct audit_request *request = context;
	struct inode_count count;

	inode_table_recount(request->fs->inodes, &count);
	*ret_inodes = (struct audit_inodes){.live = count.live,
					    .live_said = count.live_said,
					    .hashed = count.hashed,
					    .hashed_said = count.hashed_said,
					    .astray = count.astray,
					    .slab = count.slab,
					    .slab_said = count.slab_said};
}

static bool is_cancelled(void *context)
{
	const struct audit_request *request = context;

	return request->is_cancelled(request->context);
}

errint_t fusefs_audit(struct fusefs *fs, bool idle, bool (*cancelled)(void *context), void *context,
		      struct audit_report *ret_report)
{
	struct audit_request request = {.fs = fs, .is_cancelled = cancelled, .context = context};
	const struct audit_subject subject = {.store = fs->store,
					      .memory = fs->map_memory,
					      .files = fs->files,
					      .families = fs->families,
					      .filler = &fs->filler,
					      .window = fs->window,
					      .source_fd = fs->source_fd,
					      .open_source = open_source,
					      .leases = fs->leases,
					      .visit_pairs = visit_pairs,
					      .count_inodes = count_inodes,
					      .is_cancelled = is_cancelled,
					      .context = &request};

	return audit_run(&subject, idle, ret_report);
}
