/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copies.c - operations that move bytes from file to file: copy_file_range, clone and dedupe, and a
 * write whose bytes are in a mapping of a file
 *
 * Both sides are held. The model gets the new bytes before the operation begins. If the file system
 * says that it does not support the operation, that is counted, and the model goes back.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

struct copy_holds {
	struct hold_range in;
	struct hold_range out;
};

static void lock_both(struct worker *w, const struct copy_holds *holds)
{
	bool in_first = holds->in.file < holds->out.file;

	model_lock(w->shared, in_first ? &holds->in : &holds->out);
	if (holds->in.file != holds->out.file)
		model_lock(w->shared, in_first ? &holds->out : &holds->in);
}

static void unlock_both(struct worker *w, const struct copy_holds *holds)
{
	if (holds->in.file != holds->out.file)
		model_unlock(w->shared, &holds->in);
	model_unlock(w->shared, &holds->out);
}

/* Hold both sides. Bytes that there are to copy. */
static size_t hold_for_copy(struct worker *w, const struct op *op, size_t length,
			    struct copy_holds *ret_holds)
{
	struct copy_holds holds = {
		.in = {.file = op->other,
		       .first = op->from / PAGE,
		       .last = (unsigned)((op->from + length - 1) / PAGE),
		       .pages = HOLD_SHARED,
		       .size = HOLD_SHARED},
		.out = {.file = op->file,
			.first = op->at / PAGE,
			.last = (unsigned)((op->at + length - 1) / PAGE),
			.pages = HOLD_EXCLUSIVE,
			.size = HOLD_SHARED},
	};
	bool whole = op->file == op->other;
	uint64_t size;

	for (;; whole = true) {
		if (whole) {
			holds.out.first = 0;
			holds.out.last = FILE_PAGES - 1;
			holds.out.size = HOLD_EXCLUSIVE;
		}
		lock_both(w, &holds);
		size = model_size(w->shared, op->other);
		*ret_holds = holds;
		if (op->from >= size)
			return 0;
		if (length > size - op->from)
			length = (size_t)(size - op->from);
		if (whole || op->at + length <= model_size(w->shared, op->file))
			return length;
		unlock_both(w, &holds);
	}
}

static errint_t copy(int in, off_t from, int out, off_t at, size_t length)
{
	ssize_t done;

	for (; length; length -= (size_t)done) {
		done = copy_file_range(in, &from, out, &at, length, 0);
		if (done <= 0)
			return done ? -errno : -EIO;
	}
	return 0;
}

/* A write to OUT whose bytes the kernel has to fault in from a mapping of IN. */
static errint_t copy_mapped(int in, uint64_t from, int out, off_t at, size_t length)
{
	uint64_t first = from & ~(uint64_t)(PAGE - 1);
	size_t span = from + length - first;
	uint8_t *address = mmap(NULL, span, PROT_READ, MAP_SHARED, in, (off_t)first);
	const uint8_t *bytes = address + (from - first);
	errint_t error = 0;
	ssize_t done;

	if (address == MAP_FAILED)
		return -errno;
	while (!error && length) {
		done = pwrite(out, bytes, length, at);
		if (done > 0) {
			bytes += done;
			at += done;
			length -= (size_t)done;
		} else {
			error = done ? -errno : -EIO;
		}
	}
	munmap(address, span);
	return error;
}

static errint_t clone_range(int in, uint64_t from, int out, uint64_t at, size_t length)
{
	const struct file_clone_range range = {
		.src_fd = in, .src_offset = from, .src_length = length, .dest_offset = at};

	return ioctl(out, FICLONERANGE, &range) ? -errno : 0;
}

/* Whatever comes of it, no byte changes. */
static void dedupe_range(struct worker *w, int in, uint64_t from, int out, uint64_t at,
			 size_t length)
{
	union {
		struct file_dedupe_range range;
		uint8_t room[sizeof(struct file_dedupe_range) +
			     sizeof(struct file_dedupe_range_info)];
	} ask = {.range = {.src_offset = from, .src_length = length, .dest_count = 1}};

	ask.range.info[0].dest_fd = out;
	ask.range.info[0].dest_offset = at;
	if (ioctl(in, FIDEDUPERANGE, &ask) || ask.range.info[0].status < 0)
		atomic_fetch_add(&w->shared->refused, 1);
}

static errint_t copy_by_kind(const struct op *op, int in, int out, size_t length)
{
	switch (op->kind) {
	case OP_CLONE:
		return clone_range(in, op->from, out, op->at, length);
	case OP_COPY_MAPPED:
		return copy_mapped(in, op->from, out, op->at, length);
	default:
		return copy(in, op->from, out, op->at, length);
	}
}

/* The model's bytes of the side that is read, at their places in w->bytes. */
static void load_from(struct worker *w, const struct op *op, size_t length)
{
	uint64_t at;

	for (at = op->from & ~(PAGE - 1); at < op->from + length; at += PAGE)
		memcpy(w->bytes + at, model_page(w->shared, op->other, (unsigned)(at / PAGE)),
		       PAGE);
}

static void copy_held(struct worker *w, const struct op *op, int in, int out, size_t length)
{
	errint_t error;

	load_from(w, op, length);
	change_begin(&w->change, w->shared, op->file);
	change_write(&w->change, op->at, w->bytes + op->from, length);
	error = copy_by_kind(op, in, out, length);
	finish_or_refuse(w, error == -EXDEV ? -EOPNOTSUPP : error, length);
}

static void copy_or_dedupe(struct worker *w, const struct op *op, size_t length)
{
	bool overlaps =
		op->file == op->other && op->at < op->from + length && op->from < op->at + length;
	int in = file_open(w, op->other, op->how & 2 ? FD_READ : FD_DIRECT);
	int out = file_open(w, op->file, op->fd);
	errint_t error;

	if (in < 0 || out < 0)
		return;
	if (op->kind == OP_CLONE && (op->how & 1)) {
		dedupe_range(w, in, op->from, out, op->at, length);
	} else if (!overlaps) {
		copy_held(w, op, in, out, length);
	} else if (op->kind == OP_COPY) {
		error = copy(in, op->from, out, op->at, length);
		if (error != -EINVAL)
			fail(w, "copy onto itself: %s, expected EINVAL", strerror(-error));
	}
}

void do_copy(struct worker *w, const struct op *op)
{
	size_t room = FILE_BYTES - (op->from > op->at ? op->from : op->at);
	struct copy_holds holds;
	size_t length = hold_for_copy(w, op, op->length < room ? op->length : room, &holds);

	if (length)
		copy_or_dedupe(w, op, length);
	unlock_both(w, &holds);
}
