/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_fetcher.c - reads that wait in the kernel: what they bring, whose they are, and what the
 * rings can do besides
 */
#include "helpers.h"
#include "scratch.h"

/* Its rings are looked into. */
#include "../../src/fuse/fetcher.c"

#include <fcntl.h>

#define PAGES 256u

struct bench {
	struct fetcher *fetcher;
	struct source *source;
	dev_t device;
	struct test_page *pages;
};

/* False: no such file system or no io_uring here. */
static bool bench_open(struct bench *bench)
{
	char path[64];
	struct stat st;
	int fd;

	if (!scratch_name(path, "fetch", SCRATCH_STAMPS))
		return false;
	fd = mkstemp(path);
	expect(fd >= 0);
	unlink(path);
	bench->pages = calloc(PAGES, sizeof(*bench->pages));
	expect(bench->pages);
	for (unsigned i = 0; i < PAGES; i++)
		page_make(&bench->pages[i], i, 1);
	write_whole(fd, bench->pages, PAGES * sizeof(*bench->pages), 0);
	expect(!fsync(fd) && !fstat(fd, &st));
	bench->device = st.st_dev;
	assert_int_equal(fetcher_new(fd, &bench->fetcher), 0);
	assert_int_equal(source_new(fd, &bench->source), 0);
	return bench->fetcher->count;
}

static void bench_close(struct bench *bench)
{
	fetcher_free(bench->fetcher);
	source_put(bench->source);
	free(bench->pages);
}

#define BENCH_OPEN(bench)                                                                          \
	do {                                                                                       \
		if (!bench_open(bench)) {                                                          \
			print_message("no file system or no io_uring for this\n");                 \
			skip();                                                                    \
		}                                                                                  \
	} while (0)

/* ---- one read after the other ---- */

struct task {
	struct fetch fetch;
	struct bench *bench;
	struct test_page bytes[3];
	struct iovec iov[3];
	uint64_t page;
	unsigned left; /* times to read */
	bool wrong;
	atomic_uint *done;
};

/* It is read for USER. */
static void task_place(struct task *task, uid_t user)
{
	expect(fetcher_take(task->bench->fetcher, task->bench->device, user, &task->fetch));
}

static void task_begin(struct task *task)
{
	/* By turns one part and three, which do not lie side by side. */
	unsigned parts = task->left % 2 ? 3 : 1;

	for (unsigned i = 0; i < parts; i++)
		task->iov[i] = (struct iovec){&task->bytes[parts - 1 - i], FOLD_PAGE_SIZE};
	task->fetch.source = task->bench->source;
	task->fetch.iov = task->iov;
	task->fetch.count = (int)parts;
	task->fetch.offset = (off_t)(task->page * FOLD_PAGE_SIZE);
	fetcher_read(&task->fetch);
}

/* From a ring's thread, as a file whose pages lie apart is read. */
static void task_done(struct fetch *fetch, ssize_t got)
{
	struct task *task = caa_container_of(fetch, struct task, fetch);
	uint64_t parts = (uint64_t)fetch->count;
	uint64_t there = PAGES - task->page < parts ? PAGES - task->page : parts;

	task->wrong |= got != (ssize_t)(there * FOLD_PAGE_SIZE);
	for (uint64_t i = 0; i < there; i++)
		task->wrong |= memcmp(&task->bytes[parts - 1 - i],
				      &task->bench->pages[task->page + i], FOLD_PAGE_SIZE);
	task->page = (task->page + 7) % PAGES;
	if (--task->left) {
		task_begin(task);
		return;
	}
	fetcher_give(task->bench->fetcher, fetch);
	atomic_fetch_add(task->done, 1);
}

