/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode_table.c - where inodes are found, and the table as a whole: its begin, its end, its figures
 *
 * Invariants, under a shard's mutex:
 *  - An inode is in the chain of its numbers exactly while hashed is true.
 *  - A shard has at least half as many buckets as inodes, as far as there was memory for them.
 */
#include "inode_internal.h"

#include "descriptors.h"

#include <errno.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#define FIRST_BUCKETS 16u

/* ---- the hash ---- */

static uint64_t hash_of(dev_t device, ino_t number)
{
	uint64_t hash = ((uint64_t)number ^ ((uint64_t)device << 32 | device >> 32)) *
			UINT64_C(0x9e3779b97f4a7c15);

	return hash ^ hash >> 29;
}

struct shard *inode_shard_of(struct inode_table *table, dev_t device, ino_t number)
{
	return &table->shards[hash_of(device, number) % INODE_SHARDS];
}

static struct inode **bucket_of(const struct shard *shard, dev_t device, ino_t number)
{
	return &shard->buckets[hash_of(device, number) / INODE_SHARDS & (shard->bucket_count - 1)];
}

struct inode *inode_shard_find_locked(const struct shard *shard, dev_t device, ino_t number)
{
	struct inode *inode = *bucket_of(shard, device, number);

	while (inode && (inode->number != number || inode->device != device))
		inode = inode->next;
	return inode;
}

static void insert_locked(struct shard *shard, struct inode *inode)
{
	struct inode **bucket = bucket_of(shard, inode->device, inode->number);

	inode->next = *bucket;
	*bucket = inode;
	inode->hashed = true;
	shard->inodes++;
}

void inode_shard_remove_locked(struct shard *shard, struct inode *inode)
{
	struct inode **link = bucket_of(shard, inode->device, inode->number);

	if (!inode->hashed)
		return;
	while (*link != inode)
		link = &(*link)->next;
	*link = inode->next;
	inode->hashed = false;
	shard->inodes--;
}

/* Twice the buckets when they are as many as inodes; the old ones do as well if there is
 * no memory. */
static void grow_locked(struct inode_table *table, struct shard *shard)
{
	size_t old_count = shard->bucket_count;
	struct inode **old = shard->buckets;
	struct inode **buckets;

	if (shard->inodes < old_count)
		return;
	buckets = calloc(old_count * 2, sizeof(struct inode *));
	if (!buckets)
		return;
	shard->buckets = buckets;
	shard->bucket_count = old_count * 2;
	shard->inodes = 0;
	for (size_t index = 0; index < old_count; index++) {
		for (struct inode *inode = old[index], *next; inode; inode = next) {
			next = inode->next;
			insert_locked(shard, inode);
		}
	}
	free(old);
	atomic_fetch_add_explicit(&table->bytes, old_count * sizeof(struct inode *),
				  memory_order_relaxed);
}

void inode_shard_insert_locked(struct inode_table *table, struct shard *shard, struct inode *inode)
{
	grow_locked(table, shard);
	insert_locked(shard, inode);
}

/* ---- the table ---- */

static errint_t table_init_shards(struct inode_table *table)
{
	for (unsigned index = 0; index < INODE_SHARDS; index++) {
		struct shard *shard = &table->shards[index];

		shard->buckets = calloc(FIRST_BUCKETS, sizeof(struct inode *));
		if (!shard->buckets)
			return -ENOMEM;
		shard->bucket_count = FIRST_BUCKETS;
		pthread_mutex_init(&shard->mutex, NULL);
	}
	return 0;
}

