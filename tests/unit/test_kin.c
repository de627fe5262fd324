/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_kin.c - pages that files are known to have in common: read once, never wrong
 */
#include "kin_fixture.h"

#include "family/cuts.h"
#include "foldfs/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>

/* ---- tests ---- */

static void what_another_file_brought_is_not_read_again(void **state)
{
	struct pair pair;
	struct source_watch watch;

	(void)state;
	pair_open_kin(&pair);
	expect_content(&pair, &pair.a, pair.pages);
	assert_int_equal(adopted(&pair), 0);
	watch_begin(&watch, &pair.b);
	expect_content(&pair, &pair.b, pair.pages);
	watch_end();
	assert_int_equal(atomic_load(&watch.calls), 0);
	assert_int_equal(adopted(&pair), PAGES);
	assert_int_equal(pool_usage(&pair.fixture.pool).frames_used, PAGES);
	assert_int_equal(pool_usage(&pair.fixture.pool).pages_sharing, PAGES);
	pair_close(&pair);
}

struct owner {
	uid_t user;
	mode_t mode;
};

/* Both files read through a pool, the first one as A's, the second one as B's: what was adopted. */
static uint64_t adopted_by(const struct owner *a, const struct owner *b)
{
	const struct catalogue_run all = {.first = 0, .pages = PAGES};
	struct pair pair;
	uint64_t count;
	bool unchanged;

	pair_open(&pair, 16 * MIB);
	expect(!fchown(pair.a.fd, a->user, a->user) && !fchmod(pair.a.fd, a->mode));
	expect(!fchown(pair.b.fd, b->user, b->user) && !fchmod(pair.b.fd, b->mode));
	expect(!file_validate(pair.a.file, pair.a.fd, &unchanged));
	expect(!file_validate(pair.b.file, pair.b.fd, &unchanged));
	make_kin(&pair, &pair.a, &all, 1);
	make_kin(&pair, &pair.b, &all, 1);
	expect_content(&pair, &pair.a, pair.pages);
	expect_content(&pair, &pair.b, pair.pages);
	count = adopted(&pair);
	/* Once more: by then both have read. */
	evict(&pair.b);
	expect_content(&pair, &pair.b, pair.pages);
	pair_close(&pair);
	return count;
}

/* What a file was read to hold is its writers' word: it counts for theirs, and root's for all. */
static void what_is_adopted_is_what_may_be_said(void **state)
{
	static const struct owner root = {0, 0600};
	static const struct owner somebody = {70001, 0644};
	static const struct owner another = {70002, 0644};
	static const struct owner anybody = {70001, 0666};

	(void)state;
	if (geteuid()) {
		print_message("only root can give files away\n");
		skip();
	}
	assert_int_equal(adopted_by(&root, &root), PAGES);
	assert_int_equal(adopted_by(&root, &somebody), PAGES);
	assert_int_equal(adopted_by(&root, &anybody), PAGES);
	assert_int_equal(adopted_by(&somebody, &somebody), PAGES);
	assert_int_equal(adopted_by(&somebody, &root), 0);
	assert_int_equal(adopted_by(&somebody, &another), 0);
	assert_int_equal(adopted_by(&somebody, &anybody), 0);
	assert_int_equal(adopted_by(&anybody, &somebody), 0);
	assert_int_equal(adopted_by(&anybody, &anybody), 0);
}

/* A change of hands by this mount: nothing that was known of the file is known of it any more. */
static void a_file_that_changes_hands_has_lost_its_kin(void **state)
{
	struct pair pair;
	uint64_t edition;

	(void)state;
	if (geteuid()) {
		print_message("only root can give files away\n");
		skip();
	}
	pair_open_kin(&pair);
	expect_content(&pair, &pair.a, pair.pages);
	expect_content(&pair, &pair.b, pair.pages);
	assert_int_equal(known(&pair), PAGES);
	edition = file_edition(pair.b.file);
	expect(!file_change_begin(pair.b.file, pair.b.fd, NULL));
	expect(!fchmod(pair.b.fd, 0400));
	file_change_end(pair.b.file, pair.b.fd);
	assert_int_equal(known(&pair), PAGES);
	assert_int_equal(file_edition(pair.b.file), edition);
	/* Before the end of it, nothing is adopted any more. */
	expect(!file_change_begin(pair.b.file, pair.b.fd, NULL));
	expect(!fchown(pair.b.fd, 70001, -1));
	evict(&pair.b);
	expect_content(&pair, &pair.b, pair.pages);
	assert_int_equal(adopted(&pair), PAGES);
	file_change_end(pair.b.file, pair.b.fd);
	assert_true(file_edition(pair.b.file) != edition);
	fold_rcu_read_lock();
	assert_null(file_kin(pair.b.file));
	fold_rcu_read_unlock();
	pair_close(&pair);
}

