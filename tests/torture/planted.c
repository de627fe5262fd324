/* SPDX-License-Identifier: Apache-2.0 */
/*
 * planted.c - bugs for the torture tool to find
 *
 * The linker's --wrap puts this file between foldfs's own modules, in a separate daemon that is
 * never installed (foldfs-planted). FOLDFS_PLANTED names the one bug that it has; `list` prints
 * them. Without the variable it behaves as foldfs. The product's source knows nothing of this.
 *
 * A bug that is a race has a short pause at the place where the product could be pre-empted, so
 * that the race need not be waited for.
 *
 * `change` is the change of content that this thread is making, so that wrappers of the map know
 * for which change they are called.
 */
#include "foldfs/catalogue.h"
#include "foldfs/cow_break.h"
#include "foldfs/fill.h"
#include "foldfs/hash_index.h"
#include "foldfs/kin.h"
#include "foldfs/lease.h"
#include "foldfs/page_map.h"
#include "foldfs/page_store.h"
#include "foldfs/plan.h"
#include "foldfs/rcu.h"
#include "fuse/fusefs_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define PAUSE_US    300
#define LONG_US     10000
#define STREAM      (64u << 10)
#define SPARE_EVERY 7

#define BUGS(X)                                                                                    \
	X(missed_truncate)                                                                         \
	X(cut_page_kept)                                                                           \
	X(forgotten_open_trunc)                                                                    \
	X(missed_fallocate)                                                                        \
	X(missed_copy)                                                                             \
	X(missed_stream)                                                                           \
	X(lost_break)                                                                              \
	X(lost_zero)                                                                               \
	X(lost_write_back)                                                                         \
	X(one_page_too_few)                                                                        \
	X(written_in_place)                                                                        \
	X(slots_before_source)                                                                     \
	X(lost_source_write)                                                                       \
	X(stale_fill)                                                                              \
	X(lost_generation)                                                                         \
	X(no_grace_period)                                                                         \
	X(unverified_sharing)                                                                      \
	X(private_frame_shared)                                                                    \
	X(dirty_tail)                                                                              \
	X(zero_by_its_head)                                                                        \
	X(double_free)                                                                             \
	X(double_drop)                                                                             \
	X(leaked_user)                                                                             \
	X(foreign_change_unseen)                                                                   \
	X(unheeded_report)                                                                         \
	X(kept_kin)                                                                                \
	X(unseen_lease)                                                                            \
	X(unsaid_opening)                                                                          \
	X(young_stamp)                                                                             \
	X(stale_window)                                                                            \
	X(kept_orphan)                                                                             \
	X(two_files)                                                                               \
	X(lost_flush)                                                                              \
	X(lost_drop)                                                                               \
	X(early_answer)                                                                            \
	X(shared_for_ever)                                                                         \
	X(written_object)                                                                          \
	X(joined_by_writer)                                                                        \
	X(unawaited_writer)                                                                        \
	X(class_for_ever)                                                                          \
	X(unchecked_member)                                                                        \
	X(kept_after_own)

#define ENUMERATOR(name) name,
#define NAME(name)       #name,

enum bug { BUGS(ENUMERATOR) NONE };

static const char *const names[] = {BUGS(NAME)};
static enum bug planted = NONE; /* constant once main() runs */

enum change_kind { NO_CHANGE, WRITE, TRUNCATE, FALLOCATE, COPY };

static _Thread_local struct {
	enum change_kind kind;
	const struct cow_break *cow;
	size_t length;       /* of a write */
	uint64_t ragged_end; /* of a write over several pages: the page that it ends within */
	bool by_name;        /* a truncate to 0 without a descriptor */
	bool write_back;     /* the kernel writes back what was stored through a mapping */
} change;

static _Thread_local bool sharing;
static _Thread_local bool choosing; /* a plan, or leaving one */

__attribute__((constructor)) static void choose(void)
{
	const char *name = getenv("FOLDFS_PLANTED");
	unsigned i;

	if (!name || !*name)
		return;
	for (i = 0; i < NONE; i++) {
		if (!strcmp(name, names[i]))
			planted = (enum bug)i;
		else if (!strcmp(name, "list"))
			puts(names[i]);
	}
	if (planted != NONE)
		return;
	if (strcmp(name, "list"))
		fprintf(stderr, "foldfs-planted: there is no bug '%s'\n", name);
	exit(strcmp(name, "list") ? EXIT_FAILURE : EXIT_SUCCESS);
}

