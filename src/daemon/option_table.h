/* SPDX-License-Identifier: Apache-2.0 */
/*
 * option_table.h - the words that foldfs takes: for the options_*.c files, and for the completion of
 * shells (packaging/completion.c), which includes nothing else
 */
#ifndef FOLDFS_OPTION_TABLE_H
#define FOLDFS_OPTION_TABLE_H

#include <stdbool.h>

/*
 * Words with a value, of which the last one counts: X(name, value, changes). VALUE is what is
 * possible, with | between, or in capitals what kind of value it is. CHANGES: `foldctl set` can
 * change it.
 */
#define OPTION_VALUES(X)                                                                           \
	X(pool, "SIZE", true)                                                                      \
	X(window, "SIZE", true)                                                                    \
	X(maps, "SIZE", true)                                                                      \
	X(transport, "auto|io_uring|dev", false)                                                   \
	X(seccomp, "on|off", false)                                                                \
	X(survive, "on|off", false)                                                                \
	X(survive_wait, "SEC", false)                                                              \
	X(watchdog, "SEC", false)                                                                  \
	X(locks, "source|mount", false)                                                            \
	X(attr_timeout, "SEC", true)                                                               \
	X(entry_timeout, "SEC", true)                                                              \
	X(negative_timeout, "SEC", true)                                                           \
	X(passthrough_max, "SIZE", true)                                                           \
	X(state, "DIR", false)                                                                     \
	X(control, "DIR", false)                                                                   \
	X(scan, "background|off", true)                                                            \
	X(coherence, "strict|overlay", false)

/* Words that say yes, and that nothing takes back: X(word, field). */
#define OPTION_FLAGS(X)                                                                            \
	X("source-stacked", source_stacked)                                                        \
	X("pseudo-filesystems", pseudo_filesystems)                                                \
	X("one-file-system", one_file_system)

/* Words that set a field: X(word, field, to, changes). */
#define OPTION_SETS(X)                                                                             \
	X("watch", watch, WATCH_ON, true)                                                          \
	X("nowatch", watch, WATCH_OFF, true)                                                       \
	X("replace", replace, 1, false)                                                            \
	X("debug", debug, 1, false)                                                                \
	X("-f", foreground, 1, false)                                                              \
	X("-d", debug, 1, false)                                                                   \
	X("--debug", debug, 1, false)                                                              \
	X("-h", help, 1, false)                                                                    \
	X("--help", help, 1, false)                                                                \
	X("-V", version, 1, false)                                                                 \
	X("--version", version, 1, false)

/* Words that are looked at one by one: X(word, key, changes). */
#define OPTION_WORDS(X)                                                                            \
	X("passthrough=", KEY_PASSTHROUGH, true)                                                   \
	X("nopassthrough", KEY_NO_PASSTHROUGH, true)                                               \
	X("allow_other", KEY_ALLOW_OTHER, false)                                                   \
	X("default_permissions", KEY_DEFAULT_PERMISSIONS, false)                                   \
	X("fsname=", KEY_FSNAME, false)                                                            \
	X("subtype=", KEY_SUBTYPE, false)                                                          \
	X("io_uring", KEY_IO_URING, false)                                                         \
	X("-r", KEY_READ_ONLY, false)                                                              \
	X("ro", KEY_RO, false)                                                                     \
	X("rw", KEY_RW, false)                                                                     \
	X("remount", KEY_REMOUNT, false)

/* libfuse's own words, which are handed on: X(word). */
#define OPTION_KEPT(X)                                                                             \
	X("io_uring_q_depth=")                                                                     \
	X("allow_root")                                                                            \
	X("auto_unmount")                                                                          \
	X("context=")                                                                              \
	X("fscontext=")                                                                            \
	X("defcontext=")                                                                           \
	X("rootcontext=")                                                                          \
	X("suid")                                                                                  \
	X("nosuid")                                                                                \
	X("dev")                                                                                   \
	X("nodev")                                                                                 \
	X("exec")                                                                                  \
	X("noexec")                                                                                \
	X("async")                                                                                 \
	X("sync")                                                                                  \
	X("dirsync")                                                                               \
	X("noatime")                                                                               \
	X("nodiratime")                                                                            \
	X("symfollow")                                                                             \
	X("nosymfollow")

#endif
