/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passthrough.h - files that the kernel serves by itself: kernel passthrough
 *
 * A backing file is an open source file that is registered with the kernel under a number (backing
 * id). If an inode is opened with that number, the kernel reads, writes and maps the backing file
 * for it; the daemon is not on the path. The kernel reopens the backing file's path with the
 * client's own flags and the daemon's credentials. So a file that must never be written is opened
 * through a view of the source that is mounted read-only. There the kernel refuses to open it for
 * writing.
 *
 * Any thread may call any of it; nothing here blocks on more than the source.
 */
#ifndef FOLDFS_PASSTHROUGH_H
#define FOLDFS_PASSTHROUGH_H

#include "foldfs/page.h"

#include <stdatomic.h>
#include <stdint.h>

struct passthrough;

/* A read-only view of the directory open as DIRECTORY_FD, which shows what is mounted there now.
 * While it is open, those file systems are busy. -1: the daemon may not make one. */
int passthrough_open_view(int directory_fd);
/* VIEW_FD is such a view, or -1; it is taken over, also on failure. -ENOMEM. */
errint_t passthrough_new(int view_fd, struct passthrough **ret_backing);
void passthrough_free(struct passthrough *passthrough);

/* Set the session's descriptor, once the session is mounted, and where to note the last id that was
 * given (both borrowed). Before the first request. */
void passthrough_session(struct passthrough *passthrough, int session_fd,
			 _Atomic uint32_t *last_id);

/* Whether the daemon may register files at all (CAP_SYS_ADMIN). */
bool passthrough_permitted(void);

/*
 * Register FD, an open regular file, which stays the caller's. Returns its backing id, above 0.
 * -EPERM: the daemon may not; -ELOOP: the file's file system is itself stacked on another
 * (overlayfs); other -errno.
 */
int passthrough_register(struct passthrough *passthrough, int fd);
/* Existing opens with ID go on as they are. ID 0 is nothing. */
void passthrough_unregister(struct passthrough *passthrough, int id);

/* Open PATH, relative to the source and beneath it, through the read-only view, for reading. No
 * symbolic link is followed. -errno; -ENOSYS: there is no such view. */
int passthrough_open_read_only(struct passthrough *passthrough, const char *path);

#endif