static bool is_planted(enum bug bug)
{
	return planted == bug;
}

/* Some of the threads that come here are held up for long. */
static void hold_up_some(void)
{
	static _Atomic unsigned count;

	usleep(count++ % SPARE_EVERY ? 0 : LONG_US);
}

/* ---- the linker's names ---- */

#define WRAP(type, name, ...)                                                                      \
	type __real_##name(__VA_ARGS__);                                                           \
	type __wrap_##name(__VA_ARGS__);                                                           \
	type __wrap_##name(__VA_ARGS__)

/* ---- changes of content ---- */

static void change_enter(enum change_kind kind, const struct cow_break *cow)
{
	change.kind = kind;
	change.cow = cow;
	change.length = 0;
	change.ragged_end = UINT64_MAX;
}

static void change_leave(void)
{
	change.kind = NO_CHANGE;
}

WRAP(ssize_t, source_write, struct source *source, const void *buffer, size_t length, off_t offset)
{
	static _Atomic unsigned count;

	if (is_planted(lost_source_write) && count++ % SPARE_EVERY == SPARE_EVERY - 1)
		return (ssize_t)length;
	return __real_source_write(source, buffer, length, offset);
}

/* The slots first; the source a moment later. */
static void forget_before(struct file *file, size_t length, off_t offset)
{
	fold_rcu_read_lock();
	page_map_forget(file_map(file), fold_page_of((uint64_t)offset),
			fold_pages_in((uint64_t)offset, length));
	fold_rcu_read_unlock();
	usleep(PAUSE_US);
}

WRAP(ssize_t, cow_break_write, const struct cow_break *cow, struct file *file,
     struct source *source, const void *buffer, size_t length, off_t offset,
     const struct stat *seen)
{
	uint64_t end = (uint64_t)offset + length;
	ssize_t written;

	change_enter(WRITE, cow);
	change.length = length;
	if (end % FOLD_PAGE_SIZE && fold_pages_in((uint64_t)offset, length) > 1)
		change.ragged_end = fold_page_of(end);
	if (is_planted(slots_before_source))
		forget_before(file, length, offset);
	written = __real_cow_break_write(cow, file, source, buffer, length, offset, seen);
	change_leave();
	return written;
}

WRAP(errint_t, cow_break_truncate, const struct cow_break *cow, struct file *file, int fd,
     const char *path, off_t size)
{
	errint_t error;

	change_enter(TRUNCATE, cow);
	error = __real_cow_break_truncate(cow, file, fd, path, size);
	change_leave();
	return error;
}

WRAP(errint_t, cow_break_fallocate, const struct cow_break *cow, struct file *file, int fd,
     int mode, off_t offset, off_t length)
{
	errint_t error;

	change_enter(FALLOCATE, cow);
	error = __real_cow_break_fallocate(cow, file, fd, mode, offset, length);
	change_leave();
	return error;
}

WRAP(ssize_t, cow_break_copy, const struct cow_break *cow, int fd_in, off_t offset_in,
     struct file *file, int fd_out, off_t offset_out, size_t length)
{
	ssize_t copied;

	change_enter(COPY, cow);
	copied = __real_cow_break_copy(cow, fd_in, offset_in, file, fd_out, offset_out, length);
	change_leave();
	return copied;
}

WRAP(void, fusefs_write, fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
     struct fuse_file_info *fi)
{
	change.write_back = fi->writepage;
	__real_fusefs_write(req, ino, buf, size, off, fi);
	change.write_back = false;
}

WRAP(errint_t, fusefs_truncate, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi,
     off_t size, bool kill_set_id)
{
	errint_t error;

	change.by_name = !fi && !size;
	error = __real_fusefs_truncate(req, inode, fi, size, kill_set_id);
	change.by_name = false;
	return error;
}

/* ---- what the scan had found ---- */

WRAP(void, kin_cut, struct kin *kin, uint64_t first, uint64_t last)
{
	if (!is_planted(kept_kin))
		__real_kin_cut(kin, first, last);
}

