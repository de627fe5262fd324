/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remount.h - mount -o remount: what may be changed of a mount that stands
 *
 * That is what the kernel itself does: ro, rw, nosuid and their like. Options of foldfs are the
 * daemon's, which goes on as it is.
 */
#ifndef FOLDFS_REMOUNT_H
#define FOLDFS_REMOUNT_H

#include "foldfs/options.h"

/* Note WORD if it is one that a remount can change. */
void remount_take_word(struct remount *remount, const char *word);

/* Do it to the FUSE mount on MOUNTPOINT; all flags that no word names stay. Says what is wrong.
 * -EINVAL. */
errint_t remount_run(const struct remount *remount, const char *mountpoint);

#endif
