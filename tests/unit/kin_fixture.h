/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kin_fixture.h - two files with the same bytes, kin of one family
 */
#ifndef FOLDFS_TEST_KIN_FIXTURE_H
#define FOLDFS_TEST_KIN_FIXTURE_H

#include "fixture.h"

#include "foldfs/kin_file.h"

#define PAGES 600u
#define BYTES (PAGES * (size_t)FOLD_PAGE_SIZE)

/* Two files with the same bytes, kin as a whole unless told otherwise. */
struct pair {
	struct fixture fixture;
	struct family_table *families;
	struct test_page *pages;
	struct test_page *buffer;
	struct subject a;
	struct subject b;
};

static inline void make_kin(struct pair *pair, struct subject *subject,
			    const struct catalogue_run runs[], size_t count)
{
	struct source_stamp stamp;
	struct stat st;
	struct kin *kin;

	expect(!fstat(subject->fd, &st));
	source_stamp_of(&st, &stamp);
	kin = kin_new(pair->families, &stamp,
		      writers_of(file_view(subject->file), subject->fd, &st), 7, runs, count);
	expect(kin);
	file_set_kin(subject->file, kin, subject->fd);
}

static inline void pair_open(struct pair *pair, uint64_t pool_bytes)
{
	pair->pages = pages_new(PAGES, 1);
	pair->buffer = pages_new(PAGES, 5000);
	fixture_open(&pair->fixture, pool_bytes, true);
	expect(!family_table_new(pair->fixture.pool.store, &pair->families));
	file_table_use_families(pair->fixture.files, pair->families);
	subject_open(&pair->fixture, &pair->a, pair->pages, BYTES);
	subject_open(&pair->fixture, &pair->b, pair->pages, BYTES);
}

static inline void pair_open_kin(struct pair *pair)
{
	const struct catalogue_run all = {.first = 0, .pages = PAGES};

	pair_open(pair, 16 * MIB);
	make_kin(pair, &pair->a, &all, 1);
	make_kin(pair, &pair->b, &all, 1);
}

/* Nothing is left of families and kins once the files are gone. */
static inline void pair_close(struct pair *pair)
{
	subject_close(&pair->a);
	subject_close(&pair->b);
	filler_destroy(&pair->fixture.filler);
	file_table_free(pair->fixture.files);
	fold_rcu_barrier();
	fold_rcu_barrier();
	assert_int_equal(family_table_bytes(pair->families), 0);
	family_table_free(pair->families);
	assert_int_equal(pool_usage(&pair->fixture.pool).frames_used, 0);
	assert_int_equal(pool_usage(&pair->fixture.pool).pages_sharing, 0);
	page_map_memory_free(pair->fixture.memory);
	pool_close(&pair->fixture.pool);
	free(pair->pages);
	free(pair->buffer);
}

static inline uint64_t adopted(const struct pair *pair)
{
	return counters_sum(pair->fixture.pool.counters, COUNTER_ADOPTED);
}

/* What `explain` says of the second file; no catalogue is asked while it has a kin. */
static inline uint64_t known(const struct pair *pair)
{
	static char none; /* is there, and not looked into */

	return kin_count((struct catalogue *)&none, pair->b.file, pair->b.fd);
}

/* Read all of SUBJECT: it has to be MODEL. */
static inline void expect_content(struct pair *pair, struct subject *subject,
				  const struct test_page *model)
{
	memset(pair->buffer, 0, BYTES);
	assert_int_equal(read_all(&pair->fixture, subject, pair->buffer, BYTES), BYTES);
	assert_memory_equal(pair->buffer, model, BYTES);
}

/* As after eviction: nothing of SUBJECT is resident, and it is as true as before. */
static inline void evict(struct subject *subject)
{
	fold_rcu_read_lock();
	page_map_forget(file_map(subject->file), 0, UINT64_MAX);
	fold_rcu_read_unlock();
}

/* ---- hooks ---- */

struct source_watch {
	int fd;
	atomic_uint calls;
	void (*first)(void *context); /* at the first read */
	void *context;
};

static inline ssize_t watch_read(void *context, const struct io_call *call)
{
	struct source_watch *watch = context;

	if (call->fd == watch->fd && !call->write && !atomic_fetch_add(&watch->calls, 1) &&
	    watch->first)
		watch->first(watch->context);
	return IO_AS_ASKED;
}

static inline void watch_begin(struct source_watch *watch, const struct subject *subject)
{
	*watch = (struct source_watch){.fd = source_fd(subject->source)};
	faults_hook_io(watch_read, watch);
}

static inline void watch_end(void)
{
	faults_hook_io(NULL, NULL);
}

#endif
