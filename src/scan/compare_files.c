/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare_files.c - finds out whether files are equal, byte by byte or by their extents
 *
 * "Equal" promises that no byte differs as long as both files keep their stamps. So:
 *
 * A  Nobody has either file open for writing when the comparison begins. The kernel confirms this
 *    by granting a read lease, which is given back at once. A writer that had mapped a file, or has
 *    direct I/O under way, changes content without a further change of the stamp; a writer that
 *    comes later does change the stamp. Where leases are not to be had (another user's file, some
 *    file systems), dirty pages are written back first: then the next store into a mapping is a
 *    fault, which changes the stamp.
 * B  Before and after, the file has the stamp under which the catalogue knows it. The stamp is old
 *    enough that a later change must give another one.
 * C  On tmpfs no files are found equal, because stores into a mapping do not change the stamp. A
 *    tmpfs file has only one copy in memory anyway.
 * D  Extents prove equality if both files consist of the same extents, at the same offsets, after
 *    fsync, and every extent is plain: its place on the disk is known, it holds data, and it is
 *    neither encoded nor in line with metadata.
 */
#include "scan_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

static int fd_of(const struct scan_twin *twin)
{
	return source_fd(twin->source);
}

static bool has_its_stamp(const struct scan_twin *twin)
{
	struct source_stamp stamp;
	struct stat st;

	if (fstat(fd_of(twin), &st))
		return false;
	source_stamp_of(&st, &stamp);
	return S_ISREG(st.st_mode) && source_stamp_equal(&stamp, &twin->file.stamp);
}

static bool is_in_memory_alone(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) || fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

errint_t scan_twin_load(struct scan *scan, dev_t device, ino_t inode, struct scan_twin **ret_twin)
{
	struct scan_twin *twin = calloc(1, sizeof(*twin));
	errint_t error = twin ? catalogue_get(scan->options.catalogue, device, inode, &twin->file,
					      &twin->record)
			      : -ENOMEM;

	*ret_twin = error ? NULL : twin;
	if (error)
		free(twin);
	return error == -ENOENT ? 0 : error;
}

/* Open TWIN if it is what the catalogue knows and nobody writes to it: rules A to C. */
void scan_twin_open(const struct scan *scan, struct scan_twin *twin)
{
	int fd = scan_open_file(scan, twin->file.path, twin->file.stamp.inode,
				(uint64_t)twin->file.stamp.size);

	twin->source = NULL;
	twin->equal = false;
	twin->proved = false;
	twin->unfit = fd < 0 || source_new(fd, &twin->source);
	if (twin->unfit)
		return;
	twin->unfit = is_in_memory_alone(fd) || source_check_unwritten(fd) == -EBUSY ||
		      sync_file_range(fd, 0, 0,
				      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					      SYNC_FILE_RANGE_WAIT_AFTER) ||
		      !has_its_stamp(twin) || !scan_stamp_is_old_enough(scan, &twin->file.stamp);
}

void scan_twin_close(struct scan_twin *twin)
{
	if (!twin->unfit && !has_its_stamp(twin))
		twin->unfit = true;
	if (twin->unfit)
		twin->equal = false;
	if (twin->source)
		source_put(twin->source);
	twin->source = NULL;
}

/* ---- by extents ---- */

/* Whether the extents listed so far are the same in both files, and prove that they are equal. */
static bool is_proof(const union extents *a, const union extents *b)
{
	if (!extents_same(a, b))
		return false;
	for (unsigned i = 0; i < a->map.fm_mapped_extents; i++)
		if (!extents_is_plain(&a->map.fm_extents[i]))
			return false;
	return true;
}

static bool is_proved(const struct scan_twin *first, const struct scan_twin *twin,
		      union extents maps[2])
{
	uint64_t start = 0;

	if (first->file.stamp.device != twin->file.stamp.device)
		return false;
	for (;;) {
		const struct fiemap_extent *last;

		if (!extents_map(fd_of(first), start, true, &maps[0]) ||
		    !extents_map(fd_of(twin), start, true, &maps[1]) ||
		    !maps[0].map.fm_mapped_extents || !is_proof(&maps[0], &maps[1]))
			return false;
		last = &maps[0].map.fm_extents[maps[0].map.fm_mapped_extents - 1];
		if (last->fe_flags & FIEMAP_EXTENT_LAST)
			return true;
		start = last->fe_logical + last->fe_length;
	}
}

/* Mark the files that the file system can prove equal. Only shared extents can be proved, so where
 * nothing is shared one question is enough. */
