/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c - how much memory the process has, as the kernel counts it; gives free memory back
 *
 * Once a second the keeper looks at two numbers, which costs microseconds: the resident memory, and
 * the memory that we count. The difference has a floor: stacks, tables of libraries. Once it has
 * grown by SLACK_BYTES above the floor, malloc_trim(3) goes through the heap and gives back each
 * free page. What is left then is the new floor. So the work follows what was freed: a heap with
 * nothing to give back is gone through once for each SLACK_BYTES of growth.
 *
 * Measured: 60,000 files made and removed by 8 clients leave 63 MiB resident, and 19 after a trim.
 */
#include "foldfs/memory.h"

#include "foldfs/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Each arena has free memory of its own, and each is locked while it is trimmed. So neither one
 * arena nor many. */
#define ARENAS 8
/* Blocks from this size on are mappings of their own. Otherwise the C library raises this size, up
 * to 32 MiB, as such blocks are freed. */
#define MAPPED_BYTES (128 << 10)
#define SLACK_BYTES  ((uint64_t)4 << 20)

struct memory_keeper {
	uint64_t (*counted)(void *context);
	void *context;
	pthread_mutex_t lock;
	pthread_cond_t stopped;
	bool stopping; /* under lock */
	bool runs;     /* the owner's */
	pthread_t thread;
};

void memory_begin(void)
{
	(void)mallopt(M_ARENA_MAX, ARENAS);
	(void)mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
	(void)mallopt(M_TRIM_THRESHOLD, MAPPED_BYTES);
}

/* The value of the line of STATUS that begins with NAME, in bytes; 0: there is none. */
static uint64_t value_of(const char *status, const char *name)
{
	const char *line = strstr(status, name);
	unsigned long long kib = 0;

	if (line)
		(void)sscanf(line + strlen(name), "%llu", &kib);
	return (uint64_t)kib << 10;
}

/* Not /proc/self/statm, which counts shared memory (slab.h) as files. */
void memory_usage(struct memory_usage *ret_usage)
{
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	char text[4096];
	ssize_t length = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);

	if (fd >= 0)
		close(fd);
	text[length > 0 ? length : 0] = '\0';
	*ret_usage = (struct memory_usage){
		.resident_bytes = value_of(text, "\nVmRSS:"),
		.program_bytes = value_of(text, "\nRssFile:"),
	};
}

/* Resident memory that is neither counted nor a file's. */
static uint64_t uncounted(struct memory_keeper *keeper)
{
	uint64_t counted = keeper->counted(keeper->context);
	struct memory_usage usage;

	memory_usage(&usage);
	counted += usage.program_bytes;
	return usage.resident_bytes > counted ? usage.resident_bytes - counted : 0;
}

/* False: the keeper has to stop. */
static bool wait_a_second(struct memory_keeper *keeper)
{
	struct timespec until = clock_at(clock_now_ns() + NS_PER_S);
	bool stopping;

	pthread_mutex_lock(&keeper->lock);
	if (!keeper->stopping)
		(void)pthread_cond_timedwait(&keeper->stopped, &keeper->lock, &until);
	stopping = keeper->stopping;
	pthread_mutex_unlock(&keeper->lock);
	return !stopping;
}

static void *keep(void *argument)
{
	struct memory_keeper *keeper = argument;
	uint64_t floor = uncounted(keeper);
	uint64_t now;

	while (wait_a_second(keeper)) {
		now = uncounted(keeper);
		if (now > floor + SLACK_BYTES) {
			(void)malloc_trim(0);
			now = floor = uncounted(keeper);
		}
		if (now < floor)
			floor = now;
	}
	return NULL;
}

errint_t memory_keeper_new(uint64_t (*counted)(void *context), void *context,
			   struct memory_keeper **ret_keeper)
{
	struct memory_keeper *keeper = calloc(1, sizeof(*keeper));

	if (!keeper)
		return -ENOMEM;
	keeper->counted = counted;
	keeper->context = context;
	pthread_mutex_init(&keeper->lock, NULL);
	clock_cond_init(&keeper->stopped);
	*ret_keeper = keeper;
	return 0;
}

errint_t memory_keeper_start(struct memory_keeper *keeper)
{
	int error = pthread_create(&keeper->thread, NULL, keep, keeper);

	keeper->runs = !error;
	return -error;
}

void memory_keeper_free(struct memory_keeper *keeper)
{
	if (!keeper)
		return;
	pthread_mutex_lock(&keeper->lock);
	keeper->stopping = true;
	pthread_mutex_unlock(&keeper->lock);
	pthread_cond_signal(&keeper->stopped);
	if (keeper->runs)
		pthread_join(keeper->thread, NULL);
	pthread_cond_destroy(&keeper->stopped);
	pthread_mutex_destroy(&keeper->lock);
	free(keeper);
}
