/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.c - one timed, fixed amount of work on a set of files; prints one JSON object
 *
 * The set is a part (--offset, --span) of each file, one after the other, cut into blocks. Threads
 * start together. Each reads, touches or writes its share of --ops blocks, in order from a place of
 * its own or at random from a fixed seed. So two runs with the same arguments do the same work,
 * whatever serves the files. Readers can compare `sum`, which depends on what was read.
 *
 * With --trace there is a thread for each file, which reads and writes what the trace says, in its
 * order (bench/record_trace describes the format). Each file gets content of its own, as a guest's
 * journal and times are. That content depends on the seed, the file's number and the step. So it
 * differs with each seed, and is the same for everybody who replays the same trace.
 *
 * Everything in struct job is constant while the threads run; each struct worker belongs to its
 * thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES  4096u
#define LINE_BYTES  64u
#define MAX_THREADS 64u
#define MAX_STEP    (UINT64_C(64) << 20) /* of a trace, at once */

enum op { OP_READ, OP_MMAP, OP_WRITE };
enum sync { SYNC_NEVER, SYNC_EACH, SYNC_END };

/* One request of a trace. */
struct step {
	uint64_t offset;
	uint64_t length;
	bool writes;
};

struct part {
	const char *path;
	uint64_t offset;
	uint64_t length;
	uint64_t first_block; /* of the set */
};

struct job {
	uid_t uid; /* who works; 0: whoever started it */
	enum op op;
	enum sync sync;
	bool random;
	bool no_latency;
	bool remap; /* OP_MMAP: map anew after as many operations as the set has blocks */
	uint64_t block;
	uint64_t ops; /* of all threads; 0: each block once */
	uint64_t offset;
	uint64_t span; /* 0: to the end of the file */
	uint64_t seed;
	struct step *steps; /* of the trace, or NULL */
	size_t step_count;
	bool writes; /* the work as a whole: files are opened for that */
	unsigned threads;
	size_t count;
	struct part *parts;
	uint64_t blocks;
	pthread_barrier_t start;
};

struct worker {
	struct job *job;
	unsigned number;
	pthread_t thread;
	int *fds;
	const uint8_t **maps; /* OP_MMAP: of each part, or NULL */
	uint8_t *buffer;
	uint64_t ops;
	uint64_t state; /* of the random numbers */
	uint64_t bytes;
	uint64_t sum;
	uint32_t *nanoseconds; /* of each operation */
	uint64_t began;
	uint64_t ended;
	const char *failed; /* what could not be done, or NULL */
	int error;
};

static const char *const op_names[] = {"read", "mmap", "write"};
static const char *const sync_names[] = {"never", "each", "end"};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* splitmix64: a fixed sequence for each seed. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* Where block NUMBER of the set is: its part, its offset in the file and its length. */
static size_t locate(const struct job *job, uint64_t number, uint64_t *ret_offset,
		     size_t *ret_length)
{
	size_t i = job->count - 1;

	while (job->parts[i].first_block > number)
		i--;
	const struct part *part = &job->parts[i];
	uint64_t at = (number - part->first_block) * job->block;
	uint64_t left = part->length - at;

	*ret_offset = part->offset + at;
	*ret_length = left < job->block ? (size_t)left : (size_t)job->block;
	return i;
}

_Noreturn static void die(const char *what, int error)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(error));
	exit(1);
}

static int fail(struct worker *worker, const char *what, int error)
{
	worker->failed = what;
	worker->error = error;
	return -1;
}

static void add_sum(struct worker *worker, uint64_t number, const uint8_t *bytes, size_t length)
{
	for (size_t at = 0; at + sizeof(uint64_t) <= length; at += PAGE_BYTES) {
		uint64_t word;

		memcpy(&word, bytes + at, sizeof(word));
		worker->sum += word * (number * 2 + 1);
	}
}

static int read_block(struct worker *worker, uint64_t number, size_t part, uint64_t offset,
		      size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t got = pread(worker->fds[part], worker->buffer + done, length - done,
				    (off_t)(offset + done));
		if (got < 0)
			return fail(worker, "pread", errno);
		if (!got)
			return fail(worker, "pread: the file is shorter than it was", EIO);
		done += (size_t)got;
	}
	add_sum(worker, number, worker->buffer, length);
	return 0;
}

