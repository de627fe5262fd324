/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_audit.c - the audit finds each kind of difference, and calls nothing a difference that is
 * only under way
 *
 * Two files of 40 pages: 16 that they share, 8 of their own, 15 of zeroes, and a short one. One
 * page of the first was written through the mount, so it is private. Each test damages one thing
 * and looks where the audit finds it; mended again, all is in order: so it was that and nothing
 * else.
 */
#include "fixture.h"

#include "foldfs/audit_internal.h"
#include "foldfs/frame_queue.h"
#include "foldfs/page_map_memory.h"
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

static int open_source(void *context, dev_t device, ino_t inode)
{
	struct mount *mount = context;
	struct stat st;

	for (unsigned i = 0; i < FILES; i++)
		if (!fstat(mount->files[i].fd, &st) && st.st_dev == device && st.st_ino == inode)
			return reopen_file(mount->files[i].fd, O_RDONLY);
	return -ENOENT;
}

static void count_inodes(void *context, struct audit_inodes *ret_inodes)
{
	*ret_inodes = ((struct mount *)context)->inodes;
}

static bool is_cancelled(void *context)
{
	struct mount *mount = context;

	if (mount->until_cancelled != UINT32_MAX && mount->until_cancelled)
		mount->until_cancelled--;
	return !mount->until_cancelled;
}

static errint_t drop_nothing(void *context, uint64_t node, off_t offset, off_t length)
{
	(void)context;
	(void)node;
	(void)offset;
	(void)length;
	return 0;
}

static void fill_file(int fd, unsigned index)
{
	struct test_page page;

	for (unsigned i = 0; i < SHARED + OWN; i++) {
		page_make(&page, i, i < SHARED ? 0 : index + 1);
		write_whole(fd, &page, sizeof(page), (off_t)(i * FOLD_PAGE_SIZE));
	}
	page_make(&page, PAGES, index);
	write_whole(fd, &page, TAIL, (off_t)((PAGES - 1) * FOLD_PAGE_SIZE));
}

static void mount_open(struct mount *mount, uint64_t pool_bytes)
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
			       sizeof(page), WRITTEN * FOLD_PAGE_SIZE) == sizeof(page));
	expect(!window_new(16 * MIB, drop_nothing, NULL, &mount->window));
	expect(!window_start(mount->window));
	expect(!window_file_new(mount->window, 1, 0, &mount->cached));
	window_note(mount->cached, 3, 100);
	mount->inodes = (struct audit_inodes){5, 5, 4, 4, 0};
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

static void mount_close(struct mount *mount)
{
	window_file_forget(mount->cached);
	window_free(mount->window);
	for (unsigned i = 0; i < FILES; i++)
		subject_close(&mount->files[i]);
	fixture_close(&mount->fixture);
}

/* Differences of CHECK alone, or of all with AUDIT_COUNT. */
static uint64_t audit(struct mount *mount, enum audit_check check)
{
	expect(!audit_run(&mount->subject, false, &mount->report));
	for (unsigned i = 0; i < mount->report.findings; i++)
		fprintf(stderr, "found: %s\n", mount->report.texts[i]);
	return check == AUDIT_COUNT ? audit_differences(&mount->report)
				    : mount->report.lines[check].different;
}

static void expect_found(struct mount *mount, enum audit_check check, const char *word)
{
	bool told = false;

	assert_true(audit(mount, check) > 0);
	for (unsigned i = 0; i < mount->report.findings; i++)
		told |= strstr(mount->report.texts[i], word) != NULL;
	assert_true(told);
}

/* Found as CHECK, and as nothing else. */
static void expect_only(struct mount *mount, enum audit_check check, const char *word)
{
	expect_found(mount, check, word);
	assert_int_equal(mount->report.lines[check].different, audit_differences(&mount->report));
}

static void expect_order(struct mount *mount)
{
	assert_int_equal(audit(mount, AUDIT_COUNT), 0);
	for (unsigned check = 0; check < AUDIT_COUNT; check++)
		assert_int_equal(mount->report.lines[check].unsteady, 0);
}

