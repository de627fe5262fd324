/* SPDX-License-Identifier: Apache-2.0 */
/* preflight.h - before the mount: finds what can be wrong with it */
#ifndef FOLDFS_PREFLIGHT_H
#define FOLDFS_PREFLIGHT_H

#include "foldfs/page.h"

struct options;

/* The source and the mount point. */
struct place {
	char *source;     /* absolute */
	char *mountpoint; /* absolute */
	int source_fd;    /* the source, opened before the mount covers anything */
	int view_fd;      /* its read-only view (passthrough.h), made before the mount; or -1 */
	int claim_fd;     /* source_claim.h; -1: there is none */
};
#define PLACE_NONE ((struct place){.source_fd = -1, .view_fd = -1, .claim_fd = -1})

/* Find the place that OPTIONS name, and check everything about it that can be known before the
 * mount. An error is reported in one sentence. *ret_place must be PLACE_NONE before, and must be
 * cleared whatever the result. Asks the mount point nothing where it may be dead. -EINVAL. */
errint_t preflight(const struct options *options, struct place *ret_place);
/* Close the source. */
void place_leave(struct place *place);
void place_clear(struct place *place);

#endif
