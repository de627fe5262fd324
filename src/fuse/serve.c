/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve.c - the loop that reads requests from the fuse device and has them handled
 *
 * A handler may wait for the source, and a user may make the source wait: for a lease of his, or
 * for a lock that he holds. So each user has a share of the threads (shares.h). A request beyond
 * the share is copied and parked, and the thread that read it reads on. A thread that has finished
 * a request takes a parked one whose user may have a thread now.
 *
 * Some threads are only for requests that hardly wait (stat, open, a read of what is in the pool).
 * They are shared out in the same way. So a user whose whole share is waiting for the source still
 * gets from memory what is there.
 *
 * Parked requests are bounded too, for each user. Beyond that bound a request is answered with
 * EAGAIN at once. Requests that must not fail are never refused: releases, and what the kernel
 * writes back.
 *
 * Invariants:
 *  S.1  There is always a thread that reads, or one is being started: fewer requests may be in hand
 *       than there may be threads. So interrupts always arrive.
 *       A thread that answers already counts as a reader. The processor may go from it to the
 *       client, and from the client to the next reader, so it may take a while until the thread
 *       reads. Otherwise one more thread would be started for each request.
 *  S.2  While requests are parked, each of their users has all that he may have. A thread that
 *       gives something back under the lock takes the next request in the same critical section.
 *       Exception to S.1 and S.2: requests that are handled uncounted, for lack of memory to count
 *       them.
 *  S.3  A thread can be cancelled only while it reads from the device, where it holds nothing.
 *
 * An interrupt of a parked request answers that request with EINTR, because nothing of it was done
 * yet. libfuse delivers all other interrupts. It also keeps an interrupt that comes before its
 * request.
 *
 * Descriptors are not cloned (clone_fd). So requests stay with the connection, whichever thread
 * read them.
 *
 * The only public way to stop the threads of a ring is the end of libfuse's own loop. So that loop
 * is run when ours is over: it finds the session at its end.
 */
#include "foldfs/serve.h"

#include "shares.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <urcu/hlist.h>
#include <urcu/list.h>

#define THREADS_MAX SESSION_SLOTS
#define HANDLED_MAX (THREADS_MAX - 1) /* S.1 */
#define BRIEF_MAX   48u               /* of HANDLED_MAX, for brief requests alone */
/* Kept for root: of the requests in BRIEF_MAX, and of all others. */
#define BRIEF_RESERVE 8u
#define RESERVE       32u
/* Minimum number of readers, as far as more threads are allowed. If many requests come at once and
 * have to wait, this many threads are started at a time, not one after the other. */
#define READERS_MIN 4u
/* If there are more readers than IDLE_MAX, the surplus ones end once no reader had to be started
 * for IDLE_SECONDS. Starting a thread takes some 50 us, which is more than most requests take. */
#define IDLE_MAX     10u
#define IDLE_SECONDS 10
/* Memory for copies of parked requests. Each counts for 64 KiB at least, so there are 4096 at
 * most. */
#define PARKED_BYTES_MAX ((uint64_t)256 << 20)
#define PARKED_RESERVE   ((uint64_t)32 << 20)
#define PARKED_COST_MIN  ((uint64_t)64 << 10)
/* Size of the hash by which an interrupt finds a parked request. */
#define BUCKETS 1024u

struct request {
	struct cds_list_head link;       /* in its queue; under the lock, like the next two */
	struct cds_hlist_node by_unique; /* in its bucket */
	struct queue *queue;
	struct fuse_buf buffer; /* refers to bytes */
	char bytes[];
};

/* A request that is being handled. */
struct turn {
	struct serve *serve;
	uid_t user;
	/* The shares that it is counted in. NULL: no share is needed, or there was no memory. */
	struct shares *counted;
	bool answers; /* it has given back its share, and counts as a reader */
};

/* The parked requests of one user. */
struct queue {
	struct cds_list_head link; /* in serve->queues */
	struct cds_list_head requests;
	struct cds_list_head brief; /* brief requests */
	uid_t user;
};

