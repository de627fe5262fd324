/* SPDX-License-Identifier: Apache-2.0 */
/*
 * takeover.c - a worker takes over from one that died: which descriptors stay open
 *
 * The dead worker's descriptors are still open, because the keeper has them too. Those that belong
 * to an inode or to an open file stay. A descriptor is noted before it is used, and the note is
 * taken back before it is closed. So what no note names belongs to nobody any more.
 */
#include "foldfs/takeover.h"

#include "fusefs_handle.h"
#include "lock_records.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/* A growing list of descriptors. */
struct descriptors {
	int *fds;
	size_t count;
	size_t room;
	bool failed; /* for lack of memory */
};

static void add(struct descriptors *list, int fd)
{
	if (fd < 0 || list->failed)
		return;
	if (list->count == list->room) {
		size_t room = list->room ? list->room * 2 : 1024;
		int *fds = reallocarray(list->fds, room, sizeof(*fds));

		list->failed = !fds;
		if (!fds)
			return;
		list->fds = fds;
		list->room = room;
	}
	list->fds[list->count++] = fd;
}

static void add_inode(void *context, struct slab_slot *slot)
{
	int fd;

	if (inode_is_alive(slot, &fd))
		add(context, fd);
}

static void add_file(void *context, struct slab_slot *slot)
{
	add(context, caa_container_of(slot, struct handle, slot)->fd);
}

static void add_directory(void *context, struct slab_slot *slot)
{
	add(context, fusefs_directory_fd(slot));
}

static int compare(const void *a, const void *b)
{
	const int *x = a;
	const int *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Close all descriptors but those in LIST. */
static errint_t close_others(struct descriptors *list)
{
	unsigned next = 0;

	if (list->failed)
		return -ENOMEM;
	qsort(list->fds, list->count, sizeof(*list->fds), compare);
	for (size_t i = 0; i < list->count; i++) {
		unsigned fd = (unsigned)list->fds[i];

		if (fd > next && syscall(SYS_close_range, next, fd - 1, 0))
			return -errno;
		next = fd + 1;
	}
	return syscall(SYS_close_range, next, UINT_MAX, 0) ? -errno : 0;
}

/* ---- what was left ---- */

static void set_lookups(void *context, uint64_t node, uint64_t lookups)
{
	struct takeover *takeover = context;
	struct slab_slot *slot = slab_get(takeover->memory[SESSION_INODES], node);

	if (slot)
		inode_set_lookups(slot, lookups);
}

static void forget(struct takeover *takeover, const struct fuse_forget_one *one)
{
	struct slab_slot *slot = slab_get(takeover->memory[SESSION_INODES], one->nodeid);

	if (slot)
		inode_forget_raw(slot, one->nlookup);
}

/* Do what is left of a FORGET, of which the first DONE inodes are done. */
static void forget_rest(struct takeover *takeover, const struct fuse_in_header *in, uint32_t done)
{
	const struct fuse_batch_forget_in *batch = (const void *)(in + 1);
	const struct fuse_forget_one *list = (const void *)(batch + 1);
	const struct fuse_forget_in *single = (const void *)(in + 1);

	if (in->opcode == FUSE_FORGET && !done)
		forget(takeover, &(struct fuse_forget_one){in->nodeid, single->nlookup});
	for (uint32_t i = done; in->opcode == FUSE_BATCH_FORGET && i < batch->count; i++)
		forget(takeover, &list[i]);
}

/* A FORGET has no answer, so the kernel does not send it once more. */
static void forget_what_was_read(struct session *session, struct takeover *takeover)
{
	for (unsigned i = 0; i < SESSION_SLOTS; i++) {
		uint32_t done;
		const struct fuse_in_header *in = session_last_read(session, i, &done);

		forget_rest(takeover, in, done);
		session_buffer_clear(session, i);
	}
}

static errint_t adopt(struct session *session, struct takeover *takeover)
{
	errint_t error = 0;

	for (unsigned i = 0; !error && i < SESSION_MEMORIES; i++)
		error = session->memory[i] < 0
				? -EPROTO
				: slab_adopt(session->memory[i], &takeover->memory[i]);
	if (!error)
		session_settle(session, set_lookups, takeover);
	if (!error)
		forget_what_was_read(session, takeover);
	return error;
}

static errint_t sweep(const struct takeover *takeover, const int kept[], size_t count)
{
	struct descriptors list = {0};
	errint_t error;

	for (size_t i = 0; i < count; i++)
		add(&list, kept[i]);
	for (unsigned i = 0; i < SESSION_MEMORIES; i++)
		add(&list, slab_memory(takeover->memory[i]));
	slab_each(takeover->memory[SESSION_INODES], add_inode, &list);
	slab_each(takeover->memory[SESSION_FILES], add_file, &list);
	slab_each(takeover->memory[SESSION_DIRECTORIES], add_directory, &list);
	error = close_others(&list);
	free(list.fds);
	return error;
}

errint_t takeover_begin(struct session *session, const int kept[], size_t count,
			struct takeover *ret_takeover)
{
	struct takeover takeover = {0};
	errint_t error = adopt(session, &takeover);

	if (!error)
		error = sweep(&takeover, kept, count);
	if (error)
		takeover_clear(&takeover);
	else
		*ret_takeover = takeover;
	return error;
}

void takeover_clear(struct takeover *takeover)
{
	for (unsigned i = 0; i < SESSION_MEMORIES; i++)
		slab_free(takeover->memory[i]);
	*takeover = (struct takeover){0};
}

size_t takeover_bytes(void)
{
	const size_t sizes[] = {inode_record_bytes(), sizeof(struct handle),
				fusefs_directory_bytes(), sizeof(struct lock_record)};
	size_t number = 0;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		number = number * 1009 + sizes[i];
	return number;
}

/* ---- backing ids ---- */

/* Ids are given in ascending order. A worker that died may have got some, at most one for each of its
 * threads, that are in no plan. */
#define IDS_NEAR SESSION_SLOTS

struct backing_ids {
	struct plan *plan;
	uint32_t first;
	bool used[2 * IDS_NEAR];
};

static void settle_plan(void *context, struct inode *inode)
{
	struct plan_hold *hold = inode_plan(inode);
	struct backing_ids *ids = context;
	uint32_t index;

	plan_hold_settle(ids->plan, hold);
	index = (uint32_t)hold->backing_id - ids->first;
	if (hold->backing_id && index < 2 * IDS_NEAR)
		ids->used[index] = true;
}

void fusefs_settle_plans(struct fusefs *fs)
{
	uint32_t last = atomic_load(&fs->records->last_backing);
	struct backing_ids ids = {
		.plan = fs->plan,
		.first = last > IDS_NEAR ? last - IDS_NEAR : 1,
	};

	inode_table_each_file(fs->inodes, settle_plan, &ids);
	for (uint32_t i = 0; last && i < 2 * IDS_NEAR; i++)
		if (!ids.used[i])
			passthrough_unregister(fs->passthrough, (int)(ids.first + i));
}