/* The root is permanent, has its descriptor from the caller, and its node id is FUSE's. */
static errint_t table_init_root(struct inode_table *table)
{
	struct stat st;
	struct inode *root = &table->root;

	if (fstat(table->root_fd, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	inode_init(root, &st, false);
	atomic_init(&root->slot.id, FUSE_ROOT_ID);
	(void)path_slot_begin(&table->paths, &root->path, table->root_fd, true);
	(void)path_pin(&table->paths, &root->path, -1);
	inode_shard_insert_locked(table, inode_shard_of(table, root->device, root->number), root);
	return inode_numbers_new(table->root_fd, root->device, &table->numbers);
}

errint_t inode_table_new(int root_fd, enum border_way way, struct inode_table **ret_table)
{
	struct inode_table *table = calloc(1, sizeof(*table));
	errint_t error;

	if (!table)
		return -ENOMEM;
	table->root_fd = root_fd;
	path_cache_init(&table->paths, root_fd, descriptors_raise());
	links_init(&table->links);
	error = inode_slab_new(sizeof(struct inode), &table->slab);
	if (!error)
		error = table_init_shards(table);
	if (!error)
		error = table_init_root(table);
	if (!error)
		error = border_init(&table->border, root_fd, way);
	if (error) {
		inode_table_free(table);
		return error;
	}
	*ret_table = table;
	return 0;
}

errint_t inode_table_start(struct inode_table *table)
{
	return path_cache_start(&table->paths);
}

static void free_visit(void *context, struct node_slot *slot)
{
	inode_free(context, caa_container_of(slot, struct inode, slot));
}

void inode_table_free(struct inode_table *table)
{
	if (!table)
		return;
	if (table->slab)
		inode_slab_each(table->slab, free_visit, table);
	links_clear(&table->links);
	if (table->root.hashed) {
		(void)path_slot_end(&table->paths, &table->root.path);
		pthread_mutex_destroy(&table->root.mutex);
	}
	path_cache_end(&table->paths);
	for (unsigned index = 0; index < INODE_SHARDS && table->shards[index].buckets; index++) {
		pthread_mutex_destroy(&table->shards[index].mutex);
		free(table->shards[index].buckets);
	}
	inode_slab_free(table->slab);
	inode_numbers_free(table->numbers);
	free(table);
}

void inode_table_on_forget(struct inode_table *table, void (*forget)(struct window_file *))
{
	table->forget = forget;
}

uint64_t inode_table_bytes(const struct inode_table *table)
{
	return sizeof(*table) + INODE_SHARDS * FIRST_BUCKETS * sizeof(struct inode *) +
	       inode_slab_bytes(table->slab) + inode_numbers_bytes(table->numbers) +
	       atomic_load_explicit(&table->paths.bytes, memory_order_relaxed) +
	       atomic_load_explicit(&table->bytes, memory_order_relaxed);
}

uint64_t inode_table_spare(const struct inode_table *table)
{
	return (uint64_t)path_cache_spare(&table->paths);
}

void inode_table_make_room(struct inode_table *table, uint64_t count)
{
	path_cache_make_room(&table->paths, (long)count);
}

uint64_t inode_table_count(const struct inode_table *table)
{
	return inode_slab_live(table->slab) + 1;
}

static void shard_recount_locked(const struct inode_table *table, const struct shard *shard,
				 struct inode_count *count)
{
	count->hashed_said += shard->inodes;
	for (size_t index = 0; index < shard->bucket_count; index++) {
		for (const struct inode *inode = shard->buckets[index]; inode;
		     inode = inode->next) {
			bool lost = bucket_of(shard, inode->device, inode->number) !=
				    &shard->buckets[index];

			count->hashed++;
			count->astray += lost || !inode->hashed ||
					 (!inode->lookups && !inode_is_root(table, inode));
		}
	}
}

void inode_table_recount(struct inode_table *table, struct inode_count *ret_count)
{
	struct inode_count count = {0};
	struct inode_slab_count slab;

	for (unsigned index = 0; index < INODE_SHARDS; index++) {
		struct shard *shard = &table->shards[index];

		pthread_mutex_lock(&shard->mutex);
		shard_recount_locked(table, shard, &count);
		pthread_mutex_unlock(&shard->mutex);
	}
	inode_slab_recount(table->slab, &slab);
	count.live = slab.live;
	count.live_said = inode_slab_live(table->slab);
	count.slab = slab.bytes;
	count.slab_said = inode_slab_bytes(table->slab);
	*ret_count = count;
}
