/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_content.c - audit: slots, and what might become one, against the bytes of the source
 *
 * Pages are compared a chunk at a time, under the file's range lock, so the daemon itself does not
 * change them, neither in the source nor in their slots. The source is read first. Then the slots
 * are looked at and their bytes compared, within one RCU read side. A fill may publish meanwhile,
 * and an eviction may take a frame away; neither changes the content of a resident page.
 *
 * Nothing keeps others from changing the source behind the mount. So a page that differs counts as
 * a difference under two conditions only: the file matched its stamp both before and after the
 * look, and nothing of ours was under way. Otherwise the look is repeated, in the end with the
 * whole file locked.
 *
 * Holes are not read: the source's file system tells where data begins.
 *
 * What a file's kin (kin.h) would let the file adopt at this moment is compared in the same way:
 * frames that its family remembers for pages that the kin has, except those that are in its slots
 * anyway.
 */
#include "audit_internal.h"

#include "foldfs/kin_file.h"
#include "foldfs/proc_fd.h"
#include "foldfs/rcu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Pages of one look: 1 MiB. A writer waits for it, as for a large write of another client. */
#define CHUNK 256u
/* Non-resident pages between two resident ones that are read along, to save a call. */
#define GAP 16u
/* For stretches of zeroes of at least this many pages, the source is asked for holes. */
#define HOLE_PAGES 64u
/* Looks at a chunk that keeps being changed, before the audit gives up on it. */
#define LOOKS       8u
#define LOOKS_ALONE 2u /* from here on with the whole file locked */

/* A file that is compared. */
struct subject_file {
	struct audit *audit;
	struct file *file;
	struct source *source;
	struct kin *kin;       /* if set, the pages of this kin are compared; NULL: the slots are */
	struct family *family; /* of KIN: remembers frames for these pages */
	char path[128];        /* for texts */
	uint8_t *buffer;
	bool changed;    /* behind the mount: is not compared any further */
	bool unreadable; /* in part */
};

/* One look at the pages FIRST..FIRST + CHUNK - 1. */
struct look {
	uint64_t first;
	bool have[CHUNK];  /* read from the source */
	unsigned pages;    /* compared, with frames */
	unsigned zeroes;   /* compared, known as zero */
	unsigned wrong;    /* of both */
	uint64_t wrong_at; /* the first page that differs */
	bool settled;      /* the file matched its stamp before and after */
};

struct content {
	struct audit *audit;
	uint8_t *buffer;
	struct file_key *left; /* files whose source has to be searched for */
	size_t count;
	size_t room;
	size_t found; /* how many of these were found */
};

/* ---- one look ---- */

static unsigned walk_slots(struct subject_file *subject, uint64_t first,
			   struct page_stretch stretches[])
{
	struct page_walk walk = {.next = first, .end = first + CHUNK};
	unsigned count = 0;

	while (walk.next < walk.end && count < CHUNK)
		count += page_map_walk(file_map(subject->file), &walk, CHUNK - count,
				       stretches + count);
	return count;
}

/* Whether one of the COUNT stretches has REF in PAGE's slot. */
static bool is_slot(const struct page_stretch stretches[], unsigned count, uint64_t page,
		    struct frame_ref ref)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (stretches[i].kind != STRETCH_ZERO && stretches[i].first <= page &&
		    page - stretches[i].first < stretches[i].pages)
			return stretches[i].ref.frame + (page - stretches[i].first) == ref.frame &&
			       stretches[i].ref.generation == ref.generation;
	return false;
}

/* The pages that the file may adopt. */
static unsigned walk_kin(struct subject_file *subject, uint64_t first,
			 struct page_stretch stretches[])
{
	struct page_stretch slots[CHUNK];
	unsigned slot_count = walk_slots(subject, first, slots);
	struct frame_ref ref;
	unsigned count = 0;
	uint64_t page;

	fold_rcu_read_lock();
	if (file_kin(subject->file) == subject->kin)
		for (page = first; page < first + CHUNK; page++)
			if (kin_has(subject->kin, page) &&
			    family_recall(subject->family, page, &ref) &&
			    !is_slot(slots, slot_count, page, ref))
				stretches[count++] = (struct page_stretch){.first = page,
									   .pages = 1,
									   .kind = STRETCH_SHARED,
									   .ref = ref};
	fold_rcu_read_unlock();
	return count;
}

static unsigned walk_chunk(struct subject_file *subject, uint64_t first,
			   struct page_stretch stretches[])
{
	return subject->kin ? walk_kin(subject, first, stretches)
			    : walk_slots(subject, first, stretches);
}

