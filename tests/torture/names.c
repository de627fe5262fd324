/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names.c - operations on names, and changes behind the mount
 *
 * When another inode takes a file's name, the file's epoch is increased first. From then on a
 * reader that holds nothing does not judge what it read. The old inode is checked once more through
 * the descriptors and mappings that were open before: it must still hold what the model held, and
 * take changes of its own.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void next_epoch(struct worker *w, unsigned file)
{
	atomic_fetch_add(&w->shared->models[file].epoch, 1);
}

void do_open_trunc(struct worker *w, const struct op *op)
{
	struct hold_range range;
	char path[4200];
	int fd;

	hold_all(w, op->file, &range);
	file_path(w, op->file, op->how & 1 ? ".b" : "", path, sizeof(path));
	change_begin(&w->change, w->shared, op->file);
	change_size(&w->change, 0);
	fd = open(path, O_RDWR | O_TRUNC | O_CLOEXEC);
	if (fd < 0) {
		fail(w, "open with O_TRUNC: %s", strerror(errno));
		change_undo(&w->change);
	} else {
		change_done(&w->change);
		content_fill(op->content, op->shift, 0, w->bytes, op->length);
		change_begin(&w->change, w->shared, op->file);
		change_write(&w->change, 0, w->bytes, op->length);
		if (pwrite(fd, w->bytes, op->length, 0) != (ssize_t)op->length)
			fail(w, "write after O_TRUNC: %s", strerror(errno));
		change_done(&w->change);
		close(fd);
	}
	model_unlock(w->shared, &range);
}

/* The inode that FD and ADDRESS (a mapping, NULL: none) show has lost its names; it holds what the
 * model still says, and changes through one show through the other. */
static void check_orphan(struct worker *w, const struct op *op, int fd, const uint8_t *address)
{
	uint64_t size = model_size(w->shared, op->file);
	static const char mark[] = "an inode without a name";
	char found[sizeof(mark)];
	ssize_t got = pread(fd, w->bytes, FILE_BYTES, 0);

	if (got != (ssize_t)size) {
		fail(w, "read of an open file without a name: %zd bytes of %llu", got,
		     (unsigned long long)size);
		return;
	}
	check_held(w, op->file, 0, w->bytes, size, "read of an open file without a name");
	if (address && guarded_copy(w->bytes, address, size) != size)
		fail(w, "mapping of a file without a name: bus error");
	else if (address)
		check_held(w, op->file, 0, w->bytes, size, "mapping of a file without a name");
	if (size < sizeof(mark))
		return;
	if (pwrite(fd, mark, sizeof(mark), 0) != sizeof(mark))
		fail(w, "write to a file without a name: %s", strerror(errno));
	else if (address && (guarded_copy(found, address, sizeof(mark)) != sizeof(mark) ||
			     memcmp(found, mark, sizeof(mark))))
		fail(w, "mapping of a file without a name does not show what was written to it");
}

/* Give the name PATH to what FD has open, which was made without one. */
static errint_t name_it(int fd, const char *path)
{
	char self[32];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

/* Give LENGTH bytes of w->bytes to a new inode at PATH; NAMELESS: which has no name first. */
static errint_t create(struct worker *w, const char *path, size_t length, bool nameless)
{
	int fd = nameless ? open(w->shared->mount, O_RDWR | O_TMPFILE | O_CLOEXEC, 0644)
			  : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	errint_t error = 0;

	if (fd < 0)
		return -errno;
	if (pwrite(fd, w->bytes, length, 0) != (ssize_t)length)
		error = errno ? -errno : -EIO;
	if (!error && nameless)
		error = name_it(fd, path);
	close(fd);
	return error;
}

/* FRESH comes in the place of PATH, and what PATH was has no name there any more. */
static errint_t take_place(const char *fresh, const char *path, bool exchange)
{
	if (!exchange)
		return rename(fresh, path) ? -errno : 0;
	if (renameat2(AT_FDCWD, fresh, AT_FDCWD, path, RENAME_EXCHANGE) || unlink(fresh))
		return -errno;
	return 0;
}

/* Letters at their places, from the operation's letter on. */
static void new_content(struct worker *w, const struct op *op, size_t length)
{
	size_t at;

	for (at = 0; at < length; at += PAGE) {
		uint32_t id = op->content ? op->content : 1 + (uint32_t)(at / PAGE / 8) % LETTERS;

		content_fill(id, op->shift, at, w->bytes + at, PAGE);
	}
}

/* A second name for a file that has just lost one. Linux takes a name off the number it keeps of a
 * FUSE file when the UNLINK is answered, also if another process has asked for the file's
 * attributes since it was done, and then has one too few: link(2) refuses what seems to have no
 * name (docs/posix.md, "Beside each other"). It asks again when it is made to. */
static errint_t link_back(const char *path, const char *second)
{
	struct statx asked;

	if (!link(path, second))
		return 0;
	if (errno != ENOENT || statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_NLINK, &asked))
		return -errno;
	return link(path, second) ? -errno : 0;
}

