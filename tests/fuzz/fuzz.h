/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz.h - what the libFuzzer targets share
 *
 * A target aborts if one of its promises does not hold. A sanitizer's report, a leak, and an input
 * that takes seconds are findings as well.
 */
#ifndef FOLDFS_FUZZ_H
#define FOLDFS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void expect(bool condition)
{
	if (!condition)
		abort();
}

#endif
