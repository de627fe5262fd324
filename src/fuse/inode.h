/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode.h - node id <-> source file
 *
 * There is one struct inode for each source object that the kernel knows of, found by (device,
 * inode number). Its node id is its number in the slab (slab.h), so a stale or forged id is
 * detected. It lives while the kernel's look-up count is above zero, or the daemon itself uses it.
 *
 * A million inodes need no million descriptors. Where the source file system has file handles and
 * the daemon may open them (CAP_DAC_READ_SEARCH), inodes in use have O_PATH descriptors, up to a
 * budget. The other inodes have file handles (path_cache.h). Objects of file systems mounted below
 * the source always have descriptors.
 */
#ifndef FOLDFS_INODE_H
#define FOLDFS_INODE_H

#include "foldfs/border.h"
#include "foldfs/plan.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <sys/stat.h>

struct cds_hlist_head;
struct inode;
struct inode_table;
struct session_slot;
struct slab;
struct slab_slot;
struct window_file;

/* A table over the source directory open as ROOT_FD (O_PATH or not; borrowed for the table's life).
 * WAY: which of the file systems mounted below it are served. Raises RLIMIT_NOFILE to its hard
 * limit. INODES: those of a table whose process has ended, which are taken over, also on failure;
 * NULL: none. -EPROTO: that was a table of another kind of inodes. Other -errno. */
errint_t inode_table_new(int root_fd, enum border_way way, struct slab *inodes,
			 struct inode_table **ret_table);
/* The memory of the inodes. */
const struct slab *inode_table_slab(const struct inode_table *table);
/* How large an inode is there, without its path. */
size_t inode_record_bytes(void);
/* For a slab whose process has ended, before there is a table: whether the object at SLOT is an
 * inode that the kernel knows; then *RET_FD is its descriptor, or -1. */
bool inode_is_alive(const struct slab_slot *slot, int *ret_fd);
/* The same: it has LOOKUPS; or the kernel has forgotten COUNT of those that it had. */
void inode_set_lookups(struct slab_slot *slot, uint64_t lookups);
void inode_forget_raw(struct slab_slot *slot, uint64_t count);
/* Start the thread that gives idle descriptors back. Signals are blocked by then. -errno. */
errint_t inode_table_start(struct inode_table *table);
/* Calls FORGET (see inode_table_on_forget()) for every inode left. */
void inode_table_free(struct inode_table *table);
/* Bytes of the inodes. */
uint64_t inode_table_bytes(const struct inode_table *table);
/* inode_table_spare(): how many of the process's descriptors clients' open files may take.
 * Constant. inode_table_make_room(): open files take COUNT now, so inodes that are not in use give
 * up descriptors for them. Without file handles inodes cannot do so; then they keep half. Any
 * thread. */
uint64_t inode_table_spare(const struct inode_table *table);
void inode_table_make_room(struct inode_table *table, uint64_t count);
uint64_t inode_table_count(const struct inode_table *table);

/* FORGET is called when an inode ends, with its window_file if it has one. Set once, before use. */
void inode_table_on_forget(struct inode_table *table, void (*forget)(struct window_file *));

/* The inode of a node id that the kernel sent. NULL: there is no such inode; answer ESTALE. */
struct inode *inode_of(struct inode_table *table, fuse_ino_t node);
fuse_ino_t inode_node(const struct inode *inode);
bool inode_is_regular(const struct inode *inode);
/* Whether it is a regular file or a directory. Opening a FIFO would block and opening a device
 * would act; the kernel opens such objects itself. */
bool inode_may_be_opened(const struct inode *inode);
dev_t inode_device(const struct inode *inode);
/* The inode number in the source, not the one shown to clients. */
ino_t inode_number(const struct inode *inode);
/* Whether the inode's file, found as ST through it, is no longer the file that was looked up: it
 * was parted from its links (links.h). The kernel must then look its name up again. */
bool inode_was_parted(const struct inode *inode, const struct stat *st);
/* Set in ST the device and number under which the content of the inode is known. Each of several
 * links that may be parted has its own. */
void inode_content_key(const struct inode *inode, struct stat *st);

/* Look up NAME in PARENT. Counts one look-up of the inode; *ret_stat is its attributes. -EXDEV: it
 * is on a file system that is not served (border.h). -EOVERFLOW: no inode number can be shown for
 * it. Other -errno. Any thread. */
errint_t inode_lookup(struct inode_table *table, struct inode *parent, const char *name,
		      struct inode **ret_inode, struct stat *ret_stat);
/* inode_lookup() for NAME in the directory open as DIRECTORY_FD (O_PATH or not), on DEVICE. */
errint_t inode_lookup_at(struct inode_table *table, int directory_fd, dev_t device,
			 const char *name, struct inode **ret_inode, struct stat *ret_stat);
/* inode_lookup() for an object open as FD (any kind of descriptor; stays the caller's). */
errint_t inode_lookup_fd(struct inode_table *table, int fd, struct inode **ret_inode,
			 struct stat *ret_stat);
/* Keep an inode that the caller knows to be alive, until inode_put(). Any thread. */
void inode_get(struct inode_table *table, struct inode *inode);
void inode_put(struct inode_table *table, struct inode *inode);
/* Find the inode of an object of TYPE (S_IFMT; 0: any) that the kernel knows of, and keep it until
 * inode_put(). NULL: the kernel knows none. The inode may be that of a removed object whose number
 * was given to this one: opening it tells (-ESTALE). Any thread. */
