/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_place.h - where control sockets are; shared by foldfs and foldctl
 *
 * Only root and the owner of the mount can take these places. In this order:
 *
 * - /run/foldfs for root's mounts, /run/user/UID/foldfs for another user's
 * - $XDG_RUNTIME_DIR/foldfs
 * - $RUNTIME_DIRECTORY
 * - $XDG_STATE_HOME/foldfs/.control
 * - ~/.local/state/foldfs/.control, with the home from the list of users
 *
 * The daemon takes the first place that it can have; foldctl looks at them in turn. The environment
 * counts only for the owner. So root finds another user's socket only if it is in the first or the
 * last place.
 *
 * A directory that was named (-o control=DIR, foldctl --control=DIR) goes before all of these. The
 * daemon then uses only that one. foldctl looks there first, whoever the owner is.
 */
#ifndef FOLDFS_CONTROL_PLACE_H
#define FOLDFS_CONTROL_PLACE_H

#include "foldfs/page.h"

#include <sys/types.h>

/* foldctl sets this variable from --control; the environment may set it too. */
#define CONTROL_PLACE_VARIABLE "FOLDFS_CONTROL"
#define CONTROL_PLACES         6u

struct control_place {
	int fd;     /* of the directory; to close */
	char *path; /* for messages; to free */
};

/* Open NAMED, or if that is NULL the first of the caller's places that can be had. Makes it if it
 * is missing. -errno of the last place tried; *ret_place is cleared then. */
errint_t control_place_make(const char *named, struct control_place *ret_place);

/* Open place number INDEX (from 0) of OWNER's. Place 0 is what CONTROL_PLACE_VARIABLE says. -errno
 * if it is not there or not fit; *ret_place is cleared then. */
errint_t control_place_open(uid_t owner, unsigned index, struct control_place *ret_place);

void control_place_clear(struct control_place *place);

#endif
