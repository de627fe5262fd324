/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.h - how much memory the process has, as the kernel counts it; gives free memory back
 *
 * Blocks of many threads lie side by side in the heap. When most of them are freed, malloc(3) keeps
 * the pages that they leave. By itself it gives back only what is at a heap's end.
 */
#ifndef FOLDFS_MEMORY_H
#define FOLDFS_MEMORY_H

#include "foldfs/page.h"

/* Set up the heap: few arenas, and large blocks that go back when they are freed. To be called
 * before the first thread starts. */
void memory_begin(void);

struct memory_usage {
	uint64_t resident_bytes; /* all that is in memory */
	uint64_t program_bytes;  /* of it, the program, its libraries and the files that it has
				  * mapped */
};
/* Zeroes where the kernel does not tell. */
void memory_usage(struct memory_usage *ret_usage);

struct memory_keeper;

/* A thread that gives free memory back. COUNTED(CONTEXT) returns how much memory the process knows
 * that it uses. It may be called at any time until memory_keeper_free(). No thread runs yet.
 * -ENOMEM. */
errint_t memory_keeper_new(uint64_t (*counted)(void *context), void *context,
			   struct memory_keeper **ret_keeper);
errint_t memory_keeper_start(struct memory_keeper *keeper);
/* Stops the thread. NULL: nothing. */
void memory_keeper_free(struct memory_keeper *keeper);

#endif