struct inode *inode_find(struct inode_table *table, dev_t device, ino_t number, mode_t type);
/* Take back the last look-up that SLOT counted: the kernel was not told of it. */
void inode_uncount(struct inode_table *table, struct session_slot *slot);
/* The kernel forgets COUNT look-ups, or did not get the answers that told it of them. */
void inode_forget(struct inode_table *table, struct inode *inode, uint64_t count);

/* From now on a look-up of the inode's object finds another inode. Clients that have this one open
 * keep it; it cannot be opened again. Does nothing for the root, which stays what it is. */
void inode_detach(struct inode_table *table, struct inode *inode);
bool inode_is_detached(const struct inode *inode);

/* An O_PATH descriptor of the inode, for *at() calls with AT_EMPTY_PATH or as a directory. -errno
 * (-ESTALE: the object is gone). Give it back with inode_path_end(); do not close it. The thread
 * may be lent; if this needs the daemon's rights, the thread is its own again afterwards. */
int inode_path_begin(struct inode_table *table, struct inode *inode);
void inode_path_end(struct inode *inode);

/* The object open as FD (O_PATH; stays the caller's), found as ST, is about to lose a name, and may
 * still be in use. From here on its inode has a descriptor, because not every file system finds an
 * unlinked file by its handle. Errors are ignored: they make nothing worse. */
void inode_keep(struct inode_table *table, int fd, const struct stat *st);
/* Somebody else has removed INODE's object. Do not keep its blocks, unless it is in use. */
void inode_let_go(struct inode_table *table, struct inode *inode);

/* The inode number that clients see for NUMBER on DEVICE (inode_number.h). FD is on DEVICE. It is
 * not looked at if a look-up has found something on DEVICE before. -EOVERFLOW: there is no number
 * left. -ENOMEM. */
errint_t inode_number_shown(struct inode_table *table, int fd, dev_t device, ino_t number,
			    ino_t *ret_shown);

/* The number that clients see for NAME in the directory open as DIRECTORY_FD, on DEVICE. -EXDEV: it
 * is not served; other -errno. */
errint_t inode_number_at(struct inode_table *table, int directory_fd, dev_t device,
			 const char *name, ino_t *ret_shown);
/* Whether directories on DEVICE list the real inode numbers of their entries, except where
 * something is mounted or a subvolume begins. */
bool inode_lists_agree(const struct inode_table *table, dev_t device);

/* The inode that clients see under the number SHOWN, kept until inode_put(). NULL: the kernel knows
 * none. */
struct inode *inode_shown(struct inode_table *table, ino_t shown);

/* A new descriptor of the inode, as open(2) with FLAGS would give; the caller closes it. Regular
 * files and directories only: -ENXIO for all others, which the kernel opens itself. -errno. With
 * -ESTALE the inode is detached, so that the kernel finds what its name means now. */
int inode_open(struct inode_table *table, struct inode *inode, int flags);

/* What the content side keeps with an inode (fusefs_handle.c): its window_file, made at the first
 * open. inode_lock() protects it and orders open against release. The lock is never held while
 * replying. */
void inode_lock(struct inode *inode);
void inode_unlock(struct inode *inode);
struct window_file **inode_window_file(struct inode *inode);
/* From here on the kernel may cache pages of the inode. Also under inode_lock(). */
void inode_is_cached(struct inode *inode);
/* Call VISIT for each regular file that is an inode; or for each inode of which the kernel may cache
 * pages. No other thread uses the table yet. */
void inode_table_each_file(struct inode_table *table,
			   void (*visit)(void *context, struct inode *inode), void *context);
void inode_table_each_cached(struct inode_table *table,
			     void (*visit)(void *context, struct inode *inode), void *context);
/* For regular files only: the handles that clients have open (fusefs_handle.h), and how the inode
 * is served while it is open. Also under inode_lock(). */
struct cds_hlist_head *inode_handles(struct inode *inode);
struct plan_hold *inode_plan(struct inode *inode);

/* What fusefs_dir.c keeps with a directory: the state of the directory that the kernel's cached
 * list shows. Under inode_lock(); all zero at first. */
struct directory_hold {
	struct timespec mtime; /* the directory's, when the list was begun */
	struct timespec ctime; /* the directory's, when the list was begun */
	uint32_t opens;
	bool again;  /* it was opened before */
	bool listed; /* the kernel has a list of that state, unless the directory was changed
		      * since */
	bool young;  /* a later change may get the same times */
	bool mixed;  /* clients that have it open may give the kernel entries of several states */
};
struct directory_hold *inode_directory(struct inode *inode);

/* For the audit: the inodes counted one by one, next to the totals that are kept. Holds one lock at
 * a time, each for a part of the inodes. For each part, the two live counts are of the same moment.
 * The other counts are exact if no name is looked up or forgotten meanwhile. */
struct inode_count {
	uint64_t live;        /* objects in the slab */
	uint64_t live_said;   /* the kept total */
	uint64_t hashed;      /* inodes found by number; the others have lost their object */
	uint64_t hashed_said; /* the kept total */
	uint64_t astray;      /* in a wrong chain, unmarked, or used by nobody */
	uint64_t slab;        /* bytes of the slab */
	uint64_t slab_said;   /* the kept total */
};
void inode_table_recount(struct inode_table *table, struct inode_count *ret_count);

#endif
