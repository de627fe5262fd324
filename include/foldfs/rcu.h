/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rcu.h - the one way in which foldfs enters an RCU read side
 *
 * Flavour: urcu-memb. Threads that libfuse creates run our handlers, so a thread is registered at
 * its first use and unregistered when it ends. urcu-bp, which registers by itself, has the same
 * cost for the read side. But with urcu-memb the last reader wakes a waiting grace period; urcu-bp
 * polls every 10 ms. So memory that eviction frees comes back as soon as it can.
 *
 * ThreadSanitizer sees neither liburcu's barriers nor membarrier(2). The wrappers tell it the two
 * facts that RCU promises, so no suppression is needed. First: what a reader did happens before the
 * end of a grace period that waited for it. Second: a reader sees a published object whole.
 *
 * A read-side critical section holds up every grace period. Ours end with the request: at most one
 * copy of one request's bytes (1 MiB) to the client, never a read of the source.
 */
#ifndef FOLDFS_RCU_H
#define FOLDFS_RCU_H

#include <stdbool.h>

#include <urcu/urcu-memb.h>

#if defined(__SANITIZE_THREAD__)
#define FOLD_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FOLD_TSAN 1
#endif
#endif

#ifdef FOLD_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#define FOLD_TSAN_ACQUIRE(addr) __tsan_acquire((void *)(addr))
#define FOLD_TSAN_RELEASE(addr) __tsan_release((void *)(addr))
#else
#define FOLD_TSAN_ACQUIRE(addr) ((void)(addr))
#define FOLD_TSAN_RELEASE(addr) ((void)(addr))
#endif

extern __thread bool fold_rcu_registered;
extern char fold_rcu_tsan_token;

/* Make the calling thread known to RCU until it ends. Idempotent; called by the wrappers. */
void fold_rcu_register(void);

/* Enter a read side. Nests. Any thread. Makes no system call, except the first time in a thread. */
static inline void fold_rcu_read_lock(void)
{
	if (!fold_rcu_registered)
		fold_rcu_register();
	urcu_memb_read_lock();
}

/* Leave the read side. */
static inline void fold_rcu_read_unlock(void)
{
	FOLD_TSAN_RELEASE(&fold_rcu_tsan_token);
	urcu_memb_read_unlock();
}

/* Wait for a grace period. Blocks. Not inside a read side, and not with a lock held that a reader
 * takes. */
void fold_rcu_synchronize(void);

/* Run CALLBACK(HEAD) after a grace period, on liburcu's own thread. HEAD lies inside the object.
 * Never blocks. */
void fold_rcu_call(struct rcu_head *head, void (*callback)(struct rcu_head *));

/* The first thing that a callback does. */
static inline void fold_rcu_called(struct rcu_head *head)
{
	/* Ordered after the thread that handed HEAD over, and after the readers that the grace
	 * period waited for. */
	FOLD_TSAN_ACQUIRE(head);
	FOLD_TSAN_ACQUIRE(&fold_rcu_tsan_token);
}

/* Wait until every callback handed over so far has run. Not within a read side. */
void fold_rcu_barrier(void);

#endif