WRAP(bool, lease_is_held, const struct lease *lease)
{
	return is_planted(unseen_lease) || __real_lease_is_held(lease);
}

/* Another one's lease is taken after this one has looked for it. */
WRAP(bool, lease_opening_begin, struct lease_table *table, dev_t device, ino_t inode,
     struct lease_opening *opening)
{
	bool leased = __real_lease_opening_begin(table, device, inode, opening);

	if (is_planted(unsaid_opening) && !leased) {
		lease_opening_end(table, opening);
		(void)__real_lease_opening_begin(table, device, ~inode, opening);
		usleep(PAUSE_US);
	}
	return leased;
}

WRAP(bool, file_doubts, const struct file *file, const struct source_stamp *stamp)
{
	return !is_planted(young_stamp) && __real_file_doubts(file, stamp);
}

/* ---- the map ---- */

/* Whether the bug leaves the slots of this change as they are. */
static bool leaves_slots(void)
{
	switch (change.kind) {
	case WRITE:
		return (is_planted(missed_stream) && change.length >= STREAM) ||
		       (is_planted(slots_before_source)) ||
		       (is_planted(lost_write_back) && change.write_back);
	case TRUNCATE:
		return is_planted(missed_truncate) ||
		       (is_planted(forgotten_open_trunc) && change.by_name);
	case FALLOCATE:
		return is_planted(missed_fallocate);
	case COPY:
		return is_planted(missed_copy);
	default:
		return false;
	}
}

static bool is_left_out(uint64_t page)
{
	return leaves_slots() ||
	       (is_planted(one_page_too_few) && change.kind == WRITE && page == change.ragged_end);
}

WRAP(void, page_map_forget, struct page_map *map, uint64_t first, uint64_t count)
{
	if (change.kind != NO_CHANGE && leaves_slots())
		return;
	if (is_planted(one_page_too_few) && change.kind == WRITE &&
	    first + count - 1 == change.ragged_end)
		count--;
	if (is_planted(cut_page_kept) && change.kind == TRUNCATE)
		first++;
	__real_page_map_forget(map, first, count);
}

/* Frames that began as private ones, for as long as nobody takes them again. */
#define PRIVATE_MAX 4096u
static _Atomic bool is_private[PRIVATE_MAX];

static bool began_private(const void *bytes)
{
	const uint8_t *first = page_store_bytes(change.cow->store, 0);
	size_t frame = (size_t)((const uint8_t *)bytes - first) / FOLD_PAGE_SIZE;

	return frame < PRIVATE_MAX && is_private[frame];
}

/* The new content goes into the frame that others may share: into any, or into private ones, which
 * would be right if the index did not know them. */
static bool write_in_place(struct page_map *map, uint64_t page, struct frame_ref ref)
{
	struct page_look look;

	page_map_look(map, page, 1, &look);
	if (!look.from_pool || (is_planted(private_frame_shared) && !began_private(look.data)))
		return false;
	memcpy((void *)(uintptr_t)look.data, page_store_bytes(change.cow->store, ref.frame),
	       FOLD_PAGE_SIZE);
	return true;
}

WRAP(void, page_map_break, struct page_map *map, uint64_t page, struct frame_ref ref,
     struct frame_batch *batch)
{
	if (is_planted(lost_break) || is_left_out(page) ||
	    ((is_planted(written_in_place) || is_planted(private_frame_shared)) &&
	     write_in_place(map, page, ref)))
		page_store_drop(change.cow->store, ref, batch);
	else
		__real_page_map_break(map, page, ref, batch);
}

WRAP(void, page_map_break_zero, struct page_map *map, uint64_t page, struct frame_batch *batch)
{
	if (!is_planted(lost_zero) && !is_left_out(page))
		__real_page_map_break_zero(map, page, batch);
}

WRAP(bool, page_map_publish, struct page_map *map, uint64_t page, uint64_t ticket,
     struct frame_ref ref)
{
	if (is_planted(stale_fill))
		hold_up_some();
	if (__real_page_map_publish(map, page, ticket, ref))
		return true;
	if (!is_planted(stale_fill))
		return false;
	__real_page_map_break(map, page, ref, NULL);
	return true;
}

/* ---- reading ---- */

