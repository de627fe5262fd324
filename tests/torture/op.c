/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op.c - operations: random from a seed, to text and back
 *
 * An operation is a function of (seed, worker, index) alone. So a worker's operations need not be
 * recorded while they run in order to be listed later, and other workers do not affect them. All
 * values in an operation are absolute: if other operations are left out, the remaining ones stay
 * the same.
 *
 * op.how, by kind; the low bits choose a variant:
 *   write            enum write_how: pwrite, or pwritev2 with an RWF_ flag
 *   store            0 fresh mapping, munmap; 1 fresh, msync; 2 the lasting one; 3 lasting, msync;
 *                    STORE_READ: not by us, but by read(2) with its buffer there
 *   fallocate        the mode, as in fallocate(2); madv-remove, space-ioctl: the equivalent mode
 *   copy             0 as asked; 1 at equal offsets within their pages
 *   clone            1 dedupe
 *   replace          1 with the old one mapped, 2 closed then; REPLACE_EXCHANGE: the two change
 *                    places first; REPLACE_TMPFILE: the new one is made without a name
 *   append           0 O_APPEND; 1 RWF_APPEND
 *   source           0 fsync first; else write-back
 *   read             0 pread; 1 preadv2; 2 with RWF_NOWAIT, 3 RWF_HIPRI; mapped: 0 fresh, 1 the
 *                    lasting mapping
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kind {
	const char *name;
	unsigned weight;
};

static const struct kind kinds[OP_KINDS] = {
	[OP_WRITE] = {"write", 160},
	[OP_WRITEV] = {"writev", 30},
	[OP_APPEND] = {"append", 20},
	[OP_URING_WRITE] = {"uring-write", 30},
	[OP_AIO_WRITE] = {"aio-write", 24},
	[OP_SENDFILE_IN] = {"sendfile-in", 16},
	[OP_SPLICE_IN] = {"splice-in", 16},
	[OP_VMSPLICE_IN] = {"vmsplice-in", 16},
	[OP_STORE] = {"store", 60},
	[OP_STORE_EXIT] = {"store-exit", 2},
	[OP_STORE_PRIVATE] = {"store-private", 12},
	[OP_TRUNCATE] = {"truncate", 20},
	[OP_TRUNCATE_PATH] = {"truncate-path", 10},
	[OP_DOWN_UP] = {"down-up", 24},
	[OP_OPEN_TRUNC] = {"open-trunc", 4},
	[OP_FALLOCATE] = {"fallocate", 50},
	[OP_MADV_REMOVE] = {"madv-remove", 12},
	[OP_SPACE_IOCTL] = {"space-ioctl", 8},
	[OP_COPY] = {"copy", 60},
	[OP_COPY_MAPPED] = {"copy-mapped", 24},
	[OP_CLONE] = {"clone", 6},
	[OP_REPLACE] = {"replace", 5},
	[OP_UNLINK] = {"unlink", 4},
	[OP_RELINK] = {"relink", 4},
	[OP_AWAY] = {"away", 8},
	[OP_BEHIND] = {"behind", 12},
	[OP_REOPEN] = {"reopen", 16},
	[OP_READ] = {"read", 280},
	[OP_READV] = {"readv", 40},
	[OP_MAPPED_READ] = {"mapped-read", 90},
	[OP_URING_READ] = {"uring-read", 40},
	[OP_AIO_READ] = {"aio-read", 24},
	[OP_SENDFILE_OUT] = {"sendfile-out", 24},
	[OP_SPLICE_OUT] = {"splice-out", 24},
	[OP_VMSPLICE_OUT] = {"vmsplice-out", 24},
	[OP_SEEK] = {"seek", 14},
	[OP_SOURCE] = {"source", 8},
};

static const char *const fd_names[FD_KINDS] = {"plain", "link", "direct", "append", "read"};

static const unsigned fallocate_modes[] = {
	0,
	FALLOC_FL_KEEP_SIZE,
	FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	FALLOC_FL_ZERO_RANGE,
	FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	FALLOC_FL_COLLAPSE_RANGE,
	FALLOC_FL_INSERT_RANGE,
	FALLOC_FL_UNSHARE_RANGE,
};

/* What the ioctls of XFS amount to. */
static const unsigned space_modes[] = {
	FALLOC_FL_KEEP_SIZE,
	FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
};

