/* SPDX-License-Identifier: Apache-2.0 */
/* preflight.h - before the mount: what can be wrong with it */
#ifndef FOLDFS_PREFLIGHT_H
#define FOLDFS_PREFLIGHT_H

#include "foldfs/page.h"

struct options;

/* Where the mount is made, and of what. */
struct place {
	char *source;     /* absolute */
	char *mountpoint; /* absolute */
	int source_fd;    /* the source, opened before the mount covers anything */
};
#define PLACE_NONE ((struct place){.source_fd = -1})

/* Find the place that OPTIONS name, and everything that is wrong with it and can be known before
 * the mount: said in one sentence. *ret_place is PLACE_NONE before, and is to be cleared whatever
 * comes of it. The mount point is not asked anything where it may be dead. -EINVAL. */
errint_t preflight(const struct options *options, struct place *ret_place);
/* Close the source. */
void place_leave(struct place *place);
void place_clear(struct place *place);

#endif
