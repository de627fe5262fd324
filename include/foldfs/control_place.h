/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_place.h - where control sockets are; shared by foldfs and foldctl
 *
 * Places that nobody but root and the owner of the mount can take, in this order: /run/foldfs for
 * root's mounts, for another's /run/user/UID/foldfs; $XDG_RUNTIME_DIR/foldfs, $RUNTIME_DIRECTORY,
 * $XDG_STATE_HOME/foldfs/.control, and ~/.local/state/foldfs/.control by the list of users. The
 * daemon takes the first that it can have, foldctl looks at them in turn. The environment counts
 * only for the owner himself, so root finds the sockets that are in the first and the last place.
 *
 * A directory that was named (-o control=DIR, foldctl --control=DIR) goes before all of these: the
 * daemon takes it alone, and foldctl looks there first, whoever the owner is.
 */
#ifndef FOLDFS_CONTROL_PLACE_H
#define FOLDFS_CONTROL_PLACE_H

#include "foldfs/page.h"

#include <sys/types.h>

/* What foldctl is told by --control, and may be told by its environment. */
#define CONTROL_PLACE_VARIABLE "FOLDFS_CONTROL"
#define CONTROL_PLACES         6u

struct control_place {
	int fd;     /* of the directory; to close */
	char *path; /* for messages; to free */
};

/* NAMED, or where that is NULL the first place of the caller's that can be had; made if it is
 * missing. -errno of the last one tried, and *ret_place is cleared then. */
errint_t control_place_make(const char *named, struct control_place *ret_place);

/* Place number INDEX, from 0, of OWNER's, the first being what CONTROL_PLACE_VARIABLE says; -errno
 * if it is not there or not fit. *ret_place is cleared then. */
errint_t control_place_open(uid_t owner, unsigned index, struct control_place *ret_place);

void control_place_clear(struct control_place *place);

#endif