static int write_block(struct worker *worker, size_t part, uint64_t offset, size_t length)
{
	/* No two pages alike, so none can be shared again. */
	for (size_t at = 0; at + sizeof(uint64_t) <= length; at += PAGE_BYTES) {
		uint64_t word = next_random(&worker->state);

		memcpy(worker->buffer + at, &word, sizeof(word));
	}
	ssize_t put = pwrite(worker->fds[part], worker->buffer, length, (off_t)offset);
	if (put != (ssize_t)length)
		return fail(worker, "pwrite", put < 0 ? errno : EIO);
	if (worker->job->sync == SYNC_EACH && fdatasync(worker->fds[part]))
		return fail(worker, "fdatasync", errno);
	return 0;
}

static void touch_block(struct worker *worker, size_t part, uint64_t offset, size_t length)
{
	/* A byte of every cache line: what a copy would fetch. */
	const volatile uint8_t *bytes =
		worker->maps[part] + (offset - worker->job->parts[part].offset);

	for (size_t at = 0; at < length; at += LINE_BYTES)
		worker->sum += bytes[at];
}

static void unmap_parts(struct worker *worker)
{
	for (size_t i = 0; i < worker->job->count; i++) {
		if (worker->maps[i])
			munmap((void *)(uintptr_t)worker->maps[i], worker->job->parts[i].length);
		worker->maps[i] = NULL;
	}
}

/* Map every part anew, so that its pages fault again. */
static int map_parts(struct worker *worker)
{
	unmap_parts(worker);
	for (size_t i = 0; i < worker->job->count; i++) {
		const struct part *part = &worker->job->parts[i];
		void *map = mmap(NULL, part->length, PROT_READ, MAP_SHARED, worker->fds[i],
				 (off_t)part->offset);
		if (map == MAP_FAILED)
			return fail(worker, "mmap", errno);
		worker->maps[i] = map;
	}
	return 0;
}

static int do_op(struct worker *worker, uint64_t number)
{
	uint64_t offset;
	size_t length;
	size_t part = locate(worker->job, number, &offset, &length);

	worker->bytes += length;
	switch (worker->job->op) {
	case OP_READ:
		return read_block(worker, number, part, offset, length);
	case OP_WRITE:
		return write_block(worker, part, offset, length);
	case OP_MMAP:
		touch_block(worker, part, offset, length);
		return 0;
	}
	return 0;
}

/* Whether the parts are to be mapped before operation I of a thread. */
static bool map_is_due(const struct job *job, uint64_t i)
{
	return i == 0 || (job->remap && i % job->blocks == 0);
}

/* What this thread's file is asked, in the order of the trace. */
static int replay(struct worker *worker)
{
	const struct job *job = worker->job;

	for (size_t i = 0; i < job->step_count; i++) {
		const struct step *step = &job->steps[i];
		uint64_t began = now_ns();

		if (step->writes ? write_block(worker, worker->number, step->offset,
					       (size_t)step->length)
				 : read_block(worker, i, worker->number, step->offset,
					      (size_t)step->length))
			return -1;
		uint64_t took = now_ns() - began;
		worker->nanoseconds[i] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
		worker->bytes += step->length;
	}
	return 0;
}

static int do_ops(struct worker *worker)
{
	const struct job *job = worker->job;
	uint64_t next = job->blocks / job->threads * worker->number;

	for (uint64_t i = 0; i < worker->ops; i++) {
		uint64_t number = job->random ? next_random(&worker->state) % job->blocks : next;

		if (job->op == OP_MMAP && map_is_due(job, i) && map_parts(worker))
			return -1;
		uint64_t began = job->no_latency ? 0 : now_ns();
		if (do_op(worker, number))
			return -1;
		if (!job->no_latency) {
			uint64_t took = now_ns() - began;

			worker->nanoseconds[i] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
		}
		next = next + 1 < job->blocks ? next + 1 : 0;
	}
	for (size_t i = 0; job->sync == SYNC_END && i < job->count; i++) {
		if (fdatasync(worker->fds[i]))
			return fail(worker, "fdatasync", errno);
	}
	return 0;
}

