/* SPDX-License-Identifier: Apache-2.0 */
/*
 * distinct.c - counts how many different digests there are, in bounded memory
 *
 * An open-addressed table of 64-bit words, at most 3/4 full. A word is the digest; its lowest bit
 * says whether the digest was added more than once. 0 is an empty place. Places are chosen by the
 * lower half of the digest, and the sample by leading zeroes, so neither disturbs the other.
 *
 * The level of a digest is its number of leading zeroes. The table holds levels >= sample->level,
 * so it holds each digest with a chance of 2^-level. Weights of repeated digests are summed for
 * each level separately, so that the sums of the remaining levels stay true when the table is
 * thinned.
 */
#include "distinct.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define LEAST_PLACES 4096u
#define MANY         UINT64_C(1)

struct distinct {
	uint64_t *words;
	uint64_t places; /* a power of two */
	uint64_t used;
	uint64_t most_places; /* a power of two */
	unsigned level;
	uint64_t repeated[65]; /* by level */
};

static uint64_t key_of(uint64_t digest)
{
	uint64_t key = digest & ~MANY;

	return key ? key : 2;
}

static unsigned level_of(uint64_t key)
{
	return (unsigned)__builtin_clzll(key);
}

/* The place of KEY, or the empty one where it would go. */
static uint64_t place_of(const uint64_t words[], uint64_t places, uint64_t key)
{
	uint64_t at = (key * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (places - 1);

	while (words[at] && (words[at] & ~MANY) != key)
		at = (at + 1) & (places - 1);
	return at;
}

void distinct_limit(struct distinct *sample, uint64_t bytes)
{
	/* While the table grows, the old and the new table both exist. */
	uint64_t fit = bytes / (2 * sizeof(uint64_t));

	sample->most_places = LEAST_PLACES;
	while (sample->most_places * 2 <= fit)
		sample->most_places *= 2;
}

errint_t distinct_new(uint64_t bytes, struct distinct **ret_sample)
{
	struct distinct *sample = calloc(1, sizeof(*sample));

	if (!sample)
		return -ENOMEM;
	sample->places = LEAST_PLACES;
	sample->words = calloc(sample->places, sizeof(*sample->words));
	if (!sample->words) {
		free(sample);
		return -ENOMEM;
	}
	distinct_limit(sample, bytes);
	*ret_sample = sample;
	return 0;
}

uint64_t distinct_bytes(const struct distinct *sample)
{
	return sizeof(*sample) + sample->places * sizeof(*sample->words);
}

void distinct_free(struct distinct *sample)
{
	if (!sample)
		return;
	free(sample->words);
	free(sample);
}

/* Move the words into a table of PLACES, leaving out those below LEVEL. */
static errint_t rebuild(struct distinct *sample, uint64_t places, unsigned level)
{
	uint64_t *words = calloc(places, sizeof(*words));
	uint64_t used = 0;

	if (!words)
		return -ENOMEM;
	for (uint64_t i = 0; i < sample->places; i++) {
		uint64_t key = sample->words[i] & ~MANY;

		if (!key || level_of(key) < level)
			continue;
		words[place_of(words, places, key)] = sample->words[i];
		used++;
	}
	free(sample->words);
	sample->words = words;
	sample->places = places;
	sample->used = used;
	sample->level = level;
	return 0;
}

static errint_t make_room(struct distinct *sample)
{
	errint_t error = -ENOMEM;

	while (sample->places > sample->most_places || sample->used + 1 > sample->places / 4 * 3) {
		if (sample->places * 2 <= sample->most_places)
			error = rebuild(sample, sample->places * 2, sample->level);
		/* Half of the words go. The table is halved too, if it is over its limit and the
		 * words are fewer than half of its places. */
		if (error && sample->level < 60)
			error = rebuild(sample,
					sample->places > sample->most_places &&
							sample->used < sample->places / 2
						? sample->places / 2
						: sample->places,
					sample->level + 1);
		if (error)
			return error;
		error = -ENOMEM;
	}
	return 0;
}

errint_t distinct_add(struct distinct *sample, uint64_t digest, uint64_t weight)
{
	uint64_t key = key_of(digest);
	errint_t error;
	uint64_t at;

	if (level_of(key) < sample->level)
		return 0;
	at = place_of(sample->words, sample->places, key);
	if (sample->words[at]) {
		sample->words[at] |= MANY;
		sample->repeated[level_of(key)] += weight;
		return 0;
	}
	error = make_room(sample);
	if (error || level_of(key) < sample->level)
		return error;
	sample->words[place_of(sample->words, sample->places, key)] = key;
	sample->used++;
	return 0;
}

enum distinct_found distinct_find(const struct distinct *sample, uint64_t digest)
{
	uint64_t key = key_of(digest);
	uint64_t word;

	if (level_of(key) < sample->level)
		return DISTINCT_LEFT_OUT;
	word = sample->words[place_of(sample->words, sample->places, key)];
	return !word ? DISTINCT_NONE : word & MANY ? DISTINCT_MANY : DISTINCT_ONCE;
}

double distinct_share(const struct distinct *sample)
{
	return ldexp(1, -(int)sample->level);
}

double distinct_count(const struct distinct *sample, double *ret_error)
{
	double share = distinct_share(sample);

	/* Each digest is in the sample independently, with this chance: a binomial distribution. */
	*ret_error = sqrt((double)sample->used * (1 - share)) / share;
	return (double)sample->used / share;
}

double distinct_repeated(const struct distinct *sample)
{
	double sum = 0;

	for (unsigned level = sample->level; level < 65; level++)
		sum += (double)sample->repeated[level];
	return sum / distinct_share(sample);
}
