/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_index.c - digest -> frame, over liburcu's cds_lfht
 *
 * - The digest is XXH3-128 with a secret from getrandom(2): nobody outside can make two pages
 *   collide on purpose. Nothing rests on that: every hit is verified byte by byte (match_page).
 * - hash_index_share() is one cds_lfht_add_unique(): look-up and insertion are one step.
 * - The table's size is set here, not by cds_lfht's automatic resizing, so that its bytes are
 *   known. It doubles when there are more than LOAD_MAX entries to a bucket. That keeps a chain at
 *   one and a half to three nodes and the table under 11 bytes for each entry. It is halved only
 *   where the pool gets smaller. A resize blocks its caller only; readers and writers go on.
 */
#include "foldfs/hash_index.h"

#include "foldfs/rcu.h"
#include "foldfs/xxh3.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SECRET_BYTES XXH3_SECRET_SIZE_MIN
#define BUCKETS_MIN  1024u
#define LOAD_MAX     3u

struct hash_index {
	struct cds_lfht *table;
	struct hash_index_owner owner;
	uint64_t buckets_max;
	_Atomic uint64_t buckets; /* written by the one caller of hash_index_grow and _shrink */
	_Atomic uint64_t entries;
	uint8_t secret[SECRET_BYTES];
};

/* The key of a look-up. */
struct candidate {
	struct hash_index *index;
	const struct digest *digest;
	const void *page;
};

static struct hash_index_node *node_of(struct cds_lfht_node *lfht)
{
	return caa_container_of(lfht, struct hash_index_node, lfht);
}

/* Verify advice: the digest nominated, the bytes decide. */
static int match_page(struct cds_lfht_node *lfht, const void *key)
{
	const struct candidate *candidate = key;
	const struct hash_index_owner *owner = &candidate->index->owner;
	const struct hash_index_node *node = node_of(lfht);
	const void *bytes;

	FOLD_TSAN_ACQUIRE(lfht);
	if (node->digest.low != candidate->digest->low ||
	    node->digest.high != candidate->digest->high)
		return 0;
	bytes = owner->bytes(owner->owner, node);
	if (!bytes)
		return 0;
	if (!memcmp(bytes, candidate->page, FOLD_PAGE_SIZE))
		return 1;
	owner->collision(owner->owner);
	return 0;
}

static uint64_t power_of_two_from(uint64_t value)
{
	uint64_t power = 1;

	while (power < value)
		power <<= 1;
	return power;
}

errint_t hash_index_new(uint64_t max_entries, const struct hash_index_owner *owner,
			struct hash_index **ret_index)
{
	struct hash_index *index = calloc(1, sizeof(*index));
	ssize_t got;

	if (!index)
		return -ENOMEM;
	got = getrandom(index->secret, sizeof(index->secret), 0);
	if (got != (ssize_t)sizeof(index->secret)) {
		int error = got < 0 ? -errno : -EIO;

		free(index);
		return error;
	}
	fold_xxh3_prepare();
	index->owner = *owner;
	index->buckets_max = power_of_two_from(max_entries);
	if (index->buckets_max < BUCKETS_MIN)
		index->buckets_max = BUCKETS_MIN;
	atomic_init(&index->buckets, BUCKETS_MIN);
	fold_rcu_register();
	index->table = cds_lfht_new_flavor(BUCKETS_MIN, BUCKETS_MIN, index->buckets_max, 0,
					   &urcu_memb_flavor, NULL);
	if (!index->table) {
		free(index);
		return -ENOMEM;
	}
	*ret_index = index;
	return 0;
}

void hash_index_free(struct hash_index *index)
{
	if (!index)
		return;
	fold_rcu_register();
	cds_lfht_destroy(index->table, NULL);
	free(index);
}

void hash_index_digest(const struct hash_index *index, const void *page, struct digest *ret_digest)
{
	XXH128_hash_t hash =
		XXH3_128bits_withSecret(page, FOLD_PAGE_SIZE, index->secret, SECRET_BYTES);

	ret_digest->low = hash.low64;
	ret_digest->high = hash.high64;
#if FOLDFS_DIGEST_BITS < 64
	ret_digest->low &= (1u << FOLDFS_DIGEST_BITS) - 1;
	ret_digest->high = 0;
#endif
}

