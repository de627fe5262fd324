/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_lock_records.c - locks outlive a process that dies between any two instructions
 *
 * A child has the records and the descriptions of its parent, as a worker has those of the keeper.
 * It changes one lock, and the parent takes it step by step up to some instruction, and kills it. Then the parent is the successor: it revives what is left, and does the change again. The
 * kernel's locks on a twin are the model.
 */
#include "foldfs/sanitized.h"
#include "fuse/lock_whole.h"
#include "scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OWNERS  3u
#define HANDLES (2 * OWNERS)
#define BYTES   24
/* With a sanitizer a change takes ten times as many instructions. */
#ifdef FOLD_SANITIZED
#define ROUNDS  15
#define MOMENTS 40
#else
#define ROUNDS  60
#define MOMENTS 200
#endif
#define HISTORY 6 /* changes between two deaths */

static char directory[64];
static char path[80];
static char twin[80];

struct world {
	struct lock_records *records;
	struct lock_list ranges;
	struct lock_list whole;
	int fds[HANDLES];    /* descriptions of the file; handle H is owner H / 2's */
	int models[HANDLES]; /* of the twin; the first one of each owner for ranges */
	int stranger;
	int stranger_twin;
	bool closed[HANDLES]; /* the handle is not found any more */
	unsigned seed;
};

struct change {
	struct lock_request request;
	enum lock_kind kind;
	unsigned handle;
};

static int open_at(const char *name)
{
	int fd = open(name, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void lists_new(struct world *world)
{
	lock_list_init(&world->ranges, world->records, 1, LOCK_RANGE);
	lock_list_init(&world->whole, world->records, 1, LOCK_WHOLE);
}

/* Handles 0 and 3, which are two owners', share a description. */
static void world_new(struct world *world)
{
	*world = (struct world){.seed = (unsigned)getpid()};
	print_message("seed %u\n", world->seed);
	assert_int_equal(lock_records_new(0, NULL, &world->records), 0);
	lists_new(world);
	for (unsigned i = 0; i < HANDLES; i++) {
		world->fds[i] = i == 3 ? world->fds[0] : open_at(path);
		world->models[i] = open_at(twin);
	}
	world->stranger = open_at(path);
	world->stranger_twin = open_at(twin);
}

static void world_free(struct world *world)
{
	for (unsigned i = 0; i < HANDLES; i++) {
		close(world->models[i]);
		if (i != 3)
			close(world->fds[i]);
	}
	close(world->stranger);
	close(world->stranger_twin);
	lock_records_free(world->records);
}

static struct change random_change(struct world *world)
{
	static const short types[] = {F_RDLCK, F_RDLCK, F_WRLCK, F_UNLCK};
	unsigned handle = (unsigned)rand_r(&world->seed) % HANDLES;
	off_t first = rand_r(&world->seed) % BYTES;
	struct change change = {.handle = handle, .kind = rand_r(&world->seed) % 4 == 0};

	change.request = (struct lock_request){
		.owner = handle / 2 + 1,
		.handle = handle + 1,
		.fd = world->fds[handle],
		.type = types[(unsigned)rand_r(&world->seed) % 4],
		.first = first,
		.last = rand_r(&world->seed) % 8 ? first + rand_r(&world->seed) % (BYTES - first)
						 : LOCK_TO_THE_END,
	};
	return change;
}

static errint_t make(struct world *world, const struct change *change)
{
	const struct lock_request *request = &change->request;

	if (change->kind == LOCK_RANGE)
		return lock_list_conflict(&world->ranges, request)
			       ? -EAGAIN
			       : lock_list_set(&world->ranges, request);
	if (!lock_whole_conflict(&world->whole, request))
		return lock_whole_set(&world->whole, request);
	lock_whole_lose(&world->whole, request);
	return -EAGAIN;
}

static errint_t make_native(const struct world *world, const struct change *change)
{
	const struct lock_request *request = &change->request;
	struct flock lock = {.l_type = request->type, .l_start = request->first};
	int operation = request->type == F_WRLCK   ? LOCK_EX
			: request->type == F_RDLCK ? LOCK_SH
						   : LOCK_UN;

	if (request->last != LOCK_TO_THE_END)
		lock.l_len = request->last - request->first + 1;
	if (change->kind == LOCK_WHOLE)
		return flock(world->models[change->handle], operation | LOCK_NB) ? -errno : 0;
	return fcntl(world->models[change->handle & ~1u], F_OFD_SETLK, &lock) ? -errno : 0;
}

/* What would be in the way of a lock of TYPE at byte AT. */
static short in_the_way(int fd, short type, off_t at)
{
	struct flock lock = {.l_type = type, .l_start = at, .l_len = 1};

	assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
	return lock.l_type;
}

/* Whether a stranger would get the whole file; he gives it back. */
static bool would_get(int fd, int operation)
{
	bool got = !flock(fd, operation | LOCK_NB);

	assert_int_equal(flock(fd, LOCK_UN), 0);
	return got;
}

/* What is locked in the source is what the model says. BUT: a change may be made, or not; its range
 * is left out. NULL: there is none. */
static void compare(const struct world *world, const struct change *but)
{
	for (off_t at = 0; at < BYTES + 8; at++) {
		if (but && but->kind == LOCK_RANGE && at >= but->request.first &&
		    at <= but->request.last)
			continue;
		assert_int_equal(in_the_way(world->stranger, F_RDLCK, at),
				 in_the_way(world->stranger_twin, F_RDLCK, at));
		assert_int_equal(in_the_way(world->stranger, F_WRLCK, at),
				 in_the_way(world->stranger_twin, F_WRLCK, at));
	}
	if (but && but->kind == LOCK_WHOLE)
		return;
	assert_int_equal(would_get(world->stranger, LOCK_EX),
			 would_get(world->stranger_twin, LOCK_EX));
	assert_int_equal(would_get(world->stranger, LOCK_SH),
			 would_get(world->stranger_twin, LOCK_SH));
}

/* Ranges are in order, and those of one owner do not overlap. */
static void check_order(const struct world *world)
{
	const struct lock_record *record;
	off_t ends[OWNERS + 1] = {0};
	off_t before = 0;

	cds_list_for_each_entry (record, &world->ranges.list, link) {
		assert_true(record->lock.first >= before);
		assert_true(record->lock.first >= ends[record->lock.owner]);
		assert_true(record->lock.last >= record->lock.first);
		before = record->lock.first;
		ends[record->lock.owner] = record->lock.last == LOCK_TO_THE_END
						   ? LOCK_TO_THE_END
						   : record->lock.last + 1;
	}
}

/* ---- the death ---- */

static _Noreturn void die_of(struct world *world, const struct change *change)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(1);
	raise(SIGSTOP);
	(void)make(world, change);
	_exit(0);
}

/* Let CHILD go on with HOW, up to COUNT stops. Returns how many there were. *status: the last one. */
static unsigned go_on(pid_t child, enum __ptrace_request how, unsigned count, int *status)
{
	unsigned done = 0;

	while (done < count && WIFSTOPPED(*status)) {
		assert_int_equal(ptrace(how, child, NULL, NULL), 0);
		assert_int_equal(waitpid(child, status, 0), child);
		done++;
	}
	return done;
}

/* Where a child dies: after so many stops at system calls, two for each, and then so many
 * instructions. */
struct moment {
	unsigned calls;
	unsigned steps;
};

/* A child makes CHANGE, and dies at MOMENT or at the end, whatever is first. Returns that. */
static struct moment make_and_die(struct world *world, const struct change *change,
				  struct moment moment)
{
	struct moment end;
	pid_t child;
	int status;

	fflush(NULL);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		die_of(world, change);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSTOPPED(status));
	end.calls = go_on(child, PTRACE_SYSCALL, moment.calls, &status);
	end.steps = go_on(child, PTRACE_SINGLESTEP, moment.steps, &status);
	if (WIFSTOPPED(status)) {
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
	} else {
		assert_int_equal(WEXITSTATUS(status), 0);
	}
	return end;
}

