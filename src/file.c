/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.c - what this mount knows of source files, and for how long it is true
 *
 * The table is a cds_lfht from (device, inode), changed under table->lock. Look-ups for a reference
 * take the lock too: they come with an open, never with a read. The files stand in two lists, most
 * recently used last: those that are open, and those that are idle. So a trim that wants an idle
 * file has it at once, however many are open. A file leaves the table when it has no reference and
 * either its memory is wanted or its source is gone for good. While it is in the table, the table
 * itself needs no reference.
 *
 * Truth. file->stamp is the state of the source for which the map is true. While this mount changes
 * the source (changers > 0), the stamp moves with every change and says nothing. After the last of
 * overlapping changes the stamp is taken anew. A foreign change between file_change_begin() of the
 * first and file_change_end() of the last goes unnoticed: without a notice from the file system it
 * cannot be told from our own.
 *
 * A ctime that is no older than the coarse clock's tick may be shared by a later change. Where the
 * kernel has multigrain timestamps (Linux 6.13; a stamp that was looked at is never given again)
 * this cannot happen. Elsewhere such a stamp is not trusted: `racy`. A clock that was set back
 * makes every stamp look young, which costs no more than memory. A clock that runs ahead of a file
 * server's makes the server's stamps look old: there a change within one tick of the stamp goes
 * unnoticed.
 *
 * A change that is reported (file_distrust) needs no stamp. A report also closes the gap above. If
 * reports may have been lost (file_recheck), the stamp has to do, except for the changes that it
 * does not show. These are a change that was not over when the stamp was taken, and a change beside
 * our own, which the stamp taken at their end includes. Both were made shortly before the stamp was
 * taken. So a stamp is `young` if its ctime was young when it was taken. A young stamp is relied
 * upon only if it is known that no report from some time afterwards was lost.
 *
 * Truth also depends on the file's owner: what is known of a file, or was adopted for it, may rest
 * on the word of files that its owner could have written to (writers.h). So nothing of it outlives
 * a change of owner or mode that lets others write, also one that this mount makes.
 *
 * Lock order: file->lock, then table->lock, then the map's. The range lock comes before file->lock.
 */
#include "file_internal.h"

#include "foldfs/clock.h"
#include "foldfs/object_hash.h"
#include "foldfs/rcu.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <time.h>

/* Pages that file_sharing() looks at. If a file shares a tenth of its pages, 89 of 100 samples of
 * this size have more than a twentieth of shared pages (binomial distribution). */
#define SHARE_SAMPLES 64u

errint_t file_table_new(struct page_map_memory *memory, uint64_t budget_bytes,
			struct file_table **ret_table)
{
	struct file_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	table->memory = memory;
	table->budget = budget_bytes;

	CDS_INIT_LIST_HEAD(&table->idle);
	CDS_INIT_LIST_HEAD(&table->open);
	CDS_INIT_LIST_HEAD(&table->kins);
	pthread_mutex_init(&table->lock, NULL);
	pthread_mutex_init(&table->trim_lock, NULL);
	fold_rcu_register();
	table->files = cds_lfht_new_flavor(64, 64, 0, CDS_LFHT_AUTO_RESIZE | CDS_LFHT_ACCOUNTING,
					   &urcu_memb_flavor, NULL);
	if (!table->files) {
		free(table);
		return -ENOMEM;
	}
	*ret_table = table;
	return 0;
}

errint_t file_table_source(struct file_table *table, int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return -errno;
	table->multigrain = source_is_multigrain(&fs);
	table->stamps_first = source_stamps_first(&fs);
	return writers_view_of(fd, &table->view);
}

void file_table_use_families(struct file_table *table, struct family_table *families)
{
	table->families = families;
}

static struct file *file_of(struct cds_lfht_node *node)
{
	return caa_container_of(node, struct file, node);
}

static int match_file(struct cds_lfht_node *node, const void *key)
{
	const struct file_key *wanted = key;
	const struct file *file = file_of(node);

	return file->inode == wanted->inode && file->device == wanted->device;
}

static struct file *find_locked(struct file_table *table, dev_t device, ino_t inode)
{
	struct file_key key = {.device = device, .inode = inode};
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	fold_rcu_read_lock();
	cds_lfht_lookup(table->files, fold_object_hash(device, inode), match_file, &key, &iter);
	node = cds_lfht_iter_get_node(&iter);
	fold_rcu_read_unlock();
	return node ? file_of(node) : NULL;
}

uint64_t file_bytes(struct file *file)
{
	return malloc_usable_size(file) + sizeof(size_t);
}

