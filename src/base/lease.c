/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lease.c - to know that nobody else has a file open
 *
 * The kernel reports by SIGIO that another opener wants a leased file. One thread has SIGIO blocked
 * and waits for it. A pending signal is not sent twice, so it does not say which lease is meant.
 * The thread looks at all leases, and again if another signal came meanwhile. So it misses none,
 * and there is no queue that might overflow.
 *
 * A caller that relies on a lease asks the kernel each time (lease_is_held()), after the work that
 * the lease has to vouch for. The reason: the kernel itself takes away a lease that is not given
 * back in time (lease-break-time), for example if all of the daemon was stopped meanwhile. The
 * thread may then be the last to know. A lease that was taken away never comes back, and a lease
 * that somebody waits for does not count as held. So the kernel's answer is true for all the time
 * before it. `lost` is for everything else. It is set before the lease is given back, both under
 * the table's lock.
 *
 * Our own opens. An open is entered in the table before the source is asked. From then until the
 * open has ended, no lease is taken on that file. An open sees, when it begins, a lease that was
 * taken before. So no open of ours meets a lease of ours without knowing of it, and only somebody
 * else can break one.
 */
#include "foldfs/lease.h"

#include "foldfs/object_hash.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <urcu/list.h>

/* Each lease takes a descriptor, and some time of the thread at every break. */
#define LEASES_MAX 1024u
/* Buckets of the hash of files. */
#define BUCKETS 256u

/* The leases and openings of the files with one hash, in no order. */
struct bucket {
	struct cds_list_head leases;
	struct cds_list_head openings;
};

struct lease_table {
	void (*on_broken)(void *context); /* constant, as the next */
	void *context;
	pthread_t thread; /* the owner's */
	bool started;     /* the same */
	atomic_bool stopping;
	pthread_mutex_t lock; /* a leaf; protects the fields below */
	pthread_cond_t ready; /* the thread has begun */
	pid_t tid;            /* of the thread; 0: it does not run yet */
	struct cds_list_head leases;
	struct bucket files[BUCKETS];
	unsigned count;
	uint64_t held;
	uint64_t broken;
	unsigned unseen; /* of `broken`, those that another thread than the table's found */
};

struct lease {
	struct lease_table *table;
	struct source *source;     /* a reference; constant, as the next two */
	dev_t device;              /* the file's device */
	ino_t inode;               /* the file's inode */
	atomic_bool lost;          /* set under table->lock before the lease is given back */
	bool abandoned;            /* left to the thread to give back and free; under table->lock */
	struct cds_list_head link; /* under table->lock, as the next */
	struct cds_list_head of_file;
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
	for (unsigned i = 0; i < BUCKETS; i++) {
		CDS_INIT_LIST_HEAD(&table->files[i].leases);
		CDS_INIT_LIST_HEAD(&table->files[i].openings);
	}
	*ret_table = table;
	return 0;
}

/* Mark the lease as lost, then give it back; the head of this file says why in this order. False: a
 * thread that is lent may not give it back. */
