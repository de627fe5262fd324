/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_name.c - names: lookup, create and remove objects, rename, link, readlink
 *
 * Each request is two functions: do_x() decides and returns an errno, fusefs_x() only replies.
 *
 * Invariants:
 *  - Names are made, moved and removed under the caller's identity. Between assume and restore
 *    there is one system call on the source, made twice at most, and never a reply.
 *  - A look-up is counted before the reply that tells the kernel of it. It is given back if the
 *    kernel did not take the reply.
 *  - A create never opens a file that existed before. The kernel believed that there was none, and
 *    so has not checked whether the caller may open it.
 */
#include "fusefs_again.h"
#include "fusefs_internal.h"

#include "foldfs/proc_fd.h"
#include "foldfs/shared_copies.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A directory that a request works on. */
struct directory {
	struct inode *inode;
	int fd; /* O_PATH */
};

/* What a request makes under a name. */
struct making {
	const char *name;
	mode_t mode;
	dev_t rdev;         /* of a device */
	const char *target; /* of a symlink, NULL: none */
};

/* What was found or made; its look-up is counted. */
struct found {
	struct inode *inode;
	struct stat st;
};

static errint_t directory_begin(struct fusefs *fs, fuse_ino_t node, struct directory *ret_directory)
{
	struct inode *inode = inode_of(fs->inodes, node);
	int fd;

	if (!inode)
		return -ESTALE;
	fd = inode_path_begin(fs->inodes, inode);
	if (fd < 0)
		return fd;
	*ret_directory = (struct directory){.inode = inode, .fd = fd};
	return 0;
}

static void directory_end(const struct directory *directory)
{
	inode_path_end(directory->inode);
}

/* Reply with FOUND, or with ERROR. If the reply returns -ENOENT, the kernel did not take it. */
static void reply_found(fuse_req_t req, struct fusefs *fs, errint_t error,
			const struct found *found)
{
	struct fuse_entry_param entry;

	if (error) {
		fusefs_reply_err(req, -error);
		return;
	}
	fusefs_entry(fs, found->inode, &found->st, &entry);
	if (fusefs_reply_entry(req, &entry) == -ENOENT)
		inode_forget(fs->inodes, found->inode, 1);
}

/* Reply to an open that made a file. */
static void reply_opened(fuse_req_t req, struct fusefs *fs, errint_t error,
			 const struct found *found, struct fuse_file_info *fi)
{
	struct fuse_entry_param entry;

	if (error) {
		fusefs_reply_err(req, -error);
		return;
	}
	fusefs_entry(fs, found->inode, &found->st, &entry);
	if (fusefs_reply_create(req, &entry, fi) != -ENOENT)
		return;
	fusefs_handle_undo(fs, fi->fh);
	inode_forget(fs->inodes, found->inode, 1);
}

/* ---- lookup and forget ---- */

static errint_t do_lookup(struct fusefs *fs, fuse_ino_t parent, const char *name,
			  struct found *ret_found)
{
	struct inode *inode = inode_of(fs->inodes, parent);

	if (!inode)
		return -ESTALE;
	return inode_lookup(fs->inodes, inode, name, &ret_found->inode, &ret_found->st);
}

void fusefs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fusefs *fs = fusefs_of_lent(req);
	const struct fuse_entry_param none = {.entry_timeout = fs->negative_timeout};
	struct found found;
	errint_t error = do_lookup(fs, parent, name, &found);

	/* Programs look in many places for a file that is in one of them. The kernel may remember
	 * where it is not. */
	if (error == -ENOENT && fs->negative_timeout > 0)
		fusefs_reply_entry(req, &none);
	else
		reply_found(req, fs, error, &found);
}

static void do_forget(struct fusefs *fs, fuse_ino_t node, uint64_t count)
{
	struct inode *inode = inode_of(fs->inodes, node);

	if (inode)
		inode_forget(fs->inodes, inode, count);
}

void fusefs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	do_forget(fusefs_of_lent(req), ino, nlookup);
	fuse_reply_none(req);
}

