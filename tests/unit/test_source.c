/* SPDX-License-Identifier: Apache-2.0 */
/* test_source.c - reads and writes of the source, and that they leave no second copy in memory */
#include "faults.h"
#include "helpers.h"

#include "foldfs/source.h"

#include <limits.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#define PAGES 256u
#define BYTES (PAGES * FOLD_PAGE_SIZE)

struct fixture {
	int fd;
	struct source *source;
	struct test_page *pages;
};

static void fixture_open(struct fixture *fixture)
{
	fixture->pages = calloc(PAGES, sizeof(*fixture->pages));
	expect(fixture->pages);
	for (unsigned i = 0; i < PAGES; i++)
		page_make(&fixture->pages[i], i, 0);
	fixture->fd = temp_file();
	write_whole(fixture->fd, fixture->pages, BYTES, 0);
	expect(!source_new(reopen_file(fixture->fd, O_RDWR), &fixture->source));
}

static void fixture_close(struct fixture *fixture)
{
	source_put(fixture->source);
	close(fixture->fd);
	free(fixture->pages);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void the_last_reference_closes(void **state)
{
	struct source *source;
	int fd = temp_file();

	(void)state;
	assert_int_equal(source_new(fd, &source), 0);
	assert_int_equal(source_fd(source), fd);
	assert_ptr_equal(source_get(source), source);
	source_put(source);
	assert_true(is_open(fd));
	source_put(source);
	assert_false(is_open(fd));
}

static void a_failed_new_closes_as_well(void **state)
{
	struct source *source = NULL;
	int fd = temp_file();
	errint_t error;

	(void)state;
	faults_fail_allocations(0);
	error = source_new(fd, &source);
	faults_fail_allocations(-1);
	assert_int_equal(error, -ENOMEM);
	assert_false(is_open(fd));
}

static void put_and_get(void *context, unsigned index)
{
	(void)index;
	for (unsigned i = 0; i < ROUNDS(80000); i++)
		source_put(source_get(context));
	source_put(context);
}

static void references_are_counted_by_many(void **state)
{
	struct source *source;
	int fd = temp_file();

	(void)state;
	assert_int_equal(source_new(fd, &source), 0);
	for (unsigned i = 0; i < 3; i++)
		source_get(source);
	crew_run(4, put_and_get, source);
	assert_false(is_open(fd));
}

static void reads_fill_all_buffers(void **state)
{
	struct rng rng = rng_of_test(__func__);
	struct fixture fixture;
	uint8_t *buffer = malloc(BYTES);

	(void)state;
	expect(buffer);
	fixture_open(&fixture);
	for (unsigned round = 0; round < ROUNDS(2400); round++) {
		size_t offset = rng_below(&rng, BYTES + 5000);
		size_t left = offset < BYTES ? BYTES - offset : 0;
		unsigned count = 1 + (unsigned)rng_below(&rng, 20);
		struct iovec iov[20];
		size_t total = 0;

		for (unsigned i = 0; i < count; i++) {
			iov[i].iov_base = buffer + total;
			iov[i].iov_len = rng_below(&rng, 9000);
			total += iov[i].iov_len;
		}
		memset(buffer, 0xcc, total);
		assert_int_equal(source_read(fixture.source, iov, (int)count, (off_t)offset),
				 total < left ? total : left);
		if (left)
			assert_memory_equal(buffer, (uint8_t *)fixture.pages + offset,
					    total < left ? total : left);
	}
	fixture_close(&fixture);
	free(buffer);
}

/* What a hook below lets through at once. */
struct sips {
	int fd;
	size_t most;
	off_t error_at;
	int error;
	unsigned interrupts; /* EINTR so many times */
};

static ssize_t sip(void *context, const struct io_call *call)
{
	struct sips *sips = context;

	if (call->fd != sips->fd)
		return IO_AS_ASKED;
	if (sips->interrupts) {
		sips->interrupts--;
		return -EINTR;
	}
	if (call->offset >= sips->error_at)
		return sips->error;
	if (call->offset + (off_t)sips->most > sips->error_at)
		return sips->error_at - call->offset;
	return (ssize_t)sips->most;
}

static void sips_begin(struct sips *sips, struct fixture *fixture)
{
	*sips = (struct sips){.fd = source_fd(fixture->source),
			      .most = 1000,
			      .error_at = INT64_MAX,
			      .error = -EIO};
	faults_hook_io(sip, sips);
}

static ssize_t read_parts(struct fixture *fixture, struct test_page buffer[], unsigned pages,
			  off_t offset)
{
	struct iovec iov[IOV_MAX];

	for (unsigned i = 0; i < pages; i++)
		iov[i] = (struct iovec){.iov_base = &buffer[i], .iov_len = FOLD_PAGE_SIZE};
	return source_read(fixture->source, iov, (int)pages, offset);
}

static void short_reads_are_continued(void **state)
{
	struct fixture fixture;
	struct sips sips;
	struct test_page buffer[16];

	(void)state;
	fixture_open(&fixture);
	sips_begin(&sips, &fixture);
	for (sips.most = 1; sips.most < 70000; sips.most = sips.most * 7 + 500) {
		memset(buffer, 0, sizeof(buffer));
		assert_int_equal(read_parts(&fixture, buffer, 16, 5 * FOLD_PAGE_SIZE),
				 sizeof(buffer));
		assert_memory_equal(buffer, &fixture.pages[5], sizeof(buffer));
	}
	faults_hook_io(NULL, NULL);
	fixture_close(&fixture);
}

static void an_error_counts_once_nothing_came_before_it(void **state)
{
	struct fixture fixture;
	struct sips sips;
	struct test_page buffer[16];

	(void)state;
	fixture_open(&fixture);
	sips_begin(&sips, &fixture);
	sips.error_at = 10000;
	assert_int_equal(read_parts(&fixture, buffer, 16, 0), 10000);
	assert_memory_equal(buffer, fixture.pages, 10000);
	assert_int_equal(read_parts(&fixture, buffer, 16, 10000), -EIO);
	assert_int_equal(source_write(fixture.source, fixture.pages, 16 * FOLD_PAGE_SIZE, 0),
			 10000);
	sips.error = -ENOSPC;
	assert_int_equal(source_write(fixture.source, fixture.pages, 10, 20000), -ENOSPC);
	faults_hook_io(NULL, NULL);
	fixture_close(&fixture);
}

static void an_interrupted_call_is_no_error(void **state)
{
	struct fixture fixture;
	struct sips sips;
	struct test_page buffer[16];

	(void)state;
	fixture_open(&fixture);
	sips_begin(&sips, &fixture);
	sips.interrupts = 3;
	assert_int_equal(read_parts(&fixture, buffer, 16, 0), sizeof(buffer));
	sips.interrupts = 3;
	assert_int_equal(source_write(fixture.source, buffer, sizeof(buffer), 0), sizeof(buffer));
	faults_hook_io(NULL, NULL);
	fixture_close(&fixture);
}

/* The file system has no RWF_DONTCACHE: the first call says so, and all is done without. */
static ssize_t refuse_first(void *context, const struct io_call *call)
{
	struct sips *sips = context;

	if (call->fd != sips->fd || !sips->interrupts)
		return IO_AS_ASKED;
	sips->interrupts--;
	return -EOPNOTSUPP;
}

static void without_dontcache_the_plain_call_serves(void **state)
{
	(void)state;
	for (unsigned write = 0; write < 2; write++) {
		struct fixture fixture;
		struct test_page buffer[16];
		struct sips sips = {.interrupts = 1};

		fixture_open(&fixture);
		sips.fd = source_fd(fixture.source);
		faults_hook_io(refuse_first, &sips);
		if (write)
			assert_int_equal(
				source_write(fixture.source, &fixture.pages[1], sizeof(buffer), 0),
				sizeof(buffer));
		assert_int_equal(read_parts(&fixture, buffer, 16, 0), sizeof(buffer));
		faults_hook_io(NULL, NULL);
		assert_memory_equal(buffer, &fixture.pages[write], 8000);
		fixture_close(&fixture);
	}
}

static void reads_of_what_can_not_be_read(void **state)
{
	struct fixture fixture;
	struct source *source;
	struct iovec iov;
	uint8_t byte;

	(void)state;
	fixture_open(&fixture);
	expect(!source_new(reopen_file(fixture.fd, O_WRONLY), &source));
	iov = (struct iovec){.iov_base = &byte, .iov_len = 1};
	assert_int_equal(source_read(source, &iov, 1, 0), -EBADF);
	source_put(source);
	expect(!source_new(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), &source));
	iov = (struct iovec){.iov_base = &byte, .iov_len = 1};
	assert_int_equal(source_read(source, &iov, 1, 0), -EISDIR);
	source_put(source);
	expect(!source_new(reopen_file(fixture.fd, O_RDONLY), &source));
	assert_int_equal(source_write(source, &byte, 1, 0), -EBADF);
	source_put(source);
	expect(!source_new(open("/dev/full", O_RDWR | O_CLOEXEC), &source));
	assert_int_equal(source_write(source, &byte, 1, 0), -ENOSPC);
	source_put(source);
	fixture_close(&fixture);
}

