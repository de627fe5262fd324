/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetcher.c - reads of source files that wait in the kernel and not each in a thread (io_uring)
 *
 * Each ring has one thread, the only one that touches it. A read to be done is put into the ring's
 * list. The thread sleeps only if the list is empty. It wakes when the disk has something for it,
 * or when its waker is written to, because the ring also reads the waker. So while there is much to
 * do, no wake-up is needed, and all reads that have gathered go to the disk in one call.
 *
 * Users. The call that hands a read over may wait for a lock of the file: that of its page cache,
 * or the inode's (XFS). A truncation or an fallocate of a file in many pieces holds such a lock for
 * seconds. So a ring belongs to one user as long as it has any read. A user who finds no ring uses
 * threads instead.
 *
 * Privileges. io_uring makes calls that bypass the filter of system calls. So a ring is made before
 * there is a filter, disabled, and restricted to reads for as long as it lives
 * (io_uring_register(2), restrictions). After that its thread can only enable it, and no other ring
 * can be made.
 *
 * The file systems that fetcher_new() accepts need no kernel thread for a read, except in rare
 * cases (a compressed extent). The number of these threads is bounded.
 */
#include "fetcher.h"

#include "foldfs/source.h"
#include "shares.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Rings of one user. With one ring for each of two processors that are fully busy, a sixth less is
 * read than with one ring for both. The reason: less gathers in each, so more calls are made. */
#define PROCESSORS_EACH 4u
#define RINGS_EACH      4u
/* If each of a user's rings has this many reads, the user gets another ring. */
#define CROWD 64u
/* Rings of all users. */
#define RINGS_MIN 4u
#define RINGS_MAX 8u
#define ENTRIES   128u /* reads submitted in one call */
/* Reads under way at a time: what some hundreds of clients have, and far more than a disk's queue
 * holds. */
#define PLACES  1024u
#define RESERVE 128u
/* Kernel threads for each ring. */
#define HELPERS_MAX 64u

struct ring {
	struct io_uring uring; /* only its thread uses it, like the next three fields */
	uint64_t woken;        /* the value read from the waker; the kernel's during that read */
	bool reads_waker;
	unsigned under_way;
	int waker; /* eventfd(2); constant */
	bool runs; /* the owner's, like the next two fields */
	pthread_t thread;
	sem_t begun;    /* the thread has begun, or failed to: */
	errint_t error; /* set before begun is posted */
	pthread_mutex_t lock;
	struct cds_list_head handed_over; /* under lock */
	bool asleep;                      /* or about to sleep; under lock */
	bool ending;                      /* under lock */
	uid_t user;                       /* under fetcher->lock, like the next field: */
	unsigned taken;                   /* places that are the user's */
};

struct fetcher {
	dev_t device;   /* constant once it has begun, like the next two fields */
	unsigned count; /* number of rings */
	unsigned each;  /* most rings that one user gets */
	struct shares *places;
	pthread_mutex_t lock; /* a leaf */
	struct ring rings[RINGS_MAX];
};

/* The library of liburing before 2.4 lacks the functions for both calls (restrict, enable). */
static errint_t ring_register(const struct io_uring *uring, unsigned what, const void *argument,
			      unsigned count)
{
	return syscall(SYS_io_uring_register, uring->ring_fd, what, argument, count) < 0 ? -errno
											 : 0;
}

/* ---- a ring's thread ---- */

static struct io_uring_sqe *free_entry(struct ring *ring)
{
	struct io_uring_sqe *entry;

	/* If the kernel has no memory for a read now, it takes the read later. */
	while (!(entry = io_uring_get_sqe(&ring->uring)))
		if (io_uring_submit(&ring->uring) < 0)
			sched_yield();
	return entry;
}

static void begin(struct ring *ring, struct fetch *fetch)
{
	struct io_uring_sqe *entry = free_entry(ring);
	int fd = source_fd(fetch->source);

	fetch->flags = source_flags(fetch->source);
	if (fetch->count == 1)
		io_uring_prep_read(entry, fd, fetch->iov->iov_base, (unsigned)fetch->iov->iov_len,
				   (uint64_t)fetch->offset);
	else
		io_uring_prep_readv(entry, fd, fetch->iov, (unsigned)fetch->count,
				    (uint64_t)fetch->offset);
	entry->rw_flags = fetch->flags;
	io_uring_sqe_set_data(entry, fetch);
	ring->under_way++;
}

static void end(struct ring *ring, struct fetch *fetch, ssize_t got)
{
	ring->under_way--;
	if (got == -EAGAIN || source_is_to_repeat(fetch->source, fetch->flags, got)) {
		begin(ring, fetch);
		return;
	}
	if (got > 0)
		source_has_read(fetch->source, fetch->offset, (size_t)got);
	fetch->done(fetch, got);
}