static void free_after_grace(struct rcu_head *head)
{
	fold_rcu_called(head);
	free(caa_container_of(head, struct file, head));
}

void file_move_locked(struct file *file, bool idle)
{
	struct file_table *table = file->table;

	table->open_files += !idle;
	table->open_files -= !file->idle;
	file->idle = idle;
	cds_list_del(&file->use);
	cds_list_add_tail(&file->use, idle ? &table->idle : &table->open);
}

void file_move_kin_locked(struct file *file, bool out)
{
	if (file->in_kins)
		cds_list_del(&file->kins);
	file->in_kins = !out;
	if (!out)
		cds_list_add_tail(&file->kins, &file->table->kins);
}

void file_detach_locked(struct file *file)
{
	file->table->open_files -= !file->idle;
	file_move_kin_locked(file, true);
	fold_rcu_read_lock();
	cds_lfht_del(file->table->files, &file->node);
	fold_rcu_read_unlock();
	cds_list_del(&file->use);
}

void file_drop_kin(struct file *file)
{
	struct kin *kin = atomic_exchange(&file->kin, NULL);

	if (kin)
		kin_put(kin);
}

void file_destroy(struct file *file)
{
	file_drop_kin(file);
	atomic_fetch_sub_explicit(&file->table->bytes, file_bytes(file), memory_order_relaxed);
	page_map_free(file->map);
	range_lock_destroy(&file->ranges);
	pthread_mutex_destroy(&file->lock);
	fold_rcu_call(&file->head, free_after_grace);
}

void file_table_free(struct file_table *table)
{
	struct file *file;
	struct file *next;

	if (!table)
		return;
	cds_list_splice(&table->open, &table->idle);
	cds_list_for_each_entry_safe (file, next, &table->idle, use) {
		file_detach_locked(file);
		file_destroy(file);
	}
	fold_rcu_barrier();
	cds_lfht_destroy(table->files, NULL);
	pthread_mutex_destroy(&table->trim_lock);
	pthread_mutex_destroy(&table->lock);
	free(table);
}

uint64_t file_table_bytes(const struct file_table *table)
{
	return atomic_load_explicit(&table->bytes, memory_order_relaxed);
}

bool file_table_is_source(const struct file_table *table, dev_t device)
{
	return device == table->view.device;
}

bool file_table_doubts(const struct file_table *table, const struct source_stamp *stamp)
{
	return source_stamp_is_racy(stamp,
				    table->multigrain && stamp->device == table->view.device);
}

static struct hands hands_of(const struct stat *st)
{
	return (struct hands){.user = st->st_uid,
			      .group = st->st_gid,
			      .writable = st->st_mode & (S_IWGRP | S_IWOTH)};
}

static bool is_in_other_hands_locked(const struct file *file, const struct stat *st)
{
	const struct hands now = hands_of(st);

	return now.user != file->hands.user || now.writable != file->hands.writable ||
	       (now.group != file->hands.group && now.writable & S_IWGRP);
}

/* The time, of CLOCK_MONOTONIC in nanoseconds, when every change that a stamp taken now may include
 * has been reported. 0: the stamp is not young. */
static int64_t young_until(const struct source_stamp *stamp)
{
	return source_stamp_is_young(stamp, FILE_SETTLED_NS) ? clock_now_ns() + FILE_SETTLED_NS : 0;
}

static void take_stamp_locked(struct file *file, const struct stat *st)
{
	file->hands = hands_of(st);
	source_stamp_of(st, &file->stamp);
	file->young_until = young_until(&file->stamp);
	file->racy = file_table_doubts(file->table, &file->stamp);
	atomic_store_explicit(&file->size, (uint64_t)st->st_size, memory_order_release);
}

/* What was known was found untrue, and is forgotten before this is called. So a thread that sees
 * the new number and has the kernel's cache dropped does so after that. Two calls at once may leave
 * the lower number. That does not matter: a drop for the higher one begins after both have
 * forgotten. */
static void edition_begin(struct file *file)
{
	atomic_store(&file->edition, atomic_fetch_add(&file->table->editions, 1) + 1);
}

uint64_t file_edition(const struct file *file)
{
	return atomic_load(&file->edition);
}

static errint_t file_new(struct file_table *table, const struct stat *st, struct file **ret_file)
{
	struct file *file = calloc(1, sizeof(*file));
	errint_t error;

	if (!file)
		return -ENOMEM;
	error = page_map_new(table->memory, (uint64_t)st->st_size, &file->map);
	if (error) {
		free(file);
		return error;
	}
	file->table = table;
	file->device = st->st_dev;
	file->inode = st->st_ino;
	range_lock_init(&file->ranges);
	pthread_mutex_init(&file->lock, NULL);
	cds_lfht_node_init(&file->node);
	take_stamp_locked(file, st);
	edition_begin(file);
	atomic_fetch_add_explicit(&table->bytes, file_bytes(file), memory_order_relaxed);
	*ret_file = file;
	return 0;
}