/* The frame of PAGE of a file. */
static uint32_t frame_of(struct mount *mount, unsigned file, uint64_t page)
{
	struct page_walk walk = {.next = page, .end = page + 1};
	struct page_stretch stretch;

	expect(page_map_walk(file_map(mount->files[file].file), &walk, 1, &stretch) == 1);
	expect(stretch.kind != STRETCH_ZERO);
	return stretch.ref.frame;
}

static uint8_t *bytes_of(struct mount *mount, unsigned file, uint64_t page)
{
	return page_store_bytes(mount->fixture.pool.store, frame_of(mount, file, page));
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

static void what_is_in_order_is_all_looked_at(void **state)
{
	const struct audit_line *lines;

	WITH_MOUNT;
	expect_order(mount);
	lines = mount->report.lines;
	assert_int_equal(lines[AUDIT_SLOTS].checked, FILES * (SHARED + OWN + 1));
	assert_int_equal(lines[AUDIT_ZEROES].checked, FILES * ZEROES);
	assert_int_equal(lines[AUDIT_SIZES].checked, FILES);
	assert_int_equal(lines[AUDIT_USERS].checked, SHARED + FILES * (OWN + 1));
	assert_int_equal(lines[AUDIT_DIGESTS].checked, SHARED + FILES * (OWN + 1) - 1);
	assert_int_equal(lines[AUDIT_INDEX].checked, lines[AUDIT_DIGESTS].checked);
	assert_true(lines[AUDIT_LISTS].checked >= lines[AUDIT_USERS].checked);
	assert_true(lines[AUDIT_POOL].checked >= 11);
	assert_int_equal(lines[AUDIT_MAPS].checked, 3);
	assert_int_equal(lines[AUDIT_WINDOW].checked, 4);
	assert_int_equal(lines[AUDIT_INODES].checked, 3);
	assert_int_equal(mount->report.files, FILES);
	assert_true(mount->report.memory_bytes >= MIB);
	expect(!audit_run(&mount->subject, true, &mount->report));
	assert_int_equal(audit_differences(&mount->report), 0);
	CLOSE_MOUNT;
}

/* ---- content ---- */

static void bytes_that_are_not_the_sources(void **state)
{
	uint8_t *bytes;

	WITH_MOUNT;
	/* A frame that two files share: both slots are wrong, and so is its digest. */
	bytes = bytes_of(mount, 0, 3);
	bytes[4000] ^= 1;
	expect_found(mount, AUDIT_SLOTS, "page 3 ");
	assert_int_equal(mount->report.lines[AUDIT_SLOTS].different, FILES);
	assert_int_equal(mount->report.lines[AUDIT_DIGESTS].different, 1);
	bytes[4000] ^= 1;
	expect_order(mount);
	/* A private one, which has no digest. */
	bytes = bytes_of(mount, 0, WRITTEN);
	bytes[0] ^= 1;
	expect_only(mount, AUDIT_SLOTS, "page 20 ");
	bytes[0] ^= 1;
	expect_order(mount);
	/* Behind the end of the file. */
	bytes = bytes_of(mount, 1, PAGES - 1);
	bytes[TAIL] = 1;
	expect_found(mount, AUDIT_SLOTS, "page 39 ");
	bytes[TAIL] = 0;
	CLOSE_MOUNT;
}

/* A change by this mount that forgets the slots. */
static void change_source_only(struct mount *mount, uint64_t page, off_t size)
{
	struct subject *subject = &mount->files[0];
	struct test_page ink;

	page_make(&ink, 777, 777);
	expect(!file_change_begin(subject->file, subject->fd));
	if (size < 0)
		write_whole(subject->fd, &ink, sizeof(ink), (off_t)(page * FOLD_PAGE_SIZE));
	else
		expect(!ftruncate(subject->fd, size));
	file_change_end(subject->file, subject->fd);
}

static void forget_page(struct mount *mount, uint64_t page, uint64_t count)
{
	fold_rcu_read_lock();
	page_map_forget(file_map(mount->files[0].file), page, count);
	fold_rcu_read_unlock();
}

static void changes_that_the_slots_missed(void **state)
{
	WITH_MOUNT;
	change_source_only(mount, 5, -1);
	expect_only(mount, AUDIT_SLOTS, "page 5 ");
	forget_page(mount, 5, 1);
	expect_order(mount);
	change_source_only(mount, SHARED + OWN + 2, -1);
	expect_only(mount, AUDIT_SLOTS, "page 26 ");
	forget_page(mount, SHARED + OWN + 2, 1);
	expect_order(mount);
	/* Truncated, in the middle of a page: that page's tail, and all behind it. */
	change_source_only(mount, 0, 10 * FOLD_PAGE_SIZE + 1);
	expect_only(mount, AUDIT_SLOTS, "page 10 ");
	forget_page(mount, 10, UINT64_MAX);
	CLOSE_MOUNT;
}

static void zeroes_that_are_none(void **state)
{
	struct subject *subject;

	WITH_MOUNT;
	subject = &mount->files[0];
	fold_rcu_read_lock();
	page_map_break_zero(file_map(subject->file), 7);
	/* A long stretch behind the end, which is a hole for the source to tell. */
	for (uint64_t page = 1000; page < 1200; page++)
		page_map_break_zero(file_map(subject->file), page);
	fold_rcu_read_unlock();
	expect_only(mount, AUDIT_SLOTS, "page 7 ");
	forget_page(mount, 7, 1);
	expect_order(mount);
	assert_int_equal(mount->report.lines[AUDIT_ZEROES].checked, FILES * ZEROES + 200);
	change_source_only(mount, 1150, -1);
	expect_only(mount, AUDIT_ZEROES, "page 1150 ");
	forget_page(mount, 1150, 1);
	CLOSE_MOUNT;
}

static void sizes_that_are_wrong(void **state)
{
	WITH_MOUNT;
	poke_size(mount->files[1].file, 1);
	expect_only(mount, AUDIT_SIZES, "is not its size");
	poke_size(mount->files[1].file, -1);
	CLOSE_MOUNT;
}

static void changes_behind_the_mount_are_no_difference(void **state)
{
	struct test_page ink;
	bool unchanged;

	WITH_MOUNT;
	page_make(&ink, 5, 5);
	write_whole(mount->files[0].fd, &ink, sizeof(ink), 0);
	touch_file(mount->files[0].fd);
	expect_order(mount);
	assert_int_equal(mount->report.files_changed, 1);
	/* It looked and told, and changed nothing. */
	assert_int_equal(what_is_known(&mount->files[0], 0, NULL), KNOWS_FRAME);
	expect(!file_validate(mount->files[0].file, mount->files[0].fd, &unchanged));
	assert_false(unchanged);
	expect_order(mount);
	assert_int_equal(mount->report.files_changed, 0);
	CLOSE_MOUNT;
}

static ssize_t fail_reads(void *context, const struct io_call *call)
{
	(void)context;
	return call->write ? IO_AS_ASKED : -EIO;
}

static void errors_of_the_source_are_no_difference(void **state)
{
	WITH_MOUNT;
	faults_hook_io(fail_reads, NULL);
	expect_order(mount);
	faults_hook_io(NULL, NULL);
	assert_int_equal(mount->report.files_unreadable, FILES);
	assert_int_equal(mount->report.lines[AUDIT_SLOTS].checked, 0);
	assert_int_equal(mount->report.lines[AUDIT_DIGESTS].checked,
			 SHARED + FILES * (OWN + 1) - 1);
	CLOSE_MOUNT;
}

/* ---- frames ---- */

static void users_that_are_not_slots(void **state)
{
	uint32_t frame;

	WITH_MOUNT;
	frame = frame_of(mount, 0, 4);
	poke_users(store, frame, 1);
	expect_found(mount, AUDIT_USERS, "3 users, 2 slots");
	poke_users(store, frame, -2);
	expect_found(mount, AUDIT_USERS, "1 users, 2 slots");
	poke_users(store, frame, 1);
	expect_order(mount);
	/* Two slots with one private frame: what a double use of a frame looks like. */
	frame = frame_of(mount, 0, WRITTEN);
	fold_rcu_read_lock();
	page_map_break(file_map(mount->files[0].file), 300,
		       (struct frame_ref){.frame = frame, .generation = 0});
	fold_rcu_read_unlock();
	expect_found(mount, AUDIT_USERS, "1 users, 2 slots");
	/* So that the slot which goes takes nobody else's user with it. */
	poke_users(store, frame, 1);
	poke_gauges(store, 0, 0, 1, 1);
	forget_page(mount, 300, 1);
	CLOSE_MOUNT;
}

static void frames_that_are_lost(void **state)
{
	uint32_t frames[2];

	WITH_MOUNT;
	assert_int_equal(page_store_take(store, frames, 2), 2);
	expect_only(mount, AUDIT_POOL, "taken by nobody: 2 ");
	/* A read that is at work may hold them. */
	atomic_store(&mount->fixture.filler.at_work, 1);
	assert_int_equal(audit(mount, AUDIT_COUNT), 0);
	assert_int_equal(mount->report.lines[AUDIT_POOL].unsteady, 1);
	expect(!audit_run(&mount->subject, true, &mount->report));
	assert_int_equal(mount->report.lines[AUDIT_POOL].different, 1);
	atomic_store(&mount->fixture.filler.at_work, 0);
	page_store_give_back(store, frames, 2);
	CLOSE_MOUNT;
}

static void digests_and_the_index(void **state)
{
	struct test_page ink;
	uint32_t frame;
	uint32_t twin;

	WITH_MOUNT;
	frame = frame_of(mount, 0, 6);
	poke_unindex(store, frame);
	expect_found(mount, AUDIT_INDEX, "does not find it");
	assert_int_equal(mount->report.lines[AUDIT_POOL].different, 1); /* its entries */
	poke_index(store, frame);
	expect_order(mount);
	/* A private page with bytes that the pool has: no difference, until it can be shared. */
	page_make(&ink, 6, 0);
	expect(cow_break_write(&mount->fixture.cow, mount->files[0].file, mount->files[0].source,
			       &ink, sizeof(ink), WRITTEN * FOLD_PAGE_SIZE) == sizeof(ink));
	twin = frame_of(mount, 0, WRITTEN);
	expect_order(mount);
	poke_unprivate(store, twin);
	expect_only(mount, AUDIT_INDEX, "another has the same bytes");
	poke_private(store, twin);
	CLOSE_MOUNT;
}

static void lists_that_disagree(void **state)
{
	uint32_t frames[2];
	uint32_t frame;
	uint32_t next;

	WITH_MOUNT;
	frame = frame_of(mount, 0, 2);
	next = poke_next(store, frame, 5 + frame);
	expect_found(mount, AUDIT_LISTS, "neighbours");
	poke_next(store, frame, UINT32_MAX - 1); /* no frame at all */
	expect_found(mount, AUDIT_LISTS, "neighbours");
	poke_next(store, frame, next);
	expect_order(mount);
	poke_unqueue(store, frame);
	expect_only(mount, AUDIT_LISTS, "live, and in no queue");
	poke_queue(store, frame);
	expect_order(mount);
	poke_where(store, frame, FRAME_LIMBO);
	expect_found(mount, AUDIT_LISTS, "not live, and has 2 users");
	poke_where(store, frame, FRAME_SMALL);
	expect_order(mount);
	/* Two free ones, of which the list then has lost the second. */
	assert_int_equal(page_store_take(store, frames, 2), 2);
	page_store_give_back(store, frames, 2);
	next = poke_next(store, frames[0], FRAME_NONE);
	expect_only(mount, AUDIT_POOL, "along the free list");
	poke_next(store, frames[0], next);
	expect_order(mount);
	next = poke_free_first(store, frames[1]);
	expect_only(mount, AUDIT_POOL, "along the free list");
	poke_free_first(store, next);
	poke_free_count(store, 1);
	expect_found(mount, AUDIT_POOL, "free frames");
	poke_free_count(store, -1);
	expect_order(mount);
	/* Freed twice: a ring. */
	next = poke_next(store, frames[0], frames[1]);
	poke_free_again(store, frames[0]);
	expect_found(mount, AUDIT_POOL, "free frames");
	poke_free_count(store, -1);
	poke_next(store, frames[0], next);
	CLOSE_MOUNT;
}

static void a_frame_that_died_in_its_queue(void **state)
{
	uint32_t frame;

	WITH_MOUNT;
	frame = frame_of(mount, 0, 2);
	poke_users(store, frame, -2);
	expect_found(mount, AUDIT_LISTS, "not live, and in a queue");
	poke_users(store, frame, 2);
	CLOSE_MOUNT;
}

/* ---- sums ---- */

static void gauges_that_are_wrong(void **state)
{
	static const char *const names[] = {"frames_used", "pages_volatile", "pages_shared",
					    "pages_sharing"};

	WITH_MOUNT;
	for (unsigned i = 0; i < 4; i++) {
		poke_gauges(store, i == 0, i == 1, i == 2, i == 3);
		expect_only(mount, AUDIT_POOL, names[i]);
		poke_gauges(store, -(i == 0), -(i == 1), -(i == 2), -(i == 3));
	}
	atomic_fetch_add(&mount->fixture.memory->bytes, 8);
	expect_only(mount, AUDIT_MAPS, "bytes of maps");
	atomic_fetch_sub(&mount->fixture.memory->bytes, 8);
	atomic_fetch_add(&mount->fixture.memory->zero_pages, 1);
	expect_only(mount, AUDIT_MAPS, "zero pages");
	atomic_fetch_sub(&mount->fixture.memory->zero_pages, 1);
	poke_file_bytes(mount->fixture.files, 1);
	expect_only(mount, AUDIT_MAPS, "bytes of files");
	poke_file_bytes(mount->fixture.files, -1);
	CLOSE_MOUNT;
}

static void the_window_and_the_inodes(void **state)
{
	WITH_MOUNT;
	poke_window_pages(mount->window, 1);
	expect_only(mount, AUDIT_WINDOW, "noted");
	poke_window_pages(mount->window, -1);
	poke_window_closing(mount->window, 3);
	expect_only(mount, AUDIT_WINDOW, "on their way out");
	/* What the trimmer has in hand is in no list. */
	poke_trimming(mount->window, true);
	assert_int_equal(audit(mount, AUDIT_COUNT), 0);
	assert_true(mount->report.lines[AUDIT_WINDOW].unsteady > 0);
	poke_trimming(mount->window, false);
	poke_window_closing(mount->window, -3);
	/* Past the budget, and the trimmer does not see it. */
	poke_window_pages(mount->window, 5000);
	expect_found(mount, AUDIT_WINDOW, "past its budget");
	poke_window_pages(mount->window, -5000);
	mount->inodes.live++;
	expect_only(mount, AUDIT_INODES, "inodes: 6 ");
	mount->inodes.live--;
	mount->inodes.hashed_said--;
	expect_only(mount, AUDIT_INODES, "by number");
	mount->inodes.hashed_said++;
	mount->inodes.astray++;
	expect_only(mount, AUDIT_INODES, "astray");
	mount->inodes.astray--;
	CLOSE_MOUNT;
}

/* ---- the course of it ---- */

static void it_ends_when_told_to(void **state)
{
	unsigned most = UINT32_MAX - 1;
	unsigned i;

	WITH_MOUNT;
	mount->until_cancelled = most;
	expect(!audit_run(&mount->subject, false, &mount->report));
	most -= mount->until_cancelled;
	for (i = 1; i <= most; i++) {
		mount->until_cancelled = i;
		assert_int_equal(audit_run(&mount->subject, false, &mount->report), -ECANCELED);
	}
	mount->until_cancelled = UINT32_MAX;
	CLOSE_MOUNT;
}

static void no_memory_is_an_error(void **state)
{
	errint_t error = -ENOMEM;

	WITH_MOUNT;
	for (long after = 0; error; after++) {
		faults_fail_allocations(after);
		error = audit_run(&mount->subject, false, &mount->report);
		faults_fail_allocations(-1);
		assert_true(error == 0 || error == -ENOMEM);
	}
	CLOSE_MOUNT;
}

/* More differences than there are texts for. */
static void many_differences_are_all_counted(void **state)
{
	WITH_MOUNT;
	for (unsigned page = 0; page < SHARED + OWN; page++)
		for (unsigned file = 0; file < FILES; file++)
			if (page >= SHARED || !file)
				bytes_of(mount, file, page)[9] ^= 8;
	assert_int_equal(audit(mount, AUDIT_DIGESTS), SHARED + FILES * OWN - 1);
	assert_int_equal(mount->report.findings, AUDIT_FINDINGS);
	for (unsigned page = 0; page < SHARED + OWN; page++)
		for (unsigned file = 0; file < FILES; file++)
			if (page >= SHARED || !file)
				bytes_of(mount, file, page)[9] ^= 8;
	CLOSE_MOUNT;
}

/* ---- sources that are searched for ---- */

#define NAMED 3u

struct found {
	unsigned count[NAMED];
	unsigned until; /* files after which it has enough */
};

static errint_t note_found(void *context, size_t index, int fd)
{
	struct found *found = context;

	close(fd);
	found->count[index]++;
	return --found->until ? 0 : -EINTR;
}

static int make_file(const char *directory, const char *name, struct file_key *ret_key)
{
	char path[256];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	expect(fd >= 0 && !fstat(fd, &st));
	*ret_key = (struct file_key){.device = st.st_dev, .inode = st.st_ino};
	return fd;
}

static void sources_are_found_by_their_names(void **state)
{
	char top[] = "./foldfs-test-XXXXXX";
	char path[256];
	struct file_key keys[NAMED + 1];
	struct found found = {.until = 100};
	int root;

	(void)state;
	expect(mkdtemp(top));
	snprintf(path, sizeof(path), "%s/down", top);
	expect(!mkdir(path, 0700));
	close(make_file(top, "first", &keys[0]));
	close(make_file(path, "second", &keys[1]));
	close(make_file(path, "third", &keys[2]));
	keys[3] = (struct file_key){.device = keys[0].device + 1, .inode = keys[0].inode};
	snprintf(path, sizeof(path), "%s/again", top);
	expect(!symlink("down", path));
	snprintf(path, sizeof(path), "%s/down/first", top);
	{
		char old[256];

		snprintf(old, sizeof(old), "%s/first", top);
		expect(!link(old, path));
	}
	root = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
	qsort(keys, NAMED, sizeof(keys[0]), audit_key_order);
	expect(!audit_tree_visit(root, keys, NAMED, note_found, &found));
	for (unsigned i = 0; i < NAMED; i++)
		assert_int_equal(found.count[i], 1);
	found.until = 2;
	assert_int_equal(audit_tree_visit(root, keys, NAMED, note_found, &found), -EINTR);
	/* Of another device, and of no number that is there. */
	found.until = 1;
	expect(!audit_tree_visit(root, &keys[3], 1, note_found, &found));
	close(root);
	snprintf(path, sizeof(path), "rm -r %s", top);
	expect(!system(path));
}

/* ---- beside traffic ---- */

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
			       sizeof(ink), (off_t)(first * FOLD_PAGE_SIZE)) == sizeof(ink));
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
		for (unsigned round = 0; round < ROUNDS(40); round++) {
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
	assert_true(storm->checked > 0);
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
		cmocka_unit_test(what_is_in_order_is_all_looked_at),
		cmocka_unit_test(bytes_that_are_not_the_sources),
		cmocka_unit_test(changes_that_the_slots_missed),
		cmocka_unit_test(zeroes_that_are_none),
		cmocka_unit_test(sizes_that_are_wrong),
		cmocka_unit_test(changes_behind_the_mount_are_no_difference),
		cmocka_unit_test(errors_of_the_source_are_no_difference),
		cmocka_unit_test(users_that_are_not_slots),
		cmocka_unit_test(frames_that_are_lost),
		cmocka_unit_test(digests_and_the_index),
		cmocka_unit_test(lists_that_disagree),
		cmocka_unit_test(a_frame_that_died_in_its_queue),
		cmocka_unit_test(gauges_that_are_wrong),
		cmocka_unit_test(the_window_and_the_inodes),
		cmocka_unit_test(it_ends_when_told_to),
		cmocka_unit_test(no_memory_is_an_error),
		cmocka_unit_test(many_differences_are_all_counted),
		cmocka_unit_test(sources_are_found_by_their_names),
		cmocka_unit_test(what_is_under_way_is_no_difference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