void fusefs_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t index = 0; index < count; index++)
		do_forget(fusefs_of_lent(req), forgets[index].ino, forgets[index].nlookup);
	fuse_reply_none(req);
}

/* ---- readlink ---- */

static errint_t do_readlink(struct fusefs *fs, fuse_ino_t node, char target[PATH_MAX + 1])
{
	struct inode *inode = inode_of(fs->inodes, node);
	ssize_t length;
	int fd;

	if (!inode)
		return -ESTALE;
	fd = inode_path_begin(fs->inodes, inode);
	if (fd < 0)
		return fd;
	length = readlinkat(fd, "", target, PATH_MAX + 1);
	if (length < 0)
		length = -errno;
	inode_path_end(inode);
	if (length < 0)
		return (errint_t)length;
	if (length > PATH_MAX)
		return -ENAMETOOLONG;
	target[length] = '\0';
	return 0;
}

/* The kernel is about to cache the target of a symbolic link, which takes a page. From the second
 * reading on the window notes that page. The first time the page is dropped, so a client that goes
 * through a tree once leaves no pages behind. Call it before the reply, until which the kernel
 * holds the page locked. Without memory the page stays until the kernel needs it for something
 * else. */
static void note_target(struct fusefs *fs, struct inode *inode)
{
	struct window_file **place = inode_window_file(inode);
	struct window_file *window;
	bool first;

	inode_lock(inode);
	inode_is_cached(inode);
	first = !*place;
	if (first)
		(void)window_file_new(fs->window, inode_node(inode), 0, place);
	window = *place;
	inode_unlock(inode);
	if (window && first)
		window_invalidate_soon(window);
	else if (window)
		window_note(window, 0, 1);
}

void fusefs_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct fusefs *fs = fusefs_of_lent(req);
	char target[PATH_MAX + 1];
	errint_t error = do_readlink(fs, ino, target);

	if (!error)
		note_target(fs, inode_of(fs->inodes, ino));
	if (error)
		fusefs_reply_err(req, -error);
	else
		fusefs_reply_readlink(req, target);
}

/* ---- objects that are made and not opened ---- */

static errint_t make_at(int directory_fd, const struct making *making)
{
	int result;

	if (making->target)
		result = symlinkat(making->target, directory_fd, making->name);
	else if (S_ISDIR(making->mode))
		result = mkdirat(directory_fd, making->name, making->mode & 07777);
	else
		result = mknodat(directory_fd, making->name, making->mode, making->rdev);
	return result < 0 ? -errno : 0;
}

/* Making it said that it exists: whether the request comes once more, and had made it. */
static bool was_made(int directory_fd, const struct making *making)
{
	mode_t type = making->mode & S_IFMT;
	const struct again_object object = {
		.mode = type ? type : S_IFREG,
		.rdev = making->rdev,
		.target = making->target,
	};

	return fusefs_again_made(directory_fd, making->name, &object);
}

static errint_t make_as_caller(fuse_req_t req, int directory_fd, const struct making *making)
{
	struct identity identity;
	errint_t error = identity_take_umask(req);

	if (!error)
		error = identity_assume(req, directory_fd, false, &identity);
	if (error)
		return error;
	session_change_begins(0, 0);
	do
		error = make_at(directory_fd, making);
	while (identity_insist(&identity, error));
	identity_restore();
	return error == -EEXIST && was_made(directory_fd, making) ? 0 : error;
}

static errint_t do_make(struct fusefs *fs, fuse_req_t req, fuse_ino_t parent,
			const struct making *making, struct found *ret_found)
{
	struct directory directory;
	errint_t error = directory_begin(fs, parent, &directory);

	if (error)
		return error;
	error = make_as_caller(req, directory.fd, making);
	if (!error)
		error = inode_lookup_at(fs->inodes, directory.fd, inode_device(directory.inode),
					making->name, &ret_found->inode, &ret_found->st);
	directory_end(&directory);
	return error;
}

