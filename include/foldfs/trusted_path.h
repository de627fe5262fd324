/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trusted_path.h - directories that nobody else can put something else in the place of
 *
 * What is found in the state directory is believed, and who answers at the control socket too. So
 * such a directory is opened once, component by component, and used by its descriptor from then on.
 */
#ifndef FOLDFS_TRUSTED_PATH_H
#define FOLDFS_TRUSTED_PATH_H

#include "foldfs/page.h"

#include <sys/types.h>

/*
 * The directory at PATH, open for reading; the caller closes it. It and all that leads to it (also
 * by symbolic links) must be root's or OWNER's. Nobody else may write to it, nor to what leads to
 * it unless that is sticky: there only its owner can rename what is ours. With MAKE what is missing
 * is made, the directory itself with MODE, what leads to it with 0755.
 *
 * -EPERM: somebody else could change it. Other -errno of what failed. May block.
 */
int trusted_path_open(const char *path, uid_t owner, bool make, mode_t mode);

/* Whether the directory open as FD is itself as above. 0, -EPERM or -errno of fstat. */
errint_t trusted_path_check(int fd, uid_t owner);

#endif