const char *op_name(unsigned kind)
{
	return kinds[kind].name;
}

unsigned op_number(const char *text, unsigned max)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || end == text || value > max) {
		fprintf(stderr, "%s: '%s' is no number up to %u\n", program_invocation_short_name,
			text, max);
		exit(OUTCOME_TROUBLE);
	}
	return (unsigned)value;
}

/* splitmix64 ("Fast splittable pseudorandom number generators", OOPSLA 2014). */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint64_t random_of(uint64_t seed, uint64_t a, uint64_t b)
{
	uint64_t state = seed ^ a * UINT64_C(0xd1342543de82ef95) ^ b * UINT64_C(0xaf251af3b0f025b5);

	(void)next_random(&state);
	return next_random(&state);
}

static uint32_t below(uint64_t *state, uint32_t limit)
{
	return (uint32_t)(next_random(state) % limit);
}

static unsigned random_kind(uint64_t *state, bool behind)
{
	unsigned sum = 0;
	unsigned pick;
	unsigned i;

	for (i = 0; i < OP_KINDS; i++)
		sum += kinds[i].weight;
	for (;;) {
		pick = below(state, sum);
		for (i = 0; pick >= kinds[i].weight; i++)
			pick -= kinds[i].weight;
		/* Also who only looks at the source is somebody behind the mount. */
		if (behind || (i != OP_BEHIND && i != OP_SOURCE))
			return i;
	}
}

/* A range of every awkward shape. */
static void random_range(uint64_t *state, struct op *op)
{
	uint32_t page = below(state, FILE_PAGES);
	uint32_t at = page * PAGE;
	uint32_t length = PAGE;

	switch (below(state, 10)) {
	case 0: /* one page */
	case 1:
		break;
	case 2: /* a few pages */
	case 3:
		length = PAGE * (1 + below(state, 12));
		break;
	case 4: /* some bytes */
		at += below(state, PAGE);
		length = 1 + below(state, 300);
		break;
	case 5: /* over a border of pages */
		at += PAGE - 1 - below(state, 64);
		length = 2 + below(state, 128);
		break;
	case 6: /* over a border of leaves */
		at = 64 * PAGE * (1 + below(state, 2)) - 1 - below(state, 2 * PAGE);
		length = 2 + below(state, 4 * PAGE);
		break;
	case 7: /* any */
		at = below(state, FILE_BYTES);
		length = 1 + below(state, 6 * PAGE);
		break;
	case 8: /* ends within a page */
		length = PAGE * below(state, 4) + 1 + below(state, PAGE - 1);
		break;
	default: /* a stream */
		at += below(state, 4) ? 0 : below(state, PAGE);
		length = (64u << 10) + below(state, 200u << 10);
		break;
	}
	if (at >= FILE_BYTES)
		at = FILE_BYTES - 1;
	op->at = at;
	op->length = length < FILE_BYTES - at ? length : FILE_BYTES - at;
}

static void random_content(uint64_t *state, unsigned worker, uint64_t index, struct op *op)
{
	uint32_t pick = below(state, 20);

	op->shift = 0;
	if (!pick) {
		op->content = 0;
	} else if (pick < 5) {
		op->content = UNIQUE | worker << 24 | (uint32_t)(index & 0xffffff);
	} else {
		op->content = 1 + below(state, LETTERS);
		if (pick < 8)
			op->shift = 8 * below(state, PAGE / 8) + (pick == 5);
	}
}

static bool is_read(unsigned kind)
{
	return kind >= OP_READ && kind <= OP_VMSPLICE_OUT;
}

/* The range as whole pages. */
static void whole_pages(struct op *op)
{
	op->at &= ~(PAGE - 1);
	op->length = (op->length + PAGE - 1) & ~(PAGE - 1);
	if (op->length > FILE_BYTES - op->at)
		op->length = FILE_BYTES - op->at;
}

static uint32_t one_of(uint64_t *state, const unsigned *of, size_t count)
{
	return of[below(state, (uint32_t)count)];
}

static void random_fallocate(uint64_t *state, struct op *op)
{
	op->how = one_of(state, fallocate_modes,
			 sizeof(fallocate_modes) / sizeof(fallocate_modes[0]));
	if (op->how & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) {
		op->at &= ~(PAGE - 1);
		op->length = PAGE;
	}
}