static void writes_are_whole(void **state)
{
	struct rng rng = rng_of_test(__func__);
	struct fixture fixture;
	uint8_t *model = malloc(BYTES);
	uint8_t *buffer = malloc(BYTES);

	(void)state;
	expect(model && buffer);
	fixture_open(&fixture);
	memcpy(model, fixture.pages, BYTES);
	for (unsigned round = 0; round < ROUNDS(1600); round++) {
		size_t offset = rng_below(&rng, BYTES);
		size_t length = rng_below(&rng, BYTES - offset) >> rng_below(&rng, 8);

		memset(model + offset, (int)round, length);
		assert_int_equal(
			source_write(fixture.source, model + offset, length, (off_t)offset),
			length);
	}
	assert_int_equal(pread(fixture.fd, buffer, BYTES, 0), BYTES);
	assert_memory_equal(buffer, model, BYTES);
	fixture_close(&fixture);
	free(buffer);
	free(model);
}

/* ---- no second copy (DESIGN, invariant 6) ---- */

/* Pages of the file in the kernel's cache. */
static unsigned resident(struct fixture *fixture)
{
	unsigned char in_core[PAGES];
	void *mapping = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fixture->fd, 0);
	unsigned count = 0;

	expect(mapping != MAP_FAILED);
	expect(!mincore(mapping, BYTES, in_core));
	munmap(mapping, BYTES);
	for (unsigned i = 0; i < PAGES; i++)
		count += in_core[i] & 1;
	return count;
}

