/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scale.c - what a frame costs in the index, and a page in a map, when there are very many
 *
 * It fills the product's own index, or one page map, to a size, then looks up entries at random,
 * and prints one JSON object: bytes, nanoseconds, and instructions where the processor counts them.
 *
 *	scale index COUNT LOOKUPS     COUNT frames' metadata in the index; no bytes of theirs
 *	scale stream COUNT LOOKUPS    a map of COUNT pages, frames in a row as a stream takes them
 *	scale scattered COUNT LOOKUPS a map of COUNT pages, frames at random, as files share them
 *	scale files COUNT LOOKUPS     the table of COUNT files of one device
 *	scale snapshots COUNT LOOKUPS COUNT files of one inode number, each of a device of its own
 *
 * 10^8 pages are 400 GB, so nothing here has content of its own: all nodes of the index answer with
 * one page, under digests that differ, and the pages of a map are those of a small pool.
 *
 * There is one thread. Nothing is freed except by the end of the process: removing 10^8 entries
 * would cost as much as what is measured. Under callgrind only the look-ups are instrumented (if
 * its header was there at build time), so its count covers only them.
 */
#include "foldfs/counters.h"
#include "foldfs/file.h"
#include "foldfs/page_map.h"
#include "foldfs/rcu.h"
#include "frame_queue.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_include)
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#endif
#endif
#ifndef CALLGRIND_START_INSTRUMENTATION
#define CALLGRIND_START_INSTRUMENTATION ((void)0)
#define CALLGRIND_STOP_INSTRUMENTATION  ((void)0)
#endif

#define POOL_FRAMES 4096u
#define BATCH       1024u /* operations in one read side: grace periods go on */

static const uint8_t one_page[FOLD_PAGE_SIZE] __attribute__((aligned(64))) = {1};

struct figures {
	uint64_t bytes;
	uint64_t build_ns;
	uint64_t look_up_ns;
	int64_t instructions; /* of all look-ups; -1: not counted */
};

