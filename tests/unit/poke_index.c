/* SPDX-License-Identifier: Apache-2.0 */
/* poke_index.c - hash_index.c, with a way to damage it: see poke.h */
#include "poke.h"

#include "../../src/hash_index.c"

void poke_index_add(struct hash_index *index, struct hash_index_node *node)
{
	cds_lfht_node_init(&node->lfht);
	FOLD_TSAN_RELEASE(&node->lfht);
	cds_lfht_add(index->table, node->digest.low, &node->lfht);
	atomic_fetch_add(&index->entries, 1);
}
