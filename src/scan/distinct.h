/* SPDX-License-Identifier: Apache-2.0 */
/*
 * distinct.h - counts how many different digests there are, in bounded memory
 *
 * All digests are kept as long as they fit. Beyond that, only digests whose leading bits are zero
 * are kept, with one bit more each time the table gets full. This is a sample by value: equal
 * digests are all in it, or none is (Gibbons, "Distinct Sampling for Highly-Accurate Answers to
 * Distinct Values Queries", VLDB 2001). Digests must be as good as random.
 *
 * One thread uses it at a time; threads that only ask (distinct_find) may do so together.
 */
#ifndef FOLDFS_DISTINCT_H
#define FOLDFS_DISTINCT_H

#include "foldfs/page.h"

struct distinct;

enum distinct_found {
	DISTINCT_NONE, /* it was not added */
	DISTINCT_ONCE, /* once; or another one was, which differs in the lowest bit alone */
	DISTINCT_MANY, /* added more than once */
	DISTINCT_LEFT_OUT,
};

/* The table takes at most BYTES, or 64 KiB if that is more. -ENOMEM. */
errint_t distinct_new(uint64_t bytes, struct distinct **ret_sample);
void distinct_free(struct distinct *sample);

/* Keep within BYTES from the next addition on. */
void distinct_limit(struct distinct *sample, uint64_t bytes);

/* Memory that it takes now. */
uint64_t distinct_bytes(const struct distinct *sample);

/* Count DIGEST. If it was there already, WEIGHT is added to a sum. -ENOMEM. */
errint_t distinct_add(struct distinct *sample, uint64_t digest, uint64_t weight);
enum distinct_found distinct_find(const struct distinct *sample, uint64_t digest);

/* The share of all digests that is in the sample: 1 means that all numbers are exact. */
double distinct_share(const struct distinct *sample);
/* How many different digests were added, and the standard error of that number. */
double distinct_count(const struct distinct *sample, double *ret_error);
/* The sum of the weights of additions that found their digest there already. */
double distinct_repeated(const struct distinct *sample);

#endif
