/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_memory_limit.c - the least of the machine's memory and the limits of cgroups counts: of both
 * versions, of every level, in a container and out of one
 */
#include "foldfs/memory_limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"

#define MIB (1ull << 20)

static char base[64]; /* where the cgroups are; the files of /proc/self are there as well */

static int set_up(void **state)
{
	(void)state;
	assert_true(scratch_name(base, "limit", SCRATCH_ANY));
	return mkdtemp(base) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", base);
	return system(command);
}

static void put(const char *name, const char *text)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", base, name);
	for (char *slash = path + strlen(base) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		(void)mkdir(path, 0700);
		*slash = '/';
	}
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* With 1000 MiB in the machine, CGROUP as /proc/self/cgroup, and hierarchies mounted from ROOT. */
static uint64_t limit(const char *cgroup, const char *root)
{
	char mountinfo[1024], cgroup_path[128], mountinfo_path[128];

	snprintf(mountinfo, sizeof(mountinfo),
		 "20 1 0:20 / /proc rw shared:5 - proc proc rw\n"
		 "31 1 0:31 %s %s/v2 rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
		 "32 1 0:32 %s %s/cpu rw shared:7 - cgroup cgroup rw,cpu,cpuacct\n"
		 "33 1 0:33 %s %s/v1 rw shared:7 master:1 - cgroup cgroup rw,memory\n",
		 root, base, root, base, root, base);
	put("cgroup", cgroup);
	put("mountinfo", mountinfo);
	snprintf(cgroup_path, sizeof(cgroup_path), "%s/cgroup", base);
	snprintf(mountinfo_path, sizeof(mountinfo_path), "%s/mountinfo", base);
	return memory_limit_of(1000 * MIB, cgroup_path, mountinfo_path);
}

static void without_limits_it_is_the_machines(void **state)
{
	(void)state;
	assert_int_equal(memory_limit_of(1000 * MIB, "/no/such", "/no/such"), 1000 * MIB);
	assert_int_equal(memory_limit_of(0, "/no/such", "/no/such"), 0);
	assert_int_equal(limit("0::/\n", "/"), 1000 * MIB);
	put("v2/a/memory.max", "max\n");
	put("v1/a/memory.limit_in_bytes", "9223372036854771712\n");
	put("cpu/a/memory.limit_in_bytes", "1\n");
	assert_int_equal(limit("3:cpu,cpuacct:/a\n2:memory:/a\n0::/a\n", "/"), 1000 * MIB);
	assert_true(memory_limit() > 0);
}

static void every_level_of_version_2_counts(void **state)
{
	(void)state;
	put("v2/a/memory.max", "400000000\n");
	put("v2/a/memory.high", "max\n");
	put("v2/a/b/memory.max", "max\n");
	put("v2/a/b/c/memory.max", "500000000\n");
	assert_int_equal(limit("0::/a/b/c\n", "/"), 400000000);
	put("v2/a/b/memory.high", "300000000\n");
	assert_int_equal(limit("0::/a/b/c\n", "/"), 300000000);
	put("v2/memory.max", "200000000\n");
	assert_int_equal(limit("0::/a/b/c\n", "/"), 200000000);
	assert_int_equal(limit("0::/gone/meanwhile\n", "/"), 200000000);
	/* More than there is. */
	put("v2/memory.max", "2000000000\n");
	assert_int_equal(limit("0::/elsewhere\n", "/"), 1000 * MIB);
}

static void every_level_of_version_1_counts(void **state)
{
	(void)state;
	put("v1/a/memory.limit_in_bytes", "400000000\n");
	put("v1/a/b/memory.limit_in_bytes", "9223372036854771712\n");
	assert_int_equal(limit("5:cpu,cpuacct:/\n4:memory:/a/b\n0::/\n", "/"), 400000000);
	put("v1/a/b/memory.limit_in_bytes", "100000000\n");
	assert_int_equal(limit("4:hugetlb,memory:/a/b\n", "/"), 100000000);
}

/* The path counts from the root of all cgroups, of which a container shows a part. */
static void a_part_of_the_hierarchy_is_mounted(void **state)
{
	(void)state;
	put("v2/memory.max", "700000000\n");
	put("v2/inner/memory.max", "600000000\n");
	assert_int_equal(limit("0::/docker/1234/inner\n", "/docker/1234"), 600000000);
	assert_int_equal(limit("0::/docker/1234\n", "/docker/1234"), 700000000);
	assert_int_equal(limit("0::/docker/12345\n", "/docker/1234"), 700000000);
	assert_int_equal(limit("0::/../other\n", "/"), 700000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(without_limits_it_is_the_machines, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(every_level_of_version_2_counts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(every_level_of_version_1_counts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_part_of_the_hierarchy_is_mounted, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
