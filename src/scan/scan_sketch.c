/* SPDX-License-Identifier: Apache-2.0 */
/* scan_sketch.c - the sketch of a file's pages: the smallest of all its values (scan_family.c) */
#include "scan_internal.h"

#include <string.h>

void scan_sketch_add(struct scan_sketch *sketch, uint64_t number, uint64_t digest)
{
	uint64_t value =
		(digest ^ number * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xff51afd7ed558ccd);
	unsigned at = sketch->count;

	value ^= value >> 32;
	if (at == SCAN_SKETCH && value >= sketch->values[SCAN_SKETCH - 1])
		return;
	while (at && sketch->values[at - 1] > value)
		at--;
	if (at && sketch->values[at - 1] == value)
		return;
	if (sketch->count < SCAN_SKETCH)
		sketch->count++;
	memmove(&sketch->values[at + 1], &sketch->values[at],
		(sketch->count - 1 - at) * sizeof(value));
	sketch->values[at] = value;
}
