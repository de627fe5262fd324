/* SPDX-License-Identifier: Apache-2.0 */
/*
 * privileges.h - what a process gives up before it deals with people who do not trust each other
 *
 * Everything here is for good, of the calling thread and those that it starts: so it is done before
 * there are others. What system calls a process may make is in syscall_filter.h.
 */
#ifndef FOLDFS_PRIVILEGES_H
#define FOLDFS_PRIVILEGES_H

#include "foldfs/page.h"

#include <linux/capability.h>

#define PRIVILEGE(capability) (UINT64_C(1) << (capability))

/*
 * The capabilities that the daemon keeps: X(capability, what fails without it). One that it was not
 * started with it does not get; a plain user's daemon has none of them.
 */
#define DAEMON_CAPABILITIES(X)                                                                     \
	X(CAP_CHOWN, "root's chown, and giving a caller what was made for him")                    \
	X(CAP_DAC_OVERRIDE, "root's access to what its mode denies to all, and the state's files") \
	X(CAP_DAC_READ_SEARCH, "finding a file again by its handle, with open_by_handle_at")       \
	X(CAP_FOWNER, "root's chmod, utimes and unlink in sticky directories")                     \
	X(CAP_FSETID, "the set-group-ID bit at root's chmod and writes of others' files")          \
	X(CAP_LEASE, "knowing that nobody has a file of another user's open for writing")          \
	X(CAP_MKNOD, "root's mknod of devices")                                                    \
	X(CAP_SETFCAP, "root's setcap, which is an extended attribute")                            \
	X(CAP_SETGID, "taking on a caller's groups")                                               \
	X(CAP_SETUID, "taking on a caller's identity")                                             \
	X(CAP_SYS_ADMIN, "mount and unmount, passthrough, watch, root's trusted attributes")       \
	X(CAP_SYS_NICE, "the higher priority of the trimming threads")                             \
	X(CAP_SYS_RESOURCE, "blocks and quota that root has, oom_score_adj, many open files")

/* What a process runs with, for the status. */
struct privileges {
	uint64_t capabilities; /* permitted, a bit for each */
	uint64_t bounding;
	bool no_new_privs;
	bool dumpable;
	bool filtered; /* system calls */
};

/* Room for the names of all capabilities. */
#define PRIVILEGE_NAMES_BYTES 1024

/* The first thing that a program does: no core file will hold what others' files do, and nobody of
 * the same user reads this process's memory. */
void privileges_begin(void);

/*
 * The daemon's own: DAEMON_CAPABILITIES, and CAP_SYS_PTRACE where /proc hides processes (hidepid)
 * and a caller's groups could not be read without it. A change of uid changes capabilities from
 * here on, if securebits said otherwise. -errno: it keeps what it had; -EPERM: they are locked.
 */
errint_t privileges_keep_daemon(void);

/* Keep no capability but those of SET (PRIVILEGE bits), neither to use nor to get back by a program
 * that is started. Nothing changes in how a change of user changes them. -errno. */
errint_t privileges_keep(uint64_t set);

/* No program that is started gives this process more than it has: set-user-ID means nothing. */
errint_t privileges_freeze(void);

/* Close all descriptors but FD, with which a process that serves another is left alone. */
void privileges_keep_file(int fd);

/* Of the calling thread. Any thread. */
void privileges_read(struct privileges *ret_privileges);

/* The names of SET as capabilities(7) has them, less CAP_ and in small letters, a blank between. */
void privileges_names(uint64_t set, char ret_names[PRIVILEGE_NAMES_BYTES]);

#endif
