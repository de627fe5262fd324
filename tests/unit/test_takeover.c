/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_takeover.c - inodes and look-up counts that outlive the process that made them
 *
 * A child that shares our descriptors plays the worker that dies.
 */
#include "foldfs/takeover.h"

#include "foldfs/sanitized.h"
#include "fuse/inode.h"
#include "fuse/slab.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"

#define FILES 600
#define ONE   (UINT64_C(2) << 1) /* a number of a request */

struct shared {
	fuse_ino_t nodes[FILES];
	ino_t numbers[FILES];
};

struct fixture {
	char path[64];
	int root_fd;
	struct session *session;
	struct shared *shared;
	struct inode_table *table;
	struct takeover takeover;
	void (*work)(struct fixture *fixture);
};

static struct inode *look_up(struct fixture *fixture, int index)
{
	struct inode *inode;
	struct stat st;
	char name[16];

	snprintf(name, sizeof(name), "f%d", index);
	assert_int_equal(inode_lookup(fixture->table, inode_of(fixture->table, FUSE_ROOT_ID), name,
				      &inode, &st),
			 0);
	fixture->shared->nodes[index] = inode_node(inode);
	fixture->shared->numbers[index] = st.st_ino;
	return inode;
}

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	assert_true(scratch_name(fixture->path, "takeover", SCRATCH_ANY));
	assert_non_null(mkdtemp(fixture->path));
	fixture->root_fd = open(fixture->path, O_RDONLY | O_DIRECTORY);
	assert_true(fixture->root_fd >= 0);
	for (int i = 0; i < FILES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		close(openat(fixture->root_fd, name, O_CREAT | O_WRONLY, 0644));
	}
	assert_int_equal(session_new("test", &fixture->session), 0);
	fixture->shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(fixture->shared != MAP_FAILED);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	inode_table_free(fixture->table);
	for (unsigned i = SESSION_FILES; i < SESSION_MEMORIES; i++)
		slab_free(fixture->takeover.memory[i]);
	session_free(fixture->session);
	munmap(fixture->shared, sizeof(struct shared));
	for (int i = 0; i < FILES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		(void)unlinkat(fixture->root_fd, name, 0);
	}
	close(fixture->root_fd);
	assert_int_equal(rmdir(fixture->path), 0);
	free(fixture);
	return 0;
}

/* Memory for files and directories that nobody has open. */
static void add_other_memory(struct session *session)
{
	for (unsigned i = SESSION_FILES; i < SESSION_MEMORIES; i++) {
		struct slab *slab;

		assert_int_equal(slab_new("test", 256, &slab), 0);
		session->memory[i] = dup(slab_memory(slab));
		slab_free(slab);
	}
}

static _Noreturn void be_worker(struct fixture *fixture)
{
	struct session *session = fixture->session;

	session_begin(session);
	if (!session_continues(session)) {
		assert_int_equal(
			inode_table_new(fixture->root_fd, BORDER_NO_PSEUDO, NULL, &fixture->table),
			0);
		session->memory[SESSION_INODES] = slab_memory(inode_table_slab(fixture->table));
		add_other_memory(session);
	}
	fixture->work(fixture);
	(void)raise(SIGKILL);
	_exit(EXIT_FAILURE);
}

