/* SPDX-License-Identifier: Apache-2.0 */
/* control_place.c - where control sockets are; shared by foldfs and foldctl */
#include "foldfs/control_place.h"

#include "foldfs/trusted_path.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The directory that the environment variable names, followed by BELOW; NULL if it names none. */
static char *by_environment(const char *variable, const char *below)
{
	const char *value = getenv(variable);
	char *path = NULL;

	/* systemd separates several directories by colons; the first one counts. */
	if (!value || *value != '/' ||
	    asprintf(&path, "%.*s%s", (int)strcspn(value, ":"), value, below) < 0)
		return NULL;
	return path;
}

static char *in_home(uid_t owner)
{
	const struct passwd *user = getpwuid(owner);
	char *path = NULL;

	if (!user || user->pw_dir[0] != '/' ||
	    asprintf(&path, "%s/.local/state/foldfs/.control", user->pw_dir) < 0)
		return NULL;
	return path;
}

/* Malloced; NULL: there is no such place. */
static char *path_of(uid_t owner, unsigned index)
{
	bool own = geteuid() == owner;
	char *path = NULL;

	switch (index) {
	case 0:
		return by_environment(CONTROL_PLACE_VARIABLE, "");
	case 1:
		if (owner == 0)
			return strdup("/run/foldfs");
		return asprintf(&path, "/run/user/%u/foldfs", owner) < 0 ? NULL : path;
	case 2:
		return own ? by_environment("XDG_RUNTIME_DIR", "/foldfs") : NULL;
	case 3:
		return own ? by_environment("RUNTIME_DIRECTORY", "") : NULL;
	case 4:
		return own ? by_environment("XDG_STATE_HOME", "/foldfs/.control") : NULL;
	default:
		return in_home(owner);
	}
}

/* Takes over PATH, malloced: it goes to *RET_PLACE, or is freed. */
static errint_t open_path(char *path, uid_t owner, bool make, struct control_place *ret_place)
{
	/* Anybody may look at root's directory; the socket itself refuses callers. */
	mode_t mode = owner == 0 ? 0755 : 0700;
	int fd = path ? trusted_path_open(path, owner, make, mode) : -ENOENT;

	if (fd < 0) {
		free(path);
		*ret_place = (struct control_place){.fd = -1};
		return fd;
	}
	*ret_place = (struct control_place){.fd = fd, .path = path};
	return 0;
}

errint_t control_place_make(const char *named, struct control_place *ret_place)
{
	errint_t error = -ENOENT;

	if (named)
		return open_path(strdup(named), geteuid(), true, ret_place);
	for (unsigned index = 1; error && index < CONTROL_PLACES; index++) {
		errint_t found = open_path(path_of(geteuid(), index), geteuid(), true, ret_place);

		/* An error other than -ENOENT says more than that a place does not exist, so it is
		 * kept. */
		if (!found || found != -ENOENT)
			error = found;
	}
	return error;
}

errint_t control_place_open(uid_t owner, unsigned index, struct control_place *ret_place)
{
	return open_path(path_of(owner, index), owner, false, ret_place);
}

void control_place_clear(struct control_place *place)
{
	if (place->fd >= 0)
		close(place->fd);
	free(place->path);
	*place = (struct control_place){.fd = -1};
}