static void *work(void *context)
{
	struct worker *worker = context;

	pthread_barrier_wait(&worker->job->start);
	worker->began = now_ns();
	if (worker->job->steps)
		replay(worker);
	else
		do_ops(worker);
	worker->ended = now_ns();
	return NULL;
}

static void *allocate(size_t bytes)
{
	void *memory = NULL;

	if (posix_memalign(&memory, PAGE_BYTES, bytes ? bytes : 1)) {
		fprintf(stderr, "load: no memory\n");
		exit(1);
	}
	memset(memory, 0, bytes);
	return memory;
}

static void worker_init(struct worker *worker, struct job *job, unsigned number)
{
	uint64_t ops = job->ops ? job->ops : job->blocks;

	worker->job = job;
	worker->number = number;
	worker->ops =
		job->steps ? job->step_count : ops / job->threads + (number < ops % job->threads);
	worker->state = job->seed * MAX_THREADS + number;
	worker->fds = allocate(job->count * sizeof(*worker->fds));
	worker->maps = allocate(job->count * sizeof(*worker->maps));
	worker->buffer = allocate(job->block);
	worker->nanoseconds = allocate(job->no_latency ? 0 : worker->ops * sizeof(uint32_t));
	for (size_t at = 0; at + sizeof(uint64_t) <= job->block; at += sizeof(uint64_t)) {
		uint64_t word = next_random(&worker->state);

		memcpy(worker->buffer + at, &word, sizeof(word));
	}
	for (size_t i = 0; i < job->count; i++) {
		worker->fds[i] =
			open(job->parts[i].path, (job->writes ? O_RDWR : O_RDONLY) | O_CLOEXEC);
		if (worker->fds[i] < 0)
			die(job->parts[i].path, errno);
	}
}

static void worker_clear(struct worker *worker)
{
	if (worker->job->op == OP_MMAP)
		unmap_parts(worker);
	for (size_t i = 0; i < worker->job->count; i++)
		close(worker->fds[i]);
	free(worker->fds);
	free(worker->maps);
	free(worker->buffer);
	free(worker->nanoseconds);
}

/* The set, from the sizes that the files have now. */
static void job_measure(struct job *job, char *paths[])
{
	job->parts = allocate(job->count * sizeof(*job->parts));
	for (size_t i = 0; i < job->count; i++) {
		struct part *part = &job->parts[i];
		struct stat st;

		if (stat(paths[i], &st))
			die(paths[i], errno);
		uint64_t size = (uint64_t)st.st_size;
		if (size <= job->offset || size - job->offset < job->span) {
			fprintf(stderr, "load: %s is too short\n", paths[i]);
			exit(1);
		}
		part->path = paths[i];
		part->offset = job->offset;
		part->length = job->span ? job->span : size - job->offset;
		part->first_block = job->blocks;
		job->blocks += (part->length + job->block - 1) / job->block;
	}
}

/* The request that LINE of the trace at PATH names. */
static struct step step_of(const char *path, const char *line)
{
	bool writes = line[0] == 'w';
	uint64_t page;
	uint64_t pages;

	if (sscanf(writes ? line + 1 : line, "%" SCNu64 " %" SCNu64, &page, &pages) != 2 ||
	    !pages || pages > MAX_STEP / PAGE_BYTES ||
	    page > (uint64_t)INT64_MAX / PAGE_BYTES - pages)
		die(path, EINVAL);
	return (struct step){page * PAGE_BYTES, pages * PAGE_BYTES, writes};
}

/* The requests that the file at PATH names, a line each. One thread for each file, with room for
 * the longest. */