void fusefs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct making making = {.name = name, .mode = mode, .rdev = rdev};
	struct fusefs *fs = fusefs_of(req);
	struct found found;
	errint_t error = do_make(fs, req, parent, &making, &found);

	reply_found(req, fs, error, &found);
}

void fusefs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct making making = {.name = name, .mode = (mode & 07777) | S_IFDIR};
	struct fusefs *fs = fusefs_of(req);
	struct found found;
	errint_t error = do_make(fs, req, parent, &making, &found);

	reply_found(req, fs, error, &found);
}

void fusefs_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	struct making making = {.name = name, .mode = S_IFLNK, .target = link};
	struct fusefs *fs = fusefs_of(req);
	struct found found;
	errint_t error = do_make(fs, req, parent, &making, &found);

	reply_found(req, fs, error, &found);
}

/* ---- files that are made and opened ---- */

static int open_as_caller(fuse_req_t req, int directory_fd, const char *name, int flags,
			  mode_t mode)
{
	struct identity identity;
	int fd = identity_take_umask(req);

	if (!fd)
		fd = identity_assume(req, directory_fd, false, &identity);
	if (fd)
		return fd;
	do {
		fd = TEMP_FAILURE_RETRY(openat(directory_fd, name, flags, mode));
		if (fd < 0)
			fd = -errno;
	} while (identity_insist(&identity, fd));
	identity_restore();
	return fd;
}

/* Open NAME, which the same request made before. Its mode may not let the caller open it. The maker
 * of a file may have it open all the same. */
static int open_made(int directory_fd, const char *name, int flags)
{
	int fd;

	identity_make_own();
	fd = openat(directory_fd, name, flags);
	return fd < 0 ? -errno : fd;
}

/* Open NAME in PARENT as the caller, or an unnamed file if NAME is NULL. Fails if NAME existed
 * before. */
static int open_new(struct fusefs *fs, fuse_req_t req, fuse_ino_t parent, const char *name,
		    mode_t mode, int client_flags)
{
	int flags = plan_source_flags(client_flags) & ~(O_CREAT | O_EXCL | O_TRUNC | O_TMPFILE);
	static const struct again_object file = {.mode = S_IFREG};
	struct directory directory;
	errint_t error = directory_begin(fs, parent, &directory);
	int fd;

	if (error)
		return error;
	flags |= O_CLOEXEC | O_NOFOLLOW;
	flags |= name ? O_CREAT | O_EXCL : O_TMPFILE | (client_flags & O_EXCL);
	session_change_begins(0, 0);
	fd = open_as_caller(req, directory.fd, name ? name : ".", flags, mode & 07777);
	if (fd == -EEXIST && fusefs_again_made(directory.fd, name, &file))
		fd = open_made(directory.fd, name, flags & ~(O_CREAT | O_EXCL));
	directory_end(&directory);
	/* Another process made the file, perhaps behind the mount. On ESTALE the kernel looks the
	 * name up again, and opens what is there if the caller may. */
	return fd == -EEXIST && !(client_flags & O_EXCL) ? -ESTALE : fd;
}

/* NAME is as in open_new(). */
static errint_t do_create(struct fusefs *fs, fuse_req_t req, fuse_ino_t parent, const char *name,
			  mode_t mode, struct fuse_file_info *fi, struct found *ret_found)
{
	errint_t error = fs->read_only ? -EROFS : fusefs_handle_take(fs, req);
	int fd;

	if (error)
		return error;
	fd = open_new(fs, req, parent, name, mode, fi->flags);
	error = fd < 0 ? fd : inode_lookup_fd(fs->inodes, fd, &ret_found->inode, &ret_found->st);
	if (error) {
		fusefs_handle_give(fs, fuse_req_ctx(req)->uid);
		if (fd >= 0)
			close(fd);
		return error;
	}
	error = fusefs_handle_new(fs, req, ret_found->inode, fd, fi);
	if (error)
		inode_forget(fs->inodes, ret_found->inode, 1);
	return error;
}

