/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl.h - what the foldctl*.c files share; no other file includes it. */
#ifndef FOLDFS_FOLDCTL_H
#define FOLDFS_FOLDCTL_H

#include "foldfs/control_ask.h"
#include "foldfs/human.h"
#include "foldfs/mountinfo.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <time.h>

#define ANSWER_MS CONTROL_ANSWER_MS
/* foldctl audit: nothing was compared, or not everything. A difference gives EXIT_FAILURE. */
#define EXIT_NOT_DONE 2

/* foldctl_text.c: print one sentence on standard error. Returns EXIT_FAILURE. */
__attribute__((format(printf, 1, 2))) int fail(const char *format, ...);
/* number(): the number at KEY, which may have one dot; 0 if there is none. text(): the text at KEY;
 * "?" if there is none. */
int64_t number(const json_t *answer, const char *key);
const char *text(const json_t *answer, const char *key);
/* Finish writing standard output, or report an error. Returns the exit status. */
int finish_output(void);

/* Take OPTION, and at most one word of ARGV that is no option. False: an error was reported. */
bool take_arguments(char *argv[], const char *option, const char **ret_word, bool *ret_given);

/* The value at KEY, which may have one dot; NULL if a daemon of another version has none. */
const json_t *value_at(const json_t *answer, const char *key);
/* COUNT pages or frames in bytes; the nearest number if the product is too large. */
int64_t bytes_of_pages(int64_t count, int64_t page_bytes);

/* foldctl_ask.c: a connection to the daemon of ENTRY, which does not block. -errno: it was
 * reported. */
int connect_to(const struct mount_entry *entry);
/* Send REQUEST, a line, to the daemon of ENTRY. Its answer is the caller's. 0, or an
 * error was reported. */
int ask(const struct mount_entry *entry, const char *request, int64_t answer_within_ms,
	json_t **ret_answer);

/* What the control socket tells of a mount. */
enum mount_state {
	MOUNT_SERVING,     /* its daemon has answered */
	MOUNT_SILENT,      /* its daemon listens, and gives no sensible answer */
	MOUNT_DEAD,        /* its daemon has ended, and has left its socket behind */
	MOUNT_PRIVATE,     /* another user's: only root and that user may ask */
	MOUNT_UNREACHABLE, /* there is no socket, or it cannot be used */
};

/* A connection of the kernel to a foldfs, and the mount that stands for it. */
struct mount_view {
	struct mount_entry entry;
	enum mount_state state; /* of one that was asked */
	pid_t pid;              /* of the daemon; 0: unknown */
	json_t *status;         /* the daemon's answer, an object; NULL: it gave none */
};

struct mount_views {
	struct mount_view *views;
	size_t count;
};

/* foldctl_views.c: the FUSE mounts of this mount namespace, of OWNER only (-1: of all). Those of
 * one connection, such as a mount and its bind mounts, are one view: of them, the first that shows
 * the whole file system, or the first. Nobody is asked. The caller clears *RET_VIEWS. 0 or
 * -errno. */
errint_t views_read(uid_t owner, struct mount_views *ret_views);
/* Ask the daemons of all VIEWS for their status, at the same time, for WITHIN_MS at most. What
 * turns out to be no foldfs mount, or to be gone, is taken out. 0 or -ENOMEM. */
errint_t views_ask(struct mount_views *views, int64_t within_ms);
void views_clear(struct mount_views *views);

/* foldctl_find.c: whether ENTRY is a foldfs mount, judged by its type or by its daemon. In the
 * second case foldctl connects to the daemon. */
bool is_ours(const struct mount_entry *entry);
/* The foldfs mount that PATH means: one that is on PATH, one of the caller's that serves PATH, or
 * one that PATH lies on. 0, or an error was reported. */
int find_mount(const char *path, struct mount_entry *ret_entry);
/* The caller's mount that serves SOURCE, an absolute path without symbolic links. -ENOENT: there is
 * none; -ENOTUNIQ: there are several, which was reported; another -errno. */
errint_t find_by_source(const char *source, struct mount_entry *ret_entry);
/* Where the caller's mount of a source shows PATH, a file below that source. *RET_PATH is malloced;
 * NULL: no such mount. 0, or an error was reported. */
int find_shown(const char *path, char **ret_path);

/* The commands; ARGV is what follows the command's name. They return the exit status. */
int command_status(char *argv[]);
int command_audit(char *argv[]);
int command_explain(char *argv[]);
int command_scan(char *argv[]);
int command_set(char *argv[]);
int command_figures(char *argv[]);
int command_list(char *argv[]);
int command_upgrade(char *argv[]);

#endif
