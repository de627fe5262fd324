/* SPDX-License-Identifier: Apache-2.0 */
/*
 * null_fuse.c - the lower bound: a FUSE server that answers every read from one constant buffer
 *
 * It shows files of given sizes in one read-only directory. It uses the same library, transport,
 * open flags and connection flags as foldfs, but looks nothing up and reads nothing. So no server
 * that passes its bytes through FUSE can be faster. With window= it also trims the kernel's cache
 * the way foldfs does, and so is the lower bound of cached reads beyond the window too.
 *
 * Everything except the window is constant after the start, so there is no lock here.
 *
 *	null_fuse [-f] [-o options] MOUNTPOINT NAME:BYTES ...
 */
#include "null_window.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REQUEST_BYTES (UINT64_C(1) << 20)
/* Nothing changes here. */
#define TIMEOUT 86400.0
/* As foldfs has them. */
#define THREADS_MAX    16u
#define BACKGROUND_MAX 64u

/* The root is node 1; file I is node 2 + I. */
#define FIRST_FILE_NODE 2u

struct null_file {
	char *name;
	uint64_t size;
};

struct null_fs {
	char *mountpoint;
	char *transport;
	char *window_text;
	char *buffer_text;
	bool direct;
	bool windowed;
	bool help;
	char *buffer;          /* buffer_bytes, then one request's worth more */
	uint64_t buffer_bytes; /* what a file's bytes repeat after */
	size_t count;
	struct null_file *files;
	struct null_window_file *cached;
	struct null_window window;
};

static struct null_fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static const struct null_file *file_of(const struct null_fs *fs, fuse_ino_t node)
{
	if (node < FIRST_FILE_NODE || node - FIRST_FILE_NODE >= fs->count)
		return NULL;
	return &fs->files[node - FIRST_FILE_NODE];
}

/* Attributes of NODE. False: there is no such node. */
static bool stat_of(const struct null_fs *fs, fuse_ino_t node, struct stat *ret_stat)
{
	const struct null_file *file = file_of(fs, node);

	if (!file && node != FUSE_ROOT_ID)
		return false;
	*ret_stat = (struct stat){
		.st_ino = node,
		.st_mode = file ? S_IFREG | 0444 : S_IFDIR | 0555,
		.st_nlink = file ? 1 : 2,
		.st_size = file ? (off_t)file->size : 0,
		.st_blocks = file ? (blkcnt_t)(file->size / 512) : 0,
		.st_blksize = NULL_PAGE_SIZE,
	};
	return true;
}

static void null_init(void *userdata, struct fuse_conn_info *conn)
{
	const struct null_fs *fs = userdata;

	conn->max_write = REQUEST_BYTES;
	conn->max_readahead = REQUEST_BYTES;
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
	if (fs->direct)
		fuse_set_feature_flag(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
	fuse_set_feature_flag(conn, FUSE_CAP_PARALLEL_DIROPS);
	/* Bytes only leave the kernel's cache when this server says so. */
	fuse_unset_feature_flag(conn, FUSE_CAP_AUTO_INVAL_DATA);
	fuse_set_feature_flag(conn, FUSE_CAP_EXPLICIT_INVAL_DATA);
}

static void null_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	const struct null_fs *fs = fs_of(req);
	struct fuse_entry_param entry = {.attr_timeout = TIMEOUT, .entry_timeout = TIMEOUT};

	for (size_t i = 0; parent == FUSE_ROOT_ID && i < fs->count; i++) {
		if (strcmp(fs->files[i].name, name) != 0)
			continue;
		entry.ino = FIRST_FILE_NODE + i;
		stat_of(fs, entry.ino, &entry.attr);
		fuse_reply_entry(req, &entry);
		return;
	}
	fuse_reply_err(req, ENOENT);
}

static void null_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	if (stat_of(fs_of(req), node, &st))
		fuse_reply_attr(req, &st, TIMEOUT);
	else
		fuse_reply_err(req, ENOENT);
}

static void null_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	const struct null_fs *fs = fs_of(req);

	if (!file_of(fs, node)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fi->fh = node;
	fi->direct_io = fs->direct;
	fi->keep_cache = !fs->direct;
	fuse_reply_open(req, fi);
}

