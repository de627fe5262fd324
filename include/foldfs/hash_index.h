/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_index.h - digest -> frame: which content is pooled already
 *
 * A hit is advice: the digest only nominates, and hash_index_share() compares all 4096 bytes before
 * it answers (DESIGN, invariant 4). The table is liburcu's cds_lfht ("Split-ordered lists:
 * lock-free extensible hash tables", Shalev and Shavit 2006): look-ups are wait-free, additions
 * lock-free. The node lies inside the frame's metadata, so an entry costs no allocation. The caller
 * that removes a node keeps its memory untouched until a grace period has passed.
 *
 * The index knows neither frames nor files: the owner of a node tells its bytes and whether it is
 * live.
 */
#ifndef FOLDFS_HASH_INDEX_H
#define FOLDFS_HASH_INDEX_H

#include "foldfs/page.h"

#include <urcu/rculfhash.h>

struct hash_index_node {
	struct cds_lfht_node lfht; /* owned by cds_lfht between insert and removal */
	struct digest digest;      /* written by the owner before insertion, then constant */
};

/* What the index asks of the owner of its nodes. Called within an RCU read side; must not block. */
struct hash_index_owner {
	/* The 4096 bytes of a node, or NULL if it is on its way out. */
	const void *(*bytes)(void *owner, const struct hash_index_node *node);
	/* Two pages had one digest and differed. */
	void (*collision)(void *owner);
	void *owner;
};

struct hash_index;

/* A new, empty index with a secret of its own. MAX_ENTRIES bounds its table. -ENOMEM, or what
 * getrandom(2) says. */
errint_t hash_index_new(uint64_t max_entries, const struct hash_index_owner *owner,
			struct hash_index **ret_index);

/* All nodes must have been removed. Not within a read side. */
void hash_index_free(struct hash_index *index);

/* The digest of the 4096 bytes at PAGE. Any thread, any context. */
void hash_index_digest(const struct hash_index *index, const void *page, struct digest *ret_digest);

/*
 * Look up the content at PAGE, whose digest NODE carries, and insert NODE if no other node has that
 * content. This is one step, so two threads with the same content never both insert. Context: RCU
 * read side, entered before the call and left after the result was used. Returns NODE if it was
 * inserted. Otherwise returns the node of a page that was compared and is equal, and NODE still
 * belongs to the caller.
 */
struct hash_index_node *hash_index_share(struct hash_index *index, struct hash_index_node *node,
					 const void *page);

/* Take NODE out. Called once, by the thread that won the right to. RCU read side. NODE's memory
 * must stay as it is until a grace period has passed. */
void hash_index_remove(struct hash_index *index, struct hash_index_node *node);

/* For the audit: how NODE, whose content is at PAGE, stands in the index. RCU read side. */
enum hash_index_presence {
	HASH_INDEX_ABSENT,
	HASH_INDEX_ONCE,
	HASH_INDEX_TWICE, /* and another node that is not on its way out has the same content */
};
enum hash_index_presence hash_index_count_equal(struct hash_index *index,
						const struct hash_index_node *node,
						const void *page);
/* Nodes in the index; exact at a moment when nothing is under way. */
uint64_t hash_index_entries(const struct hash_index *index);

/* Whether chains have become long enough for hash_index_grow(). Any context, two loads. */
bool hash_index_wants_to_grow(const struct hash_index *index);

/* Double the table until the chains are short again. One caller at a time, not within a read side.
 * Blocks its caller for the work; no other thread waits for it. */
void hash_index_grow(struct hash_index *index);

/* Halve the table as long as it has more than two buckets for each entry. As hash_index_grow(), and
 * by the same caller. */
void hash_index_shrink(struct hash_index *index);

/* Bytes that the table takes now, beside the nodes. */
uint64_t hash_index_bytes(const struct hash_index *index);

#endif