/* In a tmpfs the cache is the file. */
static bool cache_can_be_dropped(struct fixture *fixture)
{
	struct statfs fs;

	expect(!fstatfs(fixture->fd, &fs));
	return fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC;
}

static void empty_cache(struct fixture *fixture)
{
	expect(!fsync(fixture->fd));
	expect(!posix_fadvise(fixture->fd, 0, 0, POSIX_FADV_DONTNEED));
	wait_for(!resident(fixture));
}

static void reads_leave_nothing_in_the_cache(void **state)
{
	struct fixture fixture;
	struct test_page buffer[64];

	(void)state;
	fixture_open(&fixture);
	if (cache_can_be_dropped(&fixture)) {
		empty_cache(&fixture);
		for (unsigned page = 0; page < PAGES; page += 64)
			assert_int_equal(read_parts(&fixture, buffer, 64, page * FOLD_PAGE_SIZE),
					 sizeof(buffer));
		source_drop_cache(fixture.source);
		assert_int_equal(resident(&fixture), 0);
	}
	fixture_close(&fixture);
}

static void writes_leave_nothing_in_the_cache_once_they_are_on_disk(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture);
	if (cache_can_be_dropped(&fixture)) {
		empty_cache(&fixture);
		for (unsigned page = 0; page < PAGES; page += 16)
			assert_int_equal(source_write(fixture.source, &fixture.pages[page], 5000,
						      page * FOLD_PAGE_SIZE + 100),
					 5000);
		expect(!fsync(fixture.fd));
		source_drop_cache(fixture.source);
		assert_int_equal(resident(&fixture), 0);
	}
	fixture_close(&fixture);
}

