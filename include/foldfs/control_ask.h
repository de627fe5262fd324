/* SPDX-License-Identifier: Apache-2.0 */
/* control_ask.h - the question to a daemon; shared by foldfs and foldctl */
#ifndef FOLDFS_CONTROL_ASK_H
#define FOLDFS_CONTROL_ASK_H

#include "foldfs/mountinfo.h"

#include <jansson.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* How long a daemon has to answer a request that takes no work. */
#define CONTROL_ANSWER_MS 5000

/* The control socket that was tried. */
struct control_tried {
	char *path;           /* malloced; NULL: no place of the mount's owner can be looked at */
	struct timespec made; /* when the socket was made; zeroes: there is none */
};

/* Connect to the daemon of ENTRY. While the daemon's queue of clients is full, try until DEADLINE
 * (clock_now_ms()), and once in any case. A descriptor, which does not block; -ETIMEDOUT: the queue
 * was full; -ENOENT: there is no socket; -ECONNREFUSED: nobody listens on it; -EACCES: it is
 * another user's; -EPERM: somebody else than root and the mount's owner listens on it; another
 * -errno. *RET_TRIED is set in any case, and its path is the caller's. */
int control_connect(const struct mount_entry *entry, int64_t deadline,
		    struct control_tried *ret_tried);
/* The process that listens at FD, a connection to a daemon; 0: the kernel does not tell. */
pid_t control_peer(int fd);

/* The daemon's answer to REQUEST, a line, over FD. The answer is the caller's. -ETIMEDOUT: none
 * came within ANSWER_WITHIN_MS; -EBADMSG: it is no JSON object. */
errint_t control_converse(int fd, const char *request, int64_t answer_within_ms,
			  json_t **ret_answer);

/* The line that makes REQUEST with a list of words, NULL at the end, to CHECK only or to do it.
 * Malloced; NULL: no memory, or a word is not UTF-8. */
char *control_request_of_words(const char *request, const char *const words[], bool check);

#endif