WRAP(void, page_read_fetch, struct page_read *read)
{
	uint64_t size = file_size(read->file);
	uint64_t page = fold_page_of(size);
	size_t kept = size % FOLD_PAGE_SIZE;

	__real_page_read_fetch(read);
	if (!is_planted(dirty_tail) || !kept || page < read->first ||
	    page >= read->first + read->pages)
		return;
	page -= read->first;
	if (read->hand[page].bytes && read->hand[page].fetched)
		memset((char *)read->hand[page].bytes + kept, 'Z', FOLD_PAGE_SIZE - kept);
}

/* Between the look and the reply: where a grace period is to protect the frames. */
WRAP(ssize_t, page_read_iov, struct page_read *read, struct iovec iov[], int *ret_count)
{
	ssize_t bytes = __real_page_read_iov(read, iov, ret_count);

	if (is_planted(no_grace_period))
		hold_up_some();
	return bytes;
}

WRAP(void, fold_rcu_synchronize, void)
{
	if (!is_planted(no_grace_period))
		__real_fold_rcu_synchronize();
}

WRAP(bool, fold_page_is_zero, const void *page)
{
	if (is_planted(zero_by_its_head))
		return !memcmp(page, fold_zero_page, sizeof(uint64_t));
	return __real_fold_page_is_zero(page);
}

/* ---- frames ---- */

WRAP(const void *, page_store_read, struct page_store *store, struct frame_ref ref)
{
	if (is_planted(lost_generation))
		return page_store_bytes(store, ref.frame);
	return __real_page_store_read(store, ref);
}

WRAP(void, page_store_digest, const struct page_store *store, const void *page,
     struct digest *ret_digest)
{
	__real_page_store_digest(store, page, ret_digest);
	if (is_planted(unverified_sharing))
		*ret_digest = (struct digest){.low = ret_digest->low & 0xff};
}

WRAP(struct hash_index_node *, hash_index_share, struct hash_index *index,
     struct hash_index_node *node, const void *page)
{
	sharing = true;
	node = __real_hash_index_share(index, node, page);
	sharing = false;
	return node;
}

WRAP(int, memcmp, const void *a, const void *b, size_t length)
{
	if (sharing && length == FOLD_PAGE_SIZE && is_planted(unverified_sharing))
		return 0;
	return __real_memcmp(a, b, length);
}

WRAP(struct frame_ref, page_store_publish_private, struct page_store *store, uint32_t frame,
     struct frame_batch *batch)
{
	struct digest digest;
	struct frame_ref ref;

	if (!is_planted(private_frame_shared) || change.kind != WRITE)
		return __real_page_store_publish_private(store, frame, batch);
	page_store_digest(store, page_store_bytes(store, frame), &digest);
	if (!page_store_publish(store, frame, &digest, batch, &ref) && ref.frame < PRIVATE_MAX)
		is_private[ref.frame] = true;
	return ref;
}

WRAP(unsigned, page_store_take, struct page_store *store, uint32_t frames[], unsigned count)
{
	unsigned taken = __real_page_store_take(store, frames, count);
	unsigned i;

	for (i = 0; i < taken; i++)
		if (frames[i] < PRIVATE_MAX)
			is_private[frames[i]] = false;
	return taken;
}

WRAP(void, page_store_give_back, struct page_store *store, uint32_t frame,
     struct frame_batch *batch)
{
	__real_page_store_give_back(store, frame, batch);
	if (is_planted(double_free))
		__real_page_store_give_back(store, frame, batch);
}

WRAP(void, page_store_drop, struct page_store *store, struct frame_ref ref,
     struct frame_batch *batch)
{
	static _Atomic unsigned count;
	bool now = count++ % SPARE_EVERY == SPARE_EVERY - 1;

	if (is_planted(leaked_user) && now)
		return;
	__real_page_store_drop(store, ref, batch);
	if (is_planted(double_drop) && now)
		__real_page_store_drop(store, ref, batch);
}

/* ---- whose content it is ---- */

WRAP(void, file_put_or_drop, struct file *file, int fd)
{
	if (!is_planted(kept_orphan))
		__real_file_put_or_drop(file, fd);
}

WRAP(errint_t, file_table_get, struct file_table *table, const struct stat *st,
     struct file **ret_file)
{
	static _Atomic unsigned count;
	struct stat other = *st;

