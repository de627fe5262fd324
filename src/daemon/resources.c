/* SPDX-License-Identifier: Apache-2.0 */
/* resources.c - the daemon's limits, and how the kernel treats it when memory is short */
#include "resources.h"

#include "log.h"

#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define OPEN_FILES (1u << 20)

void resources_raise_open_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	if (geteuid() == 0 && limit.rlim_max < OPEN_FILES) {
		struct rlimit wanted = {OPEN_FILES, OPEN_FILES};

		if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
			return;
	}
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

errint_t resources_raise_file_size(bool read_only)
{
	const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
	struct rlimit limit;

	if (setrlimit(RLIMIT_FSIZE, &none) == 0 || getrlimit(RLIMIT_FSIZE, &limit) != 0)
		return 0;
	/* A plain user's limit may be lower than that. */
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_FSIZE, &limit);
	if (limit.rlim_max == RLIM_INFINITY || read_only)
		return 0;
	return complain("no user could make a file of the mount larger than %llu bytes. Raise the "
			"limit (ulimit -f), or mount with -o ro.",
			(unsigned long long)limit.rlim_max);
}

void resources_protect(void)
{
	FILE *file;
	int score;

	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	file = fopen("/proc/self/oom_score_adj", "r+e");
	if (!file)
		return;
	if (fscanf(file, "%d", &score) == 1 && score == 0) {
		rewind(file);
		fputs("-900", file);
	}
	fclose(file); /* a plain user's write fails here, which is fine */
}