/* Model and mount: the file holds LENGTH new bytes, by both names, in a new inode. RENAME: it comes
 * over the old one; else the old one's names go first. */
static errint_t renew(struct worker *w, const struct op *op, size_t length, bool rename_over)
{
	char path[4200];
	char second[4200];
	char fresh[4200];
	errint_t error;

	file_path(w, op->file, "", path, sizeof(path));
	file_path(w, op->file, ".b", second, sizeof(second));
	file_path(w, op->file, ".new", fresh, sizeof(fresh));
	if (!rename_over && (unlink(path) || unlink(second)))
		return -errno;
	error = create(w, rename_over ? fresh : path, length,
		       rename_over && (op->how & REPLACE_TMPFILE));
	if (!error && rename_over)
		error = take_place(fresh, path, op->how & REPLACE_EXCHANGE);
	if (error)
		return error;
	if (rename_over && unlink(second))
		return -errno;
	return link_back(path, second);
}

static void replace(struct worker *w, const struct op *op, bool rename_over)
{
	size_t length = op->at + op->length;
	uint8_t *address = NULL;
	struct hold_range range;
	errint_t error;
	int old;

	hold_all(w, op->file, &range);
	old = file_open(w, op->file, FD_PLAIN);
	if (old >= 0 && (op->how & 1))
		address = file_map(w, op->file);
	if (old >= 0) {
		old = dup(old);
		next_epoch(w, op->file);
		new_content(w, op, length);
		error = renew(w, op, length, rename_over);
		if (error)
			fail(w, "%s: %s", op_name(op->kind), strerror(-error));
		else
			check_orphan(w, op, old, address);
		close(old);
		new_content(w, op, length);
		change_begin(&w->change, w->shared, op->file);
		change_size(&w->change, 0);
		change_write(&w->change, 0, w->bytes, length);
		change_done(&w->change);
		if (op->how & 2)
			file_close(w, op->file);
		atomic_fetch_add(&w->shared->bytes_written, length);
	}
	model_unlock(w->shared, &range);
}

void do_replace(struct worker *w, const struct op *op)
{
	replace(w, op, true);
}

void do_unlink(struct worker *w, const struct op *op)
{
	replace(w, op, false);
}

/* The second name goes and comes back; who has it open does not notice. */
void do_relink(struct worker *w, const struct op *op)
{
	struct hold_range range;
	char path[4200];
	char second[4200];
	errint_t error;

	hold_all(w, op->file, &range);
	file_path(w, op->file, "", path, sizeof(path));
	file_path(w, op->file, ".b", second, sizeof(second));
	error = unlink(second) ? -errno : link_back(path, second);
	if (error)
		fail(w, "second name: %s", strerror(-error));
	model_unlock(w->shared, &range);
}

/* What FD shows is all that the file holds. */
static void check_all(struct worker *w, const struct op *op, int fd, const char *how)
{
	uint64_t size = model_size(w->shared, op->file);

	if (pread(fd, w->bytes, FILE_BYTES, 0) != (ssize_t)size)
		fail(w, "%s: not %llu bytes", how, (unsigned long long)size);
	else
		check_held(w, op->file, 0, w->bytes, size, how);
}

