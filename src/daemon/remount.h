/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remount.h - mount -o remount: what may be changed of a mount that stands
 *
 * Only what the kernel itself does can be changed: ro, rw, nosuid and their like. foldfs's own
 * options belong to the daemon, which goes on unchanged.
 */
#ifndef FOLDFS_REMOUNT_H
#define FOLDFS_REMOUNT_H

#include "foldfs/options.h"

/* Note WORD if it is one that a remount can change. */
void remount_take_word(struct remount *remount, const char *word);

/* Remount the FUSE mount on MOUNTPOINT. All flags that no word names stay. Reports errors.
 * -EINVAL. */
errint_t remount_run(const struct remount *remount, const char *mountpoint);

#endif
