/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscall_filter.h - the system calls that a process may still make (seccomp)
 *
 * What is on no list does not happen: the caller gets ENOSYS, as from a kernel that lacks the call,
 * which every library knows how to do without. What only an intruder has a use for ends the
 * process.
 */
#ifndef FOLDFS_SYSCALL_FILTER_H
#define FOLDFS_SYSCALL_FILTER_H

#include "foldfs/page.h"

#include <sys/types.h>

/* Whose list. */
enum syscall_user {
	SYSCALLS_DAEMON,
	SYSCALLS_GUARDIAN,  /* waits for a signal and writes to the file that it has */
	SYSCALLS_ATTENDANT, /* has a directory's file system written back */
};

struct syscall_filter {
	enum syscall_user user;
	bool io_uring;     /* requests may come by it */
	pid_t children[2]; /* whom the daemon may signal besides itself; 0: nobody */
};

/*
 * From now on, for all threads of this process and for what they start: nothing but the lists. For
 * good. Sets no_new_privs. Once in a process. -errno: nothing has changed.
 */
errint_t syscall_filter_install(const struct syscall_filter *filter);

/* How many calls have been refused since. Each of the daemon's is also a line on stderr, with the
 * call's number. Any thread. */
unsigned syscall_filter_refused(void);

#endif
