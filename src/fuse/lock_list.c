/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock_list.c - the ranges of one file that clients have locked, and the same ranges in the source
 *
 * A change asks the source first, and changes the list when the source has agreed. The range of a
 * request is cut into pieces: those that its owner has locked already, and the gaps between them.
 *
 * Nearly always all pieces are to be held by one description. Then the source is asked by one call,
 * which succeeds or fails as a whole, and converts a lock without letting go of it.
 *
 * An owner has pieces at several descriptions only if a process locks one file by several opens of
 * its own. A piece that he has stays with the description that has it. Gaps come first, because the
 * source may refuse them, and are given back if it refuses a later piece. Giving back and making
 * weaker cannot be refused.
 *
 * The exception: a description that was opened for reading alone cannot hold a lock for writing,
 * and one for writing alone none for reading. Such a piece moves to the description of the request.
 * Two descriptions cannot hold it at once, so the first one lets go before the second one takes it.
 * If somebody in the source takes it in between, the owner has lost that piece.
 */
#include "lock_list.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* A part of a request's range. */
struct piece {
	off_t first;
	off_t last;
	short before;    /* what the owner has there; F_UNLCK: a gap */
	int fd;          /* the description that is to hold it */
	uint64_t handle; /* goes with it */
	int old_fd;      /* the description that has it; -1: it need not move */
	bool taken;
	bool lost; /* no description has it any more */
};

struct pieces {
	size_t count;
	struct piece at[];
};

void lock_list_init(struct lock_list *list, struct lock_records *records, uint64_t file,
		    enum lock_kind kind)
{
	CDS_INIT_LIST_HEAD(&list->list);
	list->records = records;
	list->file = file;
	list->kind = kind;
	list->lost = false;
}

static bool meets(const struct lock_record *record, off_t first, off_t last)
{
	return record->lock.first <= last && first <= record->lock.last;
}

static bool is_own(const struct lock_record *record, uint64_t owner, off_t first, off_t last)
{
	return record->lock.owner == owner && meets(record, first, last);
}

const struct lock_record *lock_list_conflict(const struct lock_list *list,
					     const struct lock_request *request)
{
	const struct lock_record *record;

	if (request->type == F_UNLCK)
		return NULL;
	cds_list_for_each_entry (record, &list->list, link)
		if (record->lock.owner != request->owner &&
		    meets(record, request->first, request->last) &&
		    (record->lock.type == F_WRLCK || request->type == F_WRLCK))
			return record;
	return NULL;
}

/* ---- the source ---- */

static struct flock flock_of(short type, off_t first, off_t last)
{
	return (struct flock){
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = first,
		.l_len = last == LOCK_TO_THE_END ? 0 : last - first + 1,
	};
}