void fusefs_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		   struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of(req);
	struct found found;
	errint_t error = do_create(fs, req, parent, name, mode, fi, &found);

	reply_opened(req, fs, error, &found, fi);
}

void fusefs_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of(req);
	struct found found;
	errint_t error = do_create(fs, req, parent, NULL, mode, fi, &found);

	reply_opened(req, fs, error, &found, fi);
}

/* ---- remove ---- */

static errint_t remove_at(fuse_req_t req, int directory_fd, const char *name, int flags)
{
	struct identity identity;
	errint_t error = identity_assume(req, directory_fd, false, &identity);

	if (error)
		return error;
	identity_takes(&identity, directory_fd, name);
	do
		error = unlinkat(directory_fd, name, flags) < 0 ? -errno : 0;
	while (identity_insist(&identity, error));
	identity_restore();
	return error == -ENOENT && fusefs_again_removed() ? 0 : error;
}

/* A name of the file found as ST was removed. If that was its last name, what is kept of it is no
 * longer needed. */
static void name_gone(struct fusefs *fs, const struct stat *st)
{
	struct source_stamp stamp;

	if (!fs->copies || !S_ISREG(st->st_mode) || st->st_nlink != 1)
		return;
	source_stamp_of(st, &stamp);
	shared_copies_member_gone(fs->copies, &stamp);
}

/* The object that a name stands for, before the name may be gone. */
struct victim {
	int fd; /* O_PATH; -1: nothing there, as far as can be seen */
	struct stat st;
};

static void victim_begin(int directory_fd, const char *name, struct victim *ret_victim)
{
	identity_make_own();
	ret_victim->fd = openat(directory_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (ret_victim->fd >= 0 && fstat(ret_victim->fd, &ret_victim->st)) {
		close(ret_victim->fd);
		ret_victim->fd = -1;
	}
}

static const struct stat *victim_stat(const struct victim *victim)
{
	return victim->fd < 0 ? NULL : &victim->st;
}

/* End VICTIM, after the operation on it ended with ERROR. GOES: the operation removes its name. */
static void victim_end(struct fusefs *fs, const struct victim *victim, bool goes, errint_t error)
{
	if (victim->fd < 0)
		return;
	close(victim->fd);
	if (goes && !error)
		name_gone(fs, &victim->st);
}

static errint_t do_remove(struct fusefs *fs, fuse_req_t req, fuse_ino_t parent, const char *name,
			  int flags)
{
	struct directory directory;
	struct own_change change;
	struct victim victim;
	errint_t error = directory_begin(fs, parent, &directory);

	if (error)
		return error;
	victim_begin(directory.fd, name, &victim);
	if (victim.fd >= 0)
		inode_keep(fs->inodes, victim.fd, &victim.st);
	/* What is known of the file stays valid for its other names, and for clients that have it
	 * open. */
	fusefs_own_change_begin(fs, victim.fd, &change);
	fusefs_again_removes(victim_stat(&victim));
	error = remove_at(req, directory.fd, name, flags);
	fusefs_own_change_end(&change);
	victim_end(fs, &victim, true, error);
	directory_end(&directory);
	return error;
}

void fusefs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fusefs_reply_err(req, -do_remove(fusefs_of(req), req, parent, name, 0));
}

void fusefs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fusefs_reply_err(req, -do_remove(fusefs_of(req), req, parent, name, AT_REMOVEDIR));
}

/* ---- rename ---- */

static errint_t rename_at(fuse_req_t req, int from_fd, const char *name, int to_fd,
			  const char *newname, unsigned int flags)
{
	struct identity identity;
	/* The mode of one directory tells nothing about the other, nor about a directory that is
	 * moved. So the caller's groups are needed. */
	errint_t error = identity_assume(req, from_fd, from_fd != to_fd, &identity);

	if (error)
		return error;
	identity_takes(&identity, from_fd, name);
	identity_takes(&identity, to_fd, newname);
	do
		error = renameat2(from_fd, name, to_fd, newname, flags) < 0 ? -errno : 0;
	while (identity_insist(&identity, error));
	identity_restore();
	return error;
}