static void random_how(uint64_t *state, struct op *op)
{
	op->how = below(state, 4);
	switch (op->kind) {
	case OP_WRITE:
		op->how = below(state, 2) ? WRITE_PLAIN : below(state, WRITE_HOWS);
		break;
	case OP_STORE:
		op->how |= below(state, 4) ? 0 : STORE_READ;
		break;
	case OP_FALLOCATE:
		random_fallocate(state, op);
		break;
	case OP_MADV_REMOVE:
		op->how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		whole_pages(op);
		break;
	case OP_SPACE_IOCTL:
		op->how = one_of(state, space_modes, sizeof(space_modes) / sizeof(space_modes[0]));
		break;
	case OP_REPLACE:
		op->how |= below(state, 4) << 2;
		break;
	default:
		break;
	}
	if (is_read(op->kind)) {
		if (!below(state, 5))
			op->how |= HOW_UNLOCKED;
		if (!below(state, 3))
			op->how |= HOW_DROP;
	}
}

void op_random(const struct op_options *options, unsigned worker, uint64_t index, struct op *ret_op)
{
	uint64_t state = random_of(options->seed, worker + 1, index + 1);
	struct op op = {0};
	uint32_t fd;

	op.kind = (uint8_t)random_kind(&state, options->behind);
	op.file = (uint8_t)below(&state, options->files);
	op.other = (uint8_t)below(&state, options->files);
	fd = below(&state, 10);
	op.fd = fd < 3 ? FD_PLAIN : fd < 5 ? FD_LINK : fd < 9 ? FD_DIRECT : FD_READ;
	if (op.fd == FD_READ && !is_read(op.kind))
		op.fd = FD_PLAIN;
	random_range(&state, &op);
	random_content(&state, worker, index, &op);
	random_how(&state, &op);
	op.from = below(&state, 2) ? below(&state, FILE_PAGES) * PAGE : below(&state, FILE_BYTES);
	if (op.kind == OP_COPY && op.how == 1)
		op.from = (op.from & ~(PAGE - 1)) | (op.at & (PAGE - 1));
	if (op.kind == OP_CLONE) {
		op.from &= ~(PAGE - 1);
		whole_pages(&op);
	}
	*ret_op = op;
}

void op_print(FILE *out, unsigned worker, const struct op *op)
{
	fprintf(out,
		"worker=%u %s file=%u fd=%s at=%u length=%u other=%u from=%u content=%u shift=%u "
		"how=%u\n",
		worker, kinds[op->kind].name, op->file, fd_names[op->fd], op->at, op->length,
		op->other, op->from, op->content, op->shift, op->how);
}

static errint_t find_name(const char *name, uint8_t *ret_kind)
{
	uint8_t i;

	for (i = 0; i < OP_KINDS; i++) {
		if (!strcmp(kinds[i].name, name)) {
			*ret_kind = i;
			return 0;
		}
	}
	return -EINVAL;
}

static errint_t find_fd(const char *name, uint8_t *ret_fd)
{
	uint8_t i;

	for (i = 0; i < FD_KINDS; i++) {
		if (!strcmp(fd_names[i], name)) {
			*ret_fd = i;
			return 0;
		}
	}
	return -EINVAL;
}

errint_t op_parse(const char *line, unsigned *ret_worker, struct op *ret_op)
{
	struct op op = {0};
	unsigned file;
	unsigned other;
	char name[24];
	char fd[12];

	if (sscanf(line,
		   "worker=%u %23s file=%u fd=%11s at=%u length=%u other=%u from=%u content=%u "
		   "shift=%u how=%u",
		   ret_worker, name, &file, fd, &op.at, &op.length, &other, &op.from, &op.content,
		   &op.shift, &op.how) != 11)
		return -EINVAL;
	if (*ret_worker >= WORKERS_MAX || file >= FILES_MAX || other >= FILES_MAX ||
	    op.at >= FILE_BYTES || op.from >= FILE_BYTES || !op.length ||
	    op.length > FILE_BYTES - op.at)
		return -EINVAL;
	op.file = (uint8_t)file;
	op.other = (uint8_t)other;
	if (find_name(name, &op.kind) || find_fd(fd, &op.fd))
		return -EINVAL;
	*ret_op = op;
	return 0;
}
