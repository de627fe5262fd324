/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workers.c - processes and threads, the record of what ran, replay
 *
 * The first process starts the others and then only watches. It ends the run when its time is over,
 * and reports a hang when no operation has ended for a long while. It takes no lock that a worker
 * may hold while it hangs.
 *
 * Each operation is recorded when it begins. What ran before a failure is written as a script, in
 * that order; when one thread replays it, it is a sequence without any race.
 */
#include "torture.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A script that was read. */
struct line {
	unsigned worker;
	struct op op;
};

struct script {
	struct line *lines;
	size_t count;
};

struct run {
	struct shared *shared;
	const struct run_options *options;
	struct script script;
};

struct thread {
	const struct run *run;
	unsigned number;
	pthread_t thread;
};

typedef void (*do_fn)(struct worker *w, const struct op *op);

static const do_fn functions[OP_KINDS] = {
	[OP_WRITE] = do_write,
	[OP_WRITEV] = do_write,
	[OP_APPEND] = do_append,
	[OP_URING_WRITE] = do_write,
	[OP_AIO_WRITE] = do_write,
	[OP_AIO_READ] = do_read,
	[OP_MADV_REMOVE] = do_fallocate,
	[OP_SPACE_IOCTL] = do_fallocate,
	[OP_COPY_MAPPED] = do_copy,
	[OP_CLONE] = do_copy,
	[OP_SENDFILE_IN] = do_write,
	[OP_SPLICE_IN] = do_write,
	[OP_VMSPLICE_IN] = do_write,
	[OP_STORE] = do_store,
	[OP_STORE_EXIT] = do_store,
	[OP_STORE_PRIVATE] = do_store_private,
	[OP_TRUNCATE] = do_truncate,
	[OP_TRUNCATE_PATH] = do_truncate,
	[OP_DOWN_UP] = do_down_up,
	[OP_OPEN_TRUNC] = do_open_trunc,
	[OP_FALLOCATE] = do_fallocate,
	[OP_COPY] = do_copy,
	[OP_REPLACE] = do_replace,
	[OP_UNLINK] = do_unlink,
	[OP_RELINK] = do_relink,
	[OP_AWAY] = do_away,
	[OP_BEHIND] = do_behind,
	[OP_REOPEN] = do_reopen,
	[OP_READ] = do_read,
	[OP_READV] = do_read,
	[OP_MAPPED_READ] = do_read,
	[OP_URING_READ] = do_read,
	[OP_SENDFILE_OUT] = do_read,
	[OP_SPLICE_OUT] = do_read,
	[OP_VMSPLICE_OUT] = do_read,
	[OP_SEEK] = do_seek,
	[OP_SOURCE] = do_source,
};

void fail(struct worker *w, const char *format, ...)
{
	struct report *report = &w->shared->report;
	va_list args;

	pthread_mutex_lock(&report->lock);
	if (!report->failed) {
		report->failed = true;
		report->worker = w->number;
		report->index = w->index;
		va_start(args, format);
		vsnprintf(report->text, sizeof(report->text), format, args);
		va_end(args);
	}
	pthread_mutex_unlock(&report->lock);
	atomic_store(&w->shared->stop, true);
}

bool has_failed(const struct shared *shared)
{
	/* Set once, before `stop`. */
	return atomic_load(&shared->stop) && shared->report.failed;
}

void worker_do(struct worker *w, const struct op *op)
{
	struct shared *shared = w->shared;
	uint64_t sequence = atomic_fetch_add(&shared->sequence, 1);

	if (sequence < RECORD_MAX)
		atomic_store(&shared->record[sequence], (uint64_t)w->number << 48 | (w->index + 1));
	atomic_store(&shared->at_work[w->number], w->index + 1);
	w->op = op;
	functions[op->kind](w, op);
	atomic_store(&shared->at_work[w->number], 0);
	atomic_fetch_add(&shared->counts[op->kind], 1);
	atomic_fetch_add(&shared->finished, 1);
}

/* ---- scripts ---- */

static errint_t script_add(struct script *script, const struct line *line)
{
	struct line *lines;

	if (!(script->count & (script->count + 1))) {
		lines = realloc(script->lines, (script->count * 2 + 2) * sizeof(*lines));
		if (!lines)
			return -ENOMEM;
		script->lines = lines;
	}
	script->lines[script->count++] = *line;
	return 0;
}

static errint_t script_read(const char *path, struct script *ret_script)
{
	FILE *file = fopen(path, "re");
	struct line line;
	char text[512];
	errint_t error = 0;

	if (!file)
		return -errno;
	while (!error && fgets(text, sizeof(text), file)) {
		if (*text == '#' || *text == '\n')
			continue;
		error = op_parse(text, &line.worker, &line.op);
		if (error)
			fprintf(stderr, "no operation: %s", text);
		else
			error = script_add(ret_script, &line);
	}
	fclose(file);
	return error;
}

/* Operation INDEX of WORKER in RUN. */
static void find_op(const struct run *run, unsigned worker, uint64_t index, struct op *ret_op)
{
	if (run->script.count)
		*ret_op = run->script.lines[index].op;
	else
		op_random(&run->options->ops, worker, index, ret_op);
}

static void write_record(const struct run *run, FILE *file)
{
	uint64_t count = atomic_load(&run->shared->sequence);
	uint64_t i;

	for (i = 0; i < count && i < RECORD_MAX; i++) {
		uint64_t entry = atomic_load(&run->shared->record[i]);
		unsigned worker = (unsigned)(entry >> 48);
		uint64_t index = (entry & ((UINT64_C(1) << 48) - 1)) - 1;
		struct op op;

		if (!entry)
			continue;
		find_op(run, worker, index, &op);
		op_print(file, worker, &op);
	}
}

