/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.c - compares a live mount with its source and with itself: the sequence of an audit, and
 * sums
 *
 * The inside of a module stays its own: page_map, page_store, hash_index, file, family, window and
 * inode report what they hold, through walkers that change nothing. This file only compares.
 */
#include "audit_internal.h"

#include "foldfs/kin_file.h"

#include <stdlib.h>
#include <string.h>

uint64_t audit_differences(const struct audit_report *report)
{
	uint64_t differences = 0;

	for (unsigned check = 0; check < AUDIT_COUNT; check++)
		differences += report->lines[check].different;
	return differences;
}

/* ---- maps, files, window, inodes ---- */

/* One kind of memory: its bytes, and the number of things in it. */
struct amount {
	uint64_t bytes;
	uint64_t count;
};

/* Add the memory and the zero pages of the map of FILE. */
static void count_map(void *context, struct file *file)
{
	struct amount *amount = context;
	struct page_stretch stretches[64];
	struct page_walk walk = {.end = PAGE_WALK_ALL};
	unsigned count;
	unsigned i;

	while (walk.next < walk.end) {
		count = page_map_walk(file_map(file), &walk, 64, stretches);
		for (i = 0; i < count; i++)
			if (stretches[i].kind == STRETCH_ZERO)
				amount->count += stretches[i].pages;
	}
	amount->bytes += walk.bytes;
}

static int take_map_sums(struct audit *audit, struct audit_sum sums[])
{
	const struct audit_subject *subject = audit->subject;
	struct amount maps = {.bytes = 0};
	errint_t error;

	page_map_memory_settle(subject->memory);
	error = audit_each_file(audit, count_map, &maps);
	if (error)
		return error;
	sums[0] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "bytes of maps",
				     .counted = maps.bytes,
				     .said = page_map_memory_in_use(subject->memory)};
	sums[1] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "zero pages",
				     .counted = maps.count,
				     .said = page_map_memory_zero_pages(subject->memory)};
	sums[2] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "bytes of files",
				     .counted = file_table_count_bytes(subject->files),
				     .said = file_table_bytes(subject->files)};
	return 3;
}

static void count_kin(void *context, struct file *file)
{
	struct amount *amount = context;
	struct kin *kin = kin_of(file);

	if (!kin)
		return;
	for (unsigned n = 0; n < KIN_FAMILIES; n++)
		amount->count += kin_family(kin, n) != NULL;
	amount->bytes += kin_bytes(kin);
	kin_put(kin);
}

static int take_family_sums(struct audit *audit, struct audit_sum sums[])
{
	const struct audit_subject *subject = audit->subject;
	struct family_count count;
	struct amount kins = {.bytes = 0};
	errint_t error = audit_each_file(audit, count_kin, &kins);
	bool at_work;

	if (error)
		return error;
	family_table_recount(subject->families, &count);
	/* A read may hold a kin that its file has lost meanwhile, and a claim. */
	at_work = atomic_load_explicit(&subject->filler->at_work, memory_order_relaxed);
	sums[0] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "references to families",
				     .counted = kins.count,
				     .said = count.references,
				     .busy = at_work};
	sums[1] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "bytes of families",
				     .counted = kins.bytes + count.bytes,
				     .said = family_table_in_use(subject->families),
				     .busy = at_work};
	sums[2] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "claims without a reader",
				     .counted = count.claims,
				     .busy = at_work};
	return 3;
}

static int take_window_sums(struct audit *audit, struct audit_sum sums[])
{
	struct window_count count;

	window_count(audit->subject->window, &count);
	sums[0] = (struct audit_sum){.check = AUDIT_WINDOW,
				     .what = "pages noted in the window",
				     .counted = count.pages,
				     .said = count.pages_said,
				     .busy = count.trimming};
	sums[1] = (struct audit_sum){.check = AUDIT_WINDOW,
				     .what = "pages on their way out of the window",
				     .counted = count.closing,
				     .said = count.closing_said,
				     .busy = count.trimming};
	sums[2] = (struct audit_sum){.check = AUDIT_WINDOW,
				     .what = "regions of the window in the wrong list",
				     .counted = count.misplaced};
	/* The window exceeds its budget only until the trimmer notices. */
	sums[3] = (struct audit_sum){.check = AUDIT_WINDOW,
				     .what = "pages in the window beyond its budget",
				     .counted = count.trims && count.pages_said > count.budget
							? count.pages_said - count.budget
							: 0,
				     .busy = count.trimming || count.closing_said};
	sums[4] = (struct audit_sum){.check = AUDIT_WINDOW,
				     .what = "bytes of the window",
				     .counted = count.memory,
				     .said = count.memory_said};
	return 5;
}

static int take_inode_sums(struct audit *audit, struct audit_sum sums[])
{
	struct audit_inodes count;

	audit->subject->count_inodes(audit->subject->context, &count);
	sums[0] = (struct audit_sum){.check = AUDIT_INODES,
				     .what = "inodes",
				     .counted = count.live,
				     .said = count.live_said};
	sums[1] = (struct audit_sum){.check = AUDIT_INODES,
				     .what = "inodes that are found by number",
				     .counted = count.hashed,
				     .said = count.hashed_said};
	sums[2] = (struct audit_sum){
		.check = AUDIT_INODES, .what = "inodes in a wrong place", .counted = count.astray};
	sums[3] = (struct audit_sum){.check = AUDIT_INODES,
				     .what = "bytes of inodes",
				     .counted = count.slab,
				     .said = count.slab_said};
	return 4;
}

/* ---- the course of it ---- */

errint_t audit_run(const struct audit_subject *subject, bool idle, struct audit_report *ret_report)
{
	struct audit audit = {.subject = subject, .report = ret_report, .idle = idle};
	errint_t error;

	memset(ret_report, 0, sizeof(*ret_report));
	error = audit_content(&audit);
	if (!error)
		error = audit_pairs(&audit);
	if (!error)
		error = audit_pool(&audit);
	if (!error)
		error = audit_sums(&audit, audit_pool_sums);
	if (!error)
		error = audit_sums(&audit, take_map_sums);
	if (!error && subject->families)
		error = audit_sums(&audit, take_family_sums);
	if (!error && subject->window)
		error = audit_sums(&audit, take_window_sums);
	if (!error && subject->count_inodes)
		error = audit_sums(&audit, take_inode_sums);
	free(audit.keys);
	return error;
}
