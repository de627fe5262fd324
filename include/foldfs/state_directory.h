/* SPDX-License-Identifier: Apache-2.0 */
/* state_directory.h - where state that outlives a mount is kept */
#ifndef FOLDFS_STATE_DIRECTORY_H
#define FOLDFS_STATE_DIRECTORY_H

#include "foldfs/page.h"

/*
 * The directory of the state of SOURCE, an absolute path without symbolic links: BASE/NAME. With
 * BASE NULL it is /var/lib/foldfs/NAME for root, and for others $XDG_STATE_HOME/foldfs/NAME or
 * ~/.local/state/foldfs/NAME. NAME is the path with each slash as '-', as systemd-escape(1) writes
 * it, so no two sources have one name. The string is the caller's to free. Does not make the
 * directory. -ENOMEM; -ENAMETOOLONG; -ENOENT: no home is known.
 */
errint_t state_directory(const char *base, const char *source, char **ret_directory);

#endif
