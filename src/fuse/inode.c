/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode.c - node id <-> source file
 *
 * Invariants:
 *  I.1  An inode is hashed under (device, inode number) as long as that pair means its object.
 *       An inode with a descriptor pins its object, so the pair cannot come to mean another one. An
 *       inode with only a file handle does not pin it. For such an inode a look-up compares
 *       handles. If its object is gone, the inode is taken out of the hash. Requests for it are
 *       then answered with ESTALE until the kernel forgets it.
 *       An inode with a descriptor is also taken out if the source says ESTALE of it: a network
 *       file system reuses the number of a removed file even while a descriptor is open.
 *       A look-up has a descriptor of what it found. So if the inode has one at that moment, both
 *       are of one object, whatever happens to the inode's descriptor next (path_cache.h).
 *       Where links may be parted (links.h), several inodes have one pair, one for each inode of
 *       the kernel's. Such an inode is detached when its file gets another number.
 *  I.2  The look-up count and the number of our own uses change only under the shard's mutex. An
 *       inode leaves the hash in the same critical section in which both reach zero.
 *
 * Race of a look-up with the last forget: both take the shard's mutex.
 *  - If the look-up comes first, the look-up count is not zero after the forget, and the inode stays. The
 *    kernel's forget counts only replies that it has seen, and ours is not among them yet.
 *  - If the forget comes first, the look-up does not find the inode (I.2), and makes a new one with
 *    another node id.
 *
 * A request for an inode cannot race with the inode's end: the kernel sends the last forget only
 * when nothing of the inode is in use any more.
 *
 * Locks: the shard's mutex, then that of the slab, of links or of the descriptors. An inode's own
 * mutex belongs to the content side and comes before all of these. No system call that may block is
 * made under a shard's mutex.
 */
#include "inode_internal.h"

#include "foldfs/proc_fd.h"
#include "foldfs/session.h"
#include "foldfs/thread_identity.h"
#include "source_handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <urcu/compiler.h>

#define APART_DEVICE ((dev_t)-1) /* no file system's */

/* What identifies an object: its numbers, and its handle if that matters. */
struct object {
	int fd; /* O_PATH; owned until an inode takes it, then a descriptor to close, or -1 */
	struct stat st;
	struct file_handle *handle; /* owned; NULL: it was not asked for */
	bool apart;                 /* as in struct inode */
};

/* ---- descriptors and handles ---- */

static void object_clear(struct object *object)
{
	if (object->fd >= 0)
		close(object->fd);
	free(object->handle);
}

/* Refuse an object for which no number can be shown, before it gets an inode. */
static errint_t object_number(struct inode_table *table, const struct object *object, dev_t parent)
{
	dev_t device = object->st.st_dev;
	errint_t error = inode_numbers_meet(table->numbers, object->fd, device, device != parent);
	ino_t shown;

	return error ? error
		     : inode_numbers_show(table->numbers, device, object->st.st_ino, &shown);
}

/* Initialize an object from FD, which is taken over: an O_PATH descriptor or a negative errno.
 * PARENT is the device of the directory that it was found in, or its own device. */
static errint_t object_init(struct inode_table *table, int fd, dev_t parent,
			    struct object *ret_object)
{
	struct object object = {.fd = fd};
	errint_t error;

	if (fd < 0)
		return fd;
	error = border_stat(&table->border, fd, "", parent, &object.st);
	if (!error)
		error = object_number(table, &object, parent);
	if (error) {
		close(fd);
		return error;
	}
	object.apart = object.st.st_nlink > 1 && !S_ISDIR(object.st.st_mode) &&
		       inode_numbers_part(table->numbers, object.st.st_dev);
	if (object.apart)
		identity_make_own();
	*ret_object = object;
	return 0;
}

/* ---- an inode's life ---- */