static errint_t do_rename(struct fusefs *fs, fuse_req_t req, fuse_ino_t parent, const char *name,
			  fuse_ino_t newparent, const char *newname, unsigned int flags)
{
	struct directory from;
	struct directory to;
	bool goes = !(flags & (RENAME_EXCHANGE | RENAME_NOREPLACE));
	struct own_change change;
	struct own_change replaced;
	struct victim moved;
	struct victim victim;
	errint_t error = directory_begin(fs, parent, &from);

	if (error)
		return error;
	if (newparent == parent)
		to = from;
	else
		error = directory_begin(fs, newparent, &to);
	if (!error) {
		victim_begin(from.fd, name, &moved);
		victim_begin(to.fd, newname, &victim);
		if (goes && victim.fd >= 0)
			inode_keep(fs->inodes, victim.fd, &victim.st);
		fusefs_own_change_begin(fs, moved.fd, &change);
		fusefs_own_change_begin(fs, victim.fd, &replaced);
		if (!fusefs_again_renamed(from.fd, name, victim_stat(&moved), to.fd, newname,
					  victim_stat(&victim), flags))
			error = rename_at(req, from.fd, name, to.fd, newname, flags);
		fusefs_own_change_end(&replaced);
		fusefs_own_change_end(&change);
		victim_end(fs, &victim, goes, error);
		victim_end(fs, &moved, false, error);
		if (newparent != parent)
			directory_end(&to);
	}
	directory_end(&from);
	return error;
}

void fusefs_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		   const char *newname, unsigned int flags)
{
	fusefs_reply_err(req,
			 -do_rename(fusefs_of(req), req, parent, name, newparent, newname, flags));
}

/* ---- link ---- */

static errint_t link_at(fuse_req_t req, int fd, int directory_fd, const char *name)
{
	struct identity identity;
	char path[PROC_FD_BYTES];
	errint_t error;

	/* AT_EMPTY_PATH would require CAP_DAC_READ_SEARCH. This way also works for a plain user,
	 * links a symlink itself, and finds a file that has no name yet. */
	proc_fd(path, fd);
	/* fs.protected_hardlinks also depends on the file's own permissions. */
	error = identity_assume(req, directory_fd, identity_groups_matter(req, fd), &identity);
	if (error)
		return error;
	identity.other_fd = fd;
	session_change_begins(0, 0);
	do
		error = linkat(AT_FDCWD, path, directory_fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno
											  : 0;
	while (identity_insist(&identity, error));
	identity_restore();
	return error == -EEXIST && fusefs_again_linked(directory_fd, name, fd) ? 0 : error;
}

static errint_t do_link(struct fusefs *fs, fuse_req_t req, fuse_ino_t node, fuse_ino_t newparent,
			const char *newname, struct found *ret_found)
{
	struct inode *inode = inode_of(fs->inodes, node);
	struct directory directory;
	struct own_change change;
	errint_t error;
	int fd;

	if (!inode)
		return -ESTALE;
	error = directory_begin(fs, newparent, &directory);
	if (error)
		return error;
	fd = inode_path_begin(fs->inodes, inode);
	if (fd < 0) {
		directory_end(&directory);
		return fd;
	}
	fusefs_own_change_begin(fs, fd, &change);
	error = link_at(req, fd, directory.fd, newname);
	fusefs_own_change_end(&change);
	/* By descriptor, not by name: it must be the same node. */
	if (!error)
		error = inode_lookup_fd(fs->inodes, fd, &ret_found->inode, &ret_found->st);
	inode_path_end(inode);
	directory_end(&directory);
	return error;
}

void fusefs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct fusefs *fs = fusefs_of(req);
	struct found found;
	errint_t error = do_link(fs, req, ino, newparent, newname, &found);

	reply_found(req, fs, error, &found);
}
