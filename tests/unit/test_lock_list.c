/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_lock_list.c - ranges and whole files that clients have locked, against the kernel as a model
 *
 * What the lists do to a file is compared with what the kernel does for the same owners on a twin:
 * there each owner has an open file of its own. A stranger looks at both, byte by byte, and locks
 * and unlocks in both himself.
 */
#include "fuse/lock_whole.h"
#include "scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmocka.h>

#define OWNERS  4u
#define HANDLES (2 * OWNERS)
#define BYTES   24
#define ROUNDS  10000

static char directory[64];
static char path[80];
static char twin[80];

struct world {
	struct lock_records *records;
	struct lock_list list;
	int fds[HANDLES];    /* descriptions of the file; handle H is owner H / 2's */
	int models[HANDLES]; /* of the twin; the first one of each owner for ranges */
	int stranger;
	int stranger_twin;
};

static int open_at(const char *name, int flags)
{
	int fd = open(name, flags | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static uint64_t handle_of(unsigned number)
{
	return number + 1;
}

/* Handles 0 and 3, which are two owners', share a description; so do 1 and 6. */
static void world_new(struct world *world, enum lock_kind kind)
{
	assert_int_equal(lock_records_new(0, NULL, &world->records), 0);
	lock_list_init(&world->list, world->records, 1, kind);
	for (unsigned i = 0; i < HANDLES; i++) {
		world->fds[i] = i == 3   ? world->fds[0]
				: i == 6 ? world->fds[1]
					 : open_at(path, O_RDWR);
		world->models[i] = open_at(twin, O_RDWR);
	}
	world->stranger = open_at(path, O_RDWR);
	world->stranger_twin = open_at(twin, O_RDWR);
}

static void world_free(struct world *world)
{
	for (unsigned i = 0; i < HANDLES; i++) {
		lock_list_drop_handle(&world->list, handle_of(i));
		lock_whole_drop(&world->list, handle_of(i));
		close(world->models[i]);
		if (i != 3 && i != 6)
			close(world->fds[i]);
	}
	assert_true(cds_list_empty(&world->list.list));
	assert_int_equal(lock_records_count(world->records), 0);
	lock_records_free(world->records);
	close(world->stranger);
	close(world->stranger_twin);
}

static struct lock_request request_by(const struct world *world, unsigned handle, short type,
				      off_t first, off_t last)
{
	return (struct lock_request){
		.owner = handle / 2 + 1,
		.handle = handle_of(handle),
		.fd = world->fds[handle],
		.pid = (pid_t)(100 + handle),
		.type = type,
		.first = first,
		.last = last,
	};
}

static errint_t set(struct world *world, const struct lock_request *request)
{
	return lock_list_conflict(&world->list, request) ? -EAGAIN
							 : lock_list_set(&world->list, request);
}

static errint_t set_native(int fd, short type, off_t first, off_t last)
{
	struct flock lock = {
		.l_type = type,
		.l_start = first,
		.l_len = last == LOCK_TO_THE_END ? 0 : last - first + 1,
	};

	return fcntl(fd, F_OFD_SETLK, &lock) ? -errno : 0;
}

/* What would be in the way of a lock of TYPE at byte AT. */
static short in_the_way(int fd, short type, off_t at)
{
	struct flock lock = {.l_type = type, .l_start = at, .l_len = 1};

	assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
	return lock.l_type;
}

static void compare(const struct world *world)
{
	for (off_t at = 0; at < BYTES; at++) {
		assert_int_equal(in_the_way(world->stranger, F_RDLCK, at),
				 in_the_way(world->stranger_twin, F_RDLCK, at));
		assert_int_equal(in_the_way(world->stranger, F_WRLCK, at),
				 in_the_way(world->stranger_twin, F_WRLCK, at));
	}
}

/* The records are in order, and those of one owner do not overlap. */
static void check_order(const struct world *world)
{
	const struct lock_record *record;
	off_t before = 0;
	off_t ends[OWNERS + 1] = {0};

	cds_list_for_each_entry (record, &world->list.list, link) {
		assert_true(record->lock.first >= before);
		assert_true(record->lock.first >= ends[record->lock.owner]);
		assert_true(record->lock.last >= record->lock.first);
		before = record->lock.first;
		ends[record->lock.owner] = record->lock.last == LOCK_TO_THE_END
						   ? LOCK_TO_THE_END
						   : record->lock.last + 1;
	}
}

static short random_type(unsigned *seed)
{
	static const short types[] = {F_RDLCK, F_RDLCK, F_WRLCK, F_UNLCK, F_UNLCK};

	return types[(unsigned)rand_r(seed) % 5];
}

static void random_range(unsigned *seed, off_t *first, off_t *last)
{
	*first = rand_r(seed) % BYTES;
	*last = rand_r(seed) % 8 ? *first + rand_r(seed) % (BYTES - *first) : LOCK_TO_THE_END;
}

static void one_change(struct world *world, unsigned *seed)
{
	unsigned handle = (unsigned)rand_r(seed) % HANDLES;
	short type = random_type(seed);
	struct lock_request request;
	off_t first, last;

	random_range(seed, &first, &last);
	request = request_by(world, handle, type, first, last);
	assert_int_equal(set(world, &request),
			 set_native(world->models[handle & ~1u], type, first, last));
}

static void one_question(struct world *world, unsigned *seed)
{
	unsigned handle = (unsigned)rand_r(seed) % HANDLES;
	short type = rand_r(seed) % 2 ? F_RDLCK : F_WRLCK;
	struct lock_request request;
	struct flock found, native = {.l_type = type};
	off_t first, last;

	random_range(seed, &first, &last);
	request = request_by(world, handle, type, first, last);
	native.l_start = first;
	native.l_len = last == LOCK_TO_THE_END ? 0 : last - first + 1;
	assert_int_equal(lock_list_ask(&world->list, &request, &found), 0);
	assert_int_equal(fcntl(world->models[handle & ~1u], F_OFD_GETLK, &native), 0);
	/* If there are several, either may be told. */
	assert_int_equal(found.l_type == F_UNLCK, native.l_type == F_UNLCK);
}

static void ranges_as_the_kernel_does(void **state)
{
	unsigned seed = (unsigned)getpid(), begun = seed;
	struct world world;

	(void)state;
	world_new(&world, LOCK_RANGE);
	print_message("seed %u\n", begun);
	for (unsigned i = 0; i < ROUNDS; i++) {
		off_t first, last;
		short type;

		switch (rand_r(&seed) % 10) {
		case 0:
			random_range(&seed, &first, &last);
			type = random_type(&seed);
			assert_int_equal(set_native(world.stranger, type, first, last),
					 set_native(world.stranger_twin, type, first, last));
			break;
		case 1:
		case 2:
			one_question(&world, &seed);
			break;
		case 3:
			if (rand_r(&seed) % 8)
				break;
			first = rand_r(&seed) % OWNERS;
			lock_list_drop_owner(&world.list, (uint64_t)first + 1);
			set_native(world.models[2 * first], F_UNLCK, 0, LOCK_TO_THE_END);
			break;
		default:
			one_change(&world, &seed);
		}
		check_order(&world);
		compare(&world);
	}
	world_free(&world);
}

static void neighbours_are_joined(void **state)
{
	struct world world;
	struct lock_request request;

	(void)state;
	world_new(&world, LOCK_RANGE);
	for (off_t at = 0; at < 1000; at++) {
		request = request_by(&world, 0, F_WRLCK, at, at);
		assert_int_equal(set(&world, &request), 0);
	}
	assert_ptr_equal(world.list.list.next, world.list.list.prev);
	request = request_by(&world, 0, F_UNLCK, 500, 500);
	assert_int_equal(set(&world, &request), 0);
	assert_ptr_not_equal(world.list.list.next, world.list.list.prev);
	world_free(&world);
}

/* Two handles with one description: what the one leaves, the other one still has. */
static void a_description_has_the_union(void **state)
{
	struct world world;
	struct lock_request request;

	(void)state;
	world_new(&world, LOCK_RANGE);
	request = request_by(&world, 0, F_RDLCK, 0, 9);
	assert_int_equal(set(&world, &request), 0);
	request = request_by(&world, 3, F_RDLCK, 5, 14);
	assert_int_equal(set(&world, &request), 0);
	assert_true(lock_list_drop_handle(&world.list, handle_of(0)));
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 4), F_UNLCK);
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 5), F_RDLCK);
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 14), F_RDLCK);
	assert_false(lock_list_drop_handle(&world.list, handle_of(0)));
	assert_true(lock_list_drop_handle(&world.list, handle_of(3)));
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 5), F_UNLCK);
	world_free(&world);
}

