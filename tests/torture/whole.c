/* SPDX-License-Identifier: Apache-2.0 */
/*
 * whole.c - the command line of foldfs-whole
 *
 * The program works on an existing mount, as foldfs-torture does. With --make it makes the files of
 * a play, each in place of whatever has the name. Without --make it plays: then the files must have
 * been scanned, and the mount must serve all of them as equal files. Exit status and output are as
 * for foldfs-torture.
 */
#include "whole.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS 10000000L

struct arguments {
	bool make;
	unsigned threads;
	unsigned operations; /* of each thread */
	unsigned seconds;    /* 0: no limit */
	unsigned patience;   /* seconds without any operation finished that are a hang */
};

static const struct option words[] = {
	{"mount", required_argument, NULL, 'm'},
	{"source", required_argument, NULL, 's'},
	{"seed", required_argument, NULL, 'S'},
	{"files", required_argument, NULL, 'f'},
	{"classes", required_argument, NULL, 'c'},
	{"threads", required_argument, NULL, 't'},
	{"operations", required_argument, NULL, 'o'},
	{"seconds", required_argument, NULL, 'T'},
	{"patience", required_argument, NULL, 'w'},
	{"make", no_argument, NULL, 'M'},
	{"behind", no_argument, NULL, 'b'},
	{"believe", no_argument, NULL, 'B'},
	{NULL, 0, NULL, 0},
};

/* Players that have come to their end. */
static atomic_uint ended;

void complain(struct player *p, const char *format, ...)
{
	struct play *play = p->play;
	char text[1800];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	pthread_mutex_lock(&play->lock);
	if (!atomic_load(&play->failed))
		snprintf(play->failure, sizeof(play->failure), "worker %u, operation %llu: %s",
			 p->number, (unsigned long long)p->index, text);
	atomic_store(&play->failed, true);
	pthread_mutex_unlock(&play->lock);
	atomic_store(&play->stop, true);
}

uint32_t draw(struct player *p, uint32_t limit)
{
	p->state = random_of(p->state, p->number + 1, p->index + 1);
	return (uint32_t)(p->state % limit);
}

void path_in(const char *directory, unsigned name, const char *suffix, char *path, size_t room)
{
	snprintf(path, room, "%s/w%u%s", directory, name, suffix);
}

static void take(struct play *play, struct arguments *arguments, int key)
{
	switch (key) {
	case 'm':
		play->mount = optarg;
		break;
	case 's':
		play->source = optarg;
		break;
	case 'S':
		play->seed = strtoull(optarg, NULL, 10);
		break;
	case 'f':
		play->names = op_number(optarg, WHOLE_NAMES);
		break;
	case 'c':
		play->classes = op_number(optarg, WHOLE_NAMES);
		break;
	case 't':
		arguments->threads = op_number(optarg, WORKERS_MAX);
		break;
	case 'o':
		arguments->operations = op_number(optarg, 1u << 24);
		break;
	case 'T':
		arguments->seconds = op_number(optarg, 1u << 20);
		break;
	case 'w':
		arguments->patience = op_number(optarg, 3600);
		break;
	case 'M':
		arguments->make = true;
		break;
	case 'b':
		play->behind = true;
		break;
	case 'B':
		play->believe = true;
		break;
	default:
		exit(OUTCOME_TROUBLE);
	}
}

static void parse(int argc, char **argv, struct play *play, struct arguments *arguments)
{
	int key;

	while ((key = getopt_long(argc, argv, "", words, NULL)) >= 0)
		take(play, arguments, key);
	if (optind == argc && play->mount && play->source && play->names && play->classes &&
	    arguments->threads)
		return;
	fprintf(stderr,
		"usage: foldfs-whole --mount DIR --source DIR --seed N [--files N] [--classes N]"
		" [--threads N]\n"
		"       [--operations N] [--seconds N] [--patience N] [--behind [--believe]] "
		"[--make]\n");
	exit(OUTCOME_TROUBLE);
}

/* ---- files ---- */

/* By way of the mount, if it can be: what is known there of a file that loses its name
 * then goes. */
static errint_t make_one(const struct play *play, unsigned name)
{
	const char *directory = play->behind ? play->source : play->mount;
	const struct whole *file = atomic_load(&play->table[name].versions[0]);
	char fresh[4200];
	char path[4200];
	char second[4200];
	errint_t error = 0;
	int fd;

	path_in(directory, name, ".b", second, sizeof(second));
	path_in(directory, name, ".new", fresh, sizeof(fresh));
	path_in(directory, name, "", path, sizeof(path));
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (pwrite(fd, file->first, file->first_size, 0) != (ssize_t)file->first_size)
		error = -EIO;
	close(fd);
	if (!error && rename(fresh, path))
		error = -errno;
	if (error || !has_second(play, name))
		return error;
	if (unlink(second) && errno != ENOENT)
		return -errno;
	return link(path, second) ? -errno : 0;
}

static enum outcome make_all(const struct play *play)
{
	errint_t error = 0;
	unsigned name;

	for (name = 0; !error && name < play->names; name++)
		error = make_one(play, name);
	if (error)
		fprintf(stderr, "foldfs-whole: files over %s: %s\n", play->source,
			strerror(-error));
	return error ? OUTCOME_TROUBLE : OUTCOME_OK;
}

/* ---- players ---- */

