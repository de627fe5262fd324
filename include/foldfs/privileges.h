/* SPDX-License-Identifier: Apache-2.0 */
/*
 * privileges.h - what a process gives up before it serves people who do not trust each other
 *
 * Everything here is permanent, for the calling thread and the threads that it starts. So it is
 * done before there are other threads. syscall_filter.h says which system calls a process may make.
 */
#ifndef FOLDFS_PRIVILEGES_H
#define FOLDFS_PRIVILEGES_H

#include "foldfs/page.h"

#include <linux/capability.h>

#define PRIVILEGE(capability) (UINT64_C(1) << (capability))

/*
 * The capabilities that the daemon keeps: X(capability, what fails without it). The daemon does not
 * get one that it was not started with. A plain user's daemon has none of them.
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

/* What a process runs with, for the status report. */
struct privileges {
	uint64_t capabilities; /* permitted, a bit for each */
	uint64_t bounding;
	bool no_new_privs;
	bool dumpable;
	bool filtered; /* system calls */
};

/* Room for the names of all capabilities. */
#define PRIVILEGE_NAMES_BYTES 1024

/* The first thing that a program does. A core file would hold content of others' files, so none is
 * written. Other processes of the same user cannot read this process's memory. */
void privileges_begin(void);

/*
 * The daemon keeps DAEMON_CAPABILITIES. It also keeps CAP_SYS_PTRACE where /proc hides processes
 * (hidepid), because it could not read a caller's groups without it. From here on a change of uid
 * changes capabilities, even if securebits said otherwise. -errno: it keeps what it had; -EPERM:
 * securebits are locked.
 */
errint_t privileges_keep_daemon(void);

/* Keep only the capabilities of SET (PRIVILEGE bits). The others can neither be used nor be
 * regained by a program that this process starts. How a change of uid changes capabilities stays as
 * it was. -errno. */
errint_t privileges_keep(uint64_t set);

/* From now on no program that this process starts can have more rights than it: set-user-ID has no
 * effect. */
errint_t privileges_freeze(void);

/* Close all descriptors but FD. For a process that serves only the one at the other end of FD. */
void privileges_keep_file(int fd);

/* What the calling thread has. Any thread. */
void privileges_read(struct privileges *ret_privileges);

/* The names of SET as in capabilities(7), without CAP_, in small letters, separated by a blank. */
void privileges_names(uint64_t set, char ret_names[PRIVILEGE_NAMES_BYTES]);

#endif
