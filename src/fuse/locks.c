/* SPDX-License-Identifier: Apache-2.0 */
/*
 * locks.c - the locks that clients have on files, and those who wait for one
 *
 * Two kinds of locks. A file's lock protects its lists of what is locked, and is held while the
 * source is asked about that file. So it may be held for as long as the source's file system takes,
 * and a thread that must not wait only tries to take it. The table's lock protects everything else,
 * the lists of who waits among it, and is held for some instructions only. It is taken under a
 * file's lock.
 *
 * Invariants:
 *  L.1  What changes a file's lists in a way that may let somebody go on tries all who wait for
 *       that file before it gives up the file's lock. So nobody waits for a client who has let go.
 *  L.2  A wait leaves its file's list once, for a list of answers, under the table's lock. It then
 *       belongs to the thread that has that list. A wait that is being tried (`trying`) is left in
 *       its file's list, and the thread that tries it looks whether it was interrupted.
 *  L.3  A file with waits for somebody in the source has a moment for the next try.
 *
 * A deadlock is found as the kernel finds it: from the owner who is in the way to whom that one
 * waits for, and so on, some steps far. The kernel does this for F_SETLKW alone. A request does not
 * say whether its owner is a process or an open file, so here it is done for F_OFD_SETLKW too.
 * Waiting for somebody in the source has no such end, as on any network file system.
 */
#include "locks.h"

#include "foldfs/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define BUCKETS 1024u
/* All users together: less than 2 MiB. */
#define WAITING_MAX     4096u
#define WAITING_RESERVE 256u
/* Pauses between two questions to the source, in milliseconds. */
#define PAUSE_MIN 1u
#define PAUSE_MAX 32u
/* How long after the close of a descriptor its RELEASE is waited for, in milliseconds. */
#define RELEASE_MS 50
/* How long an answer may be delayed, in milliseconds. */
#define DELAY_MS 1000
/* How far a deadlock is looked for, as in the kernel. */
#define DEADLOCK_STEPS 10u

struct lock_file {
	struct lock_file *next; /* in its bucket; under the table's lock, like all before `lock` */
	uint64_t number;        /* constant */
	unsigned users;         /* threads that have a pointer to it */
	unsigned waiting;       /* waits in `waits` */
	struct cds_list_head waits; /* in the order in which they came */
	struct cds_list_head timed; /* in the table's list, if next_ms is not 0 */
	int64_t next_ms;            /* when the source is asked again; 0: it is not */
	unsigned pause_ms;

	pthread_mutex_t lock; /* held while the source is asked; protects the two lists */
	struct lock_list ranges;
	struct lock_list whole;
};

struct locks {
	struct lock_records *records; /* constant; has locks of its own, like the next */
	struct shares *waiting;       /* constant */
	_Atomic size_t files;         /* how many there are; written under lock */
	pthread_t thread;             /* the owner's, like the next */
	bool started;
	pthread_mutex_t lock; /* taken under a file's lock; all below is under it */
	pthread_cond_t wake;
	bool stopping;
	struct cds_list_head waits[BUCKETS]; /* those in files' lists, by owner */
	struct cds_list_head timed;          /* files */
	struct cds_list_head delayed;        /* waits that have their lock: locks_delay() */
	struct cds_list_head answers;        /* waits that the thread has to answer */
	struct lock_file *buckets[BUCKETS];
};

/* Who is in the way of a request. */
struct obstacle {
	uint64_t owner;    /* 0: not known */
	int64_t closed_ms; /* lock_record.closed_ms */
	bool silent;       /* lock_request.silent */
	bool in_source;
};

/* ---- files ---- */

static struct lock_file **bucket_of(struct locks *locks, uint64_t number)
{
	return &locks->buckets[number % BUCKETS];
}

static struct lock_file *file_new(struct locks *locks, uint64_t number)
{
	struct lock_file *file = calloc(1, sizeof(*file));

