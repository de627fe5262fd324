/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_family.c - the fourth step: files that have many pages in common
 *
 * Sketches tell which files to compare. The sketch of a large file is the smallest of the digests
 * of its pages, combined with the pages' numbers. If two files have some share of their pages in
 * common at the same places, their sketches have about that share in common ("On the resemblance
 * and containment of documents", Broder 1997).
 *
 * Files are gone through in the catalogue's order, first those that have a family. A file that is
 * like none before it becomes a leader: others are compared with it. So each file is compared once,
 * with the leader that it is most like. What it has in common with other files of that family, it
 * has through the leader. If a file turns out to have next to nothing in common with its leader, it
 * founds a family of its own, and is not compared again.
 *
 * A file's leader may speak for the file (writers.h). So what a member has of its family it has by
 * the word of trusted files and of files of its own writers: this holds for its leader, and what
 * the two have in common was compared. Trusted files are gone through first, because they lead the
 * others. In the table, a sketch's values are kept apart for each kind of writers: so nobody's file
 * can hide from other files the leader that they would have.
 *
 * Memory: half a scan's budget is for sketches of leaders (1.5 KiB each) and for 32 bytes for each
 * file. What does not fit is not compared in this scan. A quarter is for the runs that are being
 * found (compare_pages.c).
 */
#include "scan_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Two files are compared if their sketches have this many values in common: a sixteenth. */
#define ALIKE 4u
/* Two files are of one family if they have this many pages in common at the same places. */
#define COMMON_LEAST 16u

struct leader {
	dev_t device;
	ino_t inode;
};

/* A place of the table: VALUE is in the sketch of this leader. */
struct value_of {
	uint64_t value;  /* as value_among() makes it */
	uint32_t leader; /* the leader's number plus one; 0: empty */
};

struct nomination {
	struct scan *scan;
	uint64_t budget; /* bytes */
	uint64_t bytes;
	struct value_of *table; /* open addressing; a power of two of places */
	size_t places;
	size_t used;
	struct leader *leaders;
	size_t leader_count;
};

/* ---- sketches ---- */

/* -ENOENT: the catalogue has no sketch of the file. */
static errint_t load_sketch(struct scan *scan, const struct source_stamp *stamp,
			    struct scan_sketch *ret_sketch)
{
	uint64_t *values;
	size_t count;
	errint_t error = catalogue_digests(scan->options.catalogue, stamp, CATALOGUE_SKETCH,
					   &values, &count);

	if (error)
		return error;
	ret_sketch->count = count < SCAN_SKETCH ? (unsigned)count : SCAN_SKETCH;
	memcpy(ret_sketch->values, values, ret_sketch->count * sizeof(*values));
	free(values);
	return 0;
}

/* ---- leaders ---- */

/* VALUE as the table holds it for leaders of WRITERS. */
static uint64_t value_among(uint64_t writers, uint64_t value)
{
	return value ^ writers * UINT64_C(0xff51afd7ed558ccd);
}

/* The place of VALUE, or the empty one where it would be. */
static struct value_of *place_of(const struct nomination *n, uint64_t value)
{
	size_t at = (size_t)(value * UINT64_C(11400714819323198485) >> 20);

	for (;; at++) {
		struct value_of *place = &n->table[at & (n->places - 1)];

		if (!place->leader || place->value == value)
			return place;
	}
}

static errint_t grow_table(struct nomination *n)
{
	struct value_of *old = n->table;
	size_t count = n->places;
	size_t places = count ? 2 * count : 1024;

	if (n->bytes + (places - count) * sizeof(*old) > n->budget)
		return -ENOSPC;
	n->table = calloc(places, sizeof(*old));
	if (!n->table) {
		n->table = old;
		return -ENOMEM;
	}
	n->places = places;
	n->bytes += (places - count) * sizeof(*old);
	for (size_t i = 0; i < count; i++)
		if (old[i].leader)
			*place_of(n, old[i].value) = old[i];
	free(old);
	return 0;
}

/* Make the file, which is of WRITERS, a leader. -ENOSPC: there is no more room for leaders. */
static errint_t lead(struct nomination *n, const struct source_stamp *stamp, uint64_t writers,
		     const struct scan_sketch *sketch)
{
	struct leader *leaders;
	errint_t error = 0;

	while (!error && (n->used + sketch->count) * 2 > n->places)
		error = grow_table(n);
	if (error)
		return error;
	leaders = realloc(n->leaders, (n->leader_count + 1) * sizeof(*leaders));
	if (!leaders)
		return -ENOMEM;
	n->leaders = leaders;
	n->bytes += sizeof(*leaders);
	n->leaders[n->leader_count++] =
		(struct leader){.device = stamp->device, .inode = stamp->inode};
	for (unsigned i = 0; i < sketch->count; i++) {
		uint64_t value = value_among(writers, sketch->values[i]);
		struct value_of *place = place_of(n, value);

		/* An earlier leader keeps its value. */
		if (place->leader)
			continue;
		*place = (struct value_of){.value = value, .leader = (uint32_t)n->leader_count};
		n->used++;
	}
	return 0;
}

/* The leaders that have values in common with a sketch, and how many. */
struct alike {
	uint32_t leaders[2 * SCAN_SKETCH];
	unsigned common[2 * SCAN_SKETCH];
	unsigned count;
	unsigned best; /* index of the one that has the most */
};

static void add_alike(struct alike *alike, uint32_t leader)
{
	unsigned at = 0;

	while (at < alike->count && alike->leaders[at] != leader)
		at++;
	if (at == alike->count) {
		alike->leaders[at] = leader;
		alike->common[at] = 0;
		alike->count++;
	}
	alike->common[at]++;
	if (alike->common[at] > alike->common[alike->best])
		alike->best = at;
}

static void add_leaders(const struct nomination *n, uint64_t writers,
			const struct scan_sketch *sketch, struct alike *alike)
{
	for (unsigned i = 0; n->places && i < sketch->count; i++) {
		uint32_t leader = place_of(n, value_among(writers, sketch->values[i]))->leader;

		if (leader)
			add_alike(alike, leader);
	}
}

/* The leader that SKETCH is most like, among those that may speak for WRITERS. NULL: there is
 * none. */
static const struct leader *find_leader(const struct nomination *n, uint64_t writers,
					const struct scan_sketch *sketch)
{
	struct alike alike = {.count = 0};

	add_leaders(n, WRITERS_TRUSTED, sketch, &alike);
	if (writers != WRITERS_TRUSTED && writers_may_speak(writers, writers))
		add_leaders(n, writers, sketch, &alike);
	return alike.count && alike.common[alike.best] >= ALIKE
		       ? &n->leaders[alike.leaders[alike.best] - 1]
		       : NULL;
}

/* ---- nominating ---- */

static errint_t add_kin(struct nomination *n, const struct source_stamp *stamp,
			const struct leader *of)
{
	struct scan *scan = n->scan;
	struct scan_kin *list;

	if ((scan->kin_count & (scan->kin_count - 1)) == 0) {
		list = realloc(scan->kin,
			       (scan->kin_count ? scan->kin_count * 2 : 1) * sizeof(*list));
		if (!list)
			return -ENOMEM;
		scan->kin = list;
	}
	n->bytes += sizeof(*list);
	scan->kin[scan->kin_count++] = (struct scan_kin){
		.file = {.device = stamp->device, .inode = stamp->inode},
		.of = {.device = of->device, .inode = of->inode},
	};
	return 0;
}

static bool has_family(struct scan *scan, const struct source_stamp *stamp)
{
	struct catalogue_run *runs;
	uint64_t family;
	size_t count;

	if (catalogue_runs(scan->options.catalogue, stamp, &family, &runs, &count))
		return false;
	free(runs);
	return true;
}

/* Whether the file is large, and a twentieth of its pages or more are found elsewhere. */
static bool is_worth_it(const struct catalogue_record *record)
{
	return record->pages >= SCAN_FAMILY_PAGES && record->pages_elsewhere * 20 >= record->pages;
}

/* KNOWN: the file has a family, and need not be compared. */
static errint_t nominate_one(struct nomination *n, const struct source_stamp *stamp,
			     uint64_t writers, bool known)
{
	const struct leader *leader;
	struct scan_sketch sketch;
	errint_t error = load_sketch(n->scan, stamp, &sketch);

	if (error)
		return error == -ENOENT ? 0 : error;
	leader = find_leader(n, writers, &sketch);
	if (leader)
		return known ? 0 : add_kin(n, stamp, leader);
	/* Such a file could lead no other. */
	if (!writers_may_speak(writers, writers))
		return 0;
	error = lead(n, stamp, writers, &sketch);
	return error == -ENOSPC ? 0 : error;
}

/* Nominate all files for which "is trusted" equals TRUSTED and "has a family" equals HAVING. */
static errint_t nominate(struct nomination *n, bool trusted, bool having)
{
	struct scan *scan = n->scan;
	struct catalogue_member *file = malloc(sizeof(*file));
	struct catalogue_record record;
	struct source_stamp last;
	errint_t error = file ? 0 : -ENOMEM;

	if (!error)
		error = catalogue_next(scan->options.catalogue, NULL, file, &record);
	while (!error && !scan_is_cancelled(scan) && n->bytes < n->budget) {
		last = file->stamp;
		if (is_worth_it(&record) && (record.writers == WRITERS_TRUSTED) == trusted &&
		    has_family(scan, &file->stamp) == having)
			error = nominate_one(n, &file->stamp, record.writers, having);
		scan_tell_progress(scan);
		if (!error)
			error = catalogue_next(scan->options.catalogue, &last, file, &record);
	}
	free(file);
	return error == -ENOENT ? 0 : error;
}

errint_t scan_nominate_kin(struct scan *scan)
{
	struct nomination n = {.scan = scan, .budget = scan->options.memory / 2};
	errint_t error = 0;

	for (unsigned round = 0; round < 4 && !error; round++)
		error = nominate(&n, round < 2, round % 2 == 0);
	free(n.table);
	free(n.leaders);
	return error;
}

/* ---- comparing ---- */

/* Report RUNS of FILE and OF. Takes over RUNS. */
static errint_t tell(struct scan *scan, const struct scan_twin *file, const struct scan_twin *of,
		     struct scan_runs *runs)
{
	struct scan_note *note = scan_note_new(SCAN_NOTE_RUNS);

	if (note)
		note->stamps = malloc(sizeof(*note->stamps));
	if (!note || !note->stamps) {
		scan_note_free(note);
		free(runs->list);
		return -ENOMEM;
	}
	note->stamp = file->file.stamp;
	note->stamps[0] = of->file.stamp;
	note->runs = runs->list;
	note->count = runs->count;
	note->pages = runs->data_pages;
	scan_note_push(scan, note);
	return 0;
}

static errint_t compare(struct scan *scan, struct scan_twin *file, struct scan_twin *of,
			uint8_t *buffers)
{
	struct scan_runs runs = {0};
	errint_t error;

	if (file->record.class && file->record.class == of->record.class) {
		/* They were compared as a whole already. */
		runs.list = malloc(sizeof(*runs.list));
		if (!runs.list)
			return -ENOMEM;
		runs.list[0] = (struct catalogue_run){
			.pages = fold_pages_in(0, (uint64_t)file->file.stamp.size)};
		runs.count = 1;
		runs.data_pages = file->record.pages;
		return tell(scan, file, of, &runs);
	}
	error = scan_compare_pages(scan, file, of, buffers, &runs);
	if (error || file->unfit || of->unfit) {
		free(runs.list);
		return error;
	}
	if (runs.data_pages >= COMMON_LEAST)
		return tell(scan, file, of, &runs);
	runs.data_pages = 0;
	return tell(scan, file, file, &runs);
}

static errint_t compare_kin(struct scan *scan, const struct scan_kin *kin, uint8_t *buffers)
{
	struct scan_twin *of = NULL;
	struct scan_twin *file;
	errint_t error;

	error = scan_twin_load(scan, kin->file.device, kin->file.inode, &file);
	if (file)
		error = scan_twin_load(scan, kin->of.device, kin->of.inode, &of);
	if (of)
		error = compare(scan, file, of, buffers);
	free(file);
	free(of);
	atomic_fetch_add_explicit(&scan->done_files, 1, memory_order_relaxed);
	return error;
}

void *scan_kin_thread(void *arg)
{
	struct scan *scan = arg;
	uint8_t *buffers;
	size_t next;
	errint_t error = 0;

	scan_lower_priority();
	buffers = aligned_alloc(FOLD_PAGE_SIZE, (size_t)2 * SCAN_CHUNK);
	if (!buffers)
		error = -ENOMEM;
	while (!error && !scan_is_cancelled(scan)) {
		next = atomic_fetch_add(&scan->kin_next, 1);
		if (next >= scan->kin_count)
			break;
		error = compare_kin(scan, &scan->kin[next], buffers);
	}
	if (error)
		scan_note_failure(scan, error);
	free(buffers);
	scan_worker_end(scan);
	return NULL;
}
