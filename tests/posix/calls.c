/* SPDX-License-Identifier: Apache-2.0 */
/* calls.c - calls that several topics make in the same way */
#include "calls.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

long count_entries(const char *name)
{
	DIR *directory = opendir(name);
	long count = 0;

	if (!directory)
		return -errno;
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

long execute(const char *path)
{
	char *const arguments[] = {(char[]){"x"}, NULL};

	return TRY(execve(path, arguments, arguments + 1));
}

long give_name(int fd, const char *name)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return TRY(linkat(AT_FDCWD, path, AT_FDCWD, name, AT_SYMLINK_FOLLOW));
}

/* ---- ACLs ---- */

/* Version 2, then (tag, permissions, id) each. */
unsigned char acl_bytes[4 + ACL_ENTRIES * 8];

size_t acl_binary(const struct acl_entry *entries, size_t count)
{
	unsigned char *at = acl_bytes;

	memcpy(at, (unsigned char[4]){2}, 4);
	at += 4;
	for (size_t index = 0; index < count; index++, at += 8) {
		uint16_t tag = (uint16_t)entries[index].tag;
		uint16_t permissions = (uint16_t)entries[index].permissions;

		memcpy(at, &tag, 2);
		memcpy(at + 2, &permissions, 2);
		memcpy(at + 4, &entries[index].id, 4);
	}
	return (size_t)(at - acl_bytes);
}

const char *acl_text(const char *name, const char *attribute)
{
	static char text[512];
	unsigned char bytes[1024];
	ssize_t length = lgetxattr(name, attribute, bytes, sizeof(bytes));

	if (length < 0)
		return result_name(-errno);
	text[0] = '\0';
	for (ssize_t at = 4; at + 8 <= length && strlen(text) < 480; at += 8)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%x:%o:%x ", bytes[at],
			 bytes[at + 2], bytes[at + 4] | bytes[at + 5] << 8);
	return text;
}