/* Where nobody syncs and nobody closes, much read in one go does not pile up either. */
static void a_long_read_does_not_pile_up(void **state)
{
	struct fixture fixture;
	struct test_page buffer[16];

	(void)state;
	fixture_open(&fixture);
	if (cache_can_be_dropped(&fixture)) {
		empty_cache(&fixture);
		for (unsigned round = 0; round < 64; round++)
			for (unsigned page = 0; page < PAGES; page += 16) {
				assert_int_equal(
					read_parts(&fixture, buffer, 16, page * FOLD_PAGE_SIZE),
					sizeof(buffer));
				source_drop_cache_if_due(fixture.source);
			}
		assert_true(resident(&fixture) <= PAGES / 4);
	}
	fixture_close(&fixture);
}

/* After much was written a drop is due: told to one caller, once. */
static void a_drop_is_due_once(void **state)
{
	struct fixture fixture;
	unsigned due = 0;

	(void)state;
	fixture_open(&fixture);
	assert_false(source_wants_drop(fixture.source));
	for (unsigned round = 0; round < 64; round++) { /* 64 MiB */
		assert_int_equal(source_write(fixture.source, fixture.pages, BYTES, 0), BYTES);
		if (!source_wants_drop(fixture.source))
			continue;
		due++;
		assert_false(source_wants_drop(fixture.source));
		source_drop_cache(fixture.source);
	}
	assert_in_range(due, 1, 16);
	fixture_close(&fixture);
}

/* ---- who does it ---- */

int __wrap_posix_fadvise(int fd, off_t offset, off_t length, int advice);
int __real_posix_fadvise(int fd, off_t offset, off_t length, int advice);

/* Drops of whole files, by this thread and by all. */
static _Thread_local unsigned own_drops;
static atomic_uint all_drops;

int __wrap_posix_fadvise(int fd, off_t offset, off_t length, int advice)
{
	bool whole = advice == POSIX_FADV_DONTNEED && !offset && !length;

	own_drops += whole;
	atomic_fetch_add(&all_drops, whole);
	return __real_posix_fadvise(fd, offset, length, advice);
}

/* A request's thread reads and writes; it is told when a drop is due, and makes none. */
static void reads_and_writes_drop_no_whole_file(void **state)
{
	struct test_page buffer[16];
	struct fixture fixture;
	unsigned due = 0;

	(void)state;
	fixture_open(&fixture);
	own_drops = 0;
	for (unsigned round = 0; round < 40; round++) { /* 40 MiB of each */
		for (unsigned page = 0; page < PAGES; page += 16)
			assert_int_equal(read_parts(&fixture, buffer, 16, page * FOLD_PAGE_SIZE),
					 sizeof(buffer));
		assert_int_equal(source_write(fixture.source, fixture.pages, BYTES, 0), BYTES);
		due += source_wants_drop(fixture.source);
	}
	assert_int_equal(own_drops, 0);
	assert_in_range(due, 2, 5);
	fixture_close(&fixture);
}

/* What another description, or nobody, has cached is not looked at. */
static void a_source_that_moved_nothing_is_just_closed(void **state)
{
	struct fixture fixture;
	struct source *source;
	struct test_page page;

	(void)state;
	fixture_open(&fixture);
	for (unsigned way = 0; way < 3; way++) {
		expect(!source_new(reopen_file(fixture.fd, O_RDWR), &source));
		if (way == 1)
			source_moved(source, 1);
		if (way == 2)
			assert_int_equal(source_write(source, &page, sizeof(page), 0),
					 sizeof(page));
		assert_int_equal(source_ends_slowly(source), way > 0);
		own_drops = 0;
		source_put(source);
		assert_int_equal(own_drops, way > 0);
	}
	/* A small file takes no time. */
	expect(!ftruncate(fixture.fd, BYTES / 2));
	source_moved(fixture.source, 1);
	assert_false(source_ends_slowly(fixture.source));
	fixture_close(&fixture);
}