	if (!file)
		return NULL;
	file->number = number;
	CDS_INIT_LIST_HEAD(&file->waits);
	pthread_mutex_init(&file->lock, NULL);
	lock_list_init(&file->ranges, locks->records, number, LOCK_RANGE);
	lock_list_init(&file->whole, locks->records, number, LOCK_WHOLE);
	return file;
}

static void file_free(struct lock_file *file)
{
	pthread_mutex_destroy(&file->lock);
	free(file);
}

/* The file with NUMBER, for the caller to use; MAKE: make it if there is none. NULL: there is
 * none. */
static struct lock_file *file_get(struct locks *locks, uint64_t number, bool make)
{
	struct lock_file **bucket = bucket_of(locks, number);
	struct lock_file *file;

	pthread_mutex_lock(&locks->lock);
	for (file = *bucket; file && file->number != number; file = file->next)
		;
	if (!file && make) {
		file = file_new(locks, number);
		if (file) {
			file->next = *bucket;
			*bucket = file;
			atomic_fetch_add_explicit(&locks->files, 1, memory_order_relaxed);
		}
	}
	if (file)
		file->users++;
	pthread_mutex_unlock(&locks->lock);
	return file;
}

/* Only users change the lists, so the last one may look at them without the file's lock. */
static bool is_idle_locked(struct lock_file *file)
{
	return !file->users && !file->waiting && cds_list_empty(&file->ranges.list) &&
	       cds_list_empty(&file->whole.list);
}

static void schedule_locked(struct locks *locks, struct lock_file *file, int64_t at_ms)
{
	if (file->next_ms && (!at_ms || at_ms >= file->next_ms)) {
		if (at_ms)
			return;
		cds_list_del(&file->timed);
	} else if (!file->next_ms && at_ms) {
		cds_list_add(&file->timed, &locks->timed);
	}
	file->next_ms = at_ms;
	if (at_ms)
		pthread_cond_signal(&locks->wake);
}

