/* SPDX-License-Identifier: Apache-2.0 */
/* descriptors.c - how many descriptors there are, and what they are for */
#include "descriptors.h"

#include <sys/resource.h>

#define DESCRIPTORS_MIN 256 /* what every process may have */
#define DESCRIPTORS_MAX (1 << 30)
/* The daemon keeps an eighth for itself, but no more than OWN_MAX. */
#define OWN_PART 8
#define OWN_MAX  1024

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
	return all - (all / OWN_PART < OWN_MAX ? all / OWN_PART : OWN_MAX);
}
