/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_audit.c - the audit finds each kind of difference, and calls nothing a difference that is
 * only under way
 *
 * Each test damages one thing and looks where the audit finds it; mended again, all is in order: so
 * it was that and nothing else.
 */
#include "audit_fixture.h"

#include "foldfs/content.h"
#include "foldfs/kin_file.h"

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
	assert_int_equal(lines[AUDIT_WINDOW].checked, 5);
	assert_int_equal(lines[AUDIT_INODES].checked, 4);
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
	uint8_t was;

	WITH_MOUNT;
	/* A frame that two files share: both slots are wrong, and so is its digest. */
	bytes = bytes_of(mount, 0, 3);
	was = spoil(mount, bytes, 4000);
	expect_found(mount, AUDIT_SLOTS, "page 3 ");
	assert_int_equal(mount->report.lines[AUDIT_SLOTS].different, FILES);
	assert_int_equal(mount->report.lines[AUDIT_DIGESTS].different, 1);
	bytes[4000] = was;
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
	expect(!file_change_begin(subject->file, subject->fd, NULL));
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
	page_map_break_zero(file_map(subject->file), 7, NULL);
	/* A long stretch behind the end, which is a hole for the source to tell. */
	for (uint64_t page = 1000; page < 1200; page++)
		page_map_break_zero(file_map(subject->file), page, NULL);
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
	expect_only(mount, AUDIT_SIZES, "its size is not");
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

/* ---- families ---- */

/* What a scan would have found: both files have the pages that they share from one family. What the
 * second one reads is told to it, and is no more in a slot of the first. */
static struct family_table *join(struct mount *mount)
{
	const struct catalogue_run run = {.first = 0, .pages = SHARED};
	struct fixture *fixture = &mount->fixture;
	struct family_table *families;
	struct source_stamp stamp;
	uint8_t *buffer = malloc(BYTES);
	struct kin *kin;
	struct stat st;

	expect(buffer && !family_table_new(fixture->pool.store, &families));
	file_table_use_families(fixture->files, families);
	mount->subject.families = families;
	for (unsigned i = 0; i < FILES; i++) {
		struct subject *subject = &mount->files[i];

		expect(!fstat(subject->fd, &st));
		source_stamp_of(&st, &stamp);
		kin = kin_new(families, &stamp, WRITERS_TRUSTED, 7, &run, 1);
		expect(kin);
		file_set_kin(subject->file, kin, subject->fd);
		fold_rcu_read_lock();
		page_map_forget(file_map(subject->file), 0, SHARED);
		fold_rcu_read_unlock();
	}
	expect(read_all(fixture, &mount->files[1], buffer, BYTES) == (ssize_t)BYTES);
	free(buffer);
	return families;
}

/* As the mount's close is, once the files' kins have gone. */
static void part(struct mount *mount, struct family_table *families)
{
	for (unsigned i = 0; i < FILES; i++)
		file_forget(mount->files[i].file);
	fold_rcu_barrier();
	fold_rcu_barrier();
	mount->subject.families = NULL;
	file_table_use_families(mount->fixture.files, NULL);
	assert_int_equal(family_table_bytes(families), 0);
	family_table_free(families);
}

static void pages_that_would_be_adopted(void **state)
{
	struct family_table *families;
	const struct audit_line *line;
	struct frame_ref ref;
	struct kin *kin;

	WITH_MOUNT;
	line = &mount->report.lines[AUDIT_FAMILIES];
	families = join(mount);
	expect_order(mount);
	/* The second file has them in its slots. */
	assert_int_equal(line->checked, SHARED);
	assert_int_equal(mount->report.lines[AUDIT_MAPS].checked, 6);
	/* A change that did not cut the kin. */
	change_source_only(mount, 5, -1);
	expect_only(mount, AUDIT_FAMILIES, "page 5 ");
	assert_int_equal(line->different, 1);
	file_cut_kin(mount->files[0].file, 5, 5);
	expect_order(mount);
	assert_int_equal(line->checked, SHARED - 1);
	/* A frame that holds another page of the same file. */
	kin = kin_of(mount->files[1].file);
	fold_rcu_read_lock();
	expect(family_recall(kin_told(kin), 3, &ref));
	family_remember(kin_told(kin), 4, ref);
	fold_rcu_read_unlock();
	kin_put(kin);
	expect_only(mount, AUDIT_FAMILIES, "page 4 ");
	assert_int_equal(line->different, FILES);
	part(mount, families);
	CLOSE_MOUNT;
}

