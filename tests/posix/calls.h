/* SPDX-License-Identifier: Apache-2.0 */
/* calls.h - calls that several topics make in the same way */
#ifndef FOLDFS_POSIX_CALLS_H
#define FOLDFS_POSIX_CALLS_H

#include "kit.h"

#include <stdint.h>

/* All of these give -errno on failure. */

/* How many names readdir(3) gives of the directory NAME, `.` and `..` among them. */
long count_entries(const char *name);
/* Only ever returns on failure, or not at all. */
long execute(const char *path);
/* Give the file that is open as FD the name NAME. */
long give_name(int fd, const char *name);

/* ---- ACLs ---- */

#define ACL_ACCESS    "system.posix_acl_access"
#define ACL_DEFAULT   "system.posix_acl_default"
#define ACL_UNDEFINED 0xffffffffu
#define ACL_ENTRIES   8200

enum {
	ACL_USER_OBJ = 0x01,
	ACL_USER = 0x02,
	ACL_GROUP_OBJ = 0x04,
	ACL_GROUP = 0x08,
	ACL_MASK = 0x10,
	ACL_OTHER = 0x20
};

struct acl_entry {
	unsigned tag;
	unsigned permissions;
	uint32_t id;
};

/* As setxattr(2) takes it: made by acl_binary(), which gives its length. At most ACL_ENTRIES. */
extern unsigned char acl_bytes[4 + ACL_ENTRIES * 8];
size_t acl_binary(const struct acl_entry *entries, size_t count);
/* The ACL of NAME, "tag:permissions:id " each, or the errno's name. In a buffer of its own. */
const char *acl_text(const char *name, const char *attribute);

#endif
