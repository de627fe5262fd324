/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torture.h - what the parts of the torture program share
 *
 *   content.c   bytes that tell which content they belong to
 *   op.c        operations: random from a seed, to text and back
 *   model.c     the shadow: what each file must hold, who may touch it now, what is under way
 *   files.c     a worker's descriptors, mappings and buffers
 *   guard.c     mapped memory behind the end of a file
 *   change.c    operations that change content
 *   copies.c    operations that move bytes from file to file
 *   names.c     operations on names, and changes behind the mount
 *   reading.c   operations that read, each compared with the model
 *   compare.c   the end: mount, model and source hold the same
 *   workers.c   processes and threads, the record of what ran, replay
 *   main.c      the command line
 *
 * Locks, in the order in which they are taken: ranges of files, files in the order of their numbers
 * (model.c); shared->report.lock.
 */
#ifndef TORTURE_H
#define TORTURE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <linux/aio_abi.h>

#include <liburing.h>

/* Linux has them; libc's headers may be older. */
#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif
#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80
#endif

#define PAGE        4096u
#define FILES_MAX   24u
#define FILE_PAGES  136u /* two leaves of 64 pages and a bit */
#define FILE_BYTES  (FILE_PAGES * PAGE)
#define VERSIONS    4u  /* of a page's content that are kept */
#define SIZES       16u /* of a file's size */
#define WORKERS_MAX 32u
#define RECORD_MAX  (1u << 20)
#define URING_BYTES (128u << 10) /* of the buffer that is registered */

/* 0 or a negative errno. */
typedef int errint_t;

/* ---- content ---- */

/* Content 0 is zeroes; up to LETTERS an alphabet, of which most pages are made; from UNIQUE on
 * content that one operation alone writes. */
#define LETTERS 32u
#define UNIQUE  0x80000000u

/* The bytes of content ID, moved by SHIFT, that belong at OFFSET of a file. */
void content_fill(uint32_t id, uint32_t shift, uint64_t offset, void *buffer, size_t length);
/* What the bytes around AT within LENGTH BYTES are, in words. */
void content_describe(const uint8_t *bytes, size_t length, size_t at, char *text, size_t room);

/* ---- operations ---- */

enum op_kind {
	OP_WRITE,
	OP_WRITEV,
	OP_APPEND,
	OP_URING_WRITE,
	OP_AIO_WRITE,
	OP_SENDFILE_IN,
	OP_SPLICE_IN,
	OP_VMSPLICE_IN,
	OP_STORE,
	OP_STORE_EXIT,
	OP_STORE_PRIVATE,
	OP_TRUNCATE,
	OP_TRUNCATE_PATH,
	OP_DOWN_UP,
	OP_OPEN_TRUNC,
	OP_FALLOCATE,
	OP_MADV_REMOVE,
	OP_SPACE_IOCTL,
	OP_COPY,
	OP_COPY_MAPPED,
	OP_CLONE,
	OP_REPLACE,
	OP_UNLINK,
	OP_RELINK,
	OP_AWAY,
	OP_BEHIND,
	OP_REOPEN,
	OP_READ,
	OP_READV,
	OP_MAPPED_READ,
	OP_URING_READ,
	OP_AIO_READ,
	OP_SENDFILE_OUT,
	OP_SPLICE_OUT,
	OP_VMSPLICE_OUT,
	OP_SEEK,
	OP_SOURCE,
	OP_KINDS
};

enum fd_kind {
	FD_PLAIN,
	FD_LINK, /* by the file's second name */
	FD_DIRECT,
	FD_APPEND,
	FD_READ,
	FD_KINDS
};

/* op.how of a write. */
enum write_how {
	WRITE_PLAIN,
	WRITE_V2,
	WRITE_DSYNC,
	WRITE_NOWAIT,
	WRITE_SYNC,
	WRITE_HIPRI,
	WRITE_DONTCACHE,
	WRITE_NOAPPEND,
	WRITE_HOWS
};

/* Flags of op.how; their meaning is in op.c's table. */
#define STORE_READ       4u
#define REPLACE_EXCHANGE 4u
#define REPLACE_TMPFILE  8u
#define HOW_UNLOCKED     0x100u /* a read beside changes that are under way */
#define HOW_DROP         0x200u /* the kernel drops its cache of the range first */

struct op {
	uint8_t kind;
	uint8_t fd;
	uint8_t file;
	uint8_t other; /* file that is copied from */
	uint32_t at;
	uint32_t length;
	uint32_t from; /* where it is copied from */
	uint32_t content;
	uint32_t shift;
	uint32_t how;
};

struct op_options {
	uint64_t seed;
	unsigned files;
	bool behind; /* the source is looked at and changed behind the mount too */
};

/* Operation INDEX of WORKER: the same for the same seed. */
void op_random(const struct op_options *options, unsigned worker, uint64_t index,
	       struct op *ret_op);
void op_print(FILE *out, unsigned worker, const struct op *op);
/* -EINVAL: LINE is no operation. */
errint_t op_parse(const char *line, unsigned *ret_worker, struct op *ret_op);
const char *op_name(unsigned kind);
/* The number that a word of the command line is; the program ends where it is none, or
 * above MAX. */
