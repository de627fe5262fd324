/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_source.c - opens of the source for a client: as the caller, who may have to wait
 *
 * Opens are made as the caller, so that the source decides who may open a file (thread_identity.h).
 * Root's opens are made as the daemon.
 *
 * With a lease (F_SETLEASE) a user can make other openers of his file wait for lease-break-time.
 * The daemon opens nothing in a way that waits in the kernel, where an interrupt of the client
 * cannot reach it. If a caller has to wait, it does so here, on the thread of its request. That
 * delays only requests of the same user beyond his share (serve.c). A ring's thread has other
 * requests to answer, and waits only for some milliseconds.
 *
 * The first attempt has begun to break the lease, so the kernel takes it away in time.
 *
 * A lease of our own (lease.h) means that a file has only one description. A second opener of that
 * file gets this description, after the source was asked whether he may have it. faccessat2(2) does
 * not know everything that an open would check. So if only an open can tell, the file is really
 * opened.
 *
 * An open announces itself before it looks for such a lease (lease_opening_begin()). A proof is
 * taken and set in one hold of the inode's lock, which the search for the lease takes too. So there
 * are two cases: the open finds the proof, or no proof is made until the open has its descriptor,
 * which the kernel sees.
 */
#include "foldfs/clock.h"
#include "foldfs/kin_file.h"
#include "foldfs/proc_fd.h"
#include "fusefs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LEASE_SECONDS 45 /* the kernel's default, for when it cannot be read */
#define RING_WAIT_MS  5
#define PAUSE_MS_MAX  64
/* The open(2) flag of execve(2), which the kernel hands on (__FMODE_EXEC, include/linux/fs.h). */
#define O_FOR_EXEC 0x20

/* What is to be opened, for whom. */
struct opening {
	struct fusefs *fs;
	fuse_req_t req;
	struct inode *inode;
	int flags;     /* flags for opening the source */
	int access;    /* right to ask for only, as in access(2); 0: really open it */
	bool for_exec; /* to be executed, which needs no right to read */
};

/* ---- one attempt ---- */

/* Open the object that PATH_FD leads to. If OPENING only asks for a right, return 0 if the caller
 * has it. */
static int open_path(const struct opening *opening, int path_fd)
{
	struct identity identity;
	char path[PROC_FD_BYTES];
	int fd = identity_assume(opening->req, path_fd, false, &identity);

	if (fd)
		return fd;
	proc_fd(path, path_fd);
	do {
		fd = opening->access ? (int)syscall(SYS_faccessat2, path_fd, "", opening->access,
						    AT_EACCESS | AT_EMPTY_PATH)
				     : TEMP_FAILURE_RETRY(open(path, opening->flags));
		if (fd < 0)
			fd = -errno;
	} while (identity_insist(&identity, fd));
	identity_leave_lent();
	return fd;
}

static int open_once(const struct opening *opening)
{
	struct inode_table *inodes = opening->fs->inodes;
	int path_fd;
	int fd;

	if (fuse_req_ctx(opening->req)->uid == 0)
		return inode_open(inodes, opening->inode, opening->flags);
	if (!inode_may_be_opened(opening->inode))
		return -ENXIO;
	path_fd = inode_path_begin(inodes, opening->inode);
	if (path_fd < 0)
		return path_fd;
	fd = open_path(opening, path_fd);
	inode_path_end(opening->inode);
	/* A program is read by the kernel, not by the caller, so the daemon opens it. */
	return opening->for_exec && !fd ? inode_open(inodes, opening->inode, opening->flags) : fd;
}

/* ---- leases ---- */

/* Twice the time after which the kernel takes a lease away. */
static int64_t patience_ms(void)
{
	FILE *file;
	unsigned seconds = LEASE_SECONDS;

	if (fusefs_on_ring)
		return RING_WAIT_MS;
	file = fopen("/proc/sys/fs/lease-break-time", "re");
	if (file) {
		if (fscanf(file, "%u", &seconds) != 1)
			seconds = LEASE_SECONDS;
		fclose(file);
	}
	return (int64_t)seconds * 2000;
}

/* Open again and again, in growing pauses, while there is a lease. */
static int open_after_lease(const struct opening *opening)
{
	int64_t until = clock_now_ms() + patience_ms();
	unsigned pause_ms = 1;
	int fd = -EAGAIN;

	while (fd == -EAGAIN && clock_now_ms() < until) {
		struct timespec pause = {.tv_nsec = pause_ms * 1000000L};

		/* At the end of the session nobody waits for the answer any more. */
		if (fuse_req_interrupted(opening->req) || fuse_session_exited(opening->fs->session))
			return -EINTR;
		nanosleep(&pause, NULL);
		fd = open_once(opening);
		if (pause_ms < PAUSE_MS_MAX)
			pause_ms *= 2;
	}
	return fd;
}

