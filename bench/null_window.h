/* SPDX-License-Identifier: Apache-2.0 */
/* null_window.h - holds the kernel's cache of null_fuse's files to a budget; see null_window.c */
#ifndef NULL_WINDOW_H
#define NULL_WINDOW_H

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define NULL_PAGE_SIZE    4096u
#define NULL_REGION_PAGES 64u
#define NULL_REGION_BYTES ((uint64_t)NULL_PAGE_SIZE * NULL_REGION_PAGES)

/* What the kernel caches of one file: a word of 64 page bits for each region. Any thread. */
struct null_window_file {
	fuse_ino_t node;
	uint64_t regions;
	_Atomic uint64_t *pages;
};

/* A place in the queue: one region of one file. */
struct null_window_entry {
	struct null_window_file *file;
	uint64_t region;
};

struct null_window {
	uint64_t budget;
	_Atomic uint64_t bytes;  /* noted now; any thread */
	struct fuse_session *se; /* constant after start */
	pthread_t thread;        /* of the owner */
	bool started;            /* of the owner */
	pthread_mutex_t mutex;
	pthread_cond_t full;             /* over budget, or stopping */
	bool stopping;                   /* under mutex */
	size_t head;                     /* under mutex: the oldest entry */
	size_t count;                    /* under mutex */
	size_t size;                     /* constant: every region of every file at once */
	struct null_window_entry *queue; /* under mutex */
};

/* A window of BUDGET bytes over COUNT files, whose regions are counted already. 0 or -errno. */
int null_window_init(struct null_window *window, uint64_t budget, struct null_window_file *files,
		     size_t count);
int null_window_start(struct null_window *window, struct fuse_session *se);
void null_window_stop(struct null_window *window);
void null_window_destroy(struct null_window *window, struct null_window_file *files, size_t count);

/* The kernel is about to cache these pages. Before the reply. */
void null_window_note(struct null_window *window, struct null_window_file *file, uint64_t first,
		      uint64_t pages);

#endif
