/* SPDX-License-Identifier: Apache-2.0 */
/* test_audit_storm.c - the audit beside traffic calls nothing a difference that is only
 * under way */
#include "audit_fixture.h"

#define STORM_PAGES 192u
#define STORM_FILES 3u

struct storm {
	struct fixture fixture;
	struct subject files[STORM_FILES];
	struct audit_subject subject;
	struct audit_report report;
	atomic_bool done;
	uint64_t checked;
	uint64_t unsteady;
};

static int storm_open(void *context, dev_t device, ino_t inode)
{
	struct storm *storm = context;
	struct stat st;

	for (unsigned i = 0; i < STORM_FILES; i++)
		if (!fstat(storm->files[i].fd, &st) && st.st_dev == device && st.st_ino == inode)
			return reopen_file(storm->files[i].fd, O_RDONLY);
	return -ENOENT;
}

/* One of few contents, so that files share much, and share again what they have broken. */
static void storm_write(struct storm *storm, struct subject *subject, struct rng *rng)
{
	struct test_page ink[4];
	uint64_t first = rng_below(rng, STORM_PAGES - 4);

	for (unsigned i = 0; i < 4; i++)
		page_make(&ink[i], rng_below(rng, 64), 0);
	if (!rng_below(rng, 4))
		memset(&ink[1], 0, sizeof(ink[1]));
	expect(cow_break_write(&storm->fixture.cow, subject->file, subject->source, ink,
			       sizeof(ink), (off_t)(first * FOLD_PAGE_SIZE), NULL) == sizeof(ink));
}

static void storm_step(struct storm *storm, struct rng *rng, struct test_page *buffer)
{
	struct subject *subject = &storm->files[rng_below(rng, STORM_FILES)];
	uint64_t first = rng_below(rng, STORM_PAGES - 64);

	switch (rng_below(rng, 16)) {
	case 0:
		expect(!cow_break_truncate(&storm->fixture.cow, subject->file, subject->fd, NULL,
					   (off_t)rng_below(rng, STORM_PAGES * FOLD_PAGE_SIZE)));
		break;
	case 1:
		expect(!cow_break_fallocate(&storm->fixture.cow, subject->file, subject->fd,
					    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					    (off_t)(first * FOLD_PAGE_SIZE), 20 * FOLD_PAGE_SIZE));
		break;
	case 2:
	case 3:
	case 4:
	case 5:
		storm_write(storm, subject, rng);
		break;
	default:
		expect(read_through(&storm->fixture, subject, buffer, 64 * FOLD_PAGE_SIZE,
				    (off_t)(first * FOLD_PAGE_SIZE)) >= 0);
		break;
	}
}

static void storm_work(void *context, unsigned index)
{
	struct storm *storm = context;
	struct rng rng = {.state = mix64(index)};
	struct test_page *buffer = pages_new(64, 0);

	if (index) {
		while (!atomic_load(&storm->done))
			storm_step(storm, &rng, buffer);
	} else {
		/* The others may not have begun yet, where there is too much else to do. */
		for (unsigned round = 0; round < ROUNDS(40) || !storm->checked; round++) {
			expect(!audit_run(&storm->subject, false, &storm->report));
			for (unsigned i = 0; i < storm->report.findings; i++)
				fprintf(stderr, "found: %s\n", storm->report.texts[i]);
			expect(!audit_differences(&storm->report));
			storm->checked += storm->report.lines[AUDIT_SLOTS].checked;
		}
		atomic_store(&storm->done, true);
	}
	free(buffer);
}

static void what_is_under_way_is_no_difference(void **state)
{
	struct storm *storm = calloc(1, sizeof(*storm));

	(void)state;
	expect(storm);
	/* Fewer frames than pages: eviction never stops. */
	fixture_open(&storm->fixture, MIB, true);
	for (unsigned i = 0; i < STORM_FILES; i++)
		subject_open(&storm->fixture, &storm->files[i], "", 0);
	storm->subject = (struct audit_subject){
		.store = storm->fixture.pool.store,
		.memory = storm->fixture.memory,
		.files = storm->fixture.files,
		.filler = &storm->fixture.filler,
		.source_fd = -1,
		.open_source = storm_open,
		.context = storm,
	};
	crew_run(4, storm_work, storm);
	expect(!audit_run(&storm->subject, true, &storm->report));
	assert_int_equal(audit_differences(&storm->report), 0);
	for (unsigned i = 0; i < STORM_FILES; i++)
		subject_close(&storm->files[i]);
	fixture_close(&storm->fixture);
	free(storm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_under_way_is_no_difference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