static bool give_back_locked(struct lease *lease)
{
	if (!atomic_exchange(&lease->lost, true))
		lease->table->held--;
	/* With another error the kernel has taken the lease away already. */
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

static struct bucket *bucket_of(struct lease_table *table, dev_t device, ino_t inode)
{
	return &table->files[fold_object_hash(device, inode) % BUCKETS];
}

static void take_out_locked(struct lease *lease)
{
	cds_list_del(&lease->of_file);
	cds_list_del(&lease->link);
	lease->table->count--;
}

/* Give LEASE back if somebody waits for it, or if it was taken away. Returns whether that is
 * news. */
static bool give_back_if_broken_locked(struct lease *lease)
{
	if (atomic_load(&lease->lost) || is_held_by_us(lease))
		return false;
	(void)give_back_locked(lease);
	lease->table->broken++;
	return true;
}

/* Give back the leases that somebody waits for, and those that were abandoned. The abandoned ones
 * go to *FREED, to be destroyed. Returns how many leases others had wanted. */
static unsigned give_back_broken_locked(struct lease_table *table, struct cds_list_head *freed)
{
	struct lease *lease;
	struct lease *next;
	unsigned broken = 0;

	cds_list_for_each_entry_safe (lease, next, &table->leases, link) {
		if (lease->abandoned) {
			(void)give_back_locked(lease);
			take_out_locked(lease);
			cds_list_add(&lease->link, freed);
		} else {
			broken += give_back_if_broken_locked(lease);
		}
	}
	return broken;
}

/* Do all that is due now. Returns whether somebody else had opened a file. */
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
		/* Look after an error too: to look once too often does no harm. */
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

/* Whether an open of our own of LEASE's file is in progress. */
static bool is_being_opened_locked(struct lease_table *table, const struct lease *lease)
{
	struct lease_opening *opening;

	cds_list_for_each_entry (opening, &bucket_of(table, lease->device, lease->inode)->openings,
				 link)
		if (opening->device == lease->device && opening->inode == lease->inode)
			return true;
	return false;
}

/* The description may have had a lease that the kernel has taken away. That lease must not seem to
 * be back with the new one. */
static void look_at_file_locked(struct lease_table *table, const struct lease *lease)
{
	struct lease *other;

	cds_list_for_each_entry (other, &bucket_of(table, lease->device, lease->inode)->leases,
				 of_file)
		table->unseen += give_back_if_broken_locked(other);
}

/* Take the lease, and have the kernel tell our thread by SIGIO when somebody wants the file open as
 * FD. */
static errint_t take_locked(struct lease_table *table, const struct lease *lease, int fd)
{
	const struct f_owner_ex thread = {.type = F_OWNER_TID, .pid = table->tid};

	if (!table->tid || table->count == LEASES_MAX)
		return -ENOLCK;
	/* If the description has a lease already, it cannot have another owner's as well. */
	if (is_being_opened_locked(table, lease) || fcntl(fd, F_GETLEASE) != F_UNLCK)
		return -EBUSY;
	look_at_file_locked(table, lease);
	if (fcntl(fd, F_SETOWN_EX, &thread) || fcntl(fd, F_SETSIG, 0) ||
	    fcntl(fd, F_SETLEASE, F_WRLCK))
		return -errno;
	return 0;
}

/* Take LEASE, which knows its file, on SOURCE. */
static errint_t take(struct lease_table *table, struct lease *lease, struct source *source)
{
	errint_t error;

	pthread_mutex_lock(&table->lock);
	error = take_locked(table, lease, source_fd(source));
	if (!error) {
		lease->source = source_get(source);
		cds_list_add(&lease->link, &table->leases);
		cds_list_add(&lease->of_file,
			     &bucket_of(table, lease->device, lease->inode)->leases);
		table->count++;
		table->held++;
	}
	pthread_mutex_unlock(&table->lock);
	return error;
}

errint_t lease_take(struct lease_table *table, struct source *source, struct lease **ret_lease)
{
	struct lease *lease;
	struct stat st;
	errint_t error;

	if (fstat(source_fd(source), &st))
		return -errno;
	lease = calloc(1, sizeof(*lease));
	if (!lease)
		return -ENOMEM;
	lease->table = table;
	lease->device = st.st_dev;
	lease->inode = st.st_ino;
	error = take(table, lease, source);
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

/* ---- our own opens ---- */

bool lease_opening_begin(struct lease_table *table, dev_t device, ino_t inode,
			 struct lease_opening *opening)
{
	struct bucket *bucket = bucket_of(table, device, inode);
	struct lease *lease;
	bool leased = false;

	*opening = (struct lease_opening){.device = device, .inode = inode};
	pthread_mutex_lock(&table->lock);
	cds_list_add(&opening->link, &bucket->openings);
	cds_list_for_each_entry (lease, &bucket->leases, of_file)
		leased |= lease->inode == inode && lease->device == device &&
			  !atomic_load(&lease->lost);
	pthread_mutex_unlock(&table->lock);
	return leased;
}

void lease_opening_alone(struct lease_table *table, const struct lease_opening *opening)
{
	struct lease *lease;

	pthread_mutex_lock(&table->lock);
	cds_list_for_each_entry (lease, &bucket_of(table, opening->device, opening->inode)->leases,
				 of_file)
		/* The thread is told of leases that others have broken already. */
		if (lease->inode == opening->inode && lease->device == opening->device &&
		    !atomic_load(&lease->lost) && is_held_by_us(lease))
			(void)give_back_locked(lease);
	pthread_mutex_unlock(&table->lock);
}

void lease_opening_end(struct lease_table *table, struct lease_opening *opening)
{
	pthread_mutex_lock(&table->lock);
	cds_list_del(&opening->link);
	pthread_mutex_unlock(&table->lock);
}

errint_t lease_check_unwritten(struct lease_table *table, const struct source *source)
{
	errint_t error = 0;

	pthread_mutex_lock(&table->lock);
	/* If a lease is held, source_check_unwritten() would give it back. */
	if (fcntl(source_fd(source), F_GETLEASE) != F_WRLCK)
		error = source_check_unwritten(source_fd(source));
	pthread_mutex_unlock(&table->lock);
	return error;
}