static void use_locked(struct file *file)
{
	file->references++;
	file->gone = false; /* a new opener has it from somewhere */
	file_move_locked(file, false);
	if (file->in_kins)
		file_move_kin_locked(file, false);
}

errint_t file_table_get(struct file_table *table, const struct stat *st, struct file **ret_file)
{
	struct file *file;
	errint_t error = 0;

	pthread_mutex_lock(&table->lock);
	file = find_locked(table, st->st_dev, st->st_ino);
	if (!file) {
		error = file_new(table, st, &file);
		if (!error) {
			file->idle = true;
			cds_list_add_tail(&file->use, &table->idle);
			fold_rcu_read_lock();
			FOLD_TSAN_RELEASE(&file->node);
			cds_lfht_add(table->files, fold_object_hash(st->st_dev, st->st_ino),
				     &file->node);
			fold_rcu_read_unlock();
		}
	}
	if (!error) {
		use_locked(file);
		*ret_file = file;
	}
	pthread_mutex_unlock(&table->lock);
	return error;
}

struct file *file_table_find(struct file_table *table, dev_t device, ino_t inode)
{
	struct file *file;

	pthread_mutex_lock(&table->lock);
	file = find_locked(table, device, inode);
	if (file)
		use_locked(file);
	pthread_mutex_unlock(&table->lock);
	return file;
}

struct file *file_get(struct file *file)
{
	pthread_mutex_lock(&file->table->lock);
	file->references++;
	pthread_mutex_unlock(&file->table->lock);
	return file;
}

/* Give up a reference. True: it was the last one to a file without a name. The file has left the
 * table, and the caller destroys it. */
static bool unuse_locked(struct file *file)
{
	if (--file->references)
		return false;
	if (file->gone)
		file_detach_locked(file);
	else if (!file->idle)
		file_move_locked(file, true);
	return file->gone;
}

void file_put(struct file *file)
{
	struct file_table *table = file->table;
	bool last;

	pthread_mutex_lock(&table->lock);
	last = unuse_locked(file);
	pthread_mutex_unlock(&table->lock);
	if (last)
		file_destroy(file);
}

void file_put_or_drop(struct file *file, int fd)
{
	struct file_table *table = file->table;
	struct stat st;
	bool gone = !fstat(fd, &st) && !st.st_nlink;
	bool last;

	pthread_mutex_lock(&table->lock);
	/* A file without a name, once its last handle is closed: nobody can ever open it again. If
	 * another reference is left, its holder's put drops the file. */
	file->gone = gone;
	last = unuse_locked(file);
	pthread_mutex_unlock(&table->lock);
	if (last)
		file_destroy(file);
}

struct file_table *file_table_of(const struct file *file)
{
	return file->table;
}

struct page_map *file_map(struct file *file)
{
	return file->map;
}

struct range_lock *file_range_lock(struct file *file)
{
	return &file->ranges;
}

uint64_t file_size(const struct file *file)
{
	return atomic_load_explicit(&file->size, memory_order_acquire);
}

enum file_sharing file_sharing(struct file *file)
{
	uint64_t pages = fold_pages_in(0, file_size(file));
	uint64_t samples = pages < SHARE_SAMPLES ? pages : SHARE_SAMPLES;
	uint64_t known = 0;
	uint64_t used = 0;
	uint64_t shared = 0;
	uint32_t users;
	uint64_t i;

	fold_rcu_read_lock();
	for (i = 0; i < samples && known >= i / 2; i++) {
		known += page_map_users(file->map, i * pages / samples, &users);
		used += users > 0;
		shared += users > 1;
	}
	fold_rcu_read_unlock();
	if (!used || known * 10 < samples * 9)
		return FILE_UNKNOWN;
	return shared * 20 < used ? FILE_UNIQUE : FILE_SHARES;
}

/* The kin goes first: see kin.h. */
void file_forget(struct file *file)
{
	file_drop_kin(file);
	fold_rcu_read_lock();
	page_map_forget(file->map, 0, UINT64_MAX);
	fold_rcu_read_unlock();
}

bool file_wants_kin(const struct file *file)
{
	const struct file_table *table = file->table;

	return table->families && table->stamps_first && file->device == table->view.device &&
	       !atomic_load_explicit(&file->kin, memory_order_relaxed);
}

