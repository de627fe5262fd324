/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscall_filter.h - the system calls that a process may still make (seccomp)
 *
 * A call that is on no list is not carried out: the caller gets ENOSYS, as from a kernel that lacks
 * the call, and every library can handle that. A call that only an intruder has a use for ends the
 * process.
 */
#ifndef FOLDFS_SYSCALL_FILTER_H
#define FOLDFS_SYSCALL_FILTER_H

#include "foldfs/page.h"

#include <sys/types.h>

/* The process whose list applies. */
enum syscall_user {
	SYSCALLS_DAEMON,
	SYSCALLS_GUARDIAN,  /* waits for a signal and writes to the file that it has */
	SYSCALLS_ATTENDANT, /* has a directory's file system written back */
};

struct syscall_filter {
	enum syscall_user user;
	bool io_uring;     /* requests may come by io_uring */
	pid_t children[2]; /* processes that the daemon may signal besides itself; 0: none */
};

/*
 * From now on, allow nothing but the lists, for all threads of this process and for what they
 * start. This cannot be undone. Sets no_new_privs. Call it once in a process. -errno: nothing has
 * changed.
 */
errint_t syscall_filter_install(const struct syscall_filter *filter);

/* How many calls have been refused since then. Each call that the daemon was refused is also a line
 * on stderr, with the call's number. Any thread. */
unsigned syscall_filter_refused(void);

#endif