static void file_put(struct locks *locks, struct lock_file *file)
{
	struct lock_file **link = bucket_of(locks, file->number);
	bool idle;

	pthread_mutex_lock(&locks->lock);
	file->users--;
	idle = is_idle_locked(file);
	if (idle) {
		while (*link != file)
			link = &(*link)->next;
		*link = file->next;
		schedule_locked(locks, file, 0);
		atomic_fetch_sub_explicit(&locks->files, 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&locks->lock);
	if (idle)
		file_free(file);
}

/* ---- one attempt, under the file's lock ---- */

static struct obstacle obstacle_of(const struct lock_record *record)
{
	return (struct obstacle){
		.owner = record->lock.owner,
		.closed_ms = record->closed_ms,
		.silent = record->lock.silent,
	};
}

/* -EAGAIN: somebody is in the way. The question has its answer all the same. */
static errint_t question(struct lock_file *file, struct lock_wait *wait,
			 struct obstacle *ret_obstacle)
{
	const struct lock_record *conflict = lock_list_conflict(&file->ranges, &wait->request);
	errint_t error = lock_list_ask(&file->ranges, &wait->request, &wait->found);

	if (error || !conflict)
		return error;
	*ret_obstacle = obstacle_of(conflict);
	return -EAGAIN;
}

static errint_t set_range(struct lock_file *file, const struct lock_wait *wait,
			  struct obstacle *ret_obstacle)
{
	const struct lock_record *conflict = lock_list_conflict(&file->ranges, &wait->request);
	errint_t error;

	if (conflict) {
		*ret_obstacle = obstacle_of(conflict);
		return -EAGAIN;
	}
	error = lock_list_set(&file->ranges, &wait->request);
	ret_obstacle->in_source = error == -EAGAIN;
	return error;
}

static errint_t set_whole(struct lock_file *file, const struct lock_wait *wait,
			  struct obstacle *ret_obstacle)
{
	const struct lock_record *conflict = lock_whole_conflict(&file->whole, &wait->request);
	errint_t error;

	if (conflict) {
		*ret_obstacle = obstacle_of(conflict);
		/* No deadlock is looked for, so it does not matter whose it is. */
		ret_obstacle->owner = 0;
		file->whole.lost = lock_whole_lose(&file->whole, &wait->request);
		return -EAGAIN;
	}
	error = lock_whole_set(&file->whole, &wait->request);
	ret_obstacle->in_source = error == -EAGAIN;
	return error;
}

/* Try to do what WAIT asks for. -EAGAIN: *RET_OBSTACLE is in the way. *RET_LESS: somebody has less
 * than before, so others may go on. */
static errint_t attempt(struct lock_file *file, struct lock_wait *wait,
			struct obstacle *ret_obstacle, bool *ret_less)
{
	errint_t error;

	*ret_obstacle = (struct obstacle){0};
	*ret_less = false;
	if (wait->questions)
		return question(file, wait, ret_obstacle);
	error = wait->kind == LOCK_WHOLE ? set_whole(file, wait, ret_obstacle)
					 : set_range(file, wait, ret_obstacle);
	/* A lock for writing is never less than what was there. */
	*ret_less = error ? file->ranges.lost || file->whole.lost : wait->request.type != F_WRLCK;
	file->ranges.lost = file->whole.lost = false;
	return error;
}

/* ---- waiting ---- */

/* Until when WAIT may wait for OBSTACLE; 0: not at all. */
static int64_t patience(struct lock_wait *wait, const struct obstacle *obstacle)
{
	int64_t now_ms, closed_ms = obstacle->closed_ms;

	if (wait->blocks)
		return INT64_MAX;
	if (!closed_ms && !obstacle->silent)
		return 0;
	now_ms = clock_now_ms();
	if (!wait->since_ms)
		wait->since_ms = now_ms;
	/* It may have been closed just before this request was sent. */
	if (obstacle->silent)
		closed_ms = wait->since_ms;
	return closed_ms + RELEASE_MS > now_ms ? closed_ms + RELEASE_MS : 0;
}

/* What an attempt that ended with ERROR comes to. */
static errint_t settled(const struct lock_wait *wait, errint_t error)
{
	return wait->questions && error == -EAGAIN ? 0 : error;
}

/* WAIT, in FILE's list, has met OBSTACLE, and waits until UNTIL_MS. */
static void note_obstacle_locked(struct locks *locks, struct lock_file *file,
				 struct lock_wait *wait, const struct obstacle *obstacle,
				 int64_t until_ms)
{
	wait->blocker = obstacle->owner;
	if (obstacle->in_source)
		schedule_locked(locks, file, clock_now_ms() + file->pause_ms);
	else if (until_ms != INT64_MAX)
		schedule_locked(locks, file, until_ms);
}

/* A wait of OWNER for a range that another client has. */
static const struct lock_wait *wait_of_locked(const struct locks *locks, uint64_t owner)
{
	const struct lock_wait *wait;

	cds_list_for_each_entry (wait, &locks->waits[owner % BUCKETS], by_owner)
		if (wait->blocker && wait->request.owner == owner)
			return wait;
	return NULL;
}

/* Whether the owner of WAIT would wait for himself if it waited for OBSTACLE. */
static bool is_deadlock_locked(const struct locks *locks, const struct lock_wait *wait,
			       const struct obstacle *obstacle)
{
	uint64_t owner = obstacle->owner;
	const struct lock_wait *other;

	if (!wait->blocks || !owner)
		return false;
	for (unsigned step = 0; step < DEADLOCK_STEPS; step++) {
		other = wait_of_locked(locks, owner);
		if (!other)
			return false;
		owner = other->blocker;
		if (owner == wait->request.owner)
			return true;
	}
	return false;
}

static void leave_locked(struct locks *locks, struct lock_wait *wait, errint_t result,
			 struct cds_list_head *answers)
{
	cds_list_del(&wait->by_owner);
	cds_list_del(&wait->link);
	cds_list_add_tail(&wait->link, answers);
	wait->waits = false;
	wait->blocker = 0;
	wait->result = result;
	wait->file->waiting--;
	shares_give(locks->waiting, wait->request.user, 1);
}

/* Put WAIT, which OBSTACLE is in the way of, into FILE's list. -EINPROGRESS: it is there. */
static errint_t enter_locked(struct locks *locks, struct lock_file *file, struct lock_wait *wait,
			     const struct obstacle *obstacle, int64_t until_ms)
{
	if (wait->stopped)
		return -EINTR;
	if (locks->stopping)
		return -ENOTCONN;
	if (is_deadlock_locked(locks, wait, obstacle))
		return -EDEADLK;
	if (shares_take(locks->waiting, wait->request.user, 1))
		return wait->blocks ? -ENOLCK : settled(wait, -EAGAIN);
	wait->waits = true;
	cds_list_add_tail(&wait->link, &file->waits);
	cds_list_add(&wait->by_owner, &locks->waits[wait->request.owner % BUCKETS]);
	file->waiting++;
	file->pause_ms = PAUSE_MIN;
	note_obstacle_locked(locks, file, wait, obstacle, until_ms);
	return -EINPROGRESS;
}

/* WAIT has met OBSTACLE. Returns its result, or -EINPROGRESS: it waits. Under FILE's lock. */
static errint_t stay(struct locks *locks, struct lock_file *file, struct lock_wait *wait,
		     const struct obstacle *obstacle)
{
	int64_t until_ms = patience(wait, obstacle);
	errint_t error;

	if (!until_ms)
		return settled(wait, -EAGAIN);
	wait->file = file;
	wait->arm(wait);
	pthread_mutex_lock(&locks->lock);
	error = enter_locked(locks, file, wait, obstacle, until_ms);
	pthread_mutex_unlock(&locks->lock);
	return error;
}

/* ---- rounds: all who wait for a file are tried ---- */

/* Try WAIT, which is in FILE's list. Meanwhile the table's lock is given up. *RET_NEXT: the place
 * behind it. Returns whether somebody has less than before. */
static bool try_waiting_locked(struct locks *locks, struct lock_file *file, struct lock_wait *wait,
			       struct cds_list_head *answers, struct cds_list_head **ret_next)
{
	struct obstacle obstacle;
	int64_t until_ms;
	errint_t error;
	bool less;

	wait->trying = true;
	pthread_mutex_unlock(&locks->lock);
	error = attempt(file, wait, &obstacle, &less);
	until_ms = error == -EAGAIN ? patience(wait, &obstacle) : 0;
	pthread_mutex_lock(&locks->lock);
	wait->trying = false;
	*ret_next = wait->link.next;
	if (!until_ms)
		leave_locked(locks, wait, settled(wait, error), answers);
	else if (wait->stopped)
		leave_locked(locks, wait, -EINTR, answers);
	else if (is_deadlock_locked(locks, wait, &obstacle))
		leave_locked(locks, wait, -EDEADLK, answers);
	else
		note_obstacle_locked(locks, file, wait, &obstacle, until_ms);
	return less;
}

/* Try all who wait for FILE, in the order in which they came. Do it again while somebody has less
 * than before: who converts a lock may let another one go on. Under FILE's lock. Those who are to
 * be answered go to ANSWERS. */
static void play_round(struct locks *locks, struct lock_file *file, struct cds_list_head *answers)
{
	struct cds_list_head *at;
	struct lock_wait *wait;
	bool less = true;

	pthread_mutex_lock(&locks->lock);
	while (less) {
		less = false;
		/* Until they have been tried, nobody knows whom they wait for. */
		cds_list_for_each_entry (wait, &file->waits, link)
			wait->blocker = 0;
		for (at = file->waits.next; at != &file->waits;) {
			wait = cds_list_entry(at, struct lock_wait, link);
			less |= try_waiting_locked(locks, file, wait, answers, &at);
		}
	}
	pthread_mutex_unlock(&locks->lock);
}

static void answer_all(struct cds_list_head *answers)
{
	struct lock_wait *wait;
	struct lock_wait *next;

	cds_list_for_each_entry_safe (wait, next, answers, link)
		wait->answer(wait, wait->result);
}

bool locks_delay(struct locks *locks, struct lock_wait *wait,
		 bool (*is_ready)(struct lock_wait *wait))
{
	bool delayed;

	wait->is_ready = is_ready;
	wait->until_ms = clock_now_ms() + DELAY_MS;
	wait->result = 0;
	pthread_mutex_lock(&locks->lock);
	delayed = !locks->stopping && !shares_take(locks->waiting, wait->request.user, 1);
	if (delayed) {
		cds_list_add_tail(&wait->link, &locks->delayed);
		pthread_cond_signal(&locks->wake);
	}
	pthread_mutex_unlock(&locks->lock);
	return delayed;
}

/* Move those of the delayed answers that may be given at NOW_MS to the answers. */
static void take_delayed_locked(struct locks *locks, int64_t now_ms)
{
	struct lock_wait *wait;
	struct lock_wait *next;

	cds_list_for_each_entry_safe (wait, next, &locks->delayed, link) {
		if (wait->until_ms > now_ms && !wait->is_ready(wait))
			continue;
		cds_list_del(&wait->link);
		cds_list_add_tail(&wait->link, &locks->answers);
		shares_give(locks->waiting, wait->request.user, 1);
	}
}

/* ---- requests ---- */

errint_t locks_ask(struct locks *locks, uint64_t number, struct lock_wait *wait)
{
	struct lock_file *file = file_get(locks, number, true);
	struct obstacle obstacle;
	CDS_LIST_HEAD(answers);
	errint_t error;
	bool less;

	if (!file)
		return -ENOLCK;
	pthread_mutex_lock(&file->lock);
	error = attempt(file, wait, &obstacle, &less);
	if (less)
		play_round(locks, file, &answers);
	if (error == -EAGAIN)
		error = stay(locks, file, wait, &obstacle);
	/* From here on a request that waits may have been answered, and be gone. */
	pthread_mutex_unlock(&file->lock);
	file_put(locks, file);
	answer_all(&answers);
	return error;
}

void locks_interrupt(struct locks *locks, struct lock_wait *wait)
{
	struct lock_file *file = NULL;

	pthread_mutex_lock(&locks->lock);
	wait->stopped = true;
	if (wait->waits && !wait->trying) {
		file = wait->file;
		file->users++;
		leave_locked(locks, wait, -EINTR, &locks->answers);
		pthread_cond_signal(&locks->wake);
	}
	pthread_mutex_unlock(&locks->lock);
	/* It may have been the last one to need the file. */
	if (file)
		file_put(locks, file);
}

static bool is_anything_locked(const struct locks *locks)
{
	return atomic_load_explicit(&locks->files, memory_order_relaxed);
}

void locks_closed(struct locks *locks, uint64_t number, uint64_t handle, uint64_t owner)
{
	struct lock_file *file = is_anything_locked(locks) ? file_get(locks, number, false) : NULL;
	CDS_LIST_HEAD(answers);
	int64_t now_ms;

	if (!file)
		return;
	now_ms = clock_now_ms();
	pthread_mutex_lock(&file->lock);
	lock_list_note_close(&file->ranges, handle, now_ms);
	lock_list_note_close(&file->whole, handle, now_ms);
	if (lock_list_drop_owner(&file->ranges, owner))
		play_round(locks, file, &answers);
	pthread_mutex_unlock(&file->lock);
	file_put(locks, file);
	answer_all(&answers);
}

void locks_released(struct locks *locks, uint64_t number, uint64_t handle)
{
	struct lock_file *file = is_anything_locked(locks) ? file_get(locks, number, false) : NULL;
	CDS_LIST_HEAD(answers);
	bool dropped;

	if (!file)
		return;
	pthread_mutex_lock(&file->lock);
	dropped = lock_list_drop_handle(&file->ranges, handle);
	dropped |= lock_whole_drop(&file->whole, handle);
	if (dropped)
		play_round(locks, file, &answers);
	pthread_mutex_unlock(&file->lock);
	file_put(locks, file);
	answer_all(&answers);
}

/* ---- the thread ---- */

/* The time of FILE has come. Its lock may be held by a thread that waits for the source. */
static void play_timed_round(struct locks *locks, struct lock_file *file)
{
	CDS_LIST_HEAD(answers);

	if (pthread_mutex_trylock(&file->lock)) {
		pthread_mutex_lock(&locks->lock);
		schedule_locked(locks, file, clock_now_ms() + PAUSE_MIN);
		pthread_mutex_unlock(&locks->lock);
	} else {
		play_round(locks, file, &answers);
		pthread_mutex_unlock(&file->lock);
	}
	file_put(locks, file);
	answer_all(&answers);
}

/* The file whose time comes first. NULL: none has a time. */
static struct lock_file *first_locked(const struct locks *locks)
{
	struct lock_file *first = NULL;
	struct lock_file *file;

	cds_list_for_each_entry (file, &locks->timed, timed)
		if (!first || file->next_ms < first->next_ms)
			first = file;
	return first;
}

/* Wait until the time of FIRST (NULL: no file has a time), or until a delayed answer has to be
 * looked at again, or until there is something else to do. */
static void wait_locked(struct locks *locks, const struct lock_file *first, int64_t now_ms)
{
	int64_t until_ms = first ? first->next_ms : INT64_MAX;
	struct timespec until;

	if (!cds_list_empty(&locks->delayed) && until_ms > now_ms + PAUSE_MIN)
		until_ms = now_ms + PAUSE_MIN;
	if (until_ms == INT64_MAX) {
		pthread_cond_wait(&locks->wake, &locks->lock);
		return;
	}
	until = clock_at(until_ms * NS_PER_MS);
	pthread_cond_timedwait(&locks->wake, &locks->lock, &until);
}

static void take_answers_locked(struct locks *locks, struct cds_list_head *ret_answers)
{
	CDS_INIT_LIST_HEAD(ret_answers);
	cds_list_splice(&locks->answers, ret_answers);
	CDS_INIT_LIST_HEAD(&locks->answers);
}

static void *run(void *argument)
{
	struct locks *locks = argument;
	struct cds_list_head answers;
	struct lock_file *file;
	int64_t now_ms;

	pthread_mutex_lock(&locks->lock);
	while (!locks->stopping) {
		now_ms = clock_now_ms();
		take_delayed_locked(locks, now_ms);
		file = first_locked(locks);
		if (!cds_list_empty(&locks->answers)) {
			take_answers_locked(locks, &answers);
			pthread_mutex_unlock(&locks->lock);
			answer_all(&answers);
		} else if (!file || file->next_ms > now_ms) {
			wait_locked(locks, file, now_ms);
			continue;
		} else {
			schedule_locked(locks, file, 0);
			if (file->pause_ms < PAUSE_MAX)
				file->pause_ms *= 2;
			file->users++;
			pthread_mutex_unlock(&locks->lock);
			play_timed_round(locks, file);
		}
		pthread_mutex_lock(&locks->lock);
	}
	pthread_mutex_unlock(&locks->lock);
	return NULL;
}

/* ---- start and stop ---- */

errint_t locks_new(uid_t own, struct slab *earlier, struct locks **ret_locks)
{
	struct locks *locks = calloc(1, sizeof(*locks));
	errint_t error;

	if (!locks) {
		slab_free(earlier);
		return -ENOMEM;
	}
	pthread_mutex_init(&locks->lock, NULL);
	clock_cond_init(&locks->wake);
	for (unsigned i = 0; i < BUCKETS; i++)
		CDS_INIT_LIST_HEAD(&locks->waits[i]);
	CDS_INIT_LIST_HEAD(&locks->timed);
	CDS_INIT_LIST_HEAD(&locks->delayed);
	CDS_INIT_LIST_HEAD(&locks->answers);
	error = lock_records_new(own, earlier, &locks->records);
	if (!error)
		error = shares_new(WAITING_MAX, WAITING_RESERVE, own, &locks->waiting);
	if (error) {
		locks_free(locks);
		return error;
	}
	*ret_locks = locks;
	return 0;
}

errint_t locks_start(struct locks *locks)
{
	int error = pthread_create(&locks->thread, NULL, run, locks);

	locks->started = !error;
	return -error;
}

/* End all waits of FILE. */
static void end_waits_locked(struct locks *locks, struct lock_file *file)
{
	struct lock_wait *wait;
	struct lock_wait *next;

	cds_list_for_each_entry_safe (wait, next, &file->waits, link)
		leave_locked(locks, wait, -ENOTCONN, &locks->answers);
}

void locks_stop(struct locks *locks)
{
	struct cds_list_head answers;

	pthread_mutex_lock(&locks->lock);
	locks->stopping = true;
	pthread_cond_signal(&locks->wake);
	pthread_mutex_unlock(&locks->lock);
	if (locks->started)
		pthread_join(locks->thread, NULL);
	locks->started = false;
	pthread_mutex_lock(&locks->lock);
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct lock_file *file = locks->buckets[i]; file; file = file->next)
			end_waits_locked(locks, file);
	take_delayed_locked(locks, INT64_MAX);
	take_answers_locked(locks, &answers);
	pthread_mutex_unlock(&locks->lock);
	answer_all(&answers);
}

