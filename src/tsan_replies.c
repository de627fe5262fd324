/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tsan_replies.c - in ThreadSanitizer builds alone: what was done before a reply comes before what
 * the requests after it do
 *
 * The order runs through the kernel: it sends a release only after the reply to the last read, and
 * a forget after the reply to the last look-up. On /dev/fuse libfuse's own lock happens to show it;
 * the threads of two rings have nothing in common that ThreadSanitizer could see. The linker puts
 * these wrappers (--wrap) into the place of libfuse's functions; fusefs_of() is the other half.
 */
#include "foldfs/fusefs_internal.h"

#include "foldfs/rcu.h"

char fusefs_tsan_kernel;

#define REPLY(name, parameters, arguments)                                                         \
	int __real_fuse_reply_##name parameters;                                                   \
	int __wrap_fuse_reply_##name parameters;                                                   \
	int __wrap_fuse_reply_##name parameters                                                    \
	{                                                                                          \
		FOLD_TSAN_RELEASE(&fusefs_tsan_kernel);                                            \
		return __real_fuse_reply_##name arguments;                                         \
	}

REPLY(attr, (fuse_req_t req, const struct stat *attr, double timeout), (req, attr, timeout))
REPLY(buf, (fuse_req_t req, const char *bytes, size_t size), (req, bytes, size))
REPLY(create, (fuse_req_t req, const struct fuse_entry_param *e, const struct fuse_file_info *fi),
      (req, e, fi))
REPLY(entry, (fuse_req_t req, const struct fuse_entry_param *e), (req, e))
REPLY(err, (fuse_req_t req, int error), (req, error))
REPLY(iov, (fuse_req_t req, const struct iovec *iov, int count), (req, iov, count))
REPLY(lseek, (fuse_req_t req, off_t at), (req, at))
REPLY(open, (fuse_req_t req, const struct fuse_file_info *fi), (req, fi))
REPLY(readlink, (fuse_req_t req, const char *target), (req, target))
REPLY(statfs, (fuse_req_t req, const struct statvfs *st), (req, st))
REPLY(statx, (fuse_req_t req, int flags, struct statx *st, double timeout),
      (req, flags, st, timeout))
REPLY(write, (fuse_req_t req, size_t count), (req, count))
REPLY(xattr, (fuse_req_t req, size_t count), (req, count))
