/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rcu.c - registration of threads with RCU, grace periods, and the annotations for ThreadSanitizer
 */
#include "foldfs/rcu.h"

#include <urcu/static/urcu-memb.h>

#include <pthread.h>
#include <stdlib.h>

__thread bool fold_rcu_registered;
char fold_rcu_tsan_token;

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

static void unregister(void *unused)
{
	(void)unused;
	fold_rcu_registered = false;
	urcu_memb_unregister_thread();
}

static void make_key(void)
{
	/* Without the key a thread would stay registered after its end, and every grace period
	 * would wait for it for ever. */
	if (pthread_key_create(&key, unregister))
		abort();
}

void fold_rcu_register(void)
{
	if (fold_rcu_registered)
		return;
	fold_rcu_registered = true;
	/* liburcu's own threads, which run the callbacks, register themselves. */
	if (URCU_TLS(urcu_memb_reader).registered)
		return;
	pthread_once(&key_once, make_key);
	urcu_memb_register_thread();
	/* Any value but NULL makes the destructor run when the thread ends. */
	pthread_setspecific(key, &key);
}

void fold_rcu_synchronize(void)
{
	fold_rcu_register();
	urcu_memb_synchronize_rcu();
	FOLD_TSAN_ACQUIRE(&fold_rcu_tsan_token);
}

void fold_rcu_call(struct rcu_head *head, void (*callback)(struct rcu_head *))
{
	fold_rcu_register();
	FOLD_TSAN_RELEASE(head);
	urcu_memb_call_rcu(head, callback);
}

/* A callback that signals its sender when it runs. */
struct barrier {
	struct rcu_head head;
	pthread_mutex_t mutex;
	pthread_cond_t reached;
	bool done; /* under mutex */
};

static void barrier_reached(struct rcu_head *head)
{
	struct barrier *barrier = caa_container_of(head, struct barrier, head);

	fold_rcu_called(head);
	pthread_mutex_lock(&barrier->mutex);
	barrier->done = true;
	pthread_cond_signal(&barrier->reached);
	pthread_mutex_unlock(&barrier->mutex);
}

/*
 * One thread of liburcu runs all callbacks in the order in which they were handed over. So when our
 * callback has run, all before it have run. Not urcu_memb_barrier(): it does the same, but
 * ThreadSanitizer does not see how it hands memory to that thread.
 */
void fold_rcu_barrier(void)
{
	struct barrier barrier = {
		.mutex = PTHREAD_MUTEX_INITIALIZER,
		.reached = PTHREAD_COND_INITIALIZER,
	};

	fold_rcu_call(&barrier.head, barrier_reached);
	pthread_mutex_lock(&barrier.mutex);
	while (!barrier.done)
		pthread_cond_wait(&barrier.reached, &barrier.mutex);
	pthread_mutex_unlock(&barrier.mutex);
	pthread_mutex_destroy(&barrier.mutex);
	pthread_cond_destroy(&barrier.reached);
	FOLD_TSAN_ACQUIRE(&fold_rcu_tsan_token);
}