struct slab *locks_slab(const struct locks *locks)
{
	return lock_records_slab(locks->records);
}

/* ---- after a takeover ---- */

struct revival {
	struct locks *locks;
	bool (*is_open)(void *context, uint64_t handle);
	void *context;
};

static bool is_open(void *context, uint64_t handle)
{
	const struct revival *revival = context;

	return revival->is_open(revival->context, handle);
}

static errint_t revive(void *context, struct lock_record *record)
{
	const struct revival *revival = context;
	struct lock_file *file = file_get(revival->locks, record->file, true);
	errint_t error = 0;

	if (!file)
		return -ENOMEM;
	if (record->kind == LOCK_WHOLE)
		lock_whole_revive(&file->whole, record);
	else
		error = lock_list_revive(&file->ranges, record);
	file_put(revival->locks, file);
	return error;
}

errint_t locks_revive(struct locks *locks, bool (*is_open_now)(void *context, uint64_t handle),
		      void *context)
{
	struct revival revival = {locks, is_open_now, context};

	return lock_records_each(locks->records, is_open, revive, &revival);
}

void locks_settle(struct locks *locks, uint64_t number, int fd)
{
	struct lock_file *file = file_get(locks, number, true);

	if (!file)
		return;
	lock_list_settle(&file->ranges, fd);
	lock_whole_settle(&file->whole, fd);
	file_put(locks, file);
}

/* ---- end ---- */

void locks_free(struct locks *locks)
{
	struct lock_file *file;

	if (!locks)
		return;
	for (unsigned i = 0; i < BUCKETS; i++) {
		while ((file = locks->buckets[i])) {
			locks->buckets[i] = file->next;
			file_free(file);
		}
	}
	lock_records_free(locks->records);
	shares_free(locks->waiting);
	pthread_cond_destroy(&locks->wake);
	pthread_mutex_destroy(&locks->lock);
	free(locks);
}

void locks_usage(const struct locks *locks, struct locks_usage *ret_usage)
{
	*ret_usage = (struct locks_usage){
		.held = lock_records_count(locks->records),
		.waiting = shares_taken(locks->waiting),
	};
	ret_usage->bytes = sizeof(*locks) +
			   atomic_load_explicit(&locks->files, memory_order_relaxed) *
				   sizeof(struct lock_file) +
			   lock_records_bytes(locks->records) +
			   ret_usage->waiting * sizeof(struct lock_wait);
}