struct serve {
	struct serve_callbacks callbacks; /* constant */
	void *context;                    /* constant: theirs */
	struct shares *handling;          /* requests in hand */
	struct shares *brief;   /* brief ones in hand, of users whose part of handling is used up */
	struct shares *parking; /* bytes of parked requests, see cost_of() */
	struct session *records;      /* constant */
	struct fuse_session *session; /* set before the first thread; under lock for others */
	pthread_mutex_t lock;
	pthread_cond_t ended;
	/* All under lock: */
	struct cds_list_head threads;
	struct cds_list_head queues; /* of users with something parked; the first one is next */
	struct cds_hlist_head parked_by_unique[BUCKETS]; /* by the kernel's number */
	bool slots[THREADS_MAX];                         /* of the session, which threads have */
	unsigned thread_count;
	unsigned reading; /* number of threads that read, or soon will */
	time_t started;   /* when the last thread was started, of CLOCK_MONOTONIC */
	uint64_t parked;
	uint64_t parked_bytes;
	_Atomic uint64_t touched_bytes; /* of threads' buffers; not under lock */
	uint64_t refused;
	errint_t error;
	bool ending;
};

struct thread {
	struct cds_list_head link;
	pthread_t id;
	struct serve *serve;
	unsigned slot;          /* its own of the session's; constant */
	struct fuse_buf buffer; /* in the session; the thread's own */
	size_t touched;         /* bytes of buffer that were written, for which the kernel has given
				 * memory; the thread's own */
};

/* The calling thread's turn. NULL: it handles no request, or is not one of ours. */
static __thread struct turn *current;

static void *thread_main(void *argument);

/* ---- threads ---- */

static time_t now_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec;
}

static errint_t start_thread_locked(struct serve *serve)
{
	struct thread *thread = calloc(1, sizeof(*thread));
	int error;

	if (!thread)
		return -ENOMEM;
	thread->serve = serve;
	while (serve->slots[thread->slot])
		thread->slot++;
	thread->buffer.mem = session_buffer(serve->records, thread->slot);
	thread->buffer.mem_size = SESSION_BUFFER_BYTES;
	error = pthread_create(&thread->id, NULL, thread_main, thread);
	if (error) {
		free(thread);
		return -error;
	}
	serve->slots[thread->slot] = true;
	cds_list_add(&thread->link, &serve->threads);
	serve->thread_count++;
	serve->reading++;
	serve->started = now_seconds();
	return 0;
}

/* The caller is a reader and has something else to do, so another thread has to read. If no thread
 * can be started, requests wait until the caller is back. */
static void leave_reading_locked(struct serve *serve)
{
	errint_t error = 0;

	serve->reading--;
	while (!error && serve->reading < READERS_MIN && serve->thread_count < THREADS_MAX &&
	       !serve->ending)
		error = start_thread_locked(serve);
}

/* THREAD reads no more: give back its slot, and the memory for what it read. */
static void slot_give_locked(const struct thread *thread)
{
	session_buffer_clear(thread->serve->records, thread->slot);
	thread->serve->slots[thread->slot] = false;
}

static void thread_free(struct thread *thread)
{
	atomic_fetch_sub_explicit(&thread->serve->touched_bytes, thread->touched,
				  memory_order_relaxed);
	free(thread);
}

/* ---- parked requests ---- */

static uint64_t cost_of(size_t bytes)
{
	return bytes > PARKED_COST_MIN ? bytes : PARKED_COST_MIN;
}

static struct queue *find_queue_locked(struct serve *serve, uid_t user)
{
	struct queue *queue;

	cds_list_for_each_entry (queue, &serve->queues, link)
		if (queue->user == user)
			return queue;
	queue = malloc(sizeof(*queue));
	if (!queue)
		return NULL;
	queue->user = user;
	CDS_INIT_LIST_HEAD(&queue->requests);
	CDS_INIT_LIST_HEAD(&queue->brief);
	cds_list_add_tail(&queue->link, &serve->queues);
	return queue;
}

static struct request *request_copy(const struct fuse_buf *buffer)
{
	struct request *request = malloc(sizeof(*request) + buffer->size);

	if (!request)
		return NULL;
	request->buffer = (struct fuse_buf){.size = buffer->size, .mem = request->bytes};
	memcpy(request->bytes, buffer->mem, buffer->size);
	return request;
}

static uint64_t unique_of(const struct request *request)
{
	const struct fuse_in_header *in = request->buffer.mem;

	return in->unique;
}