static bool is_open(void *context, uint64_t handle)
{
	const struct world *world = context;

	return !world->closed[handle - 1];
}

static errint_t revive(void *context, struct lock_record *record)
{
	struct world *world = context;

	assert_int_equal(record->file, 1);
	if (record->kind == LOCK_RANGE)
		return lock_list_revive(&world->ranges, record);
	lock_whole_revive(&world->whole, record);
	return 0;
}

/* Be the successor. */
static void take_over(struct world *world)
{
	int memory = dup(slab_memory(lock_records_slab(world->records)));
	struct slab *slab;

	lock_records_free(world->records);
	assert_int_equal(slab_adopt(memory, &slab), 0);
	assert_int_equal(lock_records_new(0, slab, &world->records), 0);
	lists_new(world);
	assert_int_equal(lock_records_each(world->records, is_open, revive, world), 0);
	for (unsigned i = 0; i < HANDLES; i++) {
		lock_list_settle(&world->ranges, world->fds[i]);
		lock_whole_settle(&world->whole, world->fds[i]);
	}
}

/* Make CHANGE, die at MOMENT, take over, and make it again. Returns when it ended. */
static struct moment die_once(struct world *world, const struct change *change,
			      struct moment moment)
{
	struct moment end = make_and_die(world, change, moment);

	take_over(world);
	check_order(world);
	compare(world, change);
	assert_int_equal(make(world, change), make_native(world, change));
	check_order(world);
	compare(world, NULL);
	return end;
}

