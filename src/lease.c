/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lease.c - to know that nobody else has a file open
 *
 * What others want the kernel tells by SIGIO, to one thread, which has it blocked and waits for it.
 * A signal that is pending is not sent twice, so it says nothing of which lease: the thread looks
 * at all of them, and again if it was told once more meanwhile. None is missed, and there is no
 * queue that might overflow.
 *
 * Who relies on a lease asks the kernel each time (lease_is_held), after what it is to vouch for.
 * For the kernel takes a lease away by itself that is not given back in time (lease-break-time),
 * be it because all of the daemon was stopped meanwhile: the thread may then be the last to know. A
 * lease that was taken away never comes back, and one that somebody waits for does not count as
 * held: so the kernel's answer is true for all the time before it. `lost` is for the others, and
 * set before the lease is given back, both under the table's lock.
 */
#include "foldfs/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include <urcu/list.h>

/* Each takes a descriptor, and a moment of the thread with every break. */
#define LEASES_MAX 1024u

struct lease_table {
	void (*on_broken)(void *context); /* constant, as the next */
	void *context;
	pthread_t thread; /* the owner's */
	bool started;     /* the same */
	atomic_bool stopping;
	pthread_mutex_t lock; /* a leaf; of what follows */
	pthread_cond_t ready; /* the thread has begun */
	pid_t tid;            /* of the thread; 0: it does not run yet */
	struct cds_list_head leases;
	unsigned count;
	uint64_t held;
	uint64_t broken;
	unsigned unseen; /* of them, that the thread did not come upon itself */
};

struct lease {
	struct lease_table *table;
	struct source *source;     /* a reference; constant */
	atomic_bool lost;          /* set under table->lock */
	bool abandoned;            /* the thread's to give back and free; under table->lock */
	struct cds_list_head link; /* under table->lock */
};

errint_t lease_table_new(void (*on_broken)(void *context), void *context,
			 struct lease_table **ret_table)
{
	struct lease_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	table->on_broken = on_broken;
	table->context = context;
	pthread_mutex_init(&table->lock, NULL);
	pthread_cond_init(&table->ready, NULL);
	CDS_INIT_LIST_HEAD(&table->leases);
	*ret_table = table;
	return 0;
}

/* The mark first: see the head of this file. False: a thread that is lent may not do that. */
static bool give_back_locked(struct lease *lease)
{
	if (!atomic_exchange(&lease->lost, true))
		lease->table->held--;
	/* Another error: the kernel has taken it away already. */
	return !fcntl(source_fd(lease->source), F_SETLEASE, F_UNLCK) || errno != EACCES;
}

static bool is_held_by_us(const struct lease *lease)
{
	return fcntl(source_fd(lease->source), F_GETLEASE) == F_WRLCK;
}

static void destroy(struct lease *lease)
{
	source_put(lease->source);
	free(lease);
}

static void take_out_locked(struct lease *lease)
{
	cds_list_del(&lease->link);
	lease->table->count--;
}

/* Give back what somebody waits for, or was left here; the latter are *ret_freed's, to be
 * destroyed. Returns how many others had wanted. */
static unsigned give_back_broken_locked(struct lease_table *table, struct cds_list_head *freed)
{
	struct lease *lease;
	struct lease *next;
	unsigned broken = 0;

	cds_list_for_each_entry_safe (lease, next, &table->leases, link) {
		if (lease->abandoned && freed) {
			(void)give_back_locked(lease);
			take_out_locked(lease);
			cds_list_add(&lease->link, freed);
		} else if (!atomic_load(&lease->lost) && !is_held_by_us(lease)) {
			(void)give_back_locked(lease);
			broken++;
		}
	}
	table->broken += broken;
	return broken;
}