/* Open for a caller that does not wait. A lease of our own (source_check_unwritten()) is held only
 * for a moment, under this lock, and must not show as an error. */
static int open_without_ours(const struct opening *opening)
{
	int fd;

	inode_lock(opening->inode);
	fd = open_once(opening);
	inode_unlock(opening->inode);
	return fd;
}

int fusefs_open_as_caller(struct fusefs *fs, fuse_req_t req, struct inode *inode, int client_flags,
			  bool wait)
{
	int flags = plan_source_flags(client_flags) | (client_flags & O_DIRECTORY);
	struct opening opening = {
		.fs = fs,
		.req = req,
		.inode = inode,
		.flags = flags | O_NONBLOCK,
		.access = client_flags & O_FOR_EXEC ? X_OK : 0,
		.for_exec = client_flags & O_FOR_EXEC,
	};
	int fd = open_once(&opening);

	/* A file that may only be appended to (chattr +a) cannot be opened for writing without
	 * O_APPEND. */
	if (fd == -EPERM && client_flags & O_APPEND) {
		flags |= O_APPEND;
		opening.flags |= O_APPEND;
		fd = open_once(&opening);
	}
	if (fd == -EAGAIN)
		fd = wait ? open_after_lease(&opening) : open_without_ours(&opening);
	/* Drop O_NONBLOCK: a source that is itself a FUSE file system would see it with every
	 * read. */
	if (fd >= 0 && fcntl(fd, F_SETFL, flags) < 0) {
		errint_t error = -errno;

		close(fd);
		return error;
	}
	return fd;
}

/* ---- the one description of a file whose kin is proven ---- */

/* Find that description, and its file. NULL: there is none. */
static struct source *proven_source(struct fusefs *fs, struct inode *inode, struct file **ret_file)
{
	struct source *source = NULL;
	struct stat st;
	bool is_open;
	int path_fd;

	inode_lock(inode);
	is_open = inode_plan(inode)->opens && inode_plan(inode)->kind == PLAN_WINDOW;
	inode_unlock(inode);
	if (!is_open)
		return NULL;
	path_fd = inode_path_begin(fs->inodes, inode);
	if (path_fd < 0)
		return NULL;
	*ret_file = fstat(path_fd, &st) ? NULL : fusefs_file_find(fs, inode, &st);
	inode_path_end(inode);
	if (*ret_file)
		source = kin_proven_source(*ret_file);
	if (*ret_file && !source)
		file_put(*ret_file);
	return source;
}

/* A duplicate of that description. -ENOENT: there is none that can be read from, and no proof any
 * more. */
static int proven_fd(struct fusefs *fs, struct inode *inode)
{
	struct file *file;
	struct source *source = proven_source(fs, inode, &file);
	int fd = -ENOENT;

	if (!source)
		return fd;
	/* A description that cannot be read from is of no use here. The file is then opened, which
	 * ends the proof. */
	if ((fcntl(source_fd(source), F_GETFL) & O_ACCMODE) == O_RDWR)
		fd = fcntl(source_fd(source), F_DUPFD_CLOEXEC, 0);
	else
		kin_end_proof(file);
	source_put(source);
	file_put(file);
	return fd < 0 ? -ENOENT : fd;
}

/* Give back any other lease that OPENING may meet, for example one of a kin that belongs to no file
 * any more. */
static void open_alone(struct fusefs *fs, const struct lease_opening *opening)
{
	/* A lease on another user's file takes CAP_LEASE. */
	identity_make_own();
	lease_opening_alone(fs->leases, opening);
}

int fusefs_open_own(struct fusefs *fs, struct inode *inode, int flags)
{
	struct lease_opening opening;
	bool leased =
		lease_opening_begin(fs->leases, inode_device(inode), inode_number(inode), &opening);
	int fd = leased ? proven_fd(fs, inode) : -ENOENT;

	if (fd < 0 && leased)
		open_alone(fs, &opening);
	if (fd < 0)
		fd = inode_open(fs->inodes, inode, flags | O_NONBLOCK);
	lease_opening_end(fs->leases, &opening);
	return fd;
}

