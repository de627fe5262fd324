/* SPDX-License-Identifier: Apache-2.0 */
/* clock.h - CLOCK_MONOTONIC as a number, and deadlines by it */
#ifndef FOLDFS_CLOCK_H
#define FOLDFS_CLOCK_H

#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S  INT64_C(1000000000)

static inline int64_t clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

static inline int64_t clock_now_ms(void)
{
	return clock_now_ns() / NS_PER_MS;
}

/* The moment NS (not negative) in the form that system calls take. */
static inline struct timespec clock_at(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

/* Milliseconds left until DEADLINE_MS of clock_now_ms(), for poll(2); 0 if it is past. */
static inline int clock_left_ms(int64_t deadline_ms)
{
	int64_t left = deadline_ms - clock_now_ms();

	return left <= 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX;
}

/* Make a condition variable whose timed waits use this clock. */
static inline void clock_cond_init(pthread_cond_t *condition)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &attributes);
	pthread_condattr_destroy(&attributes);
}

#endif
