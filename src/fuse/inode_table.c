/* SPDX-License-Identifier: Apache-2.0 */
/* inode_table.c - the table of inodes as a whole: its start, its end, its figures */
#include "inode_internal.h"

#include "descriptors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

static errint_t table_init_shards(struct inode_table *table)
{
	errint_t error = 0;

	for (unsigned index = 0; index < INODE_SHARDS && !error; index++)
		error = inode_shard_init(&table->shards[index]);
	return error;
}

size_t inode_record_bytes(void)
{
	return sizeof(struct inode);
}

/* An inode, and what its slot for a descriptor needs beyond it. */
static size_t inode_bytes(const struct inode_table *table)
{
	return sizeof(struct inode) + path_slot_room(&table->paths);
}

/* The root is permanent. Its descriptor comes from the caller, and its node id is FUSE's. */
static errint_t table_init_root(struct inode_table *table)
{
	struct inode *root = calloc(1, inode_bytes(table));
	struct stat st;

	table->root = root;
	if (!root)
		return -ENOMEM;
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

static size_t rounded(size_t bytes)
{
	return (bytes + SLAB_ALIGNMENT - 1) & ~(size_t)(SLAB_ALIGNMENT - 1);
}

/* ---- taking over ---- */

bool inode_is_alive(const struct slab_slot *slot, int *ret_fd)
{
	const struct inode *inode = caa_container_of(slot, struct inode, slot);

	*ret_fd = path_slot_fd(&inode->path);
	return inode->lookups;
}

void inode_set_lookups(struct slab_slot *slot, uint64_t lookups)
{
	caa_container_of(slot, struct inode, slot)->lookups = lookups;
}

void inode_forget_raw(struct slab_slot *slot, uint64_t count)
{
	struct inode *inode = caa_container_of(slot, struct inode, slot);

	inode->lookups -= count < inode->lookups ? count : inode->lookups;
}

/* Set what does not outlive a process. */
static void renew(struct inode *inode)
{
	struct plan_hold plan = inode->plan;

	inode->next = NULL;
	inode->uses = 0;
	pthread_mutex_init(&inode->mutex, NULL);
	memset(&inode->directory, 0, sizeof(inode->directory));
	if (inode->type == S_IFDIR)
		return;
	inode->window_file = NULL;
	inode->handles = (struct cds_hlist_head){0};
	plan_hold_renew(&plan);
	inode->plan = plan;
}

static void revive(void *context, struct slab_slot *slot)
{
	struct inode *inode = caa_container_of(slot, struct inode, slot);
	struct inode_table *table = context;
	bool hashed = inode->hashed;

	inode->hashed = false;
	if (!inode->lookups || !path_slot_revive(&table->paths, &inode->path)) {
		slab_give(table->slab, slot, inode_node(inode));
		return;
	}
	renew(inode);
	if (hashed)
		inode_shard_insert_locked(
			table, inode_shard_of(table, inode->device, inode->number), inode);
}

struct visitor {
	void (*visit)(void *context, struct inode *inode);
	void *context;
	bool cached; /* those that the kernel may cache, else files */
};

static void visit_one(void *context, struct slab_slot *slot)
{
	struct inode *inode = caa_container_of(slot, struct inode, slot);
	const struct visitor *visitor = context;

	if (visitor->cached ? inode->cached : inode->type == S_IFREG)
		visitor->visit(visitor->context, inode);
}

void inode_table_each_file(struct inode_table *table,
			   void (*visit)(void *context, struct inode *inode), void *context)
{
	struct visitor visitor = {.visit = visit, .context = context};

	slab_each(table->slab, visit_one, &visitor);
}

void inode_table_each_cached(struct inode_table *table,
			     void (*visit)(void *context, struct inode *inode), void *context)
{
	struct visitor visitor = {.visit = visit, .context = context, .cached = true};

	slab_each(table->slab, visit_one, &visitor);
}

/* Make the slab of TABLE, or take over that of an earlier one. */
static errint_t table_init_slab(struct inode_table *table, struct slab *earlier)
{
	if (!earlier)
		return slab_new("foldfs-inodes", inode_bytes(table), &table->slab);
	table->slab = earlier;
	return slab_object_bytes(earlier) == rounded(inode_bytes(table)) ? 0 : -EPROTO;
}

errint_t inode_table_new(int root_fd, enum border_way way, struct slab *inodes,
			 struct inode_table **ret_table)
{
	struct inode_table *table = calloc(1, sizeof(*table));
	errint_t error;

	if (!table) {
		slab_free(inodes);
		return -ENOMEM;
	}
	table->root_fd = root_fd;
	path_cache_init(&table->paths, root_fd, descriptors_raise());
	links_init(&table->links);
	error = table_init_slab(table, inodes);
	if (!error)
		error = table_init_shards(table);
	if (!error)
		error = table_init_root(table);
	if (!error)
		error = border_init(&table->border, root_fd, way);
	if (!error && inodes)
		slab_each(table->slab, revive, table);
	if (error) {
		/* Inodes that were not revived have nothing that could be freed. */
		if (inodes)
			table->slab = NULL;
		slab_free(inodes);
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

static void free_visit(void *context, struct slab_slot *slot)
{
	inode_free(context, caa_container_of(slot, struct inode, slot));
}

void inode_table_free(struct inode_table *table)
{
	if (!table)
		return;
	if (table->slab)
		slab_each(table->slab, free_visit, table);
	links_clear(&table->links);
	if (table->root && table->root->hashed) {
		(void)path_slot_end(&table->paths, &table->root->path);
		pthread_mutex_destroy(&table->root->mutex);
	}
	free(table->root);
	path_cache_end(&table->paths);
	for (unsigned index = 0; index < INODE_SHARDS; index++)
		inode_shard_destroy(&table->shards[index]);
	slab_free(table->slab);
	inode_numbers_free(table->numbers);
	free(table);
}

void inode_table_on_forget(struct inode_table *table, void (*forget)(struct window_file *))
{
	table->forget = forget;
}

const struct slab *inode_table_slab(const struct inode_table *table)
{
	return table->slab;
}

uint64_t inode_table_bytes(const struct inode_table *table)
{
	return sizeof(*table) + inode_bytes(table) +
	       INODE_SHARDS * INODE_SHARD_FIRST_BUCKETS * sizeof(struct inode *) +
	       slab_bytes(table->slab) + inode_numbers_bytes(table->numbers) +
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
	return slab_live(table->slab) + 1;
}

void inode_table_recount(struct inode_table *table, struct inode_count *ret_count)
{
	struct inode_count count = {0};
	struct slab_count slab;

	for (unsigned index = 0; index < INODE_SHARDS; index++) {
		struct shard *shard = &table->shards[index];

		pthread_mutex_lock(&shard->mutex);
		inode_shard_recount_locked(table, shard, &count);
		pthread_mutex_unlock(&shard->mutex);
	}
	slab_recount(table->slab, &slab);
	count.live = slab.live;
	count.live_said = slab_live(table->slab);
	count.slab = slab.bytes;
	count.slab_said = slab_bytes(table->slab);
	*ret_count = count;
}
