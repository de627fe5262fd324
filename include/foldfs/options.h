/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - what a mount was asked for, on the command line and with -o */
#ifndef FOLDFS_OPTIONS_H
#define FOLDFS_OPTIONS_H

#include "foldfs/border.h"

#include <fuse_opt.h>

enum transport_choice {
	TRANSPORT_AUTO,
	TRANSPORT_IO_URING,
	TRANSPORT_DEV,
};

/* mount -o remount: what may be changed of a mount that stands. */
struct remount {
	bool asked;          /* the word itself */
	unsigned long set;   /* flags of mount(2) that are to be set */
	unsigned long clear; /* and those that are to be cleared; the last word counts */
};

struct options {
	char *source;     /* as given */
	char *mountpoint; /* as given */
	uint64_t pool_bytes;
	uint64_t window_bytes; /* 0: direct I/O */
	uint64_t maps_bytes;
	enum transport_choice transport;
	bool seccomp;       /* system calls are filtered once mounted */
	char *state;        /* absolute directory; NULL: the default one */
	char *control;      /* absolute directory of the control socket; NULL: the first fit one */
	char **passthrough; /* globs, NULL at the end; NULL: none */
	uint64_t passthrough_max; /* bytes of a file that may be served by the kernel unasked */
	bool coherence_overlay;   /* readers of equal files keep what they opened */
	bool scan_background;     /* fill the catalogue while serving */
	bool source_stacked;      /* the source is on a stacked file system */
	bool pseudo_filesystems;  /* the source may be a pseudo file system */
	enum border_way border;   /* what is served of what is mounted below it */
	bool read_only;
	bool replace;            /* a dead mount at the mount point is taken away first */
	struct remount remount;  /* .asked: of the rest only the mount point counts */
	double attr_timeout;     /* seconds */
	double entry_timeout;    /* seconds */
	double negative_timeout; /* seconds; of names that are not there */
	bool watch;              /* follow changes behind the mount as they are made */
	bool foreground;
	bool debug;
	bool show_help;
	bool show_version;
	struct fuse_args fuse; /* for fuse_session_new(); owned */
};

#endif