/* The kernel numbers requests in steps of two. */
static struct cds_hlist_head *bucket_of(struct serve *serve, uint64_t unique)
{
	return &serve->parked_by_unique[unique / 2 % BUCKETS];
}

/* Whether an error would lose something without anybody being told. A FLUSH ends the locks of the
 * client who closes a descriptor, and nobody looks whether an unlock succeeds. */
static bool must_not_fail(const struct fuse_in_header *in)
{
	const struct fuse_write_in *write = (const void *)(in + 1);
	const struct fuse_lk_in *lock = (const void *)(in + 1);

	switch (in->opcode) {
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FLUSH:
		return true;
	case FUSE_SETLK:
	case FUSE_SETLKW:
		return lock->lk.type == F_UNLCK;
	case FUSE_WRITE:
		return write->write_flags & FUSE_WRITE_CACHE;
	default:
		return false;
	}
}

/* Park a copy of BUFFER, a request of USER, BRIEF or not. -EAGAIN: that exceeds his share. */
static errint_t park_locked(struct serve *serve, const struct fuse_buf *buffer, uid_t user,
			    bool brief)
{
	uint64_t cost = cost_of(buffer->size);
	errint_t error = must_not_fail(buffer->mem) ? shares_force(serve->parking, user, cost)
						    : shares_take(serve->parking, user, cost);
	struct request *request;
	struct queue *queue;

	if (error)
		return error;
	request = request_copy(buffer);
	queue = request ? find_queue_locked(serve, user) : NULL;
	if (!queue) {
		free(request);
		shares_give(serve->parking, user, cost);
		return -ENOMEM;
	}
	request->queue = queue;
	cds_list_add_tail(&request->link, brief ? &queue->brief : &queue->requests);
	cds_hlist_add_head(&request->by_unique, bucket_of(serve, unique_of(request)));
	serve->parked++;
	serve->parked_bytes += sizeof(*request) + buffer->size;
	return 0;
}

/* Take REQUEST out of its queue. The queue is freed with its last request. The caller frees
 * REQUEST. */
static void unpark_locked(struct serve *serve, struct request *request)
{
	struct queue *queue = request->queue;

	cds_list_del(&request->link);
	cds_hlist_del(&request->by_unique);
	cds_list_del(&queue->link);
	serve->parked--;
	serve->parked_bytes -= sizeof(*request) + request->buffer.size;
	shares_give(serve->parking, queue->user, cost_of(request->buffer.size));
	if (cds_list_empty(&queue->requests) && cds_list_empty(&queue->brief))
		free(queue);
	else
		cds_list_add_tail(&queue->link, &serve->queues);
}

/* Count one more request of TURN's user in SHARES. -EAGAIN: he has used up his share. If there is
 * no memory to count the request, it is handled uncounted. */
static errint_t count_in(struct shares *shares, struct turn *turn)
{
	errint_t error = shares_take(shares, turn->user, 1);

	turn->counted = error ? NULL : shares;
	return error == -EAGAIN ? error : 0;
}

/* Count a request of TURN's user in the shares where he may have one more. */
static errint_t count_locked(const struct serve *serve, struct turn *turn, bool brief)
{
	errint_t error = count_in(serve->handling, turn);

	return error && brief ? count_in(serve->brief, turn) : error;
}

/* The request in QUEUE that may have a thread now, counted for TURN. NULL: there is none. Requests
 * that are not brief come first: they can use only one kind of thread, brief ones both. */
static struct request *next_of_locked(const struct serve *serve, struct queue *queue,
				      struct turn *turn)
{
	turn->user = queue->user;
	if (!cds_list_empty(&queue->requests) && !count_locked(serve, turn, false))
		return cds_list_first_entry(&queue->requests, struct request, link);
	if (!cds_list_empty(&queue->brief) && !count_locked(serve, turn, true))
		return cds_list_first_entry(&queue->brief, struct request, link);
	return NULL;
}

/* A parked request whose user may have a thread now; that thread is the caller. Users take turns.
 * NULL: there is no such request. */
static struct request *next_locked(struct serve *serve, struct turn *ret_turn)
{
	struct turn turn = {.serve = serve};
	struct request *request;
	struct queue *queue;