static void only_the_runs_are_adopted(void **state)
{
	const struct catalogue_run all = {.first = 0, .pages = PAGES};
	const struct catalogue_run runs[] = {{.first = 3, .pages = 1},
					     {.first = 64, .pages = 130},
					     {.first = 500, .pages = 100}};
	struct test_page *other = pages_new(PAGES, 9000);
	struct subject alike;
	struct pair pair;

	(void)state;
	pair_open(&pair, 16 * MIB);
	for (unsigned i = 0; i < sizeof(runs) / sizeof(runs[0]); i++)
		memcpy(other + runs[i].first, pair.pages + runs[i].first,
		       runs[i].pages * FOLD_PAGE_SIZE);
	subject_open(&pair.fixture, &alike, other, BYTES);
	make_kin(&pair, &pair.a, &all, 1);
	make_kin(&pair, &alike, runs, 3);
	expect_content(&pair, &pair.a, pair.pages);
	expect_content(&pair, &alike, other);
	assert_int_equal(adopted(&pair), 231);
	subject_close(&alike);
	free(other);
	pair_close(&pair);
}

/* Changes by this mount: what they cover is the source's, all else still the family's. */
static void what_this_mount_changed_is_cut_out(void **state)
{
	struct pair pair;
	struct test_page mine;

	(void)state;
	pair_open_kin(&pair);
	expect_content(&pair, &pair.a, pair.pages);
	page_make(&mine, 7777, 1);
	assert_int_equal(cow_break_write(&pair.fixture.cow, pair.b.file, pair.b.source, &mine,
					 sizeof(mine), 70 * FOLD_PAGE_SIZE, NULL),
			 sizeof(mine));
	pair.pages[70] = mine;
	evict(&pair.b);
	expect_content(&pair, &pair.b, pair.pages);
	assert_int_equal(adopted(&pair), PAGES - 1);
	expect(!cow_break_truncate(&pair.fixture.cow, pair.b.file, pair.b.fd, NULL,
				   400 * FOLD_PAGE_SIZE + 100));
	expect(!cow_break_truncate(&pair.fixture.cow, pair.b.file, pair.b.fd, NULL, BYTES));
	memset((uint8_t *)pair.pages + 400 * FOLD_PAGE_SIZE + 100, 0,
	       BYTES - 400 * FOLD_PAGE_SIZE - 100);
	file_cut_kin(pair.b.file, 128, 255);
	assert_int_equal(known(&pair), 399 - 128);
	file_cut_kin(pair.b.file, 130, 190);
	assert_int_equal(known(&pair), 399 - 128);
	evict(&pair.b);
	expect_content(&pair, &pair.b, pair.pages);
	assert_int_equal(adopted(&pair), PAGES - 1 + 399 - 128);
	pair_close(&pair);
}

/* Where there is no memory to say what was changed, nothing is adopted any more. */
static void without_memory_all_is_cut(void **state)
{
	struct pair pair;
	struct test_page mine;

	(void)state;
	pair_open_kin(&pair);
	expect_content(&pair, &pair.a, pair.pages);
	page_make(&mine, 7777, 1);
	faults_fail_allocations(0);
	assert_int_equal(cow_break_write(&pair.fixture.cow, pair.b.file, pair.b.source, &mine,
					 sizeof(mine), 70 * FOLD_PAGE_SIZE, NULL),
			 sizeof(mine));
	faults_fail_allocations(-1);
	pair.pages[70] = mine;
	expect_content(&pair, &pair.b, pair.pages);
	assert_int_equal(adopted(&pair), 0);
	pair_close(&pair);
}