/* A report of a change (file_distrust) takes away the kin that is there. So a kin that is set after
 * the report is compared with the source once it is set. Then either it is true, or a change that
 * is yet to be reported will take it away. */
void file_set_kin(struct file *file, struct kin *kin, int fd)
{
	struct kin *none = NULL;

	pthread_mutex_lock(&file->lock);
	if (file->changers || !atomic_compare_exchange_strong(&file->kin, &none, kin)) {
		kin_put(kin);
	} else if (!kin_is_exact(kin, fd)) {
		file_drop_kin(file);
	} else {
		pthread_mutex_lock(&file->table->lock);
		file_move_kin_locked(file, false);
		pthread_mutex_unlock(&file->table->lock);
	}
	pthread_mutex_unlock(&file->lock);
}

struct kin *file_kin(const struct file *file)
{
	return atomic_load_explicit(&file->kin, memory_order_acquire);
}

void file_give_up_kin(struct file *file, struct kin *kin)
{
	if (atomic_compare_exchange_strong(&file->kin, &kin, NULL))
		kin_put(kin);
}

void file_cut_kin(struct file *file, uint64_t first, uint64_t last)
{
	struct kin *kin;

	fold_rcu_read_lock();
	kin = file_kin(file);
	if (kin)
		kin_cut(kin, first, last);
	fold_rcu_read_unlock();
}

bool file_doubts(const struct file *file, const struct source_stamp *stamp)
{
	return file_table_doubts(file->table, stamp);
}

const struct writers_view *file_view(const struct file *file)
{
	return &file->table->view;
}

struct family_table *file_families(const struct file *file)
{
	return file->table->families;
}

/* A change of ours that is under way may have looked at a page before it was forgotten here, and
 * may put it back with its own bytes in it. So the mark is set first, and stays until the last of
 * such changes has ended and forgotten all once more. The stamp stays what it was: then the next
 * open sees for itself that the stamp is old, and does not rely on the kernel's cache having been
 * dropped. */
void file_distrust(struct file *file)
{
	atomic_store(&file->distrusted, true);
	file_forget(file);
	edition_begin(file);
}

/* What is known may hold what a change under way had seen before file_distrust(). The last such
 * change takes the mark off. If the mark is set again after that, there is no change under way, or
 * a later one that will take it off. */
static void end_distrust_locked(struct file *file)
{
	if (file->changers ? atomic_load(&file->distrusted)
			   : atomic_exchange(&file->distrusted, false))
		file_forget(file);
}

/* Whether ST certainly is the state of the source for which the map is true. */
static bool is_as_stamped_locked(const struct file *file, const struct stat *st)
{
	struct source_stamp stamp;

	source_stamp_of(st, &stamp);
	return !file->racy && source_stamp_equal(&stamp, &file->stamp);
}

/* Compare with the source. Forget what a foreign change made untrue, or, if DOUBTED, may have made
 * untrue. */
static errint_t validate_locked(struct file *file, int fd, bool doubted, bool *ret_unchanged)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*ret_unchanged = !doubted && is_as_stamped_locked(file, &st);
	if (*ret_unchanged)
		return 0;
	/* Set the size first: a reader that sees the new content must not be held to the old
	 * size. */
	take_stamp_locked(file, &st);
	file_forget(file);
	edition_begin(file);
	return 0;
}

errint_t file_validate(struct file *file, int fd, bool *ret_unchanged)
{
	errint_t error = 0;

	pthread_mutex_lock(&file->lock);
	*ret_unchanged = true;
	if (!file->changers)
		error = validate_locked(file, fd, false, ret_unchanged);
	pthread_mutex_unlock(&file->lock);
	return error;
}

bool file_recheck(struct file *file, int fd, int64_t calm)
{
	bool unchanged = false;
	errint_t error = -EBUSY;

	pthread_mutex_lock(&file->lock);
	if (!file->changers)
		error = validate_locked(file, fd, file->young_until > calm, &unchanged);
	pthread_mutex_unlock(&file->lock);
	/* What was changed beside our own changes cannot be told, nor what cannot be looked at. */
	if (error)
		file_distrust(file);
	return unchanged;
}

bool file_rests(struct file *file, int64_t calm)
{
	bool rests;

	pthread_mutex_lock(&file->lock);
	pthread_mutex_lock(&file->table->lock);
	rests = file->references == 1 && file->young_until <= calm;
	pthread_mutex_unlock(&file->table->lock);
	pthread_mutex_unlock(&file->lock);
	return rests;
}

