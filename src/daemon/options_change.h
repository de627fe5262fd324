/* SPDX-License-Identifier: Apache-2.0 */
/* options_change.h - what words change of a mount that stands, or why they are refused */
#ifndef FOLDFS_OPTIONS_CHANGE_H
#define FOLDFS_OPTIONS_CHANGE_H

#include "foldfs/options.h"

#include <stddef.h>

/*
 * Judge the COUNT WORDS, each as -o takes it, as a change of PRESENT, which stays as it is. What no
 * word names stays; what follows the pool follows it. *ret_changed is what is to hold then, the
 * caller's to clear or to commit. -EINVAL: all are refused. *ret_refusal is the reason, malloced;
 * NULL: no memory.
 */
errint_t options_change(const struct options *present, const char *const words[], size_t count,
			struct options *ret_changed, char **ret_refusal);

/* CHANGED holds from now on: put it into PRESENT, and clear what is left of it. */
void options_commit(struct options *present, struct options *changed);

#endif
