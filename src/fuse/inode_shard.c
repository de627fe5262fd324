/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode_shard.c - where inodes are found: a hash of device and inode number, in shards
 *
 * Invariants, under a shard's mutex:
 *  - An inode is in the chain of its numbers exactly while hashed is true.
 *  - A shard has at least half as many buckets as inodes, if there was memory for them.
 */
#include "inode_internal.h"

#include <errno.h>
#include <stdlib.h>

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

/* Double the buckets when there are as many inodes. If there is no memory, the old ones do as
 * well. */
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

errint_t inode_shard_init(struct shard *shard)
{
	shard->buckets = calloc(INODE_SHARD_FIRST_BUCKETS, sizeof(struct inode *));
	if (!shard->buckets)
		return -ENOMEM;
	shard->bucket_count = INODE_SHARD_FIRST_BUCKETS;
	pthread_mutex_init(&shard->mutex, NULL);
	return 0;
}

void inode_shard_destroy(struct shard *shard)
{
	if (!shard->buckets)
		return;
	pthread_mutex_destroy(&shard->mutex);
	free(shard->buckets);
}

void inode_shard_recount_locked(const struct inode_table *table, const struct shard *shard,
				struct inode_count *count)
{
	count->hashed_said += shard->inodes;
	for (size_t index = 0; index < shard->bucket_count; index++) {
		for (const struct inode *inode = shard->buckets[index]; inode;
		     inode = inode->next) {
			bool lost = bucket_of(shard, inode->device, inode->number) !=
				    &shard->buckets[index];

			count->hashed++;
			count->astray +=
				lost || !inode->hashed ||
				(!inode->lookups && !inode->uses && !inode_is_root(table, inode));
		}
	}
}