/* Read pages FROM..TO of the chunk; behind the end of the file they are zero. */
static void read_pages(struct subject_file *subject, struct look *look, unsigned from, unsigned to)
{
	size_t length = (size_t)(to - from) << FOLD_PAGE_SHIFT;
	uint8_t *into = subject->buffer + ((size_t)from << FOLD_PAGE_SHIFT);
	uint64_t offset = (look->first + from) << FOLD_PAGE_SHIFT;
	struct iovec iov;
	size_t got = 0;
	ssize_t part = 1;

	while (got < length && part > 0 && offset + got < INT64_MAX) {
		iov = (struct iovec){.iov_base = into + got, .iov_len = length - got};
		if (iov.iov_len > INT64_MAX - offset - got)
			iov.iov_len = (size_t)(INT64_MAX - offset - got);
		part = source_read(subject->source, &iov, 1, (off_t)(offset + got));
		if (part > 0)
			got += (size_t)part;
	}
	source_drop_cache_if_due(subject->source);
	if (part < 0) {
		subject->unreadable = true;
		to = from + (unsigned)(got >> FOLD_PAGE_SHIFT);
	} else {
		memset(into + got, 0, length - got);
	}
	for (; from < to; from++)
		look->have[from] = true;
}

/* Read the resident pages of the chunk; neighbours and near neighbours in one call. */
static void read_resident(struct subject_file *subject, struct look *look)
{
	struct page_stretch stretches[CHUNK];
	unsigned count = walk_chunk(subject, look->first, stretches);
	unsigned from;
	unsigned to;
	unsigned i;
	unsigned next;

	for (i = 0; i < count; i = next) {
		from = (unsigned)(stretches[i].first - look->first);
		to = from + (unsigned)stretches[i].pages;
		for (next = i + 1; next < count && stretches[next].first - look->first - to < GAP;
		     next++)
			to = (unsigned)(stretches[next].first - look->first +
					stretches[next].pages);
		read_pages(subject, look, from, to);
	}
}

/* The bytes of page I of STRETCH; NULL: there are none. Read side. */
static const void *bytes_of(const struct subject_file *subject, const struct page_stretch *stretch,
			    uint64_t i)
{
	struct frame_ref ref = stretch->ref;

	if (stretch->kind == STRETCH_ZERO)
		return fold_zero_page;
	ref.frame += (uint32_t)i;
	return page_store_peek(subject->audit->subject->store, ref);
}

static void compare_stretch(struct subject_file *subject, struct look *look,
			    const struct page_stretch *stretch)
{
	uint64_t i;

	for (i = 0; i < stretch->pages; i++) {
		unsigned at = (unsigned)(stretch->first + i - look->first);
		const void *bytes = bytes_of(subject, stretch, i);

		if (!bytes || !look->have[at])
			continue;
		if (stretch->kind == STRETCH_ZERO)
			look->zeroes++;
		else
			look->pages++;
		if (!memcmp(bytes, subject->buffer + ((size_t)at << FOLD_PAGE_SHIFT),
			    FOLD_PAGE_SIZE))
			continue;
		if (!look->wrong++)
			look->wrong_at = stretch->first + i;
	}
}

static void compare_resident(struct subject_file *subject, struct look *look)
{
	struct page_stretch stretches[CHUNK];
	unsigned count;
	unsigned i;

	fold_rcu_read_lock();
	count = walk_chunk(subject, look->first, stretches);
	for (i = 0; i < count; i++)
		compare_stretch(subject, look, &stretches[i]);
	fold_rcu_read_unlock();
}

/* Whether the file matches its stamp and nothing of ours is under way. A file that will never match
 * again is marked as changed, and is not compared any further. */
static bool is_true(struct subject_file *subject, bool *ret_size_known)
{
	enum file_truth truth;

	if (file_judge(subject->file, source_fd(subject->source), &truth, ret_size_known)) {
		subject->unreadable = true;
		subject->changed = true;
		return false;
	}
	if (truth == FILE_CHANGED_BEHIND || truth == FILE_IS_DOUBTFUL)
		subject->changed = true;
	return truth == FILE_IS_TRUE;
}

/* Look at the chunk from FIRST on; ALONE: with the whole file locked. */
static void take_look(struct subject_file *subject, uint64_t first, bool alone,
		      struct look *ret_look)
{
	struct range_hold hold;
	bool size_known;