	cds_list_for_each_entry (queue, &serve->queues, link) {
		request = next_of_locked(serve, queue, &turn);
		if (!request)
			continue;
		*ret_turn = turn;
		unpark_locked(serve, request);
		return request;
	}
	return NULL;
}

static struct request *find_parked_locked(struct serve *serve, uint64_t unique)
{
	struct request *request;

	cds_hlist_for_each_entry_2 (request, bucket_of(serve, unique), by_unique)
		if (unique_of(request) == unique)
			return request;
	return NULL;
}

/* ---- requests ---- */

/* The write fails if the kernel does not wait for the answer any more. That does no harm. */
static void answer_error(struct serve *serve, uint64_t unique, errint_t error)
{
	const struct fuse_out_header out = {.len = sizeof(out), .error = error, .unique = unique};

	(void)TEMP_FAILURE_RETRY(write(fuse_session_fd(serve->session), &out, sizeof(out)));
}

/* False: the interrupt is not for a parked request. A request that must not fail goes on. */
static bool interrupt_parked(struct serve *serve, const struct fuse_in_header *in)
{
	const struct fuse_interrupt_in *interrupt = (const void *)(in + 1);
	struct request *request;
	bool goes_on;

	pthread_mutex_lock(&serve->lock);
	request = find_parked_locked(serve, interrupt->unique);
	goes_on = request && must_not_fail(request->buffer.mem);
	if (request && !goes_on)
		unpark_locked(serve, request);
	pthread_mutex_unlock(&serve->lock);
	if (!request)
		return false;
	if (goes_on)
		return true;
	free(request);
	answer_error(serve, interrupt->unique, -EINTR);
	return true;
}

/* Whether a request counts to its user's share. Requests that do not count never wait for something
 * that a user may hold. */
static bool is_counted(const struct fuse_in_header *in)
{
	switch (in->opcode) {
	case FUSE_INIT:
	case FUSE_DESTROY:
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		return false;
	default:
		return true;
	}
}

/* The outcome for a request that was read. */
enum fate { HANDLED, PARKED, REFUSED };

/* Take a thread for BUFFER, a request of TURN's user, or park it. If there is no memory for either,
 * a request that must not fail is handled all the same. *ret_error: the error to refuse it with. */
static enum fate admit_locked(struct serve *serve, const struct fuse_buf *buffer, struct turn *turn,
			      errint_t *ret_error)
{
	errint_t error;
	bool brief;

	if (!is_counted(buffer->mem) || !count_locked(serve, turn, false))
		return HANDLED;
	brief = serve->callbacks.is_brief(serve->context, buffer->mem);
	if (brief && !count_locked(serve, turn, true))
		return HANDLED;
	error = park_locked(serve, buffer, turn->user, brief);
	if (!error)
		return PARKED;
	if (must_not_fail(buffer->mem))
		return HANDLED;
	serve->refused++;
	*ret_error = error;
	return REFUSED;
}

static void give_back_locked(const struct turn *turn)
{
	if (turn->counted)
		shares_give(turn->counted, turn->user, 1);
}

void serve_answers(void)
{
	struct turn *turn = current;

	if (!turn || turn->answers)
		return;
	pthread_mutex_lock(&turn->serve->lock);
	/* Otherwise this thread has more to do, and finish() gives the share back. */
	if (cds_list_empty(&turn->serve->queues)) {
		give_back_locked(turn);
		turn->serve->reading++;
		turn->answers = true;
	}
	pthread_mutex_unlock(&turn->serve->lock);
}

/* TURN's request is done. Returns the caller's next request and sets TURN for it. NULL: the caller
 * is a reader again. */
static struct request *finish(struct serve *serve, struct turn *turn)
{
	struct request *next = NULL;

	if (turn->answers)
		return NULL;
	pthread_mutex_lock(&serve->lock);
	give_back_locked(turn);
	if (!serve->ending)
		next = next_locked(serve, turn);
	if (!next)
		serve->reading++;
	pthread_mutex_unlock(&serve->lock);
	return next;
}

/* What it read last needs nobody's attention any more, whatever happens. */
static void forget_read(struct thread *self)
{
	struct fuse_in_header *in = self->buffer.mem;

	*(volatile uint32_t *)&in->opcode = 0;
}