/* A file that this mount has changed may not tell what it holds: some of it is not the family's. */
static void a_changed_file_tells_nothing(void **state)
{
	struct pair pair;
	struct test_page mine;

	(void)state;
	pair_open_kin(&pair);
	page_make(&mine, 7777, 1);
	cow_break_write(&pair.fixture.cow, pair.a.file, pair.a.source, &mine, sizeof(mine), 0,
			NULL);
	assert_int_equal(read_all(&pair.fixture, &pair.a, pair.buffer, BYTES), BYTES);
	expect_content(&pair, &pair.b, pair.pages);
	assert_int_equal(adopted(&pair), 0);
	pair_close(&pair);
}

static void a_change_behind_the_mount_ends_it(void **state)
{
	struct pair pair;
	struct test_page foreign;

	(void)state;
	pair_open_kin(&pair);
	expect_content(&pair, &pair.a, pair.pages);
	page_make(&foreign, 8888, 1);
	write_whole(pair.b.fd, &foreign, sizeof(foreign), 123 * FOLD_PAGE_SIZE);
	pair.pages[123] = foreign;
	expect_content(&pair, &pair.b, pair.pages);
	assert_int_equal(adopted(&pair), 0);
	fold_rcu_read_lock();
	assert_null(file_kin(pair.b.file));
	fold_rcu_read_unlock();
	pair_close(&pair);
}

static void a_kin_of_another_state_is_not_taken(void **state)
{
	const struct catalogue_run all = {.first = 0, .pages = PAGES};
	struct pair pair;
	struct source_stamp stamp;
	struct stat st;

	(void)state;
	pair_open(&pair, 16 * MIB);
	expect(!fstat(pair.a.fd, &st));
	source_stamp_of(&st, &stamp);
	write_whole(pair.a.fd, "x", 1, 0);
	file_set_kin(pair.a.file, kin_new(pair.families, &stamp, WRITERS_TRUSTED, 7, &all, 1),
		     pair.a.fd);
	fold_rcu_read_lock();
	assert_null(file_kin(pair.a.file));
	fold_rcu_read_unlock();
	/* Nor runs that are not the file's. */
	assert_null(kin_new(pair.families, &stamp, WRITERS_TRUSTED, 7,
			    &(struct catalogue_run){.first = 1, .pages = PAGES}, 1));
	assert_null(kin_new(pair.families, &stamp, WRITERS_TRUSTED, 7, NULL, 0));
	pair_close(&pair);
}

static void change_behind(void *context)
{
	struct subject *subject = context;
	struct test_page foreign;

	page_make(&foreign, 4444, 1);
	for (unsigned page = 0; page < PAGES; page++)
		write_whole(subject->fd, &foreign, sizeof(foreign), page * FOLD_PAGE_SIZE);
}

/* The change comes after the kin was found true and before the source is read. */
static void what_changed_under_a_fetch_is_not_told(void **state)
{
	struct pair pair;
	struct source_watch watch;

	(void)state;
	pair_open_kin(&pair);
	watch_begin(&watch, &pair.a);
	watch.first = change_behind;
	watch.context = &pair.a;
	/* One request: the next would find the change, and give the frames up. */
	assert_int_equal(read_through(&pair.fixture, &pair.a, pair.buffer, MIB, 0), MIB);
	watch_end();
	expect_content(&pair, &pair.b, pair.pages);
	assert_int_equal(adopted(&pair), 0);
	pair_close(&pair);
}

/* What the family remembered is in no frame any more, or in a frame with another life. */
static void frames_that_have_gone_are_not_adopted(void **state)
{
	const struct catalogue_run all = {.first = 0, .pages = PAGES};
	struct pair pair;
	struct subject other;
	struct test_page *more = pages_new(PAGES, 20000);

	(void)state;
	pair_open(&pair, 2 * MIB);
	make_kin(&pair, &pair.a, &all, 1);
	make_kin(&pair, &pair.b, &all, 1);
	subject_open(&pair.fixture, &other, more, BYTES);
	for (unsigned round = 0; round < 4; round++) {
		expect_content(&pair, &pair.a, pair.pages);
		expect_content(&pair, &other, more);
		expect_content(&pair, &pair.b, pair.pages);
	}
	check_known(&pair.b, PAGES);
	subject_close(&other);
	free(more);
	pair_close(&pair);
}

/* ---- proven kins ---- */

