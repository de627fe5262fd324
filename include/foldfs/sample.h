/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.h - counts how many different digests there are, in bounded memory
 *
 * Digests are kept whole as long as they fit. Beyond that only those whose leading bits are zero
 * are kept, one bit more each time it gets full: a sample by value, so that all that is equal is in
 * it or is not (Gibbons, "Distinct Sampling for Highly-Accurate Answers to Distinct Values
 * Queries", VLDB 2001). Digests must be as good as random.
 *
 * One thread uses it at a time; threads that only ask (sample_find) may do so together.
 */
#ifndef FOLDFS_SAMPLE_H
#define FOLDFS_SAMPLE_H

#include "foldfs/page.h"

struct sample;

enum sample_found {
	SAMPLE_NONE, /* it was not added, or only others like it were */
	SAMPLE_ONCE,
	SAMPLE_MANY, /* added more than once */
	SAMPLE_LEFT_OUT,
};

/* Takes at most BYTES, and 64 KiB in any case. -ENOMEM. */
errint_t sample_new(uint64_t bytes, struct sample **ret_sample);
void sample_free(struct sample *sample);

/* Keep within BYTES from the next addition on. */
void sample_limit(struct sample *sample, uint64_t bytes);

/* What it takes now. */
uint64_t sample_bytes(const struct sample *sample);

/* Count DIGEST. WEIGHT is summed up for those that were there already. -ENOMEM. */
errint_t sample_add(struct sample *sample, uint64_t digest, uint64_t weight);
enum sample_found sample_find(const struct sample *sample, uint64_t digest);

/* The part of all digests that is looked at: 1 means that all numbers are exact. */
double sample_share(const struct sample *sample);
/* How many different digests were added, and the standard error of that number. */
double sample_distinct(const struct sample *sample, double *ret_error);
/* The sum of the weights of those that were there already. */
double sample_repeated(const struct sample *sample);

#endif