/* Handle the request in BUFFER. */
static void process(struct thread *self, const struct fuse_buf *buffer)
{
	const struct fuse_in_header *in = buffer->mem;
	struct serve *serve = self->serve;

	session_request_begin(serve->records, session_slot(serve->records, self->slot), in->unique);
	if (session_earlier())
		serve->callbacks.take_back(serve->context, session_earlier());
	fuse_session_process_buf(serve->session, buffer);
	if (buffer == &self->buffer)
		forget_read(self);
	session_request_end();
}

/* Handle the request that SELF has read, and those that were parked meanwhile. */
static void handle(struct thread *self, struct turn *turn)
{
	struct serve *serve = self->serve;
	struct request *next;

	current = turn;
	process(self, &self->buffer);
	while ((next = finish(serve, turn))) {
		process(self, &next->buffer);
		free(next);
	}
	current = NULL;
}

static void take(struct thread *self)
{
	const struct fuse_in_header *in = self->buffer.mem;
	struct serve *serve = self->serve;
	errint_t error = 0;
	struct turn turn = {.serve = serve};
	enum fate fate;

	if (in->opcode == FUSE_INTERRUPT) {
		if (!interrupt_parked(serve, in))
			fuse_session_process_buf(serve->session, &self->buffer);
		return;
	}
	turn.user = serve->callbacks.user_of(serve->context, in);
	pthread_mutex_lock(&serve->lock);
	fate = admit_locked(serve, &self->buffer, &turn, &error);
	if (fate == HANDLED)
		leave_reading_locked(serve);
	pthread_mutex_unlock(&serve->lock);
	if (fate == REFUSED)
		answer_error(serve, in->unique, error);
	else if (fate == HANDLED)
		handle(self, &turn);
}

/* ---- the loop ---- */

static void end_with(struct serve *serve, errint_t error)
{
	pthread_mutex_lock(&serve->lock);
	if (!serve->error)
		serve->error = error;
	serve->ending = true;
	pthread_cond_signal(&serve->ended);
	pthread_mutex_unlock(&serve->lock);
}

/* GOT bytes were read into its buffer. */
static void note_touched(struct thread *self, size_t got)
{
	size_t touched = (got + FOLD_PAGE_MASK) & ~(size_t)FOLD_PAGE_MASK;

	if (touched <= self->touched)
		return;
	atomic_fetch_add_explicit(&self->serve->touched_bytes, touched - self->touched,
				  memory_order_relaxed);
	self->touched = touched;
}

/* Read the next request; false at the end. */
static bool receive(struct thread *self)
{
	struct serve *serve = self->serve;
	int got = -EINTR;

	while (got == -EINTR || got == -EAGAIN) {
		if (fuse_session_exited(serve->session)) {
			got = 0;
			break;
		}
		forget_read(self);
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		got = fuse_session_receive_buf(serve->session, &self->buffer);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	}
	if (got <= 0)
		end_with(serve, got);
	else
		note_touched(self, (size_t)got);
	return got > 0;
}

/* Whether there are enough readers without SELF. If so, SELF ends. */
static bool is_superfluous(struct thread *self)
{
	struct serve *serve = self->serve;
	bool superfluous;

	pthread_mutex_lock(&serve->lock);
	superfluous = serve->reading > IDLE_MAX && !serve->ending &&
		      now_seconds() - serve->started > IDLE_SECONDS;
	if (superfluous) {
		serve->reading--;
		serve->thread_count--;
		slot_give_locked(self);
		cds_list_del(&self->link);
		pthread_detach(self->id);
	}
	pthread_mutex_unlock(&serve->lock);
	return superfluous;
}

static void *thread_main(void *argument)
{
	struct thread *self = argument;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	if (session_buffer_fill(self->serve->records, self->slot))
		note_touched(self, SESSION_BUFFER_BYTES);
	while (receive(self)) {
		take(self);
		if (is_superfluous(self)) {
			thread_free(self);
			break;
		}
	}
	return NULL;
}

/* ---- start and stop ---- */

errint_t serve_new(const struct serve_callbacks *callbacks, void *context, struct session *session,
		   struct serve **ret_serve)
{
	struct serve *serve = calloc(1, sizeof(*serve));
	errint_t error;

