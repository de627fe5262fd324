/* SPDX-License-Identifier: Apache-2.0 */
/*
 * touched.h - how much memory is looked at: what a step costs, counted and not timed
 *
 * The processor marks each page of memory that it reads or writes; the kernel clears and sums these
 * marks for a process (proc(5), clear_refs and smaps_rollup). Whatever a walk is made of, it shows.
 * ThreadSanitizer looks at memory of its own, at any time: there nothing is counted.
 */
#ifndef FOLDFS_TEST_TOUCHED_H
#define FOLDFS_TEST_TOUCHED_H

#include "helpers.h"

#include "foldfs/rcu.h"

static inline void touched_clear(void)
{
	FILE *file = fopen("/proc/self/clear_refs", "w");

	expect(file && fputs("1", file) >= 0 && !fclose(file));
}

/* Bytes of memory that this process has looked at since. */
static inline uint64_t touched_bytes(void)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	uint64_t kib = 0;
	char line[256];

	expect(file);
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "Referenced:", 11))
			kib = strtoull(line + 11, NULL, 10);
	expect(!fclose(file));
#ifdef FOLD_TSAN
	kib = 0;
#endif
	return kib << 10;
}

#endif
