/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.h - what the process has of memory, as the kernel counts it, and what is free goes back
 *
 * Blocks of many threads lie side by side in the heap. When most of them are freed, malloc(3) keeps
 * the pages that they leave: it gives back what is at a heap's end, and nothing else by itself.
 */
#ifndef FOLDFS_MEMORY_H
#define FOLDFS_MEMORY_H

#include "foldfs/page.h"

/* What the heap is to be like: few arenas, and large blocks that go back as they are freed. Before
 * the first thread. */
void memory_begin(void);

struct memory_usage {
	uint64_t resident_bytes; /* all that is in memory */
	uint64_t program_bytes;  /* of it the program, its libraries and what it has mapped
				  * of files */
};
/* Zeroes where the kernel does not tell. */
void memory_usage(struct memory_usage *ret_usage);

struct memory_keeper;

/* A thread that has free memory given back. COUNTED tells, given CONTEXT and at any time until
 * memory_keeper_free(), how much of it the process knows to use. No thread runs yet. -ENOMEM. */
errint_t memory_keeper_new(uint64_t (*counted)(void *context), void *context,
			   struct memory_keeper **ret_keeper);
errint_t memory_keeper_start(struct memory_keeper *keeper);
/* Stops the thread. NULL: nothing. */
void memory_keeper_free(struct memory_keeper *keeper);

#endif
