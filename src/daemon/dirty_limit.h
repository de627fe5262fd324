/* SPDX-License-Identifier: Apache-2.0 */
/* dirty_limit.h - what the kernel allows to be set for one mount under /sys/class/bdi */
#ifndef FOLDFS_DIRTY_LIMIT_H
#define FOLDFS_DIRTY_LIMIT_H

#include "foldfs/page.h"

/* Limit the pages of the mount with this device number that were changed through mappings and are
 * not written back. The kernel keeps at most WINDOW_BYTES / 8 of them (128 KiB for a small window);
 * writers that change more are held back meanwhile. The limit is never above the kernel's own,
 * which the first call notes in *KERNELS (0 before). 0 bytes: leaves that limit. Needs root and
 * Linux 6.2; otherwise returns -errno, and the kernel's limit (1 % of memory) stays. One caller at
 * a time. */
errint_t dirty_limit_set(unsigned major, unsigned minor, uint64_t window_bytes, uint64_t *kernels);

#endif
