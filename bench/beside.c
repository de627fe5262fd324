/* SPDX-License-Identifier: Apache-2.0 */
/*
 * beside.c - how long one client's small requests take beside many that wait for the disk; prints
 * one JSON object
 *
 *	beside [-m MISSERS] [-f FSYNCERS] [-u UID] [-n] [-p] DIRECTORY SECONDS
 *
 * DIRECTORY holds "hits", which the server has in memory, "small", any number of "miss-N" from 0
 * on, and as many "sync-N" as there are fsyncers. Each misser reads pages at random places of the
 * files miss-N. Each fsyncer writes a page to its sync-N and flushes it. Both work as fast as they
 * can. Beside them three threads read pages of "hits" past the kernel's cache, stat "small", and
 * open "small". Each of the three makes one request a millisecond and times it.
 *
 * -p  leaves out these three threads: only the rates of the others are printed.
 * -n  means that DIRECTORY is native: hits then come from the kernel's cache, and misses bypass it.
 * -u  does everything as that user, who owns the files.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE        4096u
#define THREADS_MAX 1024u
#define FILES_MAX   64u
#define TIMES_MAX   (1u << 16) /* of one probe: a minute's worth */
#define STACK_BYTES (64u << 10)

/* Of one thread; everything else is constant once they run. */
struct worker {
	pthread_t id;
	uint64_t random;
	uint64_t done;
	int fd; /* of a fsyncer */
};

struct probe {
	const char *name;
	void (*ask)(void *page, uint64_t *random);
	pthread_t id;
	size_t count;
	uint64_t *times; /* ns */
};

static int top;
static int hits;
static uint64_t hit_pages;
static int misses[FILES_MAX];
static uint64_t miss_pages;
static unsigned miss_files;
static bool native;
static atomic_bool over;

_Noreturn static void die(const char *what)
{
	fprintf(stderr, "beside: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static void *new_page(void)
{
	void *page = aligned_alloc(PAGE, PAGE);

	if (!page)
		die("memory");
	memset(page, 'p', PAGE);
	return page;
}

static uint64_t pages_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		die("fstat");
	return (uint64_t)st.st_size / PAGE;
}

/* ---- those that wait for the disk ---- */

static void *miss(void *argument)
{
	struct worker *self = argument;
	void *page = new_page();

	while (!atomic_load(&over)) {
		int fd = misses[next_random(&self->random) % miss_files];
		off_t at = (off_t)(next_random(&self->random) % miss_pages * PAGE);

		if (pread(fd, page, PAGE, at) != (ssize_t)PAGE)
			die("a miss");
		self->done++;
	}
	free(page);
	return NULL;
}

static void *flush(void *argument)
{
	struct worker *self = argument;
	void *page = new_page();

	while (!atomic_load(&over)) {
		off_t at = (off_t)(next_random(&self->random) % 256 * PAGE);

		if (pwrite(self->fd, page, PAGE, at) != (ssize_t)PAGE || fsync(self->fd))
			die("a write");
		self->done++;
	}
	free(page);
	return NULL;
}

/* ---- those that do not ---- */

static void ask_hit(void *page, uint64_t *random)
{
	off_t at = (off_t)(next_random(random) % hit_pages * PAGE);

	if (pread(hits, page, PAGE, at) != (ssize_t)PAGE)
		die("a hit");
}

/* The kernel is not to answer by itself. */
static void ask_stat(void *page, uint64_t *random)
{
	struct statx stx;

	(void)page;
	(void)random;
	if (statx(top, "small", AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx))
		die("stat");
}

static void ask_open(void *page, uint64_t *random)
{
	int fd = openat(top, "small", O_RDONLY | O_CLOEXEC);

	(void)page;
	(void)random;
	if (fd < 0 || close(fd))
		die("open");
}

static struct probe probes[] = {{.name = "hit", .ask = ask_hit},
				{.name = "stat", .ask = ask_stat},
				{.name = "open", .ask = ask_open}};
#define PROBES (sizeof(probes) / sizeof(probes[0]))

static void *ask(void *argument)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	struct probe *self = argument;
	uint64_t random = 1;
	void *page = new_page();

	while (!atomic_load(&over) && self->count < TIMES_MAX) {
		uint64_t began = now_ns();

		self->ask(page, &random);
		self->times[self->count++] = now_ns() - began;
		nanosleep(&pause, NULL);
	}
	free(page);
	return NULL;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void print_probe(struct probe *probe)
{
	if (!probe->count)
		die("nothing was asked");
	qsort(probe->times, probe->count, sizeof(uint64_t), compare);
	printf("\"%s\": {\"count\": %zu, \"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}, ",
	       probe->name, probe->count, (double)probe->times[probe->count / 2] / 1e3,
	       (double)probe->times[probe->count * 99 / 100] / 1e3,
	       (double)probe->times[probe->count - 1] / 1e3);
}

/* ---- all of it ---- */

static int open_numbered(const char *kind, unsigned number, int flags)
{
	char name[32];

	snprintf(name, sizeof(name), "%s-%u", kind, number);
	return openat(top, name, flags | O_CLOEXEC);
}

static void open_files(unsigned missers, bool probed)
{
	while (missers && miss_files < FILES_MAX) {
		int fd = open_numbered("miss", miss_files, O_RDONLY | (native ? O_DIRECT : 0));

		if (fd < 0)
			break;
		/* A miss is one page. */
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
		miss_pages = pages_of(fd);
		misses[miss_files++] = fd;
	}
	if (missers && !miss_files)
		die("miss-0");
	if (!probed)
		return;
	hits = openat(top, "hits", O_RDONLY | O_CLOEXEC | (native ? 0 : O_DIRECT));
	if (hits < 0)
		die("hits");
	hit_pages = pages_of(hits);
}

static void start(pthread_t *id, void *(*work)(void *), void *argument)
{
	pthread_attr_t attributes;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	errno = pthread_create(id, &attributes, work, argument);
	if (errno)
		die("a thread");
	pthread_attr_destroy(&attributes);
}

static struct worker *start_workers(unsigned count, bool flushes)
{
	struct worker *workers = calloc(count + 1, sizeof(*workers));

	if (!workers)
		die("memory");
	for (unsigned i = 0; i < count; i++) {
		workers[i].random = i * UINT64_C(1000003) + flushes;
		if (flushes && (workers[i].fd = open_numbered("sync", i, O_RDWR)) < 0)
			die("sync-N");
		start(&workers[i].id, flushes ? flush : miss, &workers[i]);
	}
	return workers;
}

static double rate_of(struct worker *workers, unsigned count, double seconds)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < count; i++) {
		pthread_join(workers[i].id, NULL);
		done += workers[i].done;
	}
	free(workers);
	return (double)done / seconds;
}