struct gate {
	struct worker_job job;
	atomic_bool open;
};

static void wait_at_gate(struct worker_job *job, bool wanted)
{
	struct gate *gate = caa_container_of(job, struct gate, job);

	(void)wanted;
	wait_for(atomic_load(&gate->open));
}

/* By a worker, and once, however often it is asked for before that has begun. */
static void a_drop_that_is_asked_for_is_a_workers(void **state)
{
	struct gate gate = {.job = {.run = wait_at_gate}};
	struct fixture fixture;
	struct workers *workers;

	(void)state;
	fixture_open(&fixture);
	expect(!workers_new(1, &workers) && !workers_start(workers));
	workers_add(workers, &gate.job);
	own_drops = 0;
	atomic_store(&all_drops, 0);
	for (unsigned i = 0; i < 100; i++)
		source_drop_cache_soon(fixture.source, workers);
	assert_int_equal(atomic_load(&all_drops), 0);
	atomic_store(&gate.open, true);
	wait_for(atomic_load(&all_drops) == 1);
	source_drop_cache_soon(fixture.source, workers);
	workers_free(workers);
	assert_int_equal(atomic_load(&all_drops), 2);
	/* What was left when they ended is done by who waits for that. */
	assert_in_range(own_drops, 0, 1);
	fixture_close(&fixture);
}

/* ---- stamps ---- */

static void any_difference_tells_stamps_apart(void **state)
{
	struct stat st = {.st_dev = 1,
			  .st_ino = 2,
			  .st_size = 3,
			  .st_mtim = {.tv_sec = 4, .tv_nsec = 5},
			  .st_ctim = {.tv_sec = 6, .tv_nsec = 7}};
	struct source_stamp one;
	struct source_stamp two;

	(void)state;
	source_stamp_of(&st, &one);
	source_stamp_of(&st, &two);
	assert_true(source_stamp_equal(&one, &two));
	for (unsigned field = 0; field < 7; field++) {
		struct stat other = st;

		other.st_dev += field == 0;
		other.st_ino += field == 1;
		other.st_size += field == 2;
		other.st_mtim.tv_sec += field == 3;
		other.st_mtim.tv_nsec += field == 4;
		other.st_ctim.tv_sec += field == 5;
		other.st_ctim.tv_nsec += field == 6;
		source_stamp_of(&other, &two);
		assert_false(source_stamp_equal(&one, &two));
		assert_false(source_stamp_equal(&two, &one));
	}
	st.st_atim.tv_sec = 99; /* reading is no change */
	st.st_nlink = 5;
	source_stamp_of(&st, &two);
	assert_true(source_stamp_equal(&one, &two));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_reference_closes),
		cmocka_unit_test(a_failed_new_closes_as_well),
		cmocka_unit_test(references_are_counted_by_many),
		cmocka_unit_test(reads_fill_all_buffers),
		cmocka_unit_test(short_reads_are_continued),
		cmocka_unit_test(an_error_counts_once_nothing_came_before_it),
		cmocka_unit_test(an_interrupted_call_is_no_error),
		cmocka_unit_test(without_dontcache_the_plain_call_serves),
		cmocka_unit_test(reads_of_what_can_not_be_read),
		cmocka_unit_test(writes_are_whole),
		cmocka_unit_test(reads_leave_nothing_in_the_cache),
		cmocka_unit_test(writes_leave_nothing_in_the_cache_once_they_are_on_disk),
		cmocka_unit_test(a_long_read_does_not_pile_up),
		cmocka_unit_test(a_drop_is_due_once),
		cmocka_unit_test(reads_and_writes_drop_no_whole_file),
		cmocka_unit_test(a_source_that_moved_nothing_is_just_closed),
		cmocka_unit_test(a_drop_that_is_asked_for_is_a_workers),
		cmocka_unit_test(any_difference_tells_stamps_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