static void null_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	(void)node;
	(void)fi;
	fuse_reply_err(req, 0);
}

/* Answer with LENGTH bytes that stand at BYTES: on a ring straight into the request's payload. */
static void reply_bytes(fuse_req_t req, const char *bytes, size_t length)
{
	char *payload;
	size_t room;

	if (fuse_req_is_uring(req) && fuse_req_get_payload(req, &payload, &room, NULL) == 0 &&
	    room >= length) {
		memcpy(payload, bytes, length);
		fuse_reply_buf(req, payload, length);
		return;
	}
	fuse_reply_buf(req, bytes, length);
}

static void null_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
		      struct fuse_file_info *fi)
{
	struct null_fs *fs = fs_of(req);
	const struct null_file *file = file_of(fs, node);
	uint64_t from = (uint64_t)offset;

	(void)fi;
	if (!file || from >= file->size) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	if (size > REQUEST_BYTES)
		size = REQUEST_BYTES;
	if (size > file->size - from)
		size = (size_t)(file->size - from);
	if (fs->windowed && size) {
		uint64_t first = from / NULL_PAGE_SIZE;
		uint64_t last = (from + size - 1) / NULL_PAGE_SIZE;

		null_window_note(&fs->window, &fs->cached[node - FIRST_FILE_NODE], first,
				 last - first + 1);
	}
	reply_bytes(req, fs->buffer + from % fs->buffer_bytes, size);
}

static void null_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
			 struct fuse_file_info *fi)
{
	const struct null_fs *fs = fs_of(req);
	char *list = malloc(size);
	size_t used = 0;

