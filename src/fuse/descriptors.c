/* SPDX-License-Identifier: Apache-2.0 */
/* descriptors.c - how many descriptors there are, and what they are for */
#include "descriptors.h"

#include <sys/resource.h>

#define DESCRIPTORS_MIN 256 /* what every process may have */
#define DESCRIPTORS_MAX (1 << 30)
/* The daemon keeps an eighth for itself, but no more than OWN_MAX, and no less than OWN_MIN, which it
 * needs. With fewer than DESCRIPTORS_MIN it keeps an eighth all the same. */
#define OWN_PART 8
#define OWN_MAX  1024
#define OWN_MIN  64

static long own_of(long all)
{
	long own = all / OWN_PART;

	if (own < OWN_MIN && all >= DESCRIPTORS_MIN)
		own = OWN_MIN;
	return own < OWN_MAX ? own : OWN_MAX;
}

long descriptors_raise(void)
{
	long all = DESCRIPTORS_MIN;
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
			(void)getrlimit(RLIMIT_NOFILE, &limit);
		all = limit.rlim_cur < DESCRIPTORS_MAX ? (long)limit.rlim_cur : DESCRIPTORS_MAX;
	}
	return all - own_of(all);
}
