/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode.h - node id <-> source file
 *
 * One struct inode for each source object that the kernel knows of, found by (device, inode
 * number). Its node id is its address; a magic number tells a stale or forged one. It lives while
 * the kernel's look-up count is above zero.
 *
 * A million inodes need no million descriptors. Where the source file system has file handles, and
 * the daemon may open them (CAP_DAC_READ_SEARCH), those that are in use have O_PATH descriptors, up
 * to a budget, and the others handles (path_cache.h). Objects of file systems mounted below the
 * source have descriptors always.
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
struct window_file;

/* A table over the source directory open as ROOT_FD (O_PATH or not; borrowed for the table's life).
 * WAY: what of the file systems mounted below it is served. Raises RLIMIT_NOFILE to its hard limit.
 * -errno. */
errint_t inode_table_new(int root_fd, enum border_way way, struct inode_table **ret_table);
/* Start what gives idle descriptors back. Signals are blocked by then. -errno. */
errint_t inode_table_start(struct inode_table *table);
/* Calls FORGET (see inode_table_on_forget) for every inode left. */
void inode_table_free(struct inode_table *table);
/* Bytes of the inodes. */
uint64_t inode_table_bytes(const struct inode_table *table);
/* Descriptors of the process that clients' open files may take, which COUNT of them do: inodes that
 * are not in use give theirs back for that. Without file handles they cannot, and half is theirs.
 * The first is constant. Any thread. */
uint64_t inode_table_spare(const struct inode_table *table);
void inode_table_make_room(struct inode_table *table, uint64_t count);
uint64_t inode_table_count(const struct inode_table *table);

/* Called when an inode goes, with the window_file it had, if any. Set once, before use. */
void inode_table_on_forget(struct inode_table *table, void (*forget)(struct window_file *));

/* The inode of a node id that the kernel sent. NULL if it never was one: answer ESTALE. */
struct inode *inode_of(struct inode_table *table, fuse_ino_t node);
fuse_ino_t inode_node(const struct inode *inode);
bool inode_is_regular(const struct inode *inode);
/* Whether it is a regular file or a directory: a FIFO would block, a device would act, and the
 * kernel opens such objects itself. */
bool inode_may_be_opened(const struct inode *inode);
dev_t inode_device(const struct inode *inode);
/* The source's number of it, not the one that is shown. */
ino_t inode_number(const struct inode *inode);
/* Whether the inode's file, found as ST through it, is another one than it was when it was looked
 * up: it was parted from its links (links.h). The kernel is to look its name up again. */
bool inode_was_parted(const struct inode *inode, const struct stat *st);
/* Under which device and number of ST what is known of the inode's content is kept: of links that
 * may be parted each has its own. */
void inode_content_key(const struct inode *inode, struct stat *st);

/* The inode of NAME in PARENT, one look-up counted; *ret_stat is its attributes. -EXDEV: it is of a
 * file system that is not served (border.h); -EOVERFLOW: there is no inode number to show for it;
 * other -errno. Any thread. */
errint_t inode_lookup(struct inode_table *table, struct inode *parent, const char *name,
		      struct inode **ret_inode, struct stat *ret_stat);
/* The same for NAME in the directory open as DIRECTORY_FD (O_PATH or not), on DEVICE. */
errint_t inode_lookup_at(struct inode_table *table, int directory_fd, dev_t device,
			 const char *name, struct inode **ret_inode, struct stat *ret_stat);
/* The same for an object open as FD (any kind of descriptor; stays the caller's). */
errint_t inode_lookup_fd(struct inode_table *table, int fd, struct inode **ret_inode,
			 struct stat *ret_stat);
/* One more look-up of an inode that the caller knows to live; inode_forget() gives it back. */
void inode_get(struct inode_table *table, struct inode *inode);
/* The inode of an object of TYPE (S_IFMT; 0: any) that the kernel knows of, with one look-up
 * counted, which keeps it until inode_forget(); NULL if it knows none. It may be that of a removed
 * object whose number this one was given: opening it tells (-ESTALE). Any thread. */
struct inode *inode_find(struct inode_table *table, dev_t device, ino_t number, mode_t type);
/* COUNT look-ups are forgotten; the last frees the inode. */
void inode_forget(struct inode_table *table, struct inode *inode, uint64_t count);