static void prove(struct scan_twin *twins[], unsigned count)
{
	union extents *maps = calloc(2, sizeof(*maps));

	if (maps && extents_map(fd_of(twins[0]), 0, true, &maps[0]) &&
	    maps[0].map.fm_mapped_extents &&
	    (maps[0].map.fm_extents[0].fe_flags & FIEMAP_EXTENT_SHARED) &&
	    !fsync(fd_of(twins[0]))) {
		for (unsigned i = 1; i < count; i++) {
			if (twins[i]->unfit || fsync(fd_of(twins[i])))
				continue;
			twins[i]->proved = is_proved(twins[0], twins[i], maps);
			twins[i]->equal = twins[i]->proved;
		}
	}
	free(maps);
}

/* ---- byte by byte ---- */

/* Whether TWIN still has to be read. */
static bool is_open_question(const struct scan_twin *twin)
{
	return !twin->unfit && !twin->proved && twin->equal;
}

/* The next offset, at or after OFFSET, at which one of the files has data; SIZE if none has. A
 * range that is a hole in all of them is equal. */
uint64_t scan_next_data(struct scan_twin *twins[], unsigned count, uint64_t offset, uint64_t size)
{
	uint64_t next = size;

	for (unsigned i = 0; i < count; i++) {
		off_t data;

		if (i && !is_open_question(twins[i]))
			continue;
		data = lseek(fd_of(twins[i]), (off_t)offset, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			return offset;
		if (data >= 0 && (uint64_t)data < next)
			next = (uint64_t)data;
	}
	next -= next & FOLD_PAGE_MASK;
	return next < offset ? offset : next;
}

errint_t scan_read_twin(struct scan *scan, struct scan_twin *twin, uint8_t *buffer, size_t want,
			uint64_t offset)
{
	struct iovec iov = {.iov_base = buffer, .iov_len = want};
	errint_t error = scan_rate_take(scan, want);

	if (error)
		return error;
	if (source_read(twin->source, &iov, 1, (off_t)offset) != (ssize_t)want)
		twin->unfit = true;
	source_drop_cache_if_due(twin->source);
	atomic_fetch_add_explicit(&scan->read_bytes, want, memory_order_relaxed);
	atomic_fetch_add_explicit(&scan->done_bytes, want, memory_order_relaxed);
	return 0;
}

/* Compare one chunk of all files. *ret_left: how many are not decided yet. */
static errint_t compare_chunk(struct scan *scan, struct scan_twin *twins[], unsigned count,
			      uint8_t *buffers, size_t want, uint64_t offset, unsigned *ret_left)
{
	errint_t error = scan_read_twin(scan, twins[0], buffers, want, offset);

	*ret_left = 0;
	for (unsigned i = 1; i < count && !error && !twins[0]->unfit; i++) {
		if (!is_open_question(twins[i]))
			continue;
		error = scan_read_twin(scan, twins[i], buffers + SCAN_CHUNK, want, offset);
		if (error || twins[i]->unfit)
			continue;
		twins[i]->equal = memcmp(buffers, buffers + SCAN_CHUNK, want) == 0;
		*ret_left += twins[i]->equal;
	}
	return error;
}

static errint_t compare_bytes(struct scan *scan, struct scan_twin *twins[], unsigned count,
			      uint8_t *buffers)
{
	uint64_t size = (uint64_t)twins[0]->file.stamp.size;
	uint64_t offset = 0;
	unsigned left = 0;
	errint_t error = 0;

	for (unsigned i = 1; i < count; i++) {
		if (!twins[i]->proved)
			twins[i]->equal = twins[i]->file.stamp.size == twins[0]->file.stamp.size;
		left += is_open_question(twins[i]);
	}
	while (left && !error && !twins[0]->unfit) {
		size_t want;

		offset = scan_next_data(twins, count, offset, size);
		if (offset >= size)
			break;
		want = size - offset < SCAN_CHUNK ? (size_t)(size - offset) : SCAN_CHUNK;
		error = compare_chunk(scan, twins, count, buffers, want, offset, &left);
		offset += want;
	}
	return error;
}

errint_t scan_compare(struct scan *scan, struct scan_twin *twins[], unsigned count,
		      uint8_t *buffers)
{
	errint_t error = 0;

	for (unsigned i = 0; i < count; i++)
		scan_twin_open(scan, twins[i]);
	if (!twins[0]->unfit) {
		prove(twins, count);
		error = compare_bytes(scan, twins, count, buffers);
	}
	for (unsigned i = 0; i < count; i++) {
		scan_twin_close(twins[i]);
		/* An incomplete comparison proves nothing. */
		if (error)
			twins[i]->equal = false;
	}
	for (unsigned i = 1; i < count && twins[0]->unfit; i++)
		twins[i]->equal = false;
	return error;
}
