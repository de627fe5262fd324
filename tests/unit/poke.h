/* SPDX-License-Identifier: Apache-2.0 */
/*
 * poke.h - damages the inside of a module, for the tests of the audit
 *
 * Each poke_*.c has the module's source in it, and so gets at what is its own. It takes the place
 * of the library's.
 */
#ifndef FOLDFS_TEST_POKE_H
#define FOLDFS_TEST_POKE_H

#include "foldfs/file.h"
#include "foldfs/page_store.h"
#include "foldfs/window.h"

/* Add BY to the users of FRAME. */
void poke_users(struct page_store *store, uint32_t frame, int by);
/* What FRAME is said to be in; what it was is returned. */
uint8_t poke_where(struct page_store *store, uint32_t frame, uint8_t where);
/* How often FRAME was used, as eviction sees it. */
uint8_t poke_hot(struct page_store *store, uint32_t frame);
/* Take FRAME out of its queue, and put it back. */
void poke_unqueue(struct page_store *store, uint32_t frame);
void poke_queue(struct page_store *store, uint32_t frame);
/* FRAME's link to the one behind it; what it was is returned. */
uint32_t poke_next(struct page_store *store, uint32_t frame, uint32_t next);
/* The head of the free list. */
uint32_t poke_free_first(struct page_store *store, uint32_t frame);
/* Free FRAME once more. */
void poke_free_again(struct page_store *store, uint32_t frame);
void poke_free_count(struct page_store *store, int by);
void poke_gauges(struct page_store *store, int used, int own, int shared, int sharing);
/* Take FRAME out of the index, and put it back. */
void poke_unindex(struct page_store *store, uint32_t frame);
void poke_index(struct page_store *store, uint32_t frame);
/* Give FRAME, which is private, the digest of its bytes, and share it without asking for equals;
 * and undo that. */
void poke_unprivate(struct page_store *store, uint32_t frame);
void poke_private(struct page_store *store, uint32_t frame);
/* In the place of hash_index_share(), without a comparison. */
void poke_index_add(struct hash_index *index, struct hash_index_node *node);

void poke_size(struct file *file, int by);
void poke_file_bytes(struct file_table *table, int by);
void poke_window_pages(struct window *window, int by);
void poke_window_closing(struct window *window, int by);
void poke_trimming(struct window *window, bool trimming);

#endif