/* The next look-up of the inode's object finds another inode: who has this one open keeps it, and
 * nobody may open it again. Not of the root, which stays what it is. */
void inode_detach(struct inode_table *table, struct inode *inode);
bool inode_is_detached(const struct inode *inode);

/* An O_PATH descriptor of the inode, for *at() calls with AT_EMPTY_PATH or as a directory. -errno
 * (-ESTALE if it is gone). Give it back with inode_path_end(); not to be closed. The thread may be
 * lent: where that takes the daemon's rights, it is its own afterwards. */
int inode_path_begin(struct inode_table *table, struct inode *inode);
void inode_path_end(struct inode *inode);

/* The object open as FD (O_PATH; stays the caller's), found as ST, is about to lose a name, and may
 * still be in use: its inode has a descriptor from here on, because not every file system finds an
 * unlinked file by its handle. Errors are ignored: nothing gets worse. */
void inode_keep(struct inode_table *table, int fd, const struct stat *st);
/* Somebody else has removed INODE's object: its blocks are not kept, unless it is in use. */
void inode_let_go(struct inode_table *table, struct inode *inode);

/* The inode number for the client to see for NUMBER on DEVICE (inode_number.h), which FD is on. FD
 * is not looked at where a look-up found something on DEVICE. -EOVERFLOW: there is none;
 * -ENOMEM. */
errint_t inode_number_shown(struct inode_table *table, int fd, dev_t device, ino_t number,
			    ino_t *ret_shown);

/* The same for NAME in the directory open as DIRECTORY_FD, on DEVICE. -EXDEV: it is not served;
 * other -errno. */
errint_t inode_number_at(struct inode_table *table, int directory_fd, dev_t device,
			 const char *name, ino_t *ret_shown);
/* Whether directories on DEVICE list the numbers that their entries have, but where something is
 * mounted, or a subvolume begins. */
bool inode_lists_agree(const struct inode_table *table, dev_t device);

/* The inode that clients see under the number SHOWN, one look-up counted for the caller; NULL if
 * the kernel knows none. */
struct inode *inode_shown(struct inode_table *table, ino_t shown);

/* A new descriptor of the inode, as open(2) with FLAGS would give; the caller closes it. Regular
 * files and directories only: -ENXIO for the rest, which the kernel opens itself. -errno; with
 * -ESTALE the inode is detached, so that the kernel finds what its name means now. */
int inode_open(struct inode_table *table, struct inode *inode, int flags);

/* What the content side keeps with an inode (fusefs_handle.c): its window_file, made at the first open.
 * inode_lock() protects it and orders open against release; never held while replying. */
void inode_lock(struct inode *inode);
void inode_unlock(struct inode *inode);
struct window_file **inode_window_file(struct inode *inode);
/* Of regular files only, and so are these: the handles that clients have open (fusefs_handle.h),
 * and how the inode is served while it is open. */
struct cds_hlist_head *inode_handles(struct inode *inode);
struct plan_hold *inode_plan(struct inode *inode);

/* What fusefs_dir.c keeps with a directory: of what state the list is that the kernel caches of it.
 * Under inode_lock(); all zero at first. */
struct directory_hold {
	struct timespec mtime; /* as the list was begun */
	struct timespec ctime; /* the same */
	uint32_t opens;
	bool again;  /* it was opened before */
	bool listed; /* there is such a list, if nobody changed the directory since */
	bool young;  /* the times may be given to a later change too */
	bool mixed;  /* those who have it open may bring the kernel entries of several states */
};
struct directory_hold *inode_directory(struct inode *inode);

/* For the audit: the inodes, counted one by one, beside what the sums say. Holds one lock at a
 * time, for a part of them. The two live counts are of one moment for each part; the others are
 * exact when no name is looked up or forgotten meanwhile. */
struct inode_count {
	uint64_t live;        /* objects in the slab */
	uint64_t live_said;   /* what the sums say */
	uint64_t hashed;      /* inodes found by number; the rest has lost its object */
	uint64_t hashed_said; /* what the sums say */
	uint64_t astray;      /* in a wrong chain, unmarked, or without a look-up */
	uint64_t slab;        /* bytes of the slab */
	uint64_t slab_said;   /* what the sums say */
};
void inode_table_recount(struct inode_table *table, struct inode_count *ret_count);

#endif
