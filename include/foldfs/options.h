/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - what the command line and -o ask of a mount */
#ifndef FOLDFS_OPTIONS_H
#define FOLDFS_OPTIONS_H

#include "foldfs/border.h"

#include <fuse_opt.h>

enum transport_choice {
	TRANSPORT_AUTO,
	TRANSPORT_IO_URING,
	TRANSPORT_DEV,
};

enum locks_choice {
	LOCKS_AUTO, /* in the source, where the transport allows it */
	LOCKS_SOURCE,
	LOCKS_MOUNT,
};

/* mount -o remount: what may be changed of an existing mount. */
struct remount {
	bool asked;          /* the word "remount" itself */
	unsigned long set;   /* flags of mount(2) to set */
	unsigned long clear; /* flags to clear; of contradicting words the last one counts */
	char **words;        /* foldfs's own, for the daemon; NULL at the end; owned */
};

struct option_words;

struct options {
	char *source;     /* as given */
	char *mountpoint; /* as given */
	uint64_t pool_bytes;
	uint64_t window_bytes; /* 0: direct I/O */
	uint64_t maps_bytes;
	enum transport_choice transport;
	enum locks_choice locks;
	bool seccomp;        /* system calls are filtered once mounted */
	bool survive;        /* the mount outlives the process that serves it */
	double survive_wait; /* seconds that clients wait at most for another process */
	double watchdog;     /* seconds after which a process that reads no requests is replaced; 0:
			      * never */
	char *state;         /* absolute directory; NULL: the default one */
	char *control;       /* absolute directory of the control socket; NULL: the first fit one */
	char **passthrough;  /* globs, NULL at the end; NULL: none */
	uint64_t passthrough_max; /* largest file, in bytes, that the kernel may serve unasked */
	bool coherence_overlay;   /* readers of equal files keep what they opened */
	bool scan_background;     /* fill the catalogue while serving */
	bool source_stacked;      /* the source is on a stacked file system */
	bool pseudo_filesystems;  /* the source may be a pseudo file system */
	enum border_way border;   /* which file systems mounted below it are served */
	bool read_only;
	bool replace;            /* first remove a dead mount at the mount point */
	struct remount remount;  /* if .asked, of the other options only the mount point counts */
	double attr_timeout;     /* seconds */
	double entry_timeout;    /* seconds */
	double negative_timeout; /* seconds; for names that do not exist */
	bool watch;              /* follow changes behind the mount as they happen */
	bool foreground;
	bool debug;
	bool show_help;
	bool show_version;
	struct fuse_args fuse;      /* for fuse_session_new(); owned */
	struct option_words *words; /* what was said, sizes in bytes; owned; NULL: nothing is to be
				     * mounted */
};

#endif
