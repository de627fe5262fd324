/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs_dir.c - directories: opendir, readdir, readdirplus, releasedir, fsyncdir
 *
 * Each request is two functions: do_x() decides and returns an errno, fusefs_x() only replies.
 *
 * Offsets are the source's own (d_off). File systems keep them stable while a directory changes:
 * reading on from an offset neither skips nor repeats an entry that was there all the time. So a
 * handle keeps no entries between two requests, and a client's open directories cost no buffers.
 * Entries that were read but did not fit are read again. So no more is read than is likely to fit.
 *
 * Lists. If the kernel may keep names and attributes for a while, it may keep a directory's list as
 * well. (With short timeouts it would then look up one by one the entries that a readdirplus brings
 * at once.) A kept list is as good as asking: each opendir compares the directory's times. It has
 * the list dropped unless the times are those under which the list was begun.
 *
 * A list is also not kept while somebody has the directory open: the answer that drops an older
 * list may still be under way. An open that finds the directory changed then may not add to the
 * list. The reason: clients that are reading it already may bring entries from before the change.
 *
 * A list takes at least a page of memory. So a directory has one only from its second open on: a
 * client that goes through a tree once leaves no lists behind.
 *
 * Invariants:
 *  - A handle's mutex protects its descriptor's position; no reply is sent holding it.
 *  - A look-up is counted for an entry only after it is known that the entry fits. None is ever
 *    counted for "." and "..", for which the kernel counts none.
 */
#include "fusefs_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <urcu/compiler.h>

/* Entries are read in portions of these sizes. The smaller one has room for any single entry. */
#define PORTION_MAX (32u << 10)
#define PORTION_MIN 512u
/* How many times longer entries with attributes are than those without, for names of usual
 * length. */
#define PLUS_FACTOR 5u
/* How many seconds names and attributes must at least be kept for lists to be kept. */
#define LIST_TIMEOUT 30.0

/* The fields before the mutex outlive the process, except inode. They are constant. */
struct directory_handle {
	struct slab_slot slot; /* in fs->directories_open; published while the kernel has the
				* handle */
	uint64_t number;
	uint64_t node; /* of `inode`; 0: there is none */
	int fd;
	dev_t device;
	bool root;           /* it is the source's own directory */
	uid_t user;          /* the opener, to whose share of fs->open_handles it counts */
	struct inode *inode; /* kept, and counted in its hold. NULL: not counted */
	pthread_mutex_t mutex;
	off_t position;            /* of the next entry that fd would read; under mutex */
	struct cds_list_head link; /* in fs->directories, under fs->handles_lock */
};

/* An answer that is being built. */
struct listing {
	struct fusefs *fs;
	fuse_req_t req;
	bool plus;
	char *bytes;
	size_t size;
	size_t used;
	char *entries; /* of the source, each a struct dirent64 */
	size_t taken;  /* bytes of entries that were handed on */
	size_t filled; /* bytes of entries that were read */
};

errint_t fusefs_directories_new(struct fusefs *fs, struct slab *earlier)
{
	fs->directories_open = earlier;
	if (earlier)
		return slab_object_bytes(earlier) - sizeof(struct directory_handle) < SLAB_ALIGNMENT
			       ? 0
			       : -EPROTO;
	return slab_new("foldfs-directories", sizeof(struct directory_handle),
			&fs->directories_open);
}

size_t fusefs_directory_bytes(void)
{
	return sizeof(struct directory_handle);
}

static struct directory_handle *handle_of(const struct fusefs *fs, uint64_t number)
{
	struct slab_slot *slot = slab_get(fs->directories_open, number);

	FUSEFS_TSAN_REQUEST();
	return slot ? caa_container_of(slot, struct directory_handle, slot) : NULL;
}

uid_t fusefs_directory_user(const struct fusefs *fs, uint64_t fh)
{
	const struct directory_handle *handle = handle_of(fs, fh);

	return handle ? handle->user : 0;
}