static void read_waker(struct ring *ring)
{
	struct io_uring_sqe *entry = free_entry(ring);

	io_uring_prep_read(entry, ring->waker, &ring->woken, sizeof(ring->woken), 0);
	io_uring_sqe_set_data(entry, NULL);
	ring->reads_waker = true;
}

/* Begin the reads that were handed over. *ret_idle: there were none. False: nothing is left to
 * do. */
static bool take_over(struct ring *ring, bool *ret_idle)
{
	struct cds_list_head taken;
	struct fetch *fetch;
	struct fetch *next;
	bool ends;

	CDS_INIT_LIST_HEAD(&taken);
	pthread_mutex_lock(&ring->lock);
	cds_list_splice(&ring->handed_over, &taken);
	CDS_INIT_LIST_HEAD(&ring->handed_over);
	ring->asleep = *ret_idle = cds_list_empty(&taken);
	ends = ring->ending && *ret_idle && !ring->under_way;
	pthread_mutex_unlock(&ring->lock);
	cds_list_for_each_entry_safe (fetch, next, &taken, link)
		begin(ring, fetch);
	return !ends;
}

static void end_all(struct ring *ring)
{
	struct io_uring_cqe *event;

	while (!io_uring_peek_cqe(&ring->uring, &event)) {
		struct fetch *fetch = io_uring_cqe_get_data(event);
		ssize_t got = event->res;

		io_uring_cqe_seen(&ring->uring, event);
		if (fetch)
			end(ring, fetch, got);
		else
			ring->reads_waker = false;
	}
}

static void *ring_main(void *argument)
{
	struct ring *ring = argument;
	bool idle;

	ring->error = ring_register(&ring->uring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	sem_post(&ring->begun);
	while (!ring->error && take_over(ring, &idle)) {
		if (!ring->reads_waker)
			read_waker(ring);
		/* An error means that the call was interrupted, or that the kernel had no
		 * memory. */
		if (idle)
			(void)io_uring_submit_and_wait(&ring->uring, 1);
		else
			(void)io_uring_submit_and_get_events(&ring->uring);
		end_all(ring);
	}
	return NULL;
}

/* ---- rings ---- */

static errint_t restrict_ring(struct io_uring *uring)
{
	struct io_uring_restriction reads[] = {
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
	};
	unsigned helpers[] = {HELPERS_MAX, HELPERS_MAX};
	errint_t error = io_uring_register_iowq_max_workers(uring, helpers);

	if (error)
		return error;
	return ring_register(uring, IORING_REGISTER_RESTRICTIONS, reads,
			     sizeof(reads) / sizeof(reads[0]));
}

static errint_t ring_open(struct ring *ring)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
			 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
		.cq_entries = PLACES,
	};
	errint_t error = io_uring_queue_init_params(ENTRIES, &ring->uring, &params);

	if (error)
		return error;
	error = restrict_ring(&ring->uring);
	ring->waker = error ? -1 : eventfd(0, EFD_CLOEXEC);
	if (!error && ring->waker < 0)
		error = -errno;
	if (error) {
		io_uring_queue_exit(&ring->uring);
		return error;
	}
	sem_init(&ring->begun, 0, 0);
	pthread_mutex_init(&ring->lock, NULL);
	CDS_INIT_LIST_HEAD(&ring->handed_over);
	return 0;
}

static void ring_close(struct ring *ring)
{
	io_uring_queue_exit(&ring->uring);
	close(ring->waker);
	sem_destroy(&ring->begun);
	pthread_mutex_destroy(&ring->lock);
}

static void wake(struct ring *ring)
{
	const uint64_t one = 1;

	/* It fails only if the thread was woken very often and has not looked yet. */
	(void)!write(ring->waker, &one, sizeof(one));
}

/* ---- the fetcher ---- */

errint_t fetcher_new(int root_fd, struct fetcher **ret_fetcher)
{
	struct fetcher *fetcher = calloc(1, sizeof(*fetcher));
	unsigned each = 1 + (unsigned)get_nprocs() / PROCESSORS_EACH;
	unsigned wanted;
	struct statfs fs;
	struct stat st;
	errint_t error;

	if (!fetcher)
		return -ENOMEM;
	error = shares_new(PLACES, RESERVE, geteuid(), &fetcher->places);
	if (error) {
		free(fetcher);
		return error;
	}
	pthread_mutex_init(&fetcher->lock, NULL);
	*ret_fetcher = fetcher;
	if (fstat(root_fd, &st) || fstatfs(root_fd, &fs) || !source_reads_aside(&fs))
		return 0;
	fetcher->device = st.st_dev;
	fetcher->each = each < RINGS_EACH ? each : RINGS_EACH;
	wanted = 2 * fetcher->each > RINGS_MIN ? 2 * fetcher->each : RINGS_MIN;
	while (fetcher->count < wanted && !ring_open(&fetcher->rings[fetcher->count]))
		fetcher->count++;
	return 0;
}