/* Read and write it under the name PATH, which it has for a while. Opened for reading first: who
 * opens for writing what was written in passthrough stays there (docs/plans.md), and here the plan
 * is to change. */
static void use_away(struct worker *w, const struct op *op, const char *path)
{
	int reader = open(path, O_RDONLY | O_CLOEXEC);
	int writer;

	if (reader < 0) {
		fail(w, "open %s: %s", path, strerror(errno));
		return;
	}
	check_all(w, op, reader, "read under another name");
	writer = open(path, O_RDWR | O_CLOEXEC);
	content_fill(op->content, op->shift, op->at, w->bytes, op->length);
	change_begin(&w->change, w->shared, op->file);
	change_write(&w->change, op->at, w->bytes, op->length);
	if (writer < 0 || pwrite(writer, w->bytes, op->length, op->at) != (ssize_t)op->length)
		fail(w, "write under another name: %s", strerror(errno));
	change_done(&w->change);
	check_all(w, op, reader, "read of what was written under another name");
	if (writer >= 0)
		close(writer);
	close(reader);
	atomic_fetch_add(&w->shared->bytes_written, op->length);
}

/* The file has another name for a while. Where passthrough= names the first one alone, it has
 * another plan with it, if nobody else has it open. */
void do_away(struct worker *w, const struct op *op)
{
	struct hold_range range;
	char path[4200];
	char away[4200];

	hold_all(w, op->file, &range);
	file_path(w, op->file, "", path, sizeof(path));
	file_path(w, op->file, ".away", away, sizeof(away));
	file_close(w, op->file);
	file_unmap(w, op->file);
	if (rename(path, away)) {
		fail(w, "another name: %s", strerror(errno));
	} else {
		use_away(w, op, away);
		if (rename(away, path))
			fail(w, "the first name again: %s", strerror(errno));
	}
	model_unlock(w->shared, &range);
}

/* LENGTH bytes of w->bytes straight into the source. */
static errint_t write_source(struct worker *w, const struct op *op, size_t length)
{
	char path[4200];
	errint_t error = 0;
	int fd;

	source_path(w, op->file, "", path, sizeof(path));
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pwrite(fd, w->bytes, length, op->at) != (ssize_t)length)
		error = -EIO;
	close(fd);
	return error;
}

/* LENGTH bytes at AT of what the worker opens now. */
static void check_reopened(struct worker *w, const struct op *op, size_t length, const char *how)
{
	int fd = file_open(w, op->file, FD_PLAIN);

	if (fd < 0)
		return;
	if (pread(fd, w->bytes, length, op->at) != (ssize_t)length)
		fail(w, "%s: file %u: %s", how, op->file, strerror(errno));
	else
		check_held(w, op->file, op->at, w->bytes, length, how);
}

/* A change behind the mount is seen at the next open at the latest: so all who use the file open it
 * again. Its size stays, which the kernel may believe for as long as the mount's options say. What
 * is to change is read before, so that pool and kernel have it. */
static void change_behind(struct worker *w, const struct op *op, int fd, size_t length)
{
	errint_t error;

	check_reopened(w, op, length, "read before a change behind the mount");
	next_epoch(w, op->file);
	content_fill(op->content, op->shift, op->at, w->bytes, length);
	change_begin(&w->change, w->shared, op->file);
	change_write(&w->change, op->at, w->bytes, length);
	error = file_write_back(fd);
	if (!error)
		error = write_source(w, op, length);
	if (error)
		fail(w, "change behind the mount: %s", strerror(-error));
	change_done(&w->change);
	check_reopened(w, op, length, "open after a change behind the mount");
}

void do_behind(struct worker *w, const struct op *op)
{
	struct hold_range range;
	uint64_t size;
	int fd;

	hold_all(w, op->file, &range);
	size = model_size(w->shared, op->file);
	fd = file_open(w, op->file, FD_PLAIN);
	if (fd >= 0 && op->at < size)
		change_behind(w, op, fd,
			      op->length < size - op->at ? op->length : (size_t)(size - op->at));
	model_unlock(w->shared, &range);
}

void do_reopen(struct worker *w, const struct op *op)
{
	file_close(w, op->file);
	if (op->how & 1)
		file_unmap(w, op->file);
}