	if (!serve)
		return -ENOMEM;
	serve->callbacks = *callbacks;
	serve->context = context;
	serve->records = session;
	pthread_mutex_init(&serve->lock, NULL);
	pthread_cond_init(&serve->ended, NULL);
	CDS_INIT_LIST_HEAD(&serve->threads);
	CDS_INIT_LIST_HEAD(&serve->queues);
	error = shares_new(HANDLED_MAX - BRIEF_MAX, RESERVE, geteuid(), &serve->handling);
	if (!error)
		error = shares_new(BRIEF_MAX, BRIEF_RESERVE, geteuid(), &serve->brief);
	if (!error)
		error = shares_new(PARKED_BYTES_MAX, PARKED_RESERVE, geteuid(), &serve->parking);
	if (error) {
		serve_free(serve);
		return error;
	}
	*ret_serve = serve;
	return 0;
}

static void drop_all_locked(struct serve *serve, struct cds_list_head *requests)
{
	struct request *request;
	struct request *next;

	cds_list_for_each_entry_safe (request, next, requests, link) {
		cds_list_del(&request->link);
		cds_hlist_del(&request->by_unique);
		serve->parked--;
		free(request);
	}
}

/* The end of the connection answers the clients of parked requests. Nothing uses the shares any
 * more. */
static void drop_parked(struct serve *serve)
{
	struct queue *queue;
	struct queue *next;

	pthread_mutex_lock(&serve->lock);
	cds_list_for_each_entry_safe (queue, next, &serve->queues, link) {
		cds_list_del(&queue->link);
		drop_all_locked(serve, &queue->requests);
		drop_all_locked(serve, &queue->brief);
		free(queue);
	}
	serve->parked_bytes = 0;
	pthread_mutex_unlock(&serve->lock);
}

void serve_free(struct serve *serve)
{
	if (!serve)
		return;
	shares_free(serve->parking);
	shares_free(serve->brief);
	shares_free(serve->handling);
	pthread_cond_destroy(&serve->ended);
	pthread_mutex_destroy(&serve->lock);
	free(serve);
}

/* Wake the threads that read, and wait for those that handle a request. */
static void join_threads(struct serve *serve)
{
	struct thread *thread;

	pthread_mutex_lock(&serve->lock);
	cds_list_for_each_entry (thread, &serve->threads, link)
		pthread_cancel(thread->id);
	while (!cds_list_empty(&serve->threads)) {
		thread = cds_list_first_entry(&serve->threads, struct thread, link);
		cds_list_del(&thread->link);
		pthread_mutex_unlock(&serve->lock);
		pthread_join(thread->id, NULL);
		thread_free(thread);
		pthread_mutex_lock(&serve->lock);
		serve->thread_count--;
	}
	pthread_mutex_unlock(&serve->lock);
}

errint_t serve_run(struct serve *serve, struct fuse_session *se, void (*ready)(void *context),
		   void *context)
{
	errint_t error = 0;
	int rings;

	pthread_mutex_lock(&serve->lock);
	serve->session = se;
	if (!serve->ending)
		error = start_thread_locked(serve);
	pthread_mutex_unlock(&serve->lock);
	if (!error)
		ready(context);
	pthread_mutex_lock(&serve->lock);
	while (!error && !serve->ending)
		pthread_cond_wait(&serve->ended, &serve->lock);
	serve->ending = true;
	pthread_mutex_unlock(&serve->lock);
	fuse_session_exit(se);
	join_threads(serve);
	drop_parked(serve);
	/* The session's error: what INIT could not agree on. */
	rings = fuse_session_loop(se);
	if (!error)
		error = serve->error;
	return error ? error : rings;
}

void serve_end(struct serve *serve)
{
	end_with(serve, 0);
}

void serve_usage(struct serve *serve, struct serve_usage *ret_usage)
{
	pthread_mutex_lock(&serve->lock);
	*ret_usage = (struct serve_usage){
		.threads = serve->thread_count,
		.handled = shares_taken(serve->handling) + shares_taken(serve->brief),
		.parked = serve->parked,
		.refused = serve->refused,
		.bytes = atomic_load_explicit(&serve->touched_bytes, memory_order_relaxed) +
			 serve->parked_bytes,
	};
	pthread_mutex_unlock(&serve->lock);
}