errint_t run_trace(struct shared *shared, const struct run_options *options)
{
	struct run run = {.shared = shared, .options = options};
	FILE *file = fopen(options->trace, "we");
	errint_t error = 0;

	if (!file)
		return -errno;
	if (options->replay)
		error = script_read(options->replay, &run.script);
	if (!error)
		write_record(&run, file);
	free(run.script.lines);
	if (fclose(file) && !error)
		error = -errno;
	return error;
}

/* ---- threads ---- */

/* The operations that the seed has for W. */
static void play_random(const struct run *run, struct worker *w)
{
	struct op op;

	for (w->index = 0; w->index < run->options->operations; w->index++) {
		if (atomic_load(&run->shared->stop))
			break;
		op_random(&run->options->ops, w->number, w->index, &op);
		worker_do(w, &op);
	}
}

/* The script's lines for W. */
static void play_script(const struct run *run, struct worker *w)
{
	size_t i;

	for (i = 0; i < run->script.count && !atomic_load(&run->shared->stop); i++) {
		if (run->script.lines[i].worker != w->number)
			continue;
		w->index = i;
		worker_do(w, &run->script.lines[i].op);
	}
}

static void *thread_main(void *argument)
{
	struct thread *thread = argument;
	struct worker *w = malloc(sizeof(*w));
	errint_t error = w ? worker_init(w, thread->run->shared, thread->number) : -ENOMEM;

	if (error) {
		fprintf(stderr, "worker %u: %s\n", thread->number, strerror(-error));
		_exit(OUTCOME_TROUBLE);
	}
	if (thread->run->script.count)
		play_script(thread->run, w);
	else
		play_random(thread->run, w);
	worker_free(w);
	free(w);
	return NULL;
}

/* One process with its threads. */
static int process_main(const struct run *run, unsigned process)
{
	unsigned count = run->options->threads;
	struct thread threads[WORKERS_MAX];
	unsigned i;

	if (guard_install())
		return OUTCOME_TROUBLE;
	for (i = 0; i < count; i++) {
		threads[i] = (struct thread){.run = run, .number = process * count + i};
		if (pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]))
			return OUTCOME_TROUBLE;
	}
	for (i = 0; i < count; i++)
		pthread_join(threads[i].thread, NULL);
	return OUTCOME_OK;
}

/* All workers of the script in one thread, line by line. */
static int serial_main(const struct run *run)
{
	struct worker *workers = calloc(WORKERS_MAX, sizeof(*workers));
	unsigned i;
	size_t line;

	if (!workers || guard_install())
		return OUTCOME_TROUBLE;
	for (i = 0; i < run->shared->workers; i++)
		if (worker_init(&workers[i], run->shared, i))
			return OUTCOME_TROUBLE;
	for (line = 0; line < run->script.count && !atomic_load(&run->shared->stop); line++) {
		struct worker *w = &workers[run->script.lines[line].worker];

		w->index = line;
		worker_do(w, &run->script.lines[line].op);
	}
	for (i = 0; i < run->shared->workers; i++)
		worker_free(&workers[i]);
	free(workers);
	return OUTCOME_OK;
}

/* ---- the watching process ---- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void report_hang(const struct run *run)
{
	struct shared *shared = run->shared;
	struct op op;
	unsigned i;

	printf("no operation has ended for %u s; at work:\n", run->options->patience);
	for (i = 0; i < shared->workers; i++) {
		uint64_t index = atomic_load(&shared->at_work[i]);

		if (!index)
			continue;
		find_op(run, i, index - 1, &op);
		op_print(stdout, i, &op);
	}
}

/* What a child's end means. */
static enum outcome outcome_of(const struct run *run, int status)
{
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return has_failed(run->shared) ? OUTCOME_DIFFERENCE : OUTCOME_OK;
	if (WIFSIGNALED(status))
		printf("a worker process died of signal %d\n", WTERMSIG(status));
	atomic_store(&run->shared->stop, true);
	return OUTCOME_TROUBLE;
}

static enum outcome watch(const struct run *run, unsigned children)
{
	const struct timespec pause = {.tv_nsec = 10000000};
	struct shared *shared = run->shared;
	int64_t start = now_ms();
	int64_t moved = start;
	uint64_t finished = 0;
	enum outcome worst = OUTCOME_OK;
	int status;

	while (children) {
		enum outcome outcome;

		if (waitpid(-1, &status, WNOHANG) > 0) {
			children--;
			outcome = outcome_of(run, status);
			worst = outcome > worst ? outcome : worst;
			continue;
		}
		if (run->options->seconds && now_ms() - start > run->options->seconds * 1000)
			atomic_store(&shared->stop, true);
		if (atomic_load(&shared->finished) != finished) {
			finished = atomic_load(&shared->finished);
			moved = now_ms();
		} else if (now_ms() - moved > run->options->patience * 1000) {
			report_hang(run);
			return OUTCOME_HANG;
		}
		nanosleep(&pause, NULL);
	}
	return worst;
}

enum outcome run_workers(struct shared *shared, const struct run_options *options)
{
	struct run run = {.shared = shared, .options = options};
	unsigned processes = options->serial ? 1 : options->processes;
	enum outcome outcome;
	unsigned i;

	if (options->replay && script_read(options->replay, &run.script))
		return OUTCOME_TROUBLE;
	fflush(NULL);
	for (i = 0; i < processes; i++) {
		pid_t child = fork();

		if (child < 0)
			return OUTCOME_TROUBLE;
		if (!child)
			_exit(options->serial ? serial_main(&run) : process_main(&run, i));
	}
	outcome = watch(&run, processes);
	free(run.script.lines);
	return outcome;
}
