/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare_pages.c - in which pages two files are equal, at the same places
 *
 * The promise and the rules are those of compare_files.c, page by page. A page is equal in one of
 * three cases:
 * - It is in a hole of both files.
 * - Both files have it in the same physical place (rule D), so reflink clones need not be read.
 * - Its bytes were compared.
 * The last page of a file may be short: it is compared only if both files end at the same byte.
 */
#include "scan_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Two files that are compared. */
struct comparison {
	struct scan *scan;
	struct scan_twin *twins[2];
	uint8_t *buffers;
	union extents *maps;  /* two; NULL: extents are not used */
	uint64_t asked_until; /* before this offset, extents prove nothing */
	uint64_t end;         /* bytes to compare */
	size_t most;          /* as many runs as there is memory for */
	struct scan_runs *runs;
};

static errint_t add_run(struct scan_runs *runs, uint64_t first, uint64_t pages)
{
	struct catalogue_run *last = runs->count ? &runs->list[runs->count - 1] : NULL;
	struct catalogue_run *list;

	if (!pages)
		return 0;
	if (last && last->first + last->pages == first) {
		last->pages += pages;
		return 0;
	}
	/* The array grows by doubling. */
	if ((runs->count & (runs->count - 1)) == 0) {
		list = realloc(runs->list, (runs->count ? runs->count * 2 : 1) * sizeof(*list));
		if (!list)
			return -ENOMEM;
		runs->list = list;
	}
	runs->list[runs->count++] = (struct catalogue_run){.first = first, .pages = pages};
	return 0;
}

/* Record that bytes FROM..TO are equal. */
static errint_t add_equal(struct comparison *c, uint64_t from, uint64_t to)
{
	return add_run(c->runs, fold_page_of(from), fold_pages_in(from, to - from));
}

static const struct fiemap_extent *extent_at(const union extents *extents, uint64_t offset)
{
	for (unsigned i = 0; i < extents->map.fm_mapped_extents; i++) {
		const struct fiemap_extent *extent = &extents->map.fm_extents[i];

		if (extent->fe_logical <= offset && offset - extent->fe_logical < extent->fe_length)
			return extent;
	}
	return NULL;
}

/* The end of the extent that both files have in one place at OFFSET; OFFSET if none is proved. */
static uint64_t proved_until(struct comparison *c, uint64_t offset)
{
	const struct fiemap_extent *extents[2];
	uint64_t end = UINT64_MAX;

	if (!c->maps || offset < c->asked_until)
		return offset;
	for (unsigned i = 0; i < 2; i++) {
		uint64_t ends;

		extents[i] = extents_map(source_fd(c->twins[i]->source), offset, true, &c->maps[i])
				     ? extent_at(&c->maps[i], offset)
				     : NULL;
		if (!extents[i])
			return offset;
		ends = extents[i]->fe_logical + extents[i]->fe_length;
		end = ends < end ? ends : end;
	}
	if (extents_is_plain(extents[0]) && extents_is_plain(extents[1]) &&
	    extents[0]->fe_physical + (offset - extents[0]->fe_logical) ==
		    extents[1]->fe_physical + (offset - extents[1]->fe_logical)) {
		/* Only whole pages, except at the end of both files. */
		end = end < c->end ? end & ~FOLD_PAGE_MASK : c->end;
		return end > offset ? end : offset;
	}
	c->asked_until = end;
	return offset;
}

static errint_t compare_chunk(struct comparison *c, uint64_t offset, size_t want)
{
	uint8_t *a = c->buffers;
	uint8_t *b = c->buffers + SCAN_CHUNK;
	errint_t error = scan_read_twin(c->scan, c->twins[0], a, want, offset);

	if (!error)
		error = scan_read_twin(c->scan, c->twins[1], b, want, offset);
	if (c->twins[0]->unfit || c->twins[1]->unfit)
		return error;
	for (size_t at = 0; at < want && !error; at += FOLD_PAGE_SIZE) {
		size_t part = want - at < FOLD_PAGE_SIZE ? want - at : FOLD_PAGE_SIZE;

		if (memcmp(a + at, b + at, part))
			continue;
		c->runs->data_pages++;
		error = add_run(c->runs, fold_page_of(offset + at), 1);
	}
	return error;
}

static errint_t compare_all(struct comparison *c)
{
	uint64_t offset = 0;
	errint_t error = 0;

	while (offset < c->end && !error && !c->twins[0]->unfit && !c->twins[1]->unfit &&
	       c->runs->count < c->most) {
		uint64_t from = offset;
		size_t want;

		offset = scan_next_data(c->twins, 2, from, c->end);
		if (offset > from) {
			error = add_equal(c, from, offset);
			continue;
		}
		offset = proved_until(c, from);
		if (offset > from) {
			c->runs->data_pages += fold_pages_in(from, offset - from);
			error = add_equal(c, from, offset);
			continue;
		}
		want = c->end - from < SCAN_CHUNK ? (size_t)(c->end - from) : SCAN_CHUNK;
		error = compare_chunk(c, from, want);
		offset = from + want;
	}
	return error;
}

/* A quarter of the budget is for the workers' lists, which take at most twice the memory that they
 * need. What lies behind the last run that fits is not recorded as equal. That is not false, only
 * incomplete. */
static size_t most_runs(const struct scan *scan)
{
	return (size_t)(scan->options.memory / 4 / scan->options.workers /
			(2 * sizeof(struct catalogue_run)));
}

/* Extents describe what is on the disk, so both files are flushed first. */
static union extents *maps_for(struct scan_twin *twins[])
{
	if (twins[0]->file.stamp.device != twins[1]->file.stamp.device ||
	    fsync(source_fd(twins[0]->source)) || fsync(source_fd(twins[1]->source)))
		return NULL;
	return calloc(2, sizeof(union extents));
}

errint_t scan_compare_pages(struct scan *scan, struct scan_twin *a, struct scan_twin *b,
			    uint8_t *buffers, struct scan_runs *ret_runs)
{
	struct comparison c = {.scan = scan, .twins = {a, b}, .buffers = buffers, .runs = ret_runs};
	uint64_t size_a = (uint64_t)a->file.stamp.size;
	uint64_t size_b = (uint64_t)b->file.stamp.size;
	errint_t error = 0;

	*ret_runs = (struct scan_runs){0};
	c.most = most_runs(scan);
	c.end = size_a < size_b ? size_a : size_b;
	if (size_a != size_b)
		c.end &= ~FOLD_PAGE_MASK;
	scan_twin_open(scan, a);
	scan_twin_open(scan, b);
	if (!a->unfit && !b->unfit) {
		b->equal = true; /* makes it an open question for scan_next_data() */
		c.maps = maps_for(c.twins);
		error = compare_all(&c);
		free(c.maps);
	}
	scan_twin_close(a);
	scan_twin_close(b);
	if (error || a->unfit || b->unfit) {
		free(ret_runs->list);
		*ret_runs = (struct scan_runs){0};
	}
	return error;
}