static void many_at_a_time_bring_what_they_ask_for(void **state)
{
	enum { TASKS = 300 };
	struct task *tasks = calloc(TASKS, sizeof(*tasks));
	struct bench bench;
	atomic_uint done = 0;

	(void)state;
	BENCH_OPEN(&bench);
	fetcher_start(bench.fetcher);
	for (unsigned i = 0; i < TASKS; i++) {
		tasks[i].bench = &bench;
		tasks[i].page = i % PAGES;
		tasks[i].left = ROUNDS(60);
		tasks[i].fetch.done = task_done;
		tasks[i].done = &done;
		if (i % 50 == 0)
			source_drop_cache(bench.source);
		task_place(&tasks[i], i % 3);
		task_begin(&tasks[i]);
	}
	while (atomic_load(&done) < TASKS)
		sched_yield();
	for (unsigned i = 0; i < TASKS; i++)
		assert_false(tasks[i].wrong);
	assert_int_equal(fetcher_taken(bench.fetcher), 0);
	bench_close(&bench);
	free(tasks);
}

/* Whoever ends it waits for what it has. */
static void the_end_waits_for_reads(void **state)
{
	struct task task = {0};
	struct bench bench;
	atomic_uint done = 0;

	(void)state;
	BENCH_OPEN(&bench);
	fetcher_start(bench.fetcher);
	task = (struct task){.bench = &bench, .left = 100, .done = &done};
	task.fetch.done = task_done;
	source_drop_cache(bench.source);
	task_place(&task, 0);
	task_begin(&task);
	fetcher_stop(bench.fetcher);
	assert_int_equal(atomic_load(&done), 1);
	assert_false(task.wrong);
	bench_close(&bench);
}

static void expect_error(struct fetch *fetch, ssize_t got)
{
	struct task *task = caa_container_of(fetch, struct task, fetch);

	task->wrong = got != -EISDIR;
	fetcher_give(task->bench->fetcher, fetch);
	atomic_fetch_add(task->done, 1);
}

static void an_error_is_told(void **state)
{
	struct task task = {0};
	struct bench bench;
	atomic_uint done = 0;
	int fd = open("/", O_RDONLY);

	(void)state;
	BENCH_OPEN(&bench);
	expect(fd >= 0);
	source_put(bench.source);
	assert_int_equal(source_new(fd, &bench.source), 0);
	fetcher_start(bench.fetcher);
	task = (struct task){.bench = &bench, .left = 1, .done = &done};
	task.fetch.done = expect_error;
	task_place(&task, 0);
	task_begin(&task);
	fetcher_stop(bench.fetcher);
	assert_int_equal(atomic_load(&done), 1);
	assert_false(task.wrong);
	bench_close(&bench);
}

/* A ring that the kernel does not let begin, here because it has another's already, is none. */
static void without_a_ring_nothing_is_taken(void **state)
{
	struct fetch fetch;
	struct bench bench;

	(void)state;
	BENCH_OPEN(&bench);
	assert_int_equal(ring_register(&bench.fetcher->rings[0].uring, IORING_REGISTER_ENABLE_RINGS,
				       NULL, 0),
			 0);
	fetcher_start(bench.fetcher);
	assert_false(fetcher_take(bench.fetcher, bench.device, 0, &fetch));
	assert_int_equal(fetcher_taken(bench.fetcher), 0);
	bench_close(&bench);
}

/* ---- whose places ---- */

static void places_are_shared_out(void **state)
{
	struct fetch *fetches = calloc(PLACES, sizeof(*fetches));
	struct fetch others[2];
	struct bench bench;
	unsigned his = 0;

	(void)state;
	BENCH_OPEN(&bench);
	assert_false(fetcher_take(bench.fetcher, bench.device + 1, 70001, fetches));
	while (fetcher_take(bench.fetcher, bench.device, 70001, &fetches[his]))
		his++;
	assert_in_range(his, 1, PLACES / 2);
	assert_true(fetcher_take(bench.fetcher, bench.device, 70002, &others[0]));
	assert_true(fetcher_take(bench.fetcher, bench.device, 0, &others[1]));
	assert_int_equal(fetcher_taken(bench.fetcher), his + 2);
	fetcher_give(bench.fetcher, &others[0]);
	fetcher_give(bench.fetcher, &others[1]);
	while (his--)
		fetcher_give(bench.fetcher, &fetches[his]);
	assert_int_equal(fetcher_taken(bench.fetcher), 0);
	bench_close(&bench);
	free(fetches);
}

