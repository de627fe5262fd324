/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remount.h - mount -o remount: what may be changed of a mount that stands
 *
 * What the kernel itself does: ro, rw, nosuid and their like. foldfs's own options belong to the
 * daemon, which is asked for a change as `foldctl set` asks it.
 */
#ifndef FOLDFS_REMOUNT_H
#define FOLDFS_REMOUNT_H

#include "foldfs/options.h"

/* Whether WORD is one that the kernel itself changes at a remount. */
bool remount_is_word(const char *word);

/* Note WORD if it is one that a remount can change. */
void remount_take_word(struct remount *remount, const char *word);

/* Remount the FUSE mount on MOUNTPOINT. All flags that no word names stay, and so does what no word
 * of foldfs's own names. Reports errors. -EINVAL: as a rule nothing has changed. */
errint_t remount_run(const struct remount *remount, const char *mountpoint);

#endif