static void count_broken(void *context)
{
	atomic_fetch_add((atomic_uint *)context, 1);
}

/* Somebody opens the file in the source, whenever he is let, and writes to it. */
static void write_behind(struct subject *subject, uint64_t first, uint64_t pages)
{
	struct test_page foreign;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", subject->fd);
	do
		fd = open(path, O_RDWR | O_NONBLOCK);
	while (fd < 0 && errno == EAGAIN && !sched_yield());
	expect(fd >= 0);
	page_make(&foreign, 4444, 1);
	for (uint64_t page = first; page < first + pages; page++)
		write_whole(fd, &foreign, sizeof(foreign), (off_t)(page * FOLD_PAGE_SIZE));
	close(fd);
}

/* The test uses the source's own description: there is no other. */
static void make_alone(struct subject *subject)
{
	close(subject->fd);
	subject->fd = dup(source_fd(subject->source));
	expect(subject->fd >= 0);
}

struct change_behind {
	struct subject *subject;
	bool done;
};

/* Within a write of ours, whose stamp at the end includes it. */
static ssize_t change_within(void *context, const struct io_call *call)
{
	struct change_behind *change = context;

	if (call->write && call->fd == source_fd(change->subject->source) && !change->done) {
		change->done = true;
		write_behind(change->subject, 100, 50);
	}
	return IO_AS_ASKED;
}

static void write_mine(struct pair *pair, struct subject *subject, uint64_t page)
{
	struct test_page mine;

	page_make(&mine, 7000 + page, 1);
	assert_int_equal(cow_break_write(&pair->fixture.cow, subject->file, subject->source, &mine,
					 sizeof(mine), (off_t)(page * FOLD_PAGE_SIZE), NULL),
			 sizeof(mine));
}

/* A file that was changed tells what was not, as long as nobody else has it open; a change that
 * nobody can tell from ours, by its stamp, reaches no other file. */
static void what_is_proven_is_told(void **state)
{
	struct lease_table *leases;
	struct change_behind change;
	struct lease_usage usage;
	struct pair pair;
	atomic_uint broken = 0;

	(void)state;
	for (unsigned lost = 0; lost < 2; lost++) {
		assert_int_equal(lease_table_new(count_broken, &broken, &leases), 0);
		assert_int_equal(lease_table_start(leases), 0);
		pair_open_kin(&pair);
		make_alone(&pair.a);
		kin_prove(leases, pair.a.file, pair.a.source);
		lease_table_usage(leases, &usage);
		assert_int_equal(usage.held, 1);
		change = (struct change_behind){.subject = &pair.a, .done = !lost};
		faults_hook_io(change_within, &change);
		write_mine(&pair, &pair.a, 70);
		faults_hook_io(NULL, NULL);
		assert_int_equal(read_all(&pair.fixture, &pair.a, pair.buffer, BYTES), BYTES);
		lease_table_usage(leases, &usage);
		assert_int_equal(usage.held, !lost);
		assert_int_equal(usage.broken, lost);
		expect_content(&pair, &pair.b, pair.pages);
		assert_int_equal(adopted(&pair), lost ? 0 : PAGES - 1);
		pair_close(&pair);
		lease_table_free(leases);
		assert_int_equal(atomic_load(&broken), lost);
	}
}

static uint64_t held(struct lease_table *leases)
{
	struct lease_usage usage;

	lease_table_usage(leases, &usage);
	assert_int_equal(usage.broken, 0);
	return usage.held;
}

static bool begin_opening(struct lease_table *leases, const struct subject *subject,
			  struct lease_opening *opening)
{
	struct stat st;

	expect(!fstat(subject->fd, &st));
	return lease_opening_begin(leases, st.st_dev, st.st_ino, opening);
}

/* While an open of ours is under way nothing is proven, and no lease that it meets is said to be
 * broken by others. */
