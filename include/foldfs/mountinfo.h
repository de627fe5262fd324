/* SPDX-License-Identifier: Apache-2.0 */
/* mountinfo.h - what /proc/self/mountinfo says of a foldfs mount; shared by foldfs and foldctl */
#ifndef FOLDFS_MOUNTINFO_H
#define FOLDFS_MOUNTINFO_H

#include "foldfs/page.h"

#include <stdbool.h>
#include <sys/types.h>

struct mount_entry {
	int id; /* another mount may get it once this one is gone */
	unsigned device_major;
	unsigned device_minor;
	uid_t owner;         /* user_id= of the mount */
	gid_t group;         /* group_id= of it */
	char *root;          /* the part of the file system that is mounted */
	char *source;        /* the mount's source field */
	char *mountpoint;    /* as the kernel names it */
	char *type;          /* e.g. fuse.foldfs */
	char *options;       /* of the mount: ro, nosuid, relatime, … */
	char *super_options; /* of its file system: ro, user_id=0, … */
};

/* The topmost mount at PATH. This never looks at PATH's last component itself, so a stuck mount
 * cannot block it. -ENOENT: nothing is mounted there. On success the caller clears the entry. */
errint_t mount_entry_find(const char *path, struct mount_entry *ret_entry);
/* The mount that FD is on. -ENOENT: the kernel does not say (before Linux 5.8). */
errint_t mount_entry_of_fd(int fd, struct mount_entry *ret_entry);
/* The mount with the id and the device of LIKE. With ANY, if that mount is gone, another one of the
 * same device (a bind mount). -ENOENT: there is none in this mount namespace. */
errint_t mount_entry_find_again(const struct mount_entry *like, bool any,
				struct mount_entry *ret_entry);
/* The root of the mount of ENTRY, as an O_PATH descriptor. Until it is closed only a lazy unmount
 * works. Asks the mount nothing. -ENOENT: something else is there by now. */
int mount_entry_open(const struct mount_entry *entry);
void mount_entry_clear(struct mount_entry *entry);
/* Copy ORIGINAL with all its texts. The caller clears *RET_ENTRY, which is left alone on failure.
 * -ENOMEM. */
errint_t mount_entry_copy(const struct mount_entry *original, struct mount_entry *ret_entry);
/* Call VISIT for every mount in FILE (NULL: /proc/self/mountinfo). The entry is valid during the
 * call. -errno of reading the file. */
errint_t mount_entries_visit(const char *file,
			     void (*visit)(void *context, const struct mount_entry *entry),
			     void *context);
/* Whether NAME is one of OPTIONS. */
bool mount_option_is_set(const char *options, const char *name);

/* The name of a mount's control socket, made of the mount's device number. control_place.h says in
 * which directory it is. */
#define MOUNT_SOCKET_NAME 32
void mount_socket_name(const struct mount_entry *entry, char name[MOUNT_SOCKET_NAME]);

#endif