	memset(ret_look, 0, sizeof(*ret_look));
	ret_look->first = first;
	range_lock_lock(file_range_lock(subject->file), &hold, alone ? 0 : first,
			alone ? UINT64_MAX : first + CHUNK - 1);
	ret_look->settled = is_true(subject, &size_known);
	if (!subject->changed) {
		read_resident(subject, ret_look);
		compare_resident(subject, ret_look);
		ret_look->settled = is_true(subject, &size_known) && ret_look->settled;
	}
	range_lock_unlock(file_range_lock(subject->file), &hold);
}

/* Compare the chunk from FIRST on, with as many looks as needed. */
static errint_t compare_chunk(struct subject_file *subject, uint64_t first)
{
	struct audit *audit = subject->audit;
	struct audit_line *lines = audit->report->lines;
	enum audit_check check = subject->kin ? AUDIT_FAMILIES : AUDIT_SLOTS;
	struct look look;
	unsigned looks;
	errint_t error = 0;

	take_look(subject, first, false, &look);
	for (looks = 1; look.wrong && !look.settled && !subject->changed && looks < LOOKS;
	     looks++) {
		error = audit_settle(audit, looks);
		if (error)
			return error;
		take_look(subject, first, looks >= LOOKS_ALONE, &look);
	}
	if (subject->changed)
		return 0;
	lines[check].checked += look.pages;
	lines[AUDIT_ZEROES].checked += look.zeroes;
	if (!look.wrong)
		return 0;
	if (!look.pages)
		check = AUDIT_ZEROES;
	if (!look.settled && !audit->idle) {
		lines[check].unsteady++;
		return 0;
	}
	audit_found(audit, check,
		    "%s: page %llu differs from the source (%u of %u pages compared do)",
		    subject->path, (unsigned long long)look.wrong_at, look.wrong,
		    look.pages + look.zeroes);
	return 0;
}

/* ---- one file ---- */

