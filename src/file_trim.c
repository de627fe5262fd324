/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_trim.c - what is given up when maps, families and kins take more than their budget
 *
 * In this order: idle files as wholes, least recently used first; what families remember; kins
 * beyond their share; leaves of the maps of open files. One thread trims at a time. Opens wait for
 * the table's lock, so each hold of it is bounded by what it frees.
 */
#include "file_internal.h"

/* Divisor of the budget: families and kins may keep a fourth of it while maps want it. */
#define KINS_SHARE 4u
/* Open files that are shrunk in one hold of the table's lock, because opens wait for it. */
#define SHRINK_BATCH 8u
/* Bytes taken from one of these files. */
#define SHRINK_BYTES (256u << 10)

/* Free the least recently used file that nobody references. Returns the bytes that were freed; 0:
 * all files are in use. */
static uint64_t drop_one(struct file_table *table)
{
	struct file *file;
	struct file *found = NULL;
	uint64_t freed;

	pthread_mutex_lock(&table->lock);
	/* The few that are skipped are being looked at by the audit or the watch
	 * (file_table_peek). */
	cds_list_for_each_entry (file, &table->idle, use) {
		if (!file->references) {
			found = file;
			file_detach_locked(file);
			break;
		}
	}
	pthread_mutex_unlock(&table->lock);
	if (!found)
		return 0;
	freed = file_bytes(found) + page_map_bytes(found->map);
	file_destroy(found);
	return freed;
}

/* Take leaves from the least recently opened files, SHRINK_BATCH times. A file that has no more
 * leaves goes to the end of the list and is taken off *LEFT. Returns the bytes that were freed,
 * WANTED or about as much at most. */
static uint64_t shrink_some(struct file_table *table, size_t *left, uint64_t wanted)
{
	uint64_t freed = 0;
	unsigned i;

	pthread_mutex_lock(&table->lock);
	fold_rcu_read_lock();
	if (cds_list_empty(&table->open))
		*left = 0;
	for (i = 0; i < SHRINK_BATCH && *left && freed < wanted; i++) {
		struct file *file = cds_list_first_entry(&table->open, struct file, use);
		uint64_t part = wanted - freed < SHRINK_BYTES ? wanted - freed : SHRINK_BYTES;
		uint64_t got = page_map_shrink(file->map, part);

		freed += got;
		if (got >= part)
			continue;
		file_move_locked(file, false);
		--*left;
	}
	fold_rcu_read_unlock();
	pthread_mutex_unlock(&table->lock);
	return freed;
}

/* All files are open: take leaves from them. */
static void shrink_open(struct file_table *table, uint64_t excess)
{
	size_t left;
	uint64_t freed;

	pthread_mutex_lock(&table->lock);
	left = table->open_files;
	pthread_mutex_unlock(&table->lock);
	while (left && excess) {
		freed = shrink_some(table, &left, excess);
		excess -= freed < excess ? freed : excess;
	}
}

/* Take kins away, from the least recently opened files first, until BYTES are freed. Returns how
 * many were. A file that lost its kin otherwise is met here once. */
static uint64_t drop_kins_locked(struct file_table *table, uint64_t bytes)
{
	uint64_t freed = 0;
	struct file *file;
	struct file *next;
	struct kin *kin;

	cds_list_for_each_entry_safe (file, next, &table->kins, kins) {
		if (freed >= bytes)
			break;
		kin = file_kin(file);
		if (kin)
			freed += kin_bytes(kin);
		file_move_kin_locked(file, true);
		file_drop_kin(file);
	}
	return freed;
}

/* Families and kins are beyond their share of the budget: take kins away, as wholes. A file's kin
 * may be learned again at its next open. */
static uint64_t drop_kins(struct file_table *table)
{
	uint64_t bytes = table->families ? family_table_in_use(table->families) : 0;
	uint64_t share = table->budget / KINS_SHARE;
	uint64_t excess = bytes > share ? bytes - share : 0;
	uint64_t freed;

	if (!excess)
		return 0;
	pthread_mutex_lock(&table->lock);
	fold_rcu_read_lock();
	freed = drop_kins_locked(table, excess);
	fold_rcu_read_unlock();
	pthread_mutex_unlock(&table->lock);
	return freed;
}

/* Bytes beyond the budget. What only waits to be freed does not count: it is trimmed already. */
static uint64_t excess_of(const struct file_table *table)
{
	uint64_t bytes = page_map_memory_in_use(table->memory) + file_table_bytes(table);

	if (table->families)
		bytes += family_table_in_use(table->families);
	return bytes > table->budget ? bytes - table->budget : 0;
}

/* Under trim_lock. */
static void trim(struct file_table *table)
{
	uint64_t excess = excess_of(table);
	uint64_t freed;

	/* A sixteenth more than needed, so that this is not done for every node. */
	if (excess)
		excess += table->budget / 16;
	while (excess) {
		freed = drop_one(table);
		if (!freed && table->families)
			freed = family_table_shrink(table->families, excess);
		if (!freed)
			freed = drop_kins(table);
		if (!freed) {
			shrink_open(table, excess);
			break;
		}
		excess -= freed < excess ? freed : excess;
	}
}

void file_table_trim(struct file_table *table)
{
	if (!excess_of(table) || pthread_mutex_trylock(&table->trim_lock))
		return;
	trim(table);
	pthread_mutex_unlock(&table->trim_lock);
}

void file_table_set_budget(struct file_table *table, uint64_t budget_bytes)
{
	atomic_store_explicit(&table->budget, budget_bytes, memory_order_relaxed);
	/* A thread that trims may go by the budget that was. */
	pthread_mutex_lock(&table->trim_lock);
	trim(table);
	pthread_mutex_unlock(&table->trim_lock);
}