/* ---- after a takeover ---- */

int fusefs_directory_fd(const struct slab_slot *slot)
{
	return caa_container_of(slot, struct directory_handle, slot)->fd;
}

/* Those that have it open since before may still bring the kernel entries of any state. */
static void hold_rejoin(struct fusefs *fs, struct directory_handle *handle)
{
	handle->inode = handle->node ? inode_of(fs->inodes, handle->node) : NULL;
	if (!handle->inode)
		return;
	inode_directory(handle->inode)->opens++;
	inode_directory(handle->inode)->mixed = true;
	inode_get(fs->inodes, handle->inode);
}

struct revival {
	struct fusefs *fs;
	errint_t error; /* the first one */
};

static void revive(void *context, struct slab_slot *slot)
{
	struct directory_handle *handle = caa_container_of(slot, struct directory_handle, slot);
	struct revival *revival = context;
	struct fusefs *fs = revival->fs;
	errint_t error = shares_force(fs->open_handles, handle->user, 1);

	if (error) {
		revival->error = revival->error ? revival->error : error;
		return;
	}
	pthread_mutex_init(&handle->mutex, NULL);
	handle->position = -1;
	hold_rejoin(fs, handle);
	cds_list_add(&handle->link, &fs->directories);
}

errint_t fusefs_directories_revive(struct fusefs *fs)
{
	struct revival revival = {.fs = fs};

	slab_each(fs->directories_open, revive, &revival);
	return revival.error;
}

/* ---- open and release ---- */

static void handle_free(struct fusefs *fs, struct directory_handle *handle)
{
	close(handle->fd);
	fusefs_handle_give(fs, handle->user);
	pthread_mutex_destroy(&handle->mutex);
	slab_give(fs->directories_open, &handle->slot, handle->number);
}

/* Make a handle that takes over FD and what fusefs_handle_take() took for USER. On failure FD is
 * closed, but the other stays with the caller. */
static errint_t handle_new(struct fusefs *fs, int fd, bool root, uid_t user,
			   struct directory_handle **ret_handle, struct stat *ret_stat)
{
	struct directory_handle *handle;
	struct slab_slot *slot;
	uint64_t number;
	errint_t error =
		fstat(fd, ret_stat) < 0 ? -errno : slab_take(fs->directories_open, &slot, &number);

	if (error) {
		close(fd);
		return error;
	}
	handle = caa_container_of(slot, struct directory_handle, slot);
	handle->number = number;
	handle->fd = fd;
	handle->device = ret_stat->st_dev;
	handle->root = root;
	handle->user = user;
	pthread_mutex_init(&handle->mutex, NULL);
	pthread_mutex_lock(&fs->handles_lock);
	cds_list_add(&handle->link, &fs->directories);
	pthread_mutex_unlock(&fs->handles_lock);
	*ret_handle = handle;
	return 0;
}

void fusefs_directories_free(struct fusefs *fs)
{
	struct directory_handle *handle;
	struct directory_handle *next;

	cds_list_for_each_entry_safe (handle, next, &fs->directories, link)
		handle_free(fs, handle);
	CDS_INIT_LIST_HEAD(&fs->directories);
}

