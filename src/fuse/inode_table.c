/* SPDX-License-Identifier: Apache-2.0 */
/* inode_table.c - the table of inodes as a whole: its start, its end, its figures */
#include "inode_internal.h"

#include "descriptors.h"

#include <errno.h>
#include <stdlib.h>

#include <urcu/compiler.h>

static errint_t table_init_shards(struct inode_table *table)
{
	errint_t error = 0;

	for (unsigned index = 0; index < INODE_SHARDS && !error; index++)
		error = inode_shard_init(&table->shards[index]);
	return error;
}

/* The root is permanent. Its descriptor comes from the caller, and its node id is FUSE's. */
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
	for (unsigned index = 0; index < INODE_SHARDS; index++)
		inode_shard_destroy(&table->shards[index]);
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
	return sizeof(*table) + INODE_SHARDS * INODE_SHARD_FIRST_BUCKETS * sizeof(struct inode *) +
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

void inode_table_recount(struct inode_table *table, struct inode_count *ret_count)
{
	struct inode_count count = {0};
	struct inode_slab_count slab;

	for (unsigned index = 0; index < INODE_SHARDS; index++) {
		struct shard *shard = &table->shards[index];

		pthread_mutex_lock(&shard->mutex);
		inode_shard_recount_locked(table, shard, &count);
		pthread_mutex_unlock(&shard->mutex);
	}
	inode_slab_recount(table->slab, &slab);
	count.live = slab.live;
	count.live_said = inode_slab_live(table->slab);
	count.slab = slab.bytes;
	count.slab_said = inode_slab_bytes(table->slab);
	*ret_count = count;
}
