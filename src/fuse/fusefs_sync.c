/* SPDX-License-Identifier: Apache-2.0 */
/* fusefs_sync.c - flush and fsync of an open file */
#include "fusefs_handle.h"

#include <errno.h>
#include <unistd.h>

/* A client's close(2) reaches the source as the close of a duplicate. close(2) must not fail for
 * lack of a descriptor; then a flush reports the same errors. */
static errint_t do_flush(struct handle *handle)
{
	int fd;

	if (!handle)
		return -EBADF;
	fd = dup(source_fd(handle->source));
	if (fd < 0)
		return source_flush(handle->source, true, &handle->flush_errors);
	return close(fd) ? -errno : 0;
}

void fusefs_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct handle *handle = handle_of(fuse_req_userdata(req), fi);
	errint_t error = do_flush(handle);

	(void)ino;
	if (handle)
		fusefs_locks_closed(handle, fi->lock_owner);
	fusefs_reply_err(req, -error);
}

void fusefs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct handle *handle = handle_of(fuse_req_userdata(req), fi);
	errint_t error =
		handle ? source_flush(handle->source, datasync, &handle->flush_errors) : -EBADF;

	(void)ino;
	if (!error)
		source_drop_cache_soon(handle->source, handle->fs->closers);
	fusefs_reply_err(req, -error);
}