static bool time_equal(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Count one more open of the directory, found as ST. Decide whether the kernel may keep its list
 * (keep_cache), and make one (cache_readdir). See the head of this file. */
static void hold_open_locked(const struct fusefs *fs, struct directory_hold *hold,
			     const struct stat *st, struct fuse_file_info *fi)
{
	bool same = hold->listed && !hold->young && time_equal(&hold->mtime, &st->st_mtim) &&
		    time_equal(&hold->ctime, &st->st_ctim);
	struct source_stamp stamp;

	hold->mixed = hold->opens && (hold->mixed || !same);
	fi->keep_cache = same && !hold->opens;
	fi->cache_readdir = hold->again && !hold->mixed;
	hold->opens++;
	hold->listed = fi->cache_readdir;
	hold->again = true;
	if (same)
		return;
	source_stamp_of(st, &stamp);
	hold->young = file_table_doubts(fs->files, &stamp);
	hold->mtime = st->st_mtim;
	hold->ctime = st->st_ctim;
}

static void hold_open(struct fusefs *fs, struct inode *inode, struct directory_handle *handle,
		      const struct stat *st, struct fuse_file_info *fi)
{
	if (fs->entry_timeout < LIST_TIMEOUT || fs->attr_timeout < LIST_TIMEOUT)
		return;
	inode_lock(inode);
	hold_open_locked(fs, inode_directory(inode), st, fi);
	inode_unlock(inode);
	inode_get(fs->inodes, inode);
	handle->inode = inode;
	handle->node = inode_node(inode);
}

/* ANSWERED: the kernel got the answer to the open, and did what it says. */
static void handle_release(struct fusefs *fs, struct directory_handle *handle, bool answered)
{
	struct inode *inode = handle->inode;

	slab_withdraw(&handle->slot);
	if (inode) {
		inode_lock(inode);
		inode_directory(inode)->opens--;
		if (!answered)
			inode_directory(inode)->listed = false;
		inode_unlock(inode);
		inode_put(fs->inodes, inode);
	}
	pthread_mutex_lock(&fs->handles_lock);
	cds_list_del(&handle->link);
	pthread_mutex_unlock(&fs->handles_lock);
	handle_free(fs, handle);
}

void fusefs_directory_undo(struct fusefs *fs, uint64_t number)
{
	struct directory_handle *handle = handle_of(fs, number);

	if (handle)
		handle_release(fs, handle, false);
}

static errint_t do_opendir(struct fusefs *fs, fuse_req_t req, fuse_ino_t node,
			   struct directory_handle **ret_handle, struct fuse_file_info *fi)
{
	struct inode *inode = inode_of(fs->inodes, node);
	uid_t user = fuse_req_ctx(req)->uid;
	struct stat st;
	errint_t error;
	int fd;

	if (!inode)
		return -ESTALE;
	error = fusefs_handle_take(fs, req);
	if (error)
		return error;
	fd = fusefs_open_as_caller(fs, req, inode, O_RDONLY | O_DIRECTORY, true);
	error = fd < 0 ? fd : handle_new(fs, fd, node == FUSE_ROOT_ID, user, ret_handle, &st);
	if (error) {
		fusefs_handle_give(fs, user);
		return error;
	}
	hold_open(fs, inode, *ret_handle, &st, fi);
	session_has_made(SESSION_DIRECTORIES, (*ret_handle)->number);
	slab_publish(&(*ret_handle)->slot, (*ret_handle)->number);
	return 0;
}

void fusefs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of(req);
	struct directory_handle *handle = NULL;
	errint_t error = do_opendir(fs, req, ino, &handle, fi);

	if (error) {
		fusefs_reply_err(req, -error);
		return;
	}
	fi->fh = handle->number;
	if (fusefs_reply_open(req, fi) == -ENOENT)
		handle_release(fs, handle, false);
}

void fusefs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fusefs *fs = fusefs_of(req);
	struct directory_handle *handle = handle_of(fs, fi->fh);

	(void)ino;
	if (handle)
		handle_release(fs, handle, true);
	fusefs_reply_err(req, handle ? 0 : EBADF);
}

static errint_t do_fsyncdir(const struct fusefs *fs, int datasync, const struct fuse_file_info *fi)
{
	struct directory_handle *handle = handle_of(fs, fi->fh);

	if (!handle)
		return -EBADF;
	return TEMP_FAILURE_RETRY(datasync ? fdatasync(handle->fd) : fsync(handle->fd)) < 0 ? -errno
											    : 0;
}

void fusefs_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	fusefs_reply_err(req, -do_fsyncdir(fuse_req_userdata(req), datasync, fi));
}

/* ---- the source's entries ---- */