unsigned op_number(const char *text, unsigned max);
uint64_t random_of(uint64_t seed, uint64_t a, uint64_t b);

/* ---- the model ---- */

/* A page's newest version is `started`; up to `done` it is there for everybody. Both are written by
 * the holder of the page's exclusive lock. */
struct page_model {
	_Atomic uint64_t started;
	_Atomic uint64_t done;
	uint8_t versions[VERSIONS][PAGE];
};

struct file_model {
	pthread_mutex_t lock; /* of holds; a leaf */
	pthread_cond_t released;
	int16_t holds[FILE_PAGES +
		      1]; /* readers of a page, -1: a writer; the last one: of the size */
	/* Counts the files that had this name: descriptors of another epoch are to be opened again.
	 * Written under the exclusive lock of all pages and the size, before the change. */
	_Atomic uint64_t epoch;
	_Atomic uint64_t size_started; /* as in page_model */
	_Atomic uint64_t size_done;
	_Atomic uint64_t sizes[SIZES];
	struct page_model pages[FILE_PAGES];
};

struct report {
	pthread_mutex_t lock;
	bool failed; /* under lock; what follows is the first one's */
	unsigned worker;
	uint64_t index;
	char text[4096];
};

/* What all processes share. */
struct shared {
	struct report report;
	atomic_bool stop;
	_Atomic uint64_t sequence; /* operations begun */
	_Atomic uint64_t finished;
	_Atomic uint64_t bytes_read; /* and compared */
	_Atomic uint64_t bytes_written;
	_Atomic uint64_t beside;  /* pages read beside a change and compared */
	_Atomic uint64_t outrun;  /* the same, that could not be: too many changes meanwhile */
	_Atomic uint64_t refused; /* operations that the file system does not have */
	_Atomic uint64_t counts[OP_KINDS];
	_Atomic uint64_t at_work[WORKERS_MAX]; /* index + 1 of the operation, 0: none */
	unsigned files;                        /* constant once set up, like what follows */
	unsigned workers;
	/* Files may be served by passthrough: O_DIRECT would be the source's own, which demands
	 * alignment, and RWF_NOAPPEND is not passed on to it. */
	bool passthrough;
	char mount[4096];
	char source[4096];
	_Atomic uint64_t
		record[RECORD_MAX]; /* worker << 48 | index + 1, in the order of beginning */
	struct file_model models[FILES_MAX];
};

/* Memory that child processes share; NULL: no memory. */
struct shared *model_new(unsigned files, unsigned workers);

enum hold { HOLD_NONE = 0, HOLD_SHARED = 1, HOLD_EXCLUSIVE = 2 };

struct hold_range {
	unsigned file;
	unsigned first;
	unsigned last; /* inclusive; first > last: no page */
	enum hold pages;
	enum hold size;
};

/* Wait for all of RANGE at once, and hold it. */
void model_lock(struct shared *shared, const struct hold_range *range);
void model_unlock(struct shared *shared, const struct hold_range *range);

uint64_t model_size(struct shared *shared, unsigned file);
/* Newest content of a page that is held. */
const uint8_t *model_page(struct shared *shared, unsigned file, unsigned page);

/* A change that is under way: which pages and whether the size have a new version. One file, held
 * exclusively. */
struct change {
	struct shared *shared;
	unsigned file;
	bool size;
	bool pages[FILE_PAGES];
};

void change_begin(struct change *change, struct shared *shared, unsigned file);
void change_write(struct change *change, uint64_t at, const void *bytes, size_t length);
void change_zero(struct change *change, uint64_t at, size_t length);
/* With zeroes from the smaller size on. */
void change_size(struct change *change, uint64_t size);
/* It is done: nobody may see the old content any more. */
void change_done(struct change *change);
/* It was refused: everything is as it was. */
void change_undo(struct change *change);

/* What may be seen of a range by a reader that holds nothing: noted before the read. */
struct sight {
	uint64_t epoch;
	uint64_t size; /* number of the version */
	uint64_t pages[FILE_PAGES];
};

void sight_take(struct shared *shared, unsigned file, unsigned first, unsigned last,
		struct sight *ret_sight);

/* ---- workers ---- */

struct mapping {
	uint8_t *address; /* FILE_BYTES, or NULL */
	uint64_t epoch;
};

/* One worker; its thread's alone. */
struct worker {
	struct shared *shared;
	unsigned number;
	uint64_t index; /* of the operation at work */
	const struct op *op;
	int fds[FILES_MAX][FD_KINDS]; /* -1: not open */
	uint64_t epochs[FILES_MAX][FD_KINDS];
	struct mapping mappings[FILES_MAX];
	uint8_t *bytes; /* FILE_BYTES: what is written, or was read */
	uint8_t *private_view;
	int memory; /* memfd of FILE_BYTES */
	int pipe[2];
	struct io_uring ring;
	aio_context_t aio; /* 0: not tried */
	int ring_state;    /* 0: not tried, 1: at hand, -errno */
	uint8_t *ring_buffer;
	struct change change;
	struct sight sight;
};

