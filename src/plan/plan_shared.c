/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_shared.c - shared passthrough: which file may back another one, and for how long
 *
 * A write into a backing file in the source shows in all files that it backs. So a file may back
 * another one only under two conditions. Everybody who may write to it must also be able to write
 * to the file that is opened (writers.h). And everybody may read it, so a client that holds an
 * equal file open sees nothing secret.
 *
 * Owner and mode are checked at this open. A lease shows that nobody has the file open for writing
 * from before. The ACL and the directories above the file are as of the scan: a client that could
 * read the file then may have held it open ever since.
 *
 * All of this is checked at each first open of a file. It is checked again for the backing file
 * when another open joins. An existing mapping keeps the file that it has; nobody can take that
 * away.
 */
#include "foldfs/lease.h"
#include "foldfs/shared_copies.h"
#include "plan_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Members of a class that are tried as its backing file before giving up. Each takes a look-up and
 * two system calls, and an open waits for them. A scan removes members that are not what they were.
 * Until then the pool still has what the others share. */
#define MEMBERS_TRIED 16u

/* ---- choosing ---- */

/* Whether the file open as FD has STAMP. */
static bool has_stamp(int fd, const struct source_stamp *stamp, struct stat *ret_st)
{
	struct source_stamp now;

	if (fstat(fd, ret_st))
		return false;
	source_stamp_of(ret_st, &now);
	return source_stamp_equal(&now, stamp);
}

/* 0 if three things are true of the file open as FD. It still has the STAMP under which it was
 * compared. WRITERS and nobody else may write to it, as then. Nobody has it open for writing, or
 * mapped so. -EBUSY if not. Another -errno: the kernel does not say, for example because it grants
 * no lease. */
static errint_t check_backing(const struct plan *plan, const struct source_stamp *stamp,
			      uint64_t writers, int fd)
{
	struct source_stamp now;
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	source_stamp_of(&st, &now);
	if (!source_stamp_equal(&now, stamp) || writers_of(&plan->view, fd, &st) != writers)
		return -EBUSY;
	return source_check_unwritten(fd);
}

/* Open MEMBER through the read-only view. -EBUSY: a client has it open for writing and nobody else
 * has it open; our open would end its lease. */
static int open_unleased(struct plan *plan, const struct catalogue_member *member)
{
	struct lease_opening opening;
	int fd = -EBUSY;

	if (!lease_opening_begin(plan->leases, member->stamp.device, member->stamp.inode, &opening))
		fd = passthrough_open_read_only(plan->passthrough, member->path);
	lease_opening_end(plan->leases, &opening);
	return fd;
}

/* The first member of CLASS that may back files of BACKS, open through the read-only view.
 * *ret_found is that member. -ENOENT if there is none. Every caller tries the members in the same
 * order. So all files of a class for which the same members may speak have the same backing
 * file. */
static int open_member(struct plan *plan, uint64_t class, uint64_t backs,
		       struct catalogue_member *ret_found)
{
	unsigned n;
	int fd;

	for (n = 0; n < MEMBERS_TRIED; n++) {
		if (catalogue_member(plan->catalogue, class, backs, n, ret_found))
			break;
		fd = open_unleased(plan, ret_found);
		if (fd < 0)
			continue;
		if (!check_backing(plan, &ret_found->stamp, backs, fd))
			return fd;
		close(fd);
	}
	return -ENOENT;
}

/* The member of CLASS that backs a file of WRITERS: a trusted member, else one with the same
 * writers. */
static int open_backing_member(struct plan *plan, uint64_t class, uint64_t writers)
{
	struct catalogue_member member;
	int fd = open_member(plan, class, WRITERS_TRUSTED, &member);

	if (fd == -ENOENT && writers != WRITERS_TRUSTED && writers != WRITERS_UNKNOWN)
		fd = open_member(plan, class, writers, &member);
	return fd;
}

/* Have a copy made of the content of RECORD's class, to which OWN belongs. The copy is made of a
 * trusted member, if there is one. If there is no copy yet (NONE), OWN will do. */
static void make_copy(struct plan *plan, const struct catalogue_record *record,
		      const struct shared_copies_source *own, bool none)
{
	struct shared_copies_source trusted = {.writers = WRITERS_TRUSTED};
	struct catalogue_member member;
	int fd = -ENOENT;

	if (own->writers != WRITERS_TRUSTED)
		fd = open_member(plan, record->class, WRITERS_TRUSTED, &member);
	if (fd >= 0) {
		trusted.fd = fd;
		trusted.stamp = member.stamp;
		shared_copies_make(plan->copies, record, &trusted);
		close(fd);
	} else if (none || own->writers == WRITERS_TRUSTED) {
		shared_copies_make(plan->copies, record, own);
	}
}

int plan_open_equal(struct plan *plan, const struct plan_open *open,
		    const struct catalogue_record *record, const struct source_stamp *stamp)
{
	const struct shared_copies_source own = {
		.fd = open->fd,
		.stamp = *stamp,
		.writers = writers_of(&plan->view, open->fd, open->st)};
	int fd;

	if (plan->read_only)
		return open_backing_member(plan, record->class, own.writers);
	if (!plan->copies || (uint64_t)stamp->size > plan->max_bytes)
		return -ENOENT;
	fd = shared_copies_open(plan->copies, record, own.writers);
	if ((fd == -ENOENT || fd == -EPERM) && !open->asks)
		make_copy(plan, record, &own, fd == -ENOENT);
	return fd;
}