static void our_own_opens_break_nothing(void **state)
{
	struct lease_opening opening;
	struct lease_opening other;
	struct lease_table *leases;
	struct pair pair;
	struct kin *kin;
	atomic_uint broken = 0;

	(void)state;
	assert_int_equal(lease_table_new(count_broken, &broken, &leases), 0);
	assert_int_equal(lease_table_start(leases), 0);
	pair_open_kin(&pair);
	make_alone(&pair.a);
	kin = kin_of(pair.a.file);
	/* One that has begun, and another file's. */
	assert_false(begin_opening(leases, &pair.a, &opening));
	kin_prove(leases, pair.a.file, pair.a.source);
	assert_false(kin_is_proven(kin));
	lease_opening_end(leases, &opening);
	assert_false(begin_opening(leases, &pair.b, &opening));
	kin_prove(leases, pair.a.file, pair.a.source);
	assert_true(kin_is_proven(kin));
	assert_int_equal(held(leases), 1);
	/* One that comes after the lease sees it. What it looks at stays. */
	assert_true(begin_opening(leases, &pair.a, &other));
	assert_int_equal(lease_check_unwritten(leases, pair.a.source), 0);
	assert_true(kin_is_proven(kin));
	lease_opening_alone(leases, &other);
	assert_int_equal(held(leases), 0);
	assert_false(kin_is_proven(kin));
	write_behind(&pair.a, 100, 1);
	lease_opening_end(leases, &other);
	lease_opening_end(leases, &opening);
	assert_int_equal(held(leases), 0);
	kin_put(kin);
	pair_close(&pair);
	lease_table_free(leases);
	assert_int_equal(atomic_load(&broken), 0);
}

/* A stamp is kept only with the cuts that were made before it: a write that comes in between makes
 * it worthless. Nor is one kept of a kin that is not proven. */
static void a_new_stamp_is_true(void **state)
{
	struct lease_table *leases;
	struct pair pair;
	struct kin *kin;

	(void)state;
	assert_int_equal(lease_table_new(count_broken, NULL, &leases), 0);
	assert_int_equal(lease_table_start(leases), 0);
	pair_open_kin(&pair);
	make_alone(&pair.a);
	make_alone(&pair.b);
	kin = kin_of(pair.a.file);
	write_mine(&pair, &pair.a, 70);
	kin_keep(NULL, pair.a.file, pair.a.fd);
	assert_false(kin_is_exact(kin, pair.a.fd));
	kin_prove(leases, pair.a.file, pair.a.source);
	assert_false(kin_is_proven(kin));
	kin_put(kin);
	kin = kin_of(pair.b.file);
	kin_prove(leases, pair.b.file, pair.b.source);
	write_mine(&pair, &pair.b, 70);
	assert_true(kin_is_proven(kin));
	kin_keep(NULL, pair.b.file, pair.b.fd);
	assert_true(kin_is_exact(kin, pair.b.fd));
	write_mine(&pair, &pair.b, 71);
	assert_false(kin_is_exact(kin, pair.b.fd));
	kin_end_proof(pair.b.file);
	assert_false(kin_is_proven(kin));
	kin_keep(NULL, pair.b.file, pair.b.fd);
	assert_false(kin_is_exact(kin, pair.b.fd));
	kin_put(kin);
	pair_close(&pair);
	lease_table_free(leases);
}

/* Over their budget, maps and families give memory back, and nothing is wrong. */
static void what_is_remembered_can_be_given_up(void **state)
{
	struct pair pair;
	uint64_t before;

	(void)state;
	pair_open_kin(&pair);
	before = family_table_in_use(pair.families);
	expect_content(&pair, &pair.a, pair.pages);
	assert_true(family_table_in_use(pair.families) >= before + PAGES * sizeof(uint64_t));
	assert_true(family_table_shrink(pair.families, 1) > 0);
	while (family_table_shrink(pair.families, UINT64_MAX))
		;
	assert_int_equal(family_table_in_use(pair.families), before);
	expect_content(&pair, &pair.b, pair.pages);
	assert_int_equal(adopted(&pair), 0);
	pair_close(&pair);
}

/* Cuts of large files take memory where they are, and kins that take more than their share go
 * before the maps of open files do. */
