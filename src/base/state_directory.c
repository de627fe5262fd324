/* SPDX-License-Identifier: Apache-2.0 */
/* state_directory.c - where state that outlives a mount is kept */
#include "foldfs/state_directory.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* systemd's rule (systemd.unit(5), "String Escaping for Inclusion in Unit Names"): slashes become
 * '-'. All other characters except letters, digits, ':', '_' and '.' become \xXX, and so does a '.'
 * at the start. */
static errint_t escape_path(const char *path, char name[NAME_MAX + 1])
{
	size_t length = 0;
	size_t i;

	while (*path == '/')
		path++;
	for (i = 0; path[i]; i++) {
		unsigned char c = (unsigned char)path[i];
		bool plain = isalnum(c) || c == ':' || c == '_' || (c == '.' && i);

		if (length + 5 > NAME_MAX)
			return -ENAMETOOLONG;
		if (c == '/')
			name[length++] = '-';
		else if (plain)
			name[length++] = (char)c;
		else
			length += (size_t)sprintf(name + length, "\\x%02x", c);
	}
	if (!length)
		name[length++] = '-';
	name[length] = '\0';
	return 0;
}

/* Whether the system's directories are ours. They are not if root is that of a user namespace. A
 * unit may be able to write only to its own directory there. */
static bool is_systems(void)
{
	return geteuid() == 0 &&
	       (access("/var/lib/foldfs", W_OK) == 0 || access("/var/lib", W_OK) == 0);
}

errint_t state_directory(const char *base, const char *source, char **ret_directory)
{
	const char *state = getenv("XDG_STATE_HOME");
	const char *home = getenv("HOME");
	char name[NAME_MAX + 1];
	errint_t error = escape_path(source, name);
	int length;

	if (error)
		return error;
	if (base)
		length = asprintf(ret_directory, "%s/%s", base, name);
	else if (is_systems())
		length = asprintf(ret_directory, "/var/lib/foldfs/%s", name);
	else if (state && *state == '/')
		length = asprintf(ret_directory, "%s/foldfs/%s", state, name);
	else if (home && *home == '/')
		length = asprintf(ret_directory, "%s/.local/state/foldfs/%s", home, name);
	else
		return -ENOENT;
	return length < 0 ? -ENOMEM : 0;
}