_Noreturn static void die(const char *what, int error)
{
	fprintf(stderr, "scale: %s: %s\n", what, strerror(error));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Of this thread alone: what two tables take is compared, whatever else runs. */
static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* splitmix64's mixer: the same for the same value. */
static uint64_t mix(uint64_t value)
{
	uint64_t z = (value + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* ---- instructions ---- */

static int counter_open(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.disabled = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
	};

	return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static void counting_begin(int counter)
{
	if (counter >= 0 && ioctl(counter, PERF_EVENT_IOC_ENABLE, 0))
		die("perf counter", errno);
	CALLGRIND_START_INSTRUMENTATION;
}

static int64_t counting_end(int counter)
{
	int64_t count;

	CALLGRIND_STOP_INSTRUMENTATION;
	if (counter < 0)
		return -1;
	if (ioctl(counter, PERF_EVENT_IOC_DISABLE, 0) ||
	    read(counter, &count, sizeof(count)) != (ssize_t)sizeof(count))
		die("perf counter", errno);
	return count;
}

/* ---- the index ---- */

static const void *bytes_of(void *owner, const struct hash_index_node *node)
{
	(void)owner;
	(void)node;
	return one_page;
}

static void collided(void *owner)
{
	(void)owner;
	die("two digests were the same", EINVAL);
}

static struct digest digest_of(uint64_t number)
{
	return (struct digest){.low = mix(2 * number), .high = mix(2 * number + 1)};
}

static void index_fill(struct hash_index *index, struct frame_meta *metas, uint64_t count)
{
	for (uint64_t done = 0; done < count;) {
		uint64_t end = done + BATCH < count ? done + BATCH : count;

		fold_rcu_read_lock();
		for (; done < end; done++) {
			struct hash_index_node *node = &metas[done].node;

			node->digest = digest_of(done);
			if (hash_index_share(index, node, one_page) != node)
				die("hash_index_share found what was not there", EINVAL);
		}
		fold_rcu_read_unlock();
		if (hash_index_wants_to_grow(index))
			hash_index_grow(index);
	}
}

static void index_look_up(struct hash_index *index, uint64_t count, uint64_t look_ups)
{
	struct hash_index_node node;

	for (uint64_t i = 0; i < look_ups; i++) {
		node.digest = digest_of(mix(i) % count);
		fold_rcu_read_lock();
		if (hash_index_share(index, &node, one_page) == &node)
			die("hash_index_share did not find what was there", EINVAL);
		fold_rcu_read_unlock();
	}
}

static void measure_index(uint64_t count, uint64_t look_ups, int counter, struct figures *figures)
{
	const struct hash_index_owner owner = {.bytes = bytes_of, .collision = collided};
	struct frame_queue queue;
	struct hash_index *index;
	uint64_t began = now_ns();
	struct frame_meta *metas = mmap(NULL, count * sizeof(*metas), PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (metas == MAP_FAILED)
		die("mmap", errno);
	if (frame_queue_init(&queue, metas, (uint32_t)count, (uint32_t)count) ||
	    hash_index_new(count, &owner, &index))
		die("the index", ENOMEM);
	index_fill(index, metas, count);
	figures->build_ns = now_ns() - began;
	figures->bytes =
		count * sizeof(*metas) + frame_queue_bytes(&queue) + hash_index_bytes(index);
	index_look_up(index, count, look_ups / 10); /* warm */
	began = now_ns();
	counting_begin(counter);
	index_look_up(index, count, look_ups);
	figures->instructions = counting_end(counter);
	figures->look_up_ns = now_ns() - began;
}

/* ---- a map ---- */

struct map_bench {
	struct page_store *store;
	struct page_map *map;
	struct digest digests[POOL_FRAMES];
	uint64_t count;
	bool scattered;
};

/* One more user of content NUMBER of the small pool, in the frame that has it. RCU read side. */
static struct frame_ref use_content(struct map_bench *bench, uint32_t number)
{
	struct frame_ref ref;
	uint32_t frame;

	if (page_store_take(bench->store, &frame, 1) != 1)
		die("no free frame", ENOMEM);
	memcpy(page_store_bytes(bench->store, frame), &number, sizeof(number));
	page_store_publish(bench->store, frame, &bench->digests[number], NULL, &ref);
	return ref;
}

static void pool_fill(struct map_bench *bench)
{
	uint8_t page[FOLD_PAGE_SIZE] = {0};

	for (uint32_t number = 0; number < POOL_FRAMES; number++) {
		memcpy(page, &number, sizeof(number));
		page_store_digest(bench->store, page, &bench->digests[number]);
		fold_rcu_read_lock();
		use_content(bench, number);
		fold_rcu_read_unlock();
	}
}

static void map_fill(struct map_bench *bench)
{
	for (uint64_t done = 0; done < bench->count;) {
		uint64_t end = done + BATCH < bench->count ? done + BATCH : bench->count;

		fold_rcu_read_lock();
		for (; done < end; done++) {
			uint64_t number = bench->scattered ? mix(done) : done;
			struct page_look look;

			page_map_look(bench->map, done, 1, &look);
			if (!page_map_publish(bench->map, done, look.ticket,
					      use_content(bench, (uint32_t)(number % POOL_FRAMES))))
				die("page_map_publish", ENOMEM);
		}
		fold_rcu_read_unlock();
	}
}

static void map_look_up(struct map_bench *bench, uint64_t look_ups)
{
	for (uint64_t i = 0; i < look_ups; i++) {
		struct page_look look;

		fold_rcu_read_lock();
		page_map_look(bench->map, mix(i) % bench->count, 1, &look);
		if (!look.data)
			die("a page of the map is unknown", EINVAL);
		fold_rcu_read_unlock();
	}
}

static void measure_map(uint64_t count, bool scattered, uint64_t look_ups, int counter,
			struct figures *figures)
{
	static struct map_bench bench;
	struct page_map_memory *memory;
	struct counters *counters = counters_new();
	uint64_t began;
	int error;

	/* Twice the frames in use, so that nothing is evicted. */
	if (!counters)
		die("stats", ENOMEM);
	error = page_store_new((uint64_t)POOL_FRAMES * 2 * FOLD_PAGE_SIZE, counters, &bench.store);
	if (!error)
		error = page_map_memory_new(bench.store, &memory);
	if (!error)
		error = page_map_new(memory, count << FOLD_PAGE_SHIFT, &bench.map);
	if (error)
		die("the map", -error);
	bench.count = count;
	bench.scattered = scattered;
	pool_fill(&bench);
	began = now_ns();
	map_fill(&bench);
	figures->build_ns = now_ns() - began;
	fold_rcu_barrier();
	figures->bytes = page_map_memory_in_use(memory);
	map_look_up(&bench, look_ups / 10); /* warm */
	began = now_ns();
	counting_begin(counter);
	map_look_up(&bench, look_ups);
	figures->instructions = counting_end(counter);
	figures->look_up_ns = now_ns() - began;
}

/* ---- the table of files ---- */

static void use_file(struct file_table *files, bool snapshots, uint64_t number)
{
	/* Devices without a driver are numbered one by one. */
	const struct stat st = {.st_dev = makedev(0, snapshots ? (unsigned)number + 40 : 40),
				.st_ino = snapshots ? 257 : number + 257};
	struct file *file;
	int error = file_table_get(files, &st, &file);

	if (error)
		die("file_table_get", -error);
	file_put(file);
}

static void measure_files(uint64_t count, bool snapshots, uint64_t look_ups, int counter,
			  struct figures *figures)
{
	struct page_map_memory *memory;
	struct counters *counters = counters_new();
	struct page_store *store;
	struct file_table *files;
	uint64_t began;
	int error = counters ? page_store_new(PAGE_STORE_MIN_BYTES, counters, &store) : -ENOMEM;

	if (!error)
		error = page_map_memory_new(store, &memory);
	if (!error)
		error = file_table_new(memory, UINT64_MAX, &files);
	if (error)
		die("the table", -error);
	began = cpu_ns();
	for (uint64_t i = 0; i < count; i++)
		use_file(files, snapshots, i);
	figures->build_ns = cpu_ns() - began;
	figures->bytes = page_map_memory_in_use(memory) + file_table_bytes(files);
	for (uint64_t i = 0; i < look_ups / 10; i++)
		use_file(files, snapshots, mix(i) % count);
	began = cpu_ns();
	counting_begin(counter);
	for (uint64_t i = 0; i < look_ups; i++)
		use_file(files, snapshots, mix(i) % count);
	figures->instructions = counting_end(counter);
	figures->look_up_ns = cpu_ns() - began;
}

static uint64_t number_of(const char *text)
{
	char *end;

	errno = 0;
	uint64_t value = strtoumax(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || !value)
		return 0;
	return value;
}

static void usage(void)
{
	fprintf(stderr, "usage: scale index|stream|scattered|files|snapshots COUNT LOOKUPS\n");
	exit(2);
}

int main(int argc, char *argv[])
{
	struct figures figures = {0};
	uint64_t count = argc == 4 ? number_of(argv[2]) : 0;
	uint64_t look_ups = argc == 4 ? number_of(argv[3]) : 0;
	int counter = counter_open();

	if (!count || !look_ups || count > PAGE_STORE_MAX_BYTES / FOLD_PAGE_SIZE)
		usage();
	if (strcmp(argv[1], "index") == 0)
		measure_index(count, look_ups, counter, &figures);
	else if (strcmp(argv[1], "stream") == 0 || strcmp(argv[1], "scattered") == 0)
		measure_map(count, argv[1][1] == 'c', look_ups, counter, &figures);
	else if (strcmp(argv[1], "files") == 0 || strcmp(argv[1], "snapshots") == 0)
		measure_files(count, argv[1][0] == 's', look_ups, counter, &figures);
	else
		usage();
	printf("{\"what\": \"%s\", \"count\": %" PRIu64 ", \"bytes\": %" PRIu64
	       ", \"bytes_each\": %.3f, \"build_ns_each\": %.1f, \"look_ups\": %" PRIu64
	       ", \"look_up_ns\": %.1f, ",
	       argv[1], count, figures.bytes, (double)figures.bytes / (double)count,
	       (double)figures.build_ns / (double)count, look_ups,
	       (double)figures.look_up_ns / (double)look_ups);
	if (figures.instructions < 0)
		printf("\"look_up_instructions\": null}\n");
	else
		printf("\"look_up_instructions\": %.1f}\n",
		       (double)figures.instructions / (double)look_ups);
	fflush(stdout);
	_exit(0);
}