/* Make RING's thread, if it runs, end when it has nothing left to do. Waits for that. */
static void ring_stop(struct ring *ring)
{
	if (!ring->runs)
		return;
	pthread_mutex_lock(&ring->lock);
	ring->ending = true;
	pthread_mutex_unlock(&ring->lock);
	wake(ring);
	pthread_join(ring->thread, NULL);
	ring->runs = false;
}

/* Start RING's thread. -errno: the thread could not be created, or the kernel does not allow it. */
static errint_t ring_start(struct ring *ring)
{
	int error = pthread_create(&ring->thread, NULL, ring_main, ring);

	if (error)
		return -error;
	ring->runs = true;
	while (sem_wait(&ring->begun))
		;
	return ring->error;
}

/* Stop and close rings until only COUNT are left. */
static void keep_rings(struct fetcher *fetcher, unsigned count)
{
	while (fetcher->count > count) {
		struct ring *ring = &fetcher->rings[--fetcher->count];

		ring_stop(ring);
		ring_close(ring);
	}
}

void fetcher_start(struct fetcher *fetcher)
{
	unsigned begun = 0;

	while (begun < fetcher->count && !ring_start(&fetcher->rings[begun]))
		begun++;
	keep_rings(fetcher, begun);
}

void fetcher_stop(struct fetcher *fetcher)
{
	for (unsigned i = 0; i < fetcher->count; i++)
		ring_stop(&fetcher->rings[i]);
}

void fetcher_free(struct fetcher *fetcher)
{
	if (!fetcher)
		return;
	keep_rings(fetcher, 0);
	pthread_mutex_destroy(&fetcher->lock);
	shares_free(fetcher->places);
	free(fetcher);
}

/* The ring for one more read of USER's: the least used of his rings, or another one. NULL: there is
 * none. */
static struct ring *choose_locked(struct fetcher *fetcher, uid_t user)
{
	struct ring *least = NULL;
	struct ring *unused = NULL;
	unsigned his = 0;

	for (unsigned i = 0; i < fetcher->count; i++) {
		struct ring *ring = &fetcher->rings[i];

		if (!ring->taken) {
			unused = unused ? unused : ring;
		} else if (ring->user == user) {
			his++;
			least = least && least->taken <= ring->taken ? least : ring;
		}
	}
	if (unused && (!least || (least->taken >= CROWD && his < fetcher->each)))
		return unused;
	return least;
}

bool fetcher_take(struct fetcher *fetcher, dev_t device, uid_t user, struct fetch *fetch)
{
	struct ring *ring;

	if (!fetcher->count || device != fetcher->device || shares_take(fetcher->places, user, 1))
		return false;
	pthread_mutex_lock(&fetcher->lock);
	ring = choose_locked(fetcher, user);
	if (ring) {
		ring->user = user;
		ring->taken++;
	}
	pthread_mutex_unlock(&fetcher->lock);
	if (!ring)
		shares_give(fetcher->places, user, 1);
	fetch->ring = ring;
	fetch->user = user;
	return ring;
}

void fetcher_give(struct fetcher *fetcher, const struct fetch *fetch)
{
	pthread_mutex_lock(&fetcher->lock);
	fetch->ring->taken--;
	pthread_mutex_unlock(&fetcher->lock);
	shares_give(fetcher->places, fetch->user, 1);
}

void fetcher_read(struct fetch *fetch)
{
	struct ring *ring = fetch->ring;
	bool asleep;

	pthread_mutex_lock(&ring->lock);
	cds_list_add_tail(&fetch->link, &ring->handed_over);
	asleep = ring->asleep;
	ring->asleep = false;
	pthread_mutex_unlock(&ring->lock);
	if (asleep)
		wake(ring);
}

uint64_t fetcher_taken(const struct fetcher *fetcher)
{
	return shares_taken(fetcher->places);
}

uint64_t fetcher_bytes(const struct fetcher *fetcher)
{
	uint64_t bytes = sizeof(*fetcher);

	for (unsigned i = 0; i < fetcher->count; i++) {
		const struct io_uring *uring = &fetcher->rings[i].uring;

		bytes += uring->sq.ring_sz + ENTRIES * sizeof(*uring->sq.sqes);
	}
	return bytes;
}