	if (is_planted(two_files) && count++ % 2)
		other.st_dev++;
	return __real_file_table_get(table, &other, ret_file);
}

/* ---- flushes ---- */

WRAP(int, fsync, int fd)
{
	return is_planted(lost_flush) ? 0 : __real_fsync(fd);
}

WRAP(int, fdatasync, int fd)
{
	return is_planted(lost_flush) ? 0 : __real_fdatasync(fd);
}

/* ---- plans ---- */

WRAP(errint_t, plan_enter, struct plan *plan, struct plan_hold *hold, const struct plan_open *open)
{
	struct plan_open entered = *open;
	struct stat st = *open->st;
	bool joins = hold->opens && hold->kind == PLAN_SHARED;
	errint_t error;

	if (is_planted(shared_for_ever) && joins) {
		st.st_ctim = hold->sharer->shared.stamp.ctime;
		entered.st = &st;
	}
	if ((is_planted(written_object) && !hold->opens) || (is_planted(joined_by_writer) && joins))
		entered.flags = O_RDONLY;
	choosing = true;
	error = __real_plan_enter(plan, hold, &entered);
	choosing = false;
	return error;
}

WRAP(void, plan_leave, struct plan *plan, struct plan_hold *hold, struct file *file)
{
	choosing = true;
	__real_plan_leave(plan, hold, file);
	choosing = false;
}

/* Who has seen to that is believed: the stamp, which would tell at the next open, is not
 * compared. */
WRAP(void, file_forget, struct file *file)
{
	if (!is_planted(kept_after_own) || !choosing)
		__real_file_forget(file);
}

WRAP(void, plan_await, struct plan *plan, const struct stat *st)
{
	if (!is_planted(unawaited_writer))
		__real_plan_await(plan, st);
}

/* The second lock on what backs others: without it the kernel takes the first one's failure. */
WRAP(int, mount_setattr, int fd, const char *path, unsigned flags, struct mount_attr *attributes,
     size_t size)
{
	return is_planted(written_object) ? 0
					  : __real_mount_setattr(fd, path, flags, attributes, size);
}

WRAP(errint_t, catalogue_find, struct catalogue *catalogue, const struct source_stamp *stamp,
     struct catalogue_record *ret_record)
{
	struct catalogue_member file;

	if (is_planted(class_for_ever) && choosing)
		return catalogue_get(catalogue, stamp->device, stamp->inode, &file, ret_record);
	return __real_catalogue_find(catalogue, stamp, ret_record);
}

WRAP(bool, source_stamp_equal, const struct source_stamp *a, const struct source_stamp *b)
{
	return (is_planted(unchecked_member) && choosing) || is_planted(kept_after_own) ||
	       __real_source_stamp_equal(a, b);
}

/* ---- what the kernel caches ---- */

WRAP(bool, window_written, struct window_file *file, struct window_span span)
{
	return !is_planted(lost_drop) && __real_window_written(file, span);
}

WRAP(bool, window_answer_later, struct window_file *file, struct window_span span,
     struct window_patience patience, struct window_answer *answer)
{
	return !is_planted(early_answer) &&
	       __real_window_answer_later(file, span, patience, answer);
}

WRAP(void, window_wait_for_drop, struct window_file *file, struct window_span span,
     struct window_patience patience)
{
	if (!is_planted(early_answer))
		__real_window_wait_for_drop(file, span, patience);
}

/* ---- what the source did behind the mount ---- */

WRAP(errint_t, file_validate, struct file *file, int fd, bool *ret_unchanged)
{
	*ret_unchanged = true;
	if (is_planted(foreign_change_unseen))
		return 0;
	return __real_file_validate(file, fd, ret_unchanged);
}

WRAP(void, file_distrust, struct file *file)
{
	if (!is_planted(unheeded_report) && !(is_planted(kept_after_own) && choosing))
		__real_file_distrust(file);
}

WRAP(void, window_follow, struct window_file *file, uint64_t edition)
{
	if (!is_planted(stale_window))
		__real_window_follow(file, edition);
}

WRAP(bool, window_shows, const struct window_file *file, uint64_t edition)
{
	return is_planted(stale_window) || __real_window_shows(file, edition);
}
