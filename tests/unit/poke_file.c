/* SPDX-License-Identifier: Apache-2.0 */
/* poke_file.c - file.c, with ways to damage it: see poke.h */
#include "poke.h"

#include "../../src/file.c"

void poke_size(struct file *file, int by)
{
	atomic_fetch_add(&file->size, (uint64_t)(int64_t)by);
}

void poke_file_bytes(struct file_table *table, int by)
{
	atomic_fetch_add(&table->bytes, (uint64_t)(int64_t)by);
}