/* Whether SOURCE suits an open with CLIENT_FLAGS. */
static bool will_do(const struct source *source, int client_flags)
{
	const int alike = O_SYNC | O_DSYNC | O_NOATIME | O_APPEND;
	int wanted = plan_source_flags(client_flags);
	int flags = fcntl(source_fd(source), F_GETFL);
	struct statx stx;

	/* If the file's attributes may forbid the open, only a real open can refuse it. */
	return !(client_flags & O_FOR_EXEC) && (flags & alike) == (wanted & alike) &&
	       ((flags & O_ACCMODE) == O_RDWR || (flags & O_ACCMODE) == (wanted & O_ACCMODE)) &&
	       !statx(source_fd(source), "", AT_EMPTY_PATH, STATX_TYPE, &stx) &&
	       !(stx.stx_attributes & (STATX_ATTR_APPEND | STATX_ATTR_IMMUTABLE));
}

/* Whether the source would let REQ's caller open INODE's file with CLIENT_FLAGS: 0, or -errno. */
static errint_t ask_source(struct fusefs *fs, fuse_req_t req, struct inode *inode, int client_flags)
{
	static const int rights[] = {[O_RDONLY] = R_OK, [O_WRONLY] = W_OK, [O_RDWR] = R_OK | W_OK};
	int mode = client_flags & O_ACCMODE;
	struct opening opening = {.fs = fs, .req = req, .inode = inode};
	int path_fd;
	errint_t error;

	if (mode > O_RDWR || !inode_may_be_opened(inode))
		return -EINVAL;
	opening.access = rights[mode];
	path_fd = inode_path_begin(fs->inodes, inode);
	if (path_fd < 0)
		return path_fd;
	if (fuse_req_ctx(req)->uid) {
		error = open_path(&opening, path_fd);
	} else {
		identity_make_own();
		error = syscall(SYS_faccessat2, path_fd, "", opening.access,
				AT_EACCESS | AT_EMPTY_PATH)
				? -errno
				: 0;
	}
	inode_path_end(inode);
	return error;
}

/* The description of INODE's file, if it suits an open with CLIENT_FLAGS and REQ's caller may have
 * it. OPENING found that the file is leased. NULL: the file must be opened. If the caller may open
 * it, the proof has ended. */
static struct source *join_source(struct fusefs *fs, fuse_req_t req, struct inode *inode,
				  int client_flags, const struct lease_opening *opening)
{
	struct file *file = NULL;
	struct source *source = proven_source(fs, inode, &file);
	bool may = !ask_source(fs, req, inode, client_flags);

	if (source && may && will_do(source, client_flags)) {
		file_put(file);
		return source;
	}
	/* A caller who may not open the file ends no proof: his open is refused. */
	if (source && may)
		kin_end_proof(file);
	if (may)
		open_alone(fs, opening);
	if (source) {
		source_put(source);
		file_put(file);
	}
	return NULL;
}

errint_t fusefs_source_of_caller(struct fusefs *fs, fuse_req_t req, struct inode *inode,
				 int client_flags, bool wait, struct source **ret_source,
				 bool *ret_joined)
{
	struct lease_opening opening;
	struct source *source = NULL;
	errint_t error = 0;
	int fd;

	if (lease_opening_begin(fs->leases, inode_device(inode), inode_number(inode), &opening))
		source = join_source(fs, req, inode, client_flags, &opening);
	*ret_joined = source;
	if (!source) {
		fd = fusefs_open_as_caller(fs, req, inode, client_flags, wait);
		error = fd < 0 ? fd : source_new(fd, &source);
	}
	lease_opening_end(fs->leases, &opening);
	/* Another open may have got no lease because of this one. */
	if (error)
		fusefs_prove(inode);
	else
		*ret_source = source;
	return error;
}

int fusefs_open_source(struct fusefs *fs, dev_t device, ino_t number)
{
	struct inode_table *inodes = fs->inodes;
	struct inode *inode = inode_find(inodes, device, number, S_IFREG);
	struct stat st;
	int fd;

	if (!inode)
		return -ENOENT;
	/* Do not change the access time, if we have the right to avoid that. */
	fd = fusefs_open_own(fs, inode, O_RDONLY | O_NOATIME);
	if (fd == -EPERM)
		fd = fusefs_open_own(fs, inode, O_RDONLY);
	inode_put(inodes, inode);
	if (fd < 0 || (!fstat(fd, &st) && st.st_dev == device && st.st_ino == number))
		return fd;
	close(fd);
	return -ESTALE;
}
