/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover.h - what the keeper of a mount hands on to the program that takes its place
 *
 * It lies in the session (session.h), and has numbers of descriptors and names: an exec keeps the
 * process and its descriptors, and nothing else. The new program parses the same command line, and
 * takes from here what was settled with the mount.
 */
#ifndef FOLDFS_HANDOVER_H
#define FOLDFS_HANDOVER_H

#include "foldfs/session.h"

#include <limits.h>
#include <sys/types.h>

struct daemon;

/* The environment variable by which a program learns that it takes over, and from where. */
#define HANDOVER_VARIABLE "FOLDFS_HANDOVER"
#define HANDOVER_KEPT     4096u
#define HANDOVER_PROBLEM  256u

/* The keeper's, and constant once it has a worker, except where marked. */
struct handover {
	/* Descriptors; -1: there is none. */
	int source, view, claim, state, waiting, abort, asker, attendant;
	int signals;  /* signalfd(2) */
	int bell;     /* eventfd(2): a worker has handed over a client of an exchange */
	int program;  /* what runs; changed by an exchange, like the next field */
	int previous; /* what ran before, until this one serves */
	pid_t attendant_pid;
	/* The descriptors that no worker opened, one place kept free. */
	int kept[HANDOVER_KEPT];
	unsigned kept_count;
	/* Of the mount. */
	int mount_id;
	unsigned device_major, device_minor;
	uid_t owner;
	gid_t group;
	uint64_t unique_id;
	char source_name[PATH_MAX];
	char mountpoint[PATH_MAX];
	char state_name[PATH_MAX];
	/* Why the program before does not serve any more; changed by an exchange. */
	char problem[HANDOVER_PROBLEM];
};

/* The format of this program's records: session_format(). */
void handover_format(char ret_format[SESSION_FORMAT_BYTES]);

struct handover *handover_of(struct session *session);

/* Note what D has; its mount stands. -ENAMETOOLONG. */
errint_t handover_note(const struct daemon *d);

/* Whether this program takes the place of another one: the file of the session, or -1. The
 * environment says so no longer. */
int handover_begin(void);
/* Have D be what the program before has noted in the session in MEMORY. -EPROTO: the session is not
 * of this program's format. Other -errno. */
errint_t handover_take(struct daemon *d, int memory);

#endif