/* How many pages from FIRST on are in a hole of the source, COUNT at most. 0 if it cannot tell. */
static uint64_t hole_pages(struct subject_file *subject, uint64_t first, uint64_t count)
{
	struct range_hold hold;
	uint64_t pages = 0;
	off_t data;

	if (first >= (uint64_t)INT64_MAX >> FOLD_PAGE_SHIFT)
		return count;
	range_lock_lock(file_range_lock(subject->file), &hold, first, first + count - 1);
	data = lseek(source_fd(subject->source), (off_t)(first << FOLD_PAGE_SHIFT), SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		pages = count;
	else if (data >= 0)
		pages = ((uint64_t)data >> FOLD_PAGE_SHIFT) - first;
	range_lock_unlock(file_range_lock(subject->file), &hold);
	return pages < count ? pages : count;
}

static errint_t compare_stretches(struct subject_file *subject)
{
	struct page_walk walk = {.end = PAGE_WALK_ALL};
	struct page_stretch stretch;
	uint64_t hole;
	errint_t error = 0;

	while (!error && !subject->changed && walk.next < walk.end) {
		if (audit_is_cancelled(subject->audit))
			return -ECANCELED;
		if (!page_map_walk(file_map(subject->file), &walk, 1, &stretch))
			continue;
		hole = 0;
		if (stretch.kind == STRETCH_ZERO && stretch.pages >= HOLE_PAGES)
			hole = hole_pages(subject, stretch.first, stretch.pages);
		subject->audit->report->lines[AUDIT_ZEROES].checked += hole;
		walk.next = stretch.first + hole;
		if (hole)
			continue;
		error = compare_chunk(subject, stretch.first);
		walk.next = stretch.first + CHUNK;
	}
	return error;
}

/* The first page, from PAGE on, that the file may adopt. UINT64_MAX: there is none. */
static uint64_t next_of_kin(const struct subject_file *subject, uint64_t page)
{
	uint64_t has;

	for (;;) {
		has = kin_next(subject->kin, page);
		page = has == UINT64_MAX ? has : family_next(subject->family, has);
		if (page == has)
			return page;
	}
}

static errint_t compare_family(struct subject_file *subject)
{
	uint64_t page = 0;
	errint_t error = 0;

	while (!error && !subject->changed) {
		fold_rcu_read_lock();
		page = next_of_kin(subject, page);
		fold_rcu_read_unlock();
		if (page == UINT64_MAX)
			break;
		error = audit_is_cancelled(subject->audit) ? -ECANCELED
							   : compare_chunk(subject, page);
		page += CHUNK;
	}
	return error;
}

static errint_t compare_kin(struct subject_file *subject)
{
	errint_t error = 0;

	subject->kin = kin_of(subject->file);
	if (!subject->kin)
		return 0;
	/* The file adopts nothing through a spoilt kin any more. */
	if (kin_is_spoilt(subject->kin, source_fd(subject->source))) {
		kin_put(subject->kin);
		return 0;
	}
	for (unsigned n = 0; n < KIN_FAMILIES && !error; n++) {
		subject->family = kin_family(subject->kin, n);
		if (subject->family)
			error = compare_family(subject);
	}
	kin_put(subject->kin);
	return error;
}

/* Compare the known size with the source's; the range lock keeps our own changes out. */
static void compare_size(struct subject_file *subject)
{
	struct range_hold hold;
	bool size_known = true;
	bool settled;

	range_lock_lock(file_range_lock(subject->file), &hold, 0, UINT64_MAX);
	settled = is_true(subject, &size_known);
	range_lock_unlock(file_range_lock(subject->file), &hold);
	/* A change of attributes may be under way, which takes no range: then nothing is
	 * reported. */
	if (!settled)
		return;
	subject->audit->report->lines[AUDIT_SIZES].checked++;
	if (!size_known)
		audit_found(subject->audit, AUDIT_SIZES, "%s: its size is not %llu bytes",
			    subject->path, (unsigned long long)file_size(subject->file));
}

/* Compare FILE with its source, which is open as FD. Takes over FD. */
static errint_t compare_file(struct content *content, struct file *file, int fd)
{
	struct audit_report *report = content->audit->report;
	struct subject_file subject = {
		.audit = content->audit, .file = file, .buffer = content->buffer};
	errint_t error = source_new(fd, &subject.source);

	if (error)
		return error;
	(void)proc_fd_name(fd, subject.path, sizeof(subject.path));
	compare_size(&subject);
	error = compare_stretches(&subject);
	if (!error)
		error = compare_kin(&subject);
	report->files_changed += subject.changed && !subject.unreadable;
	report->files_unreadable += subject.unreadable;
	source_put(subject.source);
	return error;
}

/* ---- all files ---- */

static errint_t search_later(struct content *content, const struct file_key *key)
{
	if (content->count == content->room) {
		size_t room = content->room ? 2 * content->room : 64;
		struct file_key *left = realloc(content->left, room * sizeof(*left));

		if (!left)
			return -ENOMEM;
		content->left = left;
		content->room = room;
	}
	content->left[content->count++] = *key;
	return 0;
}

static errint_t compare_found(void *context, size_t index, int fd)
{
	struct content *content = context;
	struct file *file = file_table_peek(content->audit->subject->files, &content->left[index]);
	errint_t error;

	content->found++;
	if (!file) {
		close(fd);
		return 0;
	}
	error = compare_file(content, file, fd);
	file_put(file);
	return error;
}

static errint_t compare_key(struct content *content, const struct file_key *key)
{
	const struct audit_subject *subject = content->audit->subject;
	struct file *file = file_table_peek(subject->files, key);
	errint_t error;
	int fd = -ENOENT;

	if (!file)
		return 0;
	content->audit->report->files++;
	if (subject->open_source)
		fd = subject->open_source(subject->context, key->device, key->inode);
	if (fd >= 0)
		error = compare_file(content, file, fd);
	else
		error = search_later(content, key);
	file_put(file);
	return error;
}

static errint_t compare_all(struct content *content)
{
	struct audit *audit = content->audit;
	errint_t error = audit_take_keys(audit);
	size_t i;

	for (i = 0; !error && i < audit->key_count; i++)
		error = audit_is_cancelled(audit) ? -ECANCELED
						  : compare_key(content, &audit->keys[i]);
	if (!error && content->count)
		error = audit_tree_visit(audit->subject, content->left, content->count,
					 compare_found, content);
	audit->report->files_unreachable = content->count - content->found;
	return error;
}

errint_t audit_content(struct audit *audit)
{
	struct content content = {.audit = audit};
	errint_t error = -ENOMEM;

	content.buffer = aligned_alloc(FOLD_PAGE_SIZE, CHUNK << FOLD_PAGE_SHIFT);
	if (content.buffer)
		error = compare_all(&content);
	audit_took_memory(audit, (CHUNK << FOLD_PAGE_SHIFT) + content.room * sizeof(*content.left) +
					 audit->key_count * sizeof(*audit->keys));
	free(content.left);
	free(content.buffer);
	return error;
}