static void a_death_at_any_moment(void **state)
{
	struct change change;
	struct world world;

	(void)state;
	world_new(&world);
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < HISTORY; i++) {
			change = random_change(&world);
			assert_int_equal(make(&world, &change), make_native(&world, &change));
		}
		compare(&world, NULL);
		change = random_change(&world);
		die_once(&world, &change,
			 (struct moment){(unsigned)rand_r(&world.seed) % 16,
					 (unsigned)rand_r(&world.seed) % 1500});
	}
	world_free(&world);
}

/* A change to TYPE in the middle of a lock: killed at each instruction behind its last system call,
 * where it changes the records; at MOMENTS of them if there are more. */
static void die_at_each_instruction(short type)
{
	const struct change whole = {
		.request = {.owner = 1, .handle = 1, .type = F_WRLCK, .last = BYTES - 1}};
	struct change all = whole;
	struct change middle = whole;
	struct moment moment = {1000, 0};
	unsigned all_steps;
	struct world world;

	world_new(&world);
	all.request.fd = middle.request.fd = world.fds[0];
	middle.request.type = type;
	middle.request.first = 10;
	middle.request.last = 12;
	assert_int_equal(make(&world, &all), make_native(&world, &all));
	/* The last two stops are those of the child's end. */
	moment.calls = die_once(&world, &middle, moment).calls - 2;
	moment.steps = 100000;
	assert_int_equal(make(&world, &all), make_native(&world, &all));
	all_steps = die_once(&world, &middle, moment).steps;
	for (moment.steps = 1; moment.steps < all_steps; moment.steps += 1 + all_steps / MOMENTS) {
		assert_int_equal(make(&world, &all), make_native(&world, &all));
		die_once(&world, &middle, moment);
	}
	print_message("%u instructions\n", all_steps);
	world_free(&world);
}

static void a_death_within_a_split(void **state)
{
	(void)state;
	die_at_each_instruction(F_UNLCK);
	die_at_each_instruction(F_RDLCK);
}

/* ---- what is found ---- */

static void lock_range(struct world *world, unsigned handle, short type, off_t first, off_t last)
{
	const struct change change = {
		.request = {.owner = handle / 2 + 1,
			    .handle = handle + 1,
			    .fd = world->fds[handle],
			    .type = type,
			    .first = first,
			    .last = last},
	};

	assert_int_equal(make(world, &change), 0);
}

/* A new lock in the middle of an old one, whose process died before it changed the old one. */
static void the_younger_one_is_right(void **state)
{
	const struct lock_record *record;
	struct lock_record *young;
	struct world world;

	(void)state;
	world_new(&world);
	lock_range(&world, 0, F_RDLCK, 0, 99);
	lock_range(&world, 4, F_RDLCK, 10, 19);
	young = lock_record_new(world.records, 0);
	assert_non_null(young);
	young->file = 1;
	young->lock = (struct lock_request){.owner = 1,
					    .handle = 1,
					    .fd = world.fds[0],
					    .type = F_WRLCK,
					    .first = 40,
					    .last = 59};
	lock_record_publish(world.records, young);
	take_over(&world);
	check_order(&world);
	assert_int_equal(lock_records_count(world.records), 4);
	record = cds_list_first_entry(&world.ranges.list, struct lock_record, link);
	assert_int_equal(record->lock.last, 39);
	assert_int_equal(in_the_way(world.stranger, F_RDLCK, 39), F_UNLCK);
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 39), F_RDLCK);
	assert_int_equal(in_the_way(world.stranger, F_RDLCK, 40), F_WRLCK);
	assert_int_equal(in_the_way(world.stranger, F_RDLCK, 60), F_UNLCK);
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 99), F_RDLCK);
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 100), F_UNLCK);
	world_free(&world);
}

/* Its handle is gone, but another handle has the same description. */
static void of_a_handle_that_is_gone_nothing_is_locked(void **state)
{
	struct world world;

	(void)state;
	world_new(&world);
	lock_range(&world, 0, F_RDLCK, 0, 9);
	lock_range(&world, 3, F_RDLCK, 20, 29);
	world.closed[0] = true;
	take_over(&world);
	assert_int_equal(lock_records_count(world.records), 1);
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 5), F_UNLCK);
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 25), F_RDLCK);
	world_free(&world);
}

static int make_files(void **state)
{
	(void)state;
	if (!scratch_name(directory, "lock-records", SCRATCH_ANY) || !mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/file", directory);
	snprintf(twin, sizeof(twin), "%s/twin", directory);
	close(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
	close(open(twin, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
	return 0;
}

static int remove_files(void **state)
{
	(void)state;
	unlink(path);
	unlink(twin);
	return rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_death_at_any_moment),
		cmocka_unit_test(a_death_within_a_split),
		cmocka_unit_test(the_younger_one_is_right),
		cmocka_unit_test(of_a_handle_that_is_gone_nothing_is_locked),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
