/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_reply.h - the answers to requests
 *
 * fusefs_reply_X() is libfuse's fuse_reply_X(); see there. It also announces that this thread will
 * read again in a moment (serve_answers()). The caller does nothing that may wait after it.
 *
 * In ThreadSanitizer builds it shows an order: whatever was done before a reply happens before what
 * later requests do. The order runs through the kernel: it sends a release only after the reply to
 * the last read, and a forget after the reply to the last look-up. On /dev/fuse a lock within
 * libfuse happens to show that order. The threads of two rings have nothing in common that
 * ThreadSanitizer could see.
 */
#ifndef FOLDFS_FUSEFS_REPLY_H
#define FOLDFS_FUSEFS_REPLY_H

#include "foldfs/rcu.h"
#include "foldfs/serve.h"

#include <errno.h>

#ifdef FOLD_TSAN
extern char fusefs_tsan_kernel;
#define FUSEFS_TSAN_REQUEST() FOLD_TSAN_ACQUIRE(&fusefs_tsan_kernel)
#define FUSEFS_TSAN_REPLY()   FOLD_TSAN_RELEASE(&fusefs_tsan_kernel)
#else
#define FUSEFS_TSAN_REQUEST() ((void)0)
#define FUSEFS_TSAN_REPLY()   ((void)0)
#endif

#define FUSEFS_REPLY(name, parameters, arguments)                                                  \
	static inline int fusefs_reply_##name parameters                                           \
	{                                                                                          \
		FUSEFS_TSAN_REPLY();                                                               \
		serve_answers();                                                                   \
		return fuse_reply_##name arguments;                                                \
	}

FUSEFS_REPLY(attr, (fuse_req_t req, const struct stat *attr, double timeout), (req, attr, timeout))
FUSEFS_REPLY(buf, (fuse_req_t req, const char *bytes, size_t size), (req, bytes, size))
FUSEFS_REPLY(create,
	     (fuse_req_t req, const struct fuse_entry_param *e, const struct fuse_file_info *fi),
	     (req, e, fi))
FUSEFS_REPLY(entry, (fuse_req_t req, const struct fuse_entry_param *e), (req, e))
/* If the daemon is out of descriptors (EMFILE), the client is not: it is told that the system has
 * no more (ENFILE). */
FUSEFS_REPLY(err, (fuse_req_t req, int error), (req, error == EMFILE ? ENFILE : error))
FUSEFS_REPLY(iov, (fuse_req_t req, const struct iovec *iov, int count), (req, iov, count))
FUSEFS_REPLY(lock, (fuse_req_t req, const struct flock *lock), (req, lock))
FUSEFS_REPLY(lseek, (fuse_req_t req, off_t at), (req, at))
FUSEFS_REPLY(open, (fuse_req_t req, const struct fuse_file_info *fi), (req, fi))
FUSEFS_REPLY(readlink, (fuse_req_t req, const char *target), (req, target))
FUSEFS_REPLY(statfs, (fuse_req_t req, const struct statvfs *st), (req, st))
FUSEFS_REPLY(statx, (fuse_req_t req, int flags, struct statx *st, double timeout),
	     (req, flags, st, timeout))
FUSEFS_REPLY(write, (fuse_req_t req, size_t count), (req, count))
FUSEFS_REPLY(xattr, (fuse_req_t req, size_t count), (req, count))

#undef FUSEFS_REPLY

#endif
