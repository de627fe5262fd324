/* SPDX-License-Identifier: Apache-2.0 */
/* lock_whole.c - the locks of one file as a whole, and the same locks in the source */
#include "lock_whole.h"

#include <errno.h>
#include <sys/file.h>
#include <unistd.h>

const struct lock_record *lock_whole_conflict(const struct lock_list *list,
					      const struct lock_request *request)
{
	const struct lock_record *record;

	if (request->type == F_UNLCK)
		return NULL;
	cds_list_for_each_entry (record, &list->list, link)
		if (record->lock.handle != request->handle &&
		    (record->lock.type == F_WRLCK || request->type == F_WRLCK))
			return record;
	return NULL;
}

static struct lock_record *find(const struct lock_list *list, uint64_t handle)
{
	struct lock_record *record;

	cds_list_for_each_entry (record, &list->list, link)
		if (record->lock.handle == handle)
			return record;
	return NULL;
}

static errint_t set_source(int fd, short type)
{
	int operation = type == F_WRLCK ? LOCK_EX : type == F_RDLCK ? LOCK_SH : LOCK_UN;

	return TEMP_FAILURE_RETRY(flock(fd, operation | LOCK_NB)) ? -errno : 0;
}

/* Whether another handle has a lock by the same description. */
static bool is_shared(const struct lock_list *list, const struct lock_request *lock)
{
	const struct lock_record *record;

	cds_list_for_each_entry (record, &list->list, link)
		if (record->lock.fd == lock->fd && record->lock.handle != lock->handle)
			return true;
	return false;
}

/* Two handles that have locks by one description have shared ones, so what is left is the same. */
static void drop(struct lock_list *list, struct lock_record *record)
{
	/* What the source does not unlock now, it unlocks when the description is closed. */
	if (!is_shared(list, &record->lock))
		(void)set_source(record->lock.fd, F_UNLCK);
	cds_list_del(&record->link);
	lock_record_free(list->records, record);
}

bool lock_whole_drop(struct lock_list *list, uint64_t handle)
{
	struct lock_record *record = find(list, handle);

	if (record)
		drop(list, record);
	return record;
}

bool lock_whole_lose(struct lock_list *list, const struct lock_request *request)
{
	struct lock_record *record = find(list, request->handle);
	bool converts = record && record->lock.type != request->type;

	if (converts)
		drop(list, record);
	return converts;
}

static errint_t add(struct lock_list *list, const struct lock_request *request)
{
	struct lock_record *record = lock_record_new(list->records, request->user);
	errint_t error = record ? set_source(request->fd, request->type) : -ENOLCK;

	if (error) {
		if (record)
			lock_record_free(list->records, record);
		return error;
	}
	record->file = list->file;
	record->kind = list->kind;
	record->lock = *request;
	lock_record_publish(list->records, record);
	cds_list_add(&record->link, &list->list);
	return 0;
}

errint_t lock_whole_set(struct lock_list *list, const struct lock_request *request)
{
	struct lock_record *record = find(list, request->handle);
	errint_t error;

	if (request->type == F_UNLCK) {
		if (record)
			drop(list, record);
		return 0;
	}
	if (!record)
		return add(list, request);
	if (record->lock.type == request->type)
		return 0;
	/* No other handle has the file locked by the same description: either type is exclusive. */
	error = set_source(record->lock.fd, request->type);
	if (error)
		drop(list, record);
	else
		record->lock.type = request->type;
	list->lost = error;
	return error;
}

void lock_whole_revive(struct lock_list *list, struct lock_record *record)
{
	cds_list_add(&record->link, &list->list);
}

void lock_whole_settle(const struct lock_list *list, int fd)
{
	const struct lock_record *record;
	short type = F_UNLCK;

	cds_list_for_each_entry (record, &list->list, link)
		if (record->lock.fd == fd && type != F_WRLCK)
			type = record->lock.type;
	(void)set_source(fd, type);
}