/* Make the entry at OFFSET the next one. 0 is rewinddir(3): show what is there now. */
static errint_t handle_seek_locked(struct directory_handle *handle, off_t offset)
{
	if (offset == handle->position && offset != 0)
		return 0;
	if (lseek(handle->fd, offset, SEEK_SET) < 0)
		return -errno;
	handle->position = offset;
	return 0;
}

/* How many bytes to read for the room that is left in LISTING. */
static size_t portion(const struct listing *listing)
{
	size_t room = (listing->size - listing->used) / (listing->plus ? PLUS_FACTOR : 1);

	if (room < PORTION_MIN)
		return PORTION_MIN;
	return room < PORTION_MAX ? room : PORTION_MAX;
}

/* The next entry. It stays the next one until listing_step_locked(). NULL at the end. */
static errint_t listing_peek_locked(struct listing *listing, struct directory_handle *handle,
				    const struct dirent64 **ret_entry)
{
	if (listing->taken == listing->filled) {
		long bytes =
			syscall(SYS_getdents64, handle->fd, listing->entries, portion(listing));

		if (bytes < 0)
			return -errno;
		listing->taken = 0;
		listing->filled = (size_t)bytes;
		/* Only the last entry tells the new position. It is unknown until that entry is
		 * handed on. */
		handle->position = -1;
	}
	*ret_entry =
		listing->filled
			? (const struct dirent64 *)(const void *)(listing->entries + listing->taken)
			: NULL;
	return 0;
}

static void listing_step_locked(struct listing *listing, struct directory_handle *handle,
				const struct dirent64 *entry)
{
	listing->taken += entry->d_reclen;
	if (listing->taken == listing->filled)
		handle->position = entry->d_off;
}

/* ---- the listing ---- */