static void job_trace(struct job *job, const char *path)
{
	FILE *file = fopen(path, "re");
	char line[128];

	if (!file)
		die(path, errno);
	while (fgets(line, sizeof(line), file)) {
		if (line[0] == '#')
			continue;
		struct step step = step_of(path, line);

		job->steps = realloc(job->steps, (job->step_count + 1) * sizeof(*job->steps));
		if (!job->steps)
			die(path, ENOMEM);
		job->steps[job->step_count++] = step;
		job->writes |= step.writes;
		if (step.length > job->block)
			job->block = step.length;
	}
	if (ferror(file) || !job->step_count)
		die(path, ferror(file) ? EIO : EINVAL);
	fclose(file);
	if (job->count > MAX_THREADS)
		die("a trace has a thread for each file", E2BIG);
	job->threads = (unsigned)job->count;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Latencies of all workers in order; the caller frees them. */
static uint32_t *sorted_latencies(const struct worker *workers, unsigned threads,
				  uint64_t *ret_count)
{
	uint64_t count = 0;
	uint64_t at = 0;

	for (unsigned i = 0; i < threads; i++)
		count += workers[i].ops;
	uint32_t *all = allocate(count * sizeof(*all));
	for (unsigned i = 0; i < threads; i++) {
		memcpy(all + at, workers[i].nanoseconds, workers[i].ops * sizeof(*all));
		at += workers[i].ops;
	}
	qsort(all, count, sizeof(*all), compare_u32);
	*ret_count = count;
	return all;
}

static void print_latencies(const struct worker *workers, unsigned threads)
{
	static const struct {
		const char *name;
		double part;
	} points[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
	uint64_t count;
	uint32_t *all = sorted_latencies(workers, threads, &count);

	printf(", \"latency_us\": {");
	for (size_t i = 0; count && i < sizeof(points) / sizeof(points[0]); i++) {
		uint64_t at = (uint64_t)((double)(count - 1) * points[i].part);

		printf("\"%s\": %.3f, ", points[i].name, all[at] / 1000.0);
	}
	printf("\"max\": %.3f}", count ? all[count - 1] / 1000.0 : 0.0);
	free(all);
}

static void print_result(const struct job *job, const struct worker *workers)
{
	uint64_t began = UINT64_MAX;
	uint64_t ended = 0;
	uint64_t ops = 0;
	uint64_t bytes = 0;
	uint64_t sum = 0;

	for (unsigned i = 0; i < job->threads; i++) {
		began = workers[i].began < began ? workers[i].began : began;
		ended = workers[i].ended > ended ? workers[i].ended : ended;
		ops += workers[i].ops;
		bytes += workers[i].bytes;
		sum += workers[i].sum;
	}
	double seconds = (double)(ended - began) / 1e9;
	printf("{\"op\": \"%s\", \"order\": \"%s\", \"block\": %" PRIu64 ", \"threads\": %u, "
	       "\"sync\": \"%s\", \"ops\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"seconds\": %.6f, "
	       "\"ops_per_s\": %.1f, \"bytes_per_s\": %.0f, \"sum\": \"%016" PRIx64 "\"",
	       op_names[job->op],
	       job->steps    ? "trace"
	       : job->random ? "rand"
			     : "seq",
	       job->block, job->threads, sync_names[job->sync], ops, bytes, seconds,
	       (double)ops / seconds, (double)bytes / seconds, sum);
	if (!job->no_latency)
		print_latencies(workers, job->threads);
	printf("}\n");
}

/* Run JOB. Returns the exit status. */
static int run(struct job *job)
{
	struct worker *workers = allocate(job->threads * sizeof(*workers));
	int status = 0;

	pthread_barrier_init(&job->start, NULL, job->threads);
	for (unsigned i = 0; i < job->threads; i++)
		worker_init(&workers[i], job, i);
	if (job->uid && (setgroups(0, NULL) || setresgid(job->uid, job->uid, job->uid) ||
			 setresuid(job->uid, job->uid, job->uid)))
		die("another user", errno);
	for (unsigned i = 0; i < job->threads; i++) {
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) {
			fprintf(stderr, "load: no more threads\n");
			exit(1);
		}
	}
	for (unsigned i = 0; i < job->threads; i++) {
		pthread_join(workers[i].thread, NULL);
		if (workers[i].failed) {
			fprintf(stderr, "load: %s: %s\n", workers[i].failed,
				strerror(workers[i].error));
			status = 1;
		}
	}
	if (!status)
		print_result(job, workers);
	for (unsigned i = 0; i < job->threads; i++)
		worker_clear(&workers[i]);
	pthread_barrier_destroy(&job->start);
	free(workers);
	return status;
}

static void usage(void)
{
	fprintf(stderr, "usage: load [options] FILE ...\n"
			"    --op read|mmap|write   what is done to each block (read)\n"
			"    --order seq|rand       (seq)\n"
			"    --block BYTES          (4096)\n"
			"    --threads N            (1)\n"
			"    --ops N                blocks in all; 0: as many as the set has (0)\n"
			"    --offset BYTES         where the set begins in each file (0)\n"
			"    --span BYTES           what of each file is in the set; 0: all (0)\n"
			"    --seed N               of the random order (1)\n"
			"    --sync never|each|end  fdatasync after each write, or once (never)\n"
			"    --remap                mmap anew after as many blocks as the set has\n"
			"    --trace FILE           read and write what FILE says; a thread each\n"
			"    --uid N                as that user, once the files are open\n"
			"    --no-latency           only the whole is timed\n");
	exit(2);
}

static int index_of(const char *name, const char *const names[], int count)
{
	for (int i = 0; i < count; i++) {
		if (strcmp(name, names[i]) == 0)
			return i;
	}
	usage();
	return 0;
}

static uint64_t number_of(const char *text)
{
	char *end;

	errno = 0;
	uint64_t value = strtoumax(text, &end, 10);
	if (errno || end == text || *end || *text == '-')
		usage();
	return value;
}

static void parse_option(struct job *job, int option, const char *value, const char **ret_trace)
{
	switch (option) {
	case 'o':
		job->op = (enum op)index_of(value, op_names, 3);
		break;
	case 'r':
		job->random = index_of(value, (const char *const[]){"seq", "rand"}, 2);
		break;
	case 'b':
		job->block = number_of(value);
		break;
	case 't':
		job->threads = (unsigned)number_of(value);
		break;
	case 'n':
		job->ops = number_of(value);
		break;
	case 'f':
		job->offset = number_of(value);
		break;
	case 's':
		job->span = number_of(value);
		break;
	case 'e':
		job->seed = number_of(value);
		break;
	case 'y':
		job->sync = (enum sync)index_of(value, sync_names, 3);
		break;
	case 'l':
		job->no_latency = true;
		break;
	case 'a':
		*ret_trace = value;
		break;
	case 'm':
		job->remap = true;
		break;
	case 'u':
		job->uid = (uid_t)number_of(value);
		break;
	default:
		usage();
	}
}

int main(int argc, char *argv[])
{
	static const struct option options[] = {
		{"op", required_argument, NULL, 'o'},    {"order", required_argument, NULL, 'r'},
		{"block", required_argument, NULL, 'b'}, {"threads", required_argument, NULL, 't'},
		{"ops", required_argument, NULL, 'n'},   {"offset", required_argument, NULL, 'f'},
		{"span", required_argument, NULL, 's'},  {"seed", required_argument, NULL, 'e'},
		{"sync", required_argument, NULL, 'y'},  {"no-latency", no_argument, NULL, 'l'},
		{"remap", no_argument, NULL, 'm'},       {"trace", required_argument, NULL, 'a'},
		{"uid", required_argument, NULL, 'u'},   {0},
	};
	struct job job = {.block = PAGE_BYTES, .threads = 1, .seed = 1};
	const char *trace = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		parse_option(&job, option, optarg, &trace);
	if (optind == argc || !job.block || !job.threads || job.threads > MAX_THREADS ||
	    job.offset % PAGE_BYTES || (trace && (job.op != OP_READ || job.no_latency)))
		usage();
	job.count = (size_t)(argc - optind);
	job.writes = job.op == OP_WRITE;
	if (trace)
		job_trace(&job, trace);
	job_measure(&job, argv + optind);
	int status = run(&job);
	free(job.parts);
	free(job.steps);
	return status;
}