static errint_t set_source(int fd, short type, off_t first, off_t last)
{
	struct flock lock = flock_of(type, first, last);

	if (!TEMP_FAILURE_RETRY(fcntl(fd, F_OFD_SETLK, &lock)))
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

/* OWNER has no lock on this range of FD's any more. Unlock what no other owner has by the same
 * description. */
static errint_t leave_source(const struct lock_list *list, uint64_t owner, int fd, off_t first,
			     off_t last)
{
	const struct lock_record *record;
	errint_t error = 0;

	cds_list_for_each_entry (record, &list->list, link) {
		if (record->lock.fd != fd || record->lock.owner == owner ||
		    !meets(record, first, last))
			continue;
		if (!error && record->lock.first > first)
			error = set_source(fd, F_UNLCK, first, record->lock.first - 1);
		if (record->lock.last >= last)
			return error;
		first = record->lock.last + 1;
	}
	return error ? error : set_source(fd, F_UNLCK, first, last);
}

/* Whether a lock of TYPE can be held by a description with FD's access. */
static bool can_hold(int fd, short type)
{
	int access = fcntl(fd, F_GETFL) & O_ACCMODE;

	return access == O_RDWR || access == (type == F_WRLCK ? O_WRONLY : O_RDONLY);
}

/* ---- records ---- */

static void records_free(struct lock_list *list, struct cds_list_head *records)
{
	struct lock_record *record;
	struct lock_record *next;

	cds_list_for_each_entry_safe (record, next, records, link)
		lock_record_free(list->records, record);
	CDS_INIT_LIST_HEAD(records);
}

/* Have COUNT records ready, so that a change that the source has agreed to cannot fail. */
static errint_t reserve(struct lock_list *list, uid_t user, size_t count,
			struct cds_list_head *ret_spare)
{
	while (count--) {
		struct lock_record *record = lock_record_new(list->records, user);

		if (!record) {
			records_free(list, ret_spare);
			return -ENOLCK;
		}
		cds_list_add(&record->link, ret_spare);
	}
	return 0;
}

static void insert(struct lock_list *list, struct lock_record *record)
{
	struct lock_record *after;

	cds_list_for_each_entry (after, &list->list, link)
		if (after->lock.first > record->lock.first)
			break;
	/* If no record is behind it, `after` stands for the head of the list. */
	cds_list_add_tail(&record->link, &after->link);
}

/* A copy of LOCK for this range, made of a record of SPARE, and published. */
static struct lock_record *make(struct lock_list *list, struct cds_list_head *spare,
				const struct lock_request *lock, off_t first, off_t last)
{
	struct lock_record *record = cds_list_first_entry(spare, struct lock_record, link);
	uid_t user = record->lock.user;

	cds_list_del(&record->link);
	record->file = list->file;
	record->kind = list->kind;
	record->lock = *lock;
	record->lock.user = user;
	record->lock.first = first;
	record->lock.last = last;
	lock_record_publish(list->records, record);
	return record;
}

/* Whether a record of OWNER goes on at both ends of the range. Then carving it out leaves two. */
static bool is_split(const struct lock_list *list, uint64_t owner, off_t first, off_t last)
{
	const struct lock_record *record;

	cds_list_for_each_entry (record, &list->list, link)
		if (is_own(record, owner, first, last))
			return record->lock.first < first && record->lock.last > last;
	return false;
}

/* Take the range out of OWNER's records. If it splits one, SPARE has a record for that. */
static void carve(struct lock_list *list, uint64_t owner, off_t first, off_t last,
		  struct cds_list_head *spare)
{
	struct lock_record *record;
	struct lock_record *next;

	cds_list_for_each_entry_safe (record, next, &list->list, link) {
		if (!is_own(record, owner, first, last))
			continue;
		if (record->lock.first < first) {
			if (record->lock.last > last)
				insert(list, make(list, spare, &record->lock, last + 1,
						  record->lock.last));
			record->lock.last = first - 1;
		} else if (record->lock.last > last) {
			record->lock.first = last + 1;
			cds_list_del(&record->link);
			insert(list, record);
			/* No further one of this owner's begins before that. */
			return;
		} else {
			cds_list_del(&record->link);
			lock_record_free(list->records, record);
		}
	}
}

/* Join neighbours of OWNER that are alike, as the kernel does. */
static void join(struct lock_list *list, uint64_t owner)
{
	struct lock_record *last = NULL;
	struct lock_record *record;
	struct lock_record *next;

	cds_list_for_each_entry_safe (record, next, &list->list, link) {
		if (record->lock.owner != owner)
			continue;
		if (last && last->lock.last + 1 == record->lock.first &&
		    last->lock.type == record->lock.type &&
		    last->lock.handle == record->lock.handle) {
			last->lock.last = record->lock.last;
			cds_list_del(&record->link);
			lock_record_free(list->records, record);
		} else {
			last = record;
		}
	}
}

/* ---- pieces ---- */

static void add_piece(struct pieces *pieces, const struct lock_request *request, off_t first,
		      off_t last, const struct lock_record *has)
{
	struct piece *piece = &pieces->at[pieces->count++];
	bool stays = has && can_hold(has->lock.fd, request->type);

	*piece = (struct piece){
		.first = first,
		.last = last,
		.before = has ? has->lock.type : F_UNLCK,
		.fd = stays ? has->lock.fd : request->fd,
		.handle = stays ? has->lock.handle : request->handle,
		.old_fd = !has || stays ? -1 : has->lock.fd,
	};
}

/* Cut the range of REQUEST into pieces; the caller frees them. NULL: no memory. */
static struct pieces *cut(const struct lock_list *list, const struct lock_request *request)
{
	const struct lock_record *record;
	off_t at = request->first;
	struct pieces *pieces;
	size_t count = 0;

	cds_list_for_each_entry (record, &list->list, link)
		count += is_own(record, request->owner, request->first, request->last);
	pieces = calloc(1, sizeof(*pieces) + (2 * count + 1) * sizeof(pieces->at[0]));
	if (!pieces)
		return NULL;
	cds_list_for_each_entry (record, &list->list, link) {
		if (!is_own(record, request->owner, request->first, request->last))
			continue;
		if (record->lock.first > at) {
			add_piece(pieces, request, at, record->lock.first - 1, NULL);
			at = record->lock.first;
		}
		if (record->lock.last >= request->last) {
			add_piece(pieces, request, at, request->last, record);
			return pieces;
		}
		add_piece(pieces, request, at, record->lock.last, record);
		at = record->lock.last + 1;
	}
	add_piece(pieces, request, at, request->last, NULL);
	return pieces;
}

static bool are_at_one_description(const struct pieces *pieces)
{
	for (size_t i = 0; i < pieces->count; i++)
		if (pieces->at[i].fd != pieces->at[0].fd || pieces->at[i].old_fd >= 0)
			return false;
	return true;
}

/* Have the description of PIECE hold it with the type of REQUEST. */
static errint_t take(const struct lock_list *list, const struct lock_request *request,
		     struct piece *piece)
{
	errint_t error;

	if (piece->before == request->type && piece->old_fd < 0)
		return 0;
	if (piece->old_fd >= 0)
		(void)leave_source(list, request->owner, piece->old_fd, piece->first, piece->last);
	error = set_source(piece->fd, request->type, piece->first, piece->last);
	if (error && piece->old_fd >= 0)
		piece->lost = set_source(piece->old_fd, piece->before, piece->first, piece->last);
	piece->taken = !error;
	return error;
}

/* Undo what take() has done. */
static void give_back(const struct lock_list *list, const struct lock_request *request,
		      struct piece *piece)
{
	if (!piece->taken)
		return;
	if (piece->before == F_UNLCK || piece->old_fd >= 0)
		(void)leave_source(list, request->owner, piece->fd, piece->first, piece->last);
	if (piece->before != F_UNLCK)
		piece->lost = set_source(piece->old_fd >= 0 ? piece->old_fd : piece->fd,
					 piece->before, piece->first, piece->last);
}

/* Gaps first, what has to move last. */
static unsigned stage_of(const struct piece *piece)
{
	return piece->old_fd >= 0 ? 2 : piece->before != F_UNLCK;
}

static errint_t take_all(const struct lock_list *list, const struct lock_request *request,
			 struct pieces *pieces)
{
	errint_t error = 0;

	if (are_at_one_description(pieces))
		return set_source(pieces->at[0].fd, request->type, request->first, request->last);
	for (unsigned stage = 0; stage < 3; stage++)
		for (size_t i = 0; i < pieces->count && !error; i++)
			if (stage_of(&pieces->at[i]) == stage)
				error = take(list, request, &pieces->at[i]);
	for (size_t i = 0; i < pieces->count && error; i++)
		give_back(list, request, &pieces->at[i]);
	return error;
}

/* ---- changes ---- */

static void put_pieces(struct lock_list *list, const struct lock_request *request,
		       const struct pieces *pieces, struct cds_list_head *spare)
{
	struct lock_request lock = *request;
	struct lock_record *record;
	struct lock_record *next;
	CDS_LIST_HEAD(made);

	for (size_t i = 0; i < pieces->count; i++) {
		lock.fd = pieces->at[i].fd;
		lock.handle = pieces->at[i].handle;
		record = make(list, spare, &lock, pieces->at[i].first, pieces->at[i].last);
		cds_list_add_tail(&record->link, &made);
	}
	carve(list, request->owner, request->first, request->last, spare);
	cds_list_for_each_entry_safe (record, next, &made, link)
		insert(list, record);
	join(list, request->owner);
}

/* The source has refused REQUEST. Forget what was lost on the way. */
static void forget_lost(struct lock_list *list, const struct lock_request *request,
			const struct pieces *pieces, struct cds_list_head *spare)
{
	for (size_t i = 0; i < pieces->count; i++) {
		if (!pieces->at[i].lost)
			continue;
		carve(list, request->owner, pieces->at[i].first, pieces->at[i].last, spare);
		list->lost = true;
	}
}

static errint_t lock(struct lock_list *list, const struct lock_request *request)
{
	struct pieces *pieces = cut(list, request);
	CDS_LIST_HEAD(spare);
	size_t splits;
	errint_t error;

	if (!pieces)
		return -ENOLCK;
	/* Pieces that are lost may split a record at either end of the range. */
	splits = !are_at_one_description(pieces)                                 ? 2
		 : is_split(list, request->owner, request->first, request->last) ? 1
										 : 0;
	error = reserve(list, request->user, pieces->count + splits, &spare);
	if (!error) {
		error = take_all(list, request, pieces);
		if (error)
			forget_lost(list, request, pieces, &spare);
		else
			put_pieces(list, request, pieces, &spare);
	}
	records_free(list, &spare);
	free(pieces);
	return error;
}

static errint_t unlock(struct lock_list *list, const struct lock_request *request)
{
	const struct lock_record *record;
	CDS_LIST_HEAD(spare);
	errint_t error;

	error = reserve(list, request->user,
			is_split(list, request->owner, request->first, request->last), &spare);
	cds_list_for_each_entry (record, &list->list, link) {
		off_t first = record->lock.first, last = record->lock.last;

		if (error || !is_own(record, request->owner, request->first, request->last))
			continue;
		error = leave_source(list, request->owner, record->lock.fd,
				     first > request->first ? first : request->first,
				     last < request->last ? last : request->last);
	}
	if (!error)
		carve(list, request->owner, request->first, request->last, &spare);
	records_free(list, &spare);
	return error;
}

errint_t lock_list_set(struct lock_list *list, const struct lock_request *request)
{
	return request->type == F_UNLCK ? unlock(list, request) : lock(list, request);
}

/* ---- questions ---- */

static void tell(const struct lock_request *lock, struct flock *ret_found)
{
	*ret_found = flock_of(lock->type, lock->first, lock->last);
	ret_found->l_pid = lock->pid;
}

/* Ask the source who is in the way of REQUEST there. */
static errint_t ask_source(const struct lock_list *list, const struct lock_request *request,
			   struct flock *ret_found)
{
	struct pieces *pieces = cut(list, request);
	errint_t error = 0;

	if (!pieces)
		return -ENOLCK;
	/* A description does not find its own locks in its way. So each piece is asked about by the
	 * one that has it. */
	for (size_t i = 0; i < pieces->count && !error && ret_found->l_type == F_UNLCK; i++) {
		const struct piece *piece = &pieces->at[i];

		*ret_found = flock_of(request->type, piece->first, piece->last);
		if (fcntl(piece->old_fd >= 0 ? piece->old_fd : piece->fd, F_OFD_GETLK, ret_found))
			error = -errno;
	}
	free(pieces);
	return error;
}

/* The first lock that the owner of REQUEST has in its range. */
static const struct lock_record *first_own(const struct lock_list *list,
					   const struct lock_request *request)
{
	const struct lock_record *record;

	cds_list_for_each_entry (record, &list->list, link)
		if (is_own(record, request->owner, request->first, request->last))
			return record;
	return NULL;
}

errint_t lock_list_ask(const struct lock_list *list, const struct lock_request *request,
		       struct flock *ret_found)
{
	bool own = request->type == F_UNLCK;
	const struct lock_record *found =
		own ? first_own(list, request) : lock_list_conflict(list, request);

	*ret_found = (struct flock){.l_type = F_UNLCK};
	if (found)
		tell(&found->lock, ret_found);
	return found || own ? 0 : ask_source(list, request, ret_found);
}

/* ---- ends ---- */

static void drop(struct lock_list *list, struct lock_record *record)
{
	cds_list_del(&record->link);
	/* What the source does not unlock now, it unlocks when the description is closed. */
	(void)leave_source(list, record->lock.owner, record->lock.fd, record->lock.first,
			   record->lock.last);
	lock_record_free(list->records, record);
}

bool lock_list_drop_owner(struct lock_list *list, uint64_t owner)
{
	struct lock_record *record;
	struct lock_record *next;
	bool found = false;

	cds_list_for_each_entry_safe (record, next, &list->list, link) {
		if (record->lock.owner != owner)
			continue;
		drop(list, record);
		found = true;
	}
	return found;
}

bool lock_list_drop_handle(struct lock_list *list, uint64_t handle)
{
	struct lock_record *record;
	struct lock_record *next;
	bool found = false;

	cds_list_for_each_entry_safe (record, next, &list->list, link) {
		if (record->lock.handle != handle)
			continue;
		drop(list, record);
		found = true;
	}
	return found;
}

void lock_list_note_close(struct lock_list *list, uint64_t handle, int64_t now_ms)
{
	struct lock_record *record;

	cds_list_for_each_entry (record, &list->list, link)
		if (record->lock.handle == handle)
			record->closed_ms = now_ms;
}

/* ---- after a takeover ---- */

errint_t lock_list_revive(struct lock_list *list, struct lock_record *record)
{
	const struct lock_request *lock = &record->lock;
	CDS_LIST_HEAD(spare);
	errint_t error;

	if (!record->clashes) {
		cds_list_add_tail(&record->link, &list->list);
		return 0;
	}
	/* A younger record is right where both are. */
	error = reserve(list, lock->user, is_split(list, lock->owner, lock->first, lock->last),
			&spare);
	if (!error) {
		carve(list, lock->owner, lock->first, lock->last, &spare);
		insert(list, record);
	}
	records_free(list, &spare);
	return error;
}

void lock_list_settle(const struct lock_list *list, int fd)
{
	const struct lock_record *record;
	off_t at = 0; /* up to here the source has no more than the records */
	bool all = false;

	cds_list_for_each_entry (record, &list->list, link) {
		if (record->lock.fd != fd)
			continue;
		if (!all && record->lock.first > at)
			(void)set_source(fd, F_UNLCK, at, record->lock.first - 1);
		all |= record->lock.last == LOCK_TO_THE_END;
		if (!all && record->lock.last >= at)
			at = record->lock.last + 1;
	}
	if (!all)
		(void)set_source(fd, F_UNLCK, at, LOCK_TO_THE_END);
	cds_list_for_each_entry (record, &list->list, link)
		if (record->lock.fd == fd)
			(void)set_source(fd, record->lock.type, record->lock.first,
					 record->lock.last);
}