static void families_that_are_miscounted(void **state)
{
	struct family_table *families;
	struct family_claim claim;
	struct family *family;

	WITH_MOUNT;
	families = join(mount);
	family_table_count(families, 8);
	expect_only(mount, AUDIT_MAPS, "bytes of families");
	family_table_count(families, -8);
	family = family_get(families, 7, WRITERS_TRUSTED, 0);
	expect_only(mount, AUDIT_MAPS, "references to families: 2 were counted, but 3 ");
	assert_true(family_claim(family, 3, 9, &claim));
	expect_found(mount, AUDIT_MAPS, "claims without a reader: 1 ");
	/* A read that is at work may have both. */
	atomic_store(&mount->fixture.filler.at_work, 1);
	assert_int_equal(audit(mount, AUDIT_COUNT), 0);
	assert_true(mount->report.lines[AUDIT_MAPS].unsteady > 0);
	atomic_store(&mount->fixture.filler.at_work, 0);
	family_unclaim(&claim);
	family_put(family);
	expect_order(mount);
	part(mount, families);
	CLOSE_MOUNT;
}

/* ---- files that are served for others ---- */

/* A pair that the mount tells of. */
struct told_pair {
	struct audit_pair pair;
	struct digest content;
};

static struct told_pair told;

static errint_t visit_told(void *context, audit_pair_fn *visit, void *visitor)
{
	(void)context;
	return visit(visitor, &told.pair);
}

static int make_served(const char *text)
{
	int fd = temp_file();

	write_whole(fd, text, strlen(text), 0);
	return fd;
}

static void take_source_stamp(void)
{
	struct stat st;

	expect(!fstat(told.pair.source, &st));
	source_stamp_of(&st, &told.pair.source_stamp);
}

static void what_is_served_for_another(void **state)
{
	static const uint8_t secret[CATALOGUE_SECRET_BYTES] = {1, 2, 3};
	const struct audit_line *line;

	WITH_MOUNT;
	told = (struct told_pair){.pair = {.check = AUDIT_BACKING,
					   .served = make_served("what both hold"),
					   .source = make_served("what both hold"),
					   .secret = secret}};
	take_source_stamp();
	expect(!content_compare(told.pair.served, -1, 14, secret, NULL, NULL, &told.content));
	told.pair.content = &told.content;
	mount->subject.visit_pairs = visit_told;
	line = &mount->report.lines[AUDIT_BACKING];
	expect_order(mount);
	assert_int_equal(line->checked, 1);
	/* Other bytes in the one that is served, or in the other; longer; another digest. */
	write_whole(told.pair.served, "W", 1, 0);
	expect_only(mount, AUDIT_BACKING, "its content differs");
	write_whole(told.pair.served, "w", 1, 0);
	write_whole(told.pair.source, "W", 1, 0);
	take_source_stamp();
	expect_only(mount, AUDIT_BACKING, "its content differs");
	write_whole(told.pair.source, "what both hold, and more", 24, 0);
	take_source_stamp();
	expect_only(mount, AUDIT_BACKING, "its content differs");
	expect(!ftruncate(told.pair.source, 14));
	take_source_stamp();
	expect_order(mount);
	told.content.high++;
	expect_only(mount, AUDIT_BACKING, "its content differs");
	told.content.high--;
	/* A source that has changed since is not what this is true of. */
	write_whole(told.pair.source, "W", 1, 0);
	told.pair.source_stamp.ctime.tv_nsec ^= 1;
	expect_order(mount);
	assert_int_equal(line->checked, 0);
	close(told.pair.source);
	close(told.pair.served);
	CLOSE_MOUNT;
}

/* ---- frames ---- */