static bool player_init(struct player *p, struct play *play, unsigned number)
{
	unsigned i;

	memset(p, 0, sizeof(*p));
	p->play = play;
	p->number = number;
	p->state = random_of(play->seed, 100, number);
	p->memory = memfd_create("whole", MFD_CLOEXEC);
	p->bytes = aligned_alloc(PAGE, WHOLE_BYTES + PAGE);
	for (i = 0; i < DESCRIPTORS; i++)
		p->descriptors[i].fd = -1;
	return p->memory >= 0 && p->bytes;
}

static void player_free(struct player *p)
{
	unsigned i;

	for (i = 0; i < DESCRIPTORS; i++)
		descriptor_close(&p->descriptors[i], false);
	if (p->memory >= 0)
		close(p->memory);
	free(p->bytes);
}

struct thread {
	struct player player;
	const struct arguments *arguments;
	pthread_t id;
};

static void *thread_main(void *argument)
{
	struct thread *thread = argument;
	struct player *p = &thread->player;
	unsigned i;

	for (; p->index < thread->arguments->operations && !atomic_load(&p->play->stop);
	     p->index++) {
		play_one(p);
		atomic_fetch_add(&p->play->figures.finished, 1);
	}
	/* What was opened long ago shows what it showed. */
	for (i = 0; i < DESCRIPTORS && !atomic_load(&p->play->failed); i++)
		if (p->descriptors[i].fd >= 0 || p->descriptors[i].map)
			read_whole(p, &p->descriptors[i]);
	player_free(p);
	atomic_fetch_add(&ended, 1);
	return NULL;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until all threads have ended; false: they hang. */
static bool watch(struct play *play, const struct arguments *arguments)
{
	const struct timespec pause = {.tv_nsec = TICK_NS};
	int64_t start = now_ms();
	int64_t moved = start;
	uint64_t finished = 0;

	while (atomic_load(&ended) < arguments->threads) {
		if (arguments->seconds && now_ms() - start > arguments->seconds * 1000)
			atomic_store(&play->stop, true);
		if (atomic_load(&play->figures.finished) != finished) {
			finished = atomic_load(&play->figures.finished);
			moved = now_ms();
		} else if (now_ms() - moved > arguments->patience * 1000) {
			return false;
		}
		nanosleep(&pause, NULL);
	}
	return true;
}

static enum outcome run(struct play *play, const struct arguments *arguments)
{
	struct thread *threads = calloc(arguments->threads, sizeof(*threads));
	unsigned i;

	if (!threads || guard_install())
		return OUTCOME_TROUBLE;
	for (i = 0; i < arguments->threads; i++) {
		threads[i].arguments = arguments;
		if (!player_init(&threads[i].player, play, i) ||
		    pthread_create(&threads[i].id, NULL, thread_main, &threads[i]))
			return OUTCOME_TROUBLE;
	}
	if (!watch(play, arguments))
		return OUTCOME_HANG;
	for (i = 0; i < arguments->threads; i++)
		pthread_join(threads[i].id, NULL);
	free(threads);
	return atomic_load(&play->failed) ? OUTCOME_DIFFERENCE : OUTCOME_OK;
}

/* ---- the end ---- */

/* What is opened now by way of DIRECTORY is what the file is. */
static void compare(struct player *p, const char *directory, unsigned name)
{
	struct descriptor d = {.fd = -1, .name = name, .count = 1};
	char path[4200];

	path_in(directory, name, "", path, sizeof(path));
	d.shown[0] = (struct shown){.file = whole_named(p->play, name), .now = true};
	d.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (d.fd < 0)
		complain(p, "open %s, at the end: %s", path, strerror(errno));
	else
		read_whole(p, &d);
	descriptor_close(&d, false);
}

/* Nobody has a file open, so no store is left to write back. */
static enum outcome compare_files(struct play *play)
{
	struct player *p = malloc(sizeof(*p));
	unsigned name;

	if (!p || !player_init(p, play, 0))
		return OUTCOME_TROUBLE;
	for (name = 0; name < play->names && !atomic_load(&play->failed); name++) {
		compare(p, play->source, name);
		if (!play->believe)
			compare(p, play->mount, name);
	}
	player_free(p);
	free(p);
	return atomic_load(&play->failed) ? OUTCOME_DIFFERENCE : OUTCOME_OK;
}

static void print_result(const struct play *play, enum outcome outcome)
{
	static const char *const names[] = {"ok", "difference", "trouble", "hang"};
	const struct figures *figures = &play->figures;

	printf("outcome %s\n", names[outcome]);
	printf("operations %llu\n", (unsigned long long)figures->finished);
	printf("bytes_read %llu\n", (unsigned long long)figures->bytes_read);
	printf("bytes_written %llu\n", (unsigned long long)figures->bytes_written);
	printf("bytes_kept %llu\n", (unsigned long long)figures->bytes_kept);
	printf("replaced %llu\n", (unsigned long long)figures->replaced);
	if (atomic_load(&play->failed))
		printf("failure %s\n", play->failure);
}

int main(int argc, char **argv)
{
	static struct play play = {.names = 24, .classes = 4, .lock = PTHREAD_MUTEX_INITIALIZER};
	struct arguments arguments = {.threads = 4, .operations = 1000, .patience = 60};
	enum outcome outcome;

	parse(argc, argv, &play, &arguments);
	if (model_make(&play)) {
		fprintf(stderr, "foldfs-whole: no memory\n");
		return OUTCOME_TROUBLE;
	}
	if (arguments.make)
		return (int)make_all(&play);
	outcome = run(&play, &arguments);
	if (outcome == OUTCOME_OK)
		outcome = compare_files(&play);
	print_result(&play, outcome);
	fflush(stdout);
	return (int)outcome;
}