/* WORK in a worker, which dies when it is done. */
static void have_worker_die(struct fixture *fixture, void (*work)(struct fixture *fixture))
{
	int status;
	long pid;

	fixture->work = work;
	fixture->session->workers++;
	fflush(NULL);
	pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		be_worker(fixture);
	assert_true(pid > 0);
	assert_int_equal(waitpid((pid_t)pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static unsigned open_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* Be the successor. */
static void take_over(struct fixture *fixture, const int kept[], size_t count)
{
	fixture->session->workers++;
	assert_int_equal(takeover_begin(fixture->session, kept, count, &fixture->takeover), 0);
	session_begin(fixture->session);
	assert_int_equal(inode_table_new(fixture->root_fd, BORDER_NO_PSEUDO,
					 fixture->takeover.memory[SESSION_INODES], &fixture->table),
			 0);
}

static size_t all_open(int kept[64])
{
	size_t count = 0;

	for (int fd = 0; fd < 64; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			kept[count++] = fd;
	return count;
}

static void look_up_all(struct fixture *fixture)
{
	for (int i = 0; i < FILES; i++) {
		(void)look_up(fixture, i);
		if (i % 2)
			(void)look_up(fixture, i);
	}
	/* What the dead worker used itself, or opened and lost. */
	(void)inode_path_begin(fixture->table, look_up(fixture, 0));
	inode_get(fixture->table, look_up(fixture, 1));
	for (int i = 0; i < 10; i++)
		assert_true(dup(fixture->root_fd) >= 0);
	/* What the kernel forgot. */
	inode_forget(fixture->table, look_up(fixture, 2), 2);
}

static void inodes_are_found_again(void **state)
{
	struct fixture *fixture = *state;
	size_t count;
	int kept[64];
	struct stat st;
	int fd;

	count = all_open(kept);
	have_worker_die(fixture, look_up_all);
	take_over(fixture, kept, count);
	assert_int_equal(inode_table_count(fixture->table), FILES);
	for (int i = 0; i < FILES; i++) {
		struct inode *inode = inode_of(fixture->table, fixture->shared->nodes[i]);

		assert_int_equal(!inode, i == 2);
		if (!inode)
			continue;
		fd = inode_path_begin(fixture->table, inode);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_ino, fixture->shared->numbers[i]);
		inode_path_end(inode);
		/* The same inode for the same object. */
		assert_ptr_equal(look_up(fixture, i), inode);
		inode_forget(fixture->table, inode, i % 2 ? 3 : 2);
	}
	/* Two were looked up once more by the dead worker. */
	inode_forget(fixture->table, inode_of(fixture->table, fixture->shared->nodes[0]), 1);
	inode_forget(fixture->table, inode_of(fixture->table, fixture->shared->nodes[1]), 1);
	assert_int_equal(inode_table_count(fixture->table), 1);
}

static void only_noted_descriptors_stay(void **state)
{
	struct fixture *fixture = *state;
	unsigned before = open_descriptors();
	size_t count;
	int kept[64];

	count = all_open(kept);
	have_worker_die(fixture, look_up_all);
	assert_true(open_descriptors() > before + FILES);
	take_over(fixture, kept, count);
	for (int i = 0; i < FILES; i++) {
		struct inode *inode = inode_of(fixture->table, fixture->shared->nodes[i]);

		if (inode)
			inode_forget(fixture->table, inode, 3);
	}
	assert_int_equal(inode_table_count(fixture->table), 1);
	inode_table_free(fixture->table);
	fixture->table = NULL;
	/* Those of the memories. */
	assert_int_equal(open_descriptors(), before + SESSION_MEMORIES);
}

static void begin_request(struct fixture *fixture, uint64_t unique)
{
	session_request_begin(fixture->session, session_slot(fixture->session, 3), unique);
}

static void die_in_request(struct fixture *fixture)
{
	begin_request(fixture, ONE);
	(void)look_up(fixture, 0);
	(void)look_up(fixture, 1);
	(void)look_up(fixture, 1);
	session_change_begins(17, 18);
	session_has_made(SESSION_FILES, 99);
}

static void what_was_counted_is_taken_back(void **state)
{
	struct fixture *fixture = *state;
	struct session_slot *earlier;
	uint64_t facts[2];
	int64_t began;
	size_t count;
	int kept[64];

	count = all_open(kept);
	have_worker_die(fixture, die_in_request);
	take_over(fixture, kept, count);
	assert_int_equal(inode_table_count(fixture->table), 3);
	begin_request(fixture, ONE);
	assert_null(session_earlier());
	assert_false(session_change_had_begun(&began, facts));
	session_request_end();
	begin_request(fixture, (ONE + 2) | SESSION_RESENT);
	assert_null(session_earlier());
	session_request_end();
	begin_request(fixture, ONE | SESSION_RESENT);
	earlier = session_earlier();
	assert_non_null(earlier);
	assert_int_equal(earlier->made, 99);
	assert_int_equal(earlier->made_in, SESSION_FILES);
	assert_true(session_change_had_begun(&began, facts));
	assert_int_equal(facts[0], 17);
	assert_int_equal(facts[1], 18);
	assert_int_equal(earlier->counted, 3);
	inode_uncount(fixture->table, earlier);
	assert_int_equal(inode_table_count(fixture->table), 3);
	inode_uncount(fixture->table, earlier);
	assert_int_equal(inode_table_count(fixture->table), 2);
	inode_uncount(fixture->table, earlier);
	assert_int_equal(inode_table_count(fixture->table), 1);
	assert_int_equal(earlier->counted, 0);
	session_request_end();
}

static void begin_again(struct fixture *fixture)
{
	begin_request(fixture, ONE | SESSION_RESENT);
}

static void do_nothing(struct fixture *fixture)
{
	(void)fixture;
}

/* The facts are those of the first time, however many workers die of the request, or before it. */
static void facts_outlive_more_than_one(void **state)
{
	struct fixture *fixture = *state;
	uint64_t facts[2];
	int64_t began;
	size_t count;
	int kept[64];

	count = all_open(kept);
	have_worker_die(fixture, die_in_request);
	for (int i = 0; i < 3; i++) {
		have_worker_die(fixture, begin_again);
		have_worker_die(fixture, do_nothing);
	}
	take_over(fixture, kept, count);
	begin_request(fixture, ONE | SESSION_RESENT);
	assert_true(session_change_had_begun(&began, facts));
	assert_int_equal(facts[0], 17);
	session_change_begins(1, 2);
	session_request_end();
	inode_forget(fixture->table, inode_of(fixture->table, fixture->shared->nodes[0]), 9);
	inode_forget(fixture->table, inode_of(fixture->table, fixture->shared->nodes[1]), 9);
}

static void die_within_a_count(struct fixture *fixture)
{
	struct inode *inode;

	begin_request(fixture, ONE);
	(void)look_up(fixture, 0);
	inode = look_up(fixture, 1);
	/* Noted, and not counted yet. */
	session_count_begin(inode_node(inode), 2);
}

static void a_count_that_was_begun_is_ended(void **state)
{
	struct fixture *fixture = *state;
	struct session_slot *earlier;
	size_t count;
	int kept[64];

	count = all_open(kept);
	have_worker_die(fixture, die_within_a_count);
	take_over(fixture, kept, count);
	begin_request(fixture, ONE | SESSION_RESENT);
	earlier = session_earlier();
	assert_non_null(earlier);
	assert_int_equal(earlier->counted, 3);
	while (earlier->counted)
		inode_uncount(fixture->table, earlier);
	session_request_end();
	assert_int_equal(inode_table_count(fixture->table), 1);
}

/* What a thread has read: forget one look-up of each of the first three files. */
static void read_forget(struct fixture *fixture)
{
	char *buffer = session_buffer(fixture->session, 3);
	struct fuse_in_header *in = (struct fuse_in_header *)buffer;
	struct fuse_batch_forget_in *batch = (struct fuse_batch_forget_in *)(in + 1);
	struct fuse_forget_one *list = (struct fuse_forget_one *)(batch + 1);

	for (uint32_t i = 0; i < 3; i++) {
		(void)look_up(fixture, (int)i);
		list[i] = (struct fuse_forget_one){fixture->shared->nodes[i], 1};
	}
	batch->count = 3;
	*in = (struct fuse_in_header){.opcode = FUSE_BATCH_FORGET, .unique = ONE};
}

static void die_of_one_forget(struct fixture *fixture)
{
	begin_request(fixture, ONE);
	inode_forget(fixture->table, inode_of(fixture->table, fixture->shared->nodes[0]), 1);
}

static void die_before_forgetting(struct fixture *fixture)
{
	read_forget(fixture);
}

static void die_while_forgetting(struct fixture *fixture)
{
	read_forget(fixture);
	/* It stays, for it was looked up twice. */
	(void)look_up(fixture, 0);
	die_of_one_forget(fixture);
}

static void die_after_forgetting(struct fixture *fixture)
{
	die_while_forgetting(fixture);
	((struct fuse_in_header *)session_buffer(fixture->session, 3))->opcode = 0;
}

static void a_forget_that_was_read_is_done(void **state)
{
	struct fixture *fixture = *state;
	size_t count;
	int kept[64];

	count = all_open(kept);
	have_worker_die(fixture, die_before_forgetting);
	take_over(fixture, kept, count);
	assert_int_equal(inode_table_count(fixture->table), 1);
}

static void a_forget_goes_on_where_it_was(void **state)
{
	struct fixture *fixture = *state;
	struct inode *first;
	size_t count;
	int kept[64];

	count = all_open(kept);
	have_worker_die(fixture, die_while_forgetting);
	take_over(fixture, kept, count);
	assert_int_equal(inode_table_count(fixture->table), 2);
	first = inode_of(fixture->table, fixture->shared->nodes[0]);
	assert_non_null(first);
	inode_forget(fixture->table, first, 1);
	assert_int_equal(inode_table_count(fixture->table), 1);
}

static void a_forget_that_was_done_is_not_done_again(void **state)
{
	struct fixture *fixture = *state;
	size_t count;
	int kept[64];

	count = all_open(kept);
	have_worker_die(fixture, die_after_forgetting);
	take_over(fixture, kept, count);
	assert_int_equal(inode_table_count(fixture->table), 4);
	for (int i = 0; i < 3; i++)
		inode_forget(fixture->table, inode_of(fixture->table, fixture->shared->nodes[i]),
			     1);
	assert_int_equal(inode_table_count(fixture->table), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(inodes_are_found_again, setup, teardown),
		cmocka_unit_test_setup_teardown(only_noted_descriptors_stay, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_counted_is_taken_back, setup, teardown),
		cmocka_unit_test_setup_teardown(facts_outlive_more_than_one, setup, teardown),
		cmocka_unit_test_setup_teardown(a_count_that_was_begun_is_ended, setup, teardown),
		cmocka_unit_test_setup_teardown(a_forget_that_was_read_is_done, setup, teardown),
		cmocka_unit_test_setup_teardown(a_forget_goes_on_where_it_was, setup, teardown),
		cmocka_unit_test_setup_teardown(a_forget_that_was_done_is_not_done_again, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