void inode_init(struct inode *inode, const struct stat *st, bool apart)
{
	inode->device = st->st_dev;
	inode->number = st->st_ino;
	inode->type = st->st_mode & S_IFMT;
	inode->apart = apart;
	pthread_mutex_init(&inode->mutex, NULL);
}

void inode_free(struct inode_table *table, struct inode *inode)
{
	int fd = path_slot_end(&table->paths, &inode->path);
	uint64_t node = inode_node(inode);

	if (table->forget && inode->type != S_IFDIR && inode->window_file)
		table->forget(inode->window_file);
	if (fd >= 0)
		close(fd);
	pthread_mutex_destroy(&inode->mutex);
	slab_give(table->slab, &inode->slot, node);
}

static errint_t inode_new_locked(struct inode_table *table, struct shard *shard,
				 struct object *object, struct inode **ret_inode)
{
	struct slab_slot *slot;
	struct inode *inode;
	uint64_t node;
	errint_t error = slab_take(table->slab, &slot, &node);

	if (error)
		return error;
	inode = caa_container_of(slot, struct inode, slot);
	inode_init(inode, &object->st, object->apart);
	object->fd =
		path_slot_begin(&table->paths, &inode->path, object->fd, inode->type == S_IFDIR);
	/* A file handle would not tell by which of its names the file was found. */
	if (inode->apart)
		(void)path_pin(&table->paths, &inode->path, -1);
	slab_publish(slot, node);
	inode_shard_insert_locked(table, shard, inode);
	*ret_inode = inode;
	return 0;
}

/*
 * Whether INODE, found under OBJECT's numbers, is the object (I.1). If so, it has a descriptor
 * afterwards. -EAGAIN: only OBJECT's handle can tell, and OBJECT has none yet.
 */
static errint_t inode_same_locked(struct inode_table *table, struct inode *inode,
				  struct object *object, bool *ret_same)
{
	*ret_same = true;
	if (path_is_open(&inode->path))
		return 0;
	if (!object->handle)
		return -EAGAIN;
	*ret_same = source_handle_equal(path_handle(&inode->path), object->handle);
	if (*ret_same)
		object->fd = path_offer(&table->paths, &inode->path, object->fd);
	return 0;
}

/* In the chain from INODE on, find the inode that is OBJECT, whose links may be parted. NULL: none
 * is. Makes system calls, but none that may block. */
static struct inode *shard_find_link_locked(struct inode_table *table, struct inode *inode,
					    const struct object *object)
{
	for (; inode; inode = inode->next) {
		int fd = -1;
		bool one;

		if (inode->number == object->st.st_ino && inode->device == object->st.st_dev)
			fd = path_get_open(&table->paths, &inode->path);
		if (fd < 0)
			continue;
		one = links_are_one(&table->links, fd, object->fd);
		path_put(&inode->path);
		if (one)
			return inode;
	}
	return NULL;
}

/* Find or make the inode of OBJECT and count a look-up. */
static errint_t table_count_locked(struct inode_table *table, struct shard *shard,
				   struct object *object, struct inode **ret_inode)
{
	struct inode *inode = inode_shard_find_locked(shard, object->st.st_dev, object->st.st_ino);
	bool same = false;
	errint_t error;

	if (object->apart) {
		inode = shard_find_link_locked(table, inode, object);
		same = inode;
	} else if (inode) {
		error = inode_same_locked(table, inode, object, &same);
		if (error)
			return error;
		if (!same)
			inode_shard_remove_locked(shard, inode);
	}
	if (!same) {
		error = inode_new_locked(table, shard, object, &inode);
		if (error)
			return error;
	}
	session_count_begin(inode_node(inode), inode->lookups + 1);
	inode->lookups++;
	session_count_end();
	*ret_inode = inode;
	return 0;
}

static errint_t table_count(struct inode_table *table, struct object *object,
			    struct inode **ret_inode)
{
	struct shard *shard = inode_shard_of(table, object->st.st_dev, object->st.st_ino);
	errint_t error;

