/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connection.c - the connection to the kernel: how it begins
 *
 * The mount is made first, by libfuse (and fusermount3, for a plain user). Then the session that
 * serves is made on the connection's descriptor. These are two sessions of libfuse, because the
 * second one may be in another process, and there may be more than one after the other.
 */
#include "daemon.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* FUSE_HAS_RESEND of Linux 6.9, of the second half of the flags. */
#define HAS_RESEND (1u << (39 - 32))

/* A session of libfuse with what OPTIONS leave to it. NULL: that was reported. */
static struct fuse_session *session_of(const struct options *options, struct fusefs *fs)
{
	unsigned before = log_errors();
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *session = NULL;
	int failed = 0;

	/* libfuse takes its words out of the list. */
	for (int i = 0; i < options->fuse.argc && !failed; i++)
		failed = fuse_opt_add_arg(&args, options->fuse.argv[i]);
	if (!failed)
		session =
			fuse_session_new(&args, &fusefs_operations, sizeof(fusefs_operations), fs);
	fuse_opt_free_args(&args);
	if (!session && log_errors() == before)
		complain("libfuse cannot make a session.");
	return session;
}

/* Mount on PLACE. Returns the connection's descriptor, or -EINVAL. */
static int mount_on(const struct options *options, const char *place)
{
	struct fuse_session *session = session_of(options, NULL);
	unsigned before = log_errors();
	int fd = -1;

	if (!session)
		return -EINVAL;
	if (fuse_session_mount(session, place) == 0)
		fd = fcntl(fuse_session_fd(session), F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	/* libfuse, or fusermount3, has reported the cause. */
	if (fd < 0 && log_errors() == before)
		complain("cannot mount on %s.", place);
	/* This closes its descriptor, and nothing else. */
	fuse_session_destroy(session);
	return fd < 0 ? -EINVAL : fd;
}

/* The kernel's first request waits from the moment of the mount on. */
static errint_t read_init(struct session *records)
{
	ssize_t got = TEMP_FAILURE_RETRY(
		read(records->device, records->init.request, sizeof(records->init.request)));

	if (got < 0)
		return complain("the kernel does not begin to use the mount: %s.", strerror(errno));
	records->init.bytes = (size_t)got;
	return 0;
}

errint_t connection_open(struct daemon *d)
{
	errint_t error;

	/* libfuse searches PATH for fusermount3 if it is not in its usual place. Root must not run
	 * what somebody's PATH leads to; a plain user's PATH is the user's own. */
	if (geteuid() == 0 && setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1) != 0)
		return complain("not enough memory.");
	d->records->device = mount_on(&d->options, d->place.mountpoint);
	if (d->records->device < 0)
		return d->records->device;
	error = own_mount_note(d->place.mountpoint, d->records->device, &d->mount);
	if (error)
		return complain("cannot find the new mount on %s: %s.", d->place.mountpoint,
				strerror(-error));
	return read_init(d->records);
}

bool connection_resends(const struct session *records)
{
	const struct fuse_in_header *in = (const void *)records->init.request;
	const struct fuse_init_in *init = (const void *)(in + 1);

	return records->init.bytes >= sizeof(*in) + sizeof(*init) && init->flags & FUSE_INIT_EXT &&
	       init->flags2 & HAS_RESEND;
}

errint_t connection_serve(struct daemon *d)
{
	char path[32];

	d->session = session_of(&d->options, d->fs);
	if (!d->session)
		return -EINVAL;
	/* libfuse takes a descriptor by this name for a connection that is mounted already. */
	snprintf(path, sizeof(path), "/dev/fd/%d", d->records->device);
	if (fuse_session_mount(d->session, path) == 0)
		return 0;
	fuse_session_destroy(d->session);
	d->session = NULL;
	return complain("libfuse cannot use the connection of %s.", d->place.mountpoint);
}