/* A process locks by a descriptor for reading, then for writing by another one. */
static void a_lock_moves_to_a_description_that_can_hold_it(void **state)
{
	struct world world;
	struct lock_request request;

	(void)state;
	world_new(&world, LOCK_RANGE);
	close(world.fds[4]);
	world.fds[4] = open_at(path, O_RDONLY);
	request = request_by(&world, 4, F_RDLCK, 0, 9);
	assert_int_equal(set(&world, &request), 0);
	request = request_by(&world, 5, F_WRLCK, 5, 14);
	assert_int_equal(set(&world, &request), 0);
	assert_int_equal(in_the_way(world.stranger, F_RDLCK, 4), F_UNLCK);
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 4), F_RDLCK);
	assert_int_equal(in_the_way(world.stranger, F_RDLCK, 5), F_WRLCK);
	assert_int_equal(in_the_way(world.stranger, F_RDLCK, 14), F_WRLCK);
	/* The one for reading alone cannot, so nothing but the gap may be refused. */
	assert_int_equal(set_native(world.stranger, F_RDLCK, 20, 20), 0);
	request = request_by(&world, 5, F_WRLCK, 0, 20);
	assert_int_equal(set(&world, &request), -EAGAIN);
	assert_int_equal(in_the_way(world.stranger, F_RDLCK, 4), F_UNLCK);
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 4), F_RDLCK);
	assert_int_equal(in_the_way(world.stranger, F_WRLCK, 15), F_UNLCK);
	assert_false(world.list.lost);
	assert_true(lock_list_drop_owner(&world.list, 3));
	world_free(&world);
}

