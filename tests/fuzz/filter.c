/* SPDX-License-Identifier: Apache-2.0 */
/*
 * filter.c - runs every target under the daemon's system call filter, with the sanitizers' calls
 * allowed
 *
 * A refused call is a finding; `fuzz_NAME -close_fd_mask=0` shows its number.
 */
#include "daemon/syscall_filter.h"
#include "foldfs/privileges.h"
#include "fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

static void expect_none_refused(void)
{
	expect(syscall_filter_refused() == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const struct syscall_filter filter = {.user = SYSCALLS_DAEMON};

	(void)argc;
	(void)argv;
	privileges_begin();
	expect(privileges_keep_daemon() == 0);
	expect(syscall_filter_install(&filter) == 0);
	expect(atexit(expect_none_refused) == 0);
	return 0;
}
