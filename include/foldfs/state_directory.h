/* SPDX-License-Identifier: Apache-2.0 */
/* state_directory.h - where what outlives a mount is kept */
#ifndef FOLDFS_STATE_DIRECTORY_H
#define FOLDFS_STATE_DIRECTORY_H

#include "foldfs/page.h"

/*
 * The directory of what is kept about SOURCE, an absolute path without symbolic links: BASE/NAME.
 * With BASE NULL that is /var/lib/foldfs/NAME for root, for others $XDG_STATE_HOME/foldfs/NAME or
 * ~/.local/state/foldfs/NAME. NAME is the path with each slash as '-', as systemd-escape(1) writes
 * it; so no two sources have one name. The caller's to free; it is not made. -ENOMEM;
 * -ENAMETOOLONG; -ENOENT: no home is known.
 */
errint_t state_directory(const char *base, const char *source, char **ret_directory);

#endif
