/* SPDX-License-Identifier: Apache-2.0 */
/* dirty_limit.h - what the kernel lets change for one mount under /sys/class/bdi */
#ifndef FOLDFS_DIRTY_LIMIT_H
#define FOLDFS_DIRTY_LIMIT_H

#include "foldfs/page.h"

/* Have the kernel keep at most WINDOW_BYTES / 8 (128 KiB for a small window) of pages of the mount
 * with this device number that were changed through mappings and are not written back: those who
 * change more are held back meanwhile. Never raises the kernel's own limit; 0 bytes: leaves it.
 * Needs root and Linux 6.2; -errno where it cannot be had, and then the kernel's limit (1 % of
 * memory) stays. */
errint_t dirty_limit_set(unsigned major, unsigned minor, uint64_t window_bytes);

#endif