/* A read may wait for a lock of its file in the call that hands it over, for as long as a user
 * likes: then no other user's reads are behind it. */
static void a_ring_is_one_users(void **state)
{
	enum { USERS = RINGS_MAX + 1, EACH = 3 };
	struct fetch fetches[USERS][EACH];
	unsigned served[USERS] = {0};
	struct bench bench;

	(void)state;
	BENCH_OPEN(&bench);
	for (unsigned n = 0; n < EACH; n++)
		for (uid_t user = 0; user < USERS; user++)
			served[user] += fetcher_take(bench.fetcher, bench.device, 70000 + user,
						     &fetches[user][n]);
	for (uid_t user = 0; user < USERS; user++) {
		/* Whoever comes when all rings have a user has none. */
		assert_int_equal(served[user], user < bench.fetcher->count ? EACH : 0);
		for (uid_t other = 0; served[user] && other < user; other++)
			assert_ptr_not_equal(fetches[user][0].ring, fetches[other][0].ring);
		for (unsigned n = 0; n < served[user]; n++)
			assert_ptr_equal(fetches[user][n].ring, fetches[user][0].ring);
	}
	for (uid_t user = 0; user < USERS; user++)
		for (unsigned n = 0; n < served[user]; n++)
			fetcher_give(bench.fetcher, &fetches[user][n]);
	assert_true(fetcher_take(bench.fetcher, bench.device, 70000 + USERS, &fetches[0][0]));
	fetcher_give(bench.fetcher, &fetches[0][0]);
	bench_close(&bench);
}

/* ---- what a ring can do ---- */

static int result_of(struct io_uring *uring, struct io_uring_sqe *entry)
{
	struct io_uring_cqe *event;
	int result;

	io_uring_sqe_set_data(entry, NULL);
	if (io_uring_submit_and_wait(uring, 1) < 0 || io_uring_peek_cqe(uring, &event))
		return 0;
	result = event->res;
	io_uring_cqe_seen(uring, event);
	return result;
}

/* Whoever has taken the daemon over gets nothing past the filter by them but reads. */
static void rings_can_only_read(void **state)
{
	struct io_uring *uring;
	struct io_uring_sqe *entry;
	struct bench bench;
	char byte;

	(void)state;
	BENCH_OPEN(&bench);
	uring = &bench.fetcher->rings[0].uring;
	assert_int_equal(ring_register(uring, IORING_REGISTER_ENABLE_RINGS, NULL, 0), 0);
	entry = io_uring_get_sqe(uring);
	io_uring_prep_openat(entry, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
	assert_int_equal(result_of(uring, entry), -EACCES);
	entry = io_uring_get_sqe(uring);
	io_uring_prep_write(entry, source_fd(bench.source), "x", 1, 0);
	assert_int_equal(result_of(uring, entry), -EACCES);
	entry = io_uring_get_sqe(uring);
	io_uring_prep_read(entry, source_fd(bench.source), &byte, 1, 0);
	assert_int_equal(result_of(uring, entry), 1);
	assert_int_equal(ring_register(uring, IORING_REGISTER_ENABLE_RINGS, NULL, 0), -EACCES);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_at_a_time_bring_what_they_ask_for),
		cmocka_unit_test(the_end_waits_for_reads),
		cmocka_unit_test(an_error_is_told),
		cmocka_unit_test(without_a_ring_nothing_is_taken),
		cmocka_unit_test(places_are_shared_out),
		cmocka_unit_test(a_ring_is_one_users),
		cmocka_unit_test(rings_can_only_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