	(void)fi;
	if (node != FUSE_ROOT_ID || !list) {
		fuse_reply_err(req, list ? ENOTDIR : ENOMEM);
		free(list);
		return;
	}
	for (size_t i = (size_t)offset; i < fs->count; i++) {
		struct stat st;

		stat_of(fs, FIRST_FILE_NODE + i, &st);
		size_t need = fuse_add_direntry(req, list + used, size - used, fs->files[i].name,
						&st, (off_t)(i + 1));
		if (need > size - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, list, used);
	free(list);
}

static const struct fuse_lowlevel_ops operations = {
	.init = null_init,
	.lookup = null_lookup,
	.getattr = null_getattr,
	.open = null_open,
	.release = null_release,
	.read = null_read,
	.readdir = null_readdir,
};

/* A number with K, M or G. False for anything else. */
static bool parse_size(const char *text, uint64_t *ret_bytes)
{
	char *end;

	errno = 0;
	uint64_t value = strtoumax(text, &end, 10);
	unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
	if (shift)
		end++;
	if (errno || end == text || *end || *text == '-' || value > (uint64_t)INT64_MAX >> shift)
		return false;
	*ret_bytes = value << shift;
	return true;
}

static int add_file(struct null_fs *fs, const char *argument)
{
	const char *colon = strrchr(argument, ':');
	struct null_file file;

	if (!colon || colon == argument || !parse_size(colon + 1, &file.size)) {
		fprintf(stderr, "null_fuse: \"%s\" is not NAME:BYTES\n", argument);
		return -1;
	}
	struct null_file *files = realloc(fs->files, (fs->count + 1) * sizeof(*files));
	if (!files)
		return -1;
	fs->files = files;
	file.name = strndup(argument, (size_t)(colon - argument));
	if (!file.name)
		return -1;
	files[fs->count++] = file;
	return 0;
}

enum { KEY_IO_URING, KEY_DEV };

static int take_argument(void *data, const char *argument, int key, struct fuse_args *out)
{
	struct null_fs *fs = data;

	switch (key) {
	case KEY_IO_URING:
		return fuse_opt_add_arg(out, "-oio_uring");
	case KEY_DEV:
		return 0;
	case FUSE_OPT_KEY_NONOPT:
		if (fs->mountpoint)
			return add_file(fs, argument);
		fs->mountpoint = strdup(argument);
		return fs->mountpoint ? 0 : -1;
	default:
		return 1;
	}
}

static const struct fuse_opt option_table[] = {
	FUSE_OPT_KEY("transport=io_uring", KEY_IO_URING),
	FUSE_OPT_KEY("transport=dev", KEY_DEV),
	FUSE_OPT_KEY("-f", KEY_DEV),
	{"window=%s", offsetof(struct null_fs, window_text), 0},
	{"buffer=%s", offsetof(struct null_fs, buffer_text), 0},
	{"-h", offsetof(struct null_fs, help), 1},
	{"--help", offsetof(struct null_fs, help), 1},
	FUSE_OPT_END,
};

static void print_help(void)
{
	puts("usage: null_fuse [-f] [-o options] MOUNTPOINT NAME:BYTES ...\n"
	     "Answers every read from one constant buffer; stays in the foreground.\n\n"
	     "    -o transport=io_uring|dev  dev unless said\n"
	     "    -o window=SIZE             hold the kernel's cache to SIZE; 0: direct I/O\n"
	     "    -o buffer=SIZE             a constant buffer of that size (1M), for a floor "
	     "that\n"
	     "                               has to fetch its bytes from memory\n");
}

/* The buffer, so that no page of it is the kernel's zero page. */
static int make_buffer(struct null_fs *fs)
{
	uint64_t bytes = fs->buffer_bytes + REQUEST_BYTES;

	fs->buffer = aligned_alloc(NULL_PAGE_SIZE, bytes);
	if (!fs->buffer)
		return -1;
	memset(fs->buffer, 0x5a, bytes);
	return 0;
}

static int prepare(struct null_fs *fs)
{
	uint64_t budget = 0;

	fs->buffer_bytes = REQUEST_BYTES;
	if ((fs->window_text && !parse_size(fs->window_text, &budget)) ||
	    (fs->buffer_text && !parse_size(fs->buffer_text, &fs->buffer_bytes)) ||
	    fs->buffer_bytes < NULL_PAGE_SIZE || fs->buffer_bytes % NULL_PAGE_SIZE) {
		fprintf(stderr,
			"null_fuse: a size is a number with K, M or G, a buffer whole pages\n");
		return -1;
	}
	fs->direct = fs->window_text && !budget;
	fs->windowed = budget != 0;
	fs->cached = calloc(fs->count, sizeof(*fs->cached));
	if (!fs->cached || make_buffer(fs))
		return -1;
	for (size_t i = 0; i < fs->count; i++) {
		fs->cached[i].node = FIRST_FILE_NODE + i;
		fs->cached[i].regions =
			(fs->files[i].size + NULL_REGION_BYTES - 1) / NULL_REGION_BYTES;
	}
	return null_window_init(&fs->window, budget, fs->cached, fs->count);
}

static int serve(struct null_fs *fs, struct fuse_args *args)
{
	struct fuse_session *se = fuse_session_new(args, &operations, sizeof(operations), fs);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int result = -1;

	if (!se || !config)
		goto out;
	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, THREADS_MAX);
	if (fuse_set_signal_handlers(se) || fuse_session_mount(se, fs->mountpoint))
		goto out;
	if (!fs->windowed || null_window_start(&fs->window, se) == 0)
		result = fuse_session_loop_mt(se, config);
	null_window_stop(&fs->window);
	fuse_session_unmount(se);
	fuse_remove_signal_handlers(se);
out:
	if (config)
		fuse_loop_cfg_destroy(config);
	if (se)
		fuse_session_destroy(se);
	return result;
}

int main(int argc, char *argv[])
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct null_fs fs = {0};
	int result = -1;

	if (fuse_opt_parse(&args, &fs, option_table, take_argument))
		return 1;
	if (fs.help) {
		print_help();
		return 0;
	}
	if (!fs.mountpoint || !fs.count)
		fprintf(stderr,
			"null_fuse: a mount point and at least one NAME:BYTES are needed\n");
	else if (prepare(&fs) == 0)
		result = serve(&fs, &args);

	if (fs.cached)
		null_window_destroy(&fs.window, fs.cached, fs.count);
	for (size_t i = 0; i < fs.count; i++)
		free(fs.files[i].name);
	free(fs.files);
	free(fs.cached);
	free(fs.buffer);
	free(fs.mountpoint);
	fuse_opt_free_args(&args);
	return result ? 1 : 0;
}