static bool name_is_dots(const char *name)
{
	return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* How many bytes an entry with NAME takes. */
static size_t entry_bytes(const struct listing *listing, const char *name)
{
	if (listing->plus)
		return fuse_add_direntry_plus(listing->req, NULL, 0, name, NULL, 0);
	return fuse_add_direntry(listing->req, NULL, 0, name, NULL, 0);
}

/* Whether the entry's number may differ from that in the source's list: it may be on another
 * device, or on a file system whose lists are not exact. Never looks at the directory that contains
 * the source. */
static bool number_is_doubtful(const struct listing *listing, const struct directory_handle *handle,
			       const struct dirent64 *dirent)
{
	if (handle->root && strcmp(dirent->d_name, "..") == 0)
		return false;
	return dirent->d_type == DT_DIR || dirent->d_type == DT_UNKNOWN ||
	       !inode_lists_agree(listing->fs->inodes, handle->device);
}

/* What to show for an entry that is not looked up. -ENOENT: it has vanished. */
static errint_t entry_plain(struct listing *listing, struct directory_handle *handle,
			    const struct dirent64 *dirent, struct fuse_entry_param *ret_entry)
{
	struct inode_table *inodes = listing->fs->inodes;
	struct stat st = {.st_dev = handle->device, .st_ino = dirent->d_ino};
	errint_t error = 0;

	*ret_entry = (struct fuse_entry_param){.attr.st_mode = DTTOIF(dirent->d_type)};
	if (number_is_doubtful(listing, handle, dirent))
		error = inode_number_at(inodes, handle->fd, handle->device, dirent->d_name,
					&ret_entry->attr.st_ino);
	else
		error = inode_number_shown(inodes, handle->fd, st.st_dev, st.st_ino,
					   &ret_entry->attr.st_ino);
	/* If an entry cannot be looked at, show the number in the list: that of what lies under
	 * it. */
	if (error && error != -ENOENT && error != -EOVERFLOW && error != -ENOMEM)
		error = inode_number_shown(inodes, handle->fd, st.st_dev, st.st_ino,
					   &ret_entry->attr.st_ino);
	return error;
}

/* Like entry_plain(), but with attributes if they can be had; then its look-up is counted. */
static errint_t entry_plus(struct listing *listing, struct directory_handle *handle,
			   const struct dirent64 *dirent, struct fuse_entry_param *ret_entry)
{
	struct inode *inode;
	struct stat st;
	errint_t error;

	if (name_is_dots(dirent->d_name))
		return entry_plain(listing, handle, dirent, ret_entry);
	error = inode_lookup_at(listing->fs->inodes, handle->fd, handle->device, dirent->d_name,
				&inode, &st);
	if (!error)
		fusefs_entry(listing->fs, inode, &st, ret_entry);
	else if (error != -ENOENT)
		error = entry_plain(listing, handle, dirent, ret_entry);
	return error;
}

/* Add an entry that fits. The kernel takes node 0 as "not looked up". An entry that has vanished
 * since is left out. */
static errint_t listing_add(struct listing *listing, struct directory_handle *handle,
			    const struct dirent64 *dirent)
{
	char *to = listing->bytes + listing->used;
	size_t room = listing->size - listing->used;
	struct fuse_entry_param entry;
	errint_t error = listing->plus ? entry_plus(listing, handle, dirent, &entry)
				       : entry_plain(listing, handle, dirent, &entry);

	if (error)
		return error == -ENOENT ? 0 : error;
	if (listing->plus)
		listing->used += fuse_add_direntry_plus(listing->req, to, room, dirent->d_name,
							&entry, dirent->d_off);
	else
		listing->used += fuse_add_direntry(listing->req, to, room, dirent->d_name,
						   &entry.attr, dirent->d_off);
	return 0;
}

/* Whether reading more is likely to be in vain, because it would have to be read again. */
static bool is_nearly_full(const struct listing *listing)
{
	return listing->used && listing->taken == listing->filled &&
	       listing->size - listing->used < PORTION_MIN;
}

static errint_t listing_fill_locked(struct listing *listing, struct directory_handle *handle,
				    off_t offset)
{
	const struct dirent64 *dirent = NULL;
	errint_t error = handle_seek_locked(handle, offset);

	while (!error && !is_nearly_full(listing)) {
		error = listing_peek_locked(listing, handle, &dirent);
		if (error || !dirent)
			break;
		if (entry_bytes(listing, dirent->d_name) > listing->size - listing->used)
			break;
		error = listing_add(listing, handle, dirent);
		if (!error)
			listing_step_locked(listing, handle, dirent);
	}
	/* Entries that were collected go out first. The error comes again with the next request. */
	return listing->used > 0 ? 0 : error;
}

static errint_t do_readdir(struct listing *listing, off_t offset, const struct fuse_file_info *fi)
{
	struct directory_handle *handle = handle_of(listing->fs, fi->fh);
	errint_t error;

	if (!handle)
		return -EBADF;
	listing->bytes = malloc(listing->size);
	listing->entries = malloc(PORTION_MAX);
	if (!listing->bytes || !listing->entries)
		return -ENOMEM;
	pthread_mutex_lock(&handle->mutex);
	error = listing_fill_locked(listing, handle, offset);
	pthread_mutex_unlock(&handle->mutex);
	return error;
}

static void reply_readdir(fuse_req_t req, size_t size, off_t offset, bool plus,
			  const struct fuse_file_info *fi)
{
	struct listing listing = {.fs = fusefs_of(req), .req = req, .plus = plus, .size = size};
	errint_t error = do_readdir(&listing, offset, fi);

	/* A reply fails only if the connection has ended, and every look-up with it. */
	if (error)
		fusefs_reply_err(req, -error);
	else
		fusefs_reply_buf(req, listing.bytes, listing.used);
	free(listing.bytes);
	free(listing.entries);
}

void fusefs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	(void)ino;
	reply_readdir(req, size, off, false, fi);
}

void fusefs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			struct fuse_file_info *fi)
{
	(void)ino;
	reply_readdir(req, size, off, true, fi);
}