/* ---- while it is open ---- */

struct plan_sharer *plan_begin_sharing(struct plan *plan, const struct plan_open *open, int fd)
{
	struct plan_sharer *sharer = malloc(sizeof(*sharer));
	struct stat st;

	if (!sharer || fstat(fd, &st)) {
		free(sharer);
		return NULL;
	}
	source_stamp_of(open->st, &sharer->shared.stamp);
	source_stamp_of(&st, &sharer->shared.backing);
	sharer->shared.backing_writers = writers_of(&plan->view, fd, &st);
	pthread_mutex_lock(&plan->sharers_lock);
	cds_list_add(&sharer->link, &plan->sharers);
	file_set_add(&plan->served, open->st->st_dev, open->st->st_ino,
		     (uint64_t)open->st->st_size);
	file_set_add(&plan->backs, st.st_dev, st.st_ino, (uint64_t)st.st_size);
	pthread_mutex_unlock(&plan->sharers_lock);
	return sharer;
}

void plan_end_sharing(struct plan *plan, struct plan_sharer *sharer)
{
	if (!sharer)
		return;
	pthread_mutex_lock(&plan->sharers_lock);
	cds_list_del(&sharer->link);
	pthread_mutex_unlock(&plan->sharers_lock);
	free(sharer);
}

void plan_equal(struct plan *plan, struct plan_equal *ret_equal)
{
	pthread_mutex_lock(&plan->sharers_lock);
	*ret_equal = (struct plan_equal){
		.files = plan->served.files,
		.backing_files = plan->backs.files,
		.memory_bytes = file_set_memory(&plan->served) + file_set_memory(&plan->backs),
	};
	if (plan->served.bytes > plan->backs.bytes)
		ret_equal->saved_bytes = plan->served.bytes - plan->backs.bytes;
	pthread_mutex_unlock(&plan->sharers_lock);
}

/* Whether ERROR says that a file is gone, or is not the file that it was. */
static bool is_gone(errint_t error)
{
	return error == -ENOENT || error == -ENOTDIR || error == -ESTALE || error == -ELOOP ||
	       error == -EXDEV;
}

/* If it cannot be told now, the answer is true: those that have the file open see the same
 * bytes. */
bool plan_is_backed_still(struct plan *plan, const struct plan_hold *hold)
{
	const struct plan_shared *shared = &hold->sharer->shared;
	errint_t error;
	int fd;

	/* Nobody can change a copy. */
	if (!plan->read_only)
		return true;
	fd = plan_open_backing(plan, shared);
	if (fd < 0)
		return !is_gone(fd);
	error = check_backing(plan, &shared->backing, shared->backing_writers, fd);
	close(fd);
	return error != -EBUSY;
}

/* ---- for the audit ---- */

errint_t plan_list_shared(struct plan *plan, struct plan_shared **ret_list, size_t *ret_count)
{
	struct plan_shared *list = NULL;
	struct plan_sharer *sharer;
	size_t count = 0;
	size_t i = 0;

	pthread_mutex_lock(&plan->sharers_lock);
	cds_list_for_each_entry (sharer, &plan->sharers, link)
		count++;
	if (count)
		list = malloc(count * sizeof(*list));
	if (list)
		cds_list_for_each_entry (sharer, &plan->sharers, link)
			list[i++] = sharer->shared;
	pthread_mutex_unlock(&plan->sharers_lock);
	if (count && !list)
		return -ENOMEM;
	*ret_list = list;
	*ret_count = count;
	return 0;
}

/* Open the copy whose inode is that of SHARED's backing file. */
static int open_backing_copy(struct plan *plan, const struct plan_shared *shared)
{
	struct catalogue_object object = {.class = 0};

	while (!catalogue_next_object(plan->catalogue, object.class, &object))
		if (object.stamp.inode == shared->backing.inode)
			return shared_copies_open_copy(plan->copies, &object);
	return -ENOENT;
}

int plan_open_backing(struct plan *plan, const struct plan_shared *shared)
{
	struct catalogue_member member;
	struct catalogue_record record;
	struct stat st;
	errint_t error;
	int fd;

	if (!plan->read_only)
		return open_backing_copy(plan, shared);
	error = catalogue_get(plan->catalogue, shared->backing.device, shared->backing.inode,
			      &member, &record);
	fd = error ? error : passthrough_open_read_only(plan->passthrough, member.path);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st))
		error = -errno;
	else if (st.st_dev != shared->backing.device || st.st_ino != shared->backing.inode)
		error = -ESTALE;
	if (!error)
		return fd;
	close(fd);
	return error;
}

int plan_open_served(struct plan *plan, const struct catalogue_object *object,
		     struct source_stamp *ret_stamp)
{
	struct catalogue_member member;
	struct stat st;
	int fd;

	for (unsigned n = 0; n < MEMBERS_TRIED; n++) {
		if (catalogue_any_member(plan->catalogue, object->class, n, &member))
			break;
		fd = open_unleased(plan, &member);
		if (fd < 0)
			continue;
		*ret_stamp = member.stamp;
		if (has_stamp(fd, &member.stamp, &st) &&
		    writers_may_speak(object->writers, writers_of(&plan->view, fd, &st)))
			return fd;
		close(fd);
	}
	return -ENOENT;
}