/* SEEN, taken shortly before, replaces an fstat only if it says that nothing has changed. A change
 * of ours that ended since has moved the stamp, and the source is asked again. A foreign change
 * since then goes unnoticed, as one between now and our end does: the time that this request takes
 * begins with its look. */
errint_t file_change_begin(struct file *file, int fd, const struct stat *seen)
{
	bool unchanged;
	errint_t error = 0;

	pthread_mutex_lock(&file->lock);
	if (!file->changers && !(seen && is_as_stamped_locked(file, seen)))
		error = validate_locked(file, fd, false, &unchanged);
	if (!error)
		file->changers++;
	pthread_mutex_unlock(&file->lock);
	return error;
}

void file_change_end(struct file *file, int fd)
{
	struct stat st;

	pthread_mutex_lock(&file->lock);
	file->changers--;
	end_distrust_locked(file);
	if (fstat(fd, &st)) {
		/* A file that cannot be stamped is not trusted: no state of the source equals this
		 * stamp. */
		file->stamp = (struct source_stamp){0};
		file_forget(file);
	} else if (file->changers) {
		atomic_store_explicit(&file->size, (uint64_t)st.st_size, memory_order_release);
	} else {
		if (is_in_other_hands_locked(file, &st)) {
			file_forget(file);
			edition_begin(file);
		}
		/* The stamp is as young as can be, but our own. To distrust it would forget all
		 * that is known with every write. A foreign change in the same tick cannot be told
		 * from our own. */
		take_stamp_locked(file, &st);
		file->racy = false;
	}
	pthread_mutex_unlock(&file->lock);
}

bool file_is_changing(struct file *file)
{
	bool changing;

	pthread_mutex_lock(&file->lock);
	changing = file->changers;
	pthread_mutex_unlock(&file->lock);
	return changing;
}

/* ---- for the audit and the watch ---- */

struct key_list {
	struct file_key *keys;
	size_t count;
	size_t room;
};

static errint_t key_list_add(struct key_list *list, const struct file *file)
{
	size_t room = list->room ? list->room * 2 : 64;
	struct file_key *keys = list->keys;

	if (list->count == list->room) {
		keys = realloc(keys, room * sizeof(*keys));
		if (!keys)
			return -ENOMEM;
		list->keys = keys;
		list->room = room;
	}
	keys[list->count++] = (struct file_key){.device = file->device, .inode = file->inode};
	return 0;
}

/* Takes no lock, so opens need not wait for the walk. */
errint_t file_table_keys(struct file_table *table, struct file_key **ret_keys, size_t *ret_count)
{
	struct key_list list = {0};
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;
	errint_t error = 0;

	fold_rcu_read_lock();
	cds_lfht_for_each (table->files, &iter, node) {
		FOLD_TSAN_ACQUIRE(node);
		error = key_list_add(&list, file_of(node));
		if (error)
			break;
	}
	fold_rcu_read_unlock();
	if (error) {
		free(list.keys);
		return error;
	}
	*ret_keys = list.keys;
	*ret_count = list.count;
	return 0;
}

uint64_t file_table_count_bytes(struct file_table *table)
{
	struct file *file;
	uint64_t bytes = 0;

	pthread_mutex_lock(&table->lock);
	cds_list_for_each_entry (file, &table->idle, use)
		bytes += file_bytes(file);
	cds_list_for_each_entry (file, &table->open, use)
		bytes += file_bytes(file);
	pthread_mutex_unlock(&table->lock);
	return bytes;
}

struct file *file_table_peek(struct file_table *table, const struct file_key *key)
{
	struct file *file;

	pthread_mutex_lock(&table->lock);
	file = find_locked(table, key->device, key->inode);
	if (file)
		file->references++;
	pthread_mutex_unlock(&table->lock);
	return file;
}

errint_t file_judge(struct file *file, int fd, enum file_truth *ret_truth, bool *ret_size_known)
{
	struct source_stamp stamp;
	struct stat st;
	errint_t error = 0;

	pthread_mutex_lock(&file->lock);
	if (fstat(fd, &st)) {
		error = -errno;
	} else {
		source_stamp_of(&st, &stamp);
		*ret_truth = file->changers                              ? FILE_IS_CHANGING
			     : !source_stamp_equal(&stamp, &file->stamp) ? FILE_CHANGED_BEHIND
			     : file->racy                                ? FILE_IS_DOUBTFUL
									 : FILE_IS_TRUE;
		*ret_size_known = file_size(file) == (uint64_t)st.st_size;
	}
	pthread_mutex_unlock(&file->lock);
	return error;
}