static void who_is_in_the_way_is_named(void **state)
{
	struct world world;
	struct lock_request request;
	struct flock found;

	(void)state;
	world_new(&world, LOCK_RANGE);
	request = request_by(&world, 0, F_WRLCK, 10, 19);
	assert_int_equal(set(&world, &request), 0);
	request = request_by(&world, 2, F_RDLCK, 0, LOCK_TO_THE_END);
	assert_int_equal(lock_list_ask(&world.list, &request, &found), 0);
	assert_int_equal(found.l_type, F_WRLCK);
	assert_int_equal(found.l_start, 10);
	assert_int_equal(found.l_len, 10);
	assert_int_equal(found.l_pid, 100);
	/* Nobody is in his own way, by whichever handle. */
	request = request_by(&world, 1, F_WRLCK, 0, 15);
	assert_int_equal(lock_list_ask(&world.list, &request, &found), 0);
	assert_int_equal(found.l_type, F_UNLCK);
	world_free(&world);
}

static void beyond_a_share_there_are_no_locks(void **state)
{
	struct world world;
	struct lock_record *record;
	struct lock_record *next;
	struct lock_request request;
	CDS_LIST_HEAD(others);

	(void)state;
	world_new(&world, LOCK_RANGE);
	while ((record = lock_record_new(world.records, 1001)))
		cds_list_add(&record->link, &others);
	request = request_by(&world, 0, F_WRLCK, 0, 9);
	request.user = 1001;
	assert_int_equal(set(&world, &request), -ENOLCK);
	/* Another user has a share, too. */
	request.user = 1002;
	assert_int_equal(set(&world, &request), 0);
	cds_list_for_each_entry_safe (record, next, &others, link)
		lock_record_free(world.records, record);
	assert_int_equal(lock_records_count(world.records), 1);
	world_free(&world);
}

/* ---- whole files ---- */

static errint_t set_whole(struct world *world, const struct lock_request *request)
{
	if (!lock_whole_conflict(&world->list, request))
		return lock_whole_set(&world->list, request);
	lock_whole_lose(&world->list, request);
	return -EAGAIN;
}

static errint_t whole_native(int fd, short type)
{
	int operation = type == F_WRLCK ? LOCK_EX : type == F_RDLCK ? LOCK_SH : LOCK_UN;

	return flock(fd, operation | LOCK_NB) ? -errno : 0;
}

/* Whether a stranger would get a lock of TYPE; he gives it back. */
static bool would_get(int fd, short type)
{
	bool got = !whole_native(fd, type);

	assert_int_equal(whole_native(fd, F_UNLCK), 0);
	return got;
}

static void whole_files_as_the_kernel_does(void **state)
{
	unsigned seed = (unsigned)getpid();
	struct world world;

	(void)state;
	world_new(&world, LOCK_WHOLE);
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned handle = (unsigned)rand_r(&seed) % HANDLES;
		short type = random_type(&seed);
		struct lock_request request = request_by(&world, handle, type, 0, 0);

		assert_int_equal(set_whole(&world, &request),
				 whole_native(world.models[handle], type));
		assert_int_equal(would_get(world.stranger, F_WRLCK),
				 would_get(world.stranger_twin, F_WRLCK));
		assert_int_equal(would_get(world.stranger, F_RDLCK),
				 would_get(world.stranger_twin, F_RDLCK));
	}
	world_free(&world);
}

static void a_stranger_keeps_a_file_locked(void **state)
{
	struct world world;
	struct lock_request request;

	(void)state;
	world_new(&world, LOCK_WHOLE);
	assert_int_equal(whole_native(world.stranger, F_RDLCK), 0);
	request = request_by(&world, 0, F_WRLCK, 0, 0);
	assert_int_equal(set_whole(&world, &request), -EAGAIN);
	request.type = F_RDLCK;
	assert_int_equal(set_whole(&world, &request), 0);
	/* To convert a lock is to give it up first. */
	request.type = F_WRLCK;
	assert_int_equal(set_whole(&world, &request), -EAGAIN);
	assert_true(cds_list_empty(&world.list.list));
	assert_int_equal(whole_native(world.stranger, F_WRLCK), 0);
	world_free(&world);
}

static int make_files(void **state)
{
	(void)state;
	if (!scratch_name(directory, "locks", SCRATCH_ANY) || !mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/file", directory);
	snprintf(twin, sizeof(twin), "%s/twin", directory);
	close(open(path, O_CREAT | O_RDWR, 0600));
	close(open(twin, O_CREAT | O_RDWR, 0600));
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
		cmocka_unit_test(ranges_as_the_kernel_does),
		cmocka_unit_test(neighbours_are_joined),
		cmocka_unit_test(a_description_has_the_union),
		cmocka_unit_test(a_lock_moves_to_a_description_that_can_hold_it),
		cmocka_unit_test(who_is_in_the_way_is_named),
		cmocka_unit_test(beyond_a_share_there_are_no_locks),
		cmocka_unit_test(whole_files_as_the_kernel_does),
		cmocka_unit_test(a_stranger_keeps_a_file_locked),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