static void kins_do_not_starve_the_maps(void **state)
{
	enum { RUNS = 4400000 }; /* more than the maps' budget */
	const struct catalogue_run all = {.first = 0, .pages = PAGES};
	struct catalogue_run *runs = calloc(RUNS, sizeof(*runs));
	struct source_stamp stamp;
	struct pair pair;
	struct stat st;
	struct kin *kin;
	uint64_t before;
	uint64_t own;

	(void)state;
	pair_open(&pair, 16 * MIB);
	make_kin(&pair, &pair.b, &all, 1);
	own = family_table_in_use(pair.families);
	expect(!ftruncate(pair.a.fd, INT64_C(1) << 39));
	expect(!fstat(pair.a.fd, &st));
	source_stamp_of(&st, &stamp);
	for (uint64_t i = 0; i < RUNS; i++)
		runs[i] = (struct catalogue_run){.first = i * 28, .pages = 27};
	kin = kin_new(pair.families, &stamp, WRITERS_TRUSTED, 8, runs, RUNS);
	file_set_kin(pair.a.file, kin, pair.a.fd);
	/* Opened again, the other one is not the first to go. */
	expect(!fstat(pair.b.fd, &st));
	expect(file_table_find(pair.fixture.files, st.st_dev, st.st_ino) == pair.b.file);
	file_put(pair.b.file);
	before = kin_bytes(kin);
	file_cut_kin(pair.a.file, 100 << 20 >> FOLD_PAGE_SHIFT, 100 << 20 >> FOLD_PAGE_SHIFT);
	file_cut_kin(pair.a.file, UINT64_C(100000000), UINT64_C(100000007));
	assert_true(kin_bytes(kin) - before <= 2 * 1024 + 64);
	file_cut_kin(pair.a.file, (UINT64_C(1) << 26) - 10, UINT64_MAX);
	assert_true(kin_bytes(kin) - before <= 3 * 1024 + 64);
	file_table_trim(pair.fixture.files);
	fold_rcu_read_lock();
	assert_null(file_kin(pair.a.file));
	assert_non_null(file_kin(pair.b.file));
	fold_rcu_read_unlock();
	assert_true(family_table_in_use(pair.families) <= own);
	pair_close(&pair);
	free(runs);
}

/* Random cuts against a model that has a byte for each page. */
static void cuts_are_those_of_a_model(void **state)
{
	enum { COUNT = 600000 };
	struct rng rng = rng_of_test(__func__);
	uint8_t *model = calloc(COUNT, 1);
	struct cuts *cuts = cuts_new(COUNT);
	uint64_t grown;

	(void)state;
	expect(model && cuts);
	for (unsigned round = 0; round < 60; round++) {
		uint64_t first = rng_below(&rng, COUNT);
		uint64_t pages = 1 + rng_below(&rng, rng_below(&rng, 8) ? 100 : COUNT / 4);
		uint64_t last = first + pages - 1;
		uint64_t bytes = cuts_bytes(cuts);
		uint64_t next = COUNT;

		assert_true(cuts_add(cuts, first, last, &grown));
		assert_int_equal(cuts_bytes(cuts), bytes + grown);
		for (uint64_t page = first; page <= last && page < COUNT; page++)
			model[page] = 1;
		for (uint64_t page = COUNT; page--;) {
			if (page + 1 < COUNT && model[page] != model[page + 1])
				next = page + 1;
			if (cuts_has(cuts, page) != model[page] ||
			    (page % 97 == 0 && cuts_next(cuts, page, !model[page]) != next))
				fail_msg("page %ju", (uintmax_t)page);
		}
	}
	assert_false(cuts_has(cuts, COUNT));
	cuts_free(cuts);
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_another_file_brought_is_not_read_again),
		cmocka_unit_test(what_is_adopted_is_what_may_be_said),
		cmocka_unit_test(a_file_that_changes_hands_has_lost_its_kin),
		cmocka_unit_test(only_the_runs_are_adopted),
		cmocka_unit_test(what_this_mount_changed_is_cut_out),
		cmocka_unit_test(without_memory_all_is_cut),
		cmocka_unit_test(a_changed_file_tells_nothing),
		cmocka_unit_test(a_change_behind_the_mount_ends_it),
		cmocka_unit_test(a_kin_of_another_state_is_not_taken),
		cmocka_unit_test(what_changed_under_a_fetch_is_not_told),
		cmocka_unit_test(frames_that_have_gone_are_not_adopted),
		cmocka_unit_test(what_is_proven_is_told),
		cmocka_unit_test(our_own_opens_break_nothing),
		cmocka_unit_test(a_new_stamp_is_true),
		cmocka_unit_test(kins_do_not_starve_the_maps),
		cmocka_unit_test(cuts_are_those_of_a_model),
		cmocka_unit_test(what_is_remembered_can_be_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