static void start_probes(void)
{
	for (size_t i = 0; i < PROBES; i++) {
		probes[i].times = malloc(TIMES_MAX * sizeof(uint64_t));
		if (!probes[i].times)
			die("memory");
		start(&probes[i].id, ask, &probes[i]);
	}
}

static void end_probes(void)
{
	for (size_t i = 0; i < PROBES; i++) {
		pthread_join(probes[i].id, NULL);
		print_probe(&probes[i]);
		free(probes[i].times);
	}
}

static void become(const char *user)
{
	uid_t uid = (uid_t)strtoumax(user, NULL, 10);

	if (!uid || setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		die(user);
}

_Noreturn static void usage(void)
{
	fprintf(stderr,
		"usage: beside [-m MISSERS] [-f FSYNCERS] [-u UID] [-n] [-p] DIRECTORY SECONDS\n");
	exit(2);
}

static void measure(unsigned missers, unsigned fsyncers, bool probed, double seconds)
{
	const struct timespec span = {.tv_sec = (time_t)seconds,
				      .tv_nsec = (long)((seconds - (time_t)seconds) * 1e9)};
	/* What so many threads take to start, on the client's side, is not of interest. */
	const struct timespec settling = {.tv_nsec = 300000000};
	struct worker *missing;
	struct worker *flushing;
	uint64_t began = now_ns();
	double took;

	missing = start_workers(missers, false);
	flushing = start_workers(fsyncers, true);
	nanosleep(&settling, NULL);
	if (probed)
		start_probes();
	nanosleep(&span, NULL);
	atomic_store(&over, true);
	took = (double)(now_ns() - began) / 1e9;
	printf("{");
	if (probed)
		end_probes();
	printf("\"misses_per_s\": %.1f, ", rate_of(missing, missers, took));
	printf("\"fsyncs_per_s\": %.1f}\n", rate_of(flushing, fsyncers, took));
}

int main(int argc, char *argv[])
{
	unsigned missers = 0, fsyncers = 0;
	const char *user = NULL;
	bool probed = true;
	int option;

	while ((option = getopt(argc, argv, "m:f:u:np")) != -1) {
		if (option == 'm')
			missers = (unsigned)strtoumax(optarg, NULL, 10);
		else if (option == 'f')
			fsyncers = (unsigned)strtoumax(optarg, NULL, 10);
		else if (option == 'u')
			user = optarg;
		else if (option == 'n')
			native = true;
		else if (option == 'p')
			probed = false;
		else
			usage();
	}
	if (argc - optind != 2 || missers > THREADS_MAX || fsyncers > THREADS_MAX)
		usage();
	top = open(argv[optind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		die(argv[optind]);
	if (user)
		become(user);
	open_files(missers, probed);
	measure(missers, fsyncers, probed, strtod(argv[optind + 1], NULL));
	return 0;
}