struct hash_index_node *hash_index_share(struct hash_index *index, struct hash_index_node *node,
					 const void *page)
{
	struct candidate candidate = {.index = index, .digest = &node->digest, .page = page};
	struct cds_lfht_node *found;

	cds_lfht_node_init(&node->lfht);
	FOLD_TSAN_RELEASE(&node->lfht);
	found = cds_lfht_add_unique(index->table, node->digest.low, match_page, &candidate,
				    &node->lfht);
	if (found == &node->lfht)
		atomic_fetch_add_explicit(&index->entries, 1, memory_order_relaxed);
	return node_of(found);
}

void hash_index_remove(struct hash_index *index, struct hash_index_node *node)
{
	cds_lfht_del(index->table, &node->lfht);
	atomic_fetch_sub_explicit(&index->entries, 1, memory_order_relaxed);
}

/* The key and the findings of a look-up that goes along the whole chain. */
struct census {
	struct hash_index *index;
	const struct hash_index_node *node;
	const void *page;
	bool present;
	bool twice;
};

/* Never reports a match, so that the look-up goes on to the end of the chain. */
static int count_node(struct cds_lfht_node *lfht, const void *key)
{
	struct census *census = (struct census *)(uintptr_t)key;
	const struct hash_index_owner *owner = &census->index->owner;
	const struct hash_index_node *node = node_of(lfht);
	const void *bytes;

	FOLD_TSAN_ACQUIRE(lfht);
	if (node == census->node) {
		census->present = true;
	} else if (node->digest.low == census->node->digest.low &&
		   node->digest.high == census->node->digest.high) {
		bytes = owner->bytes(owner->owner, node);
		if (bytes && !memcmp(bytes, census->page, FOLD_PAGE_SIZE))
			census->twice = true;
	}
	return 0;
}

enum hash_index_presence hash_index_count_equal(struct hash_index *index,
						const struct hash_index_node *node,
						const void *page)
{
	struct census census = {.index = index, .node = node, .page = page};
	struct cds_lfht_iter iter;

	cds_lfht_lookup(index->table, node->digest.low, count_node, &census, &iter);
	if (!census.present)
		return HASH_INDEX_ABSENT;
	return census.twice ? HASH_INDEX_TWICE : HASH_INDEX_ONCE;
}

uint64_t hash_index_entries(const struct hash_index *index)
{
	return atomic_load_explicit(&index->entries, memory_order_relaxed);
}

bool hash_index_wants_to_grow(const struct hash_index *index)
{
	uint64_t buckets = atomic_load_explicit(&index->buckets, memory_order_relaxed);

	return buckets < index->buckets_max &&
	       atomic_load_explicit(&index->entries, memory_order_relaxed) > LOAD_MAX * buckets;
}

void hash_index_grow(struct hash_index *index)
{
	fold_rcu_register();
	while (hash_index_wants_to_grow(index)) {
		uint64_t buckets = 2 * atomic_load_explicit(&index->buckets, memory_order_relaxed);

		cds_lfht_resize(index->table, buckets);
		atomic_store_explicit(&index->buckets, buckets, memory_order_relaxed);
	}
}

void hash_index_shrink(struct hash_index *index)
{
	uint64_t buckets = atomic_load_explicit(&index->buckets, memory_order_relaxed);
	uint64_t wanted = buckets;

	while (wanted > BUCKETS_MIN &&
	       wanted > 2 * atomic_load_explicit(&index->entries, memory_order_relaxed))
		wanted /= 2;
	if (wanted == buckets)
		return;
	fold_rcu_register();
	cds_lfht_resize(index->table, wanted);
	atomic_store_explicit(&index->buckets, wanted, memory_order_relaxed);
}

uint64_t hash_index_bytes(const struct hash_index *index)
{
	return sizeof(*index) + atomic_load_explicit(&index->buckets, memory_order_relaxed) *
					sizeof(struct cds_lfht_node);
}
