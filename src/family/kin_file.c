/* SPDX-License-Identifier: Apache-2.0 */
/* kin_file.c - the kin of a file: learnt at an open, proven while it is written, kept at its end */
#include "foldfs/kin_file.h"

#include "foldfs/file.h"
#include "foldfs/lease.h"
#include "foldfs/rcu.h"

#include <stdlib.h>

/* The most runs that are kept of a file: 16 MiB of them. */
#define RUNS_MAX ((size_t)1 << 20)

struct kin *kin_of(const struct file *file)
{
	struct kin *kin;

	fold_rcu_read_lock();
	kin = file_kin(file);
	if (kin && !kin_get(kin))
		kin = NULL;
	fold_rcu_read_unlock();
	return kin;
}

bool kin_has_writers(const struct kin *kin, const struct file *file, int fd)
{
	struct stat st;

	return !fstat(fd, &st) && writers_of(file_view(file), fd, &st) == kin_writers(kin);
}

void kin_prove(struct lease_table *leases, struct file *file, struct source *source)
{
	struct kin *kin = kin_of(file);
	int fd = source_fd(source);
	struct lease *lease;

	if (!kin)
		return;
	if (!kin_is_proven(kin) && kin_is_exact(kin, fd) && !lease_take(leases, source, &lease)) {
		/* Check again: somebody may have changed the file before the lease was taken. */
		if (kin_is_exact(kin, fd))
			kin_set_proof(kin, lease);
		else
			lease_free(lease);
	}
	kin_put(kin);
}

/* Make KIN true under the stamp that FILE, open as FD, has now, instead of *ret_was. False: KIN is
 * not known to be true now, or had that stamp already. */
static bool move_stamp(struct kin *kin, struct file *file, int fd, struct source_stamp *ret_was,
		       struct source_stamp *ret_now)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	source_stamp_of(&st, ret_now);
	return !file_doubts(file, ret_now) && kin_has_writers(kin, file, fd) &&
	       kin_move_stamp(kin, ret_now, ret_was);
}

/* KIN's runs without its cuts, the first RUNS_MAX of them; the caller frees them. NULL: no
 * memory. */
static struct catalogue_run *list_uncut(const struct kin *kin, size_t *ret_count)
{
	struct catalogue_run run;
	struct catalogue_run *runs;
	size_t count = 0;
	size_t room = 1;

	for (run.first = 0; (run.first = kin_next_uncut(kin, run.first, &run.pages)) != UINT64_MAX;
	     run.first += run.pages)
		room++;
	if (room > RUNS_MAX)
		room = RUNS_MAX;
	runs = calloc(room, sizeof(*runs));
	*ret_count = 0;
	if (!runs)
		return NULL;
	for (run.first = 0; count < room; run.first += run.pages) {
		run.first = kin_next_uncut(kin, run.first, &run.pages);
		if (run.first == UINT64_MAX)
			break;
		runs[count++] = run;
	}
	*ret_count = count;
	return runs;
}

void kin_keep(struct catalogue *catalogue, struct file *file, int fd)
{
	struct kin *kin = kin_of(file);
	struct catalogue_batch *batch;
	struct catalogue_run *runs;
	struct source_stamp was;
	struct source_stamp now;
	size_t count;

	if (!kin)
		return;
	if (move_stamp(kin, file, fd, &was, &now)) {
		runs = catalogue ? list_uncut(kin, &count) : NULL;
		if (runs && !catalogue_begin(catalogue, &batch)) {
			if (catalogue_keep_runs(batch, &was, &now, runs, count))
				catalogue_abort(batch);
			else
				(void)catalogue_commit(batch); /* on failure they are not kept */
		}
		free(runs);
	}
	kin_put(kin);
}

void kin_end_proof(struct file *file)
{
	struct kin *kin = kin_of(file);

	if (!kin)
		return;
	kin_drop_proof(kin);
	kin_put(kin);
}

struct source *kin_proven_source(const struct file *file)
{
	struct kin *kin = kin_of(file);
	struct source *source = kin ? kin_source(kin) : NULL;

	if (kin)
		kin_put(kin);
	return source;
}

void kin_learn(struct catalogue *catalogue, struct file *file, int fd)
{
	struct catalogue_run *runs;
	struct source_stamp stamp;
	struct stat st;
	struct kin *kin;
	uint64_t number;
	size_t count;

	if (!catalogue || !file_wants_kin(file) || fstat(fd, &st))
		return;
	source_stamp_of(&st, &stamp);
	if (catalogue_runs(catalogue, &stamp, &number, &runs, &count))
		return;
	kin = kin_new(file_families(file), &stamp, writers_of(file_view(file), fd, &st), number,
		      runs, count);
	free(runs);
	if (kin)
		file_set_kin(file, kin, fd);
}

static uint64_t count_uncut(const struct kin *kin)
{
	uint64_t pages = 0;
	uint64_t count = 0;
	uint64_t page = 0;

	while ((page = kin_next_uncut(kin, page, &count)) != UINT64_MAX) {
		pages += count;
		page += count;
	}
	return pages;
}

static uint64_t count_known(struct catalogue *catalogue, int fd)
{
	struct catalogue_run *runs;
	struct source_stamp stamp;
	uint64_t pages = 0;
	struct stat st;
	uint64_t number;
	size_t count;

	if (fstat(fd, &st))
		return 0;
	source_stamp_of(&st, &stamp);
	if (catalogue_runs(catalogue, &stamp, &number, &runs, &count))
		return 0;
	for (size_t i = 0; i < count; i++)
		pages += runs[i].pages;
	free(runs);
	return pages;
}

uint64_t kin_count(struct catalogue *catalogue, struct file *file, int fd)
{
	struct kin *kin;
	uint64_t pages;

	kin = file ? kin_of(file) : NULL;
	if (!kin)
		return catalogue ? count_known(catalogue, fd) : 0;
	pages = count_uncut(kin);
	kin_put(kin);
	return pages;
}