static void users_that_are_not_slots(void **state)
{
	uint32_t frame;

	WITH_MOUNT;
	frame = frame_of(mount, 0, 4);
	poke_users(store, frame, 1);
	expect_found(mount, AUDIT_USERS, "3 users, but 2 slots");
	poke_users(store, frame, -2);
	expect_found(mount, AUDIT_USERS, "1 users, but 2 slots");
	poke_users(store, frame, 1);
	expect_order(mount);
	/* Two slots with one private frame: what a double use of a frame looks like. */
	frame = frame_of(mount, 0, WRITTEN);
	fold_rcu_read_lock();
	page_map_break(file_map(mount->files[0].file), 300,
		       (struct frame_ref){.frame = frame, .generation = 0}, NULL);
	fold_rcu_read_unlock();
	expect_found(mount, AUDIT_USERS, "1 users, but 2 slots");
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
	expect_only(mount, AUDIT_POOL, "but by no read: 2 ");
	/* A read that is at work may hold them. */
	atomic_store(&mount->fixture.filler.at_work, 1);
	assert_int_equal(audit(mount, AUDIT_COUNT), 0);
	assert_int_equal(mount->report.lines[AUDIT_POOL].unsteady, 1);
	expect(!audit_run(&mount->subject, true, &mount->report));
	assert_int_equal(mount->report.lines[AUDIT_POOL].different, 1);
	atomic_store(&mount->fixture.filler.at_work, 0);
	pool_give_back(&mount->fixture.pool, frames, 2);
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
			       &ink, sizeof(ink), WRITTEN * FOLD_PAGE_SIZE, NULL) == sizeof(ink));
	twin = frame_of(mount, 0, WRITTEN);
	expect_order(mount);
	poke_unprivate(store, twin);
	expect_only(mount, AUDIT_INDEX, "another frame has the same bytes");
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
	expect_only(mount, AUDIT_LISTS, "live, but in no queue");
	poke_queue(store, frame);
	expect_order(mount);
	poke_where(store, frame, FRAME_LIMBO);
	expect_found(mount, AUDIT_LISTS, "not live, but has 2 users");
	poke_where(store, frame, FRAME_SMALL);
	expect_order(mount);
	/* Two free ones, of which the list then has lost the second. */
	assert_int_equal(page_store_take(store, frames, 2), 2);
	pool_give_back(&mount->fixture.pool, frames, 2);
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
	expect_found(mount, AUDIT_LISTS, "not live, but in a queue");
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
	expect_found(mount, AUDIT_WINDOW, "beyond its budget");
	poke_window_pages(mount->window, -5000);
	mount->inodes.live++;
	expect_only(mount, AUDIT_INODES, "inodes: 6 ");
	mount->inodes.live--;
	mount->inodes.hashed_said--;
	expect_only(mount, AUDIT_INODES, "by number");
	mount->inodes.hashed_said++;
	mount->inodes.astray++;
	expect_only(mount, AUDIT_INODES, "in a wrong place");
	mount->inodes.astray--;
	mount->inodes.slab_said++;
	expect_only(mount, AUDIT_INODES, "bytes of inodes");
	mount->inodes.slab_said--;
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
	uint8_t was[SHARED + OWN][FILES];

	WITH_MOUNT;
	for (unsigned page = 0; page < SHARED + OWN; page++)
		for (unsigned file = 0; file < FILES; file++)
			if (page >= SHARED || !file)
				was[page][file] = spoil(mount, bytes_of(mount, file, page), 9);
	assert_int_equal(audit(mount, AUDIT_DIGESTS), SHARED + FILES * OWN - 1);
	assert_int_equal(mount->report.findings, AUDIT_FINDINGS);
	for (unsigned page = 0; page < SHARED + OWN; page++)
		for (unsigned file = 0; file < FILES; file++)
			if (page >= SHARED || !file)
				bytes_of(mount, file, page)[9] = was[page][file];
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
	struct audit_subject subject = {.leases = NULL};

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
	subject.source_fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
	qsort(keys, NAMED, sizeof(keys[0]), audit_key_order);
	expect(!audit_tree_visit(&subject, keys, NAMED, note_found, &found));
	for (unsigned i = 0; i < NAMED; i++)
		assert_int_equal(found.count[i], 1);
	found.until = 2;
	assert_int_equal(audit_tree_visit(&subject, keys, NAMED, note_found, &found), -EINTR);
	/* Of another device, and of no number that is there. */
	found.until = 1;
	expect(!audit_tree_visit(&subject, &keys[3], 1, note_found, &found));
	close(subject.source_fd);
	snprintf(path, sizeof(path), "rm -r %s", top);
	expect(!system(path));
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
		cmocka_unit_test(pages_that_would_be_adopted),
		cmocka_unit_test(families_that_are_miscounted),
		cmocka_unit_test(what_is_served_for_another),
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
