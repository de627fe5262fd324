/* SPDX-License-Identifier: Apache-2.0 */
/* flush.h - what clients have stored through mappings of the mount is written back before its end
 */
#ifndef FOLDFS_FLUSH_H
#define FOLDFS_FLUSH_H

/* The first word of the command line of the process that flush_mount() starts: not for people. */
#define FLUSH_WORD "--flush-mount"

/* Have the kernel write back what it holds of the mount on MOUNTPOINT, which is still served. Takes
 * some seconds at most. Nothing is said of failure: the mount may be stuck or gone. */
void flush_mount(char *mountpoint);

/* What the process that it starts does. An exit status. */
int flush_run(const char *mountpoint);

#endif