	pthread_mutex_lock(&shard->mutex);
	error = table_count_locked(table, shard, object, ret_inode);
	pthread_mutex_unlock(&shard->mutex);
	if (error != -EAGAIN)
		return error;

	/* The inode of that number has no descriptor. Try once more, with a handle. */
	object->handle = source_handle_get(&table->paths.objects, object->fd);
	if (!object->handle)
		return -ESTALE;
	pthread_mutex_lock(&shard->mutex);
	error = table_count_locked(table, shard, object, ret_inode);
	pthread_mutex_unlock(&shard->mutex);
	return error;
}

/* FD and PARENT are as in object_init(). */
static errint_t lookup_fd(struct inode_table *table, int fd, dev_t parent, struct inode **ret_inode,
			  struct stat *ret_stat)
{
	struct object object;
	errint_t error = object_init(table, fd, parent, &object);

	if (error)
		return error;
	error = table_count(table, &object, ret_inode);
	if (!error)
		*ret_stat = object.st;
	object_clear(&object);
	return error;
}

static bool name_is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

errint_t inode_lookup_at(struct inode_table *table, int directory_fd, dev_t device,
			 const char *name, struct inode **ret_inode, struct stat *ret_stat)
{
	int fd;

	/* Only a name below the source, never a way out of it. */
	if (name_is_dots(name) || strchr(name, '/'))
		return -EINVAL;
	do
		fd = openat(directory_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	while (fd < 0 && identity_was_lent(errno));
	return lookup_fd(table, fd < 0 ? -errno : fd, device, ret_inode, ret_stat);
}

errint_t inode_lookup(struct inode_table *table, struct inode *parent, const char *name,
		      struct inode **ret_inode, struct stat *ret_stat)
{
	int directory_fd = inode_path_begin(table, parent);
	errint_t error;

	if (directory_fd < 0)
		return directory_fd;
	error = inode_lookup_at(table, directory_fd, parent->device, name, ret_inode, ret_stat);
	inode_path_end(parent);
	return error;
}

errint_t inode_lookup_fd(struct inode_table *table, int fd, struct inode **ret_inode,
			 struct stat *ret_stat)
{
	char path[PROC_FD_BYTES];
	struct stat st;
	int path_fd;

	/* FD is open already, so no border is crossed. */
	if (fstat(fd, &st))
		return -errno;
	/* Not a duplicate: that would keep the caller's file open, perhaps for writing. */
	proc_fd(path, fd);
	path_fd = open(path, O_PATH | O_CLOEXEC);
	return lookup_fd(table, path_fd < 0 ? -errno : path_fd, st.st_dev, ret_inode, ret_stat);
}

void inode_get(struct inode_table *table, struct inode *inode)
{
	struct shard *shard = inode_shard_of(table, inode->device, inode->number);

	pthread_mutex_lock(&shard->mutex);
	inode->uses++;
	pthread_mutex_unlock(&shard->mutex);
}

struct inode *inode_find(struct inode_table *table, dev_t device, ino_t number, mode_t type)
{
	struct shard *shard = inode_shard_of(table, device, number);
	struct inode *inode;

	pthread_mutex_lock(&shard->mutex);
	inode = inode_shard_find_locked(shard, device, number);
	/* Without a descriptor the inode may be of an object that had the number before. */
	if (inode && type && inode->type != type)
		inode = NULL;
	if (inode)
		inode->uses++;
	pthread_mutex_unlock(&shard->mutex);
	return inode;
}

/* Give back COUNT look-ups of the kernel's, and USES of ours. */
static void give_back(struct inode_table *table, struct inode *inode, uint64_t count, uint32_t uses)
{
	struct shard *shard = inode_shard_of(table, inode->device, inode->number);
	bool last;

	pthread_mutex_lock(&shard->mutex);
	count = count < inode->lookups ? count : inode->lookups;
	if (count)
		session_count_begin(inode_node(inode), inode->lookups - count);
	inode->lookups -= count;
	if (count)
		session_count_end();
	inode->uses -= uses;
	last = !inode->lookups && !inode->uses && !inode_is_root(table, inode);
	if (last)
		inode_shard_remove_locked(shard, inode);
	pthread_mutex_unlock(&shard->mutex);
	if (last)
		inode_free(table, inode);
}

void inode_uncount(struct inode_table *table, struct session_slot *slot)
{
	struct inode *inode = inode_of(table, slot->nodes[slot->counted - 1]);
	struct shard *shard;

	if (!inode) {
		slot->counted--;
		return;
	}
	inode_get(table, inode);
	shard = inode_shard_of(table, inode->device, inode->number);
	pthread_mutex_lock(&shard->mutex);
	session_uncount_begin(slot, inode->lookups - 1);
	inode->lookups--;
	session_uncount_end(slot);
	pthread_mutex_unlock(&shard->mutex);
	inode_put(table, inode);
}

void inode_put(struct inode_table *table, struct inode *inode)
{
	give_back(table, inode, 0, 1);
}

void inode_forget(struct inode_table *table, struct inode *inode, uint64_t count)
{
	give_back(table, inode, count, 0);
}

void inode_detach(struct inode_table *table, struct inode *inode)
{
	struct shard *shard = inode_shard_of(table, inode->device, inode->number);

	if (inode_is_root(table, inode))
		return;
	pthread_mutex_lock(&shard->mutex);
	inode_shard_remove_locked(shard, inode);
	pthread_mutex_unlock(&shard->mutex);
	atomic_store_explicit(&inode->detached, true, memory_order_release);
}

bool inode_is_detached(const struct inode *inode)
{
	return atomic_load_explicit(&inode->detached, memory_order_acquire);
}

/* ---- use of an inode ---- */

struct inode *inode_of(struct inode_table *table, fuse_ino_t node)
{
	struct slab_slot *slot;

	if (node == FUSE_ROOT_ID)
		return table->root;
	slot = slab_get(table->slab, node);
	return slot ? caa_container_of(slot, struct inode, slot) : NULL;
}

fuse_ino_t inode_node(const struct inode *inode)
{
	return atomic_load_explicit(&inode->slot.id, memory_order_relaxed);
}

bool inode_is_regular(const struct inode *inode)
{
	return inode->type == S_IFREG;
}

bool inode_may_be_opened(const struct inode *inode)
{
	return inode->type == S_IFREG || inode->type == S_IFDIR;
}

bool inode_was_parted(const struct inode *inode, const struct stat *st)
{
	return inode->apart && (inode->number != st->st_ino || inode->device != st->st_dev);
}

void inode_content_key(const struct inode *inode, struct stat *st)
{
	if (!inode->apart)
		return;
	st->st_dev = APART_DEVICE;
	st->st_ino = inode_node(inode);
}

dev_t inode_device(const struct inode *inode)
{
	return inode->device;
}

ino_t inode_number(const struct inode *inode)
{
	return inode->number;
}

/* Whether the object open as FD, which has INODE's numbers, is INODE's (I.1). */
static bool is_of(struct inode_table *table, struct inode *inode, int fd)
{
	struct file_handle *handle;
	bool same;

	if (path_is_open(&inode->path))
		return true;
	handle = source_handle_get(&table->paths.objects, fd);
	same = handle && source_handle_equal(path_handle(&inode->path), handle);
	free(handle);
	return same;
}

int inode_path_begin(struct inode_table *table, struct inode *inode)
{
	return path_get(&table->paths, &inode->path);
}

void inode_path_end(struct inode *inode)
{
	path_put(&inode->path);
}

int inode_open(struct inode_table *table, struct inode *inode, int flags)
{
	char path[PROC_FD_BYTES];
	errint_t error;
	int path_fd;
	int fd;

	if (!(flags & O_PATH) && !inode_may_be_opened(inode))
		return -ENXIO;
	path_fd = path_get_open(&table->paths, &inode->path);
	flags = (flags & ~(O_NOFOLLOW | O_CREAT | O_EXCL)) | O_CLOEXEC;
	identity_make_own();
	if (path_fd < 0) {
		fd = TEMP_FAILURE_RETRY(source_handle_open(table->paths.objects.mount_fd,
							   path_handle(&inode->path), flags));
	} else {
		proc_fd(path, path_fd);
		fd = TEMP_FAILURE_RETRY(open(path, flags));
	}
	error = fd < 0 ? -errno : 0;
	if (path_fd >= 0)
		path_put(&inode->path);
	if (error == -ESTALE)
		inode_detach(table, inode);
	return error ? error : fd;
}

/* Make INODE's descriptor permanent: the one that it has, or else a duplicate of FD. */
static void pin(struct inode_table *table, struct inode *inode, int fd)
{
	int copy;

	/* A descriptor that is in use is not taken out. */
	if (path_get_open(&table->paths, &inode->path) >= 0) {
		(void)path_pin(&table->paths, &inode->path, -1);
		path_put(&inode->path);
		return;
	}
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy >= 0)
		copy = path_pin(&table->paths, &inode->path, copy);
	if (copy >= 0)
		close(copy);
}