/* Report a failure of W's operation; the first one ends the run. */
__attribute__((format(printf, 2, 3))) void fail(struct worker *w, const char *format, ...);
bool has_failed(const struct shared *shared);

errint_t worker_init(struct worker *w, struct shared *shared, unsigned number);
void worker_free(struct worker *w);
/* Do one operation. */
void worker_do(struct worker *w, const struct op *op);

/* An open descriptor of FILE as it is named now; the file is held, if only its size. Failures are
 * reported: -1. */
int file_open(struct worker *w, unsigned file, enum fd_kind kind);
void file_close(struct worker *w, unsigned file);
/* Have what was stored through mappings written to the source; it need not reach the
 * disk. -errno. */
errint_t file_write_back(int fd);
/* The worker's lasting mapping of FILE, shared and writable. NULL: reported. */
uint8_t *file_map(struct worker *w, unsigned file);
void file_unmap(struct worker *w, unsigned file);
void file_path(const struct worker *w, unsigned file, const char *suffix, char *path, size_t room);
void source_path(const struct worker *w, unsigned file, const char *suffix, char *path,
		 size_t room);
/* Make the files of the model, and the source's, from the seed. */
errint_t files_create(struct shared *shared, uint64_t seed);

/* Hold what W's operation needs to change LENGTH bytes at AT: the pages, and all pages and the size
 * where the file is to grow. */
void hold_for_change(struct worker *w, unsigned file, uint64_t at, size_t length,
		     struct hold_range *ret_range);
void hold_all(struct worker *w, unsigned file, struct hold_range *ret_range);

/* LENGTH bytes read at AT into BYTES by a worker that holds the range. */
void check_held(struct worker *w, unsigned file, uint64_t at, const uint8_t *bytes, size_t length,
		const char *how);

/* Copy within memory of which one side is mapped. Bytes copied: fewer where the mapped side ends in
 * a bus error, at the page that has none. */
size_t guarded_copy(void *to, const void *from, size_t length);
/* Catch what guarded_copy() runs into. In every process. */
errint_t guard_install(void);

/* Pipes and memory files, for those that move bytes through them. */
bool memory_put(struct worker *w, const void *bytes, size_t length);
bool memory_get(struct worker *w, void *bytes, size_t length);
/* Whether the worker has a ring, which is made at the first call. */
bool has_ring(struct worker *w);
/* One request of the ring that reads into, or writes from, ring_buffer, which is registered, as FD
 * is where AT is odd; and wait for it. Bytes or -errno. */
ssize_t uring_do(struct worker *w, bool write, int fd, size_t length, off_t at);
/* One asynchronous request of the kind that io_submit(2) takes (IOCB_CMD_…), and wait for it. Bytes
 * or -errno. */
ssize_t aio_do(struct worker *w, unsigned command, int fd, void *bytes, size_t length, off_t at);

/* The end of a change that is to have worked, with ERROR. */
void finish(struct worker *w, errint_t error, size_t bytes);
/* The same, where the file system may say that it does not have it: then nothing has changed. */
void finish_or_refuse(struct worker *w, errint_t error, size_t bytes);

void do_write(struct worker *w, const struct op *op);
void do_append(struct worker *w, const struct op *op);
void do_store(struct worker *w, const struct op *op);
void do_store_private(struct worker *w, const struct op *op);
void do_truncate(struct worker *w, const struct op *op);
void do_down_up(struct worker *w, const struct op *op);
void do_fallocate(struct worker *w, const struct op *op);
void do_copy(struct worker *w, const struct op *op);
void do_open_trunc(struct worker *w, const struct op *op);
void do_replace(struct worker *w, const struct op *op);
void do_unlink(struct worker *w, const struct op *op);
void do_relink(struct worker *w, const struct op *op);
void do_away(struct worker *w, const struct op *op);
void do_behind(struct worker *w, const struct op *op);
void do_reopen(struct worker *w, const struct op *op);
void do_read(struct worker *w, const struct op *op);
void do_seek(struct worker *w, const struct op *op);
void do_source(struct worker *w, const struct op *op);

/* ---- runs ---- */

struct run_options {
	struct op_options ops;
	unsigned processes;
	unsigned threads;
	uint64_t operations; /* of each worker */
	unsigned seconds;    /* 0: no limit */
	unsigned patience;   /* seconds without any operation finished that are a hang */
	const char *trace;   /* where to write what ran, on failure */
	const char *replay;  /* a script to play instead */
	bool serial;         /* one thread plays all workers of a script, in its order */
};

enum outcome { OUTCOME_OK = 0, OUTCOME_DIFFERENCE = 1, OUTCOME_TROUBLE = 2, OUTCOME_HANG = 3 };

enum outcome run_workers(struct shared *shared, const struct run_options *options);
/* Write what has begun, in that order, to options->trace. -errno. */
errint_t run_trace(struct shared *shared, const struct run_options *options);
/* Mount, model and source hold the same; by every way to read. */
enum outcome compare_all(struct shared *shared);

#endif