/* All that is to be done now. Returns whether somebody else had opened a file. */
static bool give_back(struct lease_table *table)
{
	CDS_LIST_HEAD(freed);
	struct lease *lease;
	struct lease *next;
	unsigned broken;

	pthread_mutex_lock(&table->lock);
	broken = give_back_broken_locked(table, &freed) + table->unseen;
	table->unseen = 0;
	pthread_mutex_unlock(&table->lock);
	cds_list_for_each_entry_safe (lease, next, &freed, link)
		destroy(lease);
	return broken;
}

static void *run(void *argument)
{
	struct lease_table *table = argument;
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGIO);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	pthread_mutex_lock(&table->lock);
	table->tid = gettid();
	pthread_cond_signal(&table->ready);
	pthread_mutex_unlock(&table->lock);
	while (!atomic_load(&table->stopping)) {
		/* Also after any error: to look once too often does no harm. */
		(void)sigwaitinfo(&signals, NULL);
		if (give_back(table))
			table->on_broken(table->context);
	}
	return NULL;
}

errint_t lease_table_start(struct lease_table *table)
{
	int error = pthread_create(&table->thread, NULL, run, table);

	if (error)
		return -error;
	table->started = true;
	pthread_mutex_lock(&table->lock);
	while (!table->tid)
		pthread_cond_wait(&table->ready, &table->lock);
	pthread_mutex_unlock(&table->lock);
	return 0;
}

void lease_table_free(struct lease_table *table)
{
	if (!table)
		return;
	if (table->started) {
		atomic_store(&table->stopping, true);
		pthread_kill(table->thread, SIGIO);
		pthread_join(table->thread, NULL);
	}
	(void)give_back(table);
	pthread_cond_destroy(&table->ready);
	pthread_mutex_destroy(&table->lock);
	free(table);
}

void lease_table_usage(struct lease_table *table, struct lease_usage *ret_usage)
{
	pthread_mutex_lock(&table->lock);
	*ret_usage = (struct lease_usage){.held = table->held, .broken = table->broken};
	pthread_mutex_unlock(&table->lock);
}

/* Have the kernel tell our thread, by SIGIO, of who wants the file. */
static errint_t take_locked(struct lease_table *table, int fd)
{
	const struct f_owner_ex thread = {.type = F_OWNER_TID, .pid = table->tid};

	if (!table->tid || table->count == LEASES_MAX)
		return -ENOLCK;
	/* One that the kernel has taken away, and this description had, must not seem to be back;
	 * one that it has may not be another's as well. */
	if (fcntl(fd, F_GETLEASE) != F_UNLCK)
		return -EBUSY;
	table->unseen += give_back_broken_locked(table, NULL);
	if (fcntl(fd, F_SETOWN_EX, &thread) || fcntl(fd, F_SETSIG, 0) ||
	    fcntl(fd, F_SETLEASE, F_WRLCK))
		return -errno;
	return 0;
}

errint_t lease_take(struct lease_table *table, struct source *source, struct lease **ret_lease)
{
	struct lease *lease = calloc(1, sizeof(*lease));
	errint_t error;

	if (!lease)
		return -ENOMEM;
	lease->table = table;
	pthread_mutex_lock(&table->lock);
	error = take_locked(table, source_fd(source));
	if (!error) {
		lease->source = source_get(source);
		cds_list_add(&lease->link, &table->leases);
		table->count++;
		table->held++;
	}
	pthread_mutex_unlock(&table->lock);
	if (error)
		free(lease);
	else
		*ret_lease = lease;
	return error;
}

void lease_free(struct lease *lease)
{
	struct lease_table *table;
	bool abandoned;

	if (!lease)
		return;
	table = lease->table;
	pthread_mutex_lock(&table->lock);
	abandoned = !give_back_locked(lease);
	lease->abandoned = abandoned;
	if (!abandoned)
		take_out_locked(lease);
	pthread_mutex_unlock(&table->lock);
	if (abandoned)
		pthread_kill(table->thread, SIGIO);
	else
		destroy(lease);
}

bool lease_is_held(const struct lease *lease)
{
	return !atomic_load(&lease->lost) && is_held_by_us(lease);
}

struct source *lease_source(const struct lease *lease)
{
	return lease->source;
}