void inode_keep(struct inode_table *table, int fd, const struct stat *st)
{
	struct inode *inode = inode_find(table, st->st_dev, st->st_ino, st->st_mode & S_IFMT);

	if (!inode)
		return;
	if (is_of(table, inode, fd))
		pin(table, inode, fd);
	inode_put(table, inode);
}

void inode_let_go(struct inode_table *table, struct inode *inode)
{
	path_let_go(&table->paths, &inode->path);
}

errint_t inode_number_shown(struct inode_table *table, int fd, dev_t device, ino_t number,
			    ino_t *ret_shown)
{
	errint_t error = inode_numbers_meet(table->numbers, fd, device, false);

	return error ? error : inode_numbers_show(table->numbers, device, number, ret_shown);
}

errint_t inode_number_at(struct inode_table *table, int directory_fd, dev_t device,
			 const char *name, ino_t *ret_shown)
{
	struct stat st;
	errint_t error = border_stat(&table->border, directory_fd, name, device, &st);
	int fd;

	if (!error)
		error = inode_numbers_show(table->numbers, st.st_dev, st.st_ino, ret_shown);
	if (error != -EOVERFLOW)
		return error;
	/* Perhaps the device was never met. To learn what it is takes a descriptor on it. */
	fd = openat(directory_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	error = inode_number_shown(table, fd, st.st_dev, st.st_ino, ret_shown);
	close(fd);
	return error;
}

bool inode_lists_agree(const struct inode_table *table, dev_t device)
{
	return table->border.local && device == table->border.device;
}

struct inode *inode_shown(struct inode_table *table, ino_t shown)
{
	dev_t device;
	ino_t number;

	return inode_numbers_find(table->numbers, shown, &device, &number)
		       ? NULL
		       : inode_find(table, device, number, 0);
}

void inode_lock(struct inode *inode)
{
	pthread_mutex_lock(&inode->mutex);
}

void inode_unlock(struct inode *inode)
{
	pthread_mutex_unlock(&inode->mutex);
}

struct window_file **inode_window_file(struct inode *inode)
{
	return &inode->window_file;
}

void inode_is_cached(struct inode *inode)
{
	inode->cached = true;
}

struct cds_hlist_head *inode_handles(struct inode *inode)
{
	return &inode->handles;
}

struct plan_hold *inode_plan(struct inode *inode)
{
	return &inode->plan;
}

struct directory_hold *inode_directory(struct inode *inode)
{
	return &inode->directory;
}
