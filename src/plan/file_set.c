/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_set.c - which files were met, and how large they are in all
 *
 * A file is known only by a hash of its device and inode numbers. Two files with the same hash are
 * counted as one; among a million files that is not expected to happen. At most 3/4 of the places
 * are taken.
 */
#include "file_set.h"

#include <stdlib.h>
#include <xxhash.h>

#define LEAST_PLACES 64u

/* Never 0. */
static uint64_t key_of(dev_t device, ino_t inode)
{
	const uint64_t numbers[2] = {device, inode};

	return XXH3_64bits(numbers, sizeof(numbers)) | 1;
}

/* The place of KEY, or the free place where it would go. COUNT is above 0, and at least one place
 * is free. */
static uint64_t *place_of(uint64_t *places, uint64_t count, uint64_t key)
{
	uint64_t at = (key >> 1) & (count - 1);

	while (places[at] && places[at] != key)
		at = (at + 1) & (count - 1);
	return &places[at];
}

/* Double the places. False: there is no memory, or there are already as many as allowed. */
static bool grow(struct file_set *set)
{
	uint64_t count = set->count ? set->count * 2 : LEAST_PLACES;
	uint64_t *places = count <= FILE_SET_MAX_PLACES ? calloc(count, sizeof(*places)) : NULL;

	if (!places)
		return false;
	for (uint64_t i = 0; i < set->count; i++)
		if (set->places[i])
			*place_of(places, count, set->places[i]) = set->places[i];
	free(set->places);
	set->places = places;
	set->count = count;
	return true;
}

void file_set_add(struct file_set *set, dev_t device, ino_t inode, uint64_t size)
{
	uint64_t key = key_of(device, inode);
	uint64_t *place;

	if (set->count && *place_of(set->places, set->count, key) == key)
		return;
	if ((set->files + 1) * 4 > set->count * 3 && !grow(set))
		return;
	place = place_of(set->places, set->count, key);
	*place = key;
	set->files++;
	set->bytes += size;
}

uint64_t file_set_memory(const struct file_set *set)
{
	return set->count * sizeof(*set->places);
}

void file_set_clear(struct file_set *set)
{
	free(set->places);
	*set = (struct file_set){0};
}
