/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_fixture.h - a mount without a kernel, for the audit's tests
 *
 * Two files of 40 pages: 16 that they share, 8 of their own, 15 of zeroes, and a short one. One
 * page of the first was written through the mount, so it is private.
 */
#ifndef FOLDFS_TEST_AUDIT_FIXTURE_H
#define FOLDFS_TEST_AUDIT_FIXTURE_H

#include "fixture.h"

#include "audit/audit_internal.h"
#include "frame_queue.h"
#include "page_map_memory.h"
#include "poke.h"

#define SHARED  16u
#define OWN     8u
#define ZEROES  15u
#define PAGES   (SHARED + OWN + ZEROES + 1)
#define TAIL    100u
#define BYTES   ((PAGES - 1) * FOLD_PAGE_SIZE + TAIL)
#define WRITTEN 20u /* the private page */
#define FILES   2u

struct mount {
	struct fixture fixture;
	struct window *window;
	struct window_file *cached;
	struct subject files[FILES];
	struct audit_subject subject;
	struct audit_inodes inodes;
	struct audit_report report;
	unsigned until_cancelled; /* questions; UINT_MAX: never */
};

static inline int open_source(void *context, dev_t device, ino_t inode)
{
	struct mount *mount = context;
	struct stat st;

	for (unsigned i = 0; i < FILES; i++)
		if (!fstat(mount->files[i].fd, &st) && st.st_dev == device && st.st_ino == inode)
			return reopen_file(mount->files[i].fd, O_RDONLY);
	return -ENOENT;
}

static inline void count_inodes(void *context, struct audit_inodes *ret_inodes)
{
	*ret_inodes = ((struct mount *)context)->inodes;
}

static inline bool is_cancelled(void *context)
{
	struct mount *mount = context;

	if (mount->until_cancelled != UINT32_MAX && mount->until_cancelled)
		mount->until_cancelled--;
	return !mount->until_cancelled;
}

static inline errint_t drop_nothing(void *context, uint64_t node, off_t offset, off_t length)
{
	(void)context;
	(void)node;
	(void)offset;
	(void)length;
	return 0;
}

static inline void fill_file(int fd, unsigned index)
{
	struct test_page page;

	for (unsigned i = 0; i < SHARED + OWN; i++) {
		page_make(&page, i, i < SHARED ? 0 : index + 1);
		write_whole(fd, &page, sizeof(page), (off_t)(i * FOLD_PAGE_SIZE));
	}
	page_make(&page, PAGES, index);
	write_whole(fd, &page, TAIL, (off_t)((PAGES - 1) * FOLD_PAGE_SIZE));
}

static inline void mount_open(struct mount *mount, uint64_t pool_bytes)
{
	struct fixture *fixture = &mount->fixture;
	struct test_page page;
	uint8_t *buffer = malloc(BYTES);

	expect(buffer);
	memset(mount, 0, sizeof(*mount));
	fixture_open(fixture, pool_bytes, true);
	for (unsigned i = 0; i < FILES; i++) {
		int fd = temp_file();

		fill_file(fd, i);
		subject_attach(fixture, &mount->files[i], fd, O_RDWR);
		expect(read_all(fixture, &mount->files[i], buffer, BYTES) == (ssize_t)BYTES);
	}
	page_make(&page, WRITTEN, 99);
	expect(cow_break_write(&fixture->cow, mount->files[0].file, mount->files[0].source, &page,
			       sizeof(page), WRITTEN * FOLD_PAGE_SIZE, NULL) == sizeof(page));
	expect(!window_new(16 * MIB, drop_nothing, NULL, &mount->window));
	expect(!window_start(mount->window));
	expect(!window_file_new(mount->window, 1, 0, &mount->cached));
	window_note(mount->cached, 3, 100);
	mount->inodes = (struct audit_inodes){5, 5, 4, 4, 0, 9, 9};
	mount->until_cancelled = UINT32_MAX;
	mount->subject = (struct audit_subject){
		.store = fixture->pool.store,
		.memory = fixture->memory,
		.files = fixture->files,
		.filler = &fixture->filler,
		.window = mount->window,
		.source_fd = -1,
		.open_source = open_source,
		.count_inodes = count_inodes,
		.is_cancelled = is_cancelled,
		.context = mount,
	};
	free(buffer);
}

static inline void mount_close(struct mount *mount)
{
	window_file_forget(mount->cached);
	window_free(mount->window);
	for (unsigned i = 0; i < FILES; i++)
		subject_close(&mount->files[i]);
	fixture_close(&mount->fixture);
}

/* Differences of CHECK alone, or of all with AUDIT_COUNT. */
static inline uint64_t audit(struct mount *mount, enum audit_check check)
{
	expect(!audit_run(&mount->subject, false, &mount->report));
	for (unsigned i = 0; i < mount->report.findings; i++)
		fprintf(stderr, "found: %s\n", mount->report.texts[i]);
	return check == AUDIT_COUNT ? audit_differences(&mount->report)
				    : mount->report.lines[check].different;
}

static inline void expect_found(struct mount *mount, enum audit_check check, const char *word)
{
	bool told = false;

	assert_true(audit(mount, check) > 0);
	for (unsigned i = 0; i < mount->report.findings; i++)
		told |= strstr(mount->report.texts[i], word) != NULL;
	assert_true(told);
}

/* Found as CHECK, and as nothing else. */
static inline void expect_only(struct mount *mount, enum audit_check check, const char *word)
{
	expect_found(mount, check, word);
	assert_int_equal(mount->report.lines[check].different, audit_differences(&mount->report));
}

static inline void expect_order(struct mount *mount)
{
	assert_int_equal(audit(mount, AUDIT_COUNT), 0);
	for (unsigned check = 0; check < AUDIT_COUNT; check++)
		assert_int_equal(mount->report.lines[check].unsteady, 0);
}

/* The frame of PAGE of a file. */
static inline uint32_t frame_of(struct mount *mount, unsigned file, uint64_t page)
{
	struct page_walk walk = {.next = page, .end = page + 1};
	struct page_stretch stretch;

	expect(page_map_walk(file_map(mount->files[file].file), &walk, 1, &stretch) == 1);
	expect(stretch.kind != STRETCH_ZERO);
	return stretch.ref.frame;
}

static inline uint8_t *bytes_of(struct mount *mount, unsigned file, uint64_t page)
{
	return page_store_bytes(mount->fixture.pool.store, frame_of(mount, file, page));
}

/*
 * Damage BYTES, a page of the pool, at AT so that its digest is another: with 8 bits of it kept,
 * one change in 256 does not show. Returns the byte that was there.
 */
static inline uint8_t spoil(struct mount *mount, uint8_t *bytes, size_t at)
{
	const struct page_store *store = mount->fixture.pool.store;
	struct digest was;
	struct digest is;
	uint8_t old = bytes[at];

	page_store_digest(store, bytes, &was);
	do {
		bytes[at]++;
		expect(bytes[at] != old);
		page_store_digest(store, bytes, &is);
	} while (is.low == was.low && is.high == was.high);
	return old;
}

#define WITH_MOUNT                                                                                 \
	struct mount *mount = malloc(sizeof(*mount));                                              \
	struct page_store *store;                                                                  \
	(void)state;                                                                               \
	expect(mount);                                                                             \
	mount_open(mount, 4 * MIB);                                                                \
	store = mount->fixture.pool.store;                                                         \
	(void)store
#define CLOSE_MOUNT                                                                                \
	expect_order(mount);                                                                       \
	mount_close(mount);                                                                        \
	free(mount)

#endif
